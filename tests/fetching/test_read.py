"""Sources to bytes: local files of every evil kind, bytes and base64."""

import base64
import os
import socket
import threading
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from imgmatch_df.batch.run import hash_sources
from imgmatch_df.errors import ArgumentError, Failure
from imgmatch_df.fetching.read import read_source
from imgmatch_df.images.fingerprints import fingerprint
from imgmatch_df.local_files import stat_file
from imgmatch_df.options import Options, make_options

OPTIONS = Options()
posix = pytest.mark.skipif(os.name != "posix", reason="files that only POSIX has")


def expect(value, status, word, options=OPTIONS):
    failure = read_source(value, options)
    assert isinstance(failure, Failure)
    assert failure.status == status, failure
    assert word in failure.detail
    assert "\n" not in failure.detail


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a b.jpg"
    path.write_bytes(b"picture")
    return path


def test_paths(picture, monkeypatch):
    monkeypatch.chdir(picture.parent)
    for value in (str(picture), "a b.jpg", "./a b.jpg", picture.as_uri(), f"  {picture}\n"):
        assert read_source(value, OPTIONS) == b"picture"


def test_a_tilde_is_not_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "a.jpg").write_bytes(b"picture")
    assert read_source("~/a.jpg", OPTIONS) == b"picture"


def test_bytes_are_not_copied():
    data = b"picture"
    assert read_source(data, OPTIONS) is data
    buffer = pa.py_buffer(data)
    view = read_source(buffer, OPTIONS)
    assert bytes(view) == data
    assert pa.py_buffer(view).address == buffer.address
    assert view[0] == ord("p")


def test_base64_and_data_uris():
    text = base64.b64encode(b"picture").decode()
    assert read_source(f"data:image/jpeg;base64,{text}", OPTIONS) == b"picture"
    assert read_source("data:,picture", OPTIONS) == b"picture"
    data = b"\xff\xd8\xff\xe0" + bytes(100)
    assert read_source(base64.b64encode(data).decode(), OPTIONS) == data


@pytest.mark.parametrize(
    ("value", "status", "word"),
    [
        (None, "missing", "null"),
        ("", "missing", "empty"),
        ("   ", "missing", "empty"),
        (b"", "missing", "zero bytes"),
        (memoryview(b""), "missing", "zero bytes"),
        ("data:image/png;base64,====", "missing", "zero bytes"),
        ("data:image/png;base64,@@@", "bad_source", "'@' at character 1"),
        ("a\0b", "bad_source", "NUL"),
        ("no-such-file.jpg", "not_found", "no-such-file.jpg"),
        ("no-such-folder/a.jpg", "not_found", "no-such-folder/a.jpg"),
        ("x" * 300 + ".jpg", "bad_source", "path too long"),
        ("https://me:secret@127.0.0.1/a.jpg", "fetch_blocked", "127.0.0.1 is a loopback address"),
        ("ftp://127.0.0.1/a.jpg", "fetch_blocked", "allow_private_networks=True"),
    ],
)
def test_unreadable_sources_fail(value, status, word):
    expect(value, status, word)


def test_details_contain_no_credentials():
    assert "secret" not in read_source("https://me:secret@127.0.0.1/a.jpg", OPTIONS).detail


def test_a_folder_and_an_empty_file_fail(tmp_path):
    expect(str(tmp_path), "bad_source", "a directory")
    (tmp_path / "empty.jpg").touch()
    expect(str(tmp_path / "empty.jpg"), "missing", "zero bytes")
    expect(str(tmp_path / "empty.jpg" / "a.jpg"), "not_found", "no such file")


@pytest.mark.parametrize("n_bytes", [99, 100, 101])
def test_max_bytes_is_inclusive_for_every_kind_of_source(tmp_path, n_bytes):
    data = bytes(range(n_bytes))
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    text = f"data:;base64,{base64.b64encode(data).decode()}"
    for value in (data, memoryview(data), str(path), text):
        result = read_source(value, Options(max_bytes=100))
        if n_bytes <= 100:
            assert result == data
        else:
            assert result.status == "too_many_bytes"
            assert "101 bytes" in result.detail
            assert "max_bytes=100" in result.detail


def test_max_bytes_is_checked_before_reading(tmp_path):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing: reading it would end the process
    expect(str(path), "too_many_bytes", "1,099,511,627,776 bytes")


