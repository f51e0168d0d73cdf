"""Leaks between splits: `find_leaks`, `count_leaks` and `drop_leaks` against two nested loops."""

import pickle

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from reference import hamming

import imgmatch_df
from imgmatch_df import ArgumentError, ColumnError, ImgMatchWarning

ENGINES = ["eager", "in-memory", "streaming"]
NAMES = ["train", "val", "test"]


def random_splits(seed: int, sizes: tuple[int, ...] = (60, 25, 40)) -> dict[str, pl.DataFrame]:
    """Return splits of phashes with planted copies across them and within them, and nulls; labels of three classes."""
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 2**64, 12, np.uint64)
    splits = {}
    for name, n in zip(NAMES, sizes, strict=True):
        hashes = rng.integers(0, 2**64, n, np.uint64)
        planted = rng.random(n) < 0.4
        hashes[planted] = centers[rng.integers(0, 12, planted.sum())] ^ (
            rng.integers(0, 2, planted.sum(), np.uint64) << rng.integers(0, 64, planted.sum(), np.uint64)
        )
        splits[name] = pl.DataFrame(
            {
                "name": [f"{name} {row}" for row in range(n)],
                "phash": pl.Series([None if rng.random() < 0.1 else int(one) for one in hashes], dtype=pl.UInt64),
                "label": pl.Series([None if rng.random() < 0.2 else int(rng.integers(3)) for _ in range(n)]),
            }
        )
    return splits


def expected_leaks(splits, radius, *, within=False):
    """Return (split, row, other split, other row, distance) by nested loops."""
    names = list(splits)
    found = []
    for at, split in enumerate(names):
        for row, one in enumerate(splits[split]["phash"]):
            for other in names[: at + within]:
                for other_row, two in enumerate(splits[other]["phash"]):
                    is_twice = other == split and other_row <= row
                    if one is None or two is None or is_twice:
                        continue
                    distance = hamming([one], [two])
                    if distance <= radius:
                        found.append((split, row, other, other_row, distance))
    return found


def run(find, splits, engine):
    """Return what a verb finds in splits with an engine."""
    if engine == "eager":
        return find(splits)
    return find({name: frame.lazy() for name, frame in splits.items()}).collect(engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 16])
@pytest.mark.parametrize("within", [False, True])
def test_leaks_are_those_of_nested_loops(radius, within, engine):
    splits = random_splits(radius)
    found = run(lambda s: imgmatch_df.find_leaks(s, radius, "phash", within_splits=within), splits, engine)
    assert found.rows() == expected_leaks(splits, radius, within=within)
    assert found.schema == {
        "split": pl.Enum(NAMES),
        "id": pl.UInt32,
        "other_split": pl.Enum(NAMES),
        "other_id": pl.UInt32,
        "distance": pl.UInt16,
    }
    lazy = imgmatch_df.find_leaks({name: frame.lazy() for name, frame in splits.items()}, radius, "phash")
    assert lazy.collect_schema() == found.schema


@pytest.mark.parametrize("engine", ENGINES)
def test_ids_and_labels(engine):
    splits = random_splits(7)
    labels = pl.col("label") * 10
    found = run(lambda s: imgmatch_df.find_leaks(s, 2, "phash", id="name", label=labels), splits, engine)
    assert found.rows() == [
        (
            *(split, f"{split} {row}", other, f"{other} {other_row}", distance),
            *(
                None if one is None else 10 * one
                for one in (splits[split]["label"][row], splits[other]["label"][other_row])
            ),
        )
        for split, row, other, other_row, distance in expected_leaks(splits, 2)
    ]
    assert found.columns[-2:] == ["label", "other_label"]


