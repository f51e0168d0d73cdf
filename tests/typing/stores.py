"""The types of what finds images and of what stores hashes, as mypy shows them to a caller."""

from pathlib import Path
from typing import assert_type

import polars as pl

import imgmatch_df


def images_are_listed_lazily() -> None:
    assert_type(imgmatch_df.scan_images("photos/"), pl.LazyFrame)
    assert_type(imgmatch_df.scan_images(["a.jpg", "b/*.png"], recursive=False), pl.LazyFrame)
    assert_type(imgmatch_df.scan_images(Path("photos")), pl.LazyFrame)
    assert_type(imgmatch_df.count_left_out("photos/"), pl.DataFrame)


def stores_are_read_and_written(frame: pl.DataFrame, lazy: pl.LazyFrame) -> None:
    assert_type(imgmatch_df.scan_hashes("hashes.duckdb"), pl.LazyFrame)
    assert_type(imgmatch_df.read_hashes(Path("hashes.parquet")), pl.DataFrame)
    assert_type(imgmatch_df.write_hashes(frame, "hashes.duckdb"), imgmatch_df.WriteSummary)
    assert_type(imgmatch_df.write_hashes(lazy, Path("hashes"), key="sku", prune=True), imgmatch_df.WriteSummary)
    assert_type(imgmatch_df.sink_hashes(lazy, "hashes", hash_types=("phash",)), imgmatch_df.WriteSummary)


def errors_are_those_of_python_too(
    argument: imgmatch_df.ArgumentError, column: imgmatch_df.ColumnError, missing: imgmatch_df.MissingExtraError
) -> list[ValueError | TypeError | ImportError]:
    return [argument, column, missing]


def wrong_calls(lazy: pl.LazyFrame) -> None:
    """Each line is an error for mypy, which reports the line if it no longer is one."""
    imgmatch_df.scan_images()  # type: ignore[call-arg]
    imgmatch_df.scan_images("photos/", False)  # type: ignore[call-arg]
    imgmatch_df.read_hashes(b"hashes")  # type: ignore[arg-type]
    imgmatch_df.sink_hashes(lazy)  # type: ignore[call-arg]
    imgmatch_df.write_hashes(lazy, "hashes", prune=1)  # type: ignore[arg-type]
