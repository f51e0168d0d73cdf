"""The command `imgmatch`: each command parses its arguments, makes one call, and shows the result."""

import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final

import polars as pl
import typer
from typer.models import CommandInfo

from imgmatch_df._kernels import before_compiling
from imgmatch_df.cli import (
    advise,
    apply,
    display,
    find_copies,
    inputs,
    leaks,
    match,
    outputs,
    remove_duplicates,
    removed,
    report,
    runs,
    serve,
    storing,
)
from imgmatch_df.cli.arguments import (
    FlatOption,
    HashColumn,
    HashTypeOption,
    HashTypesOption,
    K,
    Key,
    MinVotes,
    NegativeQuery,
    OptionalDepth,
    OptionalSources,
    Out,
    Prefix,
    PruneAll,
    PruneOption,
    Query,
    RankArguments,
    RetryFailed,
    SourceOption,
    Sources,
    Store,
    StoreOut,
    Suffix,
    Turns,
    Version,
)
from imgmatch_df.cli.compiling import compile_kernels
from imgmatch_df.cli.exit_codes import (
    CommandGroup,
    Tally,
    check_streams,
    end_with,
    failed_in_store,
    reported,
    say,
    say_failed,
)
from imgmatch_df.cli.interrupts import end_on_signals
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.source_options import source_options, split_names, with_source_options
from imgmatch_df.cli.tables import SourceTable, query_kind
from imgmatch_df.columns import (
    RANK,
)
from imgmatch_df.documented import export as exporting
from imgmatch_df.documented import responses
from imgmatch_df.documented.values import to_json
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import ranking, writing
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.naming import ROW, source_text
from imgmatch_df.options import SourceOptions
from imgmatch_df.store.base import is_store

app = typer.Typer(
    name="imgmatch",
    cls=CommandGroup,
    help="Find duplicate and near-duplicate images, in folders, Parquet, CSV and JSON.",
    epilog=f"imgmatch remove-duplicates photos --radius {BMH1.near_radius}\n\n"
    "imgmatch rank-images cat.jpg photos -k 20",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_WITHOUT_JOIN: Final = (["visual-hash"], ["rank-images"])


def main() -> None:
    """Run the command line: the entry point of `imgmatch`."""
    end_on_signals()
    check_streams()
    before_compiling.append(partial(compile_kernels, compares=sys.argv[1:2] not in _WITHOUT_JOIN))
    # Typer inspects the functions of all commands, 0.03 s, so that it gets only the one that is called.
    called = [command for command in app.registered_commands if [_name(command)] == sys.argv[1:2]]
    app.registered_commands = called or app.registered_commands
    try:
        with reported():  # also errors before a command begins, as of --help
            app()
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


def _name(command: CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))


@app.callback()
def _imgmatch(_version: Version = False) -> None:
    pass


