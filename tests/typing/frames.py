"""The types of frame verbs, as mypy shows them to a caller: a verb returns the type of frame that it takes."""

from pathlib import Path
from typing import assert_type

import polars as pl

import imgmatch_df
from imgmatch_df.namespaces import ImgMatchDataFrame, ImgMatchLazyFrame


def verbs_of_a_data_frame(frame: pl.DataFrame, stored: pl.LazyFrame) -> None:
    assert_type(imgmatch_df.visual_hash(frame), pl.DataFrame)
    assert_type(imgmatch_df.visual_hash(frame, "path", hash_types=("phash",), prefix="a_"), pl.DataFrame)
    assert_type(imgmatch_df.near_duplicates(frame, 24), pl.DataFrame)
    assert_type(imgmatch_df.near_duplicates(frame, 4, "phash", id="sku", source="url"), pl.DataFrame)
    assert_type(imgmatch_df.match(frame, frame, 24), pl.DataFrame)
    assert_type(imgmatch_df.match(frame, stored, 24), pl.DataFrame)
    assert_type(imgmatch_df.match(frame, "hashes.duckdb", 24), pl.DataFrame)
    assert_type(imgmatch_df.match(frame, Path("hashes"), 24, "bmh1"), pl.DataFrame)
    assert_type(imgmatch_df.cluster(frame), pl.DataFrame)
    assert_type(imgmatch_df.cluster(frame, 24, linkage="star", keep="largest"), pl.DataFrame)
    assert_type(imgmatch_df.remove_duplicates(frame, 24, reference=stored), pl.DataFrame)
    assert_type(imgmatch_df.rank_images(frame, "query.jpg", k=5), pl.DataFrame)
    assert_type(imgmatch_df.rank_images(frame, Path("query.jpg")), pl.DataFrame)
    assert_type(imgmatch_df.rank_images(frame, b"\xff\xd8"), pl.DataFrame)


def verbs_of_a_lazy_frame(frame: pl.LazyFrame, stored: pl.DataFrame) -> None:
    assert_type(imgmatch_df.visual_hash(frame), pl.LazyFrame)
    assert_type(imgmatch_df.visual_hash(frame, "path", hash_types=["bmh1", "phash"]), pl.LazyFrame)
    assert_type(imgmatch_df.near_duplicates(frame, 24), pl.LazyFrame)
    assert_type(imgmatch_df.match(frame, stored, 24), pl.LazyFrame)
    assert_type(imgmatch_df.match(frame, "hashes.duckdb", 24), pl.LazyFrame)
    assert_type(imgmatch_df.cluster(frame, 24, diameter=True), pl.LazyFrame)
    assert_type(imgmatch_df.cluster(frame, 24, keep=[-pl.col("size")], across="folder"), pl.LazyFrame)
    assert_type(imgmatch_df.remove_duplicates(frame), pl.LazyFrame)
    assert_type(imgmatch_df.rank_images(frame, 17, "phash"), pl.LazyFrame)


def a_pipeline_keeps_its_type(frame: pl.LazyFrame) -> None:
    kept = frame.pipe(imgmatch_df.remove_duplicates, 24, source="path")
    assert_type(kept, pl.LazyFrame)
    assert_type(kept.collect(), pl.DataFrame)


def every_call_that_reads_sources_takes_the_options(frame: pl.DataFrame) -> None:
    assert_type(
        imgmatch_df.cluster(
            frame,
            24,
            source="url",
            decode="scaled",
            alpha="white",
            trim="borders",
            pdq_variant="512",
            max_pixels=1_000_000,
            timeout_s=5,
            base_dir=Path("photos"),
            storage_options={"anon": True},
            schemes=["https"],
            on_error="raise",
        ),
        pl.DataFrame,
    )


def methods_of_a_data_frame(verbs: ImgMatchDataFrame) -> None:
    assert_type(verbs.visual_hash(), pl.DataFrame)
    assert_type(verbs.near_duplicates(24), pl.DataFrame)
    assert_type(verbs.match("hashes.duckdb", 24), pl.DataFrame)
    assert_type(verbs.cluster(24), pl.DataFrame)
    assert_type(verbs.remove_duplicates(24), pl.DataFrame)
    assert_type(verbs.rank_images("query.jpg"), pl.DataFrame)
    assert_type(verbs.write_hashes("hashes.duckdb"), imgmatch_df.WriteSummary)


def methods_of_a_lazy_frame(verbs: ImgMatchLazyFrame) -> None:
    assert_type(verbs.visual_hash(), pl.LazyFrame)
    assert_type(verbs.near_duplicates(24), pl.LazyFrame)
    assert_type(verbs.match("hashes.duckdb", 24), pl.LazyFrame)
    assert_type(verbs.cluster(24), pl.LazyFrame)
    assert_type(verbs.remove_duplicates(24), pl.LazyFrame)
    assert_type(verbs.rank_images("query.jpg"), pl.LazyFrame)
    assert_type(verbs.find_copies(reference="hashes.duckdb"), pl.LazyFrame)
    assert_type(verbs.sink_hashes("hashes.duckdb"), imgmatch_df.WriteSummary)


def wrong_calls(frame: pl.DataFrame, lazy: pl.LazyFrame) -> None:
    """Each line is an error for mypy, which reports the line if it no longer is one."""
    imgmatch_df.near_duplicates(frame, min_votes="8")  # type: ignore[arg-type]
    imgmatch_df.near_duplicates(frame, "24")  # type: ignore[arg-type]
    imgmatch_df.cluster("photos/")  # type: ignore[type-var]
    imgmatch_df.cluster(frame, radius=2.5)  # type: ignore[arg-type]
    imgmatch_df.remove_duplicates(frame, keep="best")  # type: ignore[arg-type]
    imgmatch_df.remove_duplicates(frame, 24, "bmh1", "star")  # type: ignore[call-arg, arg-type]
    imgmatch_df.cluster(frame, decode="half")  # type: ignore[arg-type]
    imgmatch_df.cluster(frame, time_out=5)  # type: ignore[call-arg]
    imgmatch_df.match(frame)  # type: ignore[call-arg]
    imgmatch_df.rank_images(frame, 2.5)  # type: ignore[arg-type]
    imgmatch_df.visual_hash(frame.get_column("url"))  # type: ignore[call-overload]
    imgmatch_df.sink_hashes(frame, "hashes.duckdb")  # type: ignore[arg-type]
    imgmatch_df.write_hashes(lazy)  # type: ignore[call-arg]


def what_polars_registers_is_not_typed(frame: pl.DataFrame, lazy: pl.LazyFrame) -> None:
    """Polars adds a namespace at run time; type checkers know the functions and the classes of the namespaces."""
    frame.imgmatch.cluster(24)  # type: ignore[attr-defined]
    lazy.imgmatch.cluster(24)  # type: ignore[attr-defined]
