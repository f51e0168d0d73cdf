"""Which points are set aside, decided by passes over blocks: as on one machine."""

import numpy as np
import polars as pl
import pytest
from image_points import join_points, logos, pack, random_images, take

from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.votes import points_of_words
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import LOCAL
from imgmatch_df.matching import shared_points
from imgmatch_df.matching.candidates import collapse_images
from imgmatch_df.matching.shared_points import Limits, unshared_points
from imgmatch_df.spark.nodes import NODE, rows_to_compare, write_nodes
from imgmatch_df.spark.shared_points import MASK, decide_shared_points, kept_points_of
from imgmatch_df.spark.work import WorkFolder

pytestmark = pytest.mark.spark

FEW = Limits(1, 10, (8, 64), 3)


@pytest.fixture(scope="module")
def images():
    none = take(random_images(1), [])._replace(starts=np.zeros(3, np.int64), boxes=random_images(2).boxes)
    return join_points([logos(5), none])


@pytest.fixture(scope="module")
def frame(spark, images):
    rows = [(number, bytearray(value)) for number, value in enumerate(pack(images))]
    return spark.createDataFrame([*rows, (len(rows), None)], "name long, local binary")


def nodes_of(frame, work, n_blocks, stage="rows"):
    rows = rows_to_compare(frame, LOCAL, id="name", hash_column="local", guard=None)
    return write_nodes(rows, work, n_blocks, stage=stage)


def test_packed_images_have_their_points(images):
    column = pl.Series(pack(images))
    for got, expected in zip(points_of_words(codec.hash_words(column, LOCAL), LOCAL), images, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("n_blocks", [3])
def test_blocks_decide_as_one_machine(spark, monkeypatch, tmp_path, images, frame, n_blocks):
    monkeypatch.setattr(shared_points, "LIMITS", FEW)
    votes, work = check_comparison("local", None, 6, None), WorkFolder.of(str(tmp_path), spark)
    side = collapse_images(images)
    nodes = nodes_of(frame, work, n_blocks)
    decided = decide_shared_points(spark, votes, nodes, n_left=200)
    kept = decided.of_blocks(set(range(n_blocks)))
    expected = unshared_points(side, side)
    assert 0 < len(expected) < len(side.owners)
    np.testing.assert_array_equal(kept.points_of(side), expected)

    # By node, as rows of clusters need them.
    masked = decided.masks(spark).join(nodes.rows(spark), NODE).select("id", MASK).toArrow()
    masks = pl.DataFrame({"id": range(images.n_images), "local": pack(images)}).join(
        pl.DataFrame(masked), on="id", how="left", maintain_order="left"
    )
    kept = kept_points_of(masks["local"], masks[MASK])
    np.testing.assert_array_equal(kept.points_of(side), expected)

    queries = take(images, range(0, images.n_images, 2))
    decided = decide_shared_points(
        spark,
        votes,
        nodes_of(frame.filter("name % 2 = 0"), work, n_blocks, "queries"),
        nodes,
        n_left=90,
        n_right=200,
        stage="kept queries",
    )
    left = collapse_images(queries)
    expected = unshared_points(left, side)
    assert 0 < len(expected) < len(left.owners)
    np.testing.assert_array_equal(decided.of_blocks(set(range(n_blocks))).points_of(left), expected)


def test_a_call_again_makes_no_pass(spark, monkeypatch, tmp_path, frame):
    monkeypatch.setattr(shared_points, "LIMITS", FEW)
    votes, work = check_comparison("local", None, 6, None), WorkFolder.of(str(tmp_path), spark)
    nodes = nodes_of(frame, work, 3)
    decided = decide_shared_points(spark, votes, nodes, n_left=200)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("kept/**/*.*")}
    assert len(files) > 3 * 3
    assert decide_shared_points(None, votes, nodes, n_left=200) == decided
    for name in ("decided.json", "limit-1.json", "counts-1/2.parquet"):  # a driver that was killed goes on there
        (tmp_path / "kept" / name).unlink()
    assert decide_shared_points(spark, votes, nodes, n_left=200) == decided
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("kept/**/*.*")}
    assert again.keys() == files.keys()
    assert again[tmp_path / "kept/counts-1/1.parquet"] == files[tmp_path / "kept/counts-1/1.parquet"]


def test_few_images_need_no_pass(spark, tmp_path, frame):
    work = WorkFolder.of(str(tmp_path), spark)
    nodes = nodes_of(frame, work, 3)
    decided = decide_shared_points(None, check_comparison("local", None, 6, None), nodes, n_left=200)
    assert not decided.sets_aside
    assert decided.masks(spark) is None
    assert not len(decided.of_blocks({0, 1}).mixed)
    assert decide_shared_points(None, check_comparison("pdq", 31, None, None), nodes, n_left=10**9) is None
