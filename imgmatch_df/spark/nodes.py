"""Distinct hashes in blocks: a node is one of them, and every row knows its node.

Pairs and links are found between nodes, and become those of rows by joins on the column `node`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imgmatch_df.errors import ArgumentError, ColumnError, warn
from imgmatch_df.frames.flat import MIN_QUALITY, Guard
from imgmatch_df.hashes.kinds import SHA256, HashKind
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Columns of rows to compare, and of the stage "rows".
ID: Final = "id"
HASH: Final = "hash"
IS_FLAT: Final = "is_flat"
DIGEST: Final = "digest"
NODE: Final = "node"
SIZE: Final = "size"
LAST_ID: Final = "last_id"
BLOCK: Final = "block"
BLOCK_BITS: Final = 40  # a node is its block shifted by these, and its position in the block


class Survey(NamedTuple):
    """What one pass over rows to compare finds.

    Parameters
    ----------
    n_rows, n_hashes, n_flat, n_unknown
        Numbers of rows, of rows that are compared by their hashes, of flat rows, and of those of them that have no
        digest.
    checksum
        Of all columns of all rows, whatever their order.
    """

    n_rows: int
    n_hashes: int
    n_flat: int
    n_unknown: int
    checksum: str

    def warn_of_unknown(self) -> None:
        """Warn where several rows match nothing because their digests are not known."""
        if self.n_unknown > 1:
            warn(
                f"{self.n_unknown:,} images show too little to be compared by their hashes, and match nothing: without "
                f"a column {SHA256.name!r} it is not known which files are identical\n"
                f"Hint: hash_types={SHA256.name!r} makes it, flat='match' compares their hashes."
            )


class Nodes(NamedTuple):
    """A finished stage of rows in nodes: Parquet files partitioned by `block`.

    Its columns are `id`; `node` (long); `hash`, `size` and `last_id`, which only the row with the smallest id of each
    node has: the hash, the number of rows of the node, and the largest id of them where there are several; and the
    further columns of `write_nodes`. Its rows are those that have a hash and are not flat.
    """

    work: WorkFolder
    stage: str
    n_blocks: int
    schema: str

    def rows(self, spark: "SparkSession") -> "DataFrame":
        """Return the rows as a DataFrame, with the column `block`."""
        from pyspark.sql.types import StructType

        schema = StructType.fromJson(json.loads(self.schema))
        return spark.read.schema(schema).parquet(self.work.uri_of(self.stage))


def column(name: str) -> "Column":
    """Return the column of a name, whatever characters it has."""
    from pyspark.sql import functions as F  # noqa: N812  # Spark's own name for it

    return F.col("`" + name.replace("`", "``") + "`")


def rows_to_compare(
    df: "DataFrame",
    kind: HashKind,
    *,
    id: str,
    hash_column: str,
    guard: Guard | None,
    further: Mapping[str, str] | None = None,
) -> "DataFrame":
    """Return the columns `id`, `hash`, `is_flat`, `digest` and further ones of the rows of a DataFrame. Lazy.

    Parameters
    ----------
    df
        Has the columns.
    kind
        Of the hashes. Their column holds them in the dtype of the kind, or as other whole numbers.
    id, hash_column
        Columns that name rows, and of hashes.
    guard
        Columns that show which rows are flat, see `frames.flat`; None for none.
    further
        Columns of `df`, by the names that they get.
    """
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql import types

    number = kind.is_number
    hashes = column(hash_column)
    if number and isinstance(df.schema[hash_column].dataType, types.DecimalType):
        high, whole = (F.lit(str(1 << n)).cast("decimal(20,0)") for n in (63, 64))  # beyond the numbers of Java
        hashes = F.when(hashes >= high, hashes - whole).otherwise(hashes)
    hashes = hashes.cast("long" if number else "binary")
    is_flat, digest = F.lit(False), F.lit(None).cast("string")
    if guard is not None:
        is_flat = _is_flat(kind, guard, hashes)
        if guard.digest is not None:
            text = isinstance(df.schema[guard.digest].dataType, types.StringType)
            found = F.lower(column(guard.digest)) if text else F.lower(F.hex(column(guard.digest)))
            digest = F.when(is_flat, found)
    others = [column(value).alias(name) for name, value in (further or {}).items()]
    return df.select(column(id).alias(ID), hashes.alias(HASH), is_flat.alias(IS_FLAT), digest.alias(DIGEST), *others)


def _is_flat(kind: HashKind, guard: Guard, hashes: "Column") -> "Column":
    from pyspark.sql import functions as F  # noqa: N812

    known = [one - (1 << 64) if isinstance(one, int) and one >> 63 else one for one in kind.flat_hashes]
    values = [F.lit(one if isinstance(one, int) else bytearray(one)) for one in known]
    blank = hashes.isin(*values) if values else F.lit(False)
    if guard.quality is not None:
        quality = column(guard.quality)
        blank = F.when(quality.between(0, 255), quality < MIN_QUALITY).otherwise(blank)
    return F.coalesce(blank, F.lit(False)) & hashes.isNotNull()


def survey(
    rows: "DataFrame",
    kind: HashKind,
    *,
    id: str,
    with_checksum: bool,
    with_different: bool = True,
    name: str = "id",
) -> Survey:
    """Return the numbers of rows that `rows_to_compare` gives, in one job.

    Parameters
    ----------
    rows
        The rows.
    kind
        Of their hashes.
    id
        The column of the user that names rows, for messages; `name` is that of the argument.
    with_checksum
        Whether to compute `Survey.checksum`, else empty.
    with_different
        Whether to check that ids differ, see `check_different`.

    Raises
    ------
    ArgumentError
        If a row has no id, or two rows have the same.
    ColumnError
        If a hash has not the width of its kind.
    """
    from pyspark.sql import functions as F  # noqa: N812

    compared = F.col(HASH).isNotNull()
    found = {
        "n_rows": F.count(F.lit(1)),
        "n_ids": F.count(ID),
        "n_hashes": F.count_if(compared & ~F.col(IS_FLAT)),
        "n_flat": F.count_if(IS_FLAT),
        "n_unknown": F.count_if(F.col(IS_FLAT) & F.col(DIGEST).isNull()),
    }
    if not kind.is_number:
        found["width"] = F.min(F.when(F.octet_length(HASH) != kind.n_bytes, F.octet_length(HASH)))
    if with_different:
        found["n_different"] = F.count_distinct(ID)
    if with_checksum:
        found.update(_checksums(rows))
    one = rows.agg(*[value.alias(key) for key, value in found.items()]).collect()[0].asDict()
    if one["n_ids"] < one["n_rows"]:
        raise ArgumentError(
            f"{name}={id!r}: {one['n_rows'] - one['n_ids']:,} of {one['n_rows']:,} rows have null there\n"
            "Hint: rows are named by text or whole numbers, each row by another; filter these rows out."
        )
    if with_different and one["n_different"] < one["n_rows"]:
        raise repeated_ids(name, id, one["n_rows"], one["n_different"])
    if one.get("width") is not None:
        raise ColumnError(
            f"the column of hashes holds values of {one['width']} bytes, a {kind.name} has {kind.n_bytes}\n"
            "Hint: is it another kind of hash?"
        )
    checksum = _checksum(one) if with_checksum else ""
    return Survey(one["n_rows"], one["n_hashes"], one["n_flat"], one["n_unknown"], checksum)


def check_different(rows: "DataFrame", *, id: str, name: str) -> None:
    """Raise `ArgumentError` if two rows of `rows_to_compare` have the same id. Runs one job that sends ids about."""
    from pyspark.sql import functions as F  # noqa: N812

    n_rows, n_different = rows.agg(F.count(ID), F.count_distinct(ID)).collect()[0]
    if n_different < n_rows:
        raise repeated_ids(name, id, n_rows, n_different)


def repeated_ids(name: str, id: str, n_rows: int, n_different: int) -> ArgumentError:
    """Return the error of rows that have the same id."""
    return ArgumentError(
        f"{name}={id!r}: {n_rows:,} rows have {n_different:,} different values there\n"
        "Hint: rows are named by text or whole numbers, each row by another; dropDuplicates drops repeated rows."
    )


def checksum_of(df: "DataFrame") -> str:
    """Return a checksum of all columns of all rows of a DataFrame, whatever their order. Runs one job."""
    from pyspark.sql import functions as F  # noqa: N812

    found = {"n_rows": F.count(F.lit(1)), **_checksums(df)}
    return _checksum(df.agg(*[value.alias(key) for key, value in found.items()]).collect()[0].asDict())


def _checksums(df: "DataFrame") -> "dict[str, Column]":
    from pyspark.sql import functions as F  # noqa: N812

    mixed = F.xxhash64(*[column(one) for one in df.columns])
    # The sum of 4e9 rows fits in a long.
    return {"mixed": F.bit_xor(mixed), "sum": F.sum(F.pmod(mixed, F.lit((1 << 31) - 1)))}


def _checksum(found: "Mapping[str, Any]") -> str:
    return f"{found['n_rows']}/{found['mixed']}/{found['sum']}"


def fingerprint(*parts: object) -> str:
    """Return a digest of the parts of a call, values that JSON has, for the name of its folder."""
    import imgmatch_df

    text = json.dumps([imgmatch_df.__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write_nodes(
    rows: "DataFrame", work: WorkFolder, n_blocks: int, *, stage: str = "rows", further: Sequence[str] = ()
) -> Nodes:
    """Write the rows that have a hash and are not flat in their nodes, unless the stage is finished.

    Parameters
    ----------
    rows
        From `rows_to_compare`.
    work
        Folder of the call.
    n_blocks
        Number of blocks.
    stage
        Name of the stage, a folder in `work`.
    further
        Further columns to write.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F  # noqa: N812

    block = F.pmod(F.xxhash64(HASH), F.lit(n_blocks)).cast("int")
    ordered = Window.partitionBy(BLOCK).orderBy(HASH)
    equal = Window.partitionBy(BLOCK, HASH).orderBy(ID)
    all_equal = equal.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    base = F.shiftleft(F.col(BLOCK).cast("long"), BLOCK_BITS)
    numbered = (
        rows.filter(F.col(HASH).isNotNull() & ~F.col(IS_FLAT))
        .select(ID, HASH, *further, block.alias(BLOCK))
        .withColumn(NODE, F.dense_rank().over(ordered) - 1 + base)
        .withColumn("number", F.row_number().over(equal))
        .withColumn(SIZE, F.count(F.lit(1)).over(all_equal))
        .withColumn(LAST_ID, F.last(ID).over(all_equal))
    )
    is_first = F.col("number") == 1
    written = numbered.select(
        ID,
        NODE,
        F.when(is_first, F.col(HASH)).alias(HASH),
        F.when(is_first, F.col(SIZE)).alias(SIZE),
        F.when(is_first & (F.col(SIZE) > 1), F.col(LAST_ID)).alias(LAST_ID),
        *further,
        BLOCK,
    )
    if not work.is_finished(stage):
        written.write.mode("overwrite").partitionBy(BLOCK).parquet(work.uri_of(stage))
    return Nodes(work, stage, n_blocks, written.schema.json())


def read_block(nodes: Nodes, block: int, columns: Sequence[str]) -> Any:
    """Return the first rows of the nodes of one block in the order of their nodes, as an Arrow table, in a worker."""
    import pyarrow.compute as pc

    table = nodes.work.read_tables(f"{nodes.stage}/{BLOCK}={block}", list(columns), pc.field(SIZE).is_valid())
    return table.sort_by(NODE)
