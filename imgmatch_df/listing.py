"""The paths of removed pictures, for the user's own tools: never one whose file is still wanted."""

import os

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError, Failure
from imgmatch_df.schema import KEPT
from imgmatch_df.sources import parse_source


def removed_paths(
    clustered: pl.DataFrame, source: str | None, stored: pl.Series | None = None, *, base_dir: str | None = None
) -> tuple[list[str], int]:
    """Return the sources of the rows that are not kept, in order, and how many are left out.

    What is done to the listed files must not harm a picture that is wanted: a removed row whose file is also that of a
    kept row or of a stored one is left out, under whatever name, link or relative path the two have it.

    Parameters
    ----------
    clustered
        Column `source`, and `kept`.
    source
        The column of sources.
    stored
        Sources that the rows were compared with.
    base_dir
        Where relative paths of `source` start; None for the working directory.

    Returns
    -------
    paths, n_omitted
        Each source once.

    Raises
    ------
    ColumnError
        If the sources are not text.
    ArgumentError
        If a listed source holds a line break, so that it would be read as two.
    """
    if source is None or clustered.schema.get(source) != pl.String:
        raise ColumnError(
            "--list-removed needs a column of paths, the sources are none\n"
            "Hint: --source names one, or -o writes the rows."
        )
    wanted = {_file_of(value, base_dir) for value in clustered.filter(KEPT)[source].drop_nulls()}
    if stored is not None and stored.dtype == pl.String:
        wanted |= {_file_of(value, None) for value in stored.drop_nulls()}
    removed = clustered.filter(~pl.col(KEPT))[source].drop_nulls().unique(maintain_order=True)
    listed = [value for value in removed if _file_of(value, base_dir) not in wanted]
    broken = [value for value in listed if "\n" in value or "\r" in value]
    if broken:
        raise ArgumentError(
            f"{len(broken)} of the removed sources hold a line break, the first is {broken[0][:80]!r}\n"
            "Hint: -o writes them without mistake; or rename them."
        )
    return listed, len(removed) - len(listed)


def _file_of(value: str, base_dir: str | None) -> tuple[int, int] | str:
    """Return what is the same for all names of one file: its number; and for what is no file, the source itself."""
    found = parse_source(value)
    if isinstance(found, Failure) or found.kind != "path" or not isinstance(found.value, str):
        return value
    path = os.path.join(base_dir or "", found.value)  # noqa: PTH118  # half the time of a Path, a million times
    try:
        facts = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return os.path.abspath(path)  # noqa: PTH100  # no file, so no link
    return facts.st_dev, facts.st_ino
