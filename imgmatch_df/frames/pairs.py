"""Frame verbs that compare: near-duplicate pairs, new rows against stored ones, rows ranked by one picture.

Each takes a frame that has a hash column, or hashes its ``source=`` column first. A `DataFrame` is answered at once, a
`LazyFrame` by a `LazyFrame`; the answers are equal, whatever the chunks, the number of threads and the engine.
"""

from os import PathLike, fsdecode
from typing import Final, Literal, Unpack, overload

import polars as pl

from imgmatch_df.batch.run import hash_batch
from imgmatch_df.columns import (
    DETAIL,
    DISTANCE,
    DISTANCE_DTYPE,
    LEFT_ID,
    OK,
    QUERY_ID,
    RANK,
    REFERENCE_ID,
    RIGHT_ID,
    ROW_DTYPE,
    STATUS,
)
from imgmatch_df.errors import ArgumentError, Failure, row_error
from imgmatch_df.frames.checks import Call, Frame, FrameT, Side, apply, check_radius, needed_columns
from imgmatch_df.frames.layout import Affixes
from imgmatch_df.frames.reference import Stored
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import BMH1, HashKind, hash_kind
from imgmatch_df.options import SourceOptions, check_flag, check_positive, make_options, shown, whole_number
from imgmatch_df.progress import steps
from imgmatch_df.sources import path_as_text
from imgmatch_df.store.base import Target

# 2 GB of pairs as a frame without ids; a call that needs more says so.
MAX_PAIRS: Final = 100_000_000


@overload
def near_duplicates(
    frame: FrameT,
    radius: int,
    hash_type: str = ...,
    *,
    id: str | None = ...,
    source: str | None = ...,
    max_pairs: int = ...,
    explain: Literal[False] = ...,
    **options: Unpack[SourceOptions],
) -> FrameT: ...


@overload
def near_duplicates(
    frame: FrameT,
    radius: int,
    hash_type: str = ...,
    *,
    id: str | None = ...,
    source: str | None = ...,
    max_pairs: int = ...,
    explain: Literal[True],
    **options: Unpack[SourceOptions],
) -> str: ...


def near_duplicates(
    frame: FrameT,
    radius: int,
    hash_type: str = BMH1.name,
    *,
    id: str | None = None,  # the name that people look for
    source: str | None = None,
    max_pairs: int = MAX_PAIRS,
    explain: bool = False,
    **options: Unpack[SourceOptions],
) -> FrameT | str:
    """Return every pair of rows whose hashes are within `radius` bits of each other. Exact.

    Use it to look at pairs and their distances; `cluster` and `remove_duplicates` group rows without making the pairs.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `source`.
    radius
        Largest Hamming distance, in bits. Inclusive. 0 finds equal hashes alone; 24 of bmh1 or 4 of phash finds
        edited copies.
    hash_type
        ``"bmh1"`` or ``"phash"``.
    id
        Column whose values name the rows in the answer, of any dtype; None names them by row number.
    source
        Column of pictures to hash first; None where the frame has the hashes.
    max_pairs
        Largest number of pairs to make.
    explain
        Whether to return, instead of the pairs, a text that says which plan finds them and what it expects.
    **options
        See `Options`; only with `source`, but for `progress`.

    Returns
    -------
    DataFrame, LazyFrame or str
        ``left_id, right_id, distance: UInt16``, one row a pair, sorted by the row numbers of left, then right; the
        left row is the one that comes first. Rows without a hash are in no pair.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; if there are more than `max_pairs` pairs, when the query runs.
    ColumnError
        If a column is absent or has a dtype that is not allowed.

    Warns
    -----
    ImgMatchWarning
        If the radius is beyond what the kind of hash can tell apart (bmh1 128, phash 16).

    Notes
    -----
    Exact, and nearly linear in the number of rows while the radius is small: Norouzi, Punjani, Fleet, Fast Search in
    Hamming Space with Multi-Index Hashing (CVPR 2012).

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [0, 7, None, 1]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.near_duplicates(frame, 2, "phash").rows()
    [(0, 3, 1), (1, 3, 2)]
    """
    kind, radius = check_radius(radius, hash_type)
    max_pairs = check_positive("max_pairs", max_pairs)
    check_flag("explain", explain, "True returns a text about the plan.")
    call: Call[FrameT] = Call.check(frame, kind, source, options, id=id)
    hash_name, progress = call.hash, call.progress
    columns = needed_columns(hash_name, id)
    hashed = call.hashed()

    if explain:
        from imgmatch_df.matching import join

        side = Side(hashed.lazy().select(hash_name).collect().to_series(), kind)
        return str(join.explain(side.words, radius, kind.n_bits))

    def find(part: pl.DataFrame) -> pl.DataFrame:
        from imgmatch_df.matching import join

        side = Side.of(part, kind, hash_name, id)
        with steps("joining", shown=progress) as step:
            pairs = join.self_join(side.words, radius, kind.n_bits, max_pairs=max_pairs, progress=step)
        return pl.DataFrame(
            {
                LEFT_ID: side.ids(pairs.left),
                RIGHT_ID: side.ids(pairs.right),
                DISTANCE: pl.Series(pairs.distance, dtype=DISTANCE_DTYPE),
            }
        )

    id_dtype = ROW_DTYPE if id is None else call.schema[id]
    return apply(hashed, columns, find, {LEFT_ID: id_dtype, RIGHT_ID: id_dtype, DISTANCE: DISTANCE_DTYPE})


