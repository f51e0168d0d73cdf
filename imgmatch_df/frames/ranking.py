"""Frame verb that ranks: rows in the order of their distance from one image or one hash.

It takes a frame that has a hash column, or hashes its ``source=`` column first. A `DataFrame` gives a `DataFrame` at
once, a `LazyFrame` a `LazyFrame`; both have the same rows, whatever the chunks, the number of threads and the engine.
"""

import os
from collections.abc import Collection
from os import PathLike, fsdecode
from typing import TYPE_CHECKING, Unpack

import polars as pl

from imgmatch_df.batch.run import hash_batch
from imgmatch_df.columns import DETAIL, DISTANCE, OK, RANK, ROW_DTYPE, STATUS
from imgmatch_df.errors import ArgumentError, Failure, row_error
from imgmatch_df.frames.checks import FrameT, VerbCall, apply
from imgmatch_df.frames.criteria import check_ranking
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.layout import Affixes
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import BMH1, KINDS, HashKind, hash_kind
from imgmatch_df.options import SourceOptions, check_positive, make_options, shown
from imgmatch_df.sources import path_as_text

if TYPE_CHECKING:
    from imgmatch_df.frames.comparison import Comparison


@takes_tables
def rank_images(
    frame: FrameT,
    query: int | bytes | str | PathLike[str],
    hash_type: str | None = None,
    *,
    min_votes: int | None = None,
    k: int | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    prefix: str = "",
    suffix: str = "",
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return the rows nearest to one image or one hash, nearest first.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `column`, or `source`.
    query
        A hash: an int, also a negative one with the same 64 bits; bytes; hexadecimal digits, a documented 0/1 string or
        a decimal number as text. Or an image: a path, base64 string, data URI or the encoded image, which is hashed at
        once. Digits that are also the name of a file are that file; 0/1 strings are always hashes.
    hash_type
        Name of a hash kind, such as ``"bmh1"`` or ``"phash"``. None takes the kind of `query`, by its type and length,
        among the kinds that `frame` has; ``"bmh1"`` if it is an image.
    min_votes
        For ``"local"``: the minimum number of votes of a row that is ranked, 8 by default, see `near_duplicates`.
    k
        Maximum number of rows to return; None returns all.
    column
        Column of hashes of the kind `hash_type`, also in other forms, see `near_duplicates`; None for the one with the
        name of the kind.
    source
        Column of images to hash first, as for `visual_hash`; None if the frame has the hashes.
    flat
        ``"identical"``: images with little to see have no rank, see `near_duplicates`. ``"match"`` ranks them as
        others.
    prefix, suffix
        Text before and after the names of the new columns, those of `source` included.
    turns
        Whether to compare the query in all eight turns, see `near_duplicates`. None: only with ``"local"``.
    **options
        See `Options`; for `source`, and for a `query` that is an image.

    Returns
    -------
    DataFrame or LazyFrame
        The rows, nearest first, ties in row order. New columns come first: ``rank: UInt32`` from 1 and
        ``distance: UInt16`` in bits, with `turns` also ``turn: Enum``, what is done to the query image so that it looks
        like that of the row (see `near_duplicates`). ``"local"`` has ``votes`` and the other columns of
        `near_duplicates` in the place of `distance`, most votes first. Then, with `source`, the columns that
        `visual_hash` adds, and the columns of the frame; hashes come last. Rows without a hash, those with little to
        see and those with too few votes are the last rows, with null for rank and measures.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, a column is absent or has a dtype that is not allowed, or the frame already has a
        column with the name of a new one; if `hash_type` is None, and `query` may be a hash of several kinds.
    RowError
        If `query` is an image that cannot be hashed.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [255, None, 1]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.rank_images(frame, 0, "phash").rows()
    [(1, 1, 1), (2, 8, 255), (None, None, None)]
    """
    kind = (
        _kind_to_rank_by(frame, query, source if column is None else column, options)
        if hash_type is None
        else hash_kind(hash_type)
    )
    if k is not None:
        k = check_positive("k", k)
    comparison: Comparison = check_ranking(kind, min_votes, turns)
    new, affixes = [RANK, *comparison.dtypes], Affixes.make(prefix, suffix)
    call: VerbCall[FrameT] = VerbCall.check(
        frame, kind, source, options, column=column, adds=new, affixes=affixes, flat=flat, for_query=True
    )
    wanted = _query_hash(query, kind, options)
    hashed = call.hashed()
    schema = hashed.collect_schema()
    guard, columns, hash_name, names = call.guard, call.order(new, schema), call.hash, [call.names[n] for n in new]
    result_schema = {**schema, **dict(zip(names, (ROW_DTYPE, *comparison.dtypes.values()), strict=True))}

    def nearest(column: pl.Series, n: int | None) -> tuple[pl.Series, dict[str, pl.Series]]:
        """Return at most `n` rows that have a hash, nearest first, and their measures."""
        if not column.null_count():
            found, measures = comparison.rank(wanted, column, n)
            return pl.Series(found), measures
        has_hash = column.is_not_null()
        found, measures = comparison.rank(wanted, column.filter(has_hash), n)
        return has_hash.arg_true().gather(found), measures

    def nearest_seen(rows: pl.DataFrame, column: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
        """Return at most `k` rows as `nearest`, without those with little to see."""
        if guard is None:
            return nearest(column, k)
        # Few of the nearest rows have little to see. To look for these in a million rows takes as long as ranking them.
        # Votes depend on all rows that are compared.
        for n in (k, 8 * k) if k is not None and comparison.measure == DISTANCE else ():
            if 2 * n > rows.height:
                break
            order, measures = nearest(column, n)
            of_order = rows.select(guard.columns)[order] if guard.columns else rows
            flat = guard.find(of_order, column.gather(order), kind).rows
            if not flat.size:
                return order[:k], {name: one[:k] for name, one in measures.items()}
            seen = pl.repeat(True, len(order), eager=True).scatter(flat, False)
            if len(order) - len(flat) >= (k or 0) or len(order) < n:
                return order.filter(seen)[:k], {name: one.filter(seen)[:k] for name, one in measures.items()}
        flat = guard.find(rows, column, kind).rows
        return nearest(column.scatter(flat, None) if flat.size else column, k)

    def rank(rows: pl.DataFrame) -> pl.DataFrame:
        column = forms.read_column(rows[hash_name], kind)
        measures: dict[str, pl.Series]
        order, measures = nearest_seen(rows, column)
        n_ranked, n_unranked = len(order), 0
        n_wanted = rows.height if k is None else min(k, rows.height)
        if len(order) < n_wanted:
            is_ranked = pl.repeat(False, rows.height, eager=True).scatter(order, True)
            unranked = (~is_ranked).arg_true()[: n_wanted - len(order)]
            order, n_unranked = pl.concat([order.cast(ROW_DTYPE), unranked.cast(ROW_DTYPE)]), len(unranked)
        ranks = pl.int_range(1, n_ranked + 1, dtype=ROW_DTYPE, eager=True)
        found = [ranks, *measures.values()]
        added = [one.alias(name) for name, one in zip(names, found, strict=True)]
        if n_unranked:
            added = [one.extend_constant(None, n_unranked) for one in added]
        ranked = rows[order].hstack(added)
        return ranked[columns]

    return apply(hashed, list(schema), rank, {name: result_schema[name] for name in columns})


def measure_columns(kind: HashKind, min_votes: int | None, turns: bool | None) -> list[str]:
    """Return the columns of a ranking beside the rank; raise as `rank_images` for the arguments."""
    return list(check_ranking(kind, min_votes, turns).dtypes)


def kind_of_query(query: object, available: Collection[str], base_dir: str | PathLike[str] | None) -> HashKind | None:
    """Return the kind of the hash that a query is; None where it is not a hash, or is the name of a file.

    Parameters
    ----------
    query
        A query of `rank_images`.
    available
        Names of columns, of which hash kinds are preferred.
    base_dir
        Folder of relative paths, None for the working directory.

    Raises
    ------
    ArgumentError
        If it may be a hash of several kinds.
    """
    fitting = [kind for kind in KINDS.values() if forms.parse_value(query, kind) is not None]
    if not fitting or any(names_file(query, kind, base_dir) for kind in fitting):
        return None
    return forms.kind_of_value(query, [name for name in KINDS if name in available])


def names_file(query: object, kind: HashKind, base_dir: str | PathLike[str] | None) -> bool:
    """Return whether text, which may be a hash of `kind`, is the name of a file; a 0/1 string is always a hash."""
    if not isinstance(query, str) or forms.form_of(query, kind) == "bits":
        return False
    return os.path.exists(os.path.join(base_dir or "", query))  # noqa: PTH110, PTH118  # a Path refuses long names


def _kind_to_rank_by(frame: object, query: object, named: object, options: SourceOptions) -> HashKind:
    """Return the kind of `query`; `named` is the column of hashes or images, None for one with the name of a kind."""
    make_options(**options)
    if named is not None or not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return kind_of_query(query, (), options.get("base_dir")) or BMH1
    schema = frame.collect_schema()
    kind = kind_of_query(query, schema, options.get("base_dir"))
    return BMH1 if kind is None or kind.name not in schema else kind


def _query_hash(query: object, kind: HashKind, options: SourceOptions) -> int | bytes:
    """Return `query` if it is a hash, else the hash of the image that it is or names."""
    if isinstance(query, bytearray | memoryview):
        query = bytes(query)
    value = forms.parse_value(query, kind)
    if value is not None and not names_file(query, kind, options.get("base_dir")):
        return value
    if isinstance(query, PathLike):
        query = path_as_text(fsdecode(query))
    if query is None:
        raise ArgumentError(
            f"query must be a {kind.name} or an image, got None\n"
            f"Hint: a row that failed has no {kind.name}; rank by another."
        )
    if not isinstance(query, (str, bytes)):
        raise ArgumentError(
            f"query must be a {kind.name} or an image, got {shown(query)}\n"
            f"Hint: a {kind.name} is {'' if kind.is_number else 'bytes, '}{forms.forms_text(kind)}."
        )
    (hashed,) = hash_batch(pl.Series([query]), make_options(**options), (kind.name,)).to_list()
    if hashed[STATUS] != OK:
        error = row_error(Failure(hashed[STATUS], hashed[DETAIL]), 0)
        raise type(error)(
            f"the query cannot be hashed: {hashed[STATUS]}: {hashed[DETAIL]}\n"
            f"Hint: a query is a {kind.name}, or an image as a path, base64 or bytes."
        )
    found: int | bytes = hashed[kind.name]
    return found
