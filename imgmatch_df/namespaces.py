"""The namespace `imgmatch` of expressions, series and frames: two-line methods over `pipeline`."""

from typing import Unpack

import polars as pl

from imgmatch_df import pipeline
from imgmatch_df.options import SourceOptions


@pl.api.register_expr_namespace("imgmatch")
class ImgMatchExpr:
    """Hashes of a source column, and distances of hash columns."""

    def __init__(self, expr: pl.Expr) -> None:
        self._expr = expr

    def phash(self, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.phash`."""
        return pipeline.phash(self._expr, **options)

    def bmh1(self, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.bmh1`."""
        return pipeline.bmh1(self._expr, **options)

    def visual_hash(
        self, *, hash_types: pipeline.HashTypes = ("bmh1", "phash"), **options: Unpack[SourceOptions]
    ) -> pl.Expr:
        """See `imgmatch_df.visual_hash`."""
        return pipeline.visual_hash(self._expr, hash_types=hash_types, **options)

    def hamming(self, other: pl.Expr | int | bytes | str) -> pl.Expr:
        """See `imgmatch_df.hamming`."""
        return pipeline.hamming(self._expr, other)

    def to_bits(self) -> pl.Expr:
        """See `imgmatch_df.to_bits`."""
        return pipeline.to_bits(self._expr)

    def from_bits(self, hash_type: str) -> pl.Expr:
        """See `imgmatch_df.from_bits`."""
        return pipeline.from_bits(self._expr, hash_type)


@pl.api.register_series_namespace("imgmatch")
class ImgMatchSeries:
    """The same on a Series, at once; results have the same names."""

    def __init__(self, series: pl.Series) -> None:
        self._series = series

    def phash(self, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.phash`."""
        return self._select(pipeline.phash(pl.first(), **options))

    def bmh1(self, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.bmh1`."""
        return self._select(pipeline.bmh1(pl.first(), **options))

    def visual_hash(
        self, *, hash_types: pipeline.HashTypes = ("bmh1", "phash"), **options: Unpack[SourceOptions]
    ) -> pl.Series:
        """See `imgmatch_df.visual_hash`."""
        return self._select(pipeline.visual_hash(pl.first(), hash_types=hash_types, **options))

    def hamming(self, other: pl.Series | int | bytes | str) -> pl.Series:
        """See `imgmatch_df.hamming`."""
        return self._select(pipeline.hamming(pl.first(), pl.lit(other) if isinstance(other, pl.Series) else other))

    def to_bits(self) -> pl.Series:
        """See `imgmatch_df.to_bits`."""
        return self._select(pipeline.to_bits(pl.first()))

    def from_bits(self, hash_type: str) -> pl.Series:
        """See `imgmatch_df.from_bits`."""
        return self._select(pipeline.from_bits(pl.first(), hash_type))

    def _select(self, expr: pl.Expr) -> pl.Series:
        return self._series.to_frame().select(expr).to_series()


@pl.api.register_dataframe_namespace("imgmatch")
class ImgMatchDataFrame:
    """The frame verbs, at once."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def visual_hash(
        self,
        source: str = "url",
        *,
        hash_types: pipeline.HashTypes = ("bmh1", "phash"),
        **options: Unpack[SourceOptions],
    ) -> pl.DataFrame:
        """See `imgmatch_df.visual_hash`."""
        return pipeline.visual_hash(self._frame, source, hash_types=hash_types, **options)


@pl.api.register_lazyframe_namespace("imgmatch")
class ImgMatchLazyFrame:
    """The frame verbs, lazily."""

    def __init__(self, frame: pl.LazyFrame) -> None:
        self._frame = frame

    def visual_hash(
        self,
        source: str = "url",
        *,
        hash_types: pipeline.HashTypes = ("bmh1", "phash"),
        **options: Unpack[SourceOptions],
    ) -> pl.LazyFrame:
        """See `imgmatch_df.visual_hash`."""
        return pipeline.visual_hash(self._frame, source, hash_types=hash_types, **options)
