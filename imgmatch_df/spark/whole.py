"""Joins of few rows: one task that calls the verb of one machine, without stages of blocks, nodes and tiles.

A join of 1,000,000 hashes takes less time than Spark needs to sort them into nodes.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import QUALITY
from imgmatch_df.errors import TooManyPairsError, without_warnings
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import SHA256, HashKind
from imgmatch_df.spark import sizes
from imgmatch_df.spark.nodes import DIGEST, HASH, ID, IS_FLAT, repeated_ids
from imgmatch_df.spark.schemas import as_spark, spark_schema
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.spark.workers import map_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame

    from imgmatch_df.spark.inputs import Compared

MAX_ROWS: Final = 2_000_000
"""Maximum number of rows of both sides: names of 100 bytes take 200 MB."""

_SIDE: Final = "side_"
_FILE: Final = "whole/pairs.parquet"
_SUMMARY: Final = "too_many string, side int, n_rows long, n_different long"


def is_small(sides: "list[Compared]", kind: HashKind) -> bool:
    """Return whether one task has the memory to hold the rows of a join, with their names."""
    n_rows = sum(side.survey.n_rows for side in sides)
    return n_rows <= min(MAX_ROWS, sizes.max_rows_per_task(kind) // 2)


class Whole(NamedTuple):
    """A join in one task.

    Parameters
    ----------
    work
        Folder of the call.
    verb
        Of one machine: takes the frame, or both, and `named`.
    named
        Further arguments of the verb.
    kind
        Of the hashes.
    flat
        As in the call.
    schema
        Of the result of the verb.
    """

    work: WorkFolder
    verb: Callable[..., pl.DataFrame]
    named: Mapping[str, Any]
    kind: HashKind
    flat: str
    schema: pl.Schema

    def run(self, sides: "list[Compared]", names: list[tuple[str, str]]) -> "DataFrame":
        """Return the result of the verb for the rows of the sides, after the task has written it.

        Parameters
        ----------
        sides
            One side or two.
        names
            Of each side the argument that names its rows, and its value, for messages.

        Raises
        ------
        ArgumentError
            If two rows of a side have the same id.
        TooManyPairsError
            If there are too many pairs.
        """
        from pyspark.sql import functions as F  # noqa: N812

        spark = sides[0].rows.sparkSession
        if not self.work.exists(_FILE):
            columns = [side.rows.withColumnRenamed(ID, f"{ID}_{n}") for n, side in enumerate(sides)]
            rows = columns[0].withColumn(_SIDE, F.lit(0))
            for one in columns[1:]:
                rows = rows.unionByName(one.withColumn(_SIDE, F.lit(1)), allowMissingColumns=True)
            found = map_batches(rows.repartition(1), _Task(self, len(sides)), _SUMMARY).collect()
            for error in found:
                if error["too_many"] is not None:
                    raise TooManyPairsError(error["too_many"])
                argument, id = names[int(error["side"])]
                raise repeated_ids(argument, id, error["n_rows"], error["n_different"])
            if not self.work.exists(_FILE):  # Spark runs no task for no rows
                self.work.write_table(_FILE, as_spark(pl.DataFrame(schema=self.schema)))
        return spark.read.schema(spark_schema(self.schema)).parquet(self.work.uri_of(_FILE))

    def frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of one side as the verb takes them, in the order of their ids."""
        hashes = codec.as_hashes(rows[HASH], self.kind).alias(self.kind.name)
        others = rows.drop(HASH, IS_FLAT, DIGEST, _SIDE)
        if self.flat == "identical" and self.kind.is_perceptual:
            quality = rows.select(pl.when(IS_FLAT).then(0).otherwise(100).cast(pl.UInt8).alias(QUALITY))
            others = others.hstack([quality.to_series(), rows[DIGEST].alias(SHA256.name)])
        return others.hstack([hashes]).sort(ID)


class _Task:
    """The function of the task; it yields a row for each error."""

    def __init__(self, whole: Whole, n_sides: int) -> None:
        self._whole, self._n_sides = whole, n_sides

    def __call__(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        tables = list(batches)
        rows = pl.DataFrame(pa.Table.from_batches(tables)) if tables else None
        if rows is None:
            return
        ids = [f"{ID}_{n}" for n in range(self._n_sides)]
        sides = [rows.filter(pl.col(_SIDE) == n).rename({one: ID}).drop(set(ids) - {one}) for n, one in enumerate(ids)]
        del rows, tables
        errors: list[dict[str, Any]] = [
            {"too_many": None, "side": n, "n_rows": side.height, "n_different": side[ID].n_unique()}
            for n, side in enumerate(sides)
            if side[ID].n_unique() < side.height
        ]
        if not errors:
            frames = [self._whole.frame(side) for side in sides]
            try:
                with without_warnings():  # the driver has warned
                    found = self._whole.verb(*frames, **self._whole.named)
                self._whole.work.write_table(_FILE, as_spark(found))
            except TooManyPairsError as error:
                errors = [{"too_many": str(error), "side": 0, "n_rows": 0, "n_different": 0}]
        if errors:
            dtypes = {"too_many": pa.string(), "side": pa.int32(), "n_rows": pa.int64(), "n_different": pa.int64()}
            yield pa.RecordBatch.from_pylist(errors, pa.schema(dtypes))
