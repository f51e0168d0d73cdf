"""The command `imgmatch report`."""

import os
import sys
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, save
from PIL import Image
from report_reader import Page
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two folders with copies, one broken file, and the working directory above them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for seed in range(3):
            data = save(Image.fromarray(draw(seed, 300, 200)), "JPEG", quality=95 if folder == "a" else 50)
            (tmp_path / "photos" / folder / f"{seed}.jpg").write_bytes(data)
    (tmp_path / "photos" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "photos" / "raw.psd").write_bytes(b"x")
    return tmp_path


def run(*args: object, code: int = 0):
    result = CliRunner().invoke(app, ["report", *map(str, args)])
    assert result.exit_code == code, result.output
    return result


def page_of(path="report.html") -> Page:
    return Page(Path(path).read_bytes())


def test_a_folder(photos):
    result = run("photos", code=1)
    (line,) = result.stdout.splitlines()
    page = page_of()
    size = Path("report.html").stat().st_size
    freed = sum(path.stat().st_size for path in (photos / "photos" / "b").iterdir())
    assert line == (
        f"report.html: 7 images, 3 clusters within 24 bits, 3 copies ({freed / 1e6:,.1f} MB), 1 failed; 6 thumbnails, "
        f"{size / 1e6:,.1f} MB"
    )
    assert "too few different hashes for an estimate: 24 bits is the advised radius of bmh1" in result.stderr
    assert "1 of 7 failed: decode_failed 1" in result.stderr
    assert page.about["command"] == "imgmatch report photos --keep first"
    assert page.about["decode"] == "full"
    assert page.about["left_out"] == [{"reason": "unread format .psd", "count": 1}]
    assert page.clusters(24) == {frozenset({f"photos/a/{seed}.jpg", f"photos/b/{seed}.jpg"}) for seed in range(3)}
    assert page.removed(24) == {f"photos/b/{seed}.jpg" for seed in range(3)}
    assert [one["id"] for one in page.about["failed"]] == ["photos/cut.jpg"]


def test_keep_rules_and_folders(photos):
    run("photos", "--radius", 4, "--keep", "smallest", "--max-radius", 30, "--title", "Mine", code=1)
    page = page_of()
    assert page.removed(4) == {f"photos/a/{seed}.jpg" for seed in range(3)}
    assert (page.about["limit"], page.about["title"], page.about["suggestion"]) == (30, "Mine", None)
    run("photos", "--radius", 4, "--protect", "photos/b", "--max-pictures", 2, code=1)
    page = page_of()
    assert page.removed(4) == {f"photos/a/{seed}.jpg" for seed in range(3)}
    assert sum(place >= 0 for place in page.rows["place"]) == 2
    run("photos", "--radius", 4, "--across-folders", code=1)
    page = page_of()
    assert page.about["across"]
    assert page.about["command"].endswith("--across-folders=1")
    assert len(page.clusters(4)) == 3


def test_pairs_that_are_no_duplicates(photos):
    pairs = pl.DataFrame({"left_id": ["photos/a/1.jpg"], "right_id": ["photos/b/1.jpg"]})
    pairs.write_csv("not_duplicates.csv")
    run("photos", "--radius", 24, "--not-duplicates", "not_duplicates.csv", code=1)
    assert page_of().clusters(24) == {frozenset({f"photos/a/{seed}.jpg", f"photos/b/{seed}.jpg"}) for seed in (0, 2)}


def test_a_store_and_a_reference(photos):
    imgmatch_df.write_hashes(imgmatch_df.scan_images("photos/a"), "hashes.duckdb", source="path", decode="scaled")
    run("hashes.duckdb", "--radius", 8, "-o", "stored.html")
    page = page_of("stored.html")
    assert page.about["decode"] == "scaled"
    assert page.n == 0
    run("photos/b", "--reference", "hashes.duckdb", "--decode", "scaled", "-o", "new.html")
    page = page_of("new.html")
    assert [one["id"] for one in page.rows["reference"]] == [f"photos/a/{seed}.jpg" for seed in range(3)]
    assert all(page.thumbnails)
    assert len(page.thumbnails) == 6


def test_hashes_are_kept(photos):
    run("photos", "--store", "hashes.duckdb", code=1)
    first = page_of()
    run("photos", "--store", "hashes.duckdb", code=1)
    assert page_of().about["digest"] == first.about["digest"]
    assert imgmatch_df.read_hashes("hashes.duckdb").height == 7


def test_tables_with_images_in_them(photos):
    rows = [
        {"bytes": (photos / "photos" / folder / f"{seed}.jpg").read_bytes(), "path": f"{folder}{seed}.jpg"}
        for folder in "ab"
        for seed in range(3)
    ]
    pl.DataFrame({"image": rows}).write_parquet("train.parquet")
    run("train.parquet", "--radius", 24)
    page = page_of()
    assert page.clusters(24) == {frozenset({f"a{seed}.jpg", f"b{seed}.jpg"}) for seed in range(3)}
    assert page.rows["path"] == [row["path"] for row in rows]
    assert [page.image(node).size for node in range(6)] == [(160, 107)] * 6 or page.image(0).size == (160, 106)
    pl.DataFrame({"photo": [row["bytes"] for row in rows], "name": list("abcdef")}).write_parquet("bytes.parquet")
    run("bytes.parquet", "--radius", 24)
    page = page_of()
    assert all(page.thumbnails)
    assert page.rows["path"] == [None] * 6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(os.fsdecode(b"caf\xe9"))
    folder.mkdir()
    for name in (b"one.png", b"<b>\xff.png"):
        Image.fromarray(draw(1, 60, 40)).save(folder / os.fsdecode(name), "PNG")
    run(".", "--radius", 0, "--title", os.fsdecode(b"t\xe9"), code=1)
    page = page_of()
    assert [one["id"] for one in page.about["failed"]] == ["caf\\xe9/<b>\\xff.png", "caf\\xe9/one.png"]
    assert page.about["title"] == "t\\xe9"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "report.csv"], "unknown output ending '.csv' of 'report.csv', known are .html, .htm"),
        (["-o", "none/report.html"], "no such folder: 'none'"),
        (["-o", "folder.html"], "'folder.html' is a folder"),
        (["--reference-id", "path"], "--reference-id has no effect without --reference"),
        (["--within", "none"], "no column 'none'"),
        (["--max-radius", 2000], "max_radius must be a whole number of bits from 0 to 961, got 2000"),
        (["--hash-type", "local", "--radius", 3], "local is compared by votes and has no radius, got 3"),
        (["--keep", "best"], "keep must be one of"),
        (["--linkage", "single"], "linkage must be one of"),
    ],
)
def test_wrong_calls_hash_nothing(photos, monkeypatch, args, message):
    (photos / "folder.html").mkdir()

    def fail(*_args, **_options):
        raise AssertionError("it reads images")

    monkeypatch.setattr("imgmatch_df.cli.inputs.collect", fail)
    result = run("photos", *args, code=2)
    assert message in result.stderr
    assert not (photos / "report.html").exists()


def test_a_report_that_fails_leaves_the_old_one(photos, monkeypatch):
    (photos / "report.html").write_text("old")

    def fail(*_args, **_options):
        raise imgmatch_df.ArgumentError("no\nHint: no.")

    monkeypatch.setattr("imgmatch_df.cli.report.make_report", fail)
    result = run("photos", code=2)
    assert "report.html exists: it is replaced if this run succeeds" in result.stderr
    assert (photos / "report.html").read_text() == "old"
    assert sorted(path.name for path in photos.iterdir()) == ["photos", "report.html"]
