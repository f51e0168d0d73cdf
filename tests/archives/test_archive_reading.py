"""Members as sources: limits, rules, damage, and every interface that takes paths."""

import json
import os
import random
import struct
import tarfile
import threading
import warnings
import zipfile

import polars as pl
import pytest
from archives import image, write_tar, write_zip
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.archives import index
from imgmatch_df.cli.app import app
from imgmatch_df.documented.values import RECORD, URL
from imgmatch_df.errors import Failure
from imgmatch_df.fetching.read import read_source
from imgmatch_df.images.fingerprints import fingerprint
from imgmatch_df.options import Options, make_options
from imgmatch_df.report.nodes import path_and_link
from imgmatch_df.server.handlers import _source


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(path, status, word="", **options):
    found = read_source(path, make_options(**options))
    assert isinstance(found, Failure)
    assert (found.status, "\n" in found.detail) == (status, False), found
    assert word in found.detail
    return found


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def test_max_bytes_holds_before_anything_is_decompressed(here):
    write_zip(here / "bomb.zip", {"a.jpg": bytes(50_000_000), "b.jpg": image(1)})
    write_tar(here / "a.tar", {"a.jpg": image(1), "none.jpg": b""})
    n_bytes = len(image(1))
    for archive in ("bomb.zip/b.jpg", "a.tar/a.jpg"):
        assert read_source(archive, make_options(max_bytes=n_bytes)) == image(1)
        fails(archive, "too_many_bytes", f"{n_bytes:,} bytes", max_bytes=n_bytes - 1)
    fails("bomb.zip/a.jpg", "too_many_bytes", "50,000,000 bytes", max_bytes=1000)
    fails("a.tar/none.jpg", "missing", "zero bytes")
    fails("a.tar/lost.jpg", "not_found", "no such member")


def patched(path, name, **fields):
    """Change fields of the entry of a member in the directory of a zip."""
    places = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<L"), "stored": (20, "<L"), "size": (24, "<L")}
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))
    for field, value in fields.items():
        offset, form = places[field]
        struct.pack_into(form, data, at + offset, value)
    path.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_directory_that_lies(here, method):
    """A size, a checksum or a length that is wrong fails the row, and no more than the size said is decompressed."""
    data = bytes(3_000_000)
    lies = [{"size": 1000}, {"size": 4_000_000}, {"crc": 1}, {"stored": 5}]
    if method != zipfile.ZIP_DEFLATED:  # whose end is known by itself
        lies.append({"stored": 0xFFFFFFF0})
    for fields in lies:
        path = write_zip(here / "a.zip", {"a.jpg": data, "b.jpg": image(1)}, method)
        patched(path, "a.jpg", **fields)
        os.utime(path, ns=(hash(str(fields)) % 2**40,) * 2)
        fails("a.zip/a.jpg", "fetch_failed", "damaged zip archive")
        assert read_source("a.zip/b.jpg", Options()) == image(1)


def test_encrypted_members_and_unknown_compressions(here):
    path = write_zip(here / "a.zip", {"a.jpg": image(1), "b.jpg": image(2), "c.jpg": image(3)})
    patched(path, "a.jpg", flags=1)
    patched(path, "b.jpg", method=9)
    fails("a.zip/a.jpg", "fetch_failed", "an encrypted member: a.zip/a.jpg")
    fails("a.zip/b.jpg", "fetch_failed", "a compression that zipfile does not read: deflate64")
    assert read_source("a.zip/c.jpg", Options()) == image(3)
    checked = imgmatch_df.scan_images("a.zip").imgmatch.visual_hash("path").collect()
    assert checked["status"].to_list() == ["fetch_failed", "fetch_failed", "ok"]


def test_a_local_header_that_is_not_there(here):
    path = write_zip(here / "a.zip", {"a.jpg": image(1)})
    data = bytearray(path.read_bytes())
    data[0] = 0
    path.write_bytes(data)
    fails("a.zip/a.jpg", "fetch_failed", "no member at the place")


