"""Frame verbs that group: every row with its cluster of near-duplicates, or one row of each cluster.

Each takes a frame that has a hash column, or hashes its ``source=`` column first. A `DataFrame` gives a `DataFrame` at
once, a `LazyFrame` a `LazyFrame`; both have the same rows, whatever the chunks, the number of threads and the engine.
"""

from typing import Any, Unpack

import polars as pl

from imgmatch_df.columns import (
    CLUSTER_COLUMNS,
    CLUSTER_ID,
    DIAMETER,
    DISTANCE,
    DISTANCE_DTYPE,
    HEIGHT,
    JOINED_AT,
    KEPT,
    REASON,
    REASON_DTYPE,
    REFERENCE_ID,
    REMOVED_RECORDS,
    REPRESENTATIVE_ID,
    ROW_DTYPE,
    VOTES,
    WIDTH,
)
from imgmatch_df.frames import deprecated
from imgmatch_df.frames.checks import Frame, FrameT, VerbCall, apply
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.grouping import Grouping, check_reference
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.keeping import Column, KeepBy, KeepRule
from imgmatch_df.frames.layout import NO_AFFIXES, Affixes, free_name, is_hash, without_bytes
from imgmatch_df.frames.reference import Reference
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions, check_flag
from imgmatch_df.store.base import Target


