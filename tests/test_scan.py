"""Folders and globs as lazy frames."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import imgmatch_df
from imgmatch_df import scan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number, name in enumerate(["b.JPG", "a.png", "sub/c.webp", "sub/deep/d.jpeg", "notes.txt", "sub/e[1].gif"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(frame: pl.LazyFrame, root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in frame.collect()["path"]]


def test_a_folder_gives_its_pictures_sorted(tree):
    assert names(imgmatch_df.scan_images(tree), tree) == [
        "a.png",
        "b.JPG",
        "sub/c.webp",
        "sub/deep/d.jpeg",
        "sub/e[1].gif",
    ]
    assert names(imgmatch_df.scan_images(tree, recursive=False), tree) == ["a.png", "b.JPG"]


def test_a_glob_gives_the_files_that_it_matches(tree):
    assert names(imgmatch_df.scan_images(tree / "**" / "*.jpeg"), tree) == ["sub/deep/d.jpeg"]
    assert names(imgmatch_df.scan_images(f"{tree}/*.*"), tree) == ["a.png", "b.JPG", "notes.txt"]
    assert names(imgmatch_df.scan_images(f"{tree}/*.tiff"), tree) == []


def test_one_file_and_a_folder_whose_name_looks_like_a_glob(tree):
    assert names(imgmatch_df.scan_images(tree / "sub" / "e[1].gif"), tree) == ["sub/e[1].gif"]
    (tree / "[x]").mkdir()
    (tree / "[x]" / "y.png").write_bytes(b"")
    assert names(imgmatch_df.scan_images(tree / "[x]"), tree) == ["[x]/y.png"]


def test_several_sources_keep_their_order(tree):
    sources = [tree / "sub" / "c.webp", tree / "*.png", str(tree / "b.JPG")]
    assert names(imgmatch_df.scan_images(sources), tree) == ["sub/c.webp", "a.png", "b.JPG"]
    assert names(imgmatch_df.scan_images([]), tree) == []


def test_schema_sizes_and_times(tree):
    lazy = imgmatch_df.scan_images(tree)
    assert lazy.collect_schema() == {"path": pl.String, "size": pl.UInt64, "modified": pl.Datetime("us", "UTC")}
    frame = lazy.collect()
    assert frame["size"].to_list() == [1, 0, 2, 3, 5]
    seen = datetime.fromtimestamp(int((tree / "a.png").stat().st_mtime), UTC)
    assert frame["modified"][0].replace(microsecond=0) == seen


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_slices_filters_and_projections(tree, monkeypatch, engine):
    lazy = imgmatch_df.scan_images(tree)
    assert lazy.head(2).collect(engine=engine).height == 2
    assert lazy.filter(pl.col("size") > 1).select("size").collect(engine=engine)["size"].to_list() == [2, 3, 5]
    assert lazy.filter(pl.col("path").str.ends_with("png")).head(1).collect(engine=engine).height == 1
    monkeypatch.setattr(scan, "_stat", lambda path: pytest.fail("asked for a size that nobody wants"))
    assert lazy.select("path").collect(engine=engine).height == 5


def test_nothing_is_listed_before_the_query_runs(tree):
    lazy = imgmatch_df.scan_images(tree).filter(pl.col("path").str.ends_with("late.png"))
    (tree / "late.png").write_bytes(b"")
    assert lazy.collect().height == 1
    (tree / "late.png").unlink()
    assert lazy.collect().height == 0


def test_a_file_that_vanished_has_nulls(tree, monkeypatch):
    lazy = imgmatch_df.scan_images(tree)
    listed = scan._list_paths(str(tree), recursive=True, unlisted=[])
    monkeypatch.setattr(scan, "_list_paths", lambda *_, **__: listed)
    (tree / "a.png").unlink()
    frame = lazy.collect()
    assert frame.row(0) == (str(tree / "a.png"), None, None)
    assert frame.imgmatch.visual_hash("path")["status"][0] == "not_found"


def test_a_folder_that_cannot_be_listed_is_warned_of(tree, lock):
    lock(tree / "sub")
    for source in (tree, tree / "**" / "*"):
        with pytest.warns(UserWarning, match=r"cannot list '.*/sub' \(Permission denied\)"):
            found = imgmatch_df.scan_images(source).filter(pl.col("path").str.contains(r"\.png$")).collect()
        assert [Path(path).name for path in found["path"]] == ["a.png"]
    assert names(imgmatch_df.scan_images(tree, recursive=False), tree) == ["a.png", "b.JPG"]


def test_more_files_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_BATCH_ROWS", 3)
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
    assert names(imgmatch_df.scan_images(tmp_path), tmp_path) == [f"{number}.png" for number in range(10)]
    assert names(imgmatch_df.scan_images(tmp_path).head(4), tmp_path) == [f"{number}.png" for number in range(4)]


@pytest.mark.parametrize("source", ["", "no-such-folder"])
def test_wrong_sources_raise_at_once(source):
    with pytest.raises(imgmatch_df.ArgumentError, match="Hint: "):
        imgmatch_df.scan_images(source)
