"""Splits without leaks: rows of a split that no other split has, and splits that keep each cluster together."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from numbers import Real
from typing import Any, Final, Unpack

import polars as pl

from imgmatch_df.columns import ROW_DTYPE, SPLIT
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import Frame, FrameT, VerbCall, needed_columns
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.expressions import column_expr
from imgmatch_df.frames.flat import Flat, Guard, guard_columns
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.layout import free_name
from imgmatch_df.frames.reference import Reference, find_nearest
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.frames.splits import check_call, check_split_names, naming_split
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions, shown, whole_number
from imgmatch_df.store.base import Target

_MAX_ERROR: Final = 1e-6  # of the sum of shares that are rounded


@takes_tables
def drop_leaks(
    frame: FrameT,
    reference: Frame | Target,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return the rows of a split that are not within `radius` bits of, or copies of, a row of another split.

    Use it to clean the test set and keep the training set, or the other way round. `find_leaks` shows the pairs first.

    Parameters
    ----------
    frame
        The split to clean: has a column named `hash_type`, or `column`, or `source`.
    reference
        The other split: a frame that has a column named `hash_type`, or `source`; or the path of a store. A row never
        matches itself in a store that already contains it, see `cluster`.
    radius
        Maximum Hamming distance, in bits. Inclusive. 0 finds equal hashes only; 24 of bmh1 or 4 of phash finds
        edited copies. Not for ``"local"``.
    hash_type
        Kind of the hashes, such as ``"bmh1"``, ``"phash"``, or ``"local"``, which finds crops, frames and captions.
    min_votes
        For ``"local"``, in the place of a radius, see `near_duplicates`.
    column, reference_column
        Columns of hashes of the kind `hash_type`, also in other forms, see `near_duplicates`. None takes the one with
        the name of the kind; in `reference` that with the name of `column`, if it has one.
    source
        Column of images, to hash the frames that have no column of hashes.
    flat
        ``"identical"`` or ``"match"``, as `near_duplicates`.
    turns
        Whether to compare in all eight turns, mirrored, flipped and by quarter turns. None: only with ``"local"``.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        The rows of `frame` that do not leak, in order, with the columns of `frame` and no others. A row without a hash
        is kept. Copies within `frame` are kept.

    Raises
    ------
    ArgumentError, ColumnError
        As `find_leaks`.
    StoreError
        If a store cannot be read, or its hashes were made with other options than those of `source`.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> train = pl.DataFrame({"phash": [8, 255]}, schema={"phash": pl.UInt64})
    >>> test = pl.DataFrame({"phash": [6, 9, None]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.drop_leaks(test, train, 1, "phash").rows()
    [(6,), (None,)]
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns)
    kind = comparison.kind
    call: VerbCall[FrameT] = check_call(frame, kind, source, options, column=column, flat=flat)
    other: Reference = _check_reference(reference, call, reference_column, source, options, flat)
    hash_name, progress = call.hash, call.progress
    guard: Guard | None = call.guard
    columns = needed_columns(hash_name, None, [*other.own, *guard_columns(guard)])

    def is_leak(part: pl.Series) -> pl.Series:
        rows = part.struct.unnest()
        nearest = find_nearest(rows, hash_name, other, comparison, guard=guard, progress=progress)
        return pl.repeat(False, rows.height, eager=True).scatter(nearest.rows, True).alias(part.name)

    hashed = call.hashed()
    leaks = free_name(hashed.collect_schema())
    found = pl.struct(columns).map_batches(is_leak, return_dtype=pl.Boolean()).alias(leaks)
    return hashed.with_columns(found).filter(~pl.col(leaks)).select(list(call.schema))


def _check_reference(
    reference: Frame | Target,
    call: VerbCall[Any],
    hash_column: str | None,
    source: SourceColumn | None,
    options: SourceOptions,
    flat: str,
) -> Reference:
    """Return the checked reference side, which is hashed when it is read, where it has no hashes."""
    if source is None or hash_column is not None or not isinstance(reference, pl.DataFrame | pl.LazyFrame):
        return Reference.of(reference, call, None, hash_column)
    with naming_split("reference"):
        other = check_call(reference.lazy(), call.kind, source, options, column=None, flat=flat)
    rows = other.hashed().select(needed_columns(other.hash, None, guard_columns(other.guard)))
    return Reference(rows, None, ROW_DTYPE, other.hash, (), other.guard)


def assign_split(cluster: pl.Expr | str, shares: Mapping[str, float], *, seed: int = 0) -> pl.Expr:
    """Return the split of each row, where all rows of a cluster are in one split, and splits have shares of the rows.

    Use it on the clusters of `cluster` to make a training set and a test set without leaks.

    Parameters
    ----------
    cluster
        Column that names the cluster of each row, such as ``cluster_id`` or ``representative_id``, by name or
        expression: whole numbers, text, `Binary`, `Boolean`, dates or times.
    shares
        Shares of the rows by the names of the splits, above 0 and 1 together.
    seed
        Another whole number gives another random choice.

    Returns
    -------
    Expr
        ``split: Enum`` of the names, null where the cluster is null. With enough clusters of one row, the number of
        rows of a split differs from its share by less than one row, otherwise by less than the largest cluster.

    Raises
    ------
    ArgumentError
        If an argument is not allowed.
    ColumnError
        When the query runs, if the column has another dtype.

    Notes
    -----
    Each cluster, the largest first, gets a random split of those with room for it, in proportion to their room; where
    it fits into none, the one with the most room. The random numbers are BLAKE2b digests of the seed and the value, so
    that the order of rows, chunks, threads, the engine, the version of Polars and the machine change nothing.
    The splits depend on all rows: other rows may give a cluster another split. Write the column once, and keep it.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"cluster_id": [0, 1, 0, 2, 3]})
    >>> frame.with_columns(imgmatch_df.assign_split("cluster_id", {"train": 0.8, "test": 0.2}))["split"].to_list()
    ['train', 'test', 'train', 'train', 'train']
    """
    column = column_expr(cluster)
    checked = _check_shares(shares)
    number = whole_number(seed)
    if number is None or not 0 <= number < 1 << 63:
        raise ArgumentError(
            f"seed must be a whole number from 0 to 2**63 - 1, got {shown(seed)}\nHint: leave it out for 0."
        )
    dtype = pl.Enum(list(checked))
    return column.map_batches(partial(_assign, shares=checked, seed=number), return_dtype=dtype).alias(SPLIT)


def _check_shares(shares: object) -> dict[str, float]:
    hint = 'such as {"train": 0.8, "test": 0.2}.'
    if not isinstance(shares, Mapping) or not shares:
        raise ArgumentError(f"shares must be a mapping of names to shares, got {shown(shares)}\nHint: {hint}")
    check_split_names(shares)
    for name, share in shares.items():
        number: Any = share
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 < number <= 1:
            raise ArgumentError(
                f"the share of {name!r} must be above 0 and at most 1, got {shown(share)}\nHint: {hint}"
            )
    total = math.fsum(shares.values())
    if abs(total - 1) > _MAX_ERROR:
        raise ArgumentError(f"shares must be 1 together, got {total:.6g}\nHint: {hint}")
    return {name: float(share) for name, share in shares.items()}


def _assign(clusters: pl.Series, shares: Mapping[str, float], seed: int) -> pl.Series:
    """Return the split of each row, by the sizes of all clusters."""
    values = pl.DataFrame({"value": _as_bytes(clusters)})
    sizes = values.drop_nulls().group_by("value").len("size")
    digests = [blake2b(value, digest_size=16, salt=seed.to_bytes(8, "little")).digest() for value in sizes["value"]]
    ordered = sizes.with_columns(pl.Series("digest", digests, dtype=pl.Binary)).sort(
        "size", "digest", "value", descending=[True, False, False]
    )
    room = _numbers_of_rows(int(ordered["size"].sum()), list(shares.values()))
    several = ordered.filter(pl.col("size") > 1)
    chosen = []
    for size, digest in several.select("size", "digest").iter_rows():
        split = _choose(size, int.from_bytes(digest[8:], "little"), room)
        room[split] -= size
        chosen.append(split)
    # The order of clusters of one row is random: each part of it fills one split.
    filled = _numbers_of_rows(ordered.height - several.height, [max(0, left) for left in room])
    numbers = [pl.Series(chosen, dtype=pl.UInt32)]
    numbers += [pl.repeat(split, n_rows, dtype=pl.UInt32, eager=True) for split, n_rows in enumerate(filled)]
    names = pl.Series(SPLIT, list(shares), dtype=pl.Enum(list(shares)))
    assigned = ordered.select("value", names.gather(pl.concat(numbers)))
    found: pl.Series = values.join(assigned, on="value", how="left", maintain_order="left")[SPLIT]
    return found.alias(clusters.name)


def _as_bytes(clusters: pl.Series) -> pl.Series:
    """Return values as bytes that are equal on all machines, for whole numbers of any dtype."""
    dtype = clusters.dtype
    if dtype == pl.Binary:
        return clusters
    if dtype.is_temporal():
        clusters = clusters.to_physical()
    elif not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)):
        raise ColumnError(
            f"column {clusters.name!r} has dtype {dtype}, a cluster is a whole number, text, Binary, Boolean, a date "
            "or a time\nHint: such as the column cluster_id of cluster()."
        )
    return clusters.cast(pl.String).cast(pl.Binary)


def _numbers_of_rows(n_rows: int, weights: Sequence[float]) -> list[int]:
    """Divide rows by weights: the largest remainders are rounded up."""
    total = math.fsum(weights)
    if not total:
        return [0] * len(weights)
    quotas = [n_rows * weight / total for weight in weights]
    numbers = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda split: numbers[split] - quotas[split])
    for split in by_remainder[: n_rows - sum(numbers)]:
        numbers[split] += 1
    return numbers


def _choose(size: int, number: int, room: Sequence[int]) -> int:
    """Return one of the splits with room for a cluster, by a random number of 64 bits; else that with the most."""
    fitting = [split for split, left in enumerate(room) if left >= size]
    if not fitting:
        return max(range(len(room)), key=lambda split: room[split])
    place = number * sum(room[split] for split in fitting) >> 64
    for split in fitting:
        place -= room[split]
        if place < 0:
            return split
    raise AssertionError("the random number is below 2**64")
