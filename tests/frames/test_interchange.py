"""Tables of other libraries as arguments, and hashes as signed numbers."""

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal

import imgmatch_df

N_ROWS = 60
HASHES = [0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, None]


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    """Hashes with near ones among them, on both sides of 2**63, and nulls."""
    bits = np.random.default_rng(3).integers(0, 2**64, N_ROWS, np.uint64)
    bits[40] = 11636741 ^ 3
    bits[1::3] = bits[::3] ^ np.uint64(5)
    return pl.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(N_ROWS)],
            "phash": pl.Series(bits, dtype=pl.UInt64).scatter([7, 11], None),
            "bmh1": [None if row == 9 else row.to_bytes(2, "big") * 60 + b"\0" for row in range(N_ROWS)],
        }
    )


def tables(rows: pl.DataFrame) -> dict[str, object]:
    """Return the rows as tables of other libraries, new ones each time: a reader is read once."""
    arrow = rows.to_arrow()
    return {
        "table": arrow,
        "signed": rows.with_columns(imgmatch_df.to_int64("phash")).to_arrow(),
        "batch": arrow.combine_chunks().to_batches()[0],
        "reader": arrow.to_reader(max_chunksize=7),
        "duckdb": duckdb.sql("SELECT * FROM arrow"),
    }


OLD = pl.DataFrame({"name": ["old"], "phash": [11636741]}, schema_overrides={"phash": pl.UInt64})
NAMES = ["table", "signed", "batch", "reader", "duckdb"]
VERBS = {
    "near_duplicates": lambda frame: imgmatch_df.near_duplicates(frame, 4, "phash", id="path"),
    "explain": lambda frame: imgmatch_df.explain_near_duplicates(frame, 4, "phash"),
    "match": lambda frame: imgmatch_df.match(frame, OLD, 4, "phash", id="path", reference_id="name"),
    "rank_images": lambda frame: imgmatch_df.rank_images(frame, 7, "phash", k=5).drop("phash"),
    "cluster": lambda frame: imgmatch_df.cluster(frame, 4, "phash").drop("phash"),
    "remove_duplicates": lambda frame: imgmatch_df.remove_duplicates(frame, 4, "phash").select("path"),
    "profile_radii": lambda frame: imgmatch_df.profile_radii(frame, "phash"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", list(VERBS))
def test_verbs_take_tables_of_other_libraries(rows, name, verb):
    found, wanted = VERBS[verb](tables(rows)[name]), VERBS[verb](rows)
    if isinstance(wanted, pl.DataFrame):
        assert_frame_equal(found, wanted)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_may_be_such_a_table(rows, name):
    new = rows.head(9)
    assert_frame_equal(new.imgmatch.match(tables(rows)[name], 4, "phash"), new.imgmatch.match(rows, 4, "phash"))
    for frame in (new, new.lazy()):
        found = frame.imgmatch.cluster(4, "phash", reference=tables(rows)[name]).lazy().collect()
        assert_frame_equal(found, new.imgmatch.cluster(4, "phash", reference=rows))


@pytest.mark.parametrize("name", NAMES)
def test_stores_take_tables_of_other_libraries(rows, name, tmp_path):
    done = imgmatch_df.write_hashes(tables(rows)[name], tmp_path / "s.duckdb", key="path", hash_types=["phash", "bmh1"])
    assert done.n_new == N_ROWS
    stored = imgmatch_df.read_hashes(tmp_path / "s.duckdb").select(rows.columns)
    assert_frame_equal(stored, rows, check_row_order=False)


def test_images_of_a_stream_are_hashed_as_they_come(tmp_path):
    images = [jpeg(draw(seed, 60, 40)) for seed in range(10)]
    n_read = 0

    def batches():
        nonlocal n_read
        for number in range(4):
            n_read += 1
            yield pa.record_batch({"id": [f"{number}-{i}" for i in range(10)], "image": images})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"id": pa.string(), "image": pa.binary()}), batches())
    done = imgmatch_df.sink_hashes(reader, tmp_path / "s.duckdb", source="image", key="id")
    assert (done.n_new, done.n_failed, n_read) == (40, 0, 4)
    found = imgmatch_df.visual_hash(pa.table({"image": images}), "image")
    assert_frame_equal(found, pl.DataFrame({"image": images}).imgmatch.visual_hash("image"))
    # Polars 1.40 wraps the error of a source.
    with pytest.raises((imgmatch_df.ArgumentError, pl.exceptions.ComputeError), match="can be read only once"):
        imgmatch_df.sink_hashes(reader, tmp_path / "t.duckdb", source="image", key="id")


@pytest.mark.parametrize("value", [{"phash": [1]}, [1], None, "phash", 3, pa.array([1]), duckdb.connect()])
def test_what_is_no_table_is_refused(value):
    with pytest.raises(imgmatch_df.ArgumentError, match="frame must be a Polars DataFrame or LazyFrame"):
        imgmatch_df.near_duplicates(value, 4, "phash")


def test_a_table_that_polars_cannot_read_is_refused():
    table = pa.table({"phash": pa.array([1], pa.uint64()), "x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(imgmatch_df.ArgumentError, match="Hint: "):
        imgmatch_df.near_duplicates(table, 4, "phash")


@pytest.mark.parametrize("lazy", [False, True])
def test_signed_numbers_have_the_same_bits(lazy):
    frame = pl.DataFrame({"phash": HASHES}, schema={"phash": pl.UInt64})
    signed = (frame.lazy() if lazy else frame).select(pl.col("phash").imgmatch.to_int64()).lazy().collect()
    wanted = [None if value is None else value - (value >> 63 << 64) for value in HASHES]
    assert signed.to_dict(as_series=False) == {"phash": wanted}
    assert signed.schema == {"phash": pl.Int64}
    assert_frame_equal(signed.select(imgmatch_df.from_int64("phash")), frame)
    assert signed["phash"].imgmatch.from_int64().to_list() == HASHES
    assert frame["phash"].imgmatch.to_int64().imgmatch.to_int64().to_list() == wanted
    for dtype in (pl.Int128, pl.Decimal(38, 0)):
        assert frame["phash"].cast(dtype).imgmatch.from_int64().to_list() == HASHES
    assert pl.Series("a", [None, None]).imgmatch.to_int64().dtype == pl.Int64
    assert pl.Series("a", [None, None]).imgmatch.from_int64().dtype == pl.UInt64


@pytest.mark.parametrize("series", [pl.Series([b"x"]), pl.Series(["1"]), pl.Series([1.0]), pl.Series([[1]])])
def test_other_columns_are_not_numbers(series):
    for convert in (series.imgmatch.to_int64, series.imgmatch.from_int64):
        with pytest.raises(imgmatch_df.ColumnError, match="has dtype"):
            convert()
