"""The command `imgmatch leaks`."""

from pathlib import Path

import polars as pl
import pytest
from drawing import draw, save
from PIL import Image
from polars.testing import assert_frame_equal
from terminal import on_a_terminal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app

TRAIN = {"t1.jpg": (1, 95, "cat"), "t2.jpg": (2, 95, "dog"), "t3.jpg": (3, 95, "cat"), "t4.jpg": (4, 95, "dog")}
TEST = {"e2.jpg": (2, 50, "dog"), "e3.jpg": (3, 50, "dog"), "e5.jpg": (5, 50, "cat")}
PAIRS = [("e2.jpg", "t2.jpg"), ("e3.jpg", "t3.jpg")]


def image(seed: int, quality: int) -> bytes:
    return save(Image.fromarray(draw(seed, 300, 200)), "JPEG", quality=quality)


def rows(split: dict[str, tuple[int, int, str]]) -> pl.DataFrame:
    """Return a split as Hugging Face writes it."""
    images = [{"bytes": image(seed, quality), "path": name} for name, (seed, quality, _) in split.items()]
    return pl.DataFrame({"image": images, "label": [label for *_, label in split.values()]})


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Splits as shards of Parquet and as folders, and the working directory beside them."""
    monkeypatch.chdir(tmp_path)
    train = rows(TRAIN)
    train[:2].write_parquet("train-00000-of-00002.parquet")
    train[2:].write_parquet("train-00001-of-00002.parquet")
    rows(TEST).write_parquet("test-00000-of-00001.parquet")
    for folder, split in (("train", TRAIN), ("test", TEST)):
        Path(folder).mkdir()
        for name, (seed, quality, _) in split.items():
            (Path(folder) / name).write_bytes(image(seed, quality))
    return tmp_path


def run(*args: object, code: int):
    result = CliRunner().invoke(app, ["leaks", *map(str, args)])
    assert result.exit_code == code, result.output
    return result


SHARDS = [f"train-0000{at}-of-00002.parquet" for at in (0, 1)] + ["test-00000-of-00001.parquet"]


def test_shards_of_parquet(desk):
    result = run(*SHARDS, "--source", "image", "--label", "label", "-o", "leaks.csv", code=3)
    found = pl.read_csv("leaks.csv")
    assert found.columns == ["split", "id", "other_split", "other_id", "distance", "label", "other_label"]
    assert found.select("split", "id", "other_split", "other_id").rows() == [
        ("test", one, "train", other) for one, other in PAIRS
    ]
    assert found.select("label", "other_label").rows() == [("dog", "dog"), ("dog", "cat")]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.startswith("2 pairs of near-duplicates among 2 splits, by bmh1 within 24 bits; failed 0\n")
    assert lines[1] == ["split", "rows", "failed", "in", "train", "in", "test", "in", "any", "other"]
    assert ["train", "4", "0", "2", "(50", "%)", "2", "(50", "%)"] in lines
    assert ["test", "3", "0", "2", "(66.7", "%)", "2", "(66.7", "%)"] in lines
    assert lines.count(["1", "label", "conflict", "1", "label", "conflict"]) == 2
    worst = [line for line in lines if line[:1] == ["test"] and line[-1] in ("cat", "dog")]
    assert [(line[1], line[3], line[-2], line[-1]) for line in worst] == [
        ("e3.jpg", "t3.jpg", "dog", "cat"),  # a conflict of labels comes first
        ("e2.jpg", "t2.jpg", "dog", "dog"),
    ]
    assert "split train: train-00000-of-00002.parquet and 1 more" in result.stderr
    assert "2 of 4 rows of train leak (50 %), more than --max-leakage 0" in result.stderr
    assert "2 of 3 rows of test leak (66.7 %), more than --max-leakage 0" in result.stderr


def test_the_function_finds_the_same(desk):
    run("train", "test", "-o", "leaks.parquet", code=3)
    splits = {name: imgmatch_df.scan_images(name).collect() for name in ("train", "test")}
    expected = imgmatch_df.find_leaks(splits, 24, source="path", id="path")
    assert_frame_equal(pl.read_parquet("leaks.parquet"), expected)
    assert expected.height == 2


def test_max_leakage(desk):
    assert run("train", "test", "--max-leakage", 2 / 3, code=0).stderr == ""
    above = run("train", "test", "--max-leakage", 0.66, code=3)
    assert above.stderr == "2 of 3 rows of test leak (66.7 %), more than --max-leakage 0.66\n"
    assert [line.split(",")[1] for line in above.stdout.splitlines()] == ["id", "test/e2.jpg", "test/e3.jpg"]  # a pipe
    assert run("train", "test", "--radius", 0, code=0).stdout == "split,id,other_split,other_id,distance\n"


def test_failed_rows(desk):
    Path("test/cut.jpg").write_bytes(b"\xff\xd8\xff")
    within = run("train", "test", "--max-leakage", 0.9, "-o", "leaks.csv", code=1)
    assert "1 of 8 failed: decode_failed 1\n  test/cut.jpg: decode_failed" in within.stderr
    lines = [line.split() for line in within.stdout.splitlines()]
    assert ["test", "4", "1", "2", "(50", "%)", "2", "(50", "%)"] in lines
    # A split that leaks too much does so whatever the failed rows hold.
    above = run("train", "test", "-o", "leaks.csv", code=3)
    assert "1 of 8 failed" in above.stderr
    pl.DataFrame({"image": [b"x", image(2, 50)]}).write_parquet("bytes.parquet")
    unnamed = run("train", "bytes.parquet", "--source", "image", "--max-leakage", 1, "-o", "leaks.csv", code=1)
    assert "  row 0 of bytes: decode_failed" in unnamed.stderr
    assert "identified by their number, from 0: bytes" in unnamed.stderr
    assert pl.read_csv("leaks.csv")["id"].to_list() == [1]


def test_within_splits(desk):
    Path("train/again.jpg").write_bytes(image(1, 70))
    result = run("train", "test", "--within-splits", "-o", "leaks.csv", code=3)
    found = pl.read_csv("leaks.csv").filter(pl.col("split") == pl.col("other_split"))
    assert found.select("id", "other_id").rows() == [("train/again.jpg", "train/t1.jpg")]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["train", "5", "0", "2", "(40", "%)", "2", "(40", "%)", "2", "(40", "%)"] in lines
    assert not any("again.jpg" in line for line in result.stdout.splitlines())  # it does not leak


def test_stores_tables_and_folders_together(desk):
    imgmatch_df.write_hashes(imgmatch_df.scan_images("train"), "train.duckdb", source="path", hash_types="phash")
    result = run("train.duckdb", SHARDS[-1], "--source", "image", "-o", "leaks.csv", code=3)
    assert "by phash within 4 bits" in result.stdout  # the hashes that the store has
    assert pl.read_csv("leaks.csv").select("id", "other_id").rows() == [(one, f"train/{other}") for one, other in PAIRS]
    pl.DataFrame({"path": ["test/e2.jpg", "test/e5.jpg"]}).write_csv("listed.csv")
    run("train", "listed.csv", "--base-dir", ".", "-o", "leaks.csv", code=3)
    assert pl.read_csv("leaks.csv").select("split", "id", "other_id").rows() == [
        ("listed", "test/e2.jpg", "train/t2.jpg")
    ]


def test_store_option(desk):
    first = run("train", "test", "--store", "all.duckdb", "-o", "leaks.csv", code=3)
    assert ["all.duckdb: 4 new" in first.stderr, "all.duckdb: 3 new" in first.stderr] == [True, True]
    found = pl.read_csv("leaks.csv")
    again = run("train", "test", "--store", "all.duckdb", "-o", "leaks.csv", code=3)
    assert "all.duckdb: 0 new, 4 unchanged" in again.stderr
    assert_frame_equal(pl.read_csv("leaks.csv"), found)


def test_hashes_made_with_other_options_are_refused(desk):
    images = imgmatch_df.scan_images("train")
    imgmatch_df.write_hashes(images, "train.duckdb", source="path", decode="scaled")
    assert "decode" in run("train.duckdb", "test", code=2).stderr


def test_votes(desk):
    result = run("train", "test", "--hash-type", "local", "--min-votes", 11, "-o", "leaks.csv", code=3)
    assert result.stdout.startswith("2 pairs of near-duplicates among 2 splits, by local; failed 0")
    assert pl.read_csv("leaks.csv").columns[4:6] == ["votes", "turn"]


def test_names(desk):
    run("train", "test", "--names", "a,b", "-o", "leaks.csv", code=3)
    assert set(pl.read_csv("leaks.csv")["split"]) == {"b"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train"], "leaks are between two splits or more, got train (train)"),
        (["train", "nothing"], "no such file or folder: 'nothing'"),
        (["train", "test", "--max-leakage", "1.5"], "--max-leakage must be a share from 0 to 1, got 1.5"),
        (["train", "test", "--max-leakage", "nan"], "--max-leakage must be a share from 0 to 1, got nan"),
        (["train", "test", "--radius", "-1"], "radius must be a whole number"),
        (["train", "test", "--hash-type", "local", "--radius", "3"], "local is compared by votes"),
        (["train", "test", "--label", "kind"], "no column 'kind' in split 'train'"),
        (["train", "test", "--source", "kind"], "--source is for tables"),
        (["train", SHARDS[-1], "--source", "kind"], "no column 'kind'"),
        (["train", "test", "-o", "leaks.json"], "the documented .json has no leaks"),
        (["train", "test", "--flat", "no"], "flat must be one of"),
        (["train", "test", "--max-pairs", "0"], "max_pairs must be"),
    ],
)
def test_wrong_calls(desk, args, message):
    result = run(*args, code=2)
    assert message in result.stderr
    assert "Hint: " in result.stderr
    assert result.stdout == ""


def test_hostile_names_and_labels(desk):
    folder = Path("te[red]st\x1b[31m")
    Path("test").rename(folder)
    result = run("train", folder, "-o", "leaks.csv", code=3)
    assert "te[red]st" in result.stdout
    assert "\x1b" not in result.output
    pl.DataFrame({"image": [image(2, 50)], "label": ["a\x1bb\n" * 200]}).write_parquet("odd.parquet")
    rows(TRAIN).write_parquet("whole.parquet")
    result = run("whole.parquet", "odd.parquet", "--label", "label", "-o", "leaks.csv", code=3)
    assert "\x1b" not in result.output
    assert pl.read_csv("leaks.csv")["label"][0] == "a\x1bb\n" * 200


def test_labels_that_a_format_cannot_hold(desk):
    train, test = rows(TRAIN), rows(TEST)
    for name, frame in (("a", train), ("b", test)):
        frame.with_columns(label=pl.concat_list("label"), place=pl.struct(x="label")).write_parquet(f"{name}.parquet")
    result = run("a.parquet", "b.parquet", "--label", "label", "-o", "leaks.csv", code=3)
    assert "left out, because .csv cannot hold it: label (List(String)), other_label (List(String))" in result.stderr
    assert "1 label conflict" in result.stdout
    assert pl.read_csv("leaks.csv").columns == ["split", "id", "other_split", "other_id", "distance"]
    run("a.parquet", "b.parquet", "--label", "place", "-o", "leaks.csv", code=3)
    assert pl.read_csv("leaks.csv")["label.x"].to_list() == ["dog", "dog"]


def test_a_terminal_shows_the_matrix(desk):
    code, shown = on_a_terminal("leaks", "train", "test")
    assert code == 3
    assert "in any other" in shown
    assert "test/e2.jpg" in shown


def test_a_split_without_rows(desk):
    rows(TEST)[:0].write_parquet("none.parquet")
    assert ["none", "0", "0", "0", "(0", "%)", "0", "(0", "%)"] in [
        line.split() for line in run("train", "none.parquet", "-o", "leaks.csv", code=0).stdout.splitlines()
    ]
