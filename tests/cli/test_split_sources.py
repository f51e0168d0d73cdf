"""Which SOURCE arguments are one split, and its name."""

import pytest

from imgmatch_df import ArgumentError
from imgmatch_df.cli.split_sources import group_sources


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["train.parquet", "test.parquet"], {"train": [0], "test": [1]}),
        (["train/", "test"], {"train": [0], "test": [1]}),
        (
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"],
            {"train": [0, 1], "test": [2]},
        ),
        (["train-00000-of-00001-0123456789abcdef.parquet", "test.csv"], {"train": [0], "test": [1]}),
        (["train_0.csv", "train_1.csv", "val_0.csv"], {"train": [0, 1], "val": [2]}),
        (["data/train-*.parquet", "data/test-*.parquet"], {"train": [0], "test": [1]}),
        (["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"], {"train": [0, 1], "test": [2]}),
        (["train/a.jpg", "train/b.JPG", "test/c.png"], {"train": [0, 1], "test": [2]}),
        (["train/*.jpg", "test/**/*.jpg"], {"train": [0], "test": [1]}),
        (["tr*/*.jpg", "te*/*.jpg"], {"tr*": [0], "te*": [1]}),
        (["train/images", "test/images"], {"train/images": [0], "test/images": [1]}),
        (["a/train.parquet", "b/train.parquet", "b/test.parquet"], {"a/train": [0], "b/train": [1], "test": [2]}),
        (["train/p-0.csv", "train/p-1.csv", "test/p-0.csv"], {"train/p": [0, 1], "test/p": [2]}),
        (["train2017", "val2017"], {"train2017": [0], "val2017": [1]}),
        (["s3://bucket/train.parquet", "s3://bucket/test.parquet"], {"train": [0], "test": [1]}),
        (["Zug \N{SNOWMAN}.csv", "my test.csv"], {"Zug \N{SNOWMAN}": [0], "my test": [1]}),
    ],
)  # fmt: skip
def test_splits_of_sources(sources, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("train", "test"):
        (tmp_path / folder / "images").mkdir(parents=True)
    found = group_sources(sources, ())
    assert found == {name: [sources[at] for at in places] for name, places in expected.items()}
    assert list(found) == list(expected)


def test_the_working_directory_is_a_split(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    monkeypatch.chdir(tmp_path / "train")
    assert group_sources([".", "../test.csv"], ()) == {"train": ["."], "test": ["../test.csv"]}


def test_names():
    sources = ["a-0.csv", "a-1.csv", "b.csv"]
    assert group_sources(sources, ("x", "y", "x")) == {"x": ["a-0.csv", "b.csv"], "y": ["a-1.csv"]}
    assert group_sources(sources, ("x", "y")) == {"x": ["a-0.csv", "a-1.csv"], "y": ["b.csv"]}


@pytest.mark.parametrize(
    ("sources", "names", "message"),
    [
        (["a.csv"], (), "leaks are between two splits or more, got a"),
        (["a-0.csv", "a-1.csv"], (), r"got a \(a-0.csv and 1 more\)"),
        (["a.csv", "b.csv"], ("x", "x"), r"got x \(a.csv and 1 more\)"),
        (["a.csv", "b.csv"], ("x",), "'x' names neither each of the 2 SOURCE arguments nor each of the 2 splits: a"),
        (["a.csv", "b.csv"], ("x", ""), "--names has an empty name, got 'x,'"),
    ],
)
def test_what_is_no_splits(sources, names, message):
    with pytest.raises(ArgumentError, match=message) as error:
        group_sources(sources, names)
    assert "\nHint: " in str(error.value)


def test_a_folder_whose_name_is_not_utf8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(group_sources(["tr\udcff.csv", "test.csv"], ())) == ["tr\\xff", "test"]
