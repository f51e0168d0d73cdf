import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg

import imgmatch_df as im
import imgmatch_df.spark as ims
from imgmatch_df.errors import ArgumentError, ColumnError

pytestmark = pytest.mark.spark

ROWS = 3_000


@pytest.fixture(scope="module")
def hashes() -> pl.DataFrame:
    """Hashes of which a third are there twice, some null and some of flat images."""
    rng = np.random.default_rng(0)
    different = rng.integers(-(1 << 63), 1 << 63, ROWS * 2 // 3)
    values = np.concatenate([different, different[: ROWS // 3]])
    quality = np.where(np.arange(ROWS) % 10 == 0, 0, 100)
    frame = pl.DataFrame({"id": np.arange(ROWS), "phash": values, "quality": quality.astype(np.int16)})
    return frame.with_columns(pl.when(pl.col("id") % 7 != 0).then("phash"))


@pytest.fixture(scope="module")
def df(spark, hashes):
    return spark.createDataFrame(hashes.to_arrow())


def test_the_plan_of_a_data_frame(df, hashes, tmp_path):
    compared = hashes.drop_nulls().filter(pl.col("quality") >= 50)
    plan = ims.explain_near_duplicates(df, 4, "phash", id="id", n_blocks=3)
    assert plan.n_rows == len(compared)
    assert plan.n_distinct == pytest.approx(compared["phash"].n_unique(), rel=0.06)
    assert (plan.n_blocks, plan.n_tasks) == (3, 6)
    assert str(plan).startswith(f"{len(compared):,} rows of phash, about ")
    with pytest.warns(im.ImgMatchWarning, match="show too little"):
        ims.near_duplicates(df, 4, "phash", id="id", n_blocks=3, work_dir=str(tmp_path))
    assert len(list(tmp_path.rglob("tiles/pairs/*-*.parquet"))) == plan.n_tasks
    everything = ims.explain_near_duplicates(df, 4, "phash", flat="match")
    assert (everything.n_rows, everything.n_blocks) == (hashes["phash"].count(), 1)


def test_a_data_frame_without_hashes(df):
    plan = ims.explain_near_duplicates(df.filter("false"), 4, "phash")
    assert (plan.n_rows, plan.n_distinct, plan.n_tasks, plan.join) == (0, 0, 1, None)


def test_the_plan_of_local_hashes(spark):
    images = pl.DataFrame({"image": [jpeg(draw(seed, 320, 240)) for seed in range(6)]})
    frame = images.select(im.visual_hash("image", hash_types=("local",)).struct.field("local"))
    assert frame["local"].null_count() == 0
    plan = ims.explain_near_duplicates(spark.createDataFrame(frame.to_arrow()), hash_type="local")
    assert (plan.n_rows, plan.n_distinct, plan.limit) == (6, 6, "8 votes in eight turns")


def test_wrong_arguments(df):
    with pytest.raises(ColumnError, match="no column 'bmh1'"):
        ims.explain_near_duplicates(df, 4)
    with pytest.raises(ColumnError, match="nope"):
        ims.explain_near_duplicates(df, 4, "phash", id="nope")
    with pytest.raises(ArgumentError, match="Spark DataFrame"):
        ims.explain_near_duplicates("hashes.parquet", 4, "phash")
    with pytest.raises(ArgumentError, match="max_pairs"):
        ims.explain_near_duplicates(df, 4, "phash", max_pairs=0)
