"""The namespace `imgmatch` of Polars objects: methods that call the functions of the same names."""

import inspect
import re
from collections.abc import Callable
from os import PathLike
from typing import Any, ClassVar, Final, Generic, TypeVar, Unpack

import polars as pl

from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import clustering, deprecated, expressions, hash_text, pairs, ranking, writing
from imgmatch_df.frames.checks import FrameT
from imgmatch_df.frames.flat import Flat
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES
from imgmatch_df.matching.linkages import Keep
from imgmatch_df.options import SourceOptions
from imgmatch_df.store.base import Target

T = TypeVar("T")

_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (
        *(
            expressions.pdq,
            expressions.phash,
            expressions.bmh1,
            expressions.perceptual_hash,
            expressions.visual_hash,
            expressions.hamming,
            hash_text.to_bits,
            hash_text.from_bits,
            hash_text.to_hex,
            hash_text.from_hex,
        ),
        *(
            pairs.near_duplicates,
            pairs.explain_near_duplicates,
            pairs.match,
            ranking.rank_images,
            clustering.cluster,
            clustering.remove_duplicates,
        ),
        *(writing.write_hashes, writing.sink_hashes),
    )
}


def _with_docstrings(namespace: type[T]) -> type[T]:
    """Give the methods the docstrings of their functions, and methods and functions short signatures."""
    for name, function in _FUNCTIONS.items():
        method = vars(namespace).get(name)
        if method is not None:
            method.__doc__ = _docstring(method, function)
            method.__signature__ = _signature(method)
            function.__signature__ = _signature(function)  # type: ignore[attr-defined]
    return namespace


