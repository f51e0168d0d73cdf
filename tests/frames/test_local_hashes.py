"""Local hashes as a column: the expressions, stores, SQL and text files that hold them."""

import io

import duckdb
import numpy as np
import polars as pl
import pytest
from documents import run_command
from PIL import Image
from polars.testing import assert_frame_equal, assert_series_equal

import imgmatch_df

POINTS = pl.List(pl.Struct({"hash": pl.UInt64, "x": pl.UInt8, "y": pl.UInt8, "level": pl.UInt8}))


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def drawn(seed):
    """Return a picture of many corners."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (24, 32, 3), np.uint8)
    return png(np.asarray(Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)))


@pytest.fixture(scope="module")
def frame():
    """Return three pictures, a flat one and two that fail."""
    flat = png(np.full((60, 80, 3), 200, np.uint8))
    return pl.DataFrame(
        {"id": range(6), "url": [drawn(1), drawn(2), flat, b"no image", None, drawn(3)]},
        schema_overrides={"id": pl.Int8},
    )


@pytest.fixture(scope="module")
def hashes(frame):
    return imgmatch_df.visual_hash(frame, hash_types=("phash", "local"))


def test_pictures_have_points_and_flat_ones_have_none(hashes):
    points = hashes["local"].imgmatch.to_points()
    assert points.dtype == POINTS
    counts = points.list.len().to_list()
    assert [count and min(count, 20) for count in counts] == [20, 20, 0, None, None, 20]
    assert hashes["local"].bin.size().to_list() == [715, 715, 715, None, None, 715]
    assert hashes["local"].n_unique() == 5
    one = points.explode().struct.unnest().drop_nulls()
    assert one["x"].min() >= 20
    assert one["level"].n_unique() >= 4


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_all_expressions_are_equal(frame, hashes, engine):
    wanted = hashes["local"]
    url = pl.col("url")
    lazy = frame.lazy().select(
        local=url.imgmatch.local(),
        named=url.imgmatch.perceptual_hash("local"),
        field=url.imgmatch.visual_hash(hash_types="local").struct.field("local"),
        isolated=url.imgmatch.local(isolate=True),
        points=url.imgmatch.local().imgmatch.to_points(),
    )
    found = lazy.collect(engine=engine)
    for name in ("local", "named", "field", "isolated"):
        assert_series_equal(found[name], wanted, check_names=False)
    assert_series_equal(found["points"], wanted.imgmatch.to_points(), check_names=False)
    assert_series_equal(frame["url"].imgmatch.local(), wanted, check_names=False)


@pytest.mark.parametrize("target", ["hashes.duckdb", "hashes.parquet"])
def test_stores_hold_them(frame, hashes, tmp_path, target):
    path = tmp_path / target
    imgmatch_df.write_hashes(frame.head(2), path, source="url", key="id", hash_types=("local", "phash"))
    imgmatch_df.write_hashes(frame, path, source="url", key="id")
    stored = imgmatch_df.read_hashes(path).sort("id")
    assert_series_equal(stored["local"], hashes["local"])
    assert imgmatch_df.scan_hashes(path).collect_schema()["local"] == pl.Binary
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'local' in the frame"):
        imgmatch_df.write_hashes(hashes.drop("local"), path, key="id")


def test_sql_shows_the_points_and_refuses_a_distance(frame, hashes, tmp_path):
    path = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(frame, path, source="url", key="id", hash_types=("local", "phash"))
    with duckdb.connect(path, read_only=True) as database:
        found = database.sql("SELECT to_points(local) AS local FROM hashes ORDER BY id").pl()
        assert_series_equal(found["local"].cast(POINTS), hashes["local"].imgmatch.to_points())
        assert database.sql("SELECT to_points(NULL)").fetchall() == [(None,)]
        with pytest.raises(duckdb.Error, match="local hashes have no distance"):
            database.sql("FROM near_duplicates(24, 'local')").fetchall()
        with pytest.raises(duckdb.Error, match="local hashes have no distance"):
            database.sql("FROM rank_images((SELECT local FROM hashes LIMIT 1), 3, hash_type := 'local')").fetchall()
        with pytest.raises(duckdb.Error, match="got 2 bytes, a local hash has 715"):
            database.sql("SELECT to_points('ab'::BLOB)").fetchall()


def test_text_files_hold_hexadecimal_digits(frame, hashes, tmp_path):
    for row, data in enumerate(frame["url"].head(3)):
        (tmp_path / f"{row}.png").write_bytes(data)
    csv = tmp_path / "hashes.csv"
    run_command(f"imgmatch visual-hash {tmp_path} --hash-types local -o {csv}")
    read = pl.read_csv(csv).sort("path").select(pl.col("local").imgmatch.from_hex("local"))
    assert_frame_equal(read, hashes.select("local").head(3))


def test_a_column_of_text_that_is_called_local_is_no_hash(tmp_path):
    frame = pl.DataFrame({"local": ["photos/1.jpg"], "phash": pl.Series([5], dtype=pl.UInt64)})
    path = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(frame, path, key="local")
    assert imgmatch_df.read_hashes(path).columns[0] == "local"
    assert imgmatch_df.near_duplicates(frame, 0, "phash", id="local").is_empty()


def test_to_points_refuses_other_bytes():
    frame = pl.DataFrame({"bmh1": [bytes(121)]})
    with pytest.raises(imgmatch_df.ColumnError, match="holds values of 121 bytes, a local hash has 715"):
        frame.select(imgmatch_df.to_points("bmh1"))
    assert frame.clear().select(imgmatch_df.to_points("bmh1")).schema == {"bmh1": POINTS}
