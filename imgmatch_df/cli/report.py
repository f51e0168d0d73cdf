"""The command `imgmatch report`: one HTML page that shows the clusters of a table of images."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from imgmatch_df.cli import inputs, outputs, storing
from imgmatch_df.cli.arguments import (
    ACROSS_FOLDERS,
    AcrossFolders,
    FlatOption,
    HashColumn,
    HashTypeOption,
    KeepName,
    LinkageName,
    MinVotes,
    NotDuplicates,
    PreferFolders,
    ProtectFolders,
    ReferenceId,
    ReferenceSource,
    SourceOption,
    Sources,
    Turns,
    WithinColumn,
)
from imgmatch_df.cli.exit_codes import Tally, reported, say
from imgmatch_df.cli.folder_rules import FolderRules, declared_pairs, read_pairs
from imgmatch_df.cli.given_sources import GivenSources
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.reference_rows import open_reference
from imgmatch_df.cli.source_options import source_options
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import shown_names
from imgmatch_df.options import make_options
from imgmatch_df.report.building import make_report
from imgmatch_df.report.inputs import MAX_PICTURES, ReportRequest, read_inputs
from imgmatch_df.sources import path_as_text, redact

_PAGE: Final = "report.html"

Page = Annotated[str, typer.Option("--out", "-o", metavar="OUT", help="The page: .html.")]
PageRadius = Annotated[
    int | None,
    typer.Option(
        "--radius", metavar="BITS", show_default="what advise suggests", help="Radius that the page begins with."
    ),
]
SliderRadius = Annotated[
    int | None,
    typer.Option(metavar="BITS", show_default="bmh1 96, phash 16", help="Largest radius of the slider."),
]
MaxPictures = Annotated[int, typer.Option(metavar="N", help="Maximum number of thumbnails.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", show_default=False, help="Title of the page.")]


def report(
    sources: Sources,
    out: Page = _PAGE,
    radius: PageRadius = None,
    hash_type: HashTypeOption = None,
    column: HashColumn = None,
    min_votes: MinVotes = None,
    linkage: LinkageName = None,
    keep: KeepName = "first",
    prefer: PreferFolders = None,
    protect: ProtectFolders = None,
    across_folders: AcrossFolders = None,
    within: WithinColumn = None,
    not_duplicates: NotDuplicates = None,
    flat: FlatOption = None,
    reference: ReferenceSource = None,
    reference_id: ReferenceId = None,
    turns: Turns = None,
    max_radius: SliderRadius = None,
    max_pictures: MaxPictures = MAX_PICTURES,
    title: Title = None,
    source: SourceOption = None,
    **given: Any,
) -> None:
    """Show the clusters of near-duplicates in one HTML page, where a person chooses which images to keep.

    Example: imgmatch report photos -o report.html

    The page loads nothing and changes no file: it saves decisions.csv, for imgmatch apply. A table that has hashes is
    not hashed again. Exit code 0: all rows have hashes; 1: some failed; 2: wrong call.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        store = storing.check_names(store, out=out, reference=reference)
        outputs.check_page(out)
        options = source_options(given)
        if reference_id is not None and reference is None:
            raise ArgumentError("--reference-id has no effect without --reference\nHint: name the reference rows.")
        table = inputs.open_table(
            sources, source, given["base_dir"], "remove_duplicates", hash_type, column=column, store=store
        )
        inputs.say_blocked(table, options)
        declared = None if not_duplicates is None else read_pairs(not_duplicates)
        rules = FolderRules(prefer or (), protect or (), across_folders)
        places = rules.check(inputs.sources_of(table, wanted=rules.are_given), sources, given["base_dir"])
        if within is not None and within not in table.columns:
            shown = shown_names(dict.fromkeys(table.columns))
            raise ColumnError(f"no column {within!r}, the table has {shown}\nHint: --within names one of these.")
        kind = table.kind(hash_type)
        kinds = inputs.compared_kinds(table, kind)
        table, naming = inputs.name_compared(table, kinds, [], "", "", None)
        recipe = table.recipe(kind, make_options(**options).recipe)
        chosen: dict[str, object] = {
            "--radius": radius,
            "--hash-type": hash_type,
            "--column": column,
            "--min-votes": min_votes,
            "--linkage": linkage,
            "--keep": keep,
            "--prefer": prefer,
            "--protect": protect,
            "--across-folders": across_folders,
            "--within": within,
            "--not-duplicates": not_duplicates,
            "--flat": flat,
            "--reference": reference,
            "--turns": turns,
            "--source": source,
        }
        request = ReportRequest(
            radius=radius,
            hash_type=kind.name,
            min_votes=min_votes,
            linkage=linkage,
            source=table.source,
            flat=inputs.flat_rule(flat, table, None),
            turns=turns,
            max_radius=max_radius,
            max_pictures=max_pictures,
            title=None if title is None else path_as_text(title),
            command=_command_text(sources, chosen),
            decode=None if recipe is None else recipe.text,
            left_out=[
                {"reason": f"{reason}{f' {suffix}' if suffix else ''}".replace("_", " "), "count": count}
                for (reason, suffix), count in sorted(table.left_out.items(), key=str)
            ],
            images=table.frame,
            label=table.label,
        )
        hashed = inputs.fitting(inputs.hash_table(table, kinds, options), table, None)
        read_options = inputs.allowed_options(table, options)
        no_rows = hashed.collect_schema().to_frame()
        request = replace(
            request,
            keep=places.keep(keep, table.label, no_rows.schema),
            protect=places.protected(table.label),
            across=places.across(table.label),
            within=None if within is None else naming.aside(within),
        )
        # First without rows, so that errors of the call are raised before hours of hashing.
        read_inputs(no_rows, replace(request, images=table.frame.head(0)), read_options)
        if reference is not None:
            references = open_reference(reference, reference_id, column, kind, request.flat, table, options)
            request = replace(request, reference=references.side)
        is_whole = not table.unlisted and (reference is None or references.is_whole)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            names = inputs.naming_column(rows, table)
            request = replace(request, id=names)
            if declared is not None:
                pairs = declared_pairs(declared, rows, names, names, given["base_dir"])
                request = replace(request, not_duplicates=pairs)
            page = interruptible(lambda: make_report(rows, request, read_options))
            with Path(str(target)).open("wb") as file:
                n_bytes = page.write_html(file)
        if page.suggestion is not None:
            say(page.suggestion.reason)
        say(f"{out}: {page.summary()}, {n_bytes / 1e6:,.1f} MB", err=False)
        inputs.say_store(table, kinds, rows.height)
        Tally.of(rows, kind, table.label).finish(is_whole=is_whole)


def _command_text(sources: list[str], chosen: dict[str, object]) -> str:
    """Return the command that makes the same page again, without credentials."""
    words = ["imgmatch", "report", *GivenSources.of(sources).words()]
    for name, value in chosen.items():
        if value is True or value is False:
            words.append(name if value else f"--no-{name[2:]}")
        elif name == ACROSS_FOLDERS and value is not None:
            words.append(f"{name}={value}")
        elif value is not None:
            words += [word for one in (value if isinstance(value, list) else [value]) for word in (name, str(one))]
    return shlex.join(redact(path_as_text(word)) for word in words)