def _docstring(method: Callable[..., Any], function: Callable[..., Any]) -> str:
    """Return the docstring of the function, without the parameters that the method lacks."""
    docstring = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters.keys() - inspect.signature(method).parameters.keys():
        docstring = re.sub(rf"^{name}\n(?: +.*\n)+", "", docstring, count=1, flags=re.MULTILINE)
        docstring = re.sub(rf"^{name}, (?=.*\n    )", "", docstring, count=1, flags=re.MULTILINE)
    return docstring.replace("Parameters\n----------\n\n", "")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with ``**options: SourceOptions``."""
    signature = inspect.signature(function)
    shown = [
        one.replace(annotation=SourceOptions) if one.kind is inspect.Parameter.VAR_KEYWORD else one
        for one in signature.parameters.values()
    ]
    return signature.replace(parameters=shown)


class _Namespace:
    """Base of the namespaces: a repr that lists the methods."""

    _of: ClassVar[str]

    def __repr__(self) -> str:
        verbs = [name for name in _FUNCTIONS if hasattr(self, name)]
        return f"<imgmatch of {self._of}: {', '.join(verbs)}>"


@pl.api.register_expr_namespace("imgmatch")
@_with_docstrings
class ImgMatchExpr(_Namespace):
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


@pl.api.register_series_namespace("imgmatch")
@_with_docstrings
class ImgMatchSeries(_Namespace):
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

    def _select(self, expr: pl.Expr) -> pl.Series:
        return self._series.to_frame().select(expr).to_series()


@_with_docstrings
class _FrameVerbs(_Namespace, Generic[FrameT]):
    """The frame verbs. A DataFrame returns a DataFrame, computed at once; a LazyFrame returns a LazyFrame."""

    def __init__(self, frame: FrameT) -> None:
        self._frame: FrameT = frame

    def visual_hash(
        self,
        source: str = "url",
        *,
        hash_types: expressions.HashTypes = DEFAULT_HASH_TYPES,
        prefix: str = "",
        suffix: str = "",
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.visual_hash`."""
        return expressions.visual_hash(
            self._frame, source, hash_types=hash_types, prefix=prefix, suffix=suffix, **options
        )

    def explain_near_duplicates(
        self,
        radius: int,
        hash_type: str = "bmh1",
        *,
        id: str | None = None,
        column: str | None = None,
        source: str | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        **options: Unpack[SourceOptions],
    ) -> str:
        """See `imgmatch_df.explain_near_duplicates`."""
        return pairs.explain_near_duplicates(
            self._frame,
            radius,
            hash_type,
            id=id,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            **options,
        )

    @deprecated.flag_of_other_function("explain", explain_near_duplicates)
    def near_duplicates(
        self,
        radius: int,
        hash_type: str = "bmh1",
        *,
        id: str | None = None,
        column: str | None = None,
        source: str | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        turns: bool = False,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.near_duplicates`."""
        return pairs.near_duplicates(
            self._frame,
            radius,
            hash_type,
            id=id,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            turns=turns,
            **options,
        )

    @deprecated.renamed_parameters(deprecated.REFERENCE_OF_MATCH)
    def match(
        self,
        reference: pl.DataFrame | pl.LazyFrame | Target,
        radius: int,
        hash_type: str = "bmh1",
        *,
        id: str | None = None,
        reference_id: str | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: str | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        turns: bool = False,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.match`."""
        return pairs.match(
            self._frame,
            reference,
            radius,
            hash_type,
            id=id,
            reference_id=reference_id,
            reference_column=reference_column,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            turns=turns,
            **options,
        )

    @deprecated.renamed_parameters(deprecated.REFERENCE_OF_CLUSTER)
    def cluster(
        self,
        radius: int = 0,
        hash_type: str = "bmh1",
        *,
        linkage: str = "connected",
        keep: Keep = "first",
        id: str | None = None,
        reference: pl.DataFrame | pl.LazyFrame | Target | None = None,
        reference_id: str | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: str | None = None,
        flat: Flat = "identical",
        diameter: bool = False,
        prefix: str = "",
        suffix: str = "",
        turns: bool = False,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.cluster`."""
        return clustering.cluster(
            self._frame,
            radius,
            hash_type,
            linkage=linkage,
            keep=keep,
            id=id,
            reference=reference,
            reference_id=reference_id,
            reference_column=reference_column,
            column=column,
            source=source,
            flat=flat,
            diameter=diameter,
            prefix=prefix,
            suffix=suffix,
            turns=turns,
            **options,
        )

    @deprecated.renamed_parameters(deprecated.REFERENCE_OF_REMOVE)
    def remove_duplicates(
        self,
        radius: int = 0,
        hash_type: str = "bmh1",
        *,
        linkage: str = "connected",
        keep: Keep = "first",
        reference: pl.DataFrame | pl.LazyFrame | Target | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: str | None = None,
        flat: Flat = "identical",
        prefix: str = "",
        suffix: str = "",
        turns: bool = False,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.remove_duplicates`."""
        return clustering.remove_duplicates(
            self._frame,
            radius,
            hash_type,
            linkage=linkage,
            keep=keep,
            reference=reference,
            reference_column=reference_column,
            column=column,
            source=source,
            flat=flat,
            prefix=prefix,
            suffix=suffix,
            turns=turns,
            **options,
        )

    def rank_images(
        self,
        query: int | bytes | str | PathLike[str],
        hash_type: str | None = None,
        *,
        k: int | None = None,
        column: str | None = None,
        source: str | None = None,
        flat: Flat = "identical",
        prefix: str = "",
        suffix: str = "",
        turns: bool = False,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.rank_images`."""
        return ranking.rank_images(
            self._frame,
            query,
            hash_type,
            k=k,
            column=column,
            source=source,
            flat=flat,
            prefix=prefix,
            suffix=suffix,
            turns=turns,
            **options,
        )


@pl.api.register_dataframe_namespace("imgmatch")
@_with_docstrings
class ImgMatchDataFrame(_FrameVerbs[pl.DataFrame]):
    """The frame verbs of a DataFrame, computed at once."""

    _of = "a DataFrame"

    def write_hashes(
        self,
        target: Target,
        *,
        source: str | None = None,
        key: str | None = None,
        hash_types: expressions.HashTypes | None = None,
        retry_failed: bool = False,
        prune: writing.Prune = False,
        **options: Unpack[SourceOptions],
    ) -> writing.WriteSummary:
        """See `imgmatch_df.write_hashes`."""
        return writing.write_hashes(
            self._frame,
            target,
            source=source,
            key=key,
            hash_types=hash_types,
            retry_failed=retry_failed,
            prune=prune,
            **options,
        )


@pl.api.register_lazyframe_namespace("imgmatch")
@_with_docstrings
class ImgMatchLazyFrame(_FrameVerbs[pl.LazyFrame]):
    """The frame verbs of a LazyFrame, computed when the query runs."""

    _of = "a LazyFrame"

    def sink_hashes(
        self,
        target: Target,
        *,
        source: str | None = None,
        key: str | None = None,
        hash_types: expressions.HashTypes | None = None,
        retry_failed: bool = False,
        prune: writing.Prune = False,
        **options: Unpack[SourceOptions],
    ) -> writing.WriteSummary:
        """See `imgmatch_df.sink_hashes`."""
        return writing.sink_hashes(
            self._frame,
            target,
            source=source,
            key=key,
            hash_types=hash_types,
            retry_failed=retry_failed,
            prune=prune,
            **options,
        )