def expected_counts(splits, radius, within):
    """Return the rows of `count_leaks` by nested loops."""
    pairs = expected_leaks(splits, radius, within=within)
    both = [pair[:4] for pair in pairs] + [(*pair[2:4], *pair[:2]) for pair in pairs]
    rows = []
    for split in splits:
        for other in (*splits, None):
            if other == split and not within:
                continue
            chosen = [
                pair for pair in both if pair[0] == split and (pair[2] == other or (other is None and pair[2] != split))
            ]
            conflicts = {
                row
                for _, row, to, to_row in chosen
                if None not in (one := splits[split]["label"][row], two := splits[to]["label"][to_row]) and one != two
            }
            n_leaked, n_rows = len({row for _, row, _, _ in chosen}), splits[split].height
            rows.append((split, other, n_rows, n_leaked, n_leaked / n_rows, len(conflicts)))
    return rows


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_nested_loops(seed, within, engine):
    splits = random_splits(seed)
    leaks = imgmatch_df.find_leaks(splits, 2, "phash", label="label", within_splits=within)
    if engine == "eager":
        counts = imgmatch_df.count_leaks(leaks, splits)
    else:
        lazy = {name: frame.lazy() for name, frame in splits.items()}
        counts = imgmatch_df.count_leaks(leaks.lazy(), lazy).collect(engine=engine)
    assert counts.rows() == expected_counts(splits, 2, within)
    heights = {name: frame.height for name, frame in splits.items()}
    assert_frame_equal(imgmatch_df.count_leaks(leaks, heights), counts)
    text = leaks.with_columns(pl.col("split", "other_split").cast(pl.String))
    assert_frame_equal(imgmatch_df.count_leaks(text, heights), counts)