def test_base_dir_and_schemes_hold_for_members(here):
    (here / "base").mkdir()
    write_tar(here / "base" / "in.tar", {"a.jpg": image(1)})
    write_tar(here / "out.tar", {"a.jpg": image(2)})
    (here / "base" / "link.tar").symlink_to(here / "out.tar")
    (here / "out.tar.gz").write_bytes(b"")
    assert read_source("in.tar/a.jpg", make_options(base_dir="base")) == image(1)
    for path in (
        "../out.tar/a.jpg",
        f"{here}/out.tar/a.jpg",
        "link.tar/a.jpg",
        "../no.tar/a.jpg",
        "../out.tar.gz/a.jpg",
        "../no.tar.gz/a.jpg",
    ):
        fails(path, "fetch_blocked", "outside of base_dir", base_dir="base")
    fails("base/in.tar/a.jpg", "fetch_blocked", "a path", schemes=["http", "data"])
    stamps = fingerprint(pl.Series(["in.tar/a.jpg", "link.tar/a.jpg", "in.tar/b.jpg"]), "base")
    assert stamps["size"].to_list() == [len(image(1)), None, None]


def test_a_documented_request_reads_no_member_without_base_dir(here):
    write_zip(here / "a.zip", {"a.jpg": image(1)})
    (here / "r.json").write_text(json.dumps({"records": [{"_url": "a.zip/a.jpg"}]}))
    blocked = run("visual-hash", "r.json", "-o", "out.json", code=1)
    assert "fetch_blocked" in blocked.stderr
    run("visual-hash", "r.json", "--base-dir", ".", "-o", "out.json")


@pytest.mark.parametrize("value", ["a.zip/a.jpg", "file:a.zip/a.jpg", "/a.zip/a.jpg", "zip://a.jpg::a.zip"])
def test_the_service_takes_no_member(here, value):
    write_zip(here / "a.zip", {"a.jpg": image(1)})
    found = _source({URL: value, RECORD: {"_url": value}})
    assert isinstance(found, Failure)
    assert found.status == "bad_source"


def test_a_store_skips_members_of_an_unchanged_archive(here):
    path = write_tar(here / "a.tar", {"a.jpg": image(1), "b.jpg": image(2)})
    for frame in (imgmatch_df.scan_images("a.tar"), imgmatch_df.scan_images("a.tar").select("path")):
        done = imgmatch_df.write_hashes(frame, "h.duckdb", source="path")
    assert (done.n_new, done.n_skipped, done.n_failed) == (0, 2, 0)
    assert run("visual-hash", "a.tar", "-o", "h.duckdb").stdout == "h.duckdb: 0 new, 2 unchanged\n"
    write_tar(path, {"a.jpg": image(3), "b.jpg": image(2), "c.jpg": image(4)})
    done = imgmatch_df.write_hashes(imgmatch_df.scan_images("a.tar"), "h.duckdb", source="path")
    assert (done.n_new, done.n_changed) == (1, 2)
    expected = pl.Series([image(3), image(2), image(4)]).imgmatch.phash()
    assert imgmatch_df.read_hashes("h.duckdb").sort("source")["phash"].to_list() == expected.to_list()


def test_a_cut_archive_is_not_pruned(here):
    path = write_tar(here / "a.tar", {f"{number}.jpg": image(number) for number in range(5)})
    imgmatch_df.write_hashes(imgmatch_df.scan_images("a.tar"), "h.duckdb", source="path")
    path.write_bytes(path.read_bytes()[:-11_000])
    with (
        pytest.warns(imgmatch_df.ImgMatchWarning, match="the rest of"),
        pytest.raises((imgmatch_df.StoreError, pl.exceptions.ComputeError), match="could not all be listed"),
    ):
        imgmatch_df.write_hashes(imgmatch_df.scan_images("a.tar"), "h.duckdb", source="path", prune=True)
    result = run("visual-hash", "a.tar", "-o", "h.duckdb", "--prune", code=1)
    assert "nothing is pruned, since folders or archives could not be listed" in result.stderr
    assert imgmatch_df.read_hashes("h.duckdb").height == 5


