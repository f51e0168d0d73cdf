"""The paths of removed pictures, for the user's own tools: never one whose file is still wanted."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from imgmatch_df.columns import KEPT, MODIFIED, MODIFIED_DTYPE, SIZE
from imgmatch_df.errors import ArgumentError, ColumnError, Failure
from imgmatch_df.sources import parse_source


class Listing(NamedTuple):
    """What may be removed: paths, each once; and how many rows are left out, whose file is wanted or may be."""

    paths: list[str]
    n_wanted: int
    n_unsure: int


def check_source(schema: pl.Schema, source: str | None) -> str:
    """Return the column of sources, whose removed rows can be listed.

    Raises
    ------
    ColumnError
        If there is none, or it is not text.
    """
    if source is None or schema.get(source) != pl.String:
        raise ColumnError(
            "--list-removed needs a column of paths, the sources are none\n"
            "Hint: --source names one, or -o writes the rows."
        )
    return source


def removed_paths(
    clustered: pl.DataFrame, source: str, stored: pl.DataFrame | None = None, *, base_dir: str | None = None
) -> Listing:
    """Return the paths of the rows that are not kept, in order, and how many are left out.

    A path starts from the working directory, wherever that of its source started, and one that begins with a hyphen
    as ``./-``; a source that names no file is returned as it is.

    What is done to the listed files must not harm a picture that is wanted: a removed row whose file is also that of a
    kept row or of a stored one is left out, under whatever name, link or relative path the two have it. Nobody knows
    where relative paths of a store start: one that leads to no file from here, or to another than was hashed, may be
    any file whose path ends so.

    Parameters
    ----------
    clustered
        Column `source`, and `kept`.
    source
        The column of sources, text; `check_source` tells it early.
    stored
        Sources that the rows were compared with, as the first column; ``size`` and ``modified`` where they are known.
    base_dir
        Where relative paths of `source` start; None for the working directory.

    Returns
    -------
    Listing

    Raises
    ------
    ArgumentError
        If a listed path holds a line break, so that it would be read as two.
    """
    wanted = {_file_of(value, base_dir) for value in clustered.filter(KEPT)[source].drop_nulls()}
    endings: set[tuple[str, ...]] = set()
    if stored is not None and stored.schema.dtypes()[0] == pl.String:
        wanted |= {_file_of(value, None) for value in stored.to_series().drop_nulls()}
        endings = set(_lost_endings(stored))
    removed = clustered.filter(~pl.col(KEPT))[source].drop_nulls().unique(maintain_order=True)
    unwanted = [value for value in removed if _file_of(value, base_dir) not in wanted]
    listed = [value for value in unwanted if not (endings and _ends_in(value, base_dir, endings))]
    paths = list(dict.fromkeys(_listed(value, base_dir) for value in listed))
    broken = [value for value in paths if "\n" in value or "\r" in value]
    if broken:
        raise ArgumentError(
            f"{len(broken)} of the removed sources hold a line break, the first is {broken[0][:80]!r}\n"
            "Hint: -o writes them without mistake; or rename them."
        )
    return Listing(paths, len(removed) - len(unwanted), len(unwanted) - len(listed))


def _listed(value: str, base_dir: str | None) -> str:
    path = _path_of(value, base_dir)
    # No program takes it for one of its options.
    return value if path is None else f"{os.curdir}{os.sep}{path}" if path.startswith("-") else path


def _path_of(value: str, base_dir: str | None = None) -> str | None:
    """Return the path from the working directory that a source is, None for what is no path."""
    found = parse_source(value)
    if isinstance(found, Failure) or found.kind != "path" or not isinstance(found.value, str):
        return None
    return os.path.join(base_dir or "", found.value)  # noqa: PTH118  # half the time of a Path, a million times


def _file_of(value: str, base_dir: str | None) -> tuple[int, int] | str:
    """Return what is the same for all names of one file: its number; and for what is no file, the source itself."""
    path = _path_of(value, base_dir)
    if path is None:
        return value
    facts = _stat(path)
    if facts is None:
        return os.path.abspath(path)  # noqa: PTH100  # no file, so no link
    return facts.st_dev, facts.st_ino


def _lost_endings(stored: pl.DataFrame) -> Iterator[tuple[str, ...]]:
    """Yield how the paths of those stored files end that are not found from the working directory."""
    stamped = stored.schema.get(SIZE) == pl.UInt64 and stored.schema.get(MODIFIED) == MODIFIED_DTYPE
    stamps = [pl.col(SIZE), pl.col(MODIFIED).dt.epoch("us")] if stamped else [pl.lit(None), pl.lit(None).alias("none")]
    for value, size, modified in stored.select(pl.first(), *stamps).iter_rows():
        path = None if value is None else _path_of(value)
        if path is None or os.path.isabs(path):  # noqa: PTH117
            continue
        facts = _stat(path)
        if facts is None or (modified is not None and (size, modified) != (facts.st_size, facts.st_mtime_ns // 1000)):
            yield tuple(part for part in Path(os.path.normpath(path)).parts if part != os.pardir)


def _ends_in(value: str, base_dir: str | None, endings: set[tuple[str, ...]]) -> bool:
    """Return whether the path of a source, with or without its links resolved, ends in one of `endings`."""
    path = _path_of(value, base_dir)
    if path is None:
        return False
    for whole in (os.path.abspath(path), os.path.realpath(path)):  # noqa: PTH100
        parts = Path(whole).parts
        if any(parts[first:] in endings for first in range(len(parts))):
            return True
    return False


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