def test_counts_without_labels_and_without_leaks():
    splits = {
        "a": pl.DataFrame({"phash": [1]}, schema={"phash": pl.UInt64}),
        "b": pl.DataFrame(schema={"phash": pl.UInt64}),
    }
    leaks = imgmatch_df.find_leaks(splits, 4, "phash")
    assert leaks.is_empty()
    assert imgmatch_df.count_leaks(leaks, splits).rows() == [
        ("a", "b", 1, 0, 0.0, None),
        ("a", None, 1, 0, 0.0, None),
        ("b", "a", 0, 0, 0.0, None),
        ("b", None, 0, 0, 0.0, None),
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("radius", [0, 2, 10])
def test_dropped_rows_are_those_that_leak(radius, engine):
    splits = random_splits(radius + 3)
    test, train = splits["test"], splits["train"]
    leaked = {row for _, row, *_ in expected_leaks({"train": train, "test": test}, radius)}
    expected = test[[row for row in range(test.height) if row not in leaked]]
    assert 0 < expected.height < test.height
    assert expected["phash"].null_count() == test["phash"].null_count() > 0
    if engine == "eager":
        clean = test.imgmatch.drop_leaks(train, radius, "phash")
    else:
        clean = test.lazy().imgmatch.drop_leaks(train.lazy(), radius, "phash").collect(engine=engine)
    assert_frame_equal(clean, expected)
    assert imgmatch_df.find_leaks({"train": train, "test": clean}, radius, "phash").is_empty()


IMAGES = {"train": [1, 2, 3], "test": [4, 2, 5]}


def image_splits() -> dict[str, pl.DataFrame]:
    """Return splits of images: one of test is a copy of one of train, in another quality, and one is broken."""
    splits = {
        name: pl.DataFrame(
            {"image": [jpeg(draw(seed, 90, 60), quality=95 if name == "train" else 60) for seed in seeds]}
        )
        for name, seeds in IMAGES.items()
    }
    splits["test"] = splits["test"].vstack(pl.DataFrame({"image": [b"no image"]}))
    return splits


@pytest.mark.parametrize("engine", ENGINES)
def test_sources_are_hashed(engine):
    splits = image_splits()
    found = run(lambda s: imgmatch_df.find_leaks(s, 24, source="image"), splits, engine)
    assert [row[:4] for row in found.rows()] == [("test", 1, "train", 1)]
    # A split that has hashes is not hashed again: its source is not read.
    hashed = splits["train"].imgmatch.visual_hash("image").drop("image")
    assert_frame_equal(
        run(lambda s: imgmatch_df.find_leaks(s, 24, source="image"), {**splits, "train": hashed}, engine), found
    )
    test, train = splits["test"], splits["train"]
    for reference in (train, train.lazy(), hashed):
        clean = run(
            lambda s, other=reference: s["test"].imgmatch.drop_leaks(other, 24, source="image"), {"test": test}, engine
        )
        assert_frame_equal(clean, test[[0, 2, 3]])


@pytest.mark.parametrize("engine", ENGINES)
def test_local_hashes_have_votes(engine):
    splits = image_splits()
    big = {
        name: pl.DataFrame({"image": [jpeg(draw(seed, 400, 300)) for seed in seeds]}).imgmatch.visual_hash(
            "image", hash_types="local"
        )
        for name, seeds in IMAGES.items()
    }
    found = run(lambda s: imgmatch_df.find_leaks(s, hash_type="local", min_votes=11), big, engine)
    matched = big["test"].imgmatch.match(big["train"], hash_type="local", min_votes=11)
    assert found.drop("split", "other_split").rows() == matched.rows()
    assert (1, 1) in matched.select("query_id", "reference_id").rows()
    assert found.columns[4:] == matched.columns[2:]
    clean = run(lambda s: s["test"].imgmatch.drop_leaks(big["train"], hash_type="local", min_votes=11), big, engine)
    leaked = set(found["id"])
    assert_frame_equal(clean, big["test"][[row for row in range(3) if row not in leaked]])
    with pytest.raises(ColumnError, match="no column 'pdq'"):
        imgmatch_df.find_leaks(splits, 31, "pdq")


def test_turned_copies():
    image = draw(1, 90, 60)
    splits = {
        "train": pl.DataFrame({"image": [jpeg(image)]}),
        "test": pl.DataFrame({"image": [jpeg(np.ascontiguousarray(image[:, ::-1]))]}),
    }
    assert imgmatch_df.find_leaks(splits, 24, source="image").is_empty()
    found = imgmatch_df.find_leaks(splits, 24, source="image", turns=True)
    assert found.select("split", "id", "other_split", "other_id", "turn").rows() == [
        ("test", 0, "train", 0, "mirrored")
    ]
    assert splits["test"].imgmatch.drop_leaks(splits["train"], 24, source="image", turns=True).is_empty()


def test_flat_images_leak_if_their_files_are_equal():
    flat = [np.full((60, 90, 3), shade, np.uint8) for shade in (90, 200)]
    splits = {
        "train": pl.DataFrame({"image": [jpeg(flat[0])]}),
        "test": pl.DataFrame({"image": [jpeg(flat[0]), jpeg(flat[1])]}),
    }
    assert imgmatch_df.find_leaks(splits, 24, source="image").rows() == [("test", 0, "train", 0, 0)]
    assert imgmatch_df.find_leaks(splits, 24, source="image", flat="match").height == 2
    assert splits["test"].imgmatch.drop_leaks(splits["train"], 24, source="image").height == 1


def test_a_store_is_a_reference(tmp_path):
    splits = image_splits()
    named = {name: frame.with_row_index("key") for name, frame in splits.items()}
    imgmatch_df.write_hashes(named["train"], tmp_path / "train.duckdb", source="image", key="key")
    clean = splits["test"].imgmatch.drop_leaks(tmp_path / "train.duckdb", 24, source="image")
    assert_frame_equal(clean, splits["test"][[0, 2, 3]])
    stored = imgmatch_df.scan_hashes(tmp_path / "train.duckdb")
    found = imgmatch_df.find_leaks({"train": stored, "test": splits["test"]}, 24, source="image").collect()
    assert [row[:4] for row in found.rows()] == [("test", 1, "train", 1)]


def test_rows_and_chunks_change_nothing():
    splits = random_splits(5)
    whole = imgmatch_df.find_leaks(splits, 2, "phash", id="name").sort(pl.all())
    chunked = {name: pl.concat([frame[:7], frame[7:]], rechunk=False) for name, frame in splits.items()}
    assert_frame_equal(imgmatch_df.find_leaks(chunked, 2, "phash", id="name").sort(pl.all()), whole)
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=2) for name, frame in splits.items()}
    assert_frame_equal(imgmatch_df.find_leaks(shuffled, 2, "phash", id="name").sort(pl.all()), whole)


def test_mixed_frames_are_lazy_and_queries_are_pickled():
    splits = random_splits(5)
    mixed = {**splits, "val": splits["val"].lazy()}
    found = imgmatch_df.find_leaks(mixed, 2, "phash")
    assert isinstance(found, pl.LazyFrame)
    copy = pickle.loads(pickle.dumps(found))
    assert_frame_equal(copy.collect(), imgmatch_df.find_leaks(splits, 2, "phash"))
    clean = splits["test"].lazy().imgmatch.drop_leaks(splits["train"], 2, "phash")
    assert_frame_equal(pickle.loads(pickle.dumps(clean)).collect(), clean.collect())


