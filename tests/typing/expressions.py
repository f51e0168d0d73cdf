"""The types of expressions and series, as mypy shows them to a caller."""

from typing import assert_type

import polars as pl

import imgmatch_df
from imgmatch_df.namespaces import ImgMatchExpr, ImgMatchSeries


def functions_return_expressions(expr: pl.Expr, series: pl.Series) -> None:
    assert_type(imgmatch_df.phash("url"), pl.Expr)
    assert_type(imgmatch_df.phash(expr, timeout_s=2.5, allow_private_networks=True), pl.Expr)
    assert_type(imgmatch_df.bmh1("url", decode="scaled"), pl.Expr)
    assert_type(imgmatch_df.visual_hash("url"), pl.Expr)
    assert_type(imgmatch_df.visual_hash(expr, hash_types=("bmh1",), suffix="_left"), pl.Expr)
    assert_type(imgmatch_df.hamming("phash", 17), pl.Expr)
    assert_type(imgmatch_df.hamming(expr, expr), pl.Expr)
    assert_type(imgmatch_df.hamming("bmh1", b"\x00" * 121), pl.Expr)
    assert_type(imgmatch_df.hamming("phash", series) <= 4, pl.Expr)
    assert_type(imgmatch_df.to_bits("phash"), pl.Expr)
    assert_type(imgmatch_df.from_bits(expr, "phash"), pl.Expr)
    assert_type(imgmatch_df.to_hex("phash"), pl.Expr)
    assert_type(imgmatch_df.from_hex(expr, "phash"), pl.Expr)


def methods_of_an_expression(hashes: ImgMatchExpr, other: pl.Expr) -> None:
    assert_type(hashes.phash(), pl.Expr)
    assert_type(hashes.bmh1(max_pixels=1_000_000), pl.Expr)
    assert_type(hashes.visual_hash(hash_types=["phash"]), pl.Expr)
    assert_type(hashes.hamming(other), pl.Expr)
    assert_type(hashes.to_bits(), pl.Expr)
    assert_type(hashes.from_bits("bmh1"), pl.Expr)
    assert_type(hashes.to_hex(), pl.Expr)
    assert_type(hashes.from_hex("bmh1"), pl.Expr)


def methods_of_a_series(hashes: ImgMatchSeries, other: pl.Series) -> None:
    assert_type(hashes.phash(), pl.Series)
    assert_type(hashes.bmh1(on_error="raise"), pl.Series)
    assert_type(hashes.visual_hash(), pl.Series)
    assert_type(hashes.hamming(other), pl.Series)
    assert_type(hashes.to_bits(), pl.Series)
    assert_type(hashes.from_bits("bmh1"), pl.Series)
    assert_type(hashes.to_hex(), pl.Series)
    assert_type(hashes.from_hex("bmh1"), pl.Series)


def wrong_calls(expr: pl.Expr, series: ImgMatchSeries) -> None:
    """Each line is an error for mypy, which reports the line if it no longer is one."""
    imgmatch_df.phash(17)  # type: ignore[arg-type]
    imgmatch_df.phash("url", alpha="grey")  # type: ignore[arg-type]
    imgmatch_df.bmh1("url", radius=24)  # type: ignore[call-arg]
    imgmatch_df.visual_hash("url", "path")  # type: ignore[call-overload]
    imgmatch_df.hamming("phash")  # type: ignore[call-arg]
    imgmatch_df.hamming("phash", 0.5)  # type: ignore[arg-type]
    imgmatch_df.from_bits("bits")  # type: ignore[call-arg]
    series.hamming(expr)  # type: ignore[arg-type]
    expr.imgmatch.phash()  # type: ignore[attr-defined]
