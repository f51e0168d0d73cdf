"""`--keep`, `--prefer`, `--protect`, `--across-folders`, `--within` and `--not-duplicates` of remove-duplicates."""

import os
from pathlib import Path

import polars as pl
import pytest
from drawing import draw
from PIL import Image
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.cli.folder_rules import real_folders

pytestmark = pytest.mark.long
FILES = ["Orig/a.jpg", "Originals/a.jpg", "Originals/deep/a.jpg", "phone/a.jpg", "phone/x/a.jpg", "phone/y/a.jpg"]


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Copies of one image in several folders, each smaller and older than the one before, and another image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for number, name in enumerate([*FILES, "phone/other.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(draw(2 if "other" in name else 1, 480, 360))
        image.resize((240 - 20 * number, 180 - 15 * number), Image.Resampling.BOX).save(path, quality=90)
        os.utime(path, (1e9 - 1000 * number, 1e9 - 1000 * number))
    return tmp_path


def kept(*words, sources=("photos",), said=None):
    """Return the kept copies of the image of `FILES`, without the folder photos."""
    result = call("remove-duplicates", *sources, "--radius", 60, "-o", "out.csv", *words)
    if said is not None:
        assert said in result.stderr
    found = pl.read_csv("out.csv", infer_schema=False)
    names = [os.path.relpath(os.path.realpath(path), os.path.realpath("photos")) for path in found["path"]]
    rows = [name for name, is_kept in zip(names, found["kept"], strict=True) if is_kept == "true"]
    return [name for name in rows if "other" not in name]


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("first", "Orig/a.jpg"),
        ("last", "phone/y/a.jpg"),
        ("largest", "Orig/a.jpg"),
        ("smallest", "phone/y/a.jpg"),
        ("newest", "Orig/a.jpg"),
        ("oldest", "phone/y/a.jpg"),
    ],
)
def test_keep_and_then_keep_within_a_preferred_folder(here, rule, name):
    assert kept("--keep", rule) == [name]
    assert set(pl.read_csv("out.csv", infer_schema=False)["reason"]) == {f"kept_{rule}", "copy", "single"}
    inside = {"Orig/a.jpg": "Originals/a.jpg", "phone/y/a.jpg": "Originals/deep/a.jpg"}
    assert kept("--keep", rule, "--prefer", "photos/Originals") == [inside[name]]
    assert "kept_by_rule" in pl.read_csv("out.csv", infer_schema=False)["reason"].to_list()


@pytest.mark.parametrize(
    "folder", ["photos/phone", "./photos/phone/", "photos//phone", "photos/../photos/phone", "~/photos/phone"]
)
def test_a_folder_has_many_names(here, folder):
    copies = ["phone/a.jpg", "phone/x/a.jpg", "phone/y/a.jpg"]
    assert kept("--protect", folder) == copies
    assert kept("--prefer", folder) == copies[:1]
    assert kept("--prefer", folder, sources=[here / "photos"]) == copies[:1]
    assert kept("--protect", here / "photos" / "phone") == copies


