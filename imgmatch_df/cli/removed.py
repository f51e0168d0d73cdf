"""The files of removed rows: their paths, for other tools, and a move into another folder.

A file that is also the file of a kept or stored row is never listed and never moved.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.archives.paths import split_path
from imgmatch_df.cli.exit_codes import say, say_lines
from imgmatch_df.cli.interrupts import keeping
from imgmatch_df.columns import CLUSTER_ID, KEPT, MODIFIED, MODIFIED_DTYPE, REFERENCE_ID, SIZE
from imgmatch_df.errors import ArgumentError, ColumnError, Failure
from imgmatch_df.hashes.kinds import SHA256
from imgmatch_df.moving.decisions import SCHEMA, read_decisions
from imgmatch_df.moving.planning import MovePlan, plan_moves
from imgmatch_df.moving.run import Done, run_moves
from imgmatch_df.progress import steps
from imgmatch_df.sources import parse_source

INTERRUPTED: Final = "undo.ndjson of the folder lists the moves; the same call moves the other files"
# The cluster of rows that match a row of another table, which is kept.
_ELSEWHERE: Final = "elsewhere"


class RemovedFiles(NamedTuple):
    """Files that may be removed.

    Parameters
    ----------
    paths
        Each path once, from the working directory. A source that is not a path is kept unchanged.
    sources
        Their sources, as the rows have them.
    n_wanted
        Removed rows that are left out because their file is also the file of a kept or stored row.
    n_unsure
        Removed rows that are left out because the file of the stored row that they match is not found.
    """

    paths: list[str]
    sources: list[str]
    n_wanted: int
    n_unsure: int


def check_source(schema: pl.Schema, source: str | None) -> str:
    """Return the column of sources, whose removed files can be listed and moved.

    Raises
    ------
    ColumnError
        If there is none, or it is not text.
    """
    if source is None or schema.get(source) != pl.String:
        raise ColumnError(
            "--list-removed and --move-removed need a column of paths, the sources are none\n"
            "Hint: --source names one, or -o writes the rows."
        )
    return source


def removed_files(
    clustered: pl.DataFrame, source: str, stored: pl.DataFrame | None = None, *, base_dir: str | None = None
) -> RemovedFiles:
    """Return the paths of the rows that are not kept, in order.

    The paths start from the working directory, wherever those of `source` start. Files are compared by their inodes, so
    a wanted file is recognized under any name. The start of relative paths in a store is unknown. So a removed row is
    also left out if the stored row that it matches has a relative path that leads to no file from here, or to another
    file than was hashed: the removed file may be that file, or the only copy of it.

    Parameters
    ----------
    clustered
        Column `source`, ``kept``, and ``reference_id`` if there are stored rows.
    source
        The column of sources, text; see `check_source`.
    stored
        Sources of the stored rows, as the first column, and their ``reference_id``; ``size`` and ``modified`` where
        they are known.
    base_dir
        Start of relative paths in `source`; None for the working directory.
    """
    wanted = {_file_id(value, base_dir) for value in clustered.filter(KEPT)[source].drop_nulls()}
    is_unsure = pl.lit(value=False)
    if stored is not None and stored.schema.dtypes()[0] == pl.String:
        wanted |= {_file_id(value, None) for value in stored.to_series().drop_nulls()}
        is_unsure = pl.col(REFERENCE_ID).is_in(_lost_ids(stored).implode()).fill_null(value=False)
    rows = (
        clustered.filter(~pl.col(KEPT), pl.col(source).is_not_null())
        .group_by(source, maintain_order=True)
        .agg(is_unsure.any().alias("is_unsure"))
    )
    unwanted = rows.filter(
        pl.Series([_file_id(value, base_dir) not in wanted for value in rows[source]], dtype=pl.Boolean)
    )
    sure = unwanted.filter(~pl.col("is_unsure"))
    paths = [value if (path := path_of(value, base_dir)) is None else path for value in sure[source]]
    return RemovedFiles(
        list(dict.fromkeys(paths)), sure[source].to_list(), rows.height - unwanted.height, unwanted.height - sure.height
    )


def freed_bytes(clustered: pl.DataFrame, source: str | None, *, base_dir: str | None = None) -> int | None:
    """Return the size of the files of the rows that are not kept, each file once; None where sizes are unknown.

    A file that is also the file of a kept row, by whatever name, does not count, and neither do members of archives.

    Parameters
    ----------
    clustered, base_dir
        As of `removed_files`, with the columns ``size`` and ``modified`` of `scan_images`.
    source
        The column of sources, or None.
    """
    schema = clustered.schema
    is_listed = schema.get(SIZE) == pl.UInt64 and schema.get(MODIFIED) == MODIFIED_DTYPE
    if source is None or schema.get(source) != pl.String or not is_listed:
        return None
    rows = clustered.select(pl.col(source).alias("file"), KEPT, SIZE, MODIFIED).drop_nulls()
    rows = rows.filter(pl.Series([_is_file(value, base_dir) for value in rows["file"]], dtype=pl.Boolean))
    # Names of one file have one size and one time: only such rows are looked up.
    is_unique = rows.select(pl.struct(SIZE, MODIFIED).is_unique()).to_series()
    others = rows.filter(~is_unique)
    known = others.with_columns(
        pl.Series("file", [str(_file_id(path, base_dir)) for path in others["file"]], pl.String)
    )
    files = known.group_by("file").agg(pl.col(KEPT).any(), pl.col(SIZE).first())
    return int(sum(part.filter(~pl.col(KEPT))[SIZE].sum() for part in (rows.filter(is_unique), files)))


def listed_paths(paths: Iterable[str]) -> list[str]:
    """Return paths as other tools read them, one per line; a path that begins with a hyphen begins with ``./``.

    Paths of members of archives, which other tools cannot open, are left out, and their number is printed.

    Raises
    ------
    ArgumentError
        If a path contains a line break.
    """
    whole = list(paths)
    files = [path for path in whole if split_path(path) is None]
    if len(files) < len(whole):
        say(f"not listed: {len(whole) - len(files):,} removed rows that are in archives")
    listed = [f"{os.curdir}{os.sep}{path}" if path.startswith("-") else path for path in files]
    broken = [path for path in listed if "\n" in path or "\r" in path]
    if broken:
        raise ArgumentError(
            f"{len(broken)} of the removed sources hold a line break, the first is {broken[0][:80]!r}\n"
            "Hint: -o writes them without mistake; or rename them."
        )
    return listed


def move_files(
    clustered: pl.DataFrame, source: str, files: RemovedFiles, folder: Path, *, base_dir: str | None, shown: bool
) -> bool:
    """Move removed files into `folder` as `imgmatch apply` does, and print the result; return whether all are moved.

    Parameters
    ----------
    clustered, source, base_dir
        As of `removed_files`.
    files
        What it has returned; no other file is moved.
    folder
        Folder below which the files keep their paths from the working directory, or from the root.
    shown
        Whether to show a progress bar.
    """
    schema = clustered.schema
    facts = [name for name in (SIZE, MODIFIED, SHA256.name) if schema.get(name) == SCHEMA[name] and name != source]
    matched = pl.col(REFERENCE_ID).is_not_null() if REFERENCE_ID in schema else pl.lit(value=False)
    cluster = pl.when(matched).then(pl.lit(_ELSEWHERE)).otherwise(pl.col(CLUSTER_ID).cast(pl.String))
    rows = clustered.filter(KEPT | pl.col(source).is_in(files.sources))
    decisions = read_decisions(rows.lazy().select(source, cluster.alias(CLUSTER_ID), KEPT, *facts), source)

    def make_plan(before: set[str]) -> MovePlan:
        return plan_moves(decisions, folder, base_dir=base_dir, before=before, kept_elsewhere={_ELSEWHERE})

    with keeping(INTERRUPTED), steps("moving", shown=shown) as report:
        done = run_moves(make_plan, folder, progress=report)
    say_moved(done, f"into {folder}")
    say_left_out(files, "moved")
    say_lines("not moved: ", done.failed)
    return not done.failed


def say_moved(done: Done, where: str) -> None:
    """Print how many files were moved, and how to move them back."""
    say(f"moved {len(done.moves):,} files {where}", err=False)
    if done.n_before:
        say(f"{done.n_before:,} more were moved before")
    if done.journal is not None:
        say(f"{done.n_bytes / 1e6:,.1f} MB; imgmatch apply {quote(str(done.journal))} --undo moves them back")


def path_of(value: str, base_dir: str | None = None) -> str | None:
    """Return the path of a source from the working directory, None for a source that is not a path."""
    found = parse_source(value)
    if isinstance(found, Failure) or found.kind != "path" or not isinstance(found.value, str):
        return None
    return os.path.join(base_dir or "", found.value)  # noqa: PTH118  # half the time of a Path, a million times


def _is_file(value: str, base_dir: str | None) -> bool:
    path = path_of(value, base_dir)
    return path is None or split_path(path) is None


def _file_id(value: str, base_dir: str | None) -> tuple[int, int] | str:
    """Return the device and inode of a file; the path where there is no file, and the source where it is not a path."""
    path = path_of(value, base_dir)
    if path is None:
        return value
    facts = _stat(path)
    if facts is None:
        return os.path.abspath(path)  # noqa: PTH100  # no file, so no link
    return facts.st_dev, facts.st_ino


def _lost_ids(stored: pl.DataFrame) -> pl.Series:
    """Return the ids of the stored rows whose relative path does not lead to the file that was hashed."""
    stamped = stored.schema.get(SIZE) == pl.UInt64 and stored.schema.get(MODIFIED) == MODIFIED_DTYPE
    stamps = [pl.col(SIZE), pl.col(MODIFIED).dt.epoch("us")] if stamped else [pl.lit(None), pl.lit(None).alias("none")]
    is_lost = [_is_lost(*row) for row in stored.select(pl.first(), *stamps).iter_rows()]
    return stored.filter(pl.Series(is_lost, dtype=pl.Boolean))[REFERENCE_ID]


def _is_lost(value: str | None, size: int | None, modified: int | None) -> bool:
    path = None if value is None else path_of(value)
    if path is None or os.path.isabs(path):  # noqa: PTH117
        return False
    facts = _stat(path)
    return facts is None or (modified is not None and (size, modified) != (facts.st_size, facts.st_mtime_ns // 1000))


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None


def say_left_out(files: RemovedFiles, done: str) -> None:
    """Say which removed rows are not `done`, "listed" or "moved"."""
    if files.n_wanted:
        say(f"not {done}: {files.n_wanted:,} removed rows whose file is also the file of a kept or stored row")
    if files.n_unsure:
        say(
            f"not {done}: {files.n_unsure:,} removed rows that match a stored row whose file is not found: relative "
            "paths of --reference start in another folder; run the command there"
        )
