"""The command `imgmatch advise`: what each radius finds in a table of images, and which radius to take."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgmatch_df.cli import display, inputs, outputs, storing
from imgmatch_df.cli.arguments import (
    FlatOption,
    HashColumn,
    HashTypeOption,
    MinVotes,
    Out,
    SourceOption,
    Sources,
)
from imgmatch_df.cli.exit_codes import Tally, reported, say
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.source_options import source_options
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import advice, suggestions
from imgmatch_df.frames.suggestions import RadiusSuggestion

if TYPE_CHECKING:
    from imgmatch_df.options import SourceOptions

MaxRadius = Annotated[
    int | None,
    typer.Option(metavar="BITS", show_default="bmh1 128, phash 16", help="Largest radius to look at."),
]
MaxShare = Annotated[
    float, typer.Option(metavar="SHARE", help="Maximum share of the pairs that may be of unrelated images.")
]
Edits = Annotated[
    bool, typer.Option("--edits", help="Also edit up to 100 of the images in memory, and count the copies found.")
]


def advise(
    sources: Sources,
    out: Out = None,
    hash_type: HashTypeOption = None,
    column: HashColumn = None,
    max_radius: MaxRadius = None,
    min_votes: MinVotes = None,
    max_share: MaxShare = suggestions.MAX_SHARE,
    edits: Edits = False,
    flat: FlatOption = None,
    source: SourceOption = None,
    **given: Any,
) -> None:
    """Show what each radius finds, and suggest one; for --hash-type local, what each number of votes finds.

    Example: imgmatch advise photos

    A table that has hashes is not hashed again. The share of pairs of unrelated images is an estimate from the hashes
    themselves. Exit code 0: all rows have hashes; 1: some failed; 2: wrong call.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        store = storing.check_names(store, out=out)
        form = outputs.check_target(out) if out is not None or is_screen() else outputs.CSV
        if form is outputs.DOCUMENTED:
            raise ArgumentError("the documented .json has no radii\nHint: -o writes a .parquet or .csv.")
        options = source_options(given)
        advice.check_max_share(max_share)
        table = inputs.open_table(
            sources, source, given["base_dir"], "remove_duplicates", hash_type, column=column, store=store
        )
        inputs.say_blocked(table, options)
        kind = table.kind(hash_type)
        kinds, rule = inputs.compared_kinds(table, kind), inputs.flat_rule(flat, table, None)
        table, _ = inputs.name_compared(table, kinds, [], "", "", None)
        if edits and kind.by_votes:
            raise ArgumentError(f"--edits counts distances, and {kind.name} has votes\nHint: leave --edits out.")
        if edits and table.source is None:
            raise ArgumentError("--edits needs the images\nHint: --source names the column of images.")
        images: SourceOptions = inputs.allowed_options(table, options) if edits else {"progress": options["progress"]}
        edited = table.source if edits else None
        hashed = inputs.hash_table(table, kinds, options)
        # A query that is not run, so that errors of the call are raised before hours of hashing.
        looked_at: dict[str, Any] = {"max_radius": max_radius, "min_votes": min_votes, "source": edited, "flat": rule}
        advice.profile_radii(hashed, kind.name, **looked_at, **images)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            profile = interruptible(lambda: advice.profile_radii(rows, kind.name, **looked_at, **images))
            if form:
                outputs.write_table(profile.lazy(), target, form)
        tally = Tally.of(rows, kind, table.label)
        found = suggestions.suggestion_of(profile, kind, max_share)
        n_hashes = rows[kind.name].count()
        say(f"{n_hashes:,} hashes, {kind.name}: {found.reason}", err=form is not None)
        if not form:
            display.show_profile(profile, found.radius if isinstance(found, RadiusSuggestion) else found.min_votes)
            inputs.say_store(table, kinds, rows.height)
        tally.finish(is_whole=not table.unlisted)


def is_screen() -> bool:
    """Return whether the output is shown to a person."""
    return sys.stdout.isatty()
