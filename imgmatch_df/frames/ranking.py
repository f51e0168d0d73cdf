"""Frame verb that ranks: rows in the order of their distance from one image or one hash.

It takes a frame that has a hash column, or hashes its ``source=`` column first. A `DataFrame` gives a `DataFrame` at
once, a `LazyFrame` a `LazyFrame`; both have the same rows, whatever the chunks, the number of threads and the engine.
"""

from os import PathLike, fsdecode
from typing import Unpack

import polars as pl

from imgmatch_df.batch.run import hash_batch
from imgmatch_df.columns import DETAIL, DISTANCE, DISTANCE_DTYPE, OK, RANK, ROW_DTYPE, STATUS
from imgmatch_df.errors import ArgumentError, Failure, row_error
from imgmatch_df.frames.checks import FrameT, VerbCall, apply
from imgmatch_df.frames.layout import Affixes
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import BMH1, HashKind, hash_kind
from imgmatch_df.options import SourceOptions, check_positive, make_options, shown, whole_number
from imgmatch_df.sources import path_as_text


def rank_images(
    frame: FrameT,
    query: int | bytes | str | PathLike[str],
    hash_type: str = BMH1.name,
    *,
    k: int | None = None,
    source: str | None = None,
    prefix: str = "",
    suffix: str = "",
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return the rows nearest to one image or one hash, nearest first.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `source`.
    query
        A hash of the kind `hash_type` (int, also a negative one with the same 64 bits, bytes or documented 0/1 string),
        or an image: a path, base64 string, data URI or the encoded image, which is hashed at once.
    hash_type
        ``"bmh1"`` or ``"phash"``.
    k
        Maximum number of rows to return; None returns all.
    source
        Column of images to hash first; None if the frame has the hashes.
    prefix, suffix
        Text before and after the names of the new columns, those of `source` included.
    **options
        See `Options`; for `source`, and for a `query` that is an image.

    Returns
    -------
    DataFrame or LazyFrame
        The rows, nearest first, ties in row order. New columns come first: ``rank: UInt32`` from 1 and
        ``distance: UInt16`` in bits; then, with `source`, the columns that `visual_hash` adds, and the columns of the
        frame; hashes come last. Rows without a hash are the last rows, with null for both.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, a column is absent or has a dtype that is not allowed, or the frame already has a
        column with the name of a new one.
    RowError
        If `query` is an image that cannot be hashed.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [255, None, 1]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.rank_images(frame, 0, "phash").rows()
    [(1, 1, 1), (2, 8, 255), (None, None, None)]
    """
    kind = hash_kind(hash_type)
    if k is not None:
        k = check_positive("k", k)
    new, affixes = [RANK, DISTANCE], Affixes.make(prefix, suffix)
    call: VerbCall[FrameT] = VerbCall.check(frame, kind, source, options, adds=new, affixes=affixes, for_query=True)
    wanted = _query_hash(query, kind, options)
    hashed = call.hashed()
    schema = hashed.collect_schema()
    columns, hash_name, (rank_name, distance_name) = call.order(new, schema), call.hash, (call.names[n] for n in new)
    result_schema = {**schema, rank_name: ROW_DTYPE, distance_name: DISTANCE_DTYPE}

    def rank(rows: pl.DataFrame) -> pl.DataFrame:
        import numpy as np

        from imgmatch_df.matching import join

        column = codec.as_hashes(rows[hash_name], kind)
        present = column.drop_nulls() if column.null_count() else column
        hashes = codec.hash_words(present) if kind.is_number else codec.hash_views(present, kind)
        (one,) = codec.hash_words(pl.Series([wanted], dtype=kind.dtype))
        nearest, distance = join.top_k(one, hashes, k)
        order, n_failed = pl.Series(nearest), 0
        if len(present) < len(column):
            valid = column.is_not_null()
            failed = (~valid).arg_true()[: None if k is None else max(0, k - len(nearest))]
            order, n_failed = pl.concat([valid.arg_true().gather(nearest), failed]), len(failed)
        ranks = np.arange(1, len(nearest) + 1)
        found = (
            pl.Series(rank_name, ranks, dtype=ROW_DTYPE),
            pl.Series(distance_name, distance, dtype=DISTANCE_DTYPE),
        )
        ranked = rows[order].hstack([column.extend_constant(None, n_failed) for column in found])
        return ranked[columns]

    return apply(hashed, list(schema), rank, {name: result_schema[name] for name in columns})


def _query_hash(query: object, kind: HashKind, options: SourceOptions) -> int | bytes:
    """Return `query` if it is a hash, else the hash of the image that it is or names."""
    if isinstance(query, bytearray | memoryview):
        query = bytes(query)
    if isinstance(query, str) and len(query) == kind.n_chars and not query.strip("01"):
        return codec.parse_hash(query, kind)
    if isinstance(query, bytes) and not kind.is_number and len(query) == kind.n_bytes:
        return query
    number = whole_number(query)
    if number is not None and kind.is_number:
        return codec.parse_hash(number)
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
            f"Hint: a {kind.name} is {'an int' if kind.is_number else 'bytes'} or a string of {kind.n_chars} 0 and 1."
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
