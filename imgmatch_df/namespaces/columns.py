"""The namespaces of expressions and series."""

from collections.abc import Mapping
from typing import Unpack

import polars as pl

from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import expressions, hash_numbers, hash_text, leak_free, local_hashes
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES
from imgmatch_df.namespaces.base import Namespace, with_docstrings
from imgmatch_df.options import SourceOptions


@pl.api.register_expr_namespace("imgmatch")
@with_docstrings
class ImgMatchExpr(Namespace):
    """Hashes of a source column, and distances of hash columns."""

    _of = "an Expr"

    def __init__(self, expr: pl.Expr) -> None:
        self._expr = expr

    def phash(self, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.phash`."""
        return expressions.phash(self._expr, **options)

    def pdq(self, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.pdq`."""
        return expressions.pdq(self._expr, **options)

    def bmh1(self, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.bmh1`."""
        return expressions.bmh1(self._expr, **options)

    def local(self, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.local`."""
        return local_hashes.local(self._expr, **options)

    def perceptual_hash(self, hash_type: str, **options: Unpack[SourceOptions]) -> pl.Expr:
        """See `imgmatch_df.perceptual_hash`."""
        return expressions.perceptual_hash(self._expr, hash_type, **options)

    def visual_hash(
        self,
        *,
        hash_types: expressions.HashTypes = DEFAULT_HASH_TYPES,
        prefix: str = "",
        suffix: str = "",
        **options: Unpack[SourceOptions],
    ) -> pl.Expr:
        """See `imgmatch_df.visual_hash`."""
        return expressions.visual_hash(self._expr, hash_types=hash_types, prefix=prefix, suffix=suffix, **options)

    def hamming(self, other: pl.Expr | pl.Series | int | bytes | str, *, hash_type: str | None = None) -> pl.Expr:
        """See `imgmatch_df.hamming`."""
        return expressions.hamming(self._expr, other, hash_type=hash_type)

    def to_bits(self) -> pl.Expr:
        """See `imgmatch_df.to_bits`."""
        return hash_text.to_bits(self._expr)

    def from_bits(self, hash_type: str) -> pl.Expr:
        """See `imgmatch_df.from_bits`."""
        return hash_text.from_bits(self._expr, hash_type)

    def to_hex(self) -> pl.Expr:
        """See `imgmatch_df.to_hex`."""
        return hash_text.to_hex(self._expr)

    def from_hex(self, hash_type: str) -> pl.Expr:
        """See `imgmatch_df.from_hex`."""
        return hash_text.from_hex(self._expr, hash_type)

    def to_int64(self) -> pl.Expr:
        """See `imgmatch_df.to_int64`."""
        return hash_numbers.to_int64(self._expr)

    def from_int64(self) -> pl.Expr:
        """See `imgmatch_df.from_int64`."""
        return hash_numbers.from_int64(self._expr)

    def to_points(self) -> pl.Expr:
        """See `imgmatch_df.to_points`."""
        return local_hashes.to_points(self._expr)

    def assign_split(self, shares: Mapping[str, float], *, seed: int = 0) -> pl.Expr:
        """See `imgmatch_df.assign_split`."""
        return leak_free.assign_split(self._expr, shares, seed=seed)


@pl.api.register_series_namespace("imgmatch")
@with_docstrings
class ImgMatchSeries(Namespace):
    """Hashes of a Series of sources, and distances of a Series of hashes, computed at once."""

    _of = "a Series"

    def __init__(self, series: pl.Series) -> None:
        self._series = series

    def phash(self, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.phash`."""
        return self._select(expressions.phash(pl.first(), **options))

    def pdq(self, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.pdq`."""
        return self._select(expressions.pdq(pl.first(), **options))

    def bmh1(self, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.bmh1`."""
        return self._select(expressions.bmh1(pl.first(), **options))

    def local(self, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.local`."""
        return self._select(local_hashes.local(pl.first(), **options))

    def perceptual_hash(self, hash_type: str, **options: Unpack[SourceOptions]) -> pl.Series:
        """See `imgmatch_df.perceptual_hash`."""
        return self._select(expressions.perceptual_hash(pl.first(), hash_type, **options))

    def visual_hash(
        self,
        *,
        hash_types: expressions.HashTypes = DEFAULT_HASH_TYPES,
        prefix: str = "",
        suffix: str = "",
        **options: Unpack[SourceOptions],
    ) -> pl.Series:
        """See `imgmatch_df.visual_hash`."""
        return self._select(
            expressions.visual_hash(pl.first(), hash_types=hash_types, prefix=prefix, suffix=suffix, **options)
        )

    def hamming(self, other: pl.Series | int | bytes | str, *, hash_type: str | None = None) -> pl.Series:
        """See `imgmatch_df.hamming`."""
        if isinstance(other, pl.Expr):
            raise ArgumentError(
                "other must be a Series or one hash, got an Expr\n"
                "Hint: compare two columns with frame.select(pl.col('a').imgmatch.hamming(pl.col('b')))."
            )
        return self._select(expressions.hamming(pl.first(), other, hash_type=hash_type))

    def to_bits(self) -> pl.Series:
        """See `imgmatch_df.to_bits`."""
        return self._select(hash_text.to_bits(pl.first()))

    def from_bits(self, hash_type: str) -> pl.Series:
        """See `imgmatch_df.from_bits`."""
        return self._select(hash_text.from_bits(pl.first(), hash_type))

    def to_hex(self) -> pl.Series:
        """See `imgmatch_df.to_hex`."""
        return self._select(hash_text.to_hex(pl.first()))

    def from_hex(self, hash_type: str) -> pl.Series:
        """See `imgmatch_df.from_hex`."""
        return self._select(hash_text.from_hex(pl.first(), hash_type))

    def to_int64(self) -> pl.Series:
        """See `imgmatch_df.to_int64`."""
        return self._select(hash_numbers.to_int64(pl.first()))

    def from_int64(self) -> pl.Series:
        """See `imgmatch_df.from_int64`."""
        return self._select(hash_numbers.from_int64(pl.first()))

    def to_points(self) -> pl.Series:
        """See `imgmatch_df.to_points`."""
        return self._select(local_hashes.to_points(pl.first()))

    def assign_split(self, shares: Mapping[str, float], *, seed: int = 0) -> pl.Series:
        """See `imgmatch_df.assign_split`."""
        return self._select(leak_free.assign_split(pl.first(), shares, seed=seed))

    def _select(self, expr: pl.Expr) -> pl.Series:
        return self._series.to_frame().select(expr).to_series()