@deprecated.renamed_parameters(deprecated.REFERENCE_OF_CLUSTER)
@takes_tables
def cluster(
    frame: FrameT,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    linkage: str | None = None,
    keep: KeepBy = "first",
    protect: Column | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    id: str | None = None,
    reference: Frame | Target | None = None,
    reference_id: str | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    diameter: bool = False,
    prefix: str = "",
    suffix: str = "",
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every row with the cluster of near-duplicates that it belongs to.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `column`, or `source`.
    radius
        Maximum Hamming distance between two rows that are near-duplicates, in bits. Inclusive. 0 finds equal hashes
        only; 24 of bmh1 or 4 of phash finds edited copies. None is 0. Not for ``"local"``.
    hash_type
        Kind of the hashes, such as ``"bmh1"``, ``"phash"``, or ``"local"``, which finds crops, frames and captions.
    min_votes
        For ``"local"``, in the place of a radius, see `near_duplicates`.
    linkage
        ``"connected"``: near-duplicates of near-duplicates are in one cluster, whose ends may be farther apart than
        the radius (`diameter` shows it). ``"star"``: row by row, a row joins the first representative within the
        radius or becomes one itself, so that no row is farther than the radius from its representative. None is
        ``"star"`` for ``"local"``, else ``"connected"``: a collage is a copy of each image in it, and ``"connected"``
        would put all of them into one cluster.
    keep
        Which row of a cluster is its representative: the ``"first"`` or ``"last"``; the ``"largest"`` or
        ``"smallest"``, by pixels (columns ``width`` and ``height``), then bytes (column ``size``, where there is one);
        the ``"newest"`` or ``"oldest"``, by the column ``modified``; or expressions: the row that
        ``frame.sort(keep, nulls_last=True)`` puts first, so that False is better than True, and small better than
        large. An unknown value is the worst, and ties go to the first row. With ``"star"``, the order in which rows
        become representatives.
    protect
        Boolean column or expression: rows that are never removed. They are representatives before all others; of
        several in one cluster all are kept. Null does not protect.
    across
        Column or expression: only pairs whose values differ count, such as those between folders. A row is removed only
        if its representative has another value. Null is a value like others.
    within
        Column or expression: only pairs whose values are equal count. A null equals nothing.
    not_duplicates
        Frame with the columns ``left_id`` and ``right_id``: values of `id`, or row numbers without `id`. These pairs do
        not count, and no row of such a pair is removed if the other one is its representative.
    id
        Column whose values name the representatives, and rows in `not_duplicates`; None names them by row number.
    reference
        Rows to compare with first: the path of a store, of which only hashes and keys are read; or a frame that has a
        column named `hash_type`. A row within the radius of a reference row is not kept and is in no cluster; the other
        rows are clustered among themselves, as without it. A row never matches itself in a store that already contains
        it.
    reference_id
        Column whose values name the reference rows; None names them by row number, the rows of a store by its key.
    column, reference_column
        Columns of hashes of the kind `hash_type`, also in other forms, see `near_duplicates`. None takes the one with
        the name of the kind; in `reference` that with the name of `column`, if it has one.
    source
        Column of images to hash first, as for `visual_hash`; None if the frame has the hashes.
    flat
        ``"identical"`` or ``"match"``, as `near_duplicates`. A reference row with little to see matches identical files
        only, too.
    diameter
        Whether to add the largest distance between two rows of each cluster. Not for ``"local"``.
    prefix, suffix
        Text before and after the names of the new columns, those of `source` included.
    turns
        Whether to compare rows in all eight turns, mirrored, flipped and by quarter turns, see `near_duplicates`. All
        distances are then those of the nearest turn. None: only with ``"local"``.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        All rows, in order. New columns come first: ``cluster_id: UInt32`` (clusters are numbered from 0 by their first
        row), ``kept: Boolean``, ``reason: Enum``, ``distance: UInt16`` to the representative, ``joined_at: UInt16``,
        with `diameter` ``diameter: UInt16``, and ``representative_id``; then what `visual_hash` adds, where it hashes,
        and the columns of the frame; hashes come last. ``"local"`` has ``votes: UInt8`` in the place of `distance`, for
        the placement in the representative, null for a representative. A row without a hash is a cluster of its own,
        kept, with null distance.
        ``reason`` is why the row is kept or not: ``"single"`` (alone in its cluster), ``"no_hash"``, ``"kept_first"``
        and so on for each `keep` (``"kept_by_rule"`` for expressions), ``"protected"``, ``"same_value"`` (of `across`
        as the representative), ``"not_duplicate"`` (of the representative); removed: ``"copy"``, ``"in_reference"``.
        ``joined_at`` is the smallest radius at which the row is in one cluster with its representative, for
        ``"local"`` the largest number of votes; with ``"star"`` it is the distance or the votes.
        With `reference` also ``reference_id``, which names the nearest reference row (the first of several) of a row
        that matches one: then ``distance`` or ``votes`` are those to it, ``kept`` is false but for protected rows, and
        ``cluster_id``, ``joined_at``, ``diameter`` and ``representative_id`` are null. It is null in all other rows.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, a column is absent or has a dtype that is not allowed, or the frame already has a
        column with the name of a new one.
    StoreError
        If a store cannot be read, or its hashes were made with other options than those of `source`.

    Warns
    -----
    ImgMatchWarning
        If the radius is so large that unrelated images match (above 128 for bmh1, 16 for phash), or one cluster has
        more than a tenth of over 50 rows.

    Notes
    -----
    A row is itself in a store where their keys are equal as text, and their sources where the store has another key: a
    relative and an absolute path of one file are two rows. The key of a row is the column that `write_hashes` takes.
    Two rows of the frame that are both in the store are compared with each other, and not with their rows in the
    store, so that the first copy is kept.

    Exact. Memory grows with rows, not with pairs: equal hashes count once, and pairs are never kept. (``"local"`` keeps
    pairs.) `diameter`, `across`, `within` and `not_duplicates` are at worst quadratic in the number of different hashes
    of a cluster.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 255, 9, None]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.cluster(frame, 1, "phash").select("cluster_id", "representative_id", "distance", "kept").rows()
    [(0, 0, 0, True), (1, 1, 0, True), (0, 0, 1, False), (2, 3, None, True)]
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns, default_radius=0)
    check_flag("diameter", diameter, "True adds the largest distance in each cluster.")
    measure = comparison.measure
    absent = {
        DISTANCE: measure != DISTANCE,
        VOTES: measure != VOTES,
        DIAMETER: not diameter,
        REFERENCE_ID: reference is None,
    }
    new = [name for name in CLUSTER_COLUMNS if not absent.get(name)]
    affixes = Affixes.make(prefix, suffix)
    call: VerbCall[FrameT] = VerbCall.check(
        frame, comparison.kind, source, options, column=column, id=id, adds=new, affixes=affixes, flat=flat
    )
    rule = KeepRule.check(
        call.hashed_schema,
        keep,
        protect=protect,
        across=across,
        within=within,
        not_duplicates=not_duplicates,
        id=id,
        width=call.column(WIDTH),
        height=call.column(HEIGHT),
    )
    grouping = Grouping(call, comparison, linkage, rule, diameter=diameter, with_joined=True)
    other = check_reference(reference, call, reference_id, reference_column)
    hashed = call.hashed()
    schema = hashed.collect_schema()
    dtypes: dict[str, Any] = {
        CLUSTER_ID: ROW_DTYPE,
        KEPT: pl.Boolean(),
        REASON: REASON_DTYPE,
        measure: comparison.measure_dtype,
        JOINED_AT: DISTANCE_DTYPE,
        DIAMETER: DISTANCE_DTYPE,
        REPRESENTATIVE_ID: ROW_DTYPE if id is None else schema[id],
        REFERENCE_ID: None if other is None else other.id_dtype,
    }
    fields = {call.names[name]: dtypes[name] for name in new}

    def describe(part: pl.Series) -> pl.Series:
        rows = part.struct.unnest()
        found = grouping.find(rows, other)
        ids = pl.Series(found.representative, dtype=ROW_DTYPE) if id is None else rows[id].gather(found.representative)
        numbers = pl.DataFrame(
            {
                CLUSTER_ID: pl.Series(found.cluster, dtype=ROW_DTYPE),
                REPRESENTATIVE_ID: ids,
                measure: pl.Series(found.measure, dtype=comparison.measure_dtype),
                JOINED_AT: pl.Series(found.joined, dtype=DISTANCE_DTYPE),
                DIAMETER: pl.Series(found.diameter, dtype=DISTANCE_DTYPE),
                KEPT: pl.Series(found.kept),
                REASON: found.reasons,
                **({} if found.reference is None else {REFERENCE_ID: found.reference}),
            }
        )
        has_measure, is_new = pl.when(pl.Series(found.has_measure)), pl.when(pl.Series(found.is_new))
        described = numbers.with_columns(
            has_measure.then(measure),
            pl.when(pl.Series(found.has_measure & found.is_new)).then(JOINED_AT),
            pl.when(pl.Series(found.has_hash & found.is_new)).then(DIAMETER),
            is_new.then(CLUSTER_ID),
            is_new.then(REPRESENTATIVE_ID),
        ).select(new)
        described.columns = list(fields)
        return described.to_struct(part.name)

    made = free_name({**schema, **fields})
    columns = grouping.needs(id, other)
    described = pl.struct(columns).map_batches(describe, return_dtype=pl.Struct(fields)).alias(made)
    return hashed.with_columns(described).unnest(made).select(call.order(new, schema))


