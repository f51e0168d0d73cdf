"""Hashes in Delta and Iceberg tables, which have no unsigned numbers: written, read, compared, stored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal

import imgmatch_df

pytestmark = pytest.mark.packages

Lake = Callable[[pl.DataFrame], pl.LazyFrame]


@pytest.fixture(params=["delta", "iceberg"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Return a function that writes a frame as a table of a lake and returns a query that reads it."""

    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # Polars 2 warns of the slower one

    def delta(frame: pl.DataFrame) -> pl.LazyFrame:
        frame.write_delta(str(tmp_path / "table"))
        return pl.scan_delta(str(tmp_path / "table"))

    def iceberg(frame: pl.DataFrame) -> pl.LazyFrame:
        from pyiceberg.catalog.sql import SqlCatalog

        catalog = SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=tmp_path.as_uri())
        catalog.create_namespace("lake")
        rows = frame.to_arrow()
        table = catalog.create_table("lake.images", rows.schema)
        table.append(rows)
        return pl.scan_iceberg(table)

    return {"delta": delta, "iceberg": iceberg}[request.param]


@pytest.fixture(scope="module")
def hashed() -> pl.DataFrame:
    """Images with copies, one broken, one absent; with hashes of the kinds of each dtype."""
    images = [jpeg(draw(number // 2, 90, 70)) for number in range(20)]
    frame = pl.DataFrame({"id": range(22), "image": [*images, b"broken", None]})
    found = frame.imgmatch.visual_hash("image", hash_types=("bmh1", "phash", "pdq", "imagehash_dhash", "sha256"))
    phash = found["phash"].to_numpy()
    assert (phash[:20] >= 2**63).any()
    assert (phash[:20] < 2**63).any()
    return found


def signed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame as the page "To and from other libraries" prepares it for a lake."""
    return frame.with_columns(
        pl.col("phash", "imagehash_dhash").imgmatch.to_int64(),
        pl.col("width", "height", "quality", "pdq_quality").cast(pl.Int32),
        pl.col("status").cast(pl.String),
    )


def test_hashes_survive_and_are_compared_as_they_are(lake: Lake, hashed: pl.DataFrame) -> None:
    read = lake(signed(hashed))
    assert read.collect_schema()["phash"] == pl.Int64
    back = read.collect().sort("id")
    for name in ("phash", "imagehash_dhash"):
        assert back[name].imgmatch.from_int64().to_list() == hashed[name].to_list()
    for name in ("bmh1", "pdq", "sha256"):
        assert back[name].to_list() == hashed[name].to_list()
    for hash_type, radius in (("phash", 4), ("imagehash_dhash", 4), ("bmh1", 24), ("pdq", 31)):
        pairs = read.imgmatch.near_duplicates(radius, hash_type, id="id").collect()
        wanted = hashed.imgmatch.near_duplicates(radius, hash_type, id="id")
        assert_frame_equal(pairs, wanted, check_dtypes=False, check_row_order=False)
        assert pairs.height >= 10
        matches = hashed.imgmatch.match(read, radius, hash_type, id="id", reference_id="id")
        assert_frame_equal(
            matches,
            hashed.imgmatch.match(hashed, radius, hash_type, id="id", reference_id="id"),
            check_dtypes=False,
            check_row_order=False,
        )


def test_a_store_takes_the_hashes_of_a_lake(lake: Lake, hashed: pl.DataFrame, tmp_path: Path) -> None:
    read = lake(signed(hashed))
    done = imgmatch_df.write_hashes(read, tmp_path / "hashes.duckdb", key="id", hash_types=("bmh1", "phash"))
    assert (done.n_new, done.n_failed) == (22, 2)
    stored = imgmatch_df.read_hashes(tmp_path / "hashes.duckdb").sort("id")
    assert stored["phash"].to_list() == hashed["phash"].to_list()
    assert stored["bmh1"].to_list() == hashed["bmh1"].to_list()


def test_images_of_a_lake_are_hashed(lake: Lake, hashed: pl.DataFrame) -> None:
    read = lake(hashed.select("id", "image"))
    found = read.imgmatch.visual_hash("image").collect().sort("id")
    assert found["phash"].to_list() == hashed["phash"].to_list()
    assert found["status"].cast(pl.String).to_list() == hashed["status"].cast(pl.String).to_list()


def test_numbers_that_a_lake_holds_by_itself_have_the_same_bits(lake: Lake) -> None:
    """Other writers store what they have: Int64 from Java, Decimal(20, 0) from Spark's Parquet reader."""
    bits = np.random.default_rng(5).integers(0, 2**64, 40, np.uint64)
    bits[1::2] = bits[::2] ^ np.uint64(1)
    frame = pl.DataFrame({"phash": bits})
    wide = lake(frame.select(pl.col("phash").cast(pl.Decimal(20, 0)))).collect()
    pairs = wide.imgmatch.near_duplicates(1, "phash")
    assert pairs.height == frame.imgmatch.near_duplicates(1, "phash").height == 20
