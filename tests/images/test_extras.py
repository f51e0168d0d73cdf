"""Folders with images that an extra reads, with the extra and without it."""

import sys
from types import ModuleType

import polars as pl
import pytest
from drawing import draw, png

import imgmatch_df
from imgmatch_df.images import extras, folders
from imgmatch_df.images.decode import decode_image
from imgmatch_df.options import FORMATS, Options

NAMES = ("a.png", "b.HEIC", "c.hif", "d.jxl", "e.NEF", "f.dng", "g.psd")


@pytest.fixture
def tree(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(png(draw(1)))
    return tmp_path


def listed(source):
    return [path.rpartition("/")[2] for path in imgmatch_df.scan_images(source).collect()["path"]]


def test_without_extras_a_folder_says_what_would_read_the_rest(tree, without_extras):
    assert imgmatch_df.count_left_out(tree).rows() == [
        ("missing_extra", ".dng", 1),
        ("missing_extra", ".heic", 1),
        ("missing_extra", ".hif", 1),
        ("missing_extra", ".jxl", 1),
        ("missing_extra", ".nef", 1),
        ("unread_format", ".psd", 1),
    ]
    command = r"pip install 'imgmatch-df\[heif,jxl,raw\]'"
    text = rf"left out 1 \.psd; 1 \.dng, 1 \.heic, 1 \.hif, 1 \.jxl, 1 \.nef \({command}\)\n"
    with pytest.warns(imgmatch_df.ImgMatchWarning, match=text):
        assert listed(tree) == ["a.png"]
    assert listed(f"{tree}/*.heic") == ["b.HEIC"]  # named by the caller


@pytest.mark.parametrize("name", ["heif", "jxl", "raw"])
def test_with_an_extra_its_files_are_listed(tree, name, without_extras, monkeypatch):
    (extra,) = (one for one in extras.EXTRAS if one.name == name)
    monkeypatch.delitem(sys.modules, extra.module)
    monkeypatch.setattr(extras, "find_spec", lambda module: module if module == extra.module else None)
    found = {"heif": ["b.HEIC", "c.hif"], "jxl": ["d.jxl"], "raw": ["e.NEF", "f.dng"]}[name]
    with pytest.warns(imgmatch_df.ImgMatchWarning) as warned:
        assert listed(tree) == ["a.png", *found]
    others = ",".join(one for one in ("heif", "jxl", "raw") if one != name)
    assert f"(pip install 'imgmatch-df[{others}]')" in str(warned[0].message)


def test_a_suffix_has_one_place():
    groups = [folders.IMAGE_SUFFIXES, folders.UNREAD_SUFFIXES, *(extra.suffixes for extra in extras.EXTRAS)]
    assert sum(map(len, groups)) == len(frozenset().union(*groups)) == len(folders.KNOWN_SUFFIXES)
    assert {extra.name for extra in extras.EXTRAS} <= set(FORMATS)


def test_a_package_that_cannot_be_imported_says_so(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise ImportError("libheif.so.1: cannot open shared object file")

    module = Broken("pillow_heif")
    module.__spec__ = object()
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    failure = decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Options())
    assert failure.detail == (
        "HEIC images need pillow_heif, which cannot be imported: libheif.so.1: cannot open shared object file"
    )


def test_importing_the_project_imports_no_extra():
    frame = pl.DataFrame({"image": [png(draw(1))]}).imgmatch.visual_hash("image")
    assert frame["status"].to_list() == ["ok"]
    assert "rawpy" not in vars(sys.modules["imgmatch_df.images.raw"])
    assert "imagecodecs" not in vars(sys.modules["imgmatch_df.images.jxl"])
