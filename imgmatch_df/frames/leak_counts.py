"""Counts of leaks: how many rows of each split are near-duplicates of rows of each other split."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from imgmatch_df.columns import (
    LABEL,
    LEAK_ID,
    N_LABEL_CONFLICTS,
    N_LEAKED,
    N_ROWS,
    OTHER_ID,
    OTHER_LABEL,
    OTHER_SPLIT,
    SHARE,
    SPLIT,
)
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import Frame, FrameT, apply, shown_names
from imgmatch_df.frames.splits import check_splits
from imgmatch_df.options import shown

_ENDS: Final = (SPLIT, LEAK_ID, OTHER_SPLIT, OTHER_ID)
_CONFLICT: Final = "conflict"


def count_leaks(leaks: FrameT, splits: Mapping[str, Frame | int]) -> FrameT:
    """Return how many rows of each split leak into each other split, and with other labels.

    Parameters
    ----------
    leaks
        The pairs that `find_leaks` returned, all or those that you think are copies.
    splits
        The frames of these splits by their names, or their numbers of rows.

    Returns
    -------
    DataFrame or LazyFrame
        ``split, other_split: Enum, n_rows, n_leaked: UInt32, share: Float64, n_label_conflicts: UInt32``: a row for
        each split and each other split, in the order of `splits`, and last one where `other_split` is null, for all
        other splits together. With pairs within splits, also a row for each split with itself, which is not in the
        row for all others. ``n_leaked`` is the number of rows of the split in pairs with the other one, ``share`` that
        of its ``n_rows`` rows, failed ones included, and ``n_label_conflicts`` the number of leaked rows of which a
        pair has two labels that differ. A null is not a label. Without labels it is null.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or `splits` has not the splits of the leaks, or fewer rows than leak.
    ColumnError
        If `leaks` lacks a column of `find_leaks`.

    Notes
    -----
    Rows are counted by their ids; `find_leaks` warns if rows of one split have equal ids.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> train = pl.DataFrame({"phash": [8, 255]}, schema={"phash": pl.UInt64})
    >>> test = pl.DataFrame({"phash": [6, 9, 9, 1]}, schema={"phash": pl.UInt64})
    >>> splits = {"train": train, "test": test}
    >>> counts = imgmatch_df.count_leaks(imgmatch_df.find_leaks(splits, 1, "phash"), splits)
    >>> counts.select("split", "other_split", "n_rows", "n_leaked", "share").rows()[2]
    ('test', 'train', 4, 2, 0.5)
    """
    if not isinstance(leaks, pl.DataFrame | pl.LazyFrame):
        raise ArgumentError(f"leaks must be a frame, got {shown(leaks)}\nHint: find_leaks returns it.")
    checked: Mapping[str, Any] = check_splits(splits, at_least=1, n_rows=True)
    schema = leaks.collect_schema()
    absent = [name for name in _ENDS if name not in schema]
    if absent or (LABEL in schema) != (OTHER_LABEL in schema):
        raise ColumnError(
            f"leaks needs the columns {', '.join(_ENDS)}, and label and other_label or neither; it has "
            f"{shown_names(schema)}\nHint: find_leaks returns such a frame."
        )
    for name in (SPLIT, OTHER_SPLIT):
        if schema[name] not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            raise ColumnError(f"column {name!r} of leaks has dtype {schema[name]}, names are text\nHint: cast it.")
    labels: list[str] = [LABEL, OTHER_LABEL] if LABEL in schema else []
    dtype = pl.Enum(list(checked))

    def count(pairs: pl.DataFrame) -> pl.DataFrame:
        n_rows = {name: _height(frame) for name, frame in checked.items()}
        return _count(pairs, n_rows, has_labels=bool(labels))

    fields = {SPLIT: dtype, OTHER_SPLIT: dtype, N_ROWS: pl.UInt32, N_LEAKED: pl.UInt32, SHARE: pl.Float64}
    return apply(leaks, [*_ENDS, *labels], count, {**fields, N_LABEL_CONFLICTS: pl.UInt32})


def _height(frame: Frame | int) -> int:
    if isinstance(frame, pl.LazyFrame):
        return int(frame.select(pl.len()).collect().item())
    return frame.height if isinstance(frame, pl.DataFrame) else int(frame)


def _count(pairs: pl.DataFrame, n_rows: Mapping[str, int], *, has_labels: bool) -> pl.DataFrame:
    names = pl.Enum(list(n_rows))
    texts = pairs.with_columns(pl.col(SPLIT, OTHER_SPLIT).cast(pl.String))
    unknown = set(texts[SPLIT]).union(texts[OTHER_SPLIT]) - set(n_rows)
    if unknown:
        raise ArgumentError(
            f"leaks are of split {sorted(map(str, unknown))[0]!r}, splits has {shown_names(n_rows)}\n"
            "Hint: pass the splits of find_leaks."
        )
    conflict = pl.col(LABEL) != pl.col(OTHER_LABEL) if has_labels else pl.lit(None, pl.Boolean)
    pairs = texts.with_columns(pl.col(SPLIT, OTHER_SPLIT).cast(names), conflict.alias(_CONFLICT))
    rows = pl.concat(
        pairs.select(
            pl.col(split).alias(SPLIT), pl.col(row).alias(LEAK_ID), pl.col(other).alias(OTHER_SPLIT), _CONFLICT
        )
        for split, row, other in ((SPLIT, LEAK_ID, OTHER_SPLIT), (OTHER_SPLIT, OTHER_ID, SPLIT))
    )
    has_within = bool((pairs[SPLIT] == pairs[OTHER_SPLIT]).any())
    grid = pl.DataFrame(
        [(one, other) for one in n_rows for other in (*n_rows, None) if has_within or other != one],
        schema={SPLIT: names, OTHER_SPLIT: names},
        orient="row",
    )
    across = rows.filter(pl.col(SPLIT) != pl.col(OTHER_SPLIT)).with_columns(pl.lit(None, names).alias(OTHER_SPLIT))
    # Each row once, then each pair of splits once: ids may have any dtype that can be grouped.
    counts = (
        pl.concat([rows, across])
        .group_by(SPLIT, OTHER_SPLIT, LEAK_ID)
        .agg(pl.col(_CONFLICT).any())
        .group_by(SPLIT, OTHER_SPLIT)
        .agg(pl.len().alias(N_LEAKED), pl.col(_CONFLICT).sum().alias(N_LABEL_CONFLICTS))
    )
    found = (
        grid.join(counts, on=[SPLIT, OTHER_SPLIT], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            pl.col(SPLIT).cast(pl.String).replace_strict(dict(n_rows), return_dtype=pl.Int64).alias(N_ROWS),
            pl.col(N_LEAKED, N_LABEL_CONFLICTS).fill_null(0).cast(pl.UInt32),
        )
        .with_columns(pl.when(pl.col(N_ROWS) > 0).then(pl.col(N_LEAKED) / pl.col(N_ROWS)).otherwise(0.0).alias(SHARE))
    )
    wrong = found.filter(pl.col(N_LEAKED) > pl.col(N_ROWS))
    if wrong.height:
        split, n_leaked, rows_of_split = wrong.select(SPLIT, N_LEAKED, N_ROWS).row(0)
        raise ArgumentError(
            f"{n_leaked:,} rows of {split!r} leak, and it has {rows_of_split:,} rows in splits\n"
            "Hint: pass the splits of find_leaks."
        )
    conflicts = pl.col(N_LABEL_CONFLICTS) if has_labels else pl.lit(None, pl.UInt32).alias(N_LABEL_CONFLICTS)
    return found.select(SPLIT, OTHER_SPLIT, pl.col(N_ROWS).cast(pl.UInt32), N_LEAKED, SHARE, conflicts)
