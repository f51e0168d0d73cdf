"""Output formats of the command line: which values each format can hold, and how it holds the rest."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias

import polars as pl
from polars.datatypes import DataTypeClass

from imgmatch_df.frames.layout import is_hash, without_bytes

Dtype = pl.DataType | DataTypeClass
# Writes a frame to a file. The last argument says whether its rows hold images, so that few of them fit into memory.
TableWriter: TypeAlias = Callable[[pl.LazyFrame, Path | IO[bytes], bool], object]


@dataclass(frozen=True, slots=True)
class Format:
    """An output format.

    Parameters
    ----------
    suffix
        Suffix of its files, in lower case, with the dot.
    write
        Writes a frame that has only columns which the format holds; None for the documented JSON, which is not a table.
    nests
        Whether it holds structs and lists. Otherwise a struct becomes one column per field, and lists are left out.
    holds_bytes
        Whether it holds bytes. Otherwise hashes are written as text of 0 and 1, and other bytes are left out.
    holds_nan
        Whether it holds NaN and infinity. Otherwise `write` writes null.
    """

    suffix: str
    write: TableWriter | None
    nests: bool = True
    holds_bytes: bool = False
    holds_nan: bool = True

    @property
    def is_table(self) -> bool:
        """Whether it holds the columns of any table."""
        return self.write is not None


# The output formats by suffix; `outputs` registers those of this package.
OUTPUT_FORMATS: Final[dict[str, Format]] = {}


def register_format(output: Format) -> None:
    """Let all commands write `output`, for every file that has its suffix."""
    OUTPUT_FORMATS[output.suffix] = output


class Fitted(NamedTuple):
    """The columns of a table in an output format.

    Parameters
    ----------
    columns
        Expressions of the columns of the output, by name.
    lost
        Columns, or fields of columns, that the format cannot hold, with their dtypes.
    spread
        Columns that become one column per field.
    """

    columns: dict[str, pl.Expr]
    lost: dict[str, Dtype]
    spread: list[str]


def fit_columns(schema: Mapping[str, Dtype], output: Format) -> Fitted:
    """Return the columns of a table as an output format holds them.

    Without nested values, a struct becomes one column per field, named ``column.field``, and lists and arrays are lost.
    Without bytes, a field of bytes inside a struct or list is lost, and the rest of the value stays. Hashes are kept in
    every format.
    """
    fitted = Fitted({}, {}, [])
    for name, dtype in schema.items():
        if output.holds_bytes or is_hash(name, dtype):
            fitted.columns[name] = pl.col(name)
        elif not output.nests:
            _spread(name, pl.col(name), dtype, fitted, schema)
        else:
            left = without_bytes(pl.col(name), dtype)
            fitted.lost.update(byte_parts({name: dtype}))
            if left is not None:
                fitted.columns[name] = left[0].alias(name)
    return fitted


def byte_parts(schema: Mapping[str, Dtype]) -> dict[str, Dtype]:
    """Return the columns and nested fields of bytes other than hashes, with their dtypes."""
    parts: dict[str, Dtype] = {}
    for name, dtype in schema.items():
        if not is_hash(name, dtype):
            parts.update(_byte_parts(name, dtype))
    return parts


def byte_columns(schema: Mapping[str, Dtype]) -> list[str]:
    """Return the columns with bytes other than hashes, also in structs and lists."""
    return [name for name, dtype in schema.items() if byte_parts({name: dtype})]


def float_leaves(schema: Mapping[str, Dtype]) -> dict[str, list[pl.Expr]]:
    """Return expressions of any length for the floats in each column, also in nested ones."""
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
