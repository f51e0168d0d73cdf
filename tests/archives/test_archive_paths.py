"""Paths of members: what they name, and that no file has such a path."""

import os
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgmatch_df.archives.paths import MemberPath, is_archive, is_compressed, member_text, sample_key, split_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("././b/./a.jpg", "b/a.jpg"),
        ("/etc/a.jpg", "etc/a.jpg"),
        ("b//a.jpg", "b/a.jpg"),
        ("../a.jpg", r"\x2e\x2e/a.jpg"),
        ("b/..", r"b/\x2e\x2e"),
        ("b/.../a.", "b/.../a."),
        ("a!b#c::d e\n.jpg", "a!b#c::d e\n.jpg"),
        ("caf\udce9.jpg", r"caf\xe9.jpg"),
        ("é.jpg", "é.jpg"),
        ("C:\\a.jpg", "C:\\a.jpg"),
    ],
)
def test_the_text_of_a_name(name, text):
    assert member_text(name) == text


@given(st.text("ab./\\", max_size=12))
def test_no_text_leads_out_of_the_archive(name):
    text = member_text(name)
    assert ".." not in text.split("/")
    assert posixpath.normpath(f"a.tar/{text}") == f"a.tar/{text}".rstrip("/")
    assert member_text(text) == text


def test_the_part_of_a_path_that_is_a_file_is_the_archive(tmp_path):
    (tmp_path / "folder.zip").mkdir()
    archive = tmp_path / "folder.zip" / "A.TAR"
    archive.write_bytes(b"")
    (tmp_path / "folder.zip" / "a.jpg").write_bytes(b"")
    assert split_path(f"{archive}/x.zip/./b.jpg") == MemberPath(str(archive), "x.zip/b.jpg")
    for path in (archive, tmp_path / "folder.zip" / "a.jpg", tmp_path / "no.tar" / "a.jpg", "a.jpg", "x.tarz/a"):
        assert split_path(str(path)) is None
    assert is_archive(str(archive))
    assert not is_archive(str(tmp_path / "folder.zip"))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar.zst", "a.tar.bz2", "a.txz"])
def test_compressed_tars_are_known(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert is_compressed(name)
    path = split_path(f"{tmp_path}/{name}/a.jpg")
    assert path is not None
    assert path.is_compressed


@pytest.mark.skipif(os.name != "posix", reason="Windows takes x.tar/../y for y")
def test_the_path_of_a_member_is_not_that_of_a_file(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"")
    for path in ("a.tar/b.jpg", "a.tar/../b.jpg"):
        with pytest.raises(NotADirectoryError):
            os.stat(f"{tmp_path}/{path}")  # noqa: PTH116  # a Path changes it


@pytest.mark.parametrize(
    ("name", "key"),
    [("000.jpg", "000"), ("a/b.c.jpg", "a/b"), ("./x.png", "./x"), ("none", None), ("a.b/c", None), (".a", None)],
)
def test_keys_of_samples(name, key):
    assert sample_key(name) == key
