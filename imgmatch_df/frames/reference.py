"""New rows against stored ones: what a stored side is, and which stored row each of the new ones is nearest to."""

from os import PathLike
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import PATH, ROW_DTYPE, SOURCE
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.checks import Call, Frame, Side, check_columns, needed_columns
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.options import check_name
from imgmatch_df.progress import steps
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import open_store, scan_hashes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df.store.base import Target

# Columns that name an image, as this package makes and expects them.
_KEYS: Final = (SOURCE, PATH, "url")
_TEXT: Final = (pl.String, pl.Categorical, pl.Enum)


class Stored(NamedTuple):
    """The stored side of a comparison: a frame that has hashes, and the column that names its rows, if there is one.

    `same` are the columns by which a row of the other side is known to be a stored row itself: the key of the store,
    and the source where that is another one, each with the column of the other side that has the same.
    """

    frame: pl.LazyFrame
    id: str | None
    id_dtype: pl.DataType
    same: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls, stored: "Frame | Target | Stored", call: Call[pl.DataFrame] | Call[pl.LazyFrame], id_column: str | None
    ) -> "Stored":
        """Return the stored side that a frame is, or that the name of a store stands for.

        Parameters
        ----------
        stored
            A frame, or the path of a store.
        call
            The other side.
        id_column
            The column that names the stored rows; None takes the key of a store.

        Raises
        ------
        ArgumentError
            If it is neither.
        ColumnError
            If it has no hashes of the kind, or no column of the name.
        StoreError
            If the store cannot be read, or its hashes are made in another way.
        """
        if isinstance(stored, Stored):
            return stored
        if id_column is not None:
            check_name("stored_id", id_column)
        same: tuple[tuple[str, str], ...] = ()
        if isinstance(stored, str | PathLike):
            with open_store(stored) as store:
                store.manifest.check_comparable(call.kind, call.recipe, repr(str(stored)))
                id_column = id_column or store.manifest.key
                same = same_columns(call.schema, call.source, store.manifest)
            stored = scan_hashes(stored)
        elif not isinstance(stored, pl.DataFrame | pl.LazyFrame):
            raise ArgumentError(
                f"what is stored must be a frame or the path of a store, got {type(stored).__name__}\n"
                "Hint: such as 'hashes.duckdb', or pl.scan_parquet(...)."
            )
        schema = check_columns(stored, call.kind, id_column)
        columns = needed_columns(call.kind.name, id_column, (name for name, _ in same))
        id_dtype = ROW_DTYPE if id_column is None else schema[id_column]
        return cls(stored.lazy().select(columns), id_column, id_dtype, same)

    @property
    def own(self) -> list[str]:
        """The columns that the other side needs to know its own rows by."""
        return [name for _, name in self.same]

    def find_own(self, rows: pl.DataFrame, stored: pl.DataFrame) -> "NDArray[np.int64] | None":
        """Return for each row the position of the stored row that is the row itself, -1 where none is.

        None where nothing tells.
        """
        if not self.same:
            return None
        (key, own_key), *others = self.same
        dtypes = stored.schema
        sides = (
            pl.DataFrame([rows[own_key].cast(dtypes[key], strict=False).alias("key")]),
            pl.DataFrame([stored[key].alias("key")]).with_row_index("own"),
        )
        for name, own_name in others:
            sides = (
                sides[0].with_columns(rows[own_name].cast(dtypes[name], strict=False).alias("source")),
                sides[1].with_columns(stored[name].alias("stored source")),
            )
        # The keys of a store are unique. Those of the rows are hashed first: they are mostly the fewer.
        near = sides[1].join(sides[0].select("key").unique(), on="key", how="semi").unique("key", keep="first")
        found = sides[0].join(near, on="key", how="left", maintain_order="left")
        if others:
            is_same = pl.col("source").eq_missing(pl.col("stored source"))
            found = found.with_columns(pl.when(is_same).then("own"))
        return found["own"].cast(pl.Int64).fill_null(-1).to_numpy()


class Nearest(NamedTuple):
    """For the rows that match: their positions, the nearest stored row of each (the first of several), and how far."""

    rows: "NDArray[np.int64]"
    ids: pl.Series
    distance: "NDArray[np.uint16]"


def find_nearest(
    rows: pl.DataFrame, hash_name: str, stored: Stored, radius: int, kind: HashKind, *, progress: bool
) -> Nearest:
    """Return which rows are within `radius` bits of a stored row.

    A row that is stored itself is compared with those stored rows that are none of `rows`: whether it is a copy of
    another of `rows` is for these to settle among themselves.

    Parameters
    ----------
    rows
        Has the hash column, and those that `stored` knows the rows by.
    hash_name
        The column of hashes.
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

    from imgmatch_df.matching import join

    known = stored.frame.collect()
    query, reference = Side(rows[hash_name], kind), Side.of(known, kind, kind.name, stored.id)
    nearest = np.full(len(query.words), -1, np.int64)
    distance = np.zeros(len(query.words), np.uint16)
    every = np.arange(len(query.words)), np.arange(len(reference.words))
    parts = [every]
    own = stored.find_own(rows, known)
    if own is not None and (own >= 0).any():
        is_stored = own[query.rows] >= 0
        is_other = np.ones(reference.n_rows, np.bool_)
        is_other[own[own >= 0]] = False
        parts = [(every[0][~is_stored], every[1]), (every[0][is_stored], every[1][is_other[reference.rows]])]
    with steps("matching", shown=progress) as step:
        for queries, references in parts:
            whole = len(queries) == len(every[0]), len(references) == len(every[1])
            found, distance[queries] = join.nearest(
                query.words if whole[0] else query.words[queries],
                reference.words if whole[1] else reference.words[references],
                radius,
                kind.n_bits,
                progress=step,
            )
            nearest[queries[found >= 0]] = references[found[found >= 0]]
    matched = np.flatnonzero(nearest >= 0)
    return Nearest(query.rows[matched], reference.ids(nearest[matched].astype(np.uint32)), distance[matched])


def key_column(schema: pl.Schema, source: str | None, name: str) -> str | None:
    """Return the column of a frame that has the key of a store, None where there is none.

    Parameters
    ----------
    schema
        Of the frame.
    source
        The column of images that are hashed, if they are.
    name
        What the key is called in the store.
    """
    if name in schema and (name != SOURCE or source is None):
        return name
    if name != SOURCE:
        return None
    return source if source is not None else next((one for one in _KEYS if one in schema), None)


def same_columns(schema: pl.Schema, source: str | None, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Return the columns of a store that tell its rows apart, each with the column of a frame that has the same."""
    column = key_column(schema, source, manifest.key)
    if column is None:
        return ()
    if not (schema[column] in _TEXT if manifest.columns[manifest.key] == pl.String else schema[column].is_integer()):
        return ()
    text = SOURCE if source is None else source
    has_source = manifest.has_source and manifest.key != SOURCE and schema.get(text) in _TEXT
    return ((manifest.key, column), *([(SOURCE, text)] if has_source else []))
