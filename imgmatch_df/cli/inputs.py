"""What the commands do with their inputs: open them, hash what has no hashes, read what is stored and what is asked."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.cli import tables
from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.formats import byte_columns, byte_parts, fit_columns, float_leaves
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.renaming import Naming, own_name
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.columns import (
    DETAIL,
    ETAG,
    HASH_KINDS,
    HEIGHT,
    MODIFIED,
    OK,
    PATH,
    REMOVED_RECORDS,
    ROW_DTYPE,
    SIZE,
    STATUS,
    WIDTH,
    HashKind,
)
from imgmatch_df.documented import records
from imgmatch_df.documented.values import Method
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames import expressions
from imgmatch_df.frames.checks import needed_columns, shown_names
from imgmatch_df.frames.given_hashes import form_of, forms_text, parse_text, read_given
from imgmatch_df.frames.reference import Reference, same_columns
from imgmatch_df.images.folders import left_out_text
from imgmatch_df.options import SourceOptions, make_recipe
from imgmatch_df.progress import METER
from imgmatch_df.sources import is_path, path_as_text
from imgmatch_df.store.open import DUCKDB_SUFFIX, is_store, manifest_of

_FOLDERS_SHOWN: Final = 10


class ReferenceRows(NamedTuple):
    """The rows of --reference.

    Parameters
    ----------
    side
        The rows with their hashes.
    files
        Their sources, with ``size`` and ``modified`` if the table has them; None if there are no sources.
    is_whole
        Whether all folders could be listed.
    """

    side: Reference
    tables: pl.DataFrame | None
    is_whole: bool


def open_table(
    sources: list[str],
    source: str | None,
    base_dir: str | None,
    method: Method,
    hash_type: str | None = None,
    *,
    of: str = "",
) -> SourceTable:
    """Return the sources that the arguments of a command name, see `tables.open_sources`; and say what is missing."""
    table = interruptible(
        lambda: tables.open_sources(sources, source, base_dir=base_dir, method=method, hash_type=hash_type)
    )
    for folder in table.unlisted[:_FOLDERS_SHOWN]:
        say(f"cannot list {folder}, its pictures are left out")
    if len(table.unlisted) > _FOLDERS_SHOWN:
        say(f"cannot list {len(table.unlisted) - _FOLDERS_SHOWN:,} more folders")
    if text := left_out_text(table.left_out):
        say(f"left out{of}: {text}")
    return table


def open_ranking(query: str, source: str | None, base_dir: str | None) -> SourceTable:
    """Return the sources of a request to rank, which QUERY is where there is no SOURCE."""
    if not query.lower().endswith(".json"):
        raise ArgumentError(
            "there is nothing to rank: SOURCE is missing\n"
            "Hint: imgmatch rank-images QUERY SOURCE; only a documented request .json holds both."
        )
    return open_table([query], source, base_dir, "rank_images")


def open_hashed(path: Path) -> SourceTable:
    """Return a table that has hashes, for the documented JSON.

    Raises
    ------
    ColumnError
        If it has none, or nothing that names its images.
    """
    table = open_table([str(path)], None, None, "remove_duplicates")
    read, unread = {}, []
    for name in table.stored:
        try:
            found = read_given(table.frame, HASH_KINDS[name])
        except ColumnError:  # a column of the user's
            unread.append(name)
        else:
            read[name] = pl.col(name) if found is None else found.expr
    table = replace(table, frame=table.frame.with_columns(**read))
    kinds = tuple(read)
    if not kinds:
        raise ColumnError(
            f"{str(path)!r} has no column {' or '.join(HASH_KINDS)}\n"
            f"Hint: imgmatch visual-hash {quote(str(path))} -o response.json hashes its images."
        )
    check_documented(table)
    _say_not_in_json(table, unread)
    return replace(table, stored=kinds)


def name_columns(
    table: SourceTable, added: Iterable[str], prefix: str, suffix: str, output: str
) -> tuple[SourceTable, Naming]:
    """Return the table with names that no new column replaces, and how to call all columns in the output.

    Parameters
    ----------
    table
        As it was opened.
    added
        The columns that the command adds.
    prefix, suffix
        Of their names in the output.
    output
        The ending of the output; empty for the screen.

    Raises
    ------
    ArgumentError
        If there is no table for new names.
    ColumnError
        If a new column would replace one of the table.
    """
    dropped = () if table.name is None else (table.name,)
    naming = Naming(prefix, suffix, tuple(added), table.given, dropped)
    if output in ("", ".json", DUCKDB_SUFFIX):
        if naming.has_affixes:
            raise ArgumentError(
                "--prefix and --suffix name the new columns of a table, and the output is none\n"
                "Hint: -o writes a .parquet, .csv or .ndjson."
            )
    else:
        schema = table.frame.collect_schema()
        own = fit_columns({name: schema[name] for name in table.columns}, output)
        naming.check([*table.columns, *own.columns])
    aside = {name: naming.aside(name) for name in table.columns}
    source = None if table.source is None else aside.get(table.source, table.source)
    return replace(table, frame=table.frame.rename(aside), source=source), naming


def needs_hashing(table: SourceTable, kinds: tuple[str, ...]) -> bool:
    """Return whether a table has to be hashed for hashes of `kinds`."""
    return not (table.stored and set(kinds) <= set(table.stored))


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


def renamed_option(name: str, value: str | None, old_name: str, old_value: str | None) -> str | None:
    """Return the value of an option, which may have its old name in the call; then warn on stderr."""
    if old_value is None:
        return value
    if value is not None:
        raise ArgumentError(f"got {name} and {old_name}, which is its old name\nHint: pass {name} only.")
    say(f"{old_name} is deprecated and will be removed in the next release: use {name}")
    return old_value


def open_reference(
    reference: str, id_column: str | None, kind: HashKind, others: SourceTable, options: SourceOptions
) -> ReferenceRows:
    """Return the rows of --reference, with hashes made where they are missing."""
    try:
        table = open_table([reference], None, None, "remove_duplicates", kind.name, of=" of --reference")
        # Relative paths of a table of stored hashes start from the working directory.
        base_dir = None if table.request is None else options["base_dir"]
        options = {**options, "base_dir": base_dir}
        say_blocked(table, options)
        hashed = hash_table(table, (kind.name,), options)
    except ColumnError as error:
        what = str(error).split("\nHint: ", 1)[0]
        raise ColumnError(
            f"--reference {reference!r}: {what}\nHint: imgmatch visual-hash {quote(reference)} --source COLUMN "
            "-o reference.duckdb hashes the column of images, for --reference reference.duckdb."
        ) from error
    if table.manifest is not None:
        recipe = make_recipe(options["decode"], options["alpha"])
        table.manifest.check_comparable(kind, others.decode(kind, recipe), repr(reference))
    hashed = fitting(hashed, table, "", shown=False)
    schema = hashed.collect_schema()
    # The size and time of a file tell whether a relative path still leads to it.
    source = table.source if table.source in schema else None
    about = [] if source is None else [name for name in (source, SIZE, MODIFIED) if name in schema]
    ours = others.frame.collect_schema()
    manifest = table.manifest or (manifest_of(reference) if is_store(Path(reference)) else None)
    same = () if manifest is None else same_columns(ours, others.source, manifest)
    if id_column is not None and id_column not in schema:
        raise ColumnError(
            f"no column {id_column!r} in --reference {reference!r}, it has {shown_names(schema)}\n"
            "Hint: --reference-id names one of these."
        )
    columns = needed_columns(kind.name, id_column or table.id_column, [*about, *(name for name, _ in same)])
    rows = collect(hashed.select(columns), table, kind, shown=options["progress"])
    n_failed = rows[kind.name].null_count()
    if n_failed:
        say(f"{n_failed:,} of {rows.height:,} reference rows have no hash, and match nothing")
    id_column = id_column or naming_column(rows, table)
    side = Reference(rows.lazy(), id_column, ROW_DTYPE if id_column is None else schema[id_column], same)
    return ReferenceRows(side, rows.select(about) if about else None, not table.unlisted)


def naming_column(rows: pl.DataFrame, table: SourceTable) -> str | None:
    """Return the column whose values name rows; None where their numbers do."""
    name = table.id_column
    if name is None or (name == table.name and (rows[name].has_nulls() or rows[name].n_unique() < rows.height)):
        return None  # a name inside of a struct is often that of no row, or of several
    return name


def hash_table(table: SourceTable, kinds: tuple[str, ...], options: SourceOptions) -> pl.LazyFrame:
    """Return the rows with their hashes, not yet computed; those that a table holds already are taken."""
    if not needs_hashing(table, kinds):
        return table.frame
    if table.source is None:
        raise ColumnError(
            f"the table has {' and '.join(table.stored)}, but no {kinds[0]}, and no column that is surely of images\n"
            f"Hint: --hash-type {table.stored[0]} takes the hashes that it has, --source names a column of images."
        )
    return expressions.visual_hash(table.frame, table.source, hash_types=kinds, **allowed_options(table, options))


def allowed_options(table: SourceTable, options: SourceOptions) -> SourceOptions:
    """Return the options that the images of a table are read with.

    A documented request may come from somebody else: its ``_url`` is of http or https, as in the service, and names a
    file only with --base-dir. --schemes allows anything else.
    """
    if table.request is None or options["schemes"] is not None:
        return options
    files = () if options["base_dir"] is None else ("file",)
    return {**options, "schemes": ("http", "https", "data", *files)}


def say_blocked(table: SourceTable, options: SourceOptions) -> None:
    """Say how many records of a documented request name a file, where none is read."""
    if table.request is None or options["schemes"] is not None or options["base_dir"] is not None:
        return
    sources = [*table.request.frame[records.SOURCE]]
    if table.request.query is not None:
        sources += [*table.request.query[records.SOURCE]]
    n_files = sum(map(is_path, sources))
    if n_files:
        say(f"{n_files:,} records of a request name a file, which --base-dir or --schemes must allow")


def hash_query(query: str, table: SourceTable, kind: HashKind, options: SourceOptions) -> pl.DataFrame:
    """Return the query as one hashed row."""
    name, options = "query_record", {**options, "on_error": "null", "progress": False}
    if table.request is not None and table.request.query is not None:
        asked, options = table.request.query, allowed_options(table, options)
    elif query_kind(query, kind.name) == kind.name:
        value = parse_text(query, kind)
        hashed = pl.DataFrame({kind.name: pl.Series([value], dtype=kind.dtype)})
        text = hashed.select(expressions.to_bits(kind.name)).item()
        return hashed.with_columns(pl.lit(json.dumps({kind.name: text})).alias(records.RECORD))
    else:
        name, options["base_dir"] = "the query", None
        asked = pl.DataFrame({records.SOURCE: path_as_text(query), records.RECORD: json.dumps({"_url": query})})
    hashed = expressions.visual_hash(asked, records.SOURCE, hash_types=kind.name, **options)
    status, detail = hashed.select(STATUS, DETAIL).row(0)
    if status != OK:
        raise ArgumentError(
            f"{name} cannot be hashed: {status}: {detail}\nHint: a picture, or a {kind.name} as {forms_text(kind)}, "
            "is needed to rank by."
        )
    return hashed


def query_kind(query: str, hash_type: str | None) -> str | None:
    """Return the hash kind that QUERY is a hash of, if it is one and not the name of a file."""
    kinds = [*([] if hash_type is None else [hash_type]), *HASH_KINDS]
    found = next((name for name in kinds if name in HASH_KINDS and form_of(query, HASH_KINDS[name]) is not None), None)
    # Only 0 and 1 for a whole hash: nobody names a file so, and it may be too long for a name.
    if found is None or form_of(query, HASH_KINDS[found]) == "bits":
        return found
    return None if Path(query).exists() else found


def fitting(frame: pl.LazyFrame, table: SourceTable, suffix: str, *, shown: bool = True) -> pl.LazyFrame:
    """Return the columns that the output can hold, and say what it cannot.

    Parameters
    ----------
    frame
        As it was hashed.
    table
        Where its rows come from.
    suffix
        Of the output; empty for the screen, which shows no column of the table but the sources.
    shown
        Whether to say it.
    """
    # The documented JSON is made of the column of sources itself, wherever that came from.
    kept = frame if suffix == ".json" else frame.drop(table.made)
    if suffix == ".json":
        if shown:
            _say_not_in_json(table)
        return kept
    if not suffix:
        return kept.drop(byte_columns(kept.collect_schema()))
    schema = kept.collect_schema()
    fitted = fit_columns(schema, suffix)
    own = set(table.columns)
    if shown:
        spread = [own_name(name) for name in fitted.spread if name in own]
        if spread:
            say(f"a column for each field, because {suffix} cannot nest: {', '.join(spread)}")
        if fitted.lost:
            say(f"left out, because {suffix} cannot hold it: {_shown(fitted.lost)}; .parquet holds it")
        _say_not_finite(table, fitted.columns, suffix)
    return kept.select(list(fitted.columns.values()))


def _say_not_in_json(table: SourceTable, unread: Iterable[str] = ()) -> None:
    """Say which columns of a table are not in the documented JSON; `unread` are columns of hashes that are not read."""
    if table.request is not None:
        return
    ours = {table.source, records.ID, records.RECORD, *HASH_KINDS, WIDTH, HEIGHT, STATUS, DETAIL, ETAG}
    ours |= {name.removesuffix(".bytes") for name in table.made}
    if {PATH, SIZE, MODIFIED} <= set(table.columns):  # of a folder
        ours |= {PATH, SIZE, MODIFIED}
    others = [own_name(name) for name in table.columns if name not in ours or name in unread]
    if others:
        say(f"left out, because the documented .json has no place for it: {', '.join(others)}")


def say_not_nested(hashed: pl.LazyFrame) -> None:
    """Say what the rows inside of kept rows are without."""
    parts = byte_parts(hashed.collect_schema())
    if parts:
        say(f"not in {REMOVED_RECORDS}, which hold no images: {_shown(parts)}")


def _shown(parts: Mapping[str, object]) -> str:
    return ", ".join(f"{own_name(name)} ({dtype})" for name, dtype in parts.items())


def say_not_stored(table: SourceTable, key: str | None) -> None:
    """Say which columns of a table are not in a store, which has columns of its own."""
    if table.manifest is not None:
        return
    ours = {table.source, key, SIZE, MODIFIED}
    if table.request is None:
        others = [name for name in table.columns if name not in ours]
    else:
        fields = {name: None for record in table.request.frame[records.RECORD] for name in json.loads(record)}
        others = [name for name in fields if name not in ("_id", "_url", "_base64")]
    if others:
        say(f"not stored, a store keeps the key, the source and the hashes: {', '.join(others)}")


def _say_not_finite(table: SourceTable, columns: Container[str], suffix: str) -> None:
    """Say which numbers JSON has no word for; Polars writes null."""
    if suffix not in (".ndjson", ".jsonl"):
        return
    schema = {name: dtype for name, dtype in table.frame.collect_schema().items() if name in columns}
    leaves = {
        f"{own_name(name)}\n{number}": ~(leaf.is_finite() | leaf.is_null()).all()
        for name, found in float_leaves(schema).items()
        for number, leaf in enumerate(found)
    }
    if not leaves:
        return
    found = run(table.frame.select(**leaves)).row(0, named=True)
    lost = dict.fromkeys(name.rpartition("\n")[0] for name, is_lost in found.items() if is_lost)
    if lost:
        say(
            f"written as null, because {suffix} cannot hold NaN and infinity: {', '.join(lost)}; .parquet holds them",
        )


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
