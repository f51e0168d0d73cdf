"""What a listing leaves out on request: patterns, hidden names; and links that it follows."""

import os
import re
from fnmatch import translate
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgmatch_df
from imgmatch_df.images.exclusion import Exclusion
from imgmatch_df.images.folders import Finder, exclusion_of
from imgmatch_df.images.scan import Rules, list_images

FILES = [
    "a.jpg",
    "b.PNG",
    "x y/c.jpg",
    "x y/d e.Jpg",
    "raw/a.jpg",
    "raw/one/small/a.jpg",
    "raw/one/two/small/b.png",
    "raw/large/a.jpg",
    "deep/raw/a.jpg",
    "#1/a.jpg",
    "!b/a.jpg",
    "[c]/a.jpg",
    "ü/Ä.jpg",
    "end /a.jpg",
    "~/a.jpg",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def listed(source, root: Path, **options) -> set[str]:
    paths = imgmatch_df.scan_images(source, **options).collect()["path"]
    return {Path(path).relative_to(root).as_posix() for path in paths}


PATTERNS = [
    ("*.png", {"b.PNG", "raw/one/two/small/b.png"}),
    ("*.JPG", {name for name in FILES if name.lower().endswith(".jpg")}),
    ("a.jpg", {name for name in FILES if name.endswith("a.jpg")}),
    ("raw", {name for name in FILES if "raw/" in name}),
    ("raw/", {name for name in FILES if "raw/" in name}),
    ("/raw", {name for name in FILES if name.startswith("raw/")}),
    ("raw/a.jpg", {"raw/a.jpg"}),
    ("**/raw/a.jpg", {"raw/a.jpg", "deep/raw/a.jpg"}),
    ("raw/**/small", {"raw/one/small/a.jpg", "raw/one/two/small/b.png"}),
    ("raw/*/small", {"raw/one/small/a.jpg"}),
    ("raw/**", {name for name in FILES if name.startswith("raw/")}),
    ("photos/raw", {name for name in FILES if name.startswith("raw/")}),  # as it is listed from the parent folder
    ("./photos/raw", {name for name in FILES if name.startswith("raw/")}),
    ("photos", set()),
    ("x y", {"x y/c.jpg", "x y/d e.Jpg"}),
    ("d e.jpg", {"x y/d e.Jpg"}),
    ("d*", {"x y/d e.Jpg", "deep/raw/a.jpg"}),
    ("D*", set()),
    ("RAW", set()),
    ("#1", {"#1/a.jpg"}),
    ("!b", {"!b/a.jpg"}),
    ("[[]c]", {"[c]/a.jpg"}),
    ("[!r]?w", set()),
    ("ü", {"ü/Ä.jpg"}),
    ("Ä.*", {"ü/Ä.jpg"}),
    ("end ", {"end /a.jpg"}),
    ("none", set()),
    (["b.png", "x y/*.jpg"], {"b.PNG", "raw/one/two/small/b.png", "x y/c.jpg", "x y/d e.Jpg"}),
    ([], set()),
]


@pytest.mark.parametrize(("exclude", "gone"), PATTERNS, ids=[str(pattern) for pattern, _ in PATTERNS])
def test_patterns_leave_out_files_and_folders(tree, monkeypatch, exclude, gone):
    monkeypatch.chdir(tree.parent)
    kept = set(FILES) - gone
    for source, root in (("photos", Path("photos")), (Path("./photos"), Path("photos")), ("photos/", Path("photos"))):
        assert listed(source, root, exclude=exclude) == kept
    if kept:
        assert listed("photos/**/*.*", Path("photos"), exclude=exclude) == kept
        assert listed("photos/**", Path("photos"), exclude=exclude) == kept
    counts = imgmatch_df.count_left_out("photos", exclude=exclude)
    assert (counts["n"].sum() > 0) == bool(gone)
    assert set(counts["reason"]) <= {"excluded_file", "excluded_folder"}


def test_an_absolute_pattern_is_compared_with_absolute_paths(tree, monkeypatch):
    kept = {name for name in FILES if not name.startswith("raw/")}
    assert listed(tree, tree, exclude=f"{tree}/raw") == kept
    monkeypatch.setenv("HOME", str(tree))
    monkeypatch.setenv("USERPROFILE", str(tree))
    assert listed("~", tree, exclude="~/raw") == kept
    assert listed("~/**/*.*", tree, exclude="~/raw/") == kept
    # The folder of the source is not searched for names.
    assert listed(tree, tree, exclude=tree.name) == set(FILES)


def test_each_excluded_file_is_counted_once(tree):
    found = list_images([str(tree), f"{tree}/**/*.jpg", str(tree / "raw")], Rules(exclude=("small", "b.png")))
    assert dict(found.left_out) == {("excluded_folder", None): 2, ("excluded_file", ".png"): 1}
    assert found.frame.height == len(FILES) - 3


def test_a_source_of_which_all_is_excluded_says_so(tree):
    with pytest.raises(imgmatch_df.ArgumentError, match=r"no images .* are listed, left out: 1 excluded file\nHint: "):
        imgmatch_df.scan_images(f"{tree}/*.jpg", exclude="*.jpg")
    with pytest.raises(imgmatch_df.ArgumentError, match="left out: 2 excluded folders; 1 excluded file"):
        list_images([str(tree / "raw")], Rules(exclude=("a.jpg", "one", "large")))
    # Polars 1 wraps what a source raises in an error of its own, with the text.
    with pytest.raises((imgmatch_df.ArgumentError, pl.exceptions.ComputeError), match="1 excluded file"):
        imgmatch_df.scan_images(tree / "a.jpg", exclude="*.jpg").collect()
    assert imgmatch_df.scan_images(tree / "raw", exclude="*").collect().is_empty()


@pytest.mark.parametrize("exclude", ["", [""], None, 5, b"*.jpg", ["*.jpg", None], "[", "/", "a\0b", "x\\", {"a"}])
def test_invalid_patterns_raise_at_once(tree, exclude):
    for function in (imgmatch_df.scan_images, imgmatch_df.count_left_out):
        with pytest.raises(imgmatch_df.ArgumentError, match=r"exclude .*\nHint: "):
            function(tree, exclude=exclude)


@pytest.mark.parametrize("option", ["hidden", "follow_links"])
def test_flags_are_true_or_false(tree, option):
    with pytest.raises(imgmatch_df.ArgumentError, match=f"{option} must be True or False"):
        imgmatch_df.scan_images(tree, **{option: "yes"})


NAMES = st.text(st.sampled_from("ab#! *?[].é"), min_size=1, max_size=5)


@given(NAMES, st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3))
def test_a_pattern_without_a_slash_matches_names_as_a_glob_does(pattern, parts):
    path = "/".join(parts)
    try:
        found = Exclusion([pattern]).matches(path)
    except imgmatch_df.ArgumentError:
        return
    if "[" in pattern or pattern == "**" or pattern.startswith("./"):
        return  # fnmatch takes a bracket that is not closed for a character
    assert found == any(re.match(translate(pattern), part) for part in parts)


