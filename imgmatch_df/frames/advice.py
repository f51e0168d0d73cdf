"""Advice on the radius or the votes of a frame: what each finds, how much of that is wrong, and the one to take.

Counts are exact, from one join. How many of the pairs are of unrelated images is an estimate, from the distances of the
frame's own hashes, see `matching.unrelated`.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack

import polars as pl

from imgmatch_df.columns import (
    EXACT,
    N_CLUSTERS,
    N_LARGEST,
    N_PAIRS,
    N_REMOVED,
    N_UNRELATED,
    RADIUS_BITS,
    RECALL,
    ROW_DTYPE,
    UNRELATED_SHARE,
)
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.checks import FrameT, JoinSide, VerbCall, apply, needed_columns
from imgmatch_df.frames.criteria import check_min_votes, refuse_radius, refuse_votes
from imgmatch_df.frames.flat import Flat, FlatRows, Guard, guard_columns
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.layout import free_name
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.frames.source_columns import SourceColumn, checked_source
from imgmatch_df.frames.suggestions import MAX_SHARE, RadiusSuggestion, VotesSuggestion, radius_of, votes_of
from imgmatch_df.frames.vote_advice import LEAST_SHOWN, VOTE_FIELDS, profile_votes
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import BMH1, KINDS, LOCAL, HashKind, hash_kind
from imgmatch_df.image_columns import text_of
from imgmatch_df.options import Options, SourceOptions, check_positive, make_options, shown, whole_number
from imgmatch_df.progress import steps

if TYPE_CHECKING:
    from imgmatch_df.matching.kernels.hamming import Pairs
    from imgmatch_df.matching.profile import DistinctHashes

PROFILE_FIELDS: Final[dict[str, Any]] = {
    RADIUS_BITS: pl.UInt16(),
    N_PAIRS: pl.UInt64(),
    N_CLUSTERS: ROW_DTYPE,
    N_REMOVED: ROW_DTYPE,
    N_LARGEST: ROW_DTYPE,
    N_UNRELATED: pl.Float64(),
    UNRELATED_SHARE: pl.Float64(),
    RECALL: pl.Float64(),
    EXACT: pl.Boolean(),
}
_MAX_EDITED: Final = 100  # images


@takes_tables
def profile_radii(
    frame: FrameT,
    hash_type: str = BMH1.name,
    *,
    max_radius: int | None = None,
    min_votes: int | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return what each radius finds: pairs, clusters, removed rows, and how many pairs are of unrelated images.

    Use it to choose a radius, or for ``"local"`` a minimum number of votes; `suggest_radius` and `suggest_min_votes`
    read one from it. Look at some clusters before you trust either.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `column`, or `source`.
    hash_type
        A kind whose hashes have a distance, such as ``"bmh1"`` or ``"phash"``, or ``"local"``.
    max_radius
        Largest radius, in bits; inclusive. None takes the radius above which the verbs warn: 128 for bmh1, 16 for
        phash. Not for ``"local"``.
    min_votes
        For ``"local"``, in the place of `max_radius`: the smallest number of votes, from 2 to 64. None takes 5.
    column
        Column of hashes, also in other forms, see `near_duplicates`; None for the one with the name of the kind.
    source
        Column of images: up to 100 of them are edited in memory, and the copies hashed, for the column ``recall``. The
        images are hashed first where the frame has no hashes. For ``"local"`` they are only hashed.
    flat
        ``"identical"`` or ``"match"``, as `near_duplicates`.
    max_pairs
        Maximum number of pairs of different hashes to make. The radii that make more are not joined, and no radius
        whose join is expected to take more than four minutes of one thread. For ``"local"``, more pairs with
        `min_votes`, or 4, are an error.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        One row for each radius from 0 to `max_radius`: ``radius: UInt16``; ``n_pairs: UInt64``, pairs within the
        radius; ``n_clusters, n_removed, n_largest: UInt32``, clusters of two rows or more as `cluster` makes them, the
        rows beyond the first of each, and the rows of the largest; ``n_unrelated: Float64``, the estimated pairs of
        unrelated images, and ``unrelated_share: Float64``, their share of all pairs, both null where there are too few
        hashes; ``recall: Float64``, the share of edited copies within the radius, null without `source`; ``exact:
        Boolean``. Where it is false the radius was not joined: ``n_pairs`` is an estimate from a sample, and the
        numbers of clusters are null. For ``"local"``: one row for each number of votes from 64 down to `min_votes`,
        ``min_votes: UInt8`` in the place of the radius, and no ``recall`` and ``exact``.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, or a column is absent or has a dtype that is not allowed.

    Notes
    -----
    The counts are exact, and equal for any order of the rows; so is the estimate. It takes the distances above the
    valley between copies and unrelated images, of all pairs or of those of 20,000 hashes, and continues their curve
    below it. It is meant to be too high rather than too low; the guide "Choose a radius" compares it with known truth.
    Series of photos of one scene, or of one product, are neither copies nor unrelated: they count as copies where they
    are nearer than the curve expects.

    For ``"local"``, clusters are those of ``linkage="star"`` in the order of the rows, as `cluster` makes them; all
    else is equal for any order. Pairs of unrelated images are estimated from those with 4 to 7 votes: each further vote
    leaves a fixed share of them, taken to be between 0.4 and 0.7.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 15, None, 9]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.profile_radii(frame, "phash", max_radius=2).select("radius", "n_pairs", "n_removed").rows()
    [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    """
    kind = _comparable(hash_type)
    max_pairs = check_positive("max_pairs", max_pairs)
    if kind.by_votes:
        refuse_radius(kind, max_radius)
        least = LEAST_SHOWN if min_votes is None else check_min_votes(min_votes)
        return _votes_profile(VerbCall.check(frame, kind, source, options, column=column, flat=flat), least, max_pairs)
    refuse_votes(kind, min_votes)
    largest = _check_max_radius(max_radius, kind)
    edits, call = _check_call(frame, kind, column, source, flat, options)
    # Names, and not the call: what a lazy query keeps is pickled with it, and must not hold the frame.
    hash_name, progress = call.hash, call.progress
    guard: Guard | None = call.guard
    hashed = call.hashed()
    images: str | None = None
    if edits is not None and source is not None:
        images = free_name(hashed.collect_schema())
        hashed = hashed.with_columns(checked_source(frame, source).expr.alias(images))
    columns = needed_columns(hash_name, None, [*guard_columns(guard), *([] if images is None else [images])])

    def find(part: pl.DataFrame) -> pl.DataFrame:
        side = JoinSide(part, kind, hash_name, None, guard)
        side.flat.warn_of_unknown()
        with steps("joining", shown=progress) as step:
            found = profile_side(side, kind, largest, max_pairs, step).table
        if edits is None or images is None:
            return found
        return found.with_columns(_recall(part, kind, hash_name, images, edits, largest))

    return apply(hashed, columns, find, PROFILE_FIELDS)


