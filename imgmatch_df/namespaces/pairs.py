"""The namespace methods that return pairs, of DataFrames and LazyFrames."""

from collections.abc import Sequence
from typing import Unpack

import polars as pl

from imgmatch_df.frames import copies, deprecated, pairs
from imgmatch_df.frames.checks import FrameT
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.keeping import Column
from imgmatch_df.namespaces.base import FrameNamespace, with_docstrings
from imgmatch_df.options import SourceOptions
from imgmatch_df.store.base import Target


@with_docstrings
class PairVerbs(FrameNamespace[FrameT]):
    """The frame verbs that return pairs."""

    def explain_near_duplicates(
        self,
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        min_votes: int | None = None,
        id: str | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> str:
        """See `imgmatch_df.explain_near_duplicates`."""
        return pairs.explain_near_duplicates(
            self._frame,
            radius,
            hash_type,
            min_votes=min_votes,
            id=id,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            turns=turns,
            **options,
        )

    @deprecated.flag_of_other_function("explain", explain_near_duplicates)
    def near_duplicates(
        self,
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        min_votes: int | None = None,
        id: str | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: pl.DataFrame | pl.LazyFrame | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.near_duplicates`."""
        return pairs.near_duplicates(
            self._frame,
            radius,
            hash_type,
            min_votes=min_votes,
            id=id,
            across=across,
            within=within,
            not_duplicates=not_duplicates,
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
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        k: int | None = None,
        columns: Sequence[str] | None = None,
        min_votes: int | None = None,
        id: str | None = None,
        reference_id: str | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: pl.DataFrame | pl.LazyFrame | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.match`."""
        return pairs.match(
            self._frame,
            reference,
            radius,
            hash_type,
            k=k,
            columns=columns,
            min_votes=min_votes,
            id=id,
            reference_id=reference_id,
            across=across,
            within=within,
            not_duplicates=not_duplicates,
            reference_column=reference_column,
            column=column,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            turns=turns,
            **options,
        )

    def find_copies(
        self,
        *,
        min_votes: int | None = None,
        radius: int = 31,
        id: str | None = None,
        reference: pl.DataFrame | pl.LazyFrame | Target | None = None,
        reference_id: str | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: pl.DataFrame | pl.LazyFrame | None = None,
        source: Column | None = None,
        flat: Flat = "identical",
        max_pairs: int = pairs.MAX_PAIRS,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.find_copies`."""
        return copies.find_copies(
            self._frame,
            min_votes=min_votes,
            radius=radius,
            id=id,
            reference=reference,
            reference_id=reference_id,
            across=across,
            within=within,
            not_duplicates=not_duplicates,
            source=source,
            flat=flat,
            max_pairs=max_pairs,
            **options,
        )
