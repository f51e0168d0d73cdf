"""Sessions of Spark: a local one to begin with, and the checks of a DataFrame that a call gets."""

from typing import TYPE_CHECKING, Any

from imgmatch_df.errors import ArgumentError, MissingExtraError
from imgmatch_df.options import shown

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def session(master: str = "local[*]", **config: object) -> "SparkSession":
    """TODO (helper "hash")."""
    raise NotImplementedError


def import_spark() -> Any:
    """Return the module ``pyspark.sql``; raise `MissingExtraError` where it or pandas is not installed."""
    try:
        import pandas  # noqa: F401  # Spark needs it for Arrow
        import pyspark.sql
    except ImportError as error:
        raise MissingExtraError(
            f"Spark needs the package {error.name}, which is not installed\n"
            "Hint: pip install 'imgmatch-df[spark]' installs it."
        ) from error
    return pyspark.sql


def check_frame(df: object, name: str = "df") -> "DataFrame":
    """Return a DataFrame of Spark; raise `ArgumentError` for anything else."""
    import_spark()
    from pyspark.sql import DataFrame

    if not isinstance(df, DataFrame):
        raise ArgumentError(
            f"{name} must be a Spark DataFrame, got {shown(df)}\n"
            "Hint: spark.read.parquet makes one, and imgmatch_df has the same functions for other frames."
        )
    return df


def is_local(spark: "SparkSession") -> bool:
    """Return whether all executors of a session run on this machine."""
    return str(spark.conf.get("spark.master", "")).startswith("local")


def is_connect(spark: "SparkSession") -> bool:
    """Return whether a session is one of Spark Connect, whose server may be on another machine."""
    return type(spark).__module__.startswith("pyspark.sql.connect")
