"""The verbs `cluster` and `remove_duplicates` on Spark."""

from typing import TYPE_CHECKING, Unpack

from imgmatch_df.columns import (
    CLUSTER_COLUMNS,
    DISTANCE,
    KEPT,
    REFERENCE_ID,
    REMOVED_RECORDS,
    REPRESENTATIVE_ID,
    VOTES,
)
from imgmatch_df.frames import clustering as one_machine
from imgmatch_df.frames.flat import Flat
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions
from imgmatch_df.spark.grouping import ClusterCall
from imgmatch_df.spark.nodes import column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType


def cluster(
    df: "DataFrame",
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    linkage: str | None = None,
    keep: "str | Column | Sequence[str | Column]" = "first",
    protect: "str | Column | None" = None,
    across: "str | Column | None" = None,
    within: "str | Column | None" = None,
    not_duplicates: "DataFrame | None" = None,
    id: str | None = None,
    reference: "DataFrame | None" = None,
    reference_id: str | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: "str | Column | None" = None,
    flat: Flat = "identical",
    diameter: bool = False,
    prefix: str = "",
    suffix: str = "",
    turns: bool | None = None,
    work_dir: str | None = None,
    n_blocks: int | None = None,
    **options: Unpack[SourceOptions],
) -> "DataFrame":
    """Return every row with the cluster of near-duplicates that it belongs to, on Spark.

    The rows are those of `imgmatch_df.cluster` on the rows in the order of `id`: also the numbers of clusters, which
    one is the first row, and ties. Parameters that are not described here are those of that function.

    Parameters
    ----------
    df
        DataFrame of a classic or a Connect session. It is read several times: write hashes to a table first, or name
        `source`, which is hashed once.
    keep
        ``"first"``, ``"last"``, ``"largest"``, ``"smallest"``, ``"newest"`` or ``"oldest"``; or Spark Columns, or a
        list of Columns and names of columns: the row whose values are the smallest is kept. ``-F.col("score")`` keeps
        the largest score.
    protect, across, within
        Column by name, or as a Spark `Column`.
    not_duplicates
        DataFrame with the columns ``left_id`` and ``right_id``, values of `id`.
    id
        Column whose values name the rows, text or whole numbers, each value once. Needed.
    reference
        DataFrame with a column of hashes; with `reference_id`, which is needed too.
    work_dir
        Folder in which each step is written, see `near_duplicates`: a call again on the same rows with the same
        arguments goes on after the last one. None takes a temporary folder where all executors are on this machine.
    n_blocks
        Number of blocks of the join, see `near_duplicates`. The result does not depend on it.

    Returns
    -------
    DataFrame
        The columns of `imgmatch_df.cluster`: ``cluster_id`` (long), ``kept`` (boolean), ``reason`` (string),
        ``distance`` (integer) or ``votes`` (short), ``joined_at`` (integer), with `diameter` ``diameter`` (integer),
        ``representative_id``, and with `reference` ``reference_id``; then those of `df` with their types; hashes last.

    Raises
    ------
    ArgumentError, ColumnError
        As `imgmatch_df.cluster`, before Spark does anything; and if values of `id` are null or are there twice, or a
        value is not a hash.

    Notes
    -----
    The links between rows are found by tiles, and united: a component is all rows that are linked. A bucket of whole
    components is clustered by one task, so that the largest component must fit the memory of a task: with a radius that
    joins unrelated images one component has most rows. Spark gives no warning of that; ``linkage="star"`` has the same
    components. Rows of a component are compared again in their bucket, which costs little beside the tiles.

    Images and other columns are not moved through the tasks: the new columns are joined to the rows by `id`.
    """
    call = ClusterCall.check(
        one_machine.cluster,
        df,
        radius,
        hash_type,
        min_votes=min_votes,
        linkage=linkage,
        keep=keep,
        protect=protect,
        across=across,
        within=within,
        not_duplicates=not_duplicates,
        id=id,
        reference=reference,
        reference_id=reference_id,
        reference_column=reference_column,
        column=column,
        source=source,
        flat=flat,
        diameter=diameter,
        prefix=prefix,
        suffix=suffix,
        turns=turns,
        work_dir=work_dir,
        n_blocks=n_blocks,
        options=options,
    )
    measure = call.comparison.measure
    absent = {DISTANCE: measure != DISTANCE, VOTES: measure != VOTES, REFERENCE_ID: reference is None}
    absent["diameter"] = not diameter
    new = {name: call.affixes.name_of(name) for name in CLUSTER_COLUMNS if not absent.get(name)}
    rows, found = call.find(numbered=True)
    return call.joined(rows, found, new).select(*call.result_columns())


