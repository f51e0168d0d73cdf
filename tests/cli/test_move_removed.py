"""`remove-duplicates --move-removed`: removed files are moved, and no file is deleted, replaced or missed."""

import os
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

from imgmatch_df.batch import run
from imgmatch_df.cli.app import app


def succeed(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def album(tmp_path, monkeypatch):
    """A folder `photos` in the working directory: two photos, a copy of each, and another folder of the same names."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/a", "photos/b"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("1.jpg", "2.jpg"):
            (tmp_path / folder / name).write_bytes(jpeg(draw(int(name[0]))))
    return tmp_path


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_move_removed_keeps_the_tree(album):
    result = succeed("remove-duplicates", "photos", "--move-removed", "moved")
    assert "kept 2 of 4 rows, removed 2; failed 0\n" in result.stdout
    assert "moved 2 files into moved\n" in result.stdout
    moved = ["moved/photos/b/1.jpg", "moved/photos/b/2.jpg", "moved/undo.ndjson"]
    assert files_below(album) == [*moved, "photos/a/1.jpg", "photos/a/2.jpg"]
    again = succeed("remove-duplicates", "photos", "--move-removed", "moved")
    assert "moved 0 files into moved\n" in again.stdout


def test_move_removed_takes_paths_from_outside(album, monkeypatch):
    (album / "here").mkdir()
    monkeypatch.chdir(album / "here")
    succeed("remove-duplicates", "../photos", "--move-removed", "moved")
    inside = album.relative_to(album.anchor) / "photos"
    assert files_below(album / "here") == [f"moved/{inside}/b/1.jpg", f"moved/{inside}/b/2.jpg", "moved/undo.ndjson"]


def test_move_removed_overwrites_nothing(album):
    there = album / "moved" / "photos" / "b" / "1.jpg"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"of an earlier run")
    result = succeed("remove-duplicates", "photos", "--move-removed", "moved", code=1)
    assert "moved 1 files into moved\n" in result.stdout
    assert "not moved: photos/b/1.jpg: cannot become moved/photos/b/1.jpg: File exists\n" in result.stderr
    assert there.read_bytes() == b"of an earlier run"
    assert (album / "photos" / "b" / "1.jpg").exists()


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_move_removed_moves_no_file_that_is_wanted(album):
    (album / "photos" / "hard.jpg").hardlink_to(album / "photos" / "a" / "1.jpg")
    (album / "photos" / "link.jpg").symlink_to(album / "photos" / "b" / "2.jpg")
    before = {path: path.read_bytes() for path in (album / "photos" / "a").iterdir()}
    result = succeed("remove-duplicates", "photos", "--move-removed", "moved", code=1)
    assert "not moved: 1 removed rows whose file is also the file of a kept or stored row\n" in result.stderr
    assert "not moved: photos/link.jpg: is a symbolic link\n" in result.stderr
    assert files_below(album / "moved") == ["photos/b/1.jpg", "photos/b/2.jpg", "undo.ndjson"]
    assert {path: path.read_bytes() for path in before} == before


def test_move_removed_moves_no_stored_file(album, monkeypatch):
    (album / "photos" / "again").mkdir()
    (album / "photos" / "again" / "1.jpg").write_bytes((album / "photos" / "a" / "1.jpg").read_bytes())
    succeed("visual-hash", "photos/a", "-o", "known.duckdb")
    result = succeed(
        "remove-duplicates", "photos/a", "photos/again", "--reference", "known.duckdb", "--move-removed", "moved"
    )
    assert files_below(album / "moved") == ["photos/again/1.jpg", "undo.ndjson"]
    assert "moved 1 files into moved\n" in result.stdout
    monkeypatch.chdir(album / "photos")  # where the paths of the store lead nowhere
    result = succeed("remove-duplicates", "a", "b", "--reference", "../known.duckdb", "--move-removed", "../moved")
    assert "moved 0 files into ../moved\n" in result.stdout
    assert "not moved: 4 removed rows that match a stored row whose file is not found" in result.stderr


def test_move_removed_says_what_it_cannot_move(album):
    pl.DataFrame({"url": ["https://a.invalid/1.jpg", "gone.jpg", "photos/a/1.jpg"], "phash": [7, 7, 7]}).write_csv(
        "in.csv"
    )
    result = succeed("remove-duplicates", "in.csv", "--keep", "last", "--move-removed", "moved", code=1)
    for path in ("https://a.invalid/1.jpg", "gone.jpg"):
        assert f"not moved: {path}: is not a file here\n" in result.stderr
    assert not (album / "moved").exists()


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_move_removed_copies_into_another_file_system(album, monkeypatch):
    before = {path: path.read_bytes() for path in (album / "photos" / "b").iterdir()}
    link = os.link

    def refuse(source, target, **options):
        if Path(source).parent != Path(target).parent:
            raise OSError(18, "Invalid cross-device link")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refuse)
    succeed("remove-duplicates", "photos", "--move-removed", "moved")
    assert {path: (album / "moved" / path.relative_to(album)).read_bytes() for path in before} == before
    assert files_below(album / "photos") == ["a/1.jpg", "a/2.jpg"]


def test_move_removed_can_be_undone(album):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (album / "photos").rglob("*.jpg")}
    said = succeed("remove-duplicates", "photos", "--move-removed", "moved").stderr
    assert "imgmatch apply moved/undo.ndjson --undo moves them back\n" in said
    assert "moved 2 files back\n" in succeed("apply", "moved/undo.ndjson", "--undo").stdout
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (album / "photos").rglob("*.jpg")} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--move-removed", "photos/moved"], "is in the source 'photos'"),
        (["--move-removed", "no/such"], "no such folder: 'no'"),
        (["--move-removed", "photos/a/1.jpg"], "is not a folder"),
        (["--move-removed", "moved", "--list-removed"], "run the command once for each"),
        (["--move-removed", "moved", "-o", "o.csv"], "run the command once for each"),
    ],
)
def test_move_removed_refuses_before_anything_is_hashed(album, monkeypatch, words, said):
    monkeypatch.setattr(run, "hash_batch", lambda *_: pytest.fail("hashed"))
    assert said in succeed("remove-duplicates", "photos", *words, code=2).stderr
    assert len(files_below(album)) == 4
