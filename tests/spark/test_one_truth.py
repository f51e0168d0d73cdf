"""One truth, many faces: 200 images give the same pairs and clusters through the functions and through Spark."""

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal

import imgmatch_df
import imgmatch_df.spark as ims
from imgmatch_df.spark.schemas import as_polars

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pl.DataFrame:
    """Forty drawn images, each in five qualities."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(40):
        for number, quality in enumerate((95, 85, 60, 30, 12)):
            (folder / f"{seed:02}-{number}.jpg").write_bytes(jpeg(draw(seed, 160, 120), quality=quality))
    paths = sorted(map(str, folder.iterdir()))
    return pl.DataFrame({"id": [f"image {number:03}" for number in range(200)], "path": paths})


@pytest.mark.parametrize(("hash_type", "radius"), [("bmh1", 24), ("phash", 8)])
def test_pairs_and_clusters_of_200_images(spark, images, tmp_path, hash_type, radius):
    df = spark.createDataFrame(images.sample(fraction=1, shuffle=True, seed=3).to_dicts())
    named = {"id": "id", "source": "path"}
    expected = imgmatch_df.near_duplicates(images, radius, hash_type, **named)
    assert expected.height > 100
    found = ims.near_duplicates(df, radius, hash_type, **named, work_dir=str(tmp_path), n_blocks=3)
    by = ["left_id", "right_id"]
    assert found.columns == expected.columns
    assert_frame_equal(as_polars(found.toArrow()).sort(by), expected.sort(by), check_dtypes=False)
    expected = imgmatch_df.cluster(images, radius, hash_type, **named)
    expected = expected.with_columns(pl.col(pl.UInt64).reinterpret(signed=True))
    found = ims.cluster(df, radius, hash_type, **named, work_dir=str(tmp_path), n_blocks=3)
    assert found.columns == expected.columns
    assert_frame_equal(as_polars(found.toArrow()).sort("id"), expected, check_dtypes=False, categorical_as_str=True)
