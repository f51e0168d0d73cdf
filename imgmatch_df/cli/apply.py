"""The command `imgmatch apply`: it moves the removed files of a table of decisions, and moves them back."""

import sys
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from imgmatch_df.cli.exit_codes import SOME_FAILED, say, say_lines
from imgmatch_df.cli.input_formats import INPUT_FORMATS, input_suffix, suffixes_shown
from imgmatch_df.cli.removed import say_moved
from imgmatch_df.cli.table_files import check_encoding, is_list, scan_table
from imgmatch_df.columns import MODIFIED, SIZE
from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.kinds import SHA256
from imgmatch_df.moving import planning
from imgmatch_df.moving.decisions import read_decisions
from imgmatch_df.moving.journal import LINKS
from imgmatch_df.moving.planning import MovePlan
from imgmatch_df.moving.run import Done, preview_moves, run_moves, undo_moves
from imgmatch_df.progress import steps


def apply_decisions(
    decisions: Annotated[
        Path,
        typer.Argument(
            metavar="DECISIONS", show_default=False, help="Table of remove-duplicates -o; with --undo, an undo.ndjson."
        ),
    ],
    move_to: Annotated[
        Path | None,
        typer.Option(
            "--move-to",
            metavar="DIR",
            show_default=False,
            help="Move the removed files into DIR, below which they keep their paths.",
        ),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(LINKS), show_default=False, help="Make a link to the kept file at each old place."
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Move the files of an undo.ndjson back.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the moves, and change nothing.")] = False,
    source: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", show_default="path", help="Column of DECISIONS with the paths."),
    ] = None,
    base_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", show_default="working directory", help="Start of relative paths of DECISIONS."),
    ] = None,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", show_default="on a terminal", help="Show a bar.")
    ] = None,
) -> None:
    """Move the removed files of a table into a folder. No file is deleted or replaced.

    Example: imgmatch apply decisions.csv --move-to removed --dry-run

    Undo: imgmatch apply removed/undo.ndjson --undo

    Exit code 0: all moved; 1: some were not, with the reason; 2: wrong call.
    """
    if not decisions.is_file():
        raise ArgumentError(f"no such file: {str(decisions)!r}\nHint: remove-duplicates -o writes a table.")
    shown = sys.stderr.isatty() if progress is None else progress
    if undo:
        others = {"--move-to": move_to, "--link": link, "--source": source, "--base-dir": base_dir}
        for option, value in others.items():
            if value is not None:
                raise ArgumentError(f"{option} has no effect with --undo\nHint: leave {option} out.")
        with steps("moving back", shown=shown) as report:
            done = undo_moves(decisions, is_dry=dry_run, progress=report)
        _finish(done, "back", is_dry=dry_run, is_back=True)
        return
    if move_to is None:
        raise ArgumentError("--move-to is missing\nHint: --move-to removed moves the files there; no file is deleted.")
    if link is not None and link not in LINKS:
        raise ArgumentError(f"--link must be {' or '.join(LINKS)}, got {link!r}\nHint: hard needs one file system.")
    rows = open_decisions(decisions, source)
    planning.check_folder("--move-to", move_to, planning.folders_of(rows, base_dir))

    def make_plan(before: set[str]) -> MovePlan:
        return planning.plan_moves(rows, move_to, base_dir=base_dir, link=link, before=before)  # type: ignore[arg-type]  # checked above

    if dry_run:
        done = preview_moves(make_plan, move_to)
    else:
        with steps("moving", shown=shown) as report:
            done = run_moves(make_plan, move_to, link=link, progress=report)  # type: ignore[arg-type]  # checked above
    _finish(done, f"into {move_to}", is_dry=dry_run)


def open_decisions(path: Path, source: str | None) -> pl.DataFrame:
    """Return the decisions in a file, see `read_decisions`; print which facts it does not have."""
    suffix = input_suffix(str(path))
    if suffix is None:
        raise ArgumentError(
            f"unknown input ending {path.suffix!r} of {path.name!r}, known are "
            f"{', '.join(suffixes_shown(INPUT_FORMATS))}\n"
            "Hint: remove-duplicates -o decisions.csv writes a table."
        )
    if suffix.split(".")[1] == "json" and not is_list(str(path)):
        raise ArgumentError(
            f"{str(path)!r} is a documented response, which has no facts of the files\n"
            "Hint: remove-duplicates -o decisions.csv writes a table."
        )
    if INPUT_FORMATS[suffix].is_text:
        check_encoding(str(path), suffix)
    rows = read_decisions(scan_table([str(path)], suffix), source)
    unknown = [name for name in (SIZE, MODIFIED, SHA256.name) if rows[name].null_count() == rows.height]
    if len(unknown) == 3:
        say(f"files that have changed since are not noticed: the table has no {', '.join(unknown)}")
    return rows


def _finish(done: Done, where: str, *, is_dry: bool, is_back: bool = False) -> None:
    """Print the result of a run, and exit with 1 if files were not moved."""
    if is_dry:
        for move in done.moves:
            ends = (move.target, move.source) if is_back else (move.source, move.target)
            say(" -> ".join(map(planning.shown_path, ends)), err=False)
        say(f"would move {len(done.moves):,} files {where}, {done.n_bytes / 1e6:,.1f} MB; nothing is moved", err=False)
    elif is_back:
        say(f"moved {len(done.moves):,} files {where}", err=False)
    else:
        say_moved(done, where)
    if sys.stderr.isatty():
        say_lines("not moved: ", done.failed)
    else:
        for line in done.failed:
            say(f"not moved: {line}")
    if done.failed:
        raise typer.Exit(SOME_FAILED)