def test_a_folder_is_no_prefix_of_text(here):
    assert kept("--protect", "photos/Orig") == ["Orig/a.jpg"]
    assert kept("--prefer", "photos/Originals", "--prefer", "photos/Orig") == ["Originals/a.jpg"]
    assert kept("--prefer", "photos/phone/y", "--prefer", "photos/phone") == ["phone/y/a.jpg"]
    assert kept("--prefer", "photos/phone", "--prefer", "photos/phone/y") == ["phone/a.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_to_folders_are_followed_and_links_to_files_are_where_they_are(here):
    (here / "link").symlink_to(here / "photos" / "phone")
    assert kept("--protect", "link") == ["phone/a.jpg", "phone/x/a.jpg", "phone/y/a.jpg"]
    assert kept("--prefer", "photos/phone", sources=["photos/Orig", "link"]) == ["phone/a.jpg"]
    (here / "photos" / "Orig" / "link.jpg").symlink_to(here / "photos" / "phone" / "other.jpg")
    found = real_folders(pl.Series(["photos/Orig/link.jpg", "https://host/a.jpg", None, "a.jpg"]), None).to_list()
    assert found == [os.path.realpath("photos/Orig"), None, None, os.path.realpath(".")]


def test_protected_images_are_all_kept_and_stand_for_their_cluster(here):
    assert kept("--protect", "photos/Originals", "--keep", "smallest") == ["Originals/a.jpg", "Originals/deep/a.jpg"]
    found = pl.read_csv("out.csv", infer_schema=False)
    assert set(found.filter(pl.col("path").str.contains("phone/a|Orig/"))["representative_id"]) == {
        "photos/Originals/deep/a.jpg"
    }
    assert found["reason"].to_list().count("protected") >= 1


def test_folders_without_images_and_folders_that_do_not_exist(here):
    (here / "empty").mkdir()
    assert kept("--protect", "empty", said="--protect empty: no image of SOURCE is in this folder") == ["Orig/a.jpg"]
    for option in ("--prefer", "--protect"):
        refused = call("remove-duplicates", "photos", option, "photos/Orignals", "-o", "o.csv", code=2).stderr
        assert f"{option} 'photos/Orignals': no such folder" in refused
    hashes = pl.DataFrame({"path": ["/mnt/gone/a.jpg"], "phash": [7]}, schema_overrides={"phash": pl.UInt64})
    hashes.write_parquet("h.parquet")
    call("remove-duplicates", "h.parquet", "--protect", "/mnt/gone", "-o", "o.csv")
    hashes.drop("path").write_parquet("h.parquet")
    assert "need a column of paths" in call("remove-duplicates", "h.parquet", "--protect", "photos", code=2).stderr


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("--across-folders", ["Orig/a.jpg"]),
        ("--across-folders=1", ["Orig/a.jpg"]),
        ("--across-folders=0", FILES),
        ("--across-folders=2", ["Orig/a.jpg"]),
    ],
)
def test_only_images_of_different_folders_are_compared(here, option, names):
    """Against the verb with the same condition as an expression."""
    depth = int(option.partition("=")[2] or 1)
    assert kept(option) == names
    frame = imgmatch_df.scan_images("photos").imgmatch.visual_hash("path", hash_types=("bmh1", "sha256")).collect()
    folders = pl.Series("folder", ["/".join(Path(path).parent.parts[: 1 + depth]) for path in frame["path"]])
    wanted = frame.with_columns(folders).imgmatch.cluster(60, across="folder", id="path")
    found = pl.read_csv("out.csv", infer_schema=False)
    assert found["kept"].to_list() == wanted["kept"].cast(pl.String).to_list()
    assert found["reason"].to_list() == wanted["reason"].cast(pl.String).to_list()


def test_different_sources_are_different_folders(here):
    sources = ["photos/Orig", "photos/phone"]
    assert kept("--across-folders=0", sources=sources) == ["Orig/a.jpg"]
    assert kept("--across-folders", sources=sources) == kept("--across-folders=1", sources=sources)
    assert kept("--across-folders=0", sources=["photos/phone"]) == ["phone/a.jpg", "phone/x/a.jpg", "phone/y/a.jpg"]


def test_a_table_counts_from_the_folder_of_all_images(here):
    call("visual-hash", "photos", "-o", "h.parquet")
    assert kept("--across-folders", sources=["h.parquet"]) == kept("--across-folders")
    call("visual-hash", "photos/phone", "-o", "h.parquet")
    assert kept("--across-folders", sources=["h.parquet"]) == kept("--across-folders", sources=["photos/phone"])


def test_the_depth_stands_behind_an_equals_sign(here):
    call("remove-duplicates", "--across-folders", "photos", "-o", "o.csv")
    assert "no such file or folder: '2'" in call("remove-duplicates", "photos", "--across-folders", "2", code=2).stderr
    for value in ("-1", "x"):
        assert "Hint: " in call("remove-duplicates", "photos", f"--across-folders={value}", code=2).stderr


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_of_a_table_are_compared_within_equal_values(here, ending):
    frame = pl.DataFrame({"path": [f"photos/{name}" for name in FILES], "status": ["1", "1", "2", "2", None, None]})
    getattr(frame, f"write_{ending}")(f"in.{ending}")
    words = (f"in.{ending}", "--within", "status", "--prefix", "new_", "--radius", 60)
    call("remove-duplicates", *words, "-o", "out.csv")
    found = pl.read_csv("out.csv", infer_schema=False)
    assert found["new_kept"].to_list() == ["true", "false", "true", "false", "true", "true"]
    call("remove-duplicates", *words, "-o", "out.parquet")
    assert pl.read_parquet("out.parquet").height == 4
    refused = call("remove-duplicates", "photos", "--within", "group", code=2).stderr
    assert "no column 'group'" in refused
    assert "--within" in refused


@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson", "json"])
def test_pairs_that_are_no_duplicates(here, ending):
    """They are compared as files, and name rows in every output."""
    sources = ("photos/Orig", "photos/phone/x")
    pairs = pl.DataFrame({"left_id": ["photos/phone/x/a.jpg", "b.jpg"], "right_id": ["photos/Orig/a.jpg", "c.jpg"]})
    getattr(pairs, f"write_{ending}")(f"pairs.{ending}")
    said = "1 of 2 pairs of --not-duplicates name images that are not in SOURCE"
    option = ("--not-duplicates", f"pairs.{ending}")
    assert kept(sources=sources) == ["Orig/a.jpg"]
    assert kept(*option, sources=sources, said=said) == ["Orig/a.jpg", "phone/x/a.jpg"]
    absolute = tuple(here / source for source in sources)
    assert kept(*option, sources=absolute, said=said) == ["Orig/a.jpg", "phone/x/a.jpg"]
    call("remove-duplicates", *sources, "--radius", 60, *option, "-o", "out.parquet")
    assert pl.read_parquet("out.parquet").height == 2
    assert call("remove-duplicates", *sources, "--radius", 60, *option, "--list-removed").stdout == ""