@posix
def test_only_regular_files_are_read(tmp_path):
    expect("/dev/zero", "bad_source", "not a regular file")
    expect("/dev/null", "bad_source", "not a regular file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        expect(str(tmp_path / "socket"), "bad_source", "not a regular file")


@posix
@pytest.mark.parametrize("writer", [False, True])
def test_a_fifo_never_blocks(tmp_path, writer):
    path = tmp_path / "fifo.jpg"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR) if writer else None
    try:
        thread = threading.Thread(target=expect, args=(str(path), "bad_source", "not a regular file"), daemon=True)
        thread.start()
        thread.join(100)
        assert not thread.is_alive()
    finally:
        if end is not None:
            os.close(end)


@posix
def test_circular_links_fail(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    expect(str(tmp_path / "a"), "fetch_failed", "too many symbolic links")


def test_permission_denied(picture, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("imgmatch_df.fetching.files.os.open", refuse)
    expect(str(picture), "fetch_failed", "no permission to read")


def test_other_errors_of_the_system_are_named(picture, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("imgmatch_df.fetching.files.os.open", fail)
    expect(str(picture), "fetch_failed", "Input/output error")


class TestBaseDir:
    @pytest.fixture
    def base(self, tmp_path):
        base = tmp_path / "base"
        (base / "sub").mkdir(parents=True)
        (base / "sub" / "a.jpg").write_bytes(b"inside")
        (tmp_path / "base-of-others").mkdir()
        (tmp_path / "base-of-others" / "a.jpg").write_bytes(b"outside")
        (tmp_path / "a.jpg").write_bytes(b"outside")
        return base

    def test_files_inside_base_dir_are_read(self, base):
        options = Options(base_dir=str(base))
        inside = base / "sub" / "a.jpg"
        for value in ("sub/a.jpg", "sub/../sub/a.jpg", str(inside), inside.as_uri(), "../base/sub/a.jpg"):
            assert read_source(value, options) == b"inside"

    def test_base_dir_may_be_relative(self, base, monkeypatch):
        monkeypatch.chdir(base.parent)
        assert read_source("sub/a.jpg", Options(base_dir="base")) == b"inside"
        expect("../a.jpg", "fetch_blocked", "outside of base_dir", Options(base_dir="base"))

    @pytest.mark.parametrize("base_dir", ["/", "//"])
    @posix
    def test_the_root_contains_every_file(self, base, base_dir):
        assert read_source(str(base / "sub" / "a.jpg"), Options(base_dir=base_dir)) == b"inside"

    def test_paths_outside_of_base_dir_are_refused(self, base):
        options = Options(base_dir=str(base))
        outside = base.parent / "a.jpg"
        sibling = base.parent / "base-of-others" / "a.jpg"
        for value in ("../a.jpg", "sub/../../a.jpg", "../base-of-others/a.jpg", *map(str, (outside, sibling))):
            expect(value, "fetch_blocked", "outside of base_dir", options)
        expect(outside.as_uri(), "fetch_blocked", "outside of base_dir", options)
        expect("../no-such-file.jpg", "fetch_blocked", "outside of base_dir", options)

    @posix
    def test_links_to_files_outside_of_base_dir_are_refused(self, base):
        (base / "link.jpg").symlink_to(base.parent / "a.jpg")
        (base / "folder").symlink_to(base.parent)
        (base / "good.jpg").symlink_to(base / "sub" / "a.jpg")
        options = Options(base_dir=str(base))
        expect("link.jpg", "fetch_blocked", "outside of base_dir", options)
        expect("folder/a.jpg", "fetch_blocked", "outside of base_dir", options)
        assert read_source("good.jpg", options) == b"inside"

    @posix
    def test_base_dir_may_be_a_link(self, base):
        link = base.parent / "link"
        link.symlink_to(base)
        assert read_source("sub/a.jpg", Options(base_dir=str(link))) == b"inside"

    def test_missing_files_in_base_dir_are_not_found(self, base):
        expect("sub/b.jpg", "not_found", "no such file", Options(base_dir=str(base)))
        expect("sub", "bad_source", "a directory", Options(base_dir=str(base)))


def test_a_file_that_shrinks_or_grows_while_it_is_read(picture, monkeypatch):
    opened = os.open

    def append_and_open(path, flags, *args):
        descriptor = opened(path, flags, *args)
        real = os.fstat(descriptor)
        with Path(path).open("ab") as file:
            file.write(b" and more")
        monkeypatch.setattr("imgmatch_df.fetching.files.os.fstat", lambda _: real)
        return descriptor

    monkeypatch.setattr("imgmatch_df.fetching.files.os.open", append_and_open)
    assert read_source(str(picture), OPTIONS) == b"picture"


@posix
def test_a_link_replaced_during_the_call_does_not_lead_out_of_base_dir(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.jpg").write_bytes(b"outside")
    (tmp_path / "in" / "in.jpg").write_bytes(b"inside")
    link, done = tmp_path / "in" / "swap.jpg", threading.Event()
    link.symlink_to("in.jpg")

    def swap():
        while not done.is_set():
            for target in (tmp_path / "out.jpg", "in.jpg"):
                other = tmp_path / "in" / "other"
                other.symlink_to(target)
                other.replace(link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        found = [read_source("swap.jpg", Options(base_dir=str(tmp_path / "in"))) for _ in range(2000)]
    finally:
        done.set()
        swapper.join()
    assert b"outside" not in found
    assert b"inside" in found


@posix
@pytest.mark.parametrize("platform", ["linux", "another"])
def test_base_dir_is_checked_for_the_opened_file(tmp_path, monkeypatch, platform):
    # As if the link had been replaced between the check and the open.
    (tmp_path / "in").mkdir()
    (tmp_path / "out.jpg").write_bytes(b"outside")
    (tmp_path / "in" / "swap.jpg").symlink_to(tmp_path / "out.jpg")
    monkeypatch.setattr("imgmatch_df.local_files.sys.platform", platform)
    real, asked = os.path.realpath, []

    def realpath(path):
        asked.append(path)
        inside = str(path).endswith("swap.jpg") and len(asked) == 1
        return str(tmp_path / "in" / "in.jpg") if inside else real(path)

    monkeypatch.setattr("imgmatch_df.local_files.os.path.realpath", realpath)
    expect("swap.jpg", "fetch_blocked", "base_dir", Options(base_dir=str(tmp_path / "in")))


@posix
def test_files_outside_of_base_dir_do_not_show_whether_they_exist(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.jpg").write_bytes(b"outside")
    (tmp_path / "in" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "out.jpg")
    base_dir = str(tmp_path / "in")
    names = pl.Series(["../out.jpg", "link.jpg", str(tmp_path / "out.jpg"), "a.jpg"])
    assert fingerprint(names, base_dir)["size"].to_list() == [None, None, None, 6]


@pytest.mark.parametrize("base_dir", ["no-such-folder", "a.jpg"])
def test_a_base_dir_that_is_not_a_folder_is_refused(tmp_path, base_dir):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ArgumentError, match="base_dir is not a folder"):
        make_options(base_dir=tmp_path / base_dir)


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("a.jpg", "file"),
        ("/etc/passwd", "file"),
        ("file:///etc/passwd", "file"),
        ("data:,a", "data"),
        ("data:;base64,AAAA", "data"),
        ("A" * 5000, "data"),
        ("http://127.0.0.1/a.jpg", "http"),
        ("HTTPS://127.0.0.1/a.jpg", "https"),
        ("//127.0.0.1:1/a.jpg", "https"),
        ("s3://b/a.jpg", "s3"),
    ],
)
def test_schemes_limit_the_sources_of_a_column(value, scheme):
    others = {"file", "data", "http", "https", "s3"} - {scheme}
    expect(value, "fetch_blocked", "schemes= allows", make_options(schemes=others))
    found = read_source(value, make_options(schemes=[scheme.upper()]))
    assert not isinstance(found, Failure) or "schemes=" not in found.detail
    assert read_source(b"image", make_options(schemes=["http"])) == b"image"


@pytest.mark.parametrize("schemes", ["http", [], [1], ["http:"], 1, b"http"])
def test_schemes_are_names(schemes):
    with pytest.raises(ArgumentError, match="schemes must be"):
        make_options(schemes=schemes)


EVIL = "\x1b[2J\u202e\u2028\x07\x9b"
NASTY_SOURCES = [
    *("{}", "/no/{}.jpg", "file:///no/{}", "file:{}\0", "file://me:secret@{}/a.jpg", "file://" + "x" * 100_000 + "/a"),
    *("data:{}", "data:{},", "data:{},x", "data:image/png;base64,{}", "data:image/png;base64," + "A" * 97 + "{}"),
    *(
        "{}://h/a.jpg",
        "http://{}/",
        "http://me:secret@{}/",
        "http://me:secret@h:{}/",
        "http://[{}]/",
        "http://[::1%{}]/",
    ),
    *("http://127.0.0.1/{}", "http://me:secret@127.0.0.1/{}", "http://{}" + "x" * 5000 + "/", "http://h:secret/{}"),
    *("s3://{}", "s3://me:secret@b/{}", "ftp://me:secret@h/{}", "git::{}", "x" * 100_000 + "://h/{}"),
    *("nosuch+{}://h/", "nosuchscheme://me:secret@h/{}", "http://h" + "/{}" * 30_000),
]


@pytest.mark.parametrize("schemes", [None, ["file"], ["data", "https"]], ids=str)
@pytest.mark.parametrize("storage_options", [None, {"key": "secret"}], ids=["", "storage_options"])
def test_no_detail_has_control_characters_or_credentials_or_is_long(schemes, storage_options):
    values = [
        source.replace("{}", EVIL) for source in NASTY_SOURCES if not (storage_options and source.startswith("s3:"))
    ]
    options = make_options(schemes=schemes, storage_options=storage_options, timeout_s=2, attempts=1)
    rows = hash_sources(values, options)
    for row in range(len(values)):
        found = rows.row(row)
        assert found["status"] != "ok"
        assert found["detail"].isprintable(), found
        assert len(found["detail"]) < 300
        assert "secret" not in found["detail"]


@posix
def test_a_folder_replaced_during_the_call_does_not_show_files_outside(tmp_path, monkeypatch):
    (tmp_path / "in" / "folder").mkdir(parents=True)
    (tmp_path / "in" / "folder" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_bytes(b"larger outside")
    real = os.path.realpath

    def replace_and_tell(path):
        told = real(path)
        if str(path).endswith("a.jpg"):
            (tmp_path / "in" / "folder").rename(tmp_path / "in" / "moved")
            (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
        return told

    monkeypatch.setattr("imgmatch_df.local_files.os.path.realpath", replace_and_tell)
    assert stat_file("folder/a.jpg", str(tmp_path / "in")) is None


SECRET = b"Xq7#Zk9!Wv3@Yj5"
BEGINNINGS = [
    *(
        b"",
        b"root:*:",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"GIF89a",
        b"BM",
        b"BM" + bytes(16),
    ),
    *(
        b"II*\0",
        b"MM\0*",
        b"II*\0\x08\0\0\0",
        b"RIFF\0\0\0\0WEBP",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\0\0\0\x1cftyp",
        b"\0\0\0\x1cftypavif",
    ),
    *(
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\xff\x4f\xff\x51",
        b"qoif",
        b"8BPS",
        b"#?RADIANCE\n",
        b"PAR1",
        b"{",
        b"<html>",
        b"PK\3\4",
    ),
    *(bytes((0x50, digit, space)) for digit in b"1234567fF" for space in b" \n"),
    *(
        b"P5 4 ",
        b"P6\n4 4 ",
        b"P2 4 4 255\n",
        b"P3 2 2 255 1 2 3 ",
        b"P1 3 3 1 0 ",
        b"PF\n1 1\n",
        b"P6 4 4 255\n",
        b"P5 # ",
    ),
]


@pytest.mark.parametrize("isolate", [False, True], ids=["", "isolate"])
def test_details_do_not_show_the_content_of_files(tmp_path, isolate):
    paths = [tmp_path / str(number) for number in range(3 * len(BEGINNINGS))]
    for path, data in zip(paths, [a + b for a in BEGINNINGS for b in (SECRET, SECRET * 50, SECRET[:12])], strict=True):
        path.write_bytes(data)
    rows = hash_sources([str(path) for path in paths], Options(isolate=isolate))
    for row in range(len(paths)):
        detail = rows.row(row)["detail"] or ""
        shown = [
            SECRET[at : at + 3].decode() for at in range(len(SECRET) - 2) if SECRET[at : at + 3].decode() in detail
        ]
        assert not shown, detail


def test_a_file_whose_bytes_come_in_parts(tmp_path, monkeypatch):
    """Linux reads at most 2 GB at a time."""
    content = bytes(range(256)) * 40
    (tmp_path / "a.jpg").write_bytes(content)
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, n_bytes: read(file, min(n_bytes, 999)))
    assert read_source(str(tmp_path / "a.jpg"), Options()) == content