@takes_tables
def suggest_radius(
    frame: FrameT,
    hash_type: str = BMH1.name,
    *,
    max_share: float = MAX_SHARE,
    max_radius: int | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    **options: Unpack[SourceOptions],
) -> RadiusSuggestion:
    """Return the largest radius at which few pairs are of unrelated images, in bits, and the reason.

    Write the number into your program: a radius that is suggested anew in each run would change as rows come.

    Parameters
    ----------
    frame, hash_type, max_radius, column, source, flat, max_pairs, **options
        As `profile_radii`. A `LazyFrame` is collected.
    max_share
        Maximum share of the pairs that may be of unrelated images, as estimated: above 0, below 1.

    Returns
    -------
    RadiusSuggestion
        The ``radius``, the ``reason``, and whether ``copies_seen``. Where no copies are seen, the radius is 0. Where
        there are too few hashes for an estimate, it is the advised radius of the kind.

    Raises
    ------
    ArgumentError, ColumnError
        As `profile_radii`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 15, None, 9]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.suggest_radius(frame, "phash").radius
    4
    """
    check_max_share(max_share)
    kind = hash_kind(hash_type)
    if kind.by_votes:
        raise ArgumentError(
            f"hash_type {kind.name!r} is compared by votes and has no radius\n"
            "Hint: suggest_min_votes suggests a minimum number of votes."
        )
    profile = profile_radii(
        frame,
        hash_type,
        max_radius=max_radius,
        column=column,
        source=source,
        flat=flat,
        max_pairs=max_pairs,
        **options,
    )
    return radius_of(profile.lazy().collect(), kind, max_share)


