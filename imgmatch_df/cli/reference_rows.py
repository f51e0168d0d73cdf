"""The rows of --reference, of which copies are removed too."""

from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.hash_lists import list_columns_of, open_hash_list
from imgmatch_df.cli.inputs import (
    collect,
    compared_kinds,
    fitting,
    hash_table,
    naming_column,
    needs_hashing,
    open_table,
    say_blocked,
)
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.columns import MODIFIED, REFERENCE_ID, ROW_DTYPE, SIZE
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import needed_columns, shown_names
from imgmatch_df.frames.flat import Flat, Guard, guard_columns
from imgmatch_df.frames.reference import Reference, same_columns
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.options import SourceOptions, make_options
from imgmatch_df.store.base import is_store
from imgmatch_df.store.open import manifest_of

if TYPE_CHECKING:
    from imgmatch_df.documented.values import Method


class ReferenceRows(NamedTuple):
    """The rows of --reference.

    Parameters
    ----------
    side
        The rows with their hashes.
    files
        Their sources, ``reference_id``, and where they are known ``size`` and ``modified``; None without sources.
    is_whole
        Whether all folders could be listed.
    table
        The table of the rows; None for a list of hashes that another program wrote.
    """

    side: Reference
    files: pl.DataFrame | None
    is_whole: bool
    table: SourceTable | None = None


def renamed_option(name: str, value: str | None, old_name: str, old_value: str | None) -> str | None:
    """Return the value of an option, which may have its old name in the call; then warn on stderr."""
    if old_value is None:
        return value
    if value is not None:
        raise ArgumentError(f"got {name} and {old_name}, which is its old name\nHint: pass {name} only.")
    say(f"{old_name} is deprecated and will be removed in the next release: use {name}")
    return old_value


def open_reference(
    reference: str,
    id_column: str | None,
    column: str | None,
    kind: HashKind,
    flat: Flat,
    others: SourceTable,
    options: SourceOptions,
    *,
    may_be_list: bool = True,
) -> ReferenceRows:
    """Return the rows of --reference, with hashes made where they are missing; those of `column`, if it is there.

    With `may_be_list`, a file without the columns of this package may be a list of hashes, see `open_hash_list`.
    """
    if may_be_list and not {kind.name, column} & set(list_columns_of(reference)):
        listed = open_hash_list(reference, kind, column=None, id_column=id_column, on_error=options["on_error"])
        if listed is not None:
            guard = Guard.of(listed.rows.schema) if flat == "identical" and kind.is_perceptual else None
            dtype = ROW_DTYPE if listed.id is None else listed.rows.schema[listed.id]
            return ReferenceRows(
                Reference(listed.rows.lazy(), listed.id, dtype, kind.name, (), guard), None, is_whole=True
            )
    purpose: Method = "remove_duplicates"
    try:
        named = others.given_sources.alike([reference])
        of = " of --reference"
        table = open_table(named, None, None, purpose, kind.name, column=column, needs_column=False, of=of)
        # Relative paths of a table of stored hashes start from the working directory.
        base_dir = None if table.request is None else options["base_dir"]
        options = {**options, "base_dir": base_dir}
        say_blocked(table, options)
        kinds = compared_kinds(table, kind)
        if needs_hashing(table, kinds):
            table = replace(table, store=others.store)
        hashed = hash_table(table, kinds, options)
    except ColumnError as error:
        what = str(error).split("\nHint: ", 1)[0]
        raise ColumnError(
            f"--reference {reference!r}: {what}\nHint: imgmatch visual-hash {quote(reference)} --source COLUMN "
            "-o reference.duckdb hashes the column of images, for --reference reference.duckdb."
        ) from error
    if table.manifest is not None:
        recipe = make_options(**options).recipe
        table.manifest.check_comparable(kind, others.recipe(kind, recipe), repr(reference))
    hashed = fitting(hashed, table, None, shown=False)
    schema = hashed.collect_schema()
    # The size and time of a file show whether a relative path leads to it.
    source = table.source if table.source in schema else None
    about = [] if source is None else [name for name in (source, SIZE, MODIFIED) if name in schema]
    ours = others.frame.collect_schema()
    manifest = table.manifest or (manifest_of(reference) if is_store(reference) else None)
    same = () if manifest is None else same_columns(ours, others.label, manifest, others.source)
    if id_column is not None and id_column not in schema:
        raise ColumnError(
            f"no column {id_column!r} in --reference {reference!r}, it has {shown_names(schema)}\n"
            "Hint: --reference-id names one of these."
        )
    guard = Guard.of(schema) if flat == "identical" and kind.is_perceptual else None
    others_needed = [*about, *(name for name, _ in same), *guard_columns(guard)]
    columns = needed_columns(kind.name, id_column or table.id_column, others_needed)
    rows = collect(hashed.select(columns), table, kind, shown=options["progress"])
    n_failed = rows[kind.name].null_count()
    if n_failed:
        say(f"{n_failed:,} of {rows.height:,} reference rows have no hash, and match nothing")
    id_column = id_column or naming_column(rows, table)
    id_dtype = ROW_DTYPE if id_column is None else schema[id_column]
    side = Reference(rows.lazy(), id_column, id_dtype, kind.name, same, guard)
    ids = pl.int_range(pl.len(), dtype=ROW_DTYPE) if id_column is None else pl.col(id_column)
    files = rows.select(*about, ids.alias(REFERENCE_ID)) if about else None
    return ReferenceRows(side, files, not table.unlisted, table)
