"""What every frame verb does first: check the call, hash the source column, lay out the hashes for the kernels."""

from collections.abc import Callable, Container, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from imgmatch_df import hashing, pipeline
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.options import SourceOptions, make_options, whole_number
from imgmatch_df.schema import ROW_DTYPE, HashKind, hash_kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Frame = pl.DataFrame | pl.LazyFrame
FrameT = TypeVar("FrameT", pl.DataFrame, pl.LazyFrame)


class Side:
    """The rows of a frame that have a hash: their words for the kernels, and what names them."""

    def __init__(self, frame: pl.DataFrame, kind: HashKind, id_column: str | None) -> None:
        column = frame[kind.name].cast(kind.dtype)
        self.n_rows = len(column)
        self.words = hashing.hash_words(column.drop_nulls() if column.null_count() else column, kind)
        self._whole = len(self.words) == self.n_rows
        self._column = column
        self._ids = None if id_column is None else frame[id_column]

    @cached_property
    def rows(self) -> "NDArray[np.int64]":
        """The row numbers of the words."""
        import numpy as np

        return np.arange(self.n_rows) if self._whole else np.flatnonzero(self._column.is_not_null().to_numpy())

    def ids(self, hashed_rows: "NDArray[np.uint32]") -> pl.Series:
        """Return what names the rows, given as positions among those that have a hash."""
        rows = hashed_rows if self._whole else self.rows[hashed_rows]
        return pl.Series(rows, dtype=ROW_DTYPE) if self._ids is None else self._ids.gather(rows)


def hash_source(
    frame: FrameT, kind: HashKind, source: str | None, options: SourceOptions, *, for_query: bool = False
) -> FrameT:
    """Return `frame` with the hash column of `kind`: hashed from `source`, or as it is where that is None."""
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        raise ArgumentError(
            f"frame must be a Polars DataFrame or LazyFrame, got {type(frame).__name__}\n"
            "Hint: pl.from_arrow and pl.scan_parquet make one."
        )
    make_options(**options)
    if source is not None:
        return pipeline.visual_hash(frame, source, hash_types=kind.name, **options)
    idle = [name for name in options if name != "progress"]
    if idle and not for_query:
        raise ArgumentError(f"{', '.join(idle)} has no effect without source=\nHint: name the column of pictures.")
    return frame


def decode_of(source: str | None, options: SourceOptions) -> str | None:
    """Return the decode path of what a call hashes, None where it hashes nothing."""
    return None if source is None else make_options(**options).recipe


def check_radius(radius: object, hash_type: str) -> tuple[HashKind, int]:
    """Return the hash kind, and `radius` as an int that is allowed for it."""
    kind, n_bits = hash_kind(hash_type), whole_number(radius)
    if n_bits is None or not 0 <= n_bits <= kind.n_bits:
        raise ArgumentError(
            f"radius must be a whole number of bits from 0 to {kind.n_bits}, got {radius!r}\n"
            "Hint: 0 finds equal hashes; a few bits of phash or a few dozen of bmh1 find edited copies."
        )
    return kind, n_bits


def check_columns(frame: Frame, kind: HashKind, id_column: str | None) -> pl.Schema:
    """Return the schema of `frame`, which has the hash column and the id column that a verb needs."""
    schema = frame.collect_schema()
    if kind.name not in schema:
        raise ColumnError(
            f"no column {kind.name!r} in the frame, it has {shown_names(schema)}\n"
            f"Hint: source='column of pictures' hashes first, hash_type= names the other kind."
        )
    if schema[kind.name] not in (kind.dtype, pl.Null):
        hint = {
            pl.String: f"from_bits({kind.name!r}) turns strings of 0 and 1 into hashes.",
            pl.Int64: "reinterpret(signed=False) gives the same bits as UInt64.",
        }.get(schema[kind.name].base_type(), "visual_hash makes it.")
        raise ColumnError(
            f"column {kind.name!r} has dtype {schema[kind.name]}, a {kind.name} is {kind.dtype}\nHint: {hint}"
        )
    if id_column is not None and id_column not in schema:
        raise ColumnError(
            f"no column {id_column!r} in the frame, it has {shown_names(schema)}\nHint: id=None names rows by number."
        )
    if id_column is not None and schema[id_column] == pl.Object:
        raise ColumnError(
            f"column {id_column!r} has dtype Object, which Polars cannot gather\n"
            "Hint: an id is of any other dtype, such as text; None names rows by number."
        )
    return schema


def free_name(names: Container[str]) -> str:
    """Return a name for a column that is dropped again, which is none of `names`."""
    name = "__imgmatch"
    while name in names:
        name += "_"
    return name


def shown_names(schema: Mapping[str, Any]) -> str:
    """Return the column names for a message, the first twelve of them."""
    return ", ".join(map(repr, list(schema)[:12])) + (", …" if len(schema) > 12 else "") or "no columns"


def needed_columns(kind: HashKind, id_column: str | None) -> list[str]:
    """Return the columns that a comparison reads."""
    return list(dict.fromkeys([kind.name, *([] if id_column is None else [id_column])]))


def apply(
    frame: FrameT, columns: list[str], function: Callable[[pl.DataFrame], pl.DataFrame], schema: dict[str, Any]
) -> FrameT:
    """Return `function` of the named columns: at once for a `DataFrame`, when the query runs for a `LazyFrame`."""
    if isinstance(frame, pl.DataFrame):
        return function(frame[columns])  # a select would be a query: 0.2 ms, a tenth of a small join
    return frame.select(columns).map_batches(function, schema=schema)