@app.command("visual-hash")
@with_source_options
def visual_hash(
    sources: Sources,
    out: StoreOut = None,
    source: SourceOption = None,
    key: Key = None,
    hash_types: HashTypesOption = None,
    retry_failed: RetryFailed = False,
    prune: PruneOption = False,
    prune_all: PruneAll = False,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """Hash images: bmh1 and phash, width, height, and the reason where an image failed.

    Example: imgmatch visual-hash photos -o hashes.duckdb

    A .duckdb is a store: an interrupted run keeps its hashes, and the next run hashes only new and changed images.
    Exit code 0: all hashed; 1: some failed, with the reason in the output; 2: wrong call.
    """
    stores = out is not None and is_store(out)
    store = given["store"]
    with reported(kept=storing.kept_text(out if stores else store)):
        if stores and store is not None:
            raise ArgumentError(f"-o {out} and --store are both stores\nHint: leave --store out.")
        store = storing.check_names(store, out=out)
        started, form = monotonic(), outputs.open_target(out, stores=True)
        options = source_options(given)
        table = inputs.open_table(sources, source, given["base_dir"], "visual_hash", store=store)
        inputs.say_blocked(table, options)
        inputs.check_documented(table, form)
        if out is not None and stores:
            dropped: writing.Prune = "all" if prune_all else prune
            inputs.name_columns(table, (), prefix, suffix, None)
            inputs.say_not_stored(table, key)
            _store(table, out, key, split_names(hash_types), options, retry_failed=retry_failed, prune=dropped)
            return
        store_only = {"--key": key, "--retry-failed": retry_failed, "--prune": prune, "--prune-all": prune_all}
        for option, wanted in store_only.items():
            if wanted:
                raise ArgumentError(f"{option} is only for stores\nHint: -o hashes.duckdb writes one.")
        kinds = split_names(hash_types) or inputs.default_kinds(table, form)
        outputs.check_kinds(kinds, form)
        table, naming = inputs.name_columns(table, inputs.hashed_names(kinds), prefix, suffix, form)
        tally = Tally()
        hashed = tally.count(inputs.hash_table(table, kinds, options), table.label)
        hashed = inputs.fitting(hashed, table, form) if form else hashed
        with outputs.written_whole(out, sys.stdout.buffer) as target, inputs.hashing(table, shown=options["progress"]):
            if form is outputs.DOCUMENTED:
                rows = inputs.run_query(hashed)
                response = responses.visual_hash_response(
                    rows,
                    seconds=monotonic() - started,
                    hash_types=kinds,
                    source=table.carrier,
                    attempts=options["attempts"],
                )
                outputs.write_response(response, target)
            elif form:
                outputs.write_table(hashed, target, form, naming, table.features)
            else:
                text = source_text(hashed.collect_schema(), table.label)
                rows = inputs.run_query(hashed.select(text, *inputs.hashed_names(kinds)))
        if not form:
            display.show_hashes(rows, kinds)
        tally.finish(is_whole=not table.unlisted)


app.command("remove-duplicates", cls=OptionalDepth)(with_source_options(remove_duplicates.remove_duplicates))


@app.command("rank-images", cls=NegativeQuery)
@with_source_options
def rank_images(
    query: Query,
    sources: OptionalSources = None,
    out: Out = None,
    k: K = None,
    flat: FlatOption = None,
    hash_type: HashTypeOption = None,
    column: HashColumn = None,
    min_votes: MinVotes = None,
    turns: Turns = None,
    source: SourceOption = None,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """Rank images by their distance to one image, nearest first.

    Example: imgmatch rank-images cat.jpg photos -k 20

    A table that has hashes is not hashed again. A hash is 0/1, hexadecimal (so are 16 digits) or decimal,
    also a negative one. Exit code 0: all ranked; 1: some failed and come last; 2: wrong call, or the query cannot be
    hashed.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        store = storing.check_names(store, out=out)
        started, form = monotonic(), outputs.open_target(out)
        options = source_options(given)
        query = os.path.expanduser(query)  # noqa: PTH111  # it need not be a path
        if sources:
            base_dir = given["base_dir"]
            table = inputs.open_table(
                sources, source, base_dir, "remove_duplicates", hash_type, query=query, column=column, store=store
            )
        else:
            table = inputs.open_ranking(query, source, given["base_dir"], hash_type, column, store)
        inputs.say_blocked(table, options)
        inputs.check_documented(table, form, turns=turns)
        kind = table.kind(hash_type or query_kind(query, table.stored))
        outputs.check_kinds((kind.name,), form)
        query_row = interruptible(lambda: inputs.hash_query(query, table, kind, options))
        wanted = query_row[kind.name].item()
        kinds, rule = inputs.compared_kinds(table, kind), inputs.flat_rule(flat, table, form)
        rules = RankArguments(hash_type=kind.name, min_votes=min_votes, k=k, flat=rule, turns=turns)
        added = [RANK, *ranking.measure_columns(kind, min_votes, turns)]
        table, naming = inputs.name_compared(table, kinds, added, prefix, suffix, form)
        hashed = inputs.fitting(inputs.hash_table(table, kinds, options), table, form)
        ranking.rank_images(hashed.collect_schema().to_frame(), wanted, **rules)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            tally = Tally.of(rows, kind, table.label)
            if not form:
                rows = rows.with_columns(source_text(rows.schema, table.label)).with_row_index(ROW)
            ranked = interruptible(lambda: ranking.rank_images(rows, wanted, **rules))
            if form is outputs.DOCUMENTED:
                # The documented response has every failed record, also with -k.
                failed = rows.filter(pl.col(kind.name).is_null())
                complete = pl.concat([ranked.filter(pl.col(RANK).is_not_null()), failed], how="diagonal")
                response = responses.rank_images_response(
                    query_row,
                    complete,
                    seconds=monotonic() - started,
                    hash_type=kind.name,
                    source=table.carrier,
                    attempts=options["attempts"],
                )
                outputs.write_response(response, target)
            elif form:
                outputs.write_table(ranked.lazy(), target, form, naming, table.features)
        if not form:
            display.show_ranking(ranked)
            inputs.say_store(table, kinds, rows.height)
        tally.finish(is_whole=not table.unlisted)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the images.")] = Path("imgmatch-demo"),
) -> None:
    """Draw images and edited copies of them, and find the copies.

    Example: imgmatch demo
    """
    with reported():
        from rich.console import Console

        from imgmatch_df.cli.demo import run_demo

        run_demo(folder, Console())


@app.command()
def ping() -> None:
    """Print the documented response of the service to ping.

    Example: imgmatch ping
    """
    with reported():
        typer.echo(to_json(responses.ping_response()))


@app.command()
def export(
    store: Store,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="OUT", show_default=False, help="A .json.")] = None,
) -> None:
    """Write the hashes of a store or a table as the documented JSON.

    Example: imgmatch export hashes.duckdb -o response.json
    """
    with reported():
        form = outputs.open_target(out)
        if out is not None and form is not outputs.DOCUMENTED:
            raise ArgumentError(
                f"an export is .json, got {Path(out).name!r}\nHint: imgmatch_df.read_hashes returns a frame."
            )
        table = None if is_store(store) or not Path(store).is_file() else inputs.open_hashed(store)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            if table is None:
                interruptible(lambda: exporting.export_response(store, target))
            else:
                interruptible(lambda: exporting.export_table(table.frame, target, table.stored, table.carrier))


def _store(
    table: SourceTable,
    out: str,
    key: str | None,
    kinds: tuple[str, ...],
    options: SourceOptions,
    *,
    retry_failed: bool,
    prune: writing.Prune,
) -> None:
    """Store new and changed rows, and print their numbers."""
    if prune and table.unlisted:
        # The rows of the folder would be deleted, and hashed again when it can be listed.
        say("nothing is pruned, since folders or archives could not be listed")
        prune = False
    hash_types = kinds or (table.request.hash_types if table.request else None)
    done = interruptible(
        lambda: writing.write_hashes(
            table.frame,
            out,
            source=table.source,
            key=key,
            hash_types=hash_types,
            retry_failed=retry_failed,
            prune=prune,
            **inputs.allowed_options(table, options),
        )
    )
    run = runs.current()
    run.add_output(out)
    run.statuses = Counter(done.status)
    run.counts = {name: value for name, value in done.to_dict().items() if isinstance(value, int)}
    say(display.stored_text(out, done), err=False)
    if done.n_failed:
        say_failed(failed_in_store(out, table.frame, table.label), done.n_failed)
    if done.n_failed and not retry_failed:
        say(_unchanged_text(done))
    n_failed = done.n_failed if run.strict else done.n_failed - done.n_failed_before
    end_with(n_failed, done.n_rows, is_whole=not table.unlisted)


def _unchanged_text(done: writing.WriteSummary) -> str:
    again = "--retry-failed tries them again"
    if done.n_failed_before and not runs.current().strict:
        return f"{done.n_failed_before:,} failed in an earlier run, which --strict would count; {again}"
    return again


app.command("find-copies", cls=OptionalDepth)(with_source_options(find_copies.find_copies))
app.command("match")(with_source_options(match.match))
app.command("leaks")(with_source_options(leaks.leaks))
app.command("apply")(reported(kept=removed.INTERRUPTED)(apply.apply_decisions))
app.command()(with_source_options(advise.advise))
app.command(cls=OptionalDepth)(with_source_options(report.report))
app.command()(reported()(serve.serve))
