"""Frames that leave Polars for pandas keep every bit of a hash."""

import polars as pl
import pytest

pytestmark = pytest.mark.packages


def test_hashes_survive_pandas_with_failed_rows() -> None:
    hashes = [9969724181800505856, None, 2**64 - 1, 0]
    frame = pl.DataFrame({"phash": pl.Series(hashes, dtype=pl.UInt64)})
    nullable = frame.to_pandas(use_pyarrow_extension_array=True)
    assert pl.from_pandas(nullable)["phash"].to_list() == hashes
