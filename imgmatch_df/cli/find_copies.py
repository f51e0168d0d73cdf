"""The command `imgmatch find-copies`."""

import sys
from typing import Any

import polars as pl

from imgmatch_df.cli import display, inputs, outputs, runs, storing
from imgmatch_df.cli.arguments import (
    AcrossFolders,
    CopiesRadius,
    FlatOption,
    MaxPairs,
    MinVotes,
    NotDuplicates,
    Out,
    SourceOption,
    Sources,
    WithinColumn,
)
from imgmatch_df.cli.exit_codes import Tally, reported, say
from imgmatch_df.cli.folder_rules import FolderRules, check_within, declared_pairs, read_pairs
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.source_options import source_options
from imgmatch_df.columns import DETAIL, QUALITY, STATUS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import copies
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.hashes.kinds import LOCAL, PDQ
from imgmatch_df.naming import source_texts


def find_copies(
    sources: Sources,
    out: Out = None,
    min_votes: MinVotes = None,
    radius: CopiesRadius = PDQ.near_radius,
    flat: FlatOption = None,
    across_folders: AcrossFolders = None,
    within: WithinColumn = None,
    not_duplicates: NotDuplicates = None,
    max_pairs: MaxPairs = MAX_PAIRS,
    source: SourceOption = None,
    **given: Any,
) -> None:
    """List the pairs of images that are copies: cropped, framed, captioned, part of a collage, turned.

    Example: imgmatch find-copies photos -o copies.csv

    A table that has local and pdq hashes is not hashed again. Exit code 0: all compared; 1: some failed and match
    nothing; 2: wrong call.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        store = storing.check_names(store, out=out)
        form = outputs.open_target(out)
        options = source_options(given)
        if form is outputs.DOCUMENTED:
            raise ArgumentError("the documented .json has no pairs of copies\nHint: -o writes a .parquet.")
        table = inputs.open_table(sources, source, given["base_dir"], "remove_duplicates", LOCAL.name, store=store)
        inputs.say_blocked(table, options)
        declared = None if not_duplicates is None else read_pairs(not_duplicates)
        rules = FolderRules(depth=across_folders)
        places = rules.check(inputs.sources_of(table, wanted=rules.are_given), sources, given["base_dir"])
        check_within(within, table.columns)
        rule = inputs.flat_rule(flat, table, form)
        kinds = (LOCAL.name, *inputs.compared_kinds(table, PDQ))
        made = inputs.hashed_names(kinds) if inputs.needs_hashing(table, kinds) else []
        table, naming = inputs.name_columns(table, made, "", "", None)
        group = None if within is None else naming.aside(within)
        hashed = inputs.hash_table(table, kinds, options)
        schema = hashed.collect_schema()
        labels = list(dict.fromkeys(name for name in (table.label, table.id_column, group) if name in schema))
        hashed = hashed.select(
            *labels, *(name for name in (*kinds, QUALITY, STATUS, DETAIL) if name in schema and name not in labels)
        )

        def find(rows: pl.DataFrame, id_column: str | None, not_duplicates: pl.DataFrame | None = None) -> pl.DataFrame:
            return copies.find_copies(
                rows,
                min_votes=min_votes,
                radius=radius,
                id=id_column,
                across=places.across(table.label),
                within=group,
                not_duplicates=not_duplicates,
                flat=rule,
                max_pairs=max_pairs,
                progress=options["progress"],
            )

        find(hashed.collect_schema().to_frame(), None)  # errors of the call are raised before hours of hashing
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, LOCAL, shown=options["progress"])
            # The screen finds rows by their number.
            id_column = inputs.naming_column(rows, table) if form else None
            if form and id_column is None:
                say("rows without a name are identified by their number, from 0")
            others = None
            if declared is not None:
                names = inputs.naming_column(rows, table)
                others = declared_pairs(declared, rows, names, id_column, given["base_dir"])
            pairs = interruptible(lambda: find(rows, id_column, others))
            if form:
                outputs.write_table(pairs.lazy(), target, form)
        tally = Tally.of(rows, LOCAL, table.label)
        runs.current().counts = {"n_pairs": pairs.height}
        if out is not None or not form:
            say(f"{pairs.height:,} pairs of copies among {rows.height:,} rows; failed {tally.n_failed:,}", err=False)
        if not form:
            display.show_copies(pairs, source_texts(rows, table.label))
            inputs.say_store(table, kinds, rows.height)
        tally.finish(is_whole=not table.unlisted)