@takes_tables
def suggest_min_votes(
    frame: FrameT,
    hash_type: str = LOCAL.name,
    *,
    max_share: float = MAX_SHARE,
    min_votes: int | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    **options: Unpack[SourceOptions],
) -> VotesSuggestion:
    """Return the smallest number of votes with which few pairs are of unrelated images, and the reason.

    As `suggest_radius`, for local hashes, which are compared by votes.

    Parameters
    ----------
    frame, hash_type, min_votes, column, source, flat, max_pairs, **options
        As `profile_radii`. A `LazyFrame` is collected.
    max_share
        Maximum share of the pairs that may be of unrelated images, as estimated: above 0, below 1.

    Returns
    -------
    VotesSuggestion
        The ``min_votes``, the ``reason``, and whether ``copies_seen``. Where no copies are seen, `min_votes` is 64.

    Raises
    ------
    ArgumentError, ColumnError
        As `profile_radii`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"local": [None]}, schema={"local": pl.Binary})
    >>> imgmatch_df.suggest_min_votes(frame).copies_seen
    False
    """
    check_max_share(max_share)
    kind = hash_kind(hash_type)
    if not kind.by_votes:
        raise ArgumentError(
            f"hash_type {kind.name!r} is not compared by votes\nHint: suggest_radius suggests a radius for it."
        )
    profile = profile_radii(
        frame, hash_type, min_votes=min_votes, column=column, source=source, flat=flat, max_pairs=max_pairs, **options
    )
    return votes_of(profile.lazy().collect(), max_share)


def check_max_share(max_share: object) -> None:
    """Refuse a share that is not a number above 0 and below 1."""
    if isinstance(max_share, bool) or not isinstance(max_share, int | float) or not 0 < max_share < 1:
        raise ArgumentError(
            f"max_share must be a number above 0 and below 1, got {shown(max_share)}\n"
            "Hint: 0.01 allows one pair of unrelated images in a hundred."
        )


def _votes_profile(call: VerbCall[FrameT], least: int, max_pairs: int) -> FrameT:
    """Return the profile of a kind that is compared by votes."""
    kind, hash_name, progress, guard = call.kind, call.hash, call.progress, call.guard

    def find(part: pl.DataFrame) -> pl.DataFrame:
        side = JoinSide(part, kind, hash_name, None, guard)
        with steps("joining", shown=progress) as step:
            return profile_votes(side, kind, least, max_pairs, step)

    return apply(call.hashed(), needed_columns(hash_name, None, guard_columns(guard)), find, VOTE_FIELDS)


def _check_call(
    frame: FrameT,
    kind: HashKind,
    column: str | None,
    source: SourceColumn | None,
    flat: Flat,
    options: SourceOptions,
) -> tuple[Options | None, VerbCall[FrameT]]:
    """Return how images are read to be edited, None without `source`, and the call that gives the hashes."""
    if source is None or not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        return None, VerbCall.check(frame, kind, source, options, column=column, flat=flat)
    checked_source(frame, source)
    edits = make_options(**options)
    if column is None and kind.name not in frame.collect_schema():
        return edits, VerbCall.check(frame, kind, source, options, flat=flat)
    shows_progress: SourceOptions = {"progress": edits.progress}
    return edits, VerbCall.check(frame, kind, None, shows_progress, column=column, flat=flat)


def _comparable(hash_type: str) -> HashKind:
    """Return the hash kind, if its hashes are more than equal or not."""
    kind = hash_kind(hash_type)
    if kind.is_perceptual or kind.by_votes:
        return kind
    known = ", ".join(repr(one.name) for one in KINDS.values() if one.is_perceptual or one.by_votes)
    raise ArgumentError(
        f"hash_type {kind.name!r} is equal or not, and has no radius\nHint: one of {known} has a distance or votes."
    )


def _check_max_radius(max_radius: object, kind: HashKind) -> int:
    if max_radius is None:
        return kind.max_honest_radius or min(kind.n_bits, 2 * kind.near_radius)
    n_bits = whole_number(max_radius)
    if n_bits is None or not 0 <= n_bits <= kind.n_bits:
        raise ArgumentError(
            f"max_radius must be a whole number of bits from 0 to {kind.n_bits}, got {shown(max_radius)}\n"
            "Hint: leave it out for the largest useful one."
        )
    return n_bits


class SideProfile(NamedTuple):
    """What each radius finds among rows.

    Parameters
    ----------
    table
        As `profile_radii` returns it.
    distinct
        The different hashes.
    links
        Their minimum spanning forest, up to the last radius that is exact.
    """

    table: pl.DataFrame
    distinct: "DistinctHashes"
    links: "Pairs"

    @property
    def last_radius(self) -> int:
        """The largest radius that is exact."""
        return int(self.table[EXACT].sum()) - 1


