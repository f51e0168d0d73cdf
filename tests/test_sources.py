"""What a value is, told from the value alone."""

import base64
import os
import re
import string
import tracemalloc
from urllib.parse import unquote_to_bytes

import pytest
from drawing import FORMATS, draw, every_file, jpeg
from hypothesis import given
from hypothesis import strategies as st

from imgmatch_df.errors import Failure
from imgmatch_df.sources import Source, decode_base64, describe, parse_source, redact

MAX = 1 << 28


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.jpg", Source("path", "a.jpg")),
        ("  /photos/a b.jpg\n", Source("path", "/photos/a b.jpg")),
        ("~/a.jpg", Source("path", "~/a.jpg")),
        (r"C:\photos\a.jpg", Source("path", r"C:\photos\a.jpg")),
        ("C://photos/a.jpg", Source("path", "C://photos/a.jpg")),
        ("日本/写真.jpg", Source("path", "日本/写真.jpg")),
        ("data.jpg", Source("path", "data.jpg")),
        ("files/data:1.jpg", Source("path", "files/data:1.jpg")),
        ("http.jpg", Source("path", "http.jpg")),
        ("http://h/a.jpg", Source("url", "http://h/a.jpg")),
        ("HTTPS://h/a.jpg?x=1#y", Source("url", "HTTPS://h/a.jpg?x=1#y")),
        ("s3://bucket/key", Source("url", "s3://bucket/key")),
        ("gs://bucket/key", Source("url", "gs://bucket/key")),
        ("hf://datasets/a/b.jpg", Source("url", "hf://datasets/a/b.jpg")),
        ("ftp://h/a.jpg", Source("url", "ftp://h/a.jpg")),
        ("file:///photos/a%20b.jpg", Source("path", "/photos/a b.jpg")),
        ("FILE://LocalHost/photos/a.jpg", Source("path", "/photos/a.jpg")),
        ("file:/photos/a.jpg", Source("path", "/photos/a.jpg")),
        ("file:///photos/100%25.jpg", Source("path", "/photos/100%.jpg")),
        ("file:///photos/%E5%86%99.jpg", Source("path", "/photos/写.jpg")),
        ("data:image/png;base64,iVBORw0KGgo=", Source("base64", "iVBORw0KGgo=")),
        ("DATA:;BASE64,iVBORw0K%2Bgo%3D", Source("base64", "iVBORw0K+go=")),
        ("data:image/bmp;name=a;base64,QkA", Source("base64", "QkA")),
        ("data:image/x-portable-graymap,P5%201%201%20255%0A%80", Source("bytes", b"P5 1 1 255\n\x80")),
    ],
)
def test_kinds_of_sources(value, expected):
    assert parse_source(value) == expected


@pytest.mark.skipif(os.name == "nt", reason="drives are a matter of Windows")
def test_a_drive_is_a_folder_elsewhere():
    assert parse_source("file:///C:/a.jpg") == Source("path", "/C:/a.jpg")


def test_a_drive_of_a_file_uri_loses_its_slash_on_windows(monkeypatch):
    monkeypatch.setattr("imgmatch_df.sources.os.name", "nt")
    assert parse_source("file:///C:/photos/a.jpg") == Source("path", "C:/photos/a.jpg")


@pytest.mark.parametrize(
    ("value", "status", "word"),
    [
        ("", "missing", "empty"),
        (" \n\t", "missing", "empty"),
        ("a\0.jpg", "bad_source", "NUL"),
        ("file:///a%00.jpg", "bad_source", "usable path"),
        ("file://", "bad_source", "usable path"),
        ("file://server/share/a.jpg", "bad_source", "another machine: file://server/share"),
        ("http://", "bad_source", "host"),
        ("data:image/png;base64", "bad_source", "comma"),
        ("data:image/png;base64,", "missing", "without data"),
    ],
)
def test_texts_that_are_not_sources(value, status, word):
    failure = parse_source(value)
    assert isinstance(failure, Failure)
    assert failure.status == status
    assert word in failure.detail


@pytest.mark.parametrize("name", FORMATS)
def test_base64_of_every_format_is_recognised(name):
    for _, data in every_file(kind=f"{name}/"):
        for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("=")):
            assert parse_source(text) == Source("base64", text)
            assert decode_base64(text, MAX) == data


def test_paths_that_begin_as_base64_images_do():
    for path in ("/9j/a.jpg", "/9j/" + "a" * 50, "iVBORw0KGgo/" + "x" * 80 + ".png", "/9j/" + "folder/" * 20 + "a.jpg"):
        assert parse_source(path) == Source("path", path)


def test_text_longer_than_a_path_is_base64_whatever_its_beginning():
    assert parse_source("A" * 5000).kind == "base64"
    assert parse_source("A" * 4000).kind == "path"
    assert parse_source("A.B" * 5000).kind == "path"


