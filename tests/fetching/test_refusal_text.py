"""The text of a server that refuses a request, in `detail`."""

from urllib.parse import quote

import polars as pl
import pytest
from hostile_server import HostileServer

from imgmatch_df.fetching.refusal_text import RefusalReader, without_refusal
from imgmatch_df.fetching.response import parse_header

FAST = {"allow_private_networks": True, "timeout_s": 60, "attempts": 1}


@pytest.fixture(scope="module")
def server(encoded):
    with HostileServer(encoded) as running:
        yield running


def detail(server, path, **options):
    frame = pl.DataFrame({"url": [server.url(path)]})
    return frame.imgmatch.visual_hash("url", **{**FAST, **options})["detail"].item()


@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        ("text/plain", "Please set a User-Agent, see https://w.wiki/4wJS", "Please set a User-Agent, see https://w.wiki/4wJS"),
        ("text/plain; charset=utf-8", "  two\r\n\tlines\x1b[2J\x00‮ ", "two lines [2J"),
        ("application/json", '{"error": "no \\"key\\""}', '{"error": "no \\"key\\""}'),
        ("application/problem+json", '{"title": "no"}', '{"title": "no"}'),
        ("text/html", "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1><hr>nginx",
         "403 Forbidden nginx"),
        ("text/html", "<title>Error &amp; more</title><style>p{}</style><script>x()</script><p>Go<br>away",
         "Error & more Go away"),
        ("application/xml", "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Denied</Message></Error>",
         "AccessDenied Denied"),
        ("text/plain", "a “quoted” word", 'a "quoted" word'),
        ("text/plain", "x" * 81, "x" * 79 + "…"),
        ("text/plain", "y" * 80, "y" * 80),
        ("text/plain", "see http://u:pw@h/a?token=abcd", "see http://h/a?token=…"),
    ],
)  # fmt: skip
def test_texts_are_shown(server, kind, body, shown):
    path = f"/refuse?type={quote(kind)}&text={quote(body)}"
    assert detail(server, path) == f"HTTP 403: “{shown}” after 1 attempt"
    assert detail(server, f"{path}&encoding=gzip") == f"HTTP 403: “{shown}” after 1 attempt"
    assert detail(server, f"{path}&encoding=raw") == f"HTTP 403: “{shown}” after 1 attempt"


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "x", "text/css", "video/mp4"])
def test_other_types_are_not_shown(server, kind):
    assert detail(server, f"/refuse?type={quote(kind)}&text=secret+bytes") == "HTTP 403 after 1 attempt"


@pytest.mark.parametrize("code", [400, 401, 404, 410, 429, 451, 500, 503, 999])
def test_every_refusal_has_its_text(server, code):
    assert detail(server, f"/refuse?code={code}&text=why") == f"HTTP {code}: “why” after 1 attempt"


def test_texts_of_other_charsets(server):
    text = quote("café")
    assert "“café”" in detail(server, f"/refuse?type=text/plain;charset=latin-1&charset=utf-8&text={text}")
    assert "“café”" in detail(server, f"/refuse?type=text/plain;charset=iso-8859-1&charset=latin-1&text={text}")
    assert "“caf\ufffd”" in detail(server, f"/refuse?type=text/plain;charset=zip&charset=latin-1&text={text}")


def test_a_long_refusal_is_stopped_and_a_slow_one_not_waited_for(server):
    server.n_sent = 0
    assert detail(server, "/endless-refusal").startswith("HTTP 403: “no robots please please")
    assert server.n_sent < 8 << 20
    assert detail(server, "/slow-refusal") == "HTTP 403: “no robots” after 1 attempt"


def test_connections_are_used_again_after_a_refusal(encoded):
    with HostileServer(encoded) as server:
        urls = [server.url(f"/refuse?text=no&n={n}") for n in range(20)]
        pl.DataFrame({"url": urls}).imgmatch.visual_hash("url", n_connections_per_host=1, **FAST)
        assert server.n_connections == 1


def test_a_refusal_without_text_or_with_a_broken_encoding(server):
    assert detail(server, "/refuse?text=") == "HTTP 403 after 1 attempt"
    header = parse_header(
        [b"HTTP/1.1 403 x\r\n", b"Content-Type: text/plain\r\n", b"Content-Encoding: br\r\n", b"\r\n"]
    )
    reader = RefusalReader(header)
    assert reader.take(b"\xff\xff no brotli") is False
    assert reader.text(()) == ""


def test_a_secret_that_the_limit_cuts_is_hidden():
    header = parse_header([b"HTTP/1.1 403 x\r\n", b"Content-Type: text/html\r\n", b"\r\n"])
    reader = RefusalReader(header)
    body = (b"<p>" * 2725 + b"a s3cr3t-t0ken-of-mine")[: 1 << 13]
    reader.take(body)
    assert "s3cr3t" not in reader.text(("s3cr3t-t0ken-of-mine",))


def test_the_text_can_be_removed_again():
    assert without_refusal("HTTP 429: “wait (a) “b”, Retry-After 9 s, after 1 attempt").startswith("HTTP 429")
    assert without_refusal("HTTP 403: “no ; robots” after 1 attempt") == "HTTP 403 after 1 attempt"
    assert without_refusal("HTTP 404 after 1 attempt") == "HTTP 404 after 1 attempt"
