"""Frame verbs that compare: pairs of near-duplicates in one frame, and pairs of a new row and a reference row.

Each takes a frame that has a hash column, or hashes its ``source=`` column first. A `DataFrame` gives a `DataFrame` at
once, a `LazyFrame` a `LazyFrame`; both have the same rows, whatever the chunks, the number of threads and the engine.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

import polars as pl

from imgmatch_df.columns import (
    LEFT_ID,
    QUERY_ID,
    REFERENCE_ID,
    RIGHT_ID,
    ROW_DTYPE,
)
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import deprecated
from imgmatch_df.frames.checks import (
    Frame,
    FrameT,
    JoinSide,
    VerbCall,
    apply,
    apply_to_both,
    needed_columns,
)
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.flat import Flat, Guard, guard_columns, with_identical
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.keeping import Column, KeepRule
from imgmatch_df.frames.layout import NO_AFFIXES
from imgmatch_df.frames.nearest import nearest_pairs
from imgmatch_df.frames.reference import Reference
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions, check_name, check_positive, shown
from imgmatch_df.progress import steps
from imgmatch_df.store.base import Target

if TYPE_CHECKING:
    from imgmatch_df.matching.join import Progress

# 2 GB of pairs as a frame without ids; a call that finds more raises an error.
MAX_PAIRS: Final = 100_000_000


@takes_tables
def explain_near_duplicates(
    frame: FrameT,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    id: str | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> str:
    """Return a text about the plan that `near_duplicates` takes for the same arguments.

    Use it to see why a call is slow, before the pairs are made. The hashes are read, or made first where there is a
    `source`: the plan depends on them.

    Parameters
    ----------
    frame, radius, hash_type, min_votes, id, column, source, flat, max_pairs, turns, **options
        As `near_duplicates`. `id` and `max_pairs` are checked; the plan does not depend on them.

    Returns
    -------
    str
        The plan, and the number of pairs of hashes that it expects to compare, with `turns` after the number of turns
        in which each hash is compared with all others; for ``"local"`` the numbers of images, of points, of points that
        are set aside because very many images share them, and of candidates. The wording may change.

    Raises
    ------
    ArgumentError, ColumnError
        As `near_duplicates`.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 15, None, 9]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.explain_near_duplicates(frame, 2, "phash").split("; ")[:2]
    ['scan', 'radius 2']
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns)
    check_positive("max_pairs", max_pairs)
    call: VerbCall[FrameT] = VerbCall.check(frame, comparison.kind, source, options, column=column, id=id, flat=flat)
    columns = needed_columns(call.hash, None, guard_columns(call.guard))
    hashed = call.hashed().lazy().select(columns).collect()
    return comparison.explain(JoinSide(hashed, comparison.kind, call.hash, guard=call.guard).words)


