"""Functions in the Python workers of Spark."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    OverBatches = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
    OverGroups = Callable[[pa.Table], pa.Table]


def map_batches(df: "DataFrame", function: "OverBatches", schema: "StructType") -> "DataFrame":
    """Return the rows that a function makes of the rows of each task.

    A worker takes as many threads as its task has cores (``spark.task.cpus``).
    """
    load = _loader(function)

    def run(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        yield from load()(batches)

    return df.mapInArrow(run, schema)


def map_groups(df: "DataFrame", by: str, function: "OverGroups", schema: "StructType") -> "DataFrame":
    """Return the rows that a function makes of all rows that have the same value of a column; see `map_batches`."""
    load = _loader(function)

    def run(table: "pa.Table") -> "pa.Table":
        return load()(table)

    return df.groupBy(by).applyInArrow(run, schema)


def numbers_of_tasks(spark: "SparkSession", n: int) -> list[int]:
    """Return `n` numbers that ``repartition(n, number)`` puts into `n` different tasks.

    Files that one task writes into several folders have one name, and the name of its file identifies a row.
    """
    from pyspark.sql import functions as F  # noqa: N812

    task = F.pmod(F.hash("id"), F.lit(n)).alias("task")
    found = spark.range(64 * n).groupBy(task).agg(F.min("id").alias("id")).collect()
    return [row["id"] for row in found]


def _loader(function: Any) -> Callable[[], Any]:
    """Return a function that sets the number of threads of a worker and returns `function` there.

    It is a function in a function so that Spark pickles it by value: Polars, which this package imports, reads the
    number of threads when it is imported.
    """
    from pyspark import cloudpickle

    version = import_module("imgmatch_df").__version__
    pickled = cloudpickle.dumps(function)

    def load() -> Any:
        import os
        import pickle
        import sys
        from importlib import import_module

        from pyspark import TaskContext

        context = TaskContext.get()
        n_cores = str(1 if context is None else context.cpus())
        os.environ["IMGMATCH_MAX_THREADS"] = n_cores
        os.environ.setdefault("POLARS_MAX_THREADS", n_cores)
        hint = f"Hint: pip install imgmatch-df=={version} in the Python of the executors, which PYSPARK_PYTHON names."
        try:
            found = import_module("imgmatch_df").__version__
        except ModuleNotFoundError as error:
            raise ImportError(
                f"an executor does not have the package {error.name}, in {sys.executable}\n{hint}"
            ) from None
        if found != version:
            raise ImportError(
                f"an executor has version {found} of imgmatch-df, and the driver has version {version}\n{hint}"
            )
        return pickle.loads(pickled)  # noqa: S301  # made above

    return load
