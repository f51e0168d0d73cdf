"""The command `imgmatch match`."""

import sys
from typing import Any

import polars as pl

from imgmatch_df.cli import display, inputs, outputs, runs, storing
from imgmatch_df.cli.arguments import (
    FlatOption,
    HashColumn,
    HashTypeOption,
    MatchId,
    MatchK,
    MatchReference,
    MaxPairs,
    MinVotes,
    NearRadius,
    Out,
    Prefix,
    ReferenceColumn,
    SourceOption,
    Sources,
    Suffix,
    Turns,
)
from imgmatch_df.cli.exit_codes import Tally, reported, say
from imgmatch_df.cli.formats import fit_columns
from imgmatch_df.cli.hash_lists import count_flat
from imgmatch_df.cli.match_rows import MatchRows, find_kind, open_match_rows
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.renaming import Naming
from imgmatch_df.cli.source_options import source_options
from imgmatch_df.columns import DISTANCE, QUERY_ID, REFERENCE_ID, VOTES
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import pairs
from imgmatch_df.frames.flat import MIN_QUALITY
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.frames.reference import Reference
from imgmatch_df.naming import ROW, source_texts
from imgmatch_df.store.base import is_same_file


def match(
    sources: Sources,
    reference: MatchReference,
    out: Out = None,
    radius: NearRadius = None,
    hash_type: HashTypeOption = None,
    k: MatchK = None,
    column: HashColumn = None,
    reference_column: ReferenceColumn = None,
    reference_id: MatchId = None,
    min_votes: MinVotes = None,
    turns: Turns = None,
    flat: FlatOption = None,
    max_pairs: MaxPairs = MAX_PAIRS,
    source: SourceOption = None,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """List the images that match a list of hashes, a table, a store or a folder, nearest first.

    Example: imgmatch match inbox blocklist.csv --hash-type pdq --radius 31 -o hits.csv

    The columns of a list come along. Exit code 0: no match; 3: some images match, also where others failed; 1: none
    matches, and some images or some rows of REFERENCE have no hash; 2: wrong call.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        store = storing.check_names(store, out=out, reference=reference)
        options = source_options(given)
        if out is not None and is_same_file(out, reference):
            raise ArgumentError(
                f"-o {out} is REFERENCE, which the hits would replace\nHint: choose another name for the output."
            )
        form = outputs.open_target(out)
        if form is outputs.DOCUMENTED:
            raise ArgumentError("the documented .json has no matches\nHint: -o writes a .csv or a .parquet.")
        named = hash_type or find_kind(reference, ())
        table = inputs.open_table(
            sources, source, given["base_dir"], "remove_duplicates", named, column=column, store=store
        )
        inputs.say_blocked(table, options)
        kind = table.kind(named)
        if radius is None and not kind.by_votes:
            is_given = table.request is not None and table.request.range is not None
            radius = table.radius(kind) if is_given else kind.near_radius
        rule = inputs.flat_rule(flat, table, form)
        kinds = inputs.compared_kinds(table, kind)

        def find(rows: pl.DataFrame, others: Reference | pl.DataFrame) -> pl.DataFrame:
            return pairs.match(
                rows,
                others,  # type: ignore[arg-type]  # public callers have no such object
                radius,
                kind.name,
                k=k,
                min_votes=min_votes,
                flat=rule,
                max_pairs=max_pairs,
                turns=turns,
                progress=options["progress"],
            )

        # First without rows, so that errors of the call are raised before hours of hashing.
        no_rows = pl.DataFrame(schema={kind.name: kind.dtype})
        added = find(no_rows, no_rows).columns
        references = open_match_rows(reference, reference_id, reference_column, kind, rule, table, options)
        table, hashed = inputs.hash_compared(table, kinds, options, references.side.own)
        find(hashed.collect_schema().to_frame(), references.side)
        own = references.take(pl.Series([], dtype=pl.UInt32))
        fitted = None if form is None else fit_columns(own.schema, form)
        naming = Naming(prefix, suffix, tuple(added))
        if fitted is not None and form is not None:
            inputs.say_lost(fitted, form)
            naming.check(fitted.columns)
        elif naming.has_affixes:
            inputs.name_columns(table, (), prefix, suffix, None)  # raises
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            found = interruptible(lambda: _nearest_first(find(rows, references.side)))
            if form and fitted is not None:
                id_column = inputs.naming_column(rows, table)
                if id_column is None or references.names is None:
                    say("rows without a name are identified by their number, from 0")
                ids = None if id_column is None else rows[id_column]
                columns = references.take(found[REFERENCE_ID]).select(
                    expr.alias(naming.aside(name)) for name, expr in fitted.columns.items()
                )
                hits = _named(found, ids, references).hstack(columns)
                outputs.write_table(hits.lazy(), target, form, naming)
        tally = Tally.of(rows, kind, table.label)
        n_hits = found[QUERY_ID].n_unique()
        if out is not None or not form:
            within = f"within {radius} bits of {kind.name}" if radius is not None else f"by {kind.name} hashes"
            say(
                f"{n_hits:,} of {rows.height:,} images match {reference} {within}; failed {tally.n_failed:,}", err=False
            )
        if not form:
            names = source_texts(rows, table.label)
            numbered = found.with_columns(found[REFERENCE_ID].alias(ROW))
            display.show_matches(_named(numbered, None, references), names, references.take)
            inputs.say_store(table, kinds, rows.height)
        _say_flat(rows, references, is_guarded=rule == "identical" and kind.is_perceptual)
        is_whole = references.is_whole and not table.unlisted and not references.n_failed
        runs.current().counts = {"n_matched": n_hits, "n_pairs": found.height}
        tally.finish(is_whole=is_whole, is_found=n_hits > 0)


def _nearest_first(found: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs nearest first, ties in the order of their rows; identical files have no votes."""
    if DISTANCE in found.columns:
        far = pl.col(DISTANCE).cast(pl.Int64)
    else:
        far = pl.when(pl.col(VOTES) == 0).then(0).otherwise(256 - pl.col(VOTES).cast(pl.Int64))
    return found.sort(far, maintain_order=True)


def _named(found: pl.DataFrame, ids: pl.Series | None, references: MatchRows) -> pl.DataFrame:
    """Return the pairs with names in the place of row numbers."""
    sides = ((QUERY_ID, ids), (REFERENCE_ID, references.names))
    return found.with_columns(names.gather(found[side]).alias(side) for side, names in sides if names is not None)


def _say_flat(rows: pl.DataFrame, references: MatchRows, *, is_guarded: bool) -> None:
    """Print how many images show too little to be compared by their hashes."""
    n_flat = count_flat(rows) if is_guarded else 0
    for n, what in ((n_flat, "images"), (references.n_flat, "rows of REFERENCE")):
        if n:
            rule = f"{what} with a quality below {MIN_QUALITY} match identical files only"
            say(f"{rule}: {n:,}; --flat match compares them")