@deprecated.flag_of_other_function("explain", explain_near_duplicates)
@takes_tables
def near_duplicates(
    frame: FrameT,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    id: str | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every pair of rows whose hashes are within `radius` bits of each other, or have `min_votes` votes.

    Use it to look at pairs and their distances. `cluster` and `remove_duplicates` group rows without making the pairs;
    `explain_near_duplicates` describes the plan.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `column`, or `source`.
    radius
        Maximum Hamming distance, in bits. Inclusive. 0 finds equal hashes only; 24 of bmh1 or 4 of phash finds
        edited copies. Not for ``"local"``.
    hash_type
        Kind of the hashes, such as ``"bmh1"``, ``"phash"``, or ``"local"``, which finds crops, frames and captions.
    min_votes
        For ``"local"``, in the place of a radius: the minimum number of points that agree on one placement of one image
        in the other, from 2 to 64. 8 by default; 11 is strict.
    id
        Column whose values name the rows in the result, of any dtype; None names them by row number.
    across
        Column, or expression of the frame. Only pairs whose values differ count: copies between folders, or between
        splits. Null is a value like others.
    within
        Column, or expression of the frame. Only pairs whose values are equal count: copies of one product. A null
        equals nothing.
    not_duplicates
        Frame with columns ``left_id`` and ``right_id``: values of `id`, or row numbers without `id`. These pairs do not
        count.
    column
        Column of hashes of the kind `hash_type`; None for the one with its name. Beside the dtype of the kind, it may
        have text in hexadecimal digits, of 0 and 1 or decimal, or lists of bits or bytes: one form in all rows.
    source
        Column of images to hash first, as for `visual_hash`; None if the frame has the hashes.
    flat
        ``"identical"``: images with little to see match identical files only. These are rows with a ``quality: UInt8``
        below 50, as `visual_hash` makes it, or where there is none with a hash that only blank images have; and files
        are identical where the column ``sha256`` is equal. ``"match"`` compares them as others.
    max_pairs
        Maximum number of pairs to make, before `across`, `within` and `not_duplicates` drop some.
    turns
        Whether to compare the left row in all eight turns: mirrored, flipped and by quarter turns. From the bits of the
        hashes, for kinds whose bits allow it: bmh1, pdq, imagehash_ahash, imagehash_phash, imagehash_phash16 and local.
        None: only local.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        ``left_id, right_id, distance: UInt16``, one row per pair, sorted by the row numbers of left, then right; the
        left row comes first in the frame. Rows without a hash are in no pair. With `turns` also ``turn: Enum``: what
        is done to the left image so that it looks like the right one, ``"none"``, ``"rotated_90"`` (clockwise),
        ``"rotated_180"``, ``"rotated_270"``, ``"mirrored"`` (left to right), ``"flipped"`` (top to bottom),
        ``"transposed"`` or ``"transversed"`` (at a diagonal). `distance` is that of the nearest turn, the first of
        several in this order. With ``"local"`` in the place of `distance`: ``votes: UInt8``; ``turn``, that with the
        most votes; ``scale: Float32``, the longest side of the left image in longest sides of the right one;
        ``shift_x, shift_y: Float32``, where the top left corner of the turned left image lies in the right image, in
        fractions of its width and height; and ``coverage: Float32``, the share of both images that the agreeing points
        span, the smaller one, from 0 to 1. An image without points is in no pair.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; if there are more than `max_pairs` pairs, when the query runs.
    ColumnError
        If a column is absent or has a dtype that is not allowed.

    Warns
    -----
    ImgMatchWarning
        If the radius is so large that unrelated images match (above 128 for bmh1, 16 for phash), or if rows with little
        to see match nothing because there is no column ``sha256``.

    Notes
    -----
    Exact, and nearly linear in the number of rows while the radius is small: Norouzi, Punjani, Fleet, Fast Search in
    Hamming Space with Multi-Index Hashing (CVPR 2012).

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 15, None, 9]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.near_duplicates(frame, 2, "phash").rows()
    [(0, 3, 1), (1, 3, 2)]
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns)
    kind, max_pairs = comparison.kind, check_positive("max_pairs", max_pairs)
    call: VerbCall[FrameT] = VerbCall.check(frame, kind, source, options, column=column, id=id, flat=flat)
    rule: KeepRule = KeepRule.of_pairs(call.hashed_schema, across, within, not_duplicates, id)
    hash_name, progress = call.hash, call.progress
    guard: Guard | None = call.guard
    columns = needed_columns(hash_name, id, [*guard_columns(guard), *rule.columns])
    hashed = rule.add_to(call.hashed())

    def find(part: pl.DataFrame) -> pl.DataFrame:
        side = JoinSide(part, kind, hash_name, id, guard)
        with steps("joining", shown=progress) as step:
            pairs = rule.filter_pairs(pairs_of_rows(comparison, side, None, max_pairs, step), part)
        ids = {LEFT_ID: side.ids(pairs.left), RIGHT_ID: side.ids(pairs.right)}
        return pl.DataFrame({**ids, **comparison.measures(pairs)})

    id_dtype = ROW_DTYPE if id is None else call.schema[id]
    return apply(hashed, columns, find, {LEFT_ID: id_dtype, RIGHT_ID: id_dtype, **comparison.dtypes})