def remove_duplicates(
    df: "DataFrame",
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    linkage: str | None = None,
    keep: "str | Column | Sequence[str | Column]" = "first",
    protect: "str | Column | None" = None,
    across: "str | Column | None" = None,
    within: "str | Column | None" = None,
    not_duplicates: "DataFrame | None" = None,
    id: str | None = None,
    reference: "DataFrame | None" = None,
    reference_id: str | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: "str | Column | None" = None,
    flat: Flat = "identical",
    prefix: str = "",
    suffix: str = "",
    turns: bool | None = None,
    work_dir: str | None = None,
    n_blocks: int | None = None,
    **options: Unpack[SourceOptions],
) -> "DataFrame":
    """Return one row of each cluster of near-duplicates, with the others of its cluster, on Spark.

    The rows are those of `imgmatch_df.remove_duplicates` on the rows in the order of `id`.

    Parameters
    ----------
    df
        As `cluster`, with all further parameters.

    Returns
    -------
    DataFrame
        The kept rows, and before their columns ``removed_records``, an array of structs: the other rows of the cluster
        in the order of `id`, an empty array where there are none. Structs have the columns of `df` with their types,
        but no binary ones that are not hashes, such as encoded images. Hashes come last.

    Raises
    ------
    ArgumentError, ColumnError
        As `cluster`.

    Notes
    -----
    All removed rows of one representative are one value: `cluster` gives them as rows.
    """
    from pyspark.sql import functions as F  # noqa: N812

    call = ClusterCall.check(
        one_machine.remove_duplicates,
        df,
        radius,
        hash_type,
        min_votes=min_votes,
        linkage=linkage,
        keep=keep,
        protect=protect,
        across=across,
        within=within,
        not_duplicates=not_duplicates,
        id=id,
        reference=reference,
        reference_id=reference_id,
        reference_column=reference_column,
        column=column,
        source=source,
        flat=flat,
        prefix=prefix,
        suffix=suffix,
        turns=turns,
        work_dir=work_dir,
        n_blocks=n_blocks,
        options=options,
    )
    removed_name = call.affixes.name_of(REMOVED_RECORDS)
    rows, found = call.find(numbered=False)
    records = record_columns(rows, call.record_names)
    place, record, of = (call.hidden(name) for name in ("place", "record", "of"))
    removed = call.joined(
        rows, found.filter(~F.col(KEPT) & F.col(REPRESENTATIVE_ID).isNotNull()), {REPRESENTATIVE_ID: of}
    )
    in_order = (
        removed.select(of, F.struct(call.id_column().alias(place), F.struct(*records).alias(record)).alias(record))
        .groupBy(of)
        .agg(F.collect_list(record).alias(record))
        .select(of, F.transform(F.array_sort(record, _by(place)), lambda one: one[record]).alias(removed_name))
    )
    kept = call.joined(rows, found.filter(KEPT), {})
    result = kept.join(in_order, call.id_column() == F.col(of), "left")
    none = F.array().cast(in_order.schema[removed_name].dataType)
    return result.withColumn(removed_name, F.coalesce(F.col(removed_name), none)).select(*call.result_columns())


def record_columns(rows: "DataFrame", names: "Iterable[str]") -> "list[Column]":
    """Return the columns of removed records, of these names: binary columns among them are hashes, and stay whole."""
    from pyspark.sql.types import BinaryType

    found = []
    for name in names:
        dtype = rows.schema[name].dataType
        part = column(name) if isinstance(dtype, BinaryType) else _without_bytes(column(name), dtype)
        if part is not None:
            found.append(part.alias(name))
    return found


def _without_bytes(value: "Column", dtype: "DataType") -> "Column | None":
    """Return a value without its binary parts; None if nothing is left. Maps stay as they are."""
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql import types

    if isinstance(dtype, types.BinaryType):
        return None
    if isinstance(dtype, types.StructType):
        parts = {one.name: _without_bytes(value.getField(one.name), one.dataType) for one in dtype.fields}
        left = [part.alias(name) for name, part in parts.items() if part is not None]
        if len(left) == len(parts) and not _holds_bytes(dtype):
            return value
        return F.when(value.isNotNull(), F.struct(*left)) if left else None
    if isinstance(dtype, types.ArrayType):
        if not _holds_bytes(dtype):
            return value
        inner = dtype.elementType
        if _without_bytes(value[0], inner) is None:
            return None
        return F.transform(value, lambda one: _without_bytes(one, inner))
    return value


def _holds_bytes(dtype: "DataType") -> bool:
    from pyspark.sql import types

    if isinstance(dtype, types.StructType):
        return any(_holds_bytes(one.dataType) for one in dtype.fields)
    if isinstance(dtype, types.ArrayType):
        return _holds_bytes(dtype.elementType)
    return isinstance(dtype, types.BinaryType)


def _by(place: str) -> "Callable[[Column, Column], Column]":
    """Return the order of structs by one of their fields, which has different values."""
    from pyspark.sql import functions as F  # noqa: N812

    return lambda one, other: F.when(one[place] < other[place], -1).otherwise(1)