def test_pairs_of_row_numbers_and_pairs_that_cannot_be_read(here):
    hashes = pl.DataFrame({"phash": [7, 7, 7]}, schema_overrides={"phash": pl.UInt64})
    hashes.write_parquet("h.parquet")
    pl.DataFrame({"left_id": [0], "right_id": [1]}).write_csv("pairs.csv")
    call("remove-duplicates", "h.parquet", "--not-duplicates", "pairs.csv", "-o", "out.csv")
    numbers = pl.DataFrame({"left_id": [0], "right_id": [1]})
    wanted = hashes.imgmatch.cluster(0, hash_type="phash", not_duplicates=numbers)
    found = pl.read_csv("out.csv", infer_schema=False)
    assert found["kept"].to_list() == wanted["kept"].cast(pl.String).to_list()
    pl.DataFrame({"left_id": [0], "right": [1]}).write_csv("other.csv")
    for file, words in (("none.csv", "no such file"), ("other.csv", "'right_id'"), ("h.duckdb", "no such file")):
        refused = call("remove-duplicates", "h.parquet", "--not-duplicates", file, code=2).stderr
        assert words in refused
        assert "Hint: " in refused


def test_rules_with_a_reference_and_with_turns(here):
    """A row that matches a reference row is removed unless it is protected; conditions are among the rows."""
    call("visual-hash", "photos/Orig", "-o", "known.duckdb")
    words = ("--reference", "known.duckdb", "--prefer", "photos/phone")
    frame = (
        imgmatch_df.scan_images("photos/phone").imgmatch.visual_hash("path", hash_types=("bmh1", "sha256")).collect()
    )
    for turns in ((), ("--turns",)):
        kept(*words, *turns, sources=["photos/phone"])
        wanted = frame.imgmatch.cluster(60, reference="known.duckdb", id="path", turns=bool(turns))
        found = pl.read_csv("out.csv", infer_schema=False)
        assert found["kept"].to_list() == wanted["kept"].cast(pl.String).to_list()


def test_every_output_has_the_rows_of_the_verb(here):
    call("remove-duplicates", "photos", "--radius", 60, "--prefer", "photos/phone", "--keep", "last", "-o", "o.parquet")
    frame = imgmatch_df.scan_images("photos").imgmatch.visual_hash("path", hash_types=("bmh1", "sha256")).collect()
    rank = ~pl.col("path").str.starts_with("photos/phone/")
    wanted = frame.imgmatch.remove_duplicates(60, keep=[rank, -pl.int_range(pl.len())])
    assert_frame_equal(pl.read_parquet("o.parquet").select("path"), wanted.select("path"))
    assert pl.read_parquet("o.parquet")["path"].to_list() == ["photos/phone/other.jpg", "photos/phone/y/a.jpg"]


def test_the_pairs_of_find_copies_have_conditions(here):
    call("find-copies", "photos", "-o", "all.csv", "--store", "all.duckdb")
    every = pl.read_csv("all.csv").select("left_id", "right_id")
    assert every.height >= 15
    call("find-copies", "all.duckdb", "--across-folders", "-o", "across.csv")
    tops = [[Path(path).parts[1] for path in every[side]] for side in ("left_id", "right_id")]
    wanted = every.filter(pl.Series([left != right for left, right in zip(*tops, strict=True)]))
    assert 0 < wanted.height < every.height
    assert_frame_equal(pl.read_csv("across.csv").select("left_id", "right_id"), wanted)
    every.head(4).write_parquet("pairs.parquet")
    call("find-copies", "all.duckdb", "--not-duplicates", "pairs.parquet", "-o", "others.csv")
    assert_frame_equal(pl.read_csv("others.csv").select("left_id", "right_id"), every.slice(4))
    table = imgmatch_df.read_hashes("all.duckdb").with_columns(group=pl.col("source").str.contains("phone"))
    table.write_parquet("table.parquet")
    call("find-copies", "table.parquet", "--within", "group", "-o", "within.csv")
    is_same = pl.col("left_id").str.contains("phone") == pl.col("right_id").str.contains("phone")
    assert_frame_equal(pl.read_csv("within.csv").select("left_id", "right_id"), every.filter(is_same))
    assert "no column 'x'" in call("find-copies", "table.parquet", "--within", "x", code=2).stderr
