"""The methods of frames that are about leaks between splits."""

from typing import Unpack

import polars as pl

from imgmatch_df.frames import leak_free
from imgmatch_df.frames.checks import FrameT
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.namespaces.base import FrameNamespace, with_docstrings
from imgmatch_df.options import SourceOptions
from imgmatch_df.store.base import Target


@with_docstrings
class LeakVerbs(FrameNamespace[FrameT]):
    """The frame verbs about leaks."""

    def drop_leaks(
        self,
        reference: pl.DataFrame | pl.LazyFrame | Target,
        radius: int | None = None,
        hash_type: str = "bmh1",
        *,
        min_votes: int | None = None,
        reference_column: str | None = None,
        column: str | None = None,
        source: SourceColumn | None = None,
        flat: Flat = "identical",
        turns: bool | None = None,
        **options: Unpack[SourceOptions],
    ) -> FrameT:
        """See `imgmatch_df.drop_leaks`."""
        return leak_free.drop_leaks(
            self._frame,
            reference,
            radius,
            hash_type,
            min_votes=min_votes,
            reference_column=reference_column,
            column=column,
            source=source,
            flat=flat,
            turns=turns,
            **options,
        )
