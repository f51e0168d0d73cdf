"""The reference side of `imgmatch match`: a list of hashes, a table, a folder or a store."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl

from imgmatch_df.cli.formats import byte_columns
from imgmatch_df.cli.hash_lists import count_flat, list_columns_of, open_hash_list
from imgmatch_df.cli.reference_rows import open_reference
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.columns import MODIFIED, PATH, ROW_DTYPE, SIZE
from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.flat import Flat, Guard
from imgmatch_df.frames.layout import is_hash
from imgmatch_df.frames.reference import Reference
from imgmatch_df.hashes.kinds import KINDS, HashKind
from imgmatch_df.naming import ROW
from imgmatch_df.options import SourceOptions
from imgmatch_df.store.base import is_store
from imgmatch_df.store.open import manifest_of


class MatchRows(NamedTuple):
    """The reference rows of a command.

    Parameters
    ----------
    side
        The rows, named by their numbers.
    names
        What names them; None where their numbers do.
    take
        Returns further columns of some rows, given by their numbers.
    n_failed
        Number of rows without a hash.
    n_flat
        Number of rows with little to see, which match identical files only.
    is_whole
        Whether all folders could be listed.
    """

    side: Reference
    names: pl.Series | None
    take: Callable[[pl.Series], pl.DataFrame]
    n_failed: int
    n_flat: int
    is_whole: bool


def open_match_rows(
    reference: str,
    id_column: str | None,
    column: str | None,
    kind: HashKind,
    flat: Flat,
    others: SourceTable,
    options: SourceOptions,
) -> MatchRows:
    """Return the reference rows; `id_column` and `column` name columns of them, None finds these.

    Raises
    ------
    ArgumentError, ColumnError, StoreError
        As `open_hash_list` and `open_reference`.
    """
    listed = open_hash_list(
        reference, kind, column=column, id_column=id_column, on_error=options.get("on_error", "null")
    )
    if listed is not None:
        guard = Guard.of(listed.rows.schema) if flat == "identical" and kind.is_perceptual else None
        side = Reference(listed.rows.lazy(), None, ROW_DTYPE, kind.name, (), guard)
        names = None if listed.id is None else listed.rows[listed.id]
        n_flat = 0 if guard is None else count_flat(listed.rows)
        return MatchRows(side, names, listed.take, listed.n_failed, n_flat, is_whole=True)
    if column is not None:
        raise ColumnError(
            f"{reference!r} is not a table, and --reference-column names a column of one\n"
            "Hint: leave --reference-column out."
        )
    try:
        found = open_reference(reference, id_column, None, kind, flat, others, options, may_be_list=False)
    except ColumnError as error:
        what = str(error).replace("--reference ", "").split("\nHint: ", 1)[0]
        raise ColumnError(
            f"{what}\nHint: --reference-column names the column of {reference!r} that has the {kind.name}; --hash-type "
            "names another kind of hash."
        ) from error
    rows = found.side.frame.collect()
    n_flat = 0 if found.side.guard is None else count_flat(rows)
    names = None if found.side.id is None else rows[found.side.id]
    side = found.side._replace(id=None, id_dtype=ROW_DTYPE, frame=rows.lazy())
    n_failed = rows[found.side.hash].null_count()
    return MatchRows(side, names, _further(found.table), n_failed, n_flat, found.is_whole)


def find_kind(reference: str, stored: Sequence[str]) -> str | None:
    """Return the kind of hash to compare by, where the call names none: one of the reference rows; None without one.

    Parameters
    ----------
    reference
        Path of the reference rows.
    stored
        Kinds that the query rows have, which are preferred.
    """
    if is_store(reference):
        manifest = manifest_of(reference)
        found = () if manifest is None else manifest.hash_types
    else:
        found = tuple(list_columns_of(reference))
    kinds = [name for name, kind in KINDS.items() if kind.is_perceptual and name in found]
    return next((name for name in (*stored, *kinds) if name in kinds), None)


def _further(table: SourceTable | None) -> Callable[[pl.Series], pl.DataFrame]:
    """Return the function that returns the columns of some rows: none of a store or a folder, which has no own ones."""
    if table is None:
        return lambda _: pl.DataFrame()
    frame = table.frame
    schema = frame.collect_schema()
    columns = [name for name in table.columns if not is_hash(name, schema[name])]
    is_listing = table.manifest is not None or set(table.columns) == {PATH, SIZE, MODIFIED}
    lost = byte_columns({name: schema[name] for name in columns})
    columns = [] if is_listing or table.request is not None else [name for name in columns if name not in lost]

    def take(numbers: pl.Series) -> pl.DataFrame:
        if not columns:
            return pl.DataFrame()
        wanted = numbers.unique().sort()
        rows = frame.select(columns).with_row_index(ROW).filter(pl.col(ROW).is_in(wanted.implode()))
        return rows.collect(engine="streaming").sort(ROW).drop(ROW)[wanted.search_sorted(numbers)]

    return take