@deprecated.renamed_parameters(deprecated.REFERENCE_OF_REMOVE)
@takes_tables
def remove_duplicates(
    frame: FrameT,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    linkage: str | None = None,
    keep: KeepBy = "first",
    protect: Column | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    id: str | None = None,
    reference: Frame | Target | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    prefix: str = "",
    suffix: str = "",
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return one row of each cluster of near-duplicates, with the others of its cluster.

    Parameters
    ----------
    frame, radius, hash_type, min_votes, linkage, keep, protect, across, within, not_duplicates
        As `cluster`.
    id
        Column whose values name rows in `not_duplicates`; None names them by row number.
    reference, reference_column, column, source, flat, turns
        As `cluster`. With `reference`, the result has no rows that match a reference row, also not as removed records.
    prefix, suffix, **options
        As `cluster`.

    Returns
    -------
    DataFrame or LazyFrame
        The kept rows, in order, and before their columns ``removed_records: List(Struct)``, the other rows of the
        cluster, in order; an empty list where there are none. Hashes come last. Rows without a hash are kept.
        Removed records have all columns but bytes that are no hashes, such as encoded images, in a column or in a field
        of a struct: `cluster` gives the removed rows whole.

    Raises
    ------
    ArgumentError, ColumnError, StoreError
        As `cluster`.

    Warns
    -----
    ImgMatchWarning
        As `cluster`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 255, 9, None]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.remove_duplicates(frame, 1, "phash").rows()
    [([{'phash': 9}], 8), ([], 255), ([], None)]
    """
    affixes = Affixes.make(prefix, suffix)
    return nest_duplicates(
        frame,
        radius,
        hash_type,
        linkage,
        keep,
        reference,
        source,
        affixes,
        options,
        column=column,
        reference_column=reference_column,
        flat=flat,
        min_votes=min_votes,
        turns=turns,
        protect=protect,
        across=across,
        within=within,
        not_duplicates=not_duplicates,
        id=id,
    )


def nest_duplicates(
    frame: FrameT,
    radius: int | None,
    hash_type: str,
    linkage: str | None = None,
    keep: KeepBy = "first",
    reference: Frame | Target | Reference | None = None,
    source: SourceColumn | None = None,
    affixes: Affixes = NO_AFFIXES,
    options: SourceOptions | None = None,
    *,
    column: str | None = None,
    reference_column: str | None = None,
    flat: str = "identical",
    min_votes: int | None = None,
    turns: bool | None = None,
    protect: Column | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    id: str | None = None,
    with_bytes: bool = False,
) -> FrameT:
    """Return what `remove_duplicates` does, on demand `with_bytes`: the documented JSON has images in its records."""
    comparison = check_comparison(hash_type, radius, min_votes, turns, default_radius=0)
    call: VerbCall[FrameT] = VerbCall.check(
        frame,
        comparison.kind,
        source,
        options or {},
        column=column,
        id=id,
        adds=[REMOVED_RECORDS],
        affixes=affixes,
        flat=flat,
    )
    rule = KeepRule.check(
        call.hashed_schema,
        keep,
        protect=protect,
        across=across,
        within=within,
        not_duplicates=not_duplicates,
        id=id,
        width=call.column(WIDTH),
        height=call.column(HEIGHT),
    )
    grouping = Grouping(call, comparison, linkage, rule, diameter=False, with_joined=False)
    other = check_reference(reference, call, None, reference_column)
    hashed = call.hashed()
    schema = hashed.collect_schema()
    columns, removed_name = grouping.needs(None, other), call.names[REMOVED_RECORDS]
    order = call.order([REMOVED_RECORDS], schema)
    record = {
        name: (pl.col(name), dtype)
        if with_bytes or name == call.hash or is_hash(name, dtype)
        else without_bytes(pl.col(name), dtype)
        for name, dtype in schema.items()
        if name in order
    }
    fields = {name: found for name, found in record.items() if found is not None}
    removed_dtype = pl.List(pl.Struct({name: dtype for name, (_, dtype) in fields.items()}))
    removed_record = pl.struct(expr.alias(name) for name, (expr, _) in fields.items()).alias(removed_name)
    label = free_name({**schema, removed_name: None})

    def remove(rows: pl.DataFrame) -> pl.DataFrame:
        found = grouping.find(rows.select(columns), other)
        kept = pl.Series(found.kept)
        numbered = rows.with_row_index(label)
        removed = rows.with_columns(pl.Series(label, found.representative)).filter(~kept & pl.Series(found.is_new))
        if removed.is_empty():  # Polars 1.40 panics on a conditional struct of no rows
            return numbered.filter(kept).with_columns(pl.lit([], dtype=removed_dtype).alias(removed_name)).select(order)
        removed = removed.select(label, removed_record).group_by(label, maintain_order=True).agg(removed_name)
        return (
            numbered.filter(kept)
            .join(removed, on=label, how="left", maintain_order="left")
            .with_columns(pl.col(removed_name).fill_null(pl.lit([], dtype=removed_dtype)))
            .select(order)
        )

    return apply(hashed, list(schema), remove, {name: schema.get(name, removed_dtype) for name in order})
