"""`assign_split`: no cluster on two sides, near the shares, and the same on every machine."""

import subprocess
import sys
from datetime import date

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

import imgmatch_df
from imgmatch_df import ArgumentError, ColumnError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def clusters_of(sizes, seed=0):
    """Return a shuffled frame with clusters of these sizes."""
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    return pl.DataFrame({"cluster_id": np.random.default_rng(seed).permutation(numbers)})


def assigned(frame, shares=SHARES, seed=0):
    return frame.with_columns(imgmatch_df.assign_split("cluster_id", shares, seed=seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("engine", ["eager", "in-memory", "streaming"])
def test_no_cluster_on_two_sides_and_exact_shares(seed, engine):
    sizes = np.minimum(np.random.default_rng(seed).geometric(0.6, 800), 20)
    frame = clusters_of(sizes, seed)
    found = (
        assigned(frame, seed=seed) if engine == "eager" else assigned(frame.lazy(), seed=seed).collect(engine=engine)
    )
    assert found.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert found["cluster_id"].equals(frame["cluster_id"])
    assert found.schema["split"] == pl.Enum(list(SHARES))
    for name, share in SHARES.items():
        assert abs((found["split"] == name).sum() - share * frame.height) < 1
    assert_frame_equal(found, assigned(frame, seed=seed))


@pytest.mark.parametrize(
    ("giant", "expected"),
    [(300, {"train": 700, "val": 100, "test": 200}), (150, {"train": 700, "val": 100, "test": 200}),
     (800, {"train": 800, "val": 67, "test": 133})],
)  # fmt: skip
def test_a_giant_cluster(giant, expected):
    frame = clusters_of([giant, *[1] * (1000 - giant)])
    for seed in range(20):
        found = assigned(frame, seed=seed)
        counts = dict(found["split"].cast(pl.String).value_counts().iter_rows())
        assert counts == expected
        assert found.filter(pl.col("cluster_id") == 0)["split"].n_unique() == 1


def test_without_single_rows_the_error_is_below_the_largest_cluster():
    for seed in range(20):
        frame = clusters_of(np.random.default_rng(seed).integers(2, 9, 50))
        found = assigned(frame, seed=seed)
        for name, share in SHARES.items():
            assert abs((found["split"] == name).sum() - share * frame.height) < 8


def test_large_and_small_clusters_are_in_each_split():
    """The mean size of the clusters of the splits is about the same: large ones do not all go to the largest split."""
    means = []
    for seed in range(40):
        frame = clusters_of([*[10] * 30, *[1] * 300])
        found = assigned(frame, {"a": 0.5, "b": 0.5}, seed=seed)
        sizes = found.group_by("split", "cluster_id").len()
        means.append(sizes.filter((pl.col("split") == "a") & (pl.col("len") == 10)).height)
    assert 12 < np.mean(means) < 18
    assert len(set(means)) > 3


def test_row_order_chunks_and_dtypes_change_nothing():
    frame = clusters_of([5, 4, 4, 3, *[2] * 40, *[1] * 100])
    split_of = dict(assigned(frame).select("cluster_id", "split").iter_rows())
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    assert dict(assigned(shuffled).iter_rows()) == split_of
    chunked = pl.concat([frame[:11], frame[11:]], rechunk=False)
    assert_frame_equal(assigned(chunked), assigned(frame))
    for dtype in (pl.UInt8, pl.Int32, pl.UInt64, pl.String, pl.Categorical):
        source = frame if dtype != pl.Categorical else frame.cast(pl.String)
        assert_series_equal(assigned(source.cast(dtype))["split"], assigned(frame)["split"])


def test_other_seeds_give_other_splits():
    frame = clusters_of([3] * 100)
    found = [tuple(assigned(frame, seed=seed)["split"]) for seed in range(5)]
    assert len(set(found)) == 5


def test_the_splits_are_written_down():
    """What one release assigns, the next one assigns too."""
    frame = pl.DataFrame({"cluster_id": [0, 0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, None]})
    found = assigned(frame, {"train": 0.6, "test": 0.4})["split"].to_list()
    letters = "".join("-" if one is None else one[1] for one in found)
    assert letters == WRITTEN
    code = (
        "import polars as pl, imgmatch_df\n"
        "frame = pl.DataFrame({'cluster_id': [0, 0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, None]})\n"
        "expr = imgmatch_df.assign_split('cluster_id', {'train': 0.6, 'test': 0.4})\n"
        "found = frame.lazy().select(expr).collect(engine='streaming')['split']\n"
        "print(''.join('-' if one is None else one[1] for one in found))"
    )
    for threads in ("1", "3"):
        env = {"POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == WRITTEN


WRITTEN = "rrereerrrerre-"


def test_values_of_all_dtypes():
    values = {
        "binary": [b"\x00\xff", b"a", None],
        "boolean": [True, False, None],
        "date": [date(2024, 1, 1), date(2024, 1, 2), None],
        "text": ["ä", "", None],
        "negative": [-(2**63), 2**63 - 1, None],
        "null": [None, None, None],
    }
    for name, column in values.items():
        found = pl.Series(name, column).imgmatch.assign_split({"a": 0.5, "b": 0.5})
        assert found.name == "split"
        assert set(found[:2]) == ({None} if name == "null" else {"a", "b"})
        assert found[2] is None
    for dtype, column in ((pl.Float64, [0.5]), (pl.List(pl.Int8), [[1]]), (pl.Struct({"a": pl.Int8}), [{"a": 1}])):
        frame = pl.DataFrame({"c": pl.Series(column, dtype=dtype)})
        with pytest.raises(ColumnError, match="column 'c' has dtype"):
            frame.select(pl.col("c").imgmatch.assign_split({"a": 1.0}))
    assert pl.DataFrame({"c": []}, schema={"c": pl.UInt32}).select(imgmatch_df.assign_split("c", SHARES)).is_empty()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "b": 0.4}, "shares must be 1 together, got 0.9"),
        ({"a": 8, "b": 2}, "the share of 'a' must be above 0 and at most 1, got 8"),
        ({"a": 0, "b": 1}, "the share of 'a' must be above 0"),
        ({"a": float("nan"), "b": 1}, "the share of 'a' must be above 0"),
        ({"a": "0.5", "b": 0.5}, "the share of 'a' must be above 0"),
        ({}, "shares must be a mapping"),
        ([0.5, 0.5], "shares must be a mapping"),
        ({0: 1.0}, "the name of a split must be a text"),
    ],
)
def test_wrong_shares(shares, message):
    with pytest.raises(ArgumentError, match=message):
        imgmatch_df.assign_split("cluster_id", shares)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, None, "0", True])
