"""Schemas and columns of Spark as those of Polars, and the other way round.

Spark has no unsigned numbers: a hash of 64 bits is a `LongType` with the same bits, and smaller unsigned numbers have
the next larger signed type. Enums are strings.
"""

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.columns import QUALITY
from imgmatch_df.errors import ColumnError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import DataType, StructType

# Columns that are unsigned in Polars, where verbs look for them by dtype.
_UNSIGNED: Final = {QUALITY: pl.UInt8()}


def polars_schema(schema: "StructType") -> pl.Schema:
    """Return the schema that the rows of a Spark DataFrame have in `as_polars`."""
    try:
        empty = arrow_schema(schema).empty_table()
    except Exception as error:  # Spark has several classes for it
        raise ColumnError(
            f"a column has a type that Arrow does not have: {' '.join(str(error).split())[:200]}\n"
            "Hint: select the columns that are needed."
        ) from error
    return as_polars(empty).schema


def arrow_schema(schema: "StructType") -> "pa.Schema":
    """Return the schema of the Arrow data of a Spark DataFrame, whose timestamps are in UTC."""
    from inspect import signature

    from pyspark.sql.pandas.types import to_arrow_schema

    # PySpark 4.0 has no parameter of this name and takes UTC; later ones fail at timestamps without it.
    named = {"timezone": "UTC"} if "timezone" in signature(to_arrow_schema).parameters else {}
    return to_arrow_schema(schema, **named)


def as_polars(table: "pa.Table | pa.RecordBatch") -> pl.DataFrame:
    """Return Arrow data of Spark as a DataFrame, in which the quality is unsigned again."""
    import pyarrow as pa

    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    frame = pl.DataFrame(table)
    unsigned = [
        pl.col(name).cast(dtype, strict=False)
        for name, dtype in _UNSIGNED.items()
        if name in frame.schema and frame.schema[name].is_integer()
    ]
    return frame.with_columns(unsigned)


def spark_dtype(dtype: Any) -> "DataType":
    """Return the type that a column of a dtype has in Spark, see `as_spark`."""
    from pyspark.sql import types

    if isinstance(dtype, pl.List):
        return types.ArrayType(spark_dtype(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return types.StructType([types.StructField(one.name, spark_dtype(one.dtype)) for one in dtype.fields])
    simple: dict[Any, type[DataType]] = {
        pl.Boolean: types.BooleanType,
        pl.Int8: types.ByteType,
        pl.Int16: types.ShortType,
        pl.Int32: types.IntegerType,
        pl.Int64: types.LongType,
        pl.UInt8: types.ShortType,
        pl.UInt16: types.IntegerType,
        pl.UInt32: types.LongType,
        pl.UInt64: types.LongType,
        pl.Float32: types.FloatType,
        pl.Float64: types.DoubleType,
        pl.String: types.StringType,
        pl.Enum: types.StringType,
        pl.Categorical: types.StringType,
        pl.Binary: types.BinaryType,
        pl.Date: types.DateType,
    }
    found = simple.get(dtype.base_type())
    if found is not None:
        return found()
    if isinstance(dtype, pl.Datetime):
        return types.TimestampNTZType() if dtype.time_zone is None else types.TimestampType()
    if isinstance(dtype, pl.Decimal):
        return types.DecimalType(dtype.precision or 38, dtype.scale)
    raise ColumnError(f"Spark has no type for {dtype}\nHint: select the columns that are needed.")


def as_spark(frame: pl.DataFrame) -> "pa.Table":
    """Return a DataFrame as Arrow data that Spark reads: signed numbers, strings in the place of enums."""
    import pyarrow as pa

    columns = [_signed(frame[name]) for name in frame.columns]
    schema = spark_schema(frame.schema)
    return pa.Table.from_arrays([column.to_arrow() for column in columns], frame.columns).cast(arrow_schema(schema))


def spark_schema(schema: pl.Schema) -> "StructType":
    """Return the schema of Spark for that of a DataFrame."""
    from pyspark.sql import types

    return types.StructType([types.StructField(name, spark_dtype(dtype)) for name, dtype in schema.items()])


def _signed(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if dtype == pl.UInt64:
        return column.reinterpret(signed=True)
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return column.cast(pl.String)
    if isinstance(dtype, pl.Struct):
        if not dtype.fields:
            return column
        fields = pl.DataFrame([_signed(column.struct.field(one.name)) for one in dtype.fields])
        validity = column.is_not_null()
        whole = fields.to_struct(column.name)
        return whole if validity.all() else whole.to_frame().select(pl.when(validity).then(column.name)).to_series()
    if isinstance(dtype, pl.List) and _signed(pl.Series([], dtype=dtype.inner)).dtype != dtype.inner:
        inner = pl.element()
        return column.list.eval(
            inner.map_batches(_signed, return_dtype=_signed(pl.Series([], dtype=dtype.inner)).dtype)
        )
    return column
