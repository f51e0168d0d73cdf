"""Frame verb that finds copies: the pairs that local hashes or PDQ find, with what each of them says."""

from dataclasses import replace
from typing import Final, NamedTuple, Unpack

import polars as pl

from imgmatch_df.columns import (
    DISTANCE,
    DISTANCE_DTYPE,
    EVIDENCE,
    EVIDENCE_DTYPE,
    EVIDENCES,
    LEFT_ID,
    QUALITY,
    QUERY_ID,
    REFERENCE_ID,
    RIGHT_ID,
    ROW_DTYPE,
    TURN,
    VOTES,
)
from imgmatch_df.frames import expressions
from imgmatch_df.frames.checks import (
    Frame,
    FrameT,
    JoinSide,
    VerbCall,
    apply,
    apply_to_both,
    check_hash_columns,
    needed_columns,
)
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.flat import Flat, Guard, guard_columns
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.keeping import Column, KeepRule
from imgmatch_df.frames.layout import free_name
from imgmatch_df.frames.pairs import MAX_PAIRS, pairs_of_rows
from imgmatch_df.frames.reference import Reference
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.hashes.kinds import LOCAL, MEASURES, PDQ, SHA256, ImageColumn
from imgmatch_df.options import SourceOptions, check_positive, make_options
from imgmatch_df.progress import steps
from imgmatch_df.store.base import Target
from imgmatch_df.store.open import scan_hashes

_LEFT: Final = "left row"
_RIGHT: Final = "right row"
_BY_LOCAL, _BY_PDQ, _BY_BOTH = (pl.lit(evidence, EVIDENCE_DTYPE) for evidence in EVIDENCES)


