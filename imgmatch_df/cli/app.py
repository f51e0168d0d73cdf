"""The command `imgmatch`: parse, make one call, show."""

import os
import sys
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import polars as pl
import typer

from imgmatch_df.cli import display, inputs, outputs, removed, serve
from imgmatch_df.cli.arguments import (
    Against,
    Call,
    HashType,
    HashTypes,
    K,
    KeepName,
    Key,
    LinkageName,
    ListRemoved,
    NegativeQuery,
    OptionalSources,
    Out,
    Prefix,
    Prune,
    PruneAll,
    Query,
    Radius,
    ReferenceId,
    ReferenceSource,
    RetryFailed,
    Source,
    Sources,
    Store,
    StoreOut,
    Suffix,
    Version,
    source_options,
    split_names,
    with_source_options,
)
from imgmatch_df.cli.exit_codes import SOME_FAILED, Tally, check_streams, failed_in_store, reported, say, say_failed
from imgmatch_df.cli.interrupts import end_on_signals
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.columns import (
    BMH1,
    CLUSTER_ID,
    DETAIL,
    DISTANCE,
    HASH_KINDS,
    HEIGHT,
    KEPT,
    PATH,
    RANK,
    REFERENCE_ID,
    REMOVED_RECORDS,
    REPRESENTATIVE_ID,
    STATUS,
    WIDTH,
)
from imgmatch_df.documented import export as exporting
from imgmatch_df.documented import records
from imgmatch_df.documented.values import ping_response, to_json
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import clustering, ranking, writing
from imgmatch_df.naming import ROW, source_text
from imgmatch_df.options import SourceOptions
from imgmatch_df.store.open import DUCKDB_SUFFIX, is_store

