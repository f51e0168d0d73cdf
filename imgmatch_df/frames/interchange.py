"""Tables of other libraries in the place of Polars frames: pandas, PyArrow, DuckDB relations, Arrow streams."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

import polars as pl

from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import shown

_P = ParamSpec("_P")
_R = TypeVar("_R")


# Readers that were read: a second time they would have no rows.
_read_once: WeakSet[Any] = WeakSet()


def takes_tables(verb: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function of frames take every table that exports an Arrow stream, as any of its arguments."""

    @wraps(verb)
    def with_frames(*args: _P.args, **named: _P.kwargs) -> _R:
        frames: Any = [as_frame(value) for value in args]
        return verb(*frames, **{name: as_frame(value) for name, value in named.items()})  # type: ignore[arg-type]

    return with_frames


def as_frame(value: object) -> object:
    """Return a table of another library as a DataFrame, and every other value as it is.

    Parameters
    ----------
    value
        A pandas DataFrame, whose index is left out; a narwhals frame; or an object with ``__arrow_c_stream__``: a
        PyArrow table, batch or reader, a DuckDB relation.

    Raises
    ------
    ArgumentError
        If Polars cannot read the table.
    """
    if not _is_table(value):
        return value
    table: Any = value
    library = _library(value)
    try:
        if library == "narwhals":
            return as_frame(table.to_native())
        if library == "pandas":
            return pl.from_pandas(table)
        if library == "pyarrow" and not hasattr(table, "__arrow_c_stream__"):  # a RecordBatch
            return pl.from_arrow(table)
        _check_unread(table)
        return pl.DataFrame(table)
    except ArgumentError:
        raise
    except Exception as error:
        raise _unreadable(value, error) from error


def as_stream(value: object) -> object:
    """Return a table of another library as a query that reads it in batches, and every other value as it is.

    A reader, which can be read once, is read by the first query; a second one raises `ArgumentError`.
    """
    if not _is_table(value) or _library(value) in ("pandas", "narwhals") or not hasattr(value, "__arrow_c_stream__"):
        return as_frame(value)
    import pyarrow as pa
    from polars.io.plugins import register_io_source

    try:
        reader = value if isinstance(value, pa.RecordBatchReader) else pa.RecordBatchReader.from_stream(value)
        schema = pl.DataFrame(reader.schema.empty_table()).schema
    except Exception as error:
        raise _unreadable(value, error) from error
    readers = [reader]

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        _check_unread(value)
        for batch in readers.pop() if readers else pa.RecordBatchReader.from_stream(value):
            frame = pl.DataFrame(batch, schema=schema)
            if n_rows is not None:
                frame = frame.head(n_rows)
                n_rows -= frame.height
            selected = frame if predicate is None else frame.filter(predicate)
            yield selected if columns is None else selected.select(columns)
            if n_rows == 0:
                return

    return register_io_source(batches, schema=schema)


def _check_unread(value: object) -> None:
    if type(value).__name__ != "RecordBatchReader":
        return
    if value in _read_once:
        raise ArgumentError(f"{shown(value)} can be read only once\nHint: pass a table, such as reader.read_all().")
    _read_once.add(value)


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0].lstrip("_")


def _is_table(value: object) -> bool:
    library = _library(value)
    if library == "polars":
        return False
    if library == "pandas":
        return hasattr(value, "columns")
    if library == "narwhals":
        return hasattr(value, "to_native") and hasattr(value, "columns")
    return hasattr(value, "__arrow_c_stream__") or type(value).__name__ == "RecordBatch"


def _unreadable(value: object, error: Exception) -> ArgumentError:
    reason = " ".join(str(error).split())[:200]
    return ArgumentError(
        f"Polars cannot read {shown(value)}: {type(error).__name__}: {reason}\n"
        "Hint: give each column one type, in pandas with convert_dtypes(dtype_backend='pyarrow')."
    )
