"""The splits of a data set as arguments: frames by their names, each with hashes or with a column to hash."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import FrameT, VerbCall
from imgmatch_df.frames.interchange import as_frame
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.options import SourceOptions, make_options, shown, whole_number


def check_splits(splits: object, *, at_least: int, n_rows: bool = False) -> dict[str, Any]:
    """Return the splits of a call by their names: frames, or with `n_rows` also numbers of rows.

    Raises
    ------
    ArgumentError
        If it is no mapping of names to these, or there are fewer than `at_least`.
    """
    hint = 'such as {"train": train, "test": test}.'
    if not isinstance(splits, Mapping):
        raise ArgumentError(f"splits must be a mapping of names to frames, got {shown(splits)}\nHint: {hint}")
    check_split_names(splits)
    splits = {name: as_frame(frame) for name, frame in splits.items()}
    if len(splits) < at_least:
        raise ArgumentError(f"splits must be {at_least} or more, got {len(splits)}\nHint: {hint}")
    for name, frame in splits.items():
        number = whole_number(frame) if n_rows else None
        if not isinstance(frame, pl.DataFrame | pl.LazyFrame) and (number is None or number < 0):
            raise ArgumentError(
                f"split {name!r} must be a Polars DataFrame or LazyFrame{' or a number of rows' * n_rows}, got "
                f"{shown(frame)}\nHint: pl.scan_parquet and imgmatch_df.scan_hashes make one; pl.from_arrow reads "
                "other frames."
            )
    return splits


def check_split_names(names: Iterable[object]) -> None:
    """Raise `ArgumentError` if one of the names of splits is not a text, or is empty."""
    for name in names:
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"the name of a split must be a text, got {shown(name)}\nHint: such as 'train'.")


def check_call(
    frame: FrameT,
    kind: HashKind,
    source: SourceColumn | None,
    options: SourceOptions,
    *,
    column: str | None,
    flat: str,
    id: str | None = None,
) -> VerbCall[FrameT]:
    """Return a checked call, which hashes nothing where the frame has hashes of the kind."""
    make_options(**options)
    if source is not None and column is None and isinstance(frame, pl.DataFrame | pl.LazyFrame):
        dtype = frame.collect_schema().get(kind.name)
        if dtype is not None and forms.holds_hashes(dtype, kind):
            bar: SourceOptions = {"progress": options.get("progress", False)}
            return VerbCall.check(frame, kind, None, bar, id=id, flat=flat)
    return VerbCall.check(frame, kind, source, options, column=column, id=id, flat=flat)


@contextmanager
def naming_split(name: str) -> Iterator[None]:
    """Name the split in errors about its columns."""
    try:
        yield
    except ColumnError as error:
        raise ColumnError(f"{name}: {error}") from error