def test_wrong_seeds(seed):
    with pytest.raises(ArgumentError, match="seed must be a whole number"):
        imgmatch_df.assign_split("cluster_id", {"a": 1.0}, seed=seed)


def test_clusters_of_images_do_not_leak():
    rng = np.random.default_rng(3)
    centers = rng.integers(0, 2**64, 30, np.uint64)
    hashes = np.concatenate([rng.integers(0, 2**64, 100, np.uint64), centers[rng.integers(0, 30, 100)]])
    frame = pl.DataFrame({"phash": hashes})
    clustered = frame.imgmatch.cluster(3, "phash")
    split = clustered.with_columns(imgmatch_df.assign_split("cluster_id", SHARES))
    parts = {name: split.filter(pl.col("split") == name) for name in SHARES}
    assert imgmatch_df.find_leaks(parts, 3, "phash").is_empty()
    by_chance = {name: frame.gather_every(3, at) for at, name in enumerate(SHARES)}
    assert not imgmatch_df.find_leaks(by_chance, 3, "phash").is_empty()


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_each_class_for_itself(engine):
    frame = clusters_of([*[4] * 20, *[1] * 120]).with_columns(label=pl.col("cluster_id") % 2)
    expr = imgmatch_df.assign_split("cluster_id", {"a": 0.75, "b": 0.25}).over("label")
    found = frame.lazy().with_columns(expr).collect(engine=engine)
    assert sorted(found.group_by("label", "split").len().iter_rows()) == [
        (0, "a", 75),
        (0, "b", 25),
        (1, "a", 75),
        (1, "b", 25),
    ]
    assert found.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
