"""Inputs of the commands: open them, name their columns, and hash rows that have no hashes."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from shlex import quote
from typing import Final

import polars as pl

from imgmatch_df.cli import storing, tables
from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.formats import Fitted, Format, byte_columns, byte_parts, fit_columns, float_leaves
from imgmatch_df.cli.interrupts import keeping
from imgmatch_df.cli.outputs import DOCUMENTED, interruptible, suffixes_text
from imgmatch_df.cli.renaming import Naming, own_name
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.columns import (
    DETAIL,
    ETAG,
    HEIGHT,
    MODIFIED,
    OK,
    PATH,
    QUALITY,
    REMOVED_RECORDS,
    SIZE,
    STATUS,
    WIDTH,
)
from imgmatch_df.documented import values
from imgmatch_df.documented.values import Method
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames import expressions, ranking
from imgmatch_df.frames.flat import Flat, check_flat
from imgmatch_df.frames.given_hashes import read_given
from imgmatch_df.frames.hash_text import to_bits
from imgmatch_df.hashes.forms import forms_text, parse_text
from imgmatch_df.hashes.kinds import (
    DEFAULT_HASH_TYPES,
    KINDS,
    MEASURES,
    SHA256,
    HashKind,
    documented_kinds,
    visual_hash_fields,
    with_measures,
)
from imgmatch_df.image_columns import holds_sources
from imgmatch_df.images.folders import left_out_text
from imgmatch_df.options import SourceOptions
from imgmatch_df.progress import METER
from imgmatch_df.schemes import public_schemes
from imgmatch_df.sources import is_path, path_as_text

_FOLDERS_SHOWN: Final = 10
_MANY_ROWS: Final = 100  # which take about a second to hash


def open_table(
    sources: list[str],
    source: str | None,
    base_dir: str | None,
    method: Method,
    hash_type: str | None = None,
    *,
    query: str | None = None,
    column: str | None = None,
    needs_column: bool = True,
    of: str = "",
    store: str | None = None,
) -> SourceTable:
    """Return the sources in the arguments of a command, see `tables.open_sources`; print which are left out."""
    table = interruptible(
        lambda: tables.open_sources(
            sources,
            source,
            base_dir=base_dir,
            method=method,
            hash_type=hash_type,
            query=query,
            column=column,
            needs_column=needs_column,
        )
    )
    for folder in table.unlisted[:_FOLDERS_SHOWN]:
        say(f"cannot list {folder}, its images are left out")
    if len(table.unlisted) > _FOLDERS_SHOWN:
        say(f"cannot list {len(table.unlisted) - _FOLDERS_SHOWN:,} more folders and archives")
    if text := left_out_text(table.left_out):
        say(f"left out{of}: {text}")
    return replace(table, store=store)


def open_ranking(
    query: str,
    source: str | None,
    base_dir: str | None,
    hash_type: str | None,
    column: str | None,
    store: str | None,
) -> SourceTable:
    """Return the sources of the request QUERY, where there is no SOURCE."""
    if not query.lower().endswith(".json"):
        raise ArgumentError(
            "there is nothing to rank: SOURCE is missing\n"
            "Hint: imgmatch rank-images QUERY SOURCE; only a documented request .json holds both."
        )
    return open_table([query], source, base_dir, "rank_images", hash_type, column=column, store=store)


def open_hashed(path: str) -> SourceTable:
    """Return a table with hashes, for the documented JSON.

    Raises
    ------
    ColumnError
        If it has no hashes, or no column that identifies its images.
    """
    table = open_table([path], None, None, "remove_duplicates")
    read, unread = {}, []
    for name in (name for name in table.stored if name in documented_kinds()):
        try:
            found = read_given(table.frame, KINDS[name])
        except ColumnError:  # another column of that name
            unread.append(name)
        else:
            read[name] = pl.col(name) if found is None else found.expr
    table = replace(table, frame=table.frame.with_columns(**read))
    kinds = tuple(read)
    if not kinds:
        raise ColumnError(
            f"{path!r} has no column {' or '.join(documented_kinds())}\n"
            f"Hint: imgmatch visual-hash {quote(path)} -o response.json hashes its images."
        )
    check_documented(table)
    _say_not_in_json(table, unread)
    return replace(table, stored=kinds)


def name_columns(
    table: SourceTable,
    added: Iterable[str],
    prefix: str,
    suffix: str,
    output: Format | None,
    *,
    dropped: tuple[str, ...] = (),
) -> tuple[SourceTable, Naming]:
    """Return the table with temporary names that no new column replaces, and the names of the output.

    Parameters
    ----------
    table
        The opened table.
    added
        Names of the columns that the command adds.
    prefix, suffix
        Prefix and suffix of these names in the output.
    output
        Format of the output; None for the screen and for stores.
    dropped
        Columns that the command computes for itself.

    Raises
    ------
    ArgumentError
        If there is a prefix or suffix, and the output is not a table.
    ColumnError
        If a new column would replace one of the table.
    """
    dropped += tuple(name for name in (table.name, table.read_as) if name is not None)
    naming = Naming(prefix, suffix, tuple(added), table.given, dropped)
    if output is None or not output.is_table:
        if naming.has_affixes:
            raise ArgumentError(
                "--prefix and --suffix name the new columns of a table, and the output is none\n"
                f"Hint: -o writes a {suffixes_text(tables_only=True)}."
            )
    else:
        schema = table.frame.collect_schema()
        own = fit_columns({name: schema[name] for name in table.columns}, output)
        naming.check([*table.columns, *own.columns])
    aside = {name: naming.aside(name) for name in table.columns}
    source = None if table.source is None else aside.get(table.source, table.source)
    return replace(table, frame=table.frame.rename(aside), source=source), naming


def needs_hashing(table: SourceTable, kinds: tuple[str, ...]) -> bool:
    """Return whether a table lacks hashes of `kinds`; digests alone are no reason to hash it."""
    wanted = set(kinds) - {SHA256.name} or set(kinds)
    return not (table.stored and wanted <= set(table.stored))


def check_documented(table: SourceTable, form: Format | None = DOCUMENTED, *, turns: bool | None = None) -> None:
    """Refuse what the documented JSON cannot hold, before hours of hashing; other formats hold all.

    Raises
    ------
    ArgumentError
        If turns are compared.
    ColumnError
        If the table has no column of sources, or one that is neither text nor bytes.
    """
    if form is not DOCUMENTED:
        return
    if turns:
        raise ArgumentError("the documented .json has no turns\nHint: -o writes a .parquet, or leave --turns out.")
    schema = table.frame.collect_schema()
    source = values.RECORD if values.RECORD in schema else table.source
    dtype = None if source is None else schema[source]
    if source is None or dtype in (pl.Null, pl.Categorical) or not holds_sources(dtype):
        found = "the table has none" if source is None else f"column {source!r} has dtype {schema[source]}"
        raise ColumnError(
            f"the documented .json needs a column of paths, URLs or images, and {found}\n"
            "Hint: --source names one, or -o writes a .parquet."
        )


def naming_column(rows: pl.DataFrame, table: SourceTable) -> str | None:
    """Return the column that identifies rows; None where their numbers do."""
    name = table.id_column
    if name is None or (name == table.name and (rows[name].has_nulls() or rows[name].n_unique() < rows.height)):
        return None  # the names in a column of structs are often null or not unique
    return name


def sources_of(table: SourceTable, *, wanted: bool) -> pl.Series | None:
    """Return the column that names the images of a table, None if it has none, or it is not `wanted`."""
    if not wanted or table.label is None or table.label not in table.frame.collect_schema():
        return None
    return run_query(table.frame.select(table.label)).to_series()


def default_kinds(table: SourceTable, output: Format | None) -> tuple[str, ...]:
    """Return the hash kinds that are computed of a table where the command names none."""
    if table.request is not None:
        return table.request.hash_types
    has_place = output is not None and output.is_table
    return _with_digest(DEFAULT_HASH_TYPES, table) if has_place else DEFAULT_HASH_TYPES


def compared_kinds(table: SourceTable, kind: HashKind) -> tuple[str, ...]:
    """Return the hash kinds that are computed of a table whose rows are compared by `kind`, that kind first."""
    guards = table.request is None and not kind.by_votes
    return _with_digest((kind.name,), table) if guards else (kind.name,)


def _with_digest(kinds: tuple[str, ...], table: SourceTable) -> tuple[str, ...]:
    return kinds if SHA256.name in (*kinds, *table.columns) else (*kinds, SHA256.name)


def hashed_names(kinds: tuple[str, ...]) -> list[str]:
    """Return the columns that hashing adds to a table."""
    return list(visual_hash_fields(with_measures(kinds)))


def name_compared(
    table: SourceTable,
    kinds: tuple[str, ...],
    added: list[str],
    prefix: str,
    suffix: str,
    output: Format | None,
    *,
    only_input: bool = False,
) -> tuple[SourceTable, Naming]:
    """Return what `name_columns` does for a command that compares: the output has the first of the hash kinds only.

    With `only_input` it has no hashes and no other new columns.
    """
    if not only_input:
        made = hashed_names(kinds[:1]) if needs_hashing(table, kinds) else []
        return name_columns(table, [*added, *made], prefix, suffix, output, dropped=kinds[1:])
    if prefix or suffix:
        raise ArgumentError("--only-input-columns writes no new columns\nHint: leave --prefix and --suffix out.")
    made = hashed_names(kinds) if needs_hashing(table, kinds) else []
    return name_columns(table, [*added, *made], "", "", None)


def flat_rule(flat: str | None, table: SourceTable, output: Format | None) -> Flat:
    """Return how images with little to see are compared; the documented JSON compares all by their hashes."""
    is_documented = table.request is not None or (output is not None and not output.is_table)
    if flat is None:
        return "match" if is_documented else "identical"
    is_guarded = check_flat(flat)
    if is_guarded and is_documented:
        raise ArgumentError(
            "the documented .json compares all images by their hashes, got --flat identical\nHint: --flat match."
        )
    return "identical" if is_guarded else "match"


def hash_table(table: SourceTable, kinds: tuple[str, ...], options: SourceOptions) -> pl.LazyFrame:
    """Return a query for the rows with hashes: those of the table, or new ones."""
    if not needs_hashing(table, kinds):
        if table.store is not None:
            say(f"nothing is added to {table.store}, since SOURCE has hashes")
        return table.frame
    if table.source is None:
        raise ColumnError(
            f"the table has {' and '.join(table.stored)}, but no {kinds[0]}, and its column of images is not clear\n"
            f"Hint: --hash-type {table.stored[0]} uses its hashes, --source names its column of images."
        )
    if table.store is not None:
        storing.check_keeps(table.store, table, kinds, options)
        return storing.hash_through(table, table.store, kinds, options)
    return expressions.visual_hash(table.frame, table.source, hash_types=kinds, **allowed_options(table, options))


def hash_compared(
    table: SourceTable, kinds: tuple[str, ...], options: SourceOptions, further: Iterable[str]
) -> tuple[SourceTable, pl.LazyFrame]:
    """Return the table, and a query for its rows with hashes: the columns that name and compare rows, and `further`."""
    table, _ = name_columns(table, hashed_names(kinds) if needs_hashing(table, kinds) else [], "", "", None)
    hashed = hash_table(table, kinds, options)
    schema = hashed.collect_schema()
    wanted = [table.label, table.id_column, *further, kinds[0], QUALITY, SHA256.name, STATUS, DETAIL]
    return table, hashed.select(list(dict.fromkeys(name for name in wanted if name is not None and name in schema)))


def say_store(table: SourceTable, kinds: tuple[str, ...], n_rows: int) -> None:
    """Print that --store keeps hashes, if many images were hashed without it."""
    is_kept = table.store is not None or table.request is not None or not needs_hashing(table, kinds)
    if not is_kept and table.name is None and n_rows >= _MANY_ROWS:
        say("Hint: --store hashes.duckdb keeps the hashes", err=False)


def allowed_options(table: SourceTable, options: SourceOptions) -> SourceOptions:
    """Return the options for reading the images of a table.

    A documented request may be untrusted: its ``_url`` may be http or https, as in the service, and a file only with
    --base-dir. --schemes allows others.
    """
    if table.request is None or options["schemes"] is not None:
        return options
    files = () if options["base_dir"] is None else ("file",)
    return {**options, "schemes": (*public_schemes(), "data", *files)}


def say_blocked(table: SourceTable, options: SourceOptions) -> None:
    """Print how many records of a documented request name a file, if files are not read."""
    if table.request is None or options["schemes"] is not None or options["base_dir"] is not None:
        return
    sources = [*table.request.frame[values.URL]]
    if table.request.query_frame is not None:
        sources += [*table.request.query_frame[values.URL]]
    n_files = sum(map(is_path, sources))
    if n_files:
        say(f"{n_files:,} records of a request name a file, which --base-dir or --schemes must allow")


def hash_query(query: str, table: SourceTable, kind: HashKind, options: SourceOptions) -> pl.DataFrame:
    """Return the query as one hashed row."""
    name, options = "query_record", {**options, "on_error": "null", "progress": False}
    if table.request is not None and table.request.query_frame is not None:
        query_row, options = table.request.query_frame, allowed_options(table, options)
    elif (value := parse_text(query, kind)) is not None and not ranking.names_file(query, kind, None):
        hashed = pl.DataFrame({kind.name: pl.Series([value], dtype=kind.dtype)})
        text = hashed.select(to_bits(kind.name)).item()
        return hashed.with_columns(pl.lit(json.dumps({kind.name: text})).alias(values.RECORD))
    else:
        name, options["base_dir"] = "the query", None
        query_row = pl.DataFrame({values.URL: path_as_text(query), values.RECORD: json.dumps({"_url": query})})
    hashed = expressions.visual_hash(query_row, values.URL, hash_types=kind.name, **options)
    status, detail = hashed.select(STATUS, DETAIL).row(0)
    if status != OK:
        raise ArgumentError(
            f"{name} cannot be hashed: {status}: {detail}\nHint: pass an image, or a {kind.name} as {forms_text(kind)}."
        )
    return hashed


def fitting(frame: pl.LazyFrame, table: SourceTable, output: Format | None, *, shown: bool = True) -> pl.LazyFrame:
    """Return the columns that the output can hold, and print which it cannot.

    Parameters
    ----------
    frame
        The hashed rows.
    table
        The table of the rows.
    output
        Format of the output; None for the screen, which shows no column of the table but the sources.
    shown
        Whether to print them.
    """
    # The documented JSON is made of the column of sources itself, wherever that came from.
    if output is not None and not output.is_table:
        if shown:
            _say_not_in_json(table)
        return frame
    schema = frame.collect_schema()
    if output is None:
        return frame.drop(byte_columns(schema))
    fitted = fit_columns(schema, output)
    own = set(table.columns)
    if shown:
        spread = [own_name(name) for name in fitted.spread if name in own]
        if spread:
            say(f"a column for each field, because {output.suffix} cannot nest: {', '.join(spread)}")
        say_lost(fitted, output)
        _say_not_finite(table, fitted.columns, output)
    named = []
    if table.name is not None and not output.nests and f"{table.source}.path" not in fitted.columns:
        # The names of images in a list, which this format cannot hold.
        named = [pl.col(table.name).alias(f"{table.source}.path")]
    return frame.select(*fitted.columns.values(), *named)


def say_lost(fitted: Fitted, output: Format) -> None:
    """Print which columns a format cannot hold."""
    if fitted.lost:
        say(f"left out, because {output.suffix} cannot hold it: {_shown(fitted.lost)}; .parquet holds it")


def _say_not_in_json(table: SourceTable, unread: Iterable[str] = ()) -> None:
    """Print which columns are not in the documented JSON; `unread` are columns of hashes that are not read."""
    if table.request is not None:
        return
    ours = {table.source, values.ID, values.RECORD, *KINDS, *MEASURES, WIDTH, HEIGHT, STATUS, DETAIL, ETAG}
    if {PATH, SIZE, MODIFIED} <= set(table.columns):  # of a folder
        ours |= {PATH, SIZE, MODIFIED}
    others = [own_name(name) for name in table.columns if name not in ours or name in unread]
    if others:
        say(f"left out, because the documented .json has no place for it: {', '.join(others)}")


def say_not_nested(hashed: pl.LazyFrame) -> None:
    """Print which columns the nested rows do not have."""
    parts = byte_parts(hashed.collect_schema())
    if parts:
        say(f"not in {REMOVED_RECORDS}, which hold no images: {_shown(parts)}")


def _shown(parts: Mapping[str, object]) -> str:
    return ", ".join(f"{own_name(name)} ({dtype!s:.80})" for name, dtype in parts.items())


def say_not_stored(table: SourceTable, key: str | None) -> None:
    """Print which columns of a table are not in a store."""
    if table.manifest is not None:
        return
    ours = {table.source, key, SIZE, MODIFIED}
    if table.request is None:
        others = [name for name in table.columns if name not in ours]
    else:
        fields = {name: None for record in table.request.frame[values.RECORD] for name in json.loads(record)}
        others = [name for name in fields if name not in ("_url", "_base64", key)]
    if others:
        say(f"not stored, a store keeps only the key, the source and the hashes: {', '.join(others)}")


def _say_not_finite(table: SourceTable, columns: Container[str], output: Format) -> None:
    """Print which columns have numbers that JSON does not have, and for which Polars writes null."""
    if output.holds_nan:
        return
    schema = {name: dtype for name, dtype in table.frame.collect_schema().items() if name in columns}
    leaves = {
        f"{own_name(name)}\n{number}": ~(leaf.is_finite() | leaf.is_null()).all()
        for name, found in float_leaves(schema).items()
        for number, leaf in enumerate(found)
    }
    if not leaves:
        return
    found = run_query(table.frame.select(**leaves)).row(0, named=True)
    lost = dict.fromkeys(name.rpartition("\n")[0] for name, is_lost in found.items() if is_lost)
    if lost:
        say(
            f"written as null, because {output.suffix} cannot hold NaN and infinity: {', '.join(lost)}; "
            ".parquet holds them"
        )


def collect(hashed: pl.LazyFrame, table: SourceTable, kind: HashKind, *, shown: bool) -> pl.DataFrame:
    """Return the rows, and hash them in small batches if they have no hashes."""
    if kind.name in table.stored:
        with pl.Config(streaming_chunk_size=table.batch_rows):
            return run_query(hashed)
    with hashing(table, shown=shown):
        return run_query(hashed)


def run_query(frame: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows of a query, which Ctrl-C can interrupt."""
    return interruptible(lambda: frame.collect(engine="streaming"))


@contextmanager
def hashing(table: SourceTable, *, shown: bool) -> Iterator[None]:
    """Hash in small batches within the block, with a progress bar; one of --store shows its own."""
    shows = shown and table.store is None
    bar = METER.run(run_query(table.frame.select(pl.len())).item()) if shows else nullcontext()
    with (
        keeping(storing.kept_text(table.store, is_hashing=True)),
        bar,
        pl.Config(streaming_chunk_size=table.batch_rows),
    ):
        yield
