"""pandas frames as arguments, and frames that leave Polars for pandas: all bits are kept, or the call fails."""

import narwhals
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import imgmatch_df

pytestmark = pytest.mark.packages

HASHES = [9969724181800505856, None, 2**64 - 1, 0, 2**63, 9969724181800505857]


@pytest.fixture
def rows() -> pl.DataFrame:
    return pl.DataFrame({"path": list("abcdef"), "phash": pl.Series(HASHES, dtype=pl.UInt64)})


def pandas_frames(rows: pl.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows in the ways of pandas that keep all bits."""
    nullable = pd.DataFrame({"path": list("abcdef"), "phash": pd.array(HASHES, dtype="UInt64")})
    return {
        "arrow": rows.to_pandas(use_pyarrow_extension_array=True),
        "nullable": nullable,
        "signed": rows.with_columns(imgmatch_df.to_int64("phash")).to_pandas(use_pyarrow_extension_array=True),
        "indexed": nullable.set_index(pd.Index([5, 5, 1, 0, 2, 9], name="number")),
        "hexadecimal": pd.DataFrame({"path": list("abcdef"), "phash": rows["phash"].imgmatch.to_hex().to_list()}),
    }


@pytest.mark.parametrize("name", ["arrow", "nullable", "signed", "indexed", "hexadecimal"])
def test_verbs_take_pandas_frames(rows: pl.DataFrame, name: str) -> None:
    frame = pandas_frames(rows)[name]
    wanted = rows.imgmatch.near_duplicates(1, "phash", id="path", flat="match")
    assert wanted.height == 2
    assert_frame_equal(imgmatch_df.near_duplicates(frame, 1, "phash", id="path", flat="match"), wanted)
    through = narwhals.from_native(frame)
    assert_frame_equal(imgmatch_df.near_duplicates(through, 1, "phash", id="path", flat="match"), wanted)
    matches = rows.imgmatch.match(frame, 1, "phash", flat="match")
    assert_frame_equal(matches, rows.imgmatch.match(rows, 1, "phash", flat="match"))
    clusters = imgmatch_df.cluster(frame, 1, "phash", flat="match")
    assert clusters["kept"].to_list() == rows.imgmatch.cluster(1, "phash", flat="match")["kept"].to_list()


def test_stores_take_pandas_frames(rows: pl.DataFrame, tmp_path) -> None:
    for name, frame in pandas_frames(rows).items():
        target = tmp_path / f"{name}.duckdb"
        done = imgmatch_df.write_hashes(frame, target, key="path", hash_types="phash")
        assert (done.n_new, done.n_failed) == (6, 1)
        assert imgmatch_df.read_hashes(target).sort("path")["phash"].to_list() == HASHES


def test_a_float_column_has_lost_bits_and_is_refused(rows: pl.DataFrame) -> None:
    lossy = rows.to_pandas()
    assert str(lossy["phash"].dtype) == "float64"
    for frame in (lossy, lossy.convert_dtypes()):
        with pytest.raises(imgmatch_df.ColumnError, match="has lost bits"):
            imgmatch_df.near_duplicates(frame, 1, "phash")


def test_columns_of_mixed_types_are_refused() -> None:
    with pytest.raises(imgmatch_df.ArgumentError, match="convert_dtypes"):
        imgmatch_df.near_duplicates(pd.DataFrame({"phash": [1, "x", b"y"]}), 1, "phash")
    with pytest.raises(imgmatch_df.ArgumentError, match="frame must be a Polars DataFrame"):
        imgmatch_df.near_duplicates(pd.Series([1]), 1, "phash")
