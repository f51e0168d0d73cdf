"""The command `imgmatch remove-duplicates`."""

import os
import sys
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import polars as pl

from imgmatch_df.cli import display, inputs, outputs, removed, runs, storing
from imgmatch_df.cli.arguments import (
    AcrossFolders,
    Against,
    FlatOption,
    HashColumn,
    HashTypeOption,
    KeepName,
    LinkageName,
    ListRemoved,
    MinVotes,
    MoveRemoved,
    NotDuplicates,
    OnlyInputColumns,
    Out,
    PreferFolders,
    Prefix,
    ProtectFolders,
    Radius,
    ReferenceId,
    ReferenceSource,
    SourceOption,
    Sources,
    Suffix,
    Turns,
    VerbArguments,
    WithinColumn,
)
from imgmatch_df.cli.exit_codes import Tally, reported, say
from imgmatch_df.cli.folder_rules import FolderRules, check_within, declared_pairs, read_pairs
from imgmatch_df.cli.late_images import NUMBER, set_images_aside
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.reference_rows import open_reference, renamed_option
from imgmatch_df.cli.source_options import source_options
from imgmatch_df.columns import (
    CLUSTER_ID,
    DISTANCE,
    JOINED_AT,
    KEPT,
    REASON,
    REFERENCE_ID,
    REMOVED_RECORDS,
    REPRESENTATIVE_ID,
    VOTES,
)
from imgmatch_df.documented import responses
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import clustering
from imgmatch_df.frames.pairs import near_duplicates
from imgmatch_df.moving.planning import check_folder
from imgmatch_df.naming import source_text