def profile_side(side: JoinSide, kind: HashKind, max_radius: int, max_pairs: int | None, step: Any) -> SideProfile:
    """Return what each radius finds.

    Parameters as of `profile_radii`, and a callback for progress. Without `max_pairs`, all radii are joined, whatever
    time that takes.
    """
    import numpy as np

    from imgmatch_df.matching import profile as profiles
    from imgmatch_df.matching.unrelated import expected_unrelated

    distinct = profiles.DistinctHashes.of(side.words)
    sampled, share = profiles.sample_distances(distinct, kind.n_bits)
    radius = max_radius
    if max_pairs is not None:
        radius = profiles.largest_radius(distinct, sampled, share, max_radius, kind.n_bits, max_pairs)
    found = profiles.profile(distinct, radius, kind.n_bits, max_pairs, step)
    while found is None:  # more copies than the sample has shown
        radius //= 2
        found = profiles.profile(distinct, radius, kind.n_bits, max_pairs, step)
    counts, exposure = sampled.astype(np.float64), np.full(kind.n_bits + 1, share)
    counts[: radius + 1], exposure[: radius + 1] = found.n_distinct_pairs, 1.0
    beyond = np.cumsum(counts[radius + 1 : max_radius + 1] / (share or 1.0)) * distinct.rows_per_pair
    n_pairs = np.concatenate([found.n_pairs, found.n_pairs[-1] + np.rint(beyond).astype(np.int64)])
    identical = _identical_groups(side.flat)
    n_pairs += sum(size * (size - 1) // 2 for size in identical)
    expected = expected_unrelated(counts, exposure, max_radius)
    rows, n_hashes = np.arange(max_radius + 1), len(side.words) + len(side.flat.rows)
    is_exact = pl.Series(rows <= radius)

    def joined(values: Any) -> pl.Series:
        return pl.Series([*values.tolist(), *[None] * (max_radius - radius)], dtype=ROW_DTYPE)

    n_unrelated = pl.Series([None] * len(rows), dtype=pl.Float64)
    if expected is not None:
        # No more than there are: copies have no part in the estimate.
        n_unrelated = pl.Series(np.minimum(np.cumsum(expected) * distinct.rows_per_pair, n_pairs))
    columns = {
        RADIUS_BITS: pl.Series(rows, dtype=pl.UInt16),
        N_PAIRS: pl.Series(n_pairs, dtype=pl.UInt64),
        N_CLUSTERS: joined(found.n_clusters + len(identical)),
        N_REMOVED: joined(found.n_removed + sum(identical) - len(identical)),
        N_LARGEST: joined(np.minimum(np.maximum(found.n_largest, max(identical, default=1)), n_hashes)),
        N_UNRELATED: n_unrelated,
        UNRELATED_SHARE: None if expected is None else (n_unrelated / pl.Series(np.maximum(n_pairs, 1))),
        RECALL: None,
        EXACT: is_exact,
    }
    return SideProfile(pl.DataFrame(columns, schema=PROFILE_FIELDS), distinct, found.links)


def _identical_groups(flat: FlatRows) -> list[int]:
    """Return the numbers of rows with little to see that are of one file, where there are several."""
    import numpy as np

    if not flat.rows.size:
        return []
    _, sizes = np.unique(flat.representatives(np.arange(len(flat.rows), dtype=np.uint32)), return_counts=True)
    return [int(size) for size in sizes if size > 1]


def _recall(
    part: pl.DataFrame, kind: HashKind, hash_name: str, images: str, options: Options, max_radius: int
) -> pl.Series:
    """Return the share of edited copies of a sample of images within each radius; null where none could be read."""
    import numpy as np

    from imgmatch_df.frames.edits import edited_distances
    from imgmatch_df.hashes import codec
    from imgmatch_df.matching.profile import DistinctHashes

    rows = part.select(forms.read_column(part[hash_name], kind).alias("hash"), pl.col(images).alias("source"))
    rows = rows.drop_nulls()
    words = codec.hash_words(rows["hash"], kind)
    chosen = DistinctHashes.of(words).rows[:_MAX_EDITED]
    # Of several images with one hash the first one by its source, so that the order of the rows changes nothing.
    firsts = rows.join(rows[chosen].select("hash"), on="hash").group_by("hash").agg(_first_image(part.schema[images]))
    counts = edited_distances(firsts["source"], codec.hash_words(firsts["hash"], kind), kind, options)
    n_copies = int(counts.sum())
    shares = np.cumsum(counts)[: max_radius + 1] / max(1, n_copies)
    return pl.Series(RECALL, shares if n_copies else [None] * (max_radius + 1), dtype=pl.Float64)


def _first_image(dtype: Any) -> pl.Expr:
    """Return the first image of a group by its value; of structs and lists, by their text."""
    images = pl.col("source")
    text = text_of(images, dtype)
    if text is None or dtype == pl.String:
        return images.first() if dtype.is_nested() else images.min()
    return images.sort_by(text, nulls_last=True, maintain_order=True).first()
