"""The reference side of a comparison, and the nearest reference row of each row."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import PATH, ROW_DTYPE, SOURCE
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import Frame, JoinSide, VerbCall, check_hash_columns, needed_columns, shown_names
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.flat import Guard, RowPairs, guard_columns, with_identical
from imgmatch_df.options import check_name
from imgmatch_df.progress import steps
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import open_store, scan_hashes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df.store.base import Target

# Columns that name an image in the frames of this package.
_KEYS: Final = (SOURCE, PATH, "url")
_TEXT: Final = (pl.String, pl.Categorical, pl.Enum)


class Reference(NamedTuple):
    """The reference rows of a comparison: a frame with hashes, and how its rows are named.

    Parameters
    ----------
    frame
        Has the columns below.
    id
        Column whose values name the rows; None names them by row number.
    id_dtype
        Of the names.
    hash
        Column of hashes.
    same
        Column pairs (of the reference, of the other side) that identify a row: where all of them are equal, the
        reference row is the other row itself. First the key of the store, then its source, if that is another column.
    guard
        Columns that show which images are flat, None where these are compared as others.
    """

    frame: pl.LazyFrame
    id: str | None
    id_dtype: pl.DataType
    hash: str
    same: tuple[tuple[str, str], ...] = ()
    guard: Guard | None = None

    @classmethod
    def of(
        cls,
        reference: "Frame | Target | Reference",
        call: VerbCall[pl.DataFrame] | VerbCall[pl.LazyFrame],
        id_column: str | None,
        hash_column: str | None = None,
        expressions: Sequence[pl.Expr] = (),
        others: Sequence[str] = (),
    ) -> "Reference":
        """Return the checked reference side for a frame or the path of a store.

        Parameters
        ----------
        reference
            A frame, or the path of a store.
        call
            The other side.
        id_column
            The column that names the reference rows; None takes the key of a store.
        hash_column
            The column of hashes; None takes that with the name of the other side's, else that of the kind.
        expressions
            Further columns that the frame needs.
        others
            Names of columns of the reference that are kept.

        Raises
        ------
        ArgumentError
            If `reference` is neither, or a store, and there is a `hash_column`.
        ColumnError
            If it has no hashes of the kind, or no column of the name.
        StoreError
            If the store cannot be read, or its hashes were made with other options.
        """
        if isinstance(reference, Reference):
            return reference
        if id_column is not None:
            check_name("reference_id", id_column)
        if hash_column is not None:
            check_name("reference_column", hash_column)
        same: tuple[tuple[str, str], ...] = ()
        if isinstance(reference, str | PathLike):
            if hash_column is not None:
                raise ArgumentError(
                    "reference_column is for frames, and reference is a store, which names its hashes by their kinds\n"
                    "Hint: leave reference_column out."
                )
            with open_store(reference) as store:
                store.manifest.check_comparable(call.kind, call.recipe, repr(str(reference)))
                id_column = id_column or store.manifest.key
                same = same_columns(
                    call.named_schema, call.source_label, store.manifest, call.source and call.source.name
                )
            reference = scan_hashes(reference)
        elif not isinstance(reference, pl.DataFrame | pl.LazyFrame):
            raise ArgumentError(
                f"reference must be a frame or the path of a store, got {type(reference).__name__}\n"
                "Hint: such as 'hashes.duckdb', or pl.scan_parquet(...)."
            )
        elif hash_column is None and call.source is None and call.hash in reference.collect_schema():
            hash_column = call.hash
        hash_column = call.kind.name if hash_column is None else hash_column
        schema = check_hash_columns(reference, call.kind, hash_column, id_column)
        guard = None if call.guard is None else Guard.of(schema)
        check_columns(others, schema)
        columns = needed_columns(hash_column, id_column, [*(name for name, _ in same), *guard_columns(guard), *others])
        id_dtype = ROW_DTYPE if id_column is None else schema[id_column]
        rows = reference.lazy().select(*columns, *expressions)
        if expressions:
            try:
                rows.collect_schema()
            except pl.exceptions.PolarsError as error:
                raise ColumnError(
                    f"across and within are read from both sides, and not from a reference that has "
                    f"{shown_names(schema)}: {str(error).splitlines()[0]}\nHint: add the columns to the reference."
                ) from error
        return cls(rows, id_column, id_dtype, hash_column, same, guard)

    @property
    def own(self) -> list[str]:
        """The columns of the other side that identify its rows in the reference."""
        return [name for _, name in self.same]

    def find_own(self, rows: pl.DataFrame, references: pl.DataFrame) -> "NDArray[np.int64] | None":
        """Return the position in `references` of each row itself, -1 if it is not there: (n_rows,) int64.

        None if no columns identify the rows.
        """
        if not self.same:
            return None
        (key, own_key), *others = self.same
        dtypes = references.schema
        sides = (
            pl.DataFrame([rows[own_key].cast(dtypes[key], strict=False).alias("key")]),
            pl.DataFrame([references[key].alias("key")]).with_row_index("own"),
        )
        for name, own_name in others:
            sides = (
                sides[0].with_columns(rows[own_name].cast(dtypes[name], strict=False).alias("source")),
                sides[1].with_columns(references[name].alias("reference source")),
            )
        # The keys of a store are unique. The keys of the rows go into the hash table first: they are usually fewer.
        near = sides[1].join(sides[0].select("key").unique(), on="key", how="semi").unique("key", keep="first")
        found = sides[0].join(near, on="key", how="left", maintain_order="left")
        if others:
            is_same = pl.col("source").eq_missing(pl.col("reference source"))
            found = found.with_columns(pl.when(is_same).then("own"))
        return found["own"].cast(pl.Int64).fill_null(-1).to_numpy()


def check_columns(names: Sequence[str], schema: Mapping[str, Any]) -> None:
    """Refuse columns of the reference that are absent, or that Polars cannot gather."""
    for name in names:
        check_name("columns", name)
        if name not in schema:
            raise ColumnError(
                f"no column {name!r} in the reference, it has {shown_names(schema)}\n"
                "Hint: columns= names columns of the reference."
            )
        if schema[name] == pl.Object:
            raise ColumnError(
                f"column {name!r} of the reference has dtype Object, which Polars cannot gather\n"
                "Hint: cast it, or leave it out of columns=."
            )


class Nearest(NamedTuple):
    """The nearest reference row of each row that matches one.

    Parameters
    ----------
    rows
        Positions of the rows that match, int64.
    ids
        Names of their nearest reference rows, the first of several.
    measure
        What is measured to these, distances in bits or votes, uint16.
    """

    rows: "NDArray[np.int64]"
    ids: pl.Series
    measure: "NDArray[np.uint16]"


def find_nearest(
    rows: pl.DataFrame,
    hash_name: str,
    reference: Reference,
    comparison: Comparison,
    *,
    guard: Guard | None,
    progress: bool,
) -> Nearest:
    """Return which rows are near-duplicates of a reference row.

    A row that is in the reference itself is compared only with those reference rows that are not in `rows`: copies
    among `rows` are found by comparing `rows` with each other.

    Parameters
    ----------
    rows
        Has the hash column, and the columns that identify a row in `reference`.
    hash_name
        The column of hashes.
    reference
        The reference side. It is read now.
    comparison
        How rows are compared.
    guard
        Columns that show which of `rows` are of flat images.
    progress
        Whether to show a progress bar on a terminal.
    """
    import numpy as np

    kind = comparison.kind
    reference_rows = reference.frame.collect()
    query = JoinSide(rows, kind, hash_name, guard=guard)
    other = JoinSide(reference_rows, kind, reference.hash, reference.id, reference.guard)
    nearest = np.full(len(query.words), -1, np.int64)
    measure = np.zeros(len(query.words), np.uint16)
    every = np.arange(len(query.words)), np.arange(len(other.words))
    parts = [every]
    own = reference.find_own(rows, reference_rows)
    has_own = np.zeros(query.n_rows, np.bool_) if own is None else own >= 0
    is_other = np.ones(other.n_rows, np.bool_)
    if own is not None and has_own.any():
        is_other[own[has_own]] = False
        is_own = has_own[query.rows]
        parts = [(every[0][~is_own], every[1]), (every[0][is_own], every[1][is_other[other.rows]])]
    with steps("matching", shown=progress) as step:
        for queries, references in parts:
            whole = len(queries) == len(every[0]), len(references) == len(every[1])
            sides = (
                query.words if whole[0] else query.words[queries],
                other.words if whole[1] else other.words[references],
            )
            found, measure[queries] = comparison.nearest(*sides, step)
            nearest[queries[found >= 0]] = references[found[found >= 0]]
    matched = np.flatnonzero(nearest >= 0)
    pairs = RowPairs(query.rows[matched], other.rows[nearest[matched]], measure[matched])
    if query.flat.rows.size:
        identical = [
            query.flat.among(~has_own).first_of(other.flat),
            query.flat.among(has_own).first_of(other.flat.among(is_other)),
        ]
        for found_pairs in identical:
            pairs = with_identical(pairs, found_pairs)
    return Nearest(pairs.left, other.ids(pairs.right), pairs.distance)


def key_column(schema: pl.Schema, source: str | None, name: str, images: str | None = None) -> str | None:
    """Return the column of a frame that holds the key of a store, None if there is no such column.

    Parameters
    ----------
    schema
        Schema of the frame.
    source
        The column of images to hash, if there is one.
    name
        Name of the key in the store.
    images
        Name of the column of images, where `source` has only the text of them.
    """
    if source is not None and name == images and not _can_be_key(schema.get(name)):
        return source
    if name in schema and (name != SOURCE or source is None):
        return name
    if name != SOURCE:
        return None
    return source if source is not None else next((one for one in _KEYS if one in schema), None)


def same_columns(
    schema: pl.Schema, source: str | None, manifest: Manifest, images: str | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the columns that identify a row of a store, each with the column of a frame that holds the same value."""
    column = key_column(schema, source, manifest.key, images)
    if column is None:
        return ()
    if not (schema[column] in _TEXT if manifest.columns[manifest.key] == pl.String else schema[column].is_integer()):
        return ()
    text = SOURCE if source is None else source
    has_source = manifest.has_source and manifest.key != SOURCE and schema.get(text) in _TEXT
    return ((manifest.key, column), *([(SOURCE, text)] if has_source else []))


def _can_be_key(dtype: pl.DataType | None) -> bool:
    return dtype is not None and (dtype in _TEXT or dtype.is_integer())