def remove_duplicates(
    sources: Sources,
    out: Out = None,
    radius: Radius = None,
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
    against: Against = None,
    list_removed: ListRemoved = False,
    move_removed: MoveRemoved = None,
    source: SourceOption = None,
    only_input_columns: OnlyInputColumns = False,
    prefix: Prefix = "",
    suffix: Suffix = "",
    **given: Any,
) -> None:
    """Keep one of each group of near-duplicates. No file is deleted.

    Example: imgmatch remove-duplicates photos --radius 24 -o kept.parquet

    A table that has hashes is not hashed again. Exit code 0: all compared; 1: some failed and are kept, or were not
    moved; 2: wrong call.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        started, form = monotonic(), None if list_removed or move_removed is not None else outputs.open_target(out)
        options = source_options(given)
        if list_removed and out is not None:
            raise ArgumentError("--list-removed prints and -o writes\nHint: run the command once for each.")
        if move_removed is not None:
            if list_removed or out is not None:
                raise ArgumentError(
                    "--move-removed moves files, --list-removed prints and -o writes\n"
                    "Hint: run the command once for each, with --move-removed last."
                )
            check_folder("--move-removed", move_removed, sources)
        if only_input_columns and (form is None or not form.is_table):
            raise ArgumentError(
                "--only-input-columns is for a table of the kept rows\nHint: -o writes a .parquet, or leave it out."
            )
        reference = renamed_option("--reference", reference, "--against", against)
        store = storing.check_names(store, out=out, reference=reference)
        if reference_id is not None and reference is None:
            raise ArgumentError("--reference-id has no effect without --reference\nHint: name the reference rows.")
        if reference is not None and form is outputs.DOCUMENTED:
            raise ArgumentError(
                "the documented .json cannot hold rows that match a reference row\nHint: -o writes a .parquet."
            )
        table = inputs.open_table(
            sources, source, given["base_dir"], "remove_duplicates", hash_type, column=column, store=store
        )
        inputs.say_blocked(table, options)
        inputs.check_documented(table, form, turns=turns)
        declared = None if not_duplicates is None else read_pairs(not_duplicates)
        rules = FolderRules(prefer or (), protect or (), across_folders)
        places = rules.check(inputs.sources_of(table, wanted=rules.are_given), sources, given["base_dir"])
        check_within(within, table.columns)
        kind = table.kind(hash_type)
        outputs.check_kinds((kind.name,), form)
        call = VerbArguments(
            radius=table.radius(kind) if radius is None and not kind.by_votes else radius,
            hash_type=kind.name,
            min_votes=min_votes,
            linkage=linkage,
            keep="first",
            protect=None,
            across=None,
            within=None,
            not_duplicates=None,
            flat=inputs.flat_rule(flat, table, form),
            turns=turns,
        )
        nests = reference is None and form is not None and form.nests and not only_input_columns
        measure = VOTES if kind.by_votes else DISTANCE
        added = [REMOVED_RECORDS] if nests else [CLUSTER_ID, KEPT, REASON, measure, JOINED_AT, REPRESENTATIVE_ID]
        added += [] if reference is None else [REFERENCE_ID]
        kinds = inputs.compared_kinds(table, kind)
        table, naming = inputs.name_compared(table, kinds, added, prefix, suffix, form, only_input=only_input_columns)
        listed_by = (
            removed.check_source(table.frame.collect_schema(), table.source) if list_removed or move_removed else None
        )
        hashed = inputs.fitting(inputs.hash_table(table, kinds, options), table, form)
        if nests and form is not outputs.DOCUMENTED:
            inputs.say_not_nested(hashed)
        late = set_images_aside(hashed, table, form, None if within is None else naming.aside(within))
        if late is not None:
            hashed, naming = late.rows, replace(naming, dropped=(*naming.dropped, NUMBER))
        # First without rows, so that errors of the call are raised before hours of hashing.
        no_rows = hashed.collect_schema().to_frame()
        call["keep"] = places.keep(keep, table.label, no_rows.schema)
        call["protect"], call["across"] = places.protected(table.label), places.across(table.label)
        call["within"] = None if within is None else naming.aside(within)
        (clustering.remove_duplicates if nests else clustering.cluster)(no_rows, **call)
        references = None
        if reference is not None:
            references = open_reference(reference, reference_id, column, kind, call["flat"], table, options)
        reference_side, reference_files, reference_is_whole = references[:3] if references else (None, None, True)
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = inputs.collect(hashed, table, kind, shown=options["progress"])
            if declared is not None:
                names = inputs.naming_column(rows, table)
                ids = names if form and not nests else None
                call["not_duplicates"] = declared_pairs(declared, rows, names, ids, given["base_dir"])
            if nests:
                result = interruptible(
                    lambda: clustering.nest_duplicates(
                        rows,
                        **call,
                        options={"progress": options["progress"]},
                        with_bytes=form is outputs.DOCUMENTED,
                    )
                )
            else:
                # The screen finds rows by their number.
                id_column = inputs.naming_column(rows, table) if form else None
                has_names = id_column is not None and (reference_side is None or reference_side.id is not None)
                if form and not only_input_columns and not has_names:
                    say("rows without a name are identified by their number, from 0")
                result = interruptible(
                    lambda: clustering.cluster(
                        rows,
                        **call,
                        id=id_column,
                        reference=reference_side,  # type: ignore[arg-type]  # public callers have no such object
                        progress=options["progress"],
                    )
                )
            if form is outputs.DOCUMENTED:
                response = responses.remove_duplicates_response(
                    result,
                    seconds=monotonic() - started,
                    hash_type=kind.name,
                    source=table.carrier,
                    attempts=options["attempts"],
                )
                outputs.write_response(response, target)
            elif form:
                result_rows = result.filter(KEPT) if only_input_columns else result
                written = result_rows.lazy() if late is None else late.restore(result_rows)
                if only_input_columns:
                    written = naming.only_input(written, table.frame.collect_schema().names())
                outputs.write_table(written, target, form, naming, table.features)
        tally = Tally.of(rows, kind, table.label)
        if list_removed and listed_by is not None:
            files = removed.removed_files(result, listed_by, reference_files, base_dir=given["base_dir"])
            # As bytes, because a name need not be UTF-8.
            sys.stdout.buffer.write(b"".join(os.fsencode(path) + b"\n" for path in removed.listed_paths(files.paths)))
            sys.stdout.buffer.flush()
            removed.say_left_out(files, "listed")
        elif out is not None or not form:
            n_kept = result.height if nests else int(result[KEPT].sum())
            n_matched = None if references is None else result[REFERENCE_ID].count()
            say(display.counts_text(rows.height, n_kept, n_matched, n_failed=tally.n_failed), err=False)
        if not form and not list_removed:
            clustered = result.with_columns(source_text(result.schema, table.label))
            base_dir = given["base_dir"]
            chains = call["linkage"] in (None, "connected") and not kind.by_votes
            display.show_clusters(clustered, call["radius"], partial(_is_chained, call) if chains else None)
            if not result[KEPT].all() and (n_bytes := removed.freed_bytes(result, table.source, base_dir=base_dir)):
                display.show_freed(n_bytes)
            inputs.say_store(table, kinds, rows.height)
        n_removed = rows.height - result.height if nests else int((~result[KEPT]).sum())
        runs.current().counts = {"n_kept": rows.height - n_removed, "n_removed": n_removed}
        if call["radius"] == 0 < kind.near_radius and n_removed == 0 and rows.height - tally.n_failed > 1:
            say(f"equal hashes only; --radius {kind.near_radius} finds edited copies")
        all_moved = True
        if move_removed is not None and listed_by is not None:
            files = removed.removed_files(result, listed_by, reference_files, base_dir=given["base_dir"])
            all_moved = removed.move_files(
                result, listed_by, files, move_removed, base_dir=given["base_dir"], shown=options["progress"]
            )
        tally.finish(is_whole=reference_is_whole and not table.unlisted and all_moved)


def _is_chained(call: VerbArguments, cluster: pl.DataFrame) -> bool:
    """Return whether two rows of a cluster are farther apart than the radius."""
    pairs = near_duplicates(
        cluster.drop(DISTANCE),
        call["radius"],
        call["hash_type"],
        flat=call["flat"],
        turns=call["turns"],
    )
    return pairs.height < cluster.height * (cluster.height - 1) // 2