app = typer.Typer(
    name="imgmatch",
    help="Find duplicate and near-duplicate images, in folders, Parquet, CSV and JSON.",
    epilog=f"imgmatch remove-duplicates photos --radius {BMH1.near_radius}\n\n"
    "imgmatch rank-images cat.jpg photos -k 20",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: the entry point of `imgmatch`."""
    end_on_signals()
    check_streams()
    try:
        with reported():  # of what is printed before a command begins, as --help
            app()
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


@app.callback()
def _imgmatch(_version: Version = False) -> None:
    pass


@app.command("visual-hash")
@with_source_options
def visual_hash(
    sources: Sources,
    out: StoreOut = None,
    source: Source = None,
    key: Key = None,
    hash_types: HashTypes = None,
    retry_failed: RetryFailed = False,
    prune: Prune = False,
    prune_all: PruneAll = False,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """Hash pictures: bmh1 and phash, width, height, and why a picture failed.

    Example: imgmatch visual-hash photos -o hashes.duckdb

    A .duckdb keeps what is hashed, also of a run that is interrupted: the next one hashes what is new or changed.
    Exit code 0: all hashed; 1: some failed, the output says why; 2: wrong call.
    """
    stores = out is not None and is_store(out)
    with reported(kept=f"what was hashed is in {out}" if stores else "nothing was written"):
        started, form = monotonic(), _check_target(out, stores=True)
        options = source_options(given)
        table = inputs.open_table(sources, source, given["base_dir"], "visual_hash")
        inputs.say_blocked(table, options)
        if form == ".json":
            inputs.check_documented(table)
        if out is not None and stores:
            dropped: writing.Prune = "all" if prune_all else prune
            inputs.name_columns(table, (), prefix, suffix, DUCKDB_SUFFIX)
            inputs.say_not_stored(table, key)
            _store(table, out, key, split_names(hash_types), options, retry_failed=retry_failed, prune=dropped)
            return
        store_only = {"--key": key, "--retry-failed": retry_failed, "--prune": prune, "--prune-all": prune_all}
        for option, wanted in store_only.items():
            if wanted:
                raise ArgumentError(f"{option} is for stored hashes\nHint: -o hashes.duckdb stores them.")
        kinds = split_names(hash_types) or (table.request.hash_types if table.request else tuple(HASH_KINDS))
        table, naming = inputs.name_columns(table, (WIDTH, HEIGHT, *kinds, STATUS, DETAIL), prefix, suffix, form)
        tally = Tally()
        hashed = tally.count(inputs.hash_table(table, kinds, options), table.label)
        hashed = inputs.fitting(hashed, table, form) if form else hashed
        with outputs.written_whole(out, sys.stdout.buffer) as target, inputs.hashing(table, shown=options["progress"]):
            if form == ".json":
                rows = inputs.run(hashed)
                response = records.visual_hash_response(
                    rows,
                    seconds=monotonic() - started,
                    hash_types=kinds,
                    source=table.carrier,
                    attempts=options["attempts"],
                )
                outputs.write_response(response, target)
            elif form:
                outputs.write_table(hashed, target, form, naming)
            else:
                text = source_text(hashed.collect_schema(), table.label)
                rows = inputs.run(hashed.select(text, *(WIDTH, HEIGHT, *kinds, STATUS, DETAIL)))
        if not form:
            display.show_hashes(rows, kinds)
        tally.finish(is_whole=not table.unlisted)


@app.command("remove-duplicates")
@with_source_options
def remove_duplicates(
    sources: Sources,
    out: Out = None,
    radius: Radius = None,
    hash_type: HashType = None,
    linkage: LinkageName = "connected",
    keep: KeepName = "first",
    reference: ReferenceSource = None,
    reference_id: ReferenceId = None,
    against: Against = None,
    list_removed: ListRemoved = False,
    source: Source = None,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """Keep one of each group of near-duplicates. No file is deleted.

    Example: imgmatch remove-duplicates photos --radius 24 -o kept.parquet

    A table that has hashes is not hashed again. Exit code 0: all compared; 1: some failed and are kept; 2: wrong call.
    """
    with reported():
        started, form = monotonic(), "" if list_removed else _check_target(out)
        options = source_options(given)
        if list_removed and out is not None:
            raise ArgumentError("--list-removed prints and -o writes\nHint: run the command once for each.")
        reference = inputs.renamed_option("--reference", reference, "--against", against)
        if reference_id is not None and reference is None:
            raise ArgumentError("--reference-id has no effect without --reference\nHint: name the reference rows.")
        if reference is not None and form == ".json":
            raise ArgumentError(
                "the documented .json has no place for rows that match reference rows\nHint: .parquet has one."
            )
        table = inputs.open_table(sources, source, given["base_dir"], "remove_duplicates", hash_type)
        inputs.say_blocked(table, options)
        if form == ".json":
            inputs.check_documented(table)
        kind = table.kind(hash_type)
        call = Call(
            radius=table.radius(kind) if radius is None else radius,
            hash_type=kind.name,
            linkage=linkage,  # type: ignore[typeddict-item]  # checked by `cluster`, with a hint
            keep=keep,  # type: ignore[typeddict-item]
        )
        nests = reference is None and form in (".parquet", ".ndjson", ".jsonl", ".json")
        added = [REMOVED_RECORDS] if nests else [CLUSTER_ID, KEPT, DISTANCE, REPRESENTATIVE_ID]
        added += [] if reference is None else [REFERENCE_ID]
        added += [WIDTH, HEIGHT, kind.name, STATUS, DETAIL] if inputs.needs_hashing(table, (kind.name,)) else []
        table, naming = inputs.name_columns(table, added, prefix, suffix, form)
        listed_by = removed.check_source(table.frame.collect_schema(), table.source) if list_removed else None
        hashed = inputs.fitting(inputs.hash_table(table, (kind.name,), options), table, form)
        if nests and form != ".json":
            inputs.say_not_nested(hashed)
        # No rows first: what is wrong with the call is known before hours of hashing.
        no_rows = hashed.collect_schema().to_frame()
        (clustering.remove_duplicates if nests else clustering.cluster)(no_rows, **call)
        references = None
        if reference is not None:
            references = inputs.open_reference(reference, reference_id, kind, table, options)
        reference_side, reference_files, reference_is_whole = references or (None, None, True)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            if nests:
                answer = interruptible(
                    lambda: clustering.nest_duplicates(
                        rows, **call, options={"progress": options["progress"]}, with_bytes=form == ".json"
                    )
                )
            else:
                # The screen looks them up by row number.
                id_column = inputs.naming_column(rows, table) if form else None
                if form and (id_column is None or (reference_side is not None and reference_side.id is None)):
                    say("rows without a name of their own are named by their number, from 0")
                answer = interruptible(
                    lambda: clustering.cluster(
                        rows,
                        **call,
                        id=id_column,
                        reference=reference_side,  # type: ignore[arg-type]  # public callers have no such object
                        progress=options["progress"],
                    )
                )
            if form == ".json":
                response = records.remove_duplicates_response(
                    answer,
                    seconds=monotonic() - started,
                    hash_type=kind.name,
                    source=table.carrier,
                    attempts=options["attempts"],
                )
                outputs.write_response(response, target)
            elif form:
                outputs.write_table(answer.lazy(), target, form, naming)
        tally = Tally.of(rows, kind, table.label)
        if listed_by is not None:
            listed = removed.removed_paths(answer, listed_by, reference_files, base_dir=given["base_dir"])
            # As bytes: a name that is not UTF-8 is a name, too.
            sys.stdout.buffer.write(b"".join(os.fsencode(path) + b"\n" for path in listed.paths))
            sys.stdout.buffer.flush()
            if listed.n_wanted:
                say(f"not listed: {listed.n_wanted:,} removed rows whose file is kept or stored, too")
            if listed.n_unsure:
                why = "may be a stored one: relative paths of --reference do not start here, run it where they do"
                say(f"not listed: {listed.n_unsure:,} removed rows whose file {why}")
        elif out is not None or not form:
            n_kept = answer.height if nests else int(answer[KEPT].sum())
            n_matched = None if references is None else answer[REFERENCE_ID].count()
            say(display.counts_text(rows.height, n_kept, n_matched, n_failed=tally.n_failed), err=False)
        if not form and not list_removed:
            clustered = answer.with_columns(source_text(answer.schema, table.label))
            display.show_clusters(clustered, call["radius"])
            display.show_next(sources, is_folder=table.source == PATH and not table.stored)
        n_removed = rows.height - answer.height if nests else int((~answer[KEPT]).sum())
        if call["radius"] == 0 and n_removed == 0 and rows.height - tally.n_failed > 1:
            say(f"equal hashes only; --radius {kind.near_radius} finds edited copies")
        tally.finish(is_whole=reference_is_whole and not table.unlisted)


@app.command("rank-images", cls=NegativeQuery)
@with_source_options
def rank_images(
    query: Query,
    sources: OptionalSources = None,
    out: Out = None,
    k: K = None,
    hash_type: HashType = None,
    source: Source = None,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """Rank pictures by their distance to one, nearest first.

    Example: imgmatch rank-images cat.jpg photos -k 20

    A table that has hashes is not hashed again. A hash is 0/1, hexadecimal (so are 16 digits) or decimal,
    also a negative one. Exit code 0: all ranked; 1: some failed and come last; 2: wrong call, or the query cannot be
    hashed.
    """
    with reported():
        started, form = monotonic(), _check_target(out)
        options = source_options(given)
        query = os.path.expanduser(query)  # noqa: PTH111  # it may be no path
        wanted_kind = hash_type or inputs.query_kind(query, None)
        if sources:
            table = inputs.open_table(sources, source, given["base_dir"], "remove_duplicates", wanted_kind)
        else:
            table = inputs.open_ranking(query, source, given["base_dir"])
        inputs.say_blocked(table, options)
        if form == ".json":
            inputs.check_documented(table)
        kind = table.kind(wanted_kind)
        asked = interruptible(lambda: inputs.hash_query(query, table, kind, options))
        wanted = asked[kind.name].item()
        added = [DISTANCE, RANK]
        added += [WIDTH, HEIGHT, kind.name, STATUS, DETAIL] if inputs.needs_hashing(table, (kind.name,)) else []
        table, naming = inputs.name_columns(table, added, prefix, suffix, form)
        hashed = inputs.fitting(inputs.hash_table(table, (kind.name,), options), table, form)
        ranking.rank_images(hashed.collect_schema().to_frame(), wanted, kind.name, k=k)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            tally = Tally.of(rows, kind, table.label)
            if not form:
                rows = rows.with_columns(source_text(rows.schema, table.label)).with_row_index(ROW)
            ranked = interruptible(lambda: ranking.rank_images(rows, wanted, kind.name, k=k))
            if form == ".json":
                # The documented answer names every record that failed, also with -k.
                failed = rows.filter(pl.col(kind.name).is_null())
                complete = pl.concat([ranked.filter(pl.col(RANK).is_not_null()), failed], how="diagonal")
                response = records.rank_images_response(
                    asked,
                    complete,
                    seconds=monotonic() - started,
                    hash_type=kind.name,
                    source=table.carrier,
                    attempts=options["attempts"],
                )
                outputs.write_response(response, target)
            elif form:
                outputs.write_table(ranked.lazy(), target, form, naming)
        if not form:
            display.show_ranking(ranked)
            display.show_next(sources or [], is_folder=table.source == PATH and not table.stored)
        tally.finish(is_whole=not table.unlisted)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where to put the pictures.")] = Path("imgmatch-demo"),
) -> None:
    """Draw pictures and edited copies of them, and find the copies.

    Example: imgmatch demo
    """
    with reported():
        from rich.console import Console

        from imgmatch_df.cli.demo import run_demo

        run_demo(folder, Console())


@app.command()
def ping() -> None:
    """Print the documented answer of the service.

    Example: imgmatch ping
    """
    with reported():
        typer.echo(to_json(ping_response()))


@app.command()
def export(
    store: Store,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="OUT", show_default=False, help="A .json.")] = None,
) -> None:
    """Write stored hashes as the documented JSON, however many there are.

    Example: imgmatch export hashes.duckdb -o response.json
    """
    with reported():
        if _check_target(out) != ".json" and out is not None:
            raise ArgumentError(f"an export is .json, got {out.name!r}\nHint: read_hashes gives frames of any form.")
        table = None if is_store(store) or not store.is_file() else inputs.open_hashed(store)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            if table is None:
                interruptible(lambda: exporting.export_response(store, target))
            else:
                interruptible(lambda: exporting.export_table(table.frame, target, table.stored, table.carrier))


def _store(
    table: SourceTable,
    out: Path,
    key: str | None,
    kinds: tuple[str, ...],
    options: SourceOptions,
    *,
    retry_failed: bool,
    prune: writing.Prune,
) -> None:
    """Store what is new or changed, and say how much that was."""
    if prune and table.unlisted:
        # What is stored of a folder that cannot be listed would be dropped, and hashed again when it can be.
        say("nothing is pruned, since folders could not be listed")
        prune = False
    asked = kinds or (table.request.hash_types if table.request else None)
    done = interruptible(
        lambda: writing.write_hashes(
            table.frame,
            out,
            source=table.source,
            key=key,
            hash_types=asked,
            retry_failed=retry_failed,
            prune=prune,
            **inputs.allowed_options(table, options),
        )
    )
    say(display.stored_text(out, done), err=False)
    if done.n_failed:
        say_failed(failed_in_store(out, table.frame, table.source), done.n_failed)
    if done.n_failed and not retry_failed:
        say("--retry-failed tries them again")
    if done.n_failed or table.unlisted:
        raise typer.Exit(SOME_FAILED)


def _check_target(out: Path | None, *, stores: bool = False) -> str:
    """Return the ending that says how to write: of `out`, ``".csv"`` for a pipe, or nothing for the screen."""
    outputs.check_target(out, stores=stores)
    if out is not None:
        if out.is_file() and not (stores and is_store(out)):
            say(f"{out} is there already: replaced when this run ends well")
        return out.suffix.lower()
    return "" if sys.stdout.isatty() else ".csv"


app.command()(reported()(serve.serve))