@given(st.binary(min_size=1, max_size=200), st.integers(1, 76), st.booleans(), st.booleans())
def test_base64_round_trips_with_breaks_without_padding_and_url_safe(data, width, padded, url_safe):
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    if not padded:
        text = text.rstrip("=")
    broken = "\r\n".join(text[at : at + width] for at in range(0, len(text), width)) + "\n"
    assert decode_base64(broken, MAX) == data
    assert decode_base64(broken, len(data)) == data
    assert decode_base64(broken, len(data) - 1).status == "too_many_bytes"


@given(st.text(st.sampled_from(string.ascii_letters + string.digits + "+/-_=%.é\0 \n"), max_size=40))
def test_no_text_makes_base64_raise(text):
    result = decode_base64(text, MAX)
    if isinstance(result, Failure):
        assert result.status == "bad_source"
    else:
        assert not set(text) & set("%.é\0")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("iVBO*w0KGgo=", "'*' at character 5"),
        ("iVBOéw0KGgo=", "'é' at character 5"),
        ("iVB=ORw0KGgo", "'=' before the end"),
        ("iVBOR", "5 characters"),
    ],
)
def test_wrong_base64_says_what_is_wrong(text, word):
    failure = decode_base64(text, MAX)
    assert failure.status == "bad_source"
    assert word in failure.detail


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.jpg", "a.jpg"),
        (None, "<null>"),
        (b"12345", "<5 bytes>"),
        (memoryview(bytes(1234)), "<1,234 bytes>"),
        ("https://user:secret@host/a.jpg", "https://host/a.jpg"),
        ("https://user:p@ss@host/a@b.jpg", "https://host/a@b.jpg"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("https://h/a?w=3&X-Amz-Signature=abcdef&X-Amz-Date=1", "https://h/a?w=3&X-Amz-Signature=…&X-Amz-Date=1"),
        ("https://h/a?access_token=abc#f", "https://h/a?access_token=…#f"),
        ("/photos/me@home.jpg", "/photos/me@home.jpg"),
        ("a\nb\x1b[31m.jpg", "a�b�[31m.jpg"),
    ],
)
def test_describe(value, expected):
    assert describe(value) == expected


@given(st.text(max_size=300), st.integers(1, 120))
def test_describe_is_one_short_printable_line(text, max_chars):
    shown = describe(text, max_chars)
    assert len(shown) <= max_chars
    assert shown.isprintable()


def test_describe_does_not_show_a_long_credential():
    assert "secret" not in describe("https://user:" + "secret" * 600 + "@host/a.jpg")


@given(st.text(max_size=100))
def test_no_text_makes_parse_source_raise(text):
    result = parse_source(text)
    assert isinstance(result, Source | Failure)


def test_a_long_base64_image_is_recognised_quickly():
    text = base64.b64encode(jpeg(draw(1, 600, 400), quality=100)).decode()
    assert parse_source(text).kind == "base64"


@pytest.mark.parametrize("bad", ["?key", "?", "key", ";sig", "&", "?key=", "=", "?=", "&key", "#", ";", "?=key"])
def test_redact_takes_time_in_proportion_to_the_text(bad):
    # Of two megabytes: what takes the square of that takes hours, and ends by pytest's timeout.
    url = "http://h/?" + bad * ((2 << 20) // len(bad))
    assert redact(url)[:10] == "http://h/?"


@given(st.lists(st.sampled_from(["?", "&", ";", "#", "=", "key", "sig", "a", "b"]), max_size=14).map("".join))
def test_redact_removes_the_values_of_secret_names(query):
    slow = re.sub(r"([?&;][^=&;#]*(?:key|sig)[^=&;#]*=)[^&;#]*", r"\1…", f"http://h/{query}")
    assert redact(f"http://h/{query}") == slow


@pytest.mark.parametrize("at_a_time", [1 << 20, 3, 4, 7])
@given(
    st.lists(st.sampled_from(["%", "%4", "%41", "%zz", "A", "é", "%e9", "4", "%%", "%2B"]), max_size=20).map("".join)
)
def test_percent_escapes_are_those_of_urllib(at_a_time, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgmatch_df.sources._UNESCAPED_AT_A_TIME", at_a_time)
        assert parse_source(f"data:,.{text}") == Source("bytes", unquote_to_bytes(f".{text}"))


def test_percent_escapes_take_no_more_than_a_few_times_their_length():
    text = "data:;base64," + "%41" * 2_000_000
    tracemalloc.start()
    parse_source(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(text)


def test_base64_that_is_too_long_is_not_copied():
    text = "A" * (8 << 20)
    tracemalloc.start()
    assert decode_base64(text, 1 << 20).status == "too_many_bytes"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
