"""New rows against stored ones: what a stored side is, and which stored row each of the new ones is nearest to."""

from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import Frame, Side, check_columns, needed_columns
from imgmatch_df.options import check_name
from imgmatch_df.progress import steps
from imgmatch_df.schema import ROW_DTYPE, HashKind
from imgmatch_df.store import Target, open_store, scan_hashes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Stored(NamedTuple):
    """The stored side of a comparison: a frame that has hashes, and the column that names its rows, if there is one."""

    frame: pl.LazyFrame
    id: str | None
    id_dtype: pl.DataType

    @classmethod
    def of(cls, stored: Frame | Target, kind: HashKind, id_column: str | None, decode: str | None) -> "Stored":
        """Return the stored side that a frame is, or that the name of a store stands for.

        Parameters
        ----------
        stored
            A frame, or the path of a store.
        kind
            What is compared.
        id_column
            The column that names its rows; None takes the key of a store.
        decode
            How the other side is decoded, where this call hashes it.

        Raises
        ------
        ArgumentError
            If it is neither.
        ColumnError
            If it has no hashes of the kind, or no column of the name.
        StoreError
            If the store cannot be read, or its hashes are made in another way.
        """
        if id_column is not None:
            check_name("stored_id", id_column)
        if isinstance(stored, str | PathLike):
            with open_store(stored) as store:
                store.manifest.check_comparable(kind, decode, repr(str(stored)))
                id_column = id_column or store.manifest.key
            stored = scan_hashes(stored)
        elif not isinstance(stored, pl.DataFrame | pl.LazyFrame):
            raise ArgumentError(
                f"what is stored must be a frame or the path of a store, got {type(stored).__name__}\n"
                "Hint: such as 'hashes.duckdb', or pl.scan_parquet(...)."
            )
        schema = check_columns(stored, kind, id_column)
        columns = needed_columns(kind, id_column)
        return cls(stored.lazy().select(columns), id_column, ROW_DTYPE if id_column is None else schema[id_column])


class Nearest(NamedTuple):
    """For the rows that match: their positions, the nearest stored row of each (the first of several), and how far."""

    rows: "NDArray[np.int64]"
    ids: pl.Series
    distance: "NDArray[np.uint16]"


def find_nearest(rows: pl.DataFrame, stored: Stored, radius: int, kind: HashKind, *, progress: bool) -> Nearest:
    """Return which rows are within `radius` bits of a stored row.

    Parameters
    ----------
    rows
        Has the hash column.
    stored
        What is known; read now, and only the columns that are needed.
    radius
        Largest Hamming distance, in bits. Inclusive.
    kind
        What to compare.
    progress
        Whether to show a bar on a terminal.
    """
    import numpy as np

    from imgmatch_df import join

    query, reference = Side(rows, kind, None), Side(stored.frame.collect(), kind, stored.id)
    with steps("matching", shown=progress) as step:
        found, distance = join.nearest(query.words, reference.words, radius, kind.n_bits, progress=step)
    matched = np.flatnonzero(found >= 0)
    return Nearest(query.rows[matched], reference.ids(found[matched].astype(np.uint32)), distance[matched])