def match(
    frame: FrameT,
    stored: Frame | Target,
    radius: int,
    hash_type: str = BMH1.name,
    *,
    id: str | None = None,
    stored_id: str | None = None,
    source: str | None = None,
    max_pairs: int = MAX_PAIRS,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every pair of a row of `frame` and a row of `stored` whose hashes are within `radius` bits. Exact.

    Use it for new pictures against those that are known; ``cluster(against=)`` finds the nearest of each alone.

    Parameters
    ----------
    frame
        The new rows: has a column named `hash_type`, or `source`.
    stored
        The known rows: a frame that has a column named `hash_type`; or the path of a store, of which only that column
        and the key are read. A row never matches itself in a store that it is already in, see `cluster`.
    radius
        Largest Hamming distance, in bits. Inclusive. 0 finds equal hashes alone; 24 of bmh1 or 4 of phash finds
        edited copies.
    hash_type
        ``"bmh1"`` or ``"phash"``.
    id, stored_id
        Columns whose values name the rows of `frame` and of `stored`; None names them by row number, those of a store
        by its key.
    source
        Column of `frame` with pictures to hash first; None where it has the hashes.
    max_pairs
        Largest number of pairs to make.
    **options
        See `Options`; only with `source`, but for `progress`.

    Returns
    -------
    DataFrame or LazyFrame
        ``query_id, reference_id, distance: UInt16``, sorted by the row numbers of query, then reference.

    Raises
    ------
    ArgumentError, ColumnError
        As `near_duplicates`.
    StoreError
        If a store cannot be read, or its hashes are made in another way than those of `source`.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> new = pl.DataFrame({"phash": [0, 255]}, schema={"phash": pl.UInt64})
    >>> old = pl.DataFrame({"phash": [6, 1], "name": ["a", "b"]}, schema={"phash": pl.UInt64, "name": pl.String})
    >>> imgmatch_df.match(new, old, 1, "phash", stored_id="name").rows()
    [(0, 'b', 1)]
    """
    kind, radius = check_radius(radius, hash_type)
    max_pairs = check_positive("max_pairs", max_pairs)
    call: Call[FrameT] = Call.check(frame, kind, source, options, id=id)
    known = Stored.of(stored, call, stored_id)
    hash_name, progress = call.hash, call.progress
    columns = needed_columns(hash_name, id, known.own)

    def find(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        from imgmatch_df.matching import join

        query, reference = Side.of(left, kind, hash_name, id), Side.of(right, kind, kind.name, known.id)
        own = known.find_own(left, right)
        with steps("matching", shown=progress) as step:
            pairs = join.cross_join(
                query.words, reference.words, radius, kind.n_bits, max_pairs=max_pairs, progress=step
            )
        found = pl.DataFrame(
            {
                QUERY_ID: query.ids(pairs.left),
                REFERENCE_ID: reference.ids(pairs.right),
                DISTANCE: pl.Series(pairs.distance, dtype=DISTANCE_DTYPE),
            }
        )
        if own is None:
            return found
        return found.filter(pl.Series(own[query.rows[pairs.left]] != reference.rows[pairs.right]))

    hashed = call.hashed()
    if isinstance(hashed, pl.DataFrame):
        return find(hashed[columns], known.frame.collect())
    # Two lazy frames of any lengths meet in one row: a list of each.
    left = hashed.select(columns)
    sides = [side.select(pl.struct(pl.all()).implode().alias(name)) for side, name in ((left, "l"), (known.frame, "r"))]
    answer = {
        QUERY_ID: ROW_DTYPE if id is None else call.schema[id],
        REFERENCE_ID: known.id_dtype,
        DISTANCE: DISTANCE_DTYPE,
    }
    return pl.concat(sides, how="horizontal").map_batches(
        lambda row: find(*(row[name][0].struct.unnest() for name in ("l", "r"))), schema=answer
    )


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
    """Return the rows nearest to one picture or one hash, nearest first.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `source`.
    query
        A hash of the kind `hash_type` (int, also a negative one with the same 64 bits, bytes or documented 0/1 string),
        or a picture: a path, base64 string,
        data URI or the encoded picture, which is hashed at once.
    hash_type
        ``"bmh1"`` or ``"phash"``.
    k
        How many rows to return; None returns all.
    source
        Column of pictures to hash first; None where the frame has the hashes.
    prefix, suffix
        Put before and after the names of the new columns, those of `source` included.
    **options
        See `Options`; for `source`, and for a `query` that is a picture.

    Returns
    -------
    DataFrame or LazyFrame
        The rows, nearest first, ties in row order. New columns come first: ``rank: UInt32`` from 1 and
        ``distance: UInt16`` in bits; then what `visual_hash` adds, where it hashes, and the columns of the frame;
        hashes come last. Rows without a hash are the last rows, with null for both.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, a column is absent or has a dtype that is not allowed, or the frame has a column
        already of a name that a new one would have.
    RowError
        If `query` is a picture that cannot be hashed.

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
    call: Call[FrameT] = Call.check(frame, kind, source, options, adds=new, affixes=affixes, for_query=True)
    wanted = _query_hash(query, kind, options)
    hashed = call.hashed()
    schema = hashed.collect_schema()
    columns, hash_name, (rank_name, distance_name) = call.order(new, schema), call.hash, (call.names[n] for n in new)
    answer = {**schema, rank_name: ROW_DTYPE, distance_name: DISTANCE_DTYPE}

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

    return apply(hashed, list(schema), rank, {name: answer[name] for name in columns})


def _query_hash(query: object, kind: HashKind, options: SourceOptions) -> int | bytes:
    """Return the hash that `query` is, or that the picture has which it names."""
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
            f"query must be a {kind.name} or a picture, got None\n"
            f"Hint: a row that failed has no {kind.name}; rank by another."
        )
    if not isinstance(query, (str, bytes)):
        raise ArgumentError(
            f"query must be a {kind.name} or a picture, got {shown(query)}\n"
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
