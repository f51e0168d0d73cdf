"""Arguments of the verbs, checked by the verbs of one machine on a frame without rows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import shown_names
from imgmatch_df.options import check_name, shown
from imgmatch_df.spark.schemas import polars_schema
from imgmatch_df.spark.sessions import check_frame
from imgmatch_df.spark.sizes import MAX_BLOCKS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def result_schema(verb: Callable[..., Any], df: "DataFrame", *args: Any, **named: Any) -> pl.Schema:
    """Return the schema of the result of a verb of one machine, which raises the errors of wrong arguments."""
    schema: pl.Schema = verb(empty_frame(df), *args, **named).collect_schema()
    return schema


def empty_frame(df: "DataFrame") -> pl.LazyFrame:
    """Return a query without rows that has the columns of a Spark DataFrame.

    Columns of types that Polars does not have are null there: they only pass by.
    """
    from pyspark.sql.types import StructType

    dtypes: dict[str, Any] = {}
    for field in df.schema.fields:
        try:
            (dtypes[field.name],) = polars_schema(StructType([field])).values()
        except (ColumnError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            dtypes[field.name] = pl.Null()
    return pl.LazyFrame(schema=dtypes)


def check_row_names(df: "DataFrame", id: object, name: str = "id") -> str:
    """Return the name of the column whose values name rows, text or whole numbers."""
    from pyspark.sql import types

    df = check_frame(df)
    if id is None:
        raise ArgumentError(
            f"{name} is missing: the column whose values name the rows, each value once\n"
            "Hint: rows of Spark have no order, so they cannot be named by their number."
        )
    check_name(name, id)
    column = str(id)
    if column not in df.columns:
        columns = shown_names(dict.fromkeys(df.columns))
        raise ColumnError(f"no column {column!r} in the frame, it has {columns}\nHint: {name}= names one.")
    dtype = df.schema[column].dataType
    if not isinstance(dtype, types.StringType | types.IntegralType):
        raise ColumnError(
            f"column {column!r} has type {dtype.simpleString()}, rows are named by text or whole numbers\n"
            "Hint: cast it to a string."
        )
    return column


def check_blocks(n_blocks: object) -> int | None:
    """Return the number of blocks of a join, None for one that suits the number of hashes."""
    if n_blocks is None:
        return None
    if not isinstance(n_blocks, int) or isinstance(n_blocks, bool) or not 1 <= n_blocks <= MAX_BLOCKS:
        raise ArgumentError(
            f"n_blocks must be a whole number from 1 to {MAX_BLOCKS:,}, got {shown(n_blocks)}\n"
            "Hint: leave it out; with n blocks there are n (n + 1) / 2 tasks."
        )
    return n_blocks
