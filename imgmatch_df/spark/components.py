"""Components of nodes: the links of all tiles united, on the driver or, where they are too many, by joins of Spark.

A round of joins contracts the links: each node hooks to its neighbour that comes first in an order of the round, then
to what that one hooks to; links between the nodes that are left remain. Most components are small and are one node
after a round or two, and long paths shrink by a factor of three or more a round, whatever the numbers of their nodes.
So a few rounds make few links of many, and the driver unites these.
"""

from typing import TYPE_CHECKING, Any, Final

from imgmatch_df.spark.nodes import NODE
from imgmatch_df.spark.tiles import LEFT_NODE, RIGHT_NODE
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

ROOT: Final = "root"

# Links that the driver unites: it needs 90 bytes for each.
MAX_DRIVER_LINKS: Final = 20_000_000

_STAGE: Final = "components"
_LINKS: Final = f"{LEFT_NODE} long, {RIGHT_NODE} long"
_TO: Final = "to"


def find_components(
    spark: "SparkSession", work: WorkFolder, links: str | None, max_driver_links: int | None = None
) -> "DataFrame":
    """Return the component of each node that has a link: the columns `node` and `root`, one of the component's nodes.

    Parameters
    ----------
    spark
        The session.
    work
        Where the stages are written; those that are there are not run again.
    links
        Folder of `work` with Parquet files of the columns `left_node` and `right_node`; None if there are no links.
    max_driver_links
        Number of links that the driver unites; None for `MAX_DRIVER_LINKS`.
    """
    if not work.is_finished(_STAGE):
        limit = MAX_DRIVER_LINKS if max_driver_links is None else max_driver_links
        _find(spark, work, links, limit)
    return _read(spark, work, _STAGE, f"{NODE} long, {ROOT} long")


def unite_links(left: "NDArray[Any]", right: "NDArray[Any]") -> "tuple[NDArray[Any], NDArray[Any]]":
    """Return the nodes that links connect, sorted, and the smallest node of the component of each: int64."""
    import numpy as np

    from imgmatch_df.matching import clusters

    nodes = np.unique(np.concatenate([left, right]).astype(np.int64, copy=False))
    rows = (np.searchsorted(nodes, side).astype(np.uint32) for side in (left, right))
    return nodes, nodes[clusters.connected(len(nodes), *rows)]


def _find(spark: "SparkSession", work: WorkFolder, folder: str | None, limit: int) -> None:
    """Write the stage: contract the links until they are few enough, unite them, and go back to the first nodes."""
    from pyspark.sql import functions as F  # noqa: N812

    round_ = 0
    while folder is not None:
        links = _read(spark, work, folder, _LINKS)
        if links.count() <= limit:
            break
        folder = _contract(links, work, round_)
        round_ += 1
    stage = _STAGE if round_ == 0 else _round(round_, "roots")
    if not work.is_finished(stage):
        _unite_on_driver(work, folder, stage)
    if round_ == 0:
        return
    roots = _read(spark, work, stage, f"{NODE} long, {ROOT} long")
    for earlier in reversed(range(round_)):
        hooks = _read(spark, work, _round(earlier, "hooks"), f"{NODE} long, {_TO} long")
        roots = hooks.join(roots.withColumnRenamed(NODE, _TO), _TO, "left").select(
            NODE, F.coalesce(ROOT, _TO).alias(ROOT)
        )
    roots.write.mode("overwrite").parquet(work.uri_of(_STAGE))


def _contract(links: "DataFrame", work: WorkFolder, round_: int) -> str:
    """Write where each node of the links hooks to, and the links between those that are left; return their folder.

    The order of a round is that of a hash, which is a bijection of 64 bits: no two nodes are equal in it.
    """
    from pyspark.sql import functions as F  # noqa: N812

    spark, hooks_stage, links_stage = links.sparkSession, _round(round_, "hooks"), _round(round_, "links")
    if not work.is_finished(hooks_stage):
        other, seed = "other", F.lit(round_)
        both_ways = links.select(F.col(LEFT_NODE).alias(NODE), F.col(RIGHT_NODE).alias(other)).union(
            links.select(RIGHT_NODE, LEFT_NODE)
        )
        place = F.xxhash64(other, seed)
        first = both_ways.groupBy(NODE).agg(F.min_by(other, place).alias(_TO), F.min(place).alias("place"))
        is_first = F.col("place") < F.xxhash64(NODE, seed)
        hooks = first.select(NODE, F.when(is_first, F.col(_TO)).otherwise(F.col(NODE)).alias(_TO))
        onwards = hooks.select(F.col(NODE).alias(_TO), F.col(_TO).alias("onwards"))
        hooks.join(onwards, _TO).select(NODE, F.col("onwards").alias(_TO)).write.mode("overwrite").parquet(
            work.uri_of(hooks_stage)
        )
    if not work.is_finished(links_stage):
        hooks = _read(spark, work, hooks_stage, f"{NODE} long, {_TO} long")
        for side in (LEFT_NODE, RIGHT_NODE):
            ends = hooks.select(F.col(NODE).alias(side), F.col(_TO).alias(f"{side}_to"))
            links = links.join(ends, side)
        ends_of = (F.col(f"{LEFT_NODE}_to"), F.col(f"{RIGHT_NODE}_to"))
        links.filter(ends_of[0] != ends_of[1]).select(
            F.least(*ends_of).alias(LEFT_NODE), F.greatest(*ends_of).alias(RIGHT_NODE)
        ).distinct().write.mode("overwrite").parquet(work.uri_of(links_stage))
    return links_stage


def _unite_on_driver(work: WorkFolder, folder: str | None, stage: str) -> None:
    import numpy as np
    import pyarrow as pa

    left = right = np.zeros(0, np.int64)
    if folder is not None and any(name.endswith(".parquet") for name in work.names(folder)):
        links = work.read_tables(folder, [LEFT_NODE, RIGHT_NODE])
        left, right = (links[name].to_numpy() for name in (LEFT_NODE, RIGHT_NODE))
    nodes, roots = unite_links(left, right)
    work.write_table(f"{stage}/part-0.parquet", pa.table({NODE: nodes, ROOT: roots}))
    work.write(f"{stage}/_SUCCESS", b"")


def _round(number: int, stage: str) -> str:
    return f"{_STAGE}-{number}-{stage}"


def _read(spark: "SparkSession", work: WorkFolder, folder: str, schema: str) -> "DataFrame":
    return spark.read.schema(schema).parquet(work.uri_of(folder))
