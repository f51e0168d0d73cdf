"""What the commands do with their inputs: open them, hash what has no hashes, read what is stored and what is asked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from shlex import quote
from typing import Final, NamedTuple

import polars as pl
import typer

from imgmatch_df import files, pipeline, records, targets
from imgmatch_df.documented import Method
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.files import SourceTable
from imgmatch_df.options import SourceOptions, make_recipe
from imgmatch_df.progress import METER
from imgmatch_df.schema import DETAIL, HASH_KINDS, MODIFIED, OK, SIZE, STATUS, HashKind
from imgmatch_df.sources import path_as_text
from imgmatch_df.targets import interruptible

_FOLDERS_SHOWN: Final = 10


class StoredRows(NamedTuple):
    """The rows of --against.

    Parameters
    ----------
    frame
        Hashed.
    id
        The column that names them, None where their numbers do.
    files
        Their sources, and where they are known ``size`` and ``modified``; None where there are no sources.
    is_whole
        Whether all folders could be listed.
    """

    frame: pl.DataFrame
    id: str | None
    files: pl.DataFrame | None
    is_whole: bool


def open_table(
    sources: list[str], source: str | None, base_dir: str | None, method: Method, hash_type: str | None = None
) -> SourceTable:
    """Return the sources that the arguments of a command name, see `files.open_sources`; and say what is missing."""
    table = interruptible(
        lambda: files.open_sources(sources, source, base_dir=base_dir, method=method, hash_type=hash_type)
    )
    for folder in table.unlisted[:_FOLDERS_SHOWN]:
        typer.echo(f"cannot list {folder}, its pictures are left out", err=True)
    if len(table.unlisted) > _FOLDERS_SHOWN:
        typer.echo(f"cannot list {len(table.unlisted) - _FOLDERS_SHOWN:,} more folders", err=True)
    return table


def open_ranking(query: str, source: str | None, base_dir: str | None) -> SourceTable:
    """Return the sources of a request to rank, which QUERY is where there is no SOURCE."""
    if not query.lower().endswith(".json"):
        raise ArgumentError(
            "there is nothing to rank: SOURCE is missing\n"
            "Hint: imgmatch rank-images QUERY SOURCE; only a documented request .json holds both."
        )
    return open_table([query], source, base_dir, "rank_images")


def check_documented(table: SourceTable) -> None:
    """Refuse what the documented JSON cannot name, before hours of hashing.

    Raises
    ------
    ColumnError
        If the table has no column of sources, or one that is neither text nor pictures.
    """
    schema = table.frame.collect_schema()
    source = records.RECORD if records.RECORD in schema else table.source
    if source is None or schema[source] not in (pl.String, pl.Binary):
        found = "the table has none" if source is None else f"column {source!r} has dtype {schema[source]}"
        raise ColumnError(
            f"the documented .json needs a column of paths, addresses or pictures, and {found}\n"
            "Hint: --source names one, or -o writes a .parquet."
        )


def open_stored(against: str, kind: HashKind, others: SourceTable, options: SourceOptions) -> StoredRows:
    """Return the rows of --against, hashed where they are not."""
    try:
        table = open_table([against], None, None, "remove_duplicates", kind.name)
        hashed = hash_table(table, (kind.name,), {**options, "base_dir": None})
    except ColumnError as error:
        what = str(error).split("\nHint: ", 1)[0]
        raise ColumnError(
            f"--against {against!r}: {what}\nHint: imgmatch visual-hash {quote(against)} --source COLUMN "
            "-o known.duckdb hashes the column of images, for --against known.duckdb."
        ) from error
    if table.manifest is not None:
        table.manifest.check_comparable(
            kind, others.decode(kind, make_recipe(options["decode"], options["alpha"])), repr(against)
        )
    hashed = fitting(hashed, table, "")
    schema = hashed.collect_schema()
    # The size and time of a file tell whether a relative path still leads to it.
    about = [name for name in (table.source, SIZE, MODIFIED) if name in schema] if table.source in schema else []
    columns = list(dict.fromkeys([kind.name, *about, *([] if table.id_column is None else [table.id_column])]))
    rows = collect(hashed.select(columns), table, kind, shown=options["progress"])
    n_failed = rows[kind.name].null_count()
    if n_failed:
        typer.echo(f"{n_failed:,} of {rows.height:,} stored rows have no hash, and match nothing", err=True)
    return StoredRows(rows, table.id_column, rows.select(about) if about else None, not table.unlisted)


def hash_table(table: SourceTable, kinds: tuple[str, ...], options: SourceOptions) -> pl.LazyFrame:
    """Return the rows with their hashes, not yet computed; those that a table holds already are taken."""
    if table.stored and set(kinds) <= set(table.stored):
        return table.frame
    if table.source is None:
        raise ColumnError(
            f"the table has {' and '.join(table.stored)}, but no {kinds[0]}, and no column that is surely of images\n"
            f"Hint: --hash-type {table.stored[0]} takes the hashes that it has, --source names a column of images."
        )
    return pipeline.visual_hash(table.frame, table.source, hash_types=kinds, **options)


def hash_query(query: str, table: SourceTable, kind: HashKind, options: SourceOptions) -> pl.DataFrame:
    """Return the query as one hashed row."""
    name, options = "query_record", {**options, "on_error": "null", "progress": False}
    if table.request is not None and table.request.query is not None:
        asked = table.request.query
    elif kind_of_text(query) == kind.name:
        text = {records.RECORD: json.dumps({kind.name: query}), kind.name: query}
        return pl.DataFrame(text).with_columns(pipeline.from_bits(kind.name, kind.name))
    else:
        name, options["base_dir"] = "the query", None
        asked = pl.DataFrame({records.SOURCE: path_as_text(query), records.RECORD: json.dumps({"_url": query})})
    hashed = pipeline.visual_hash(asked, records.SOURCE, hash_types=kind.name, **options)
    status, detail = hashed.select(STATUS, DETAIL).row(0)
    if status != OK:
        raise ArgumentError(
            f"{name} cannot be hashed: {status}: {detail}\nHint: a picture, or a {kind.name} as a string of "
            f"{kind.n_chars} 0 and 1, is needed to rank by."
        )
    return hashed


def kind_of_text(query: str) -> str | None:
    """Return the hash kind that `query` is a documented string of, if it is one."""
    if query.strip("01"):
        return None
    return next((name for name, kind in HASH_KINDS.items() if len(query) == kind.n_chars), None)


def fitting(frame: pl.LazyFrame, table: SourceTable, suffix: str) -> pl.LazyFrame:
    """Return the columns that the output can hold, and name the others."""
    # The documented JSON is made of the column of sources itself, wherever that came from.
    kept = frame if suffix == ".json" else frame.drop(table.made)
    left_out = targets.columns_left_out(kept, suffix)
    if left_out and suffix:
        typer.echo(f"left out, because {suffix} cannot hold it: {', '.join(left_out)}", err=True)
    return kept.drop(left_out)


def collect(hashed: pl.LazyFrame, table: SourceTable, kind: HashKind, *, shown: bool) -> pl.DataFrame:
    """Return the rows, hashed in small batches where they are not."""
    with hashing(table, shown=shown and kind.name not in table.stored):
        return run(hashed)


def run(frame: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows of a query that Ctrl-C can end."""
    return interruptible(lambda: frame.collect(engine="streaming"))


@contextmanager
def hashing(table: SourceTable, *, shown: bool) -> Iterator[None]:
    """Hash in small batches, under a bar that knows how many rows there are."""
    bar = METER.run(run(table.frame.select(pl.len())).item()) if shown else nullcontext()
    with bar, pl.Config(streaming_chunk_size=table.batch_rows):
        yield