# Hidden names

HIDDEN = [
    ".thumbnails",
    "@eaDir",
    "@EADIR",
    "#recycle",
    "$RECYCLE.BIN",
    "__MACOSX",
    "System Volume Information",
    ".git",
]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_folders_are_listed_on_request_or_by_name(tmp_path, name):
    for folder in (".", name, f"sub/{name}/in"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.jpg").write_bytes(b"")
    everything = {"a.jpg", f"{name}/a.jpg", f"sub/{name}/in/a.jpg"}
    with pytest.warns(imgmatch_df.ImgMatchWarning, match=r"left out 2 hidden folders\nHint: .*hidden=True"):
        assert listed(tmp_path, tmp_path) == {"a.jpg"}
    assert imgmatch_df.count_left_out(tmp_path).rows() == [("hidden_folder", None, 2)]
    assert listed(tmp_path, tmp_path, hidden=True) == everything
    # Excluded by name is no reason to warn.
    assert listed(tmp_path, tmp_path, exclude=name.replace("#", "[#]")) == {"a.jpg"}
    # A glob has hidden names where it names them.
    assert listed(f"{tmp_path}/**/*.jpg", tmp_path) == {"a.jpg"}
    assert imgmatch_df.count_left_out(f"{tmp_path}/**/*.jpg").rows() == [("hidden_folder", None, 2)]
    assert listed(f"{tmp_path}/**/*.jpg", tmp_path, hidden=True) == everything
    assert listed(f"{tmp_path}/**/{name[:3]}*/**/*.jpg", tmp_path) == everything - {"a.jpg"}
    assert listed(tmp_path / name, tmp_path) == {f"{name}/a.jpg"}


def test_hidden_images_are_counted_and_other_hidden_files_are_others(tmp_path):
    for name in ("._a.jpg", ".b.PSD", ".DS_Store", "a.jpg", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="left out 2 hidden files\n"):
        assert listed(tmp_path, tmp_path) == {"a.jpg"}
    assert sorted(imgmatch_df.count_left_out(tmp_path).rows()) == [
        ("hidden_file", ".jpg", 1),
        ("hidden_file", ".psd", 1),
        ("other_file", "", 1),
        ("other_file", ".db", 1),
    ]
    with pytest.warns(imgmatch_df.ImgMatchWarning, match=r"left out 1 \.psd\n"):
        assert listed(tmp_path, tmp_path, hidden=True) == {"._a.jpg", "a.jpg"}
    assert listed(tmp_path / "._a.jpg", tmp_path) == {"._a.jpg"}


# Links to folders

LINKS = pytest.mark.skipif(os.name == "nt", reason="links need permission there")


@LINKS
def test_links_are_followed_to_each_folder_once(tmp_path, recwarn):
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for folder in (tree / "b", elsewhere / "in"):
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"")
    (tree / "a").symlink_to(tree / "b")  # sorted before the folder that it leads to
    (tree / "c").symlink_to(elsewhere)
    (tree / "d").symlink_to(elsewhere / "in")  # which `c` contains
    (tree / "b" / "up").symlink_to(tree)
    (tree / "b" / "self").symlink_to(".")
    (elsewhere / "back").symlink_to(tree)
    (elsewhere / "round").symlink_to(elsewhere)
    (tree / "lost").symlink_to(tmp_path / "none")
    assert listed(tree, tree, follow_links=True) == {"b/1.jpg", "c/in/1.jpg"}
    counts = imgmatch_df.count_left_out(tree, follow_links=True)
    assert counts.rows() == [("broken_link", "", 1)]
    assert not recwarn.list
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="5 linked folders"):
        assert listed(tree, tree) == {"b/1.jpg"}
    # Sources that the links of an earlier one lead to are listed there, and are not empty.
    found = list_images([str(tree), str(elsewhere)], Rules(follow_links=True))
    assert found.frame["path"].to_list() == [f"{tree}/b/1.jpg", f"{tree}/c/in/1.jpg"]
    assert listed(tree, tree, follow_links=True, exclude="c") == {"b/1.jpg", "d/1.jpg"}


@LINKS
def test_a_link_out_of_the_tree_that_contains_it_ends(tmp_path):
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "one" / "two" / "top").symlink_to(tmp_path)
    assert listed(tmp_path / "one", tmp_path, follow_links=True) == {"one/two/a.jpg", "one/two/top/b.jpg"}


@LINKS
def test_a_link_that_cannot_be_read_is_unlisted(tmp_path, lock):
    (tmp_path / "tree").mkdir()
    (tmp_path / "locked" / "in").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "locked")
    lock(tmp_path / "locked")
    finder = Finder(Rules(follow_links=True))
    finder.add(str(tmp_path / "tree"))
    assert finder.unlisted == {f"{tmp_path}/tree/link": "Permission denied"}


def test_an_image_suffix_matches_in_any_case_everywhere():
    for suffix in (".jpg", ".HEIC", ".Tif", ".jp2"):
        for name in (f"a{suffix.lower()}", f"sub/b{suffix.upper()}"):
            assert exclusion_of([f"*{suffix}"]).matches(name)
    assert not exclusion_of(["*.TXT"]).matches("a.txt")
