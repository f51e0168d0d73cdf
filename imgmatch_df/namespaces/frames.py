"""The namespaces of frames."""

from os import PathLike
from typing import Unpack

import polars as pl

from imgmatch_df.frames import advice, clustering, deprecated, expressions, pairs, ranking, writing
from imgmatch_df.frames.checks import FrameT
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.keeping import Column, KeepBy
from imgmatch_df.frames.suggestions import MAX_SHARE, RadiusSuggestion, VotesSuggestion
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES
from imgmatch_df.namespaces.base import with_docstrings
from imgmatch_df.namespaces.leaks import LeakVerbs
from imgmatch_df.namespaces.pairs import PairVerbs
from imgmatch_df.options import SourceOptions
from imgmatch_df.report import making
from imgmatch_df.report.inputs import MAX_PICTURES
from imgmatch_df.report.result import Report
from imgmatch_df.store.base import Target


@with_docstrings
class _FrameVerbs(PairVerbs[FrameT], LeakVerbs[FrameT]):
    """The frame verbs. A DataFrame returns a DataFrame, computed at once; a LazyFrame returns a LazyFrame."""

    def visual_hash(
        self,
        source: Column = "url",
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

    @deprecated.renamed_parameters(deprecated.REFERENCE_OF_CLUSTER)
    def cluster(
        self,
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        min_votes: int | None = None,
        linkage: str | None = None,
        keep: KeepBy = "first",
        protect: Column | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: pl.DataFrame | pl.LazyFrame | None = None,
        id: str | None = None,
        reference: pl.DataFrame | pl.LazyFrame | Target | None = None,
        reference_id: str | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        diameter: bool = False,
        prefix: str = "",
        suffix: str = "",
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.cluster`."""
        return clustering.cluster(
            self._frame,
            radius,
            hash_type,
            min_votes=min_votes,
            linkage=linkage,
            keep=keep,
            protect=protect,
            across=across,
            within=within,
            not_duplicates=not_duplicates,
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
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        min_votes: int | None = None,
        linkage: str | None = None,
        keep: KeepBy = "first",
        protect: Column | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: pl.DataFrame | pl.LazyFrame | None = None,
        id: str | None = None,
        reference: pl.DataFrame | pl.LazyFrame | Target | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        prefix: str = "",
        suffix: str = "",
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.remove_duplicates`."""
        return clustering.remove_duplicates(
            self._frame,
            radius,
            hash_type,
            min_votes=min_votes,
            linkage=linkage,
            keep=keep,
            protect=protect,
            across=across,
            within=within,
            not_duplicates=not_duplicates,
            id=id,
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
        min_votes: int | None = None,
        k: int | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        prefix: str = "",
        suffix: str = "",
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.rank_images`."""
        return ranking.rank_images(
            self._frame,
            query,
            hash_type,
            min_votes=min_votes,
            k=k,
            column=column,
            source=source,
            flat=flat,
            prefix=prefix,
            suffix=suffix,
            turns=turns,
            **options,
        )

    def profile_radii(
        self,
        hash_type: str = "bmh1",
        *,
        max_radius: int | None = None,
        min_votes: int | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.profile_radii`."""
        return advice.profile_radii(
            self._frame,
            hash_type,
            max_radius=max_radius,
            min_votes=min_votes,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            **options,
        )

    def suggest_radius(
        self,
        hash_type: str = "bmh1",
        *,
        max_share: float = MAX_SHARE,
        max_radius: int | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        **options: Unpack[SourceOptions],
    ) -> RadiusSuggestion:
        """See `imgmatch_df.suggest_radius`."""
        return advice.suggest_radius(
            self._frame,
            hash_type,
            max_share=max_share,
            max_radius=max_radius,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            **options,
        )

    def report(
        self,
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        min_votes: int | None = None,
        linkage: str | None = None,
        keep: KeepBy = "first",
        protect: Column | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: pl.DataFrame | pl.LazyFrame | None = None,
        id: str | None = None,
        reference: pl.DataFrame | pl.LazyFrame | Target | None = None,
        reference_id: str | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        turns: bool | None = None,
        max_radius: int | None = None,
        max_pictures: int = MAX_PICTURES,
        title: str | None = None,
        **options: Unpack[SourceOptions],
    ) -> Report:
        """See `imgmatch_df.report`."""
        return making.report(
            self._frame,
            radius,
            hash_type,
            min_votes=min_votes,
            linkage=linkage,
            keep=keep,
            protect=protect,
            across=across,
            within=within,
            not_duplicates=not_duplicates,
            id=id,
            reference=reference,
            reference_id=reference_id,
            reference_column=reference_column,
            column=column,
            source=source,
            flat=flat,
            turns=turns,
            max_radius=max_radius,
            max_pictures=max_pictures,
            title=title,
            **options,
        )

    def suggest_min_votes(
        self,
        hash_type: str = "local",
        *,
        max_share: float = MAX_SHARE,
        min_votes: int | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        **options: Unpack[SourceOptions],
    ) -> VotesSuggestion:
        """See `imgmatch_df.suggest_min_votes`."""
        return advice.suggest_min_votes(
            self._frame,
            hash_type,
            max_share=max_share,
            min_votes=min_votes,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            **options,
        )


@pl.api.register_dataframe_namespace("imgmatch")
@with_docstrings
class ImgMatchDataFrame(_FrameVerbs[pl.DataFrame]):
    """The frame verbs of a DataFrame, computed at once."""

    _of = "a DataFrame"

    def write_hashes(
        self,
        target: Target,
        *,
        source: Column | None = None,
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
@with_docstrings
class ImgMatchLazyFrame(_FrameVerbs[pl.LazyFrame]):
    """The frame verbs of a LazyFrame, computed when the query runs."""

    _of = "a LazyFrame"

    def sink_hashes(
        self,
        target: Target,
        *,
        source: Column | None = None,
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
