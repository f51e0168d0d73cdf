"""Addresses as people write them, and which machines are not on the internet."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.urls import HttpUrl, clean_url, follow_redirect, is_ip
from imgmatch_df.sources import parse_source, redact, url_of


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://h/a.jpg", "http://h/a.jpg"),
        ("  HTTPS://H.Example/A b.jpg \n", "https://h.example/A%20b.jpg"),
        ("http://h", "http://h/"),
        ("http://h?x=1", "http://h/?x=1"),
        ("http://h:80/", "http://h/"),
        ("https://h:443/", "https://h/"),
        ("https://h:80/", "https://h:80/"),
        ("http://h:/a", "http://h/a"),
        ("http://h./a", "http://h/a"),
        ("http://例え.jp/写真.jpg?名=値#上", "http://xn--r8jz45g.jp/%E5%86%99%E7%9C%9F.jpg?%E5%90%8D=%E5%80%A4"),
        ("http://h/%e5%86%99%2F%zz%", "http://h/%e5%86%99%2F%25zz%25"),
        ('http://h/a|b<c>"d`{e}', "http://h/a%7Cb%3Cc%3E%22d%60%7Be%7D"),
        ("http://h/a?b?c=d/e#f#g", "http://h/a?b?c=d/e"),
        ("http://h/../a/./b/../c/..", "http://h/a/"),
        ("http://h\\a\\b.jpg?c\\d", "http://h/a/b.jpg?c%5Cd"),
        ("http://h/a\nb\t.jpg", "http://h/ab.jpg"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://017700000001/", "http://127.0.0.1/"),
        ("http://[2001:DB8::0:1]:8080/a", "http://[2001:db8::1]:8080/a"),
        ("http://%68ost/", "http://host/"),
        ("http://h/" + "é" * 4000, "http://h/" + "%C3%A9" * 4000),
    ],
)
def test_normal_form(written, sent):
    assert clean_url(written).text == sent


def test_credentials_become_a_header():
    cleaned = clean_url("http://me:p%40ss@h/a")
    assert cleaned == HttpUrl("http://h/a", "http", "h", "Basic bWU6cEBzcw==")
    assert clean_url("http://@h/").authorization is None


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "h/a.jpg",
        "http:/h/a",
        "ftp://h/a",
        "http://",
        "http://a..b/",
        "http://-a/",
        "http://h:0/",
        "http://h:x/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://" + "a." * 200,
    ],
)
def test_invalid_urls(bad):
    assert isinstance(clean_url(bad), Failure)
    assert clean_url(bad).status == "bad_source"


def test_a_password_without_its_at_sign_is_not_shown():
    assert "secret" not in clean_url("http://me:secret/a.jpg").detail


@given(st.text(max_size=60))
def test_any_text_fails_or_becomes_a_clean_url(text):
    cleaned = clean_url(f"http://{text}")
    if isinstance(cleaned, HttpUrl):
        assert cleaned.text.isascii()
        assert not set(cleaned.text) & set(' \t\r\n\0#\\"<>')
        assert clean_url(cleaned.text)[:3] == cleaned[:3]  # a clean address stays as it is
        if is_ip(cleaned.host):
            ipaddress.ip_address(cleaned.host)


@given(st.text(max_size=60))
def test_any_location_fails_or_stays_http(location):
    target = follow_redirect(HttpUrl("https://h/a/b", "https", "h"), location)
    assert isinstance(target, Failure) or target.scheme == "https"


@pytest.mark.parametrize(
    ("source", "location", "outcome"),
    [
        ("http://h/a/b", "c.jpg", "http://h/a/c.jpg"),
        ("http://h/a/b", "//i/c.jpg", "http://i/c.jpg"),
        ("http://h/a", "https://h/a", "https://h/a"),
        ("https://h/a", "http://h/a", "fetch_blocked"),
        ("https://h/a", "FILE:///etc/passwd", "fetch_blocked"),
        ("https://h/a", "javascript:alert(1)", "fetch_blocked"),
        ("https://h/a", "https://[", "fetch_failed"),
    ],
)
def test_redirects(source, location, outcome):
    target = follow_redirect(clean_url(source), location)
    assert (target.status if isinstance(target, Failure) else target.text) == outcome


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("//host.example/x.jpg", "https://host.example/x.jpg"),
        (" //me:x@host.example/x.jpg", "https://me:x@host.example/x.jpg"),
        ("//localhost:80/x.jpg", "https://localhost:80/x.jpg"),
        ("//[::1]/x.jpg", "https://[::1]/x.jpg"),
        ("//tmp/x.jpg", None),
        ("//server/share/x.jpg", None),
        ("example.com/a.jpg", None),
        ("a//b.jpg", None),
        ("file:///a.jpg", None),
        ("data:,x", None),
        (None, None),
        (b"http://h/", None),
    ],
)
def test_url_of(value, url):
    assert url_of(value) == url
    if isinstance(value, str):
        source = parse_source(value)
        assert (source.value if source.kind == "url" else None) == url


def test_redact_removes_only_secrets():
    long = "https://me:secret@h/" + "a" * 500 + "?token=secret&w=1"
    assert redact(long) == "https://h/" + "a" * 500 + "?token=…&w=1"
    assert redact("//me:secret@h.example/a") == "//h.example/a"
    assert redact("me@home/a.jpg") == "me@home/a.jpg"
