"""A join of one call: from the rows of a DataFrame to tiles, and from pairs of nodes to pairs of rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import DISTANCE
from imgmatch_df.errors import TooManyPairsError, without_warnings
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.spark import nodes
from imgmatch_df.spark.inputs import ACROSS, WITHIN, Compared, compared, guard_of, hash_into, hashed_guard
from imgmatch_df.spark.nodes import DIGEST, ID, IS_FLAT, NODE, fingerprint
from imgmatch_df.spark.schemas import spark_schema
from imgmatch_df.spark.tiles import LEFT_NODE, RIGHT_NODE, Tiles
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Before the names of the columns of two rows, while their pairs are joined.
LEFT: Final = "l_"
RIGHT: Final = "r_"


class Join(NamedTuple):
    """One call: its comparison, the schema of its result, and the parts of the name of its folder."""

    comparison: Comparison
    flat: str
    schema: pl.Schema
    verb: str
    parts: list[object]

    @classmethod
    def of(cls, verb: str, radius: int | None, hash_type: str, named: dict[str, Any], schema: pl.Schema) -> "Join":
        """Return the call of a verb, whose arguments the verb of one machine has checked."""
        with without_warnings():  # the verb of one machine has warned
            comparison = check_comparison(hash_type, radius, named["min_votes"], named["turns"])
        parts = [
            verb,
            hash_type,
            comparison.kind.version,
            radius,
            named["min_votes"],
            comparison.directed,
            named["flat"],
        ]
        return cls(comparison, named["flat"], schema, verb, parts)

    def side(
        self,
        df: "DataFrame",
        id: str,
        source: str | None,
        hash_column: str | None,
        further: dict[str, str],
        work: WorkFolder,
        work_dir: str | None,
        options: Any,
        name: str = "id",
    ) -> Compared:
        """Return the rows of one side, surveyed; images are hashed first."""
        if source is None:
            hash_name, guard = guard_of(df, self.comparison, column=hash_column, flat=self.flat)
        else:
            df = hash_into(df, work, self.comparison, id=id, source=source, further=further, options=options)
            hash_name, guard = hashed_guard(self.comparison, self.flat)
            id, further = nodes.ID, {one: one for one in further}
        return compared(
            df,
            self.comparison,
            id=id,
            hash_column=hash_name,
            guard=guard,
            further=further,
            with_checksum=work_dir is not None,
            name=name,
        )

    def folder(self, work: WorkFolder, n_blocks: int, sides: Sequence[Compared], *parts: object) -> WorkFolder:
        """Return the folder of the call."""
        checksums = [side.survey.checksum for side in sides]
        digest = fingerprint(*self.parts, n_blocks, checksums, *parts)
        return work.folder(f"{self.verb}-{self.comparison.kind.name}-{digest}")

    def of_rows(self, tiles: Tiles, left: Compared, right: Compared | None) -> "DataFrame":
        """Return the pairs of rows that the pairs of nodes stand for."""
        from pyspark.sql import functions as F  # noqa: N812
        from pyspark.sql import types

        spark = left.rows.sparkSession
        measures = spark_schema(pl.Schema(self.comparison.dtypes)).fields
        ends = [types.StructField(name, types.LongType()) for name in (LEFT_NODE, RIGHT_NODE)]
        pairs = spark.read.schema(types.StructType([*ends, *measures])).parquet(tiles.uri())
        lefts = _prefixed(tiles.nodes.rows(spark), left.further, LEFT, LEFT_NODE)
        rights = _prefixed((tiles.other or tiles.nodes).rows(spark), (right or left).further, RIGHT, RIGHT_NODE)
        found = pairs.join(lefts, LEFT_NODE).join(rights, RIGHT_NODE)
        if right is not None:
            return found.drop(LEFT_NODE, RIGHT_NODE)
        ordered = F.col(f"{LEFT}{ID}") < F.col(f"{RIGHT}{ID}")
        if self.comparison.directed:
            return found.filter(ordered).drop(LEFT_NODE, RIGHT_NODE)
        found = found.filter((F.col(LEFT_NODE) != F.col(RIGHT_NODE)) | ordered)
        names = [ID, *left.further]
        swapped = [
            F.when(ordered, F.col(f"{one}{name}")).otherwise(F.col(f"{other}{name}")).alias(f"{one}{name}")
            for one, other in ((LEFT, RIGHT), (RIGHT, LEFT))
            for name in names
        ]
        return found.select(*swapped, *self.comparison.dtypes)

    def identical(self, work: WorkFolder, sides: Sequence[Compared], max_pairs: int | None) -> "DataFrame":
        """Return the pairs of flat rows of identical files, which have nothing to measure."""
        from pyspark.sql import functions as F  # noqa: N812

        spark = sides[0].rows.sparkSession
        stages = []
        for n, side in enumerate(sides):
            stage = f"flat-{n}"
            if not work.is_finished(stage):
                known = side.rows.filter(F.col(IS_FLAT) & F.col(DIGEST).isNotNull()).select(ID, DIGEST, *side.further)
                known.write.mode("overwrite").parquet(work.uri_of(stage))
            stages.append(spark.read.parquet(work.uri_of(stage)))
        counts = [one.groupBy(DIGEST).agg(F.count(F.lit(1)).alias(f"n_{n}")) for n, one in enumerate(stages)]
        n_left = F.col("n_0")
        if len(sides) == 1:
            n_pairs = F.sum(n_left * (n_left - 1)) / 2
            joined = counts[0]
        else:
            n_pairs = F.sum(n_left * F.col("n_1"))
            joined = counts[0].join(counts[1], DIGEST)
        if max_pairs is not None:
            n_found = int(joined.agg(n_pairs.alias("n")).collect()[0]["n"] or 0)
            if n_found > max_pairs:
                raise TooManyPairsError(
                    f"more than max_pairs={max_pairs:,} pairs: {n_found:,} are of identical images with little to see\n"
                    "Hint: cluster() groups them without making pairs; or raise max_pairs."
                )
        lefts = _prefixed(stages[0], sides[0].further, LEFT, DIGEST, DIGEST)
        rights = _prefixed(stages[-1], sides[-1].further, RIGHT, DIGEST, DIGEST)
        found = lefts.join(rights, DIGEST)
        if len(sides) == 1:
            found = found.filter(F.col(f"{LEFT}{ID}") < F.col(f"{RIGHT}{ID}"))
        nothing = [
            _nothing(dtype).cast(field.dataType).alias(name)
            for (name, dtype), field in zip(
                self.comparison.dtypes.items(), spark_schema(pl.Schema(self.comparison.dtypes)).fields, strict=True
            )
        ]
        return found.select(*[one for one in found.columns if one != DIGEST], *nothing)

    def counted(
        self, found: "DataFrame", further: Sequence[str], excluded: "DataFrame | None", *, either_way: bool
    ) -> "DataFrame":
        """Return the pairs that count by `across`, `within` and `not_duplicates`."""
        from pyspark.sql import functions as F  # noqa: N812
        from pyspark.sql import types

        if ACROSS in further:
            found = found.filter(~F.col(f"{LEFT}{ACROSS}").eqNullSafe(F.col(f"{RIGHT}{ACROSS}")))
        if WITHIN in further:
            left, right = F.col(f"{LEFT}{WITHIN}"), F.col(f"{RIGHT}{WITHIN}")
            equal = left == right
            dtype = found.schema[f"{LEFT}{WITHIN}"].dataType
            if isinstance(dtype, types.StructType):
                for name in dtype.names:
                    equal = equal & left.getField(name).isNotNull()
            found = found.filter(equal)
        if excluded is not None:
            names = f"{LEFT}{ID}", f"{RIGHT}{ID}"
            pairs = excluded.toDF(*names)
            if either_way:
                pairs = pairs.unionByName(excluded.toDF(*reversed(names)))
            found = found.join(pairs, list(names), "left_anti")
        return found

    def nearest(self, found: "DataFrame", k: int) -> "DataFrame":
        """Return the nearest pairs of each query row, ties in the order of the ids of the reference."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F  # noqa: N812

        measure = F.col(self.comparison.measure)
        if self.comparison.measure != DISTANCE:  # identical files have no votes, and are nearest
            measure = F.when(measure == 0, 0).otherwise(256 - measure)
        each = Window.partitionBy(f"{LEFT}{ID}").orderBy(measure, F.col(f"{RIGHT}{ID}"))
        return found.withColumn("place_", F.row_number().over(each)).filter(F.col("place_") <= k)

    def result(
        self, found: "DataFrame", left: str, right: str, brought: Sequence[str] = (), columns: Sequence[str] = ()
    ) -> "DataFrame":
        """Return pairs with the columns of the result."""
        from pyspark.sql import functions as F  # noqa: N812

        return found.select(
            F.col(f"{LEFT}{ID}").alias(left),
            F.col(f"{RIGHT}{ID}").alias(right),
            *self.comparison.dtypes,
            *[F.col(one).alias(name) for one, name in zip(brought, columns, strict=True)],
        )


def _prefixed(rows: "DataFrame", further: Sequence[str], prefix: str, key: str, of: str = NODE) -> "DataFrame":
    from pyspark.sql import functions as F  # noqa: N812

    return rows.select(F.col(of).alias(key), *[F.col(one).alias(f"{prefix}{one}") for one in (ID, *further)])


def _nothing(dtype: Any) -> "Column":
    """Return what a measure of two identical files is: 0, and the first value of an enum."""
    from pyspark.sql import functions as F  # noqa: N812

    return F.lit(dtype.categories[0]) if isinstance(dtype, pl.Enum) else F.lit(0)