def test_ids_of_different_dtypes():
    one = pl.DataFrame(
        {"phash": [1], "id": [7], "class": ["a"]}, schema_overrides={"phash": pl.UInt64, "class": pl.Categorical}
    )
    other = pl.DataFrame({"phash": [1], "id": ["x"], "class": ["b"]}, schema_overrides={"phash": pl.UInt64})
    found = imgmatch_df.find_leaks({"train": one, "test": other}, 0, "phash", id="id", label="class")
    assert found.rows() == [("test", "x", "train", "7", 0, "b", "a")]
    with pytest.raises(ColumnError, match="id has dtypes without a common one in the splits: Int64, List"):
        imgmatch_df.find_leaks({"a": one, "b": other.with_columns(id=[[1]])}, 0, "phash", id="id")
    wide = one.with_columns(pl.lit(2**63 + 1, pl.UInt64).alias("id"))
    splits = {"a": one, "b": wide}
    if pl.concat([one.select("id"), wide.select("id")], how="vertical_relaxed").schema["id"].is_float():
        with pytest.raises(ColumnError, match="Int64, UInt64\nHint: cast"):
            imgmatch_df.find_leaks(splits, 0, "phash", id="id")
    else:  # newer Polars has an integer of 128 bits for both
        assert imgmatch_df.find_leaks(splits, 0, "phash", id="id")["id"].to_list() == [2**63 + 1]


def test_equal_ids_are_warned_of():
    train = pl.DataFrame({"phash": [1, 1], "id": ["x", "x"]}, schema_overrides={"phash": pl.UInt64})
    test = pl.DataFrame({"phash": [1], "id": ["y"]}, schema_overrides={"phash": pl.UInt64})
    with pytest.warns(ImgMatchWarning, match="column 'id' names 1 rows of leaks as another row of their split"):
        imgmatch_df.find_leaks({"train": train, "test": test}, 0, "phash", id="id")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": pl.DataFrame()}, "splits must be 2 or more, got 1"),
        ({}, "splits must be 2 or more, got 0"),
        ([pl.DataFrame()], "splits must be a mapping of names to frames, got a list"),
        ({1: pl.DataFrame(), "a": pl.DataFrame()}, "the name of a split must be a text, got 1"),
        ({"": pl.DataFrame(), "a": pl.DataFrame()}, "the name of a split must be a text, got ''"),
        (
            {"a": pl.DataFrame({"bmh1": [bytes(121)]}), "b": 3},
            "split 'b' must be a Polars DataFrame or LazyFrame, got 3",
        ),
    ],
)
def test_wrong_splits(splits, message):
    with pytest.raises(ArgumentError, match=message):
        imgmatch_df.find_leaks(splits, 3)


def test_errors_name_the_split():
    splits = random_splits(1)
    with pytest.raises(ColumnError, match="split 'train': no column 'bmh1'"):
        imgmatch_df.find_leaks(splits, 3)
    with pytest.raises(ColumnError, match="split 'val': no column 'name'"):
        imgmatch_df.find_leaks({**splits, "val": splits["val"].drop("name")}, 3, "phash", id="name")
    with pytest.raises(ColumnError, match="split 'test': label cannot be read from the frame"):
        imgmatch_df.find_leaks({**splits, "test": splits["test"].drop("label")}, 3, "phash", label="label")
    with pytest.raises(ColumnError, match="reference: no column 'image'"):
        image_splits()["test"].imgmatch.drop_leaks(splits["train"], 3, source="image")
    with pytest.raises(ArgumentError, match="more than max_pairs=1 pairs"):
        imgmatch_df.find_leaks(splits, 16, "phash", max_pairs=1)


def test_wrong_counts():
    splits = random_splits(1)
    leaks = imgmatch_df.find_leaks(splits, 2, "phash")
    with pytest.raises(ArgumentError, match="leaks are of split 'test', splits has 'train', 'val'"):
        imgmatch_df.count_leaks(leaks, {"train": 60, "val": 60})
    with pytest.raises(ArgumentError, match="rows of 'val' leak, and it has 1 rows in splits"):
        imgmatch_df.count_leaks(leaks, {"train": 60, "val": 1, "test": 60})
    with pytest.raises(ColumnError, match="leaks needs the columns split, id, other_split, other_id"):
        imgmatch_df.count_leaks(leaks.drop("id"), splits)
    with pytest.raises(ArgumentError, match="split 'val' must be a Polars DataFrame or LazyFrame or a number of rows"):
        imgmatch_df.count_leaks(leaks, {"train": 60, "val": -1, "test": 60})