@takes_tables
def find_copies(
    frame: FrameT,
    *,
    min_votes: int | None = None,
    radius: int = PDQ.near_radius,
    id: str | None = None,
    reference: Frame | Target | None = None,
    reference_id: str | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every pair of images that are copies by their local hashes or by PDQ, with the evidence of both.

    Use it for copies of all sorts: cropped, framed, captioned, pasted into another image, squashed, mirrored, turned.
    ``near_duplicates(hash_type="local")`` and ``near_duplicates(31, "pdq", turns=True)`` give the evidence of one.

    Parameters
    ----------
    frame
        Has columns ``local`` and ``pdq``, or a column `source`.
    min_votes
        Minimum number of points that agree on one placement, 8 by default. 11 is strict.
    radius
        Maximum distance of the PDQ hashes in the nearest of all eight turns, in bits. Inclusive.
    id
        Column whose values name the rows in the result, of any dtype; None names them by row number.
    reference
        Rows to compare those of `frame` with, in place of each other: a frame with both columns, or the path of a store
        that has both. A row never matches itself in a store that already contains it, see `cluster`.
    reference_id
        Column whose values name the reference rows; None names them by row number, the rows of a store by its key.
    across, within, not_duplicates
        Which pairs count: as `near_duplicates`, and with `reference` as `match`.
    source
        Column of images, as for `visual_hash`, to make the columns ``local`` and ``pdq`` that `frame` does not have.
    flat
        As `near_duplicates`, for PDQ: images with little to see have few points or none.
    max_pairs
        Maximum number of pairs of each kind to make.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        ``left_id, right_id``, or with `reference` ``query_id, reference_id``, sorted by row numbers; then
        ``votes: UInt8``, null where there are fewer than `min_votes`; ``distance: UInt16`` of the PDQ hashes, null
        where it is above the radius; ``turn: Enum``, what is done to the left image so that it looks like the right
        one; ``scale: Float32``, the longest side of the left image in longest sides of the right one;
        ``shift_x, shift_y: Float32``, where the top left corner of the turned left image lies in the right image, in
        fractions of its width and height; ``coverage: Float32``, the share of both images that the agreeing points
        span, the smaller one; and ``evidence: Enum``, ``"local"``, ``"pdq"`` or ``"both"``. Scale, shifts and coverage
        are null where only PDQ finds the pair.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; if there are more than `max_pairs` pairs, when the query runs.
    ColumnError
        If a column is absent or has a dtype that is not allowed.
    StoreError
        If a store cannot be read, or its hashes were made with other options than those of `source`.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.

    Notes
    -----
    Two images that show the same logo, text or interface have votes, and a small coverage: filter by it.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"local": [bytes(715)] * 2, "pdq": [bytes(31) + b"a", bytes(32)]})
    >>> imgmatch_df.find_copies(frame, flat="match").select("left_id", "right_id", "distance", "evidence").rows()
    [(0, 1, 3, 'pdq')]
    """
    votes = check_comparison(LOCAL.name, None, min_votes, None)
    near = check_comparison(PDQ.name, radius, None, turns=True)
    max_pairs = check_positive("max_pairs", max_pairs)
    call: VerbCall[FrameT] = VerbCall.check(frame, PDQ, source, options, id=id, flat=flat)
    if source is None:
        check_hash_columns(frame, LOCAL, LOCAL.name)
    rule: KeepRule = KeepRule.of_pairs(call.schema, across, within, not_duplicates, id)
    hashed, hashes = _hash_missing(call)
    hashed = rule.add_to(hashed)
    other: Reference | None = None
    other_hashes = hashes
    if reference is not None:
        other, other_hashes = _open_reference(reference, reference_id, call, hashes, rule)
    progress, columns = call.progress, hashes.columns(id, [*([] if other is None else other.own), *rule.columns])
    id_dtype = ROW_DTYPE if id is None else call.schema[id]
    if other is None:
        id_dtypes = {LEFT_ID: id_dtype, RIGHT_ID: id_dtype}
    else:
        id_dtypes = {QUERY_ID: id_dtype, REFERENCE_ID: other.id_dtype}
    votes_dtype, *placement = votes.dtypes.items()
    dtypes = dict([votes_dtype, (DISTANCE, DISTANCE_DTYPE), *placement, (EVIDENCE, EVIDENCE_DTYPE)])

    def find(part: pl.DataFrame, references: pl.DataFrame | None = None) -> pl.DataFrame:
        lefts = rights = hashes.sides(part, id)
        others: tuple[JoinSide | None, JoinSide | None] = None, None
        own = None
        if other is not None and references is not None:
            rights = others = other_hashes.sides(references, other.id)
            own = other.find_own(part, references)
        found = []
        with steps("joining", shown=progress) as step:
            for comparison, left, right in zip((votes, near), lefts, others, strict=True):
                pairs = pairs_of_rows(comparison, left, right, max_pairs, step)
                pairs = rule.filter_pairs(pairs, part, references, None if other is None else other.id)
                rows = {_LEFT: pl.Series(pairs.left, dtype=ROW_DTYPE), _RIGHT: pl.Series(pairs.right, dtype=ROW_DTYPE)}
                found.append(pl.DataFrame({**rows, **comparison.measures(pairs)}))
        both = _merged(*found)
        if own is not None:
            both = both.filter(pl.Series(own[both[_LEFT].to_numpy()] != both[_RIGHT].to_numpy()))
        ids = lefts[0].ids(both[_LEFT].to_numpy()), rights[0].ids(both[_RIGHT].to_numpy())
        names = dict(zip(id_dtypes, ids, strict=True))
        return pl.DataFrame({**names, **both.select(list(dtypes)).to_dict()})

    schema = {**id_dtypes, **dtypes}
    if other is None:
        return apply(hashed, columns, find, schema)
    return apply_to_both(hashed, columns, other.frame, find, schema)


class _Hashes(NamedTuple):
    """The columns of a frame with both kinds of hashes, and those that show which images are flat."""

    local: str
    pdq: str
    guard: Guard | None

    def columns(self, id_column: str | None, others: list[str]) -> list[str]:
        """Return the columns that a comparison reads."""
        return needed_columns(self.local, id_column, [self.pdq, *others, *guard_columns(self.guard)])

    def sides(self, frame: pl.DataFrame, id_column: str | None) -> tuple[JoinSide, JoinSide]:
        """Return the rows with local hashes, and those with PDQ hashes."""
        return JoinSide(frame, LOCAL, self.local, id_column), JoinSide(frame, PDQ, self.pdq, id_column, self.guard)


def _hash_missing(call: VerbCall[FrameT]) -> tuple[FrameT, _Hashes]:
    """Return the frame with both kinds of hashes, those made that it does not have."""
    schema, source = call.schema, call.source
    if source is None:
        return call.frame, _Hashes(LOCAL.name, PDQ.name, call.guard)
    first = free_name(schema)
    made: dict[str, ImageColumn] = {}
    names: list[str] = []
    for kind in (LOCAL, PDQ):
        is_there = kind.name in schema and kind.holds(schema[kind.name])
        names.append(kind.name if is_there else f"{first}_{kind.name}")
        if not is_there:
            made[names[-1]] = kind
    guard = None if call.guard is None else Guard.of(schema)
    if guard is not None and names[1] in made:
        guard = Guard(f"{first}_{QUALITY}", f"{first}_{SHA256.name}")
        made |= {f"{first}_{QUALITY}": MEASURES[QUALITY], f"{first}_{SHA256.name}": SHA256}
    options = make_options(**call.options)
    columns = [expressions.hash_column(source.expr, column, options).alias(name) for name, column in made.items()]
    return call.named(call.frame.with_columns(columns)), _Hashes(names[0], names[1], guard)


def _open_reference(
    reference: Frame | Target, id_column: str | None, call: VerbCall[FrameT], hashes: _Hashes, rule: KeepRule
) -> tuple[Reference, _Hashes]:
    """Return the reference side, of which the frame has both kinds of hashes."""
    local = Reference.of(reference, replace(call, kind=LOCAL, hash=hashes.local, guard=None), id_column)
    pdq = Reference.of(reference, replace(call, hash=hashes.pdq, guard=hashes.guard), id_column, None, rule.expressions)
    rows = reference.lazy() if isinstance(reference, pl.DataFrame | pl.LazyFrame) else scan_hashes(reference)
    found = _Hashes(local.hash, pdq.hash, pdq.guard)
    columns = found.columns(pdq.id, [name for name, _ in pdq.same])
    return pdq._replace(frame=rows.select(*columns, *rule.expressions)), found


def _merged(voted: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of both, with their evidence, sorted."""
    on, other_turn = [_LEFT, _RIGHT], "turn by pdq"
    near = near.rename({TURN: other_turn})
    evidence = (
        pl.when(pl.col(DISTANCE).is_null())
        .then(_BY_LOCAL)
        .when(pl.col(VOTES).is_null())
        .then(_BY_PDQ)
        .otherwise(_BY_BOTH)
    )
    return (
        voted.join(near, on=on, how="full", coalesce=True)
        .sort(on)
        .with_columns(pl.coalesce(TURN, other_turn), evidence.alias(EVIDENCE))
    )
