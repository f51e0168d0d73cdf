"""What each table format can hold, and the form in which it holds the rest."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl
from polars.datatypes import DataTypeClass

from imgmatch_df.frames.layout import is_hash, without_bytes

Dtype = pl.DataType | DataTypeClass


class Fitted(NamedTuple):
    """The columns of a table as a format holds them.

    Parameters
    ----------
    columns
        By name.
    lost
        Columns, or fields of columns, that it cannot hold, with their dtypes.
    spread
        Columns that become a column for each of their fields.
    """

    columns: dict[str, pl.Expr]
    lost: dict[str, Dtype]
    spread: list[str]


def fit_columns(schema: Mapping[str, Dtype], suffix: str) -> Fitted:
    """Return the columns of a table as the format named by `suffix` holds them.

    ``.parquet`` holds all. ``.csv`` has no nested values: a struct becomes a column for each of its fields, named
    ``column.field``; lists and arrays are lost. ``.csv``, ``.ndjson`` and ``.jsonl`` have no bytes: a field of bytes
    inside a struct or list is lost, and the rest of it stays. Hashes are no such bytes: they are written as text.
    """
    fitted = Fitted({}, {}, [])
    for name, dtype in schema.items():
        if suffix == ".parquet" or is_hash(name, dtype):
            fitted.columns[name] = pl.col(name)
        elif suffix == ".csv":
            _spread(name, pl.col(name), dtype, fitted, schema)
        else:
            left = without_bytes(pl.col(name), dtype)
            fitted.lost.update(byte_parts({name: dtype}))
            if left is not None:
                fitted.columns[name] = left[0].alias(name)
    return fitted


def byte_parts(schema: Mapping[str, Dtype]) -> dict[str, Dtype]:
    """Return the columns, and the fields inside of columns, that hold bytes other than hashes, with their dtypes."""
    parts: dict[str, Dtype] = {}
    for name, dtype in schema.items():
        if not is_hash(name, dtype):
            parts.update(_byte_parts(name, dtype))
    return parts


def byte_columns(schema: Mapping[str, Dtype]) -> list[str]:
    """Return the columns that hold bytes other than hashes, also inside of structs and lists."""
    return [name for name, dtype in schema.items() if byte_parts({name: dtype})]


def float_leaves(schema: Mapping[str, Dtype]) -> dict[str, list[pl.Expr]]:
    """Return the numbers with a fraction in each column, also in nested ones, as expressions of any length."""
    found = {name: _float_leaves(pl.col(name), dtype) for name, dtype in schema.items()}
    return {name: leaves for name, leaves in found.items() if leaves}


def _spread(name: str, expr: pl.Expr, dtype: Dtype, fitted: Fitted, schema: Mapping[str, Any]) -> None:
    if isinstance(dtype, pl.Struct) and dtype.fields:
        if name in schema:
            fitted.spread.append(name)
        for field in dtype.fields:
            _spread(f"{name}.{field.name}", expr.struct.field(field.name), field.dtype, fitted, schema)
        return
    is_new = name in fitted.columns or (name in schema and schema[name] != dtype)
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object) or is_new:
        fitted.lost[name] = dtype
    else:
        fitted.columns[name] = (expr.dt.to_string("iso") if dtype == pl.Duration else expr).alias(name)


def _byte_parts(name: str, dtype: Dtype) -> Iterator[tuple[str, Dtype]]:
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _byte_parts(f"{name}.{field.name}", field.dtype)
    elif isinstance(dtype, pl.List | pl.Array):
        yield from _byte_parts(f"{name}[]", dtype.inner)
    elif dtype in (pl.Binary, pl.Object):
        yield name, dtype


def _float_leaves(expr: pl.Expr, dtype: Dtype) -> list[pl.Expr]:
    if isinstance(dtype, pl.Struct):
        return [leaf for part in dtype.fields for leaf in _float_leaves(expr.struct.field(part.name), part.dtype)]
    if isinstance(dtype, pl.List | pl.Array):
        return _float_leaves(expr.explode(), dtype.inner)
    return [expr] if dtype.is_float() else []