def test_the_command_line(here):
    write_tar(here / "a.tar", {"a.jpg": image(1), "b.txt": b"1"})
    write_zip(here / "b.zip", {"a.jpg": image(1), "c.jpg": image(2)})
    run("visual-hash", "a.tar", "b.zip", "-o", "h.parquet")
    paths = ["a.tar/a.jpg", "b.zip/a.jpg", "b.zip/c.jpg"]
    assert pl.read_parquet("h.parquet")["path"].to_list() == paths
    run("rank-images", "b.zip/a.jpg", "a.tar", "-o", "ranked.csv")
    assert pl.read_csv("ranked.csv", infer_schema=False)["distance"].to_list() == ["0"]
    listed = run("remove-duplicates", "a.tar", "b.zip", "--list-removed")
    assert listed.stdout == ""
    assert "not listed: 1 removed rows that are in archives" in listed.stderr
    run("report", "a.tar", "b.zip", "-o", "r.html")
    assert "no images in 'e.zip'" in run("visual-hash", write_zip(here / "e.zip", {}).name, code=2).stderr


def test_members_are_not_moved_and_are_no_reason_to_move_a_file(here):
    write_tar(here / "a.tar", {"a.jpg": image(1), "b.jpg": image(2)})
    (here / "photos").mkdir()
    for seed, name in ((1, "a.jpg"), (2, "b.jpg")):
        (here / "photos" / name).write_bytes(image(seed))
    for order, reason in (
        (("photos", "a.tar"), "a.tar/a.jpg: is in an archive, which is not changed"),
        (("a.tar", "photos"), "photos/a.jpg: the kept image of its cluster is in an archive, not a file here"),
    ):
        run("remove-duplicates", *order, "-o", "d.csv")
        result = run("apply", "d.csv", "--move-to", "removed", code=1)
        assert result.stdout == "moved 0 files into removed\n"
        assert f"not moved: {reason}\n" in result.stderr
        assert sorted(path.name for path in (here / "photos").iterdir()) == ["a.jpg", "b.jpg"]


def test_a_report_shows_members_without_a_link(here):
    write_tar(here / "a.tar", {"a.jpg": image(1)})
    (here / "a.jpg").write_bytes(image(1))
    assert path_and_link("a.tar/a.jpg") == ("a.tar/a.jpg", None)
    assert path_and_link("a.jpg") == ("a.jpg", f"file://{here}/a.jpg")


def test_many_threads_make_one_index(here, monkeypatch):
    write_tar(here / "a.tar", {f"{number}.jpg": image(number % 5) for number in range(200)})
    index._kept.clear()
    made, list_tar = [], index.list_tar
    monkeypatch.setattr(index, "list_tar", lambda *args: made.append(1) or list_tar(*args))
    found: dict[int, object] = {}
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait()
        for member in range(number, 200, 8):
            found[member] = read_source(f"a.tar/{member}.jpg", Options())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert found == {number: image(number % 5) for number in range(200)}


def test_damaged_archives_raise_nothing(here):
    """Any byte of a header or a directory may be wrong: rows fail or are not listed, and nothing else happens."""
    rng = random.Random(3)
    tar = write_tar(here / "a.tar", {"a.jpg": b"1" * 700, "é" * 80 + ".jpg": b"2", "c.jpg": b"3"}, tarfile.GNU_FORMAT)
    archive = write_zip(here / "a.zip", {"a.jpg": b"1" * 700, "é.jpg": b"2"})
    for path in (tar, archive):
        whole = path.read_bytes()[:4096]
        for number in range(300):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 1, 3])):
                data[rng.randrange(len(data))] = rng.choice([0, 1, 32, 49, 57, 120, 255])
            path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
            os.utime(path, ns=(number, number))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", imgmatch_df.ImgMatchWarning)
                frame = imgmatch_df.scan_images(path.name).collect()
            for one in [*frame["path"], f"{path.name}/a.jpg"]:
                found = read_source(one, make_options(max_bytes=10_000))
                assert isinstance(found, bytes | Failure)
                assert isinstance(found, Failure) or len(found) <= 10_000