@deprecated.renamed_parameters(deprecated.REFERENCE_OF_MATCH)
@takes_tables
def match(
    frame: FrameT,
    reference: Frame | Target,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    k: int | None = None,
    columns: Sequence[str] | None = None,
    min_votes: int | None = None,
    id: str | None = None,
    reference_id: str | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every pair of a row of `frame` and one of `reference` within `radius` bits or with `min_votes` votes.

    Use it to compare new images with the ones you have, or with a list of hashes. ``k=1`` keeps only the nearest
    reference row of each row, ``columns=["category"]`` shows its values.

    Parameters
    ----------
    frame
        The query rows: has a column named `hash_type`, or `column`, or `source`.
    reference
        The rows to compare with: a frame that has a column named `hash_type`; or the path of a store, of which only
        that column, the key and `columns` are read. A row never matches itself in a store that already contains it, see
        `cluster`.
    radius
        Maximum Hamming distance, in bits. Inclusive. 0 finds equal hashes only; 24 of bmh1 or 4 of phash finds
        edited copies. Not for ``"local"``.
    hash_type
        Kind of the hashes, such as ``"bmh1"``, ``"phash"``, or ``"local"``, which finds crops, frames and captions.
    k
        Maximum number of reference rows for each row: the nearest ones, the first of those that are equally near. With
        ``"local"`` those with the most votes. None keeps all.
    columns
        Names of columns of `reference` whose values come along, in this order.
    min_votes
        For ``"local"``, in the place of a radius: the minimum number of points that agree on one placement of one image
        in the other, from 2 to 64. 8 by default; 11 is strict.
    id, reference_id
        Columns whose values name the rows of `frame` and of `reference`; None names them by row number, the rows of a
        store by its key.
    across, within
        Columns or expressions of both frames, see `near_duplicates`.
    not_duplicates
        Frame with columns ``left_id`` and ``right_id``: values of `id` and of `reference_id`, as the result has them.
        These pairs do not count.
    column, reference_column
        Columns of hashes of the kind `hash_type`, also in other forms, see `near_duplicates`. None takes the one with
        the name of the kind; in `reference` that with the name of `column`, if it has one.
    source
        Column of images of `frame` to hash first, as for `visual_hash`; None if it has the hashes.
    flat
        As `near_duplicates`.
    max_pairs
        Maximum number of pairs to make; with `k`, of those that are held at once.
    turns
        Whether to compare the query row in all eight turns, see `near_duplicates`. None: only with ``"local"``.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        ``query_id, reference_id, distance: UInt16``, sorted by the row numbers of query, then reference. With `turns`
        also ``turn``, what is done to the query image, see `near_duplicates`; there also the columns of ``"local"``.
        Last come `columns`. With `k` the rows are sorted by the row number of the query, then by the distance (or the
        votes, most first), then by the row number of the reference.

    Raises
    ------
    ArgumentError, ColumnError
        As `near_duplicates`; and if one of `columns` is absent, or has the name of a column of the result.
    StoreError
        If a store cannot be read, or its hashes were made with other options than those of `source`.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> new = pl.DataFrame({"phash": [8, 255]}, schema={"phash": pl.UInt64})
    >>> old = pl.DataFrame({"phash": [6, 9], "name": ["a", "b"]}, schema={"phash": pl.UInt64, "name": pl.String})
    >>> imgmatch_df.match(new, old, 1, "phash", reference_id="name").rows()
    [(0, 'b', 1)]
    >>> imgmatch_df.match(new, old, 4, "phash", k=1, columns=["name"]).rows()
    [(0, 1, 1, 'b')]
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns)
    kind, max_pairs = comparison.kind, check_positive("max_pairs", max_pairs)
    k = None if k is None else check_positive("k", k)
    brought = _check_names(columns)
    call: VerbCall[FrameT] = VerbCall.check(frame, kind, source, options, column=column, id=id, flat=flat)
    rule: KeepRule = KeepRule.of_pairs(call.hashed_schema, across, within, not_duplicates, id)
    other: Reference = Reference.of(reference, call, reference_id, reference_column, rule.expressions, brought)
    schema = {
        QUERY_ID: ROW_DTYPE if id is None else call.schema[id],
        REFERENCE_ID: other.id_dtype,
        **comparison.dtypes,
    }
    added = NO_AFFIXES.add(brought, schema, "rename the column of the reference.") if brought else {}
    reference_schema = other.frame.collect_schema()
    schema.update((name, reference_schema[name]) for name in added)
    hash_name, progress = call.hash, call.progress
    guard: Guard | None = call.guard
    needed = needed_columns(hash_name, id, [*other.own, *guard_columns(guard), *rule.columns])

    def find(part: pl.DataFrame, references_part: pl.DataFrame) -> pl.DataFrame:
        queries = JoinSide(part, kind, hash_name, id, guard)
        references = JoinSide(references_part, kind, other.hash, other.id, other.guard)
        own = other.find_own(part, references_part)

        def counted(pairs: Any) -> Any:
            pairs = rule.filter_pairs(pairs, part, references_part, other.id)
            if own is None:
                return pairs
            is_other = own[pairs.left] != pairs.right
            return type(pairs)(*(column[is_other] for column in pairs))

        with steps("matching", shown=progress) as step:
            if k is None:
                pairs = counted(pairs_of_rows(comparison, queries, references, max_pairs, step))
            else:
                pairs = nearest_pairs(comparison, queries, references, k, max_pairs, step, counted)
        return pl.DataFrame(
            {
                QUERY_ID: queries.ids(pairs.left),
                REFERENCE_ID: references.ids(pairs.right),
                **comparison.measures(pairs),
                **{name: references_part[name].gather(pairs.right) for name in brought},
            }
        )

    return apply_to_both(rule.add_to(call.hashed()), needed, other.frame, find, schema)


def _check_names(columns: object) -> list[str]:
    """Return the names of columns that a call names."""
    if columns is None:
        return []
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise ArgumentError(
            f"columns must be a list of names, got {shown(columns)}\nHint: such as columns=['category']."
        )
    for name in columns:
        check_name("columns", name)
    twice = [name for name in columns if list(columns).count(name) > 1]
    if twice:
        raise ArgumentError(f"columns names {twice[0]!r} more than once\nHint: name each column once.")
    return list(columns)


def pairs_of_rows(
    comparison: Comparison, side: JoinSide, other: JoinSide | None, max_pairs: int, progress: "Progress | None"
) -> Any:
    """Return the pairs of rows of one side, or with `other` of both sides, with the measures of the comparison.

    Identical images with little to see are pairs too; a warning says how many of them cannot be known.
    """
    if other is None:
        pairs = comparison.self_pairs(side.words, max_pairs, progress)
    else:
        pairs = comparison.cross_pairs(side.words, other.words, max_pairs, progress)
    pairs = pairs._replace(left=side.rows_of(pairs.left), right=(other or side).rows_of(pairs.right))
    flat = side.flat
    if not flat.rows.size:
        return pairs
    flat.warn_of_unknown()
    return with_identical(pairs, flat.pairs(max_pairs) if other is None else flat.pairs_with(other.flat, max_pairs))
