"""Buckets: rows that are together if they can be in one cluster, clustered as on one machine, and numbered.

A bucket has whole components, and components do not touch each other: what one machine does with the rows of a bucket
is what it does with these rows among all others. Clusters are numbered by their first rows, over all buckets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.columns import (
    CLUSTER_ID,
    DIAMETER,
    DISTANCE_DTYPE,
    JOINED_AT,
    KEPT,
    QUALITY,
    REASON,
    REASON_DTYPE,
    REPRESENTATIVE_ID,
)
from imgmatch_df.errors import without_warnings
from imgmatch_df.frames.checks import VerbCall
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.grouping import Grouping
from imgmatch_df.frames.keeping import KeepRule
from imgmatch_df.frames.votes import ByVotes
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import MEASURES, SHA256, register_hash_kind
from imgmatch_df.spark.nodes import DIGEST, HASH, ID, IS_FLAT
from imgmatch_df.spark.rules import EXCLUDED, excluded_pairs
from imgmatch_df.spark.schemas import as_polars, as_spark, spark_dtype
from imgmatch_df.spark.shared_points import MASK
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.spark.workers import map_groups

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

GROUP: Final = "group"
BUCKET: Final = "bucket"
FIRST: Final = "first_id"
_PLACE: Final = "place"
_PLACE_BITS: Final = 33  # of monotonically_increasing_id
_ROWS_PER_RANGE: Final = 100_000


@dataclass(frozen=True)
class Bucket:
    """The function of a task: the clusters of the rows of one bucket.

    Parameters
    ----------
    comparison, linkage, diameter
        As on one machine.
    arguments
        Of the keep rule, see `RuleColumns`.
    guarded
        Whether flat rows match identical ones only.
    with_joined
        Whether to compute where rows join their clusters.
    """

    comparison: Comparison
    linkage: str | None
    arguments: Mapping[str, Any]
    guarded: bool
    diameter: bool
    with_joined: bool

    def schema(self, id_dtype: Any) -> "StructType":
        """Return the schema of the rows that it returns, which are named by a type of Spark."""
        from pyspark.sql.types import BooleanType, StringType, StructField, StructType

        dtypes = {
            ID: id_dtype,
            KEPT: BooleanType(),
            REASON: StringType(),
            self.comparison.measure: spark_dtype(self.comparison.measure_dtype),
            JOINED_AT: spark_dtype(DISTANCE_DTYPE),
            DIAMETER: spark_dtype(DISTANCE_DTYPE),
            REPRESENTATIVE_ID: id_dtype,
            FIRST: id_dtype,
        }
        return StructType([StructField(name, dtype) for name, dtype in dtypes.items()])

    def __call__(self, table: "pa.Table") -> "pa.Table":
        """Return the cluster of each row: its representative and its first row, by their ids."""
        kind, measure = self.comparison.kind, self.comparison.measure
        register_hash_kind(kind)
        rows = as_polars(table).sort(ID)
        excluded = excluded_pairs(rows) if EXCLUDED in rows.columns else None
        rows = rows.with_columns(codec.as_hashes(rows[HASH], kind).alias(kind.name))
        if self.guarded:
            quality = pl.when(IS_FLAT).then(0).otherwise(100).cast(MEASURES[QUALITY].dtype)
            rows = rows.with_columns(quality.alias(QUALITY), pl.col(DIGEST).alias(SHA256.name))
        comparison = self.comparison
        if isinstance(comparison, ByVotes):  # points are set aside by what all images share, and not those of a bucket
            from imgmatch_df.matching.shared_points import KeptPoints
            from imgmatch_df.spark.shared_points import kept_points_of

            has_masks = MASK in rows.columns
            kept = kept_points_of(rows[kind.name], rows[MASK]) if has_masks else KeptPoints.all()
            comparison = comparison.with_kept_points(kept)
        rows = rows.drop(HASH, IS_FLAT, DIGEST, BUCKET, EXCLUDED, MASK, strict=False)
        with without_warnings():  # a bucket does not know how many rows there are in all
            call: VerbCall[pl.DataFrame] = VerbCall.check(
                rows, kind, None, {}, id=ID, flat="identical" if self.guarded else "match"
            )
            rule = KeepRule.check(rows.schema, **self.arguments, not_duplicates=excluded, id=ID)
            grouping = Grouping(
                call, comparison, self.linkage, rule, diameter=self.diameter, with_joined=self.with_joined
            )
            found = grouping.find(rows.select(grouping.needs(ID, None)), None)
        ids, has_measure, has_hash = rows[ID], pl.Series(found.has_measure), pl.Series(found.has_hash)
        cluster = pl.Series(found.cluster)
        described = pl.DataFrame(
            {
                ID: ids,
                KEPT: pl.Series(found.kept),
                REASON: found.reasons.cast(REASON_DTYPE),
                measure: pl.Series(found.measure, dtype=self.comparison.measure_dtype),
                JOINED_AT: pl.Series(found.joined, dtype=DISTANCE_DTYPE),
                DIAMETER: pl.Series(found.diameter, dtype=DISTANCE_DTYPE),
                REPRESENTATIVE_ID: ids.gather(found.representative),
                FIRST: _firsts(ids, cluster),
            }
        )
        described = described.with_columns(
            pl.when(has_measure).then(measure).alias(measure),
            pl.when(has_measure).then(JOINED_AT).alias(JOINED_AT),
            pl.when(has_hash).then(DIAMETER).alias(DIAMETER),
        )
        return as_spark(described)


def _firsts(ids: pl.Series, cluster: pl.Series) -> pl.Series:
    """Return the first id of the cluster of each row; rows are in order."""
    return pl.DataFrame({ID: ids, CLUSTER_ID: cluster}).select(pl.col(ID).first().over(CLUSTER_ID)).to_series()


def cluster_buckets(rows: "DataFrame", bucket: Bucket, n_buckets: int) -> "DataFrame":
    """Return the clusters of rows that have the column `GROUP`, equal for rows that can be in one cluster. Lazy."""
    from pyspark.sql import functions as F  # noqa: N812

    numbered = rows.withColumn(BUCKET, F.pmod(F.xxhash64(GROUP), F.lit(n_buckets))).drop(GROUP)
    return map_groups(numbered, BUCKET, bucket, bucket.schema(rows.schema[ID].dataType))


def number_clusters(found: "DataFrame", work: WorkFolder, stage: str, n_rows: int) -> "DataFrame":
    """Return the number of each cluster, by the order of their first rows: the columns `FIRST` and `CLUSTER_ID`.

    Their ids are sorted in ranges, which are written with the place of each id; the number of ids in each range then
    makes numbers of places.

    Parameters
    ----------
    found
        Has `ID` and `FIRST`.
    work, stage
        Where the ids are written, unless they are there.
    n_rows
        Number of rows, at least that of the clusters.
    """
    from pyspark.sql import functions as F  # noqa: N812

    spark = found.sparkSession
    if not work.is_finished(stage):
        n_shuffled = int(spark.conf.get("spark.sql.shuffle.partitions", "200") or 200)
        n_ranges = max(1, min(n_shuffled, n_rows // _ROWS_PER_RANGE))
        firsts = found.filter(F.col(ID) == F.col(FIRST)).select(FIRST)
        firsts.repartitionByRange(n_ranges, FIRST).sortWithinPartitions(FIRST).select(
            FIRST, F.monotonically_increasing_id().alias(_PLACE)
        ).write.mode("overwrite").parquet(work.uri_of(stage))
    placed = spark.read.parquet(work.uri_of(stage))
    part = F.shiftright(_PLACE, _PLACE_BITS)
    counts = {
        row["part"]: row["n"] for row in placed.groupBy(part.alias("part")).agg(F.count("*").alias("n")).collect()
    }
    starts = accumulate((counts.get(one, 0) for one in range(max(counts, default=0))), initial=0)
    start = F.get(F.array(*[F.lit(one).cast("long") for one in starts]), part.cast("int"))
    place = F.col(_PLACE).bitwiseAND(F.lit((1 << _PLACE_BITS) - 1))
    return placed.select(FIRST, (start + place).alias(CLUSTER_ID))
