"""A folder or a glob of pictures as a lazy frame of path, size and modification time."""

import glob
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.errors import ArgumentError
from imgmatch_df.incomplete import note_unlisted
from imgmatch_df.schema import MODIFIED, MODIFIED_DTYPE, PATH, SIZE
from imgmatch_df.sources import path_as_text

# Endings that name a picture when a whole folder is scanned; a glob takes what it matches.
PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"),
    *(".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)

_SCHEMA = pl.Schema({PATH: pl.String(), SIZE: pl.UInt64(), MODIFIED: MODIFIED_DTYPE})
_RAW = {**_SCHEMA, MODIFIED: pl.Int64()}
_BATCH_ROWS = 10_000


def scan_images(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, recursive: bool = True
) -> pl.LazyFrame:
    """List the pictures of a folder or a glob, lazily.

    Use it as the start of a query; nothing is listed before the query runs, and a query for paths alone asks the file
    system for no sizes. Pictures are not opened: whether a file is one shows when it is hashed.

    Parameters
    ----------
    source
        A folder (its files with a picture's ending, any case), one file, or a glob such as ``"photos/**/*.jpg"``,
        where ``**`` stands for any number of folders; or several of these. Starts from the working directory unless
        absolute.
    recursive
        Whether a folder is scanned with its subfolders.

    Returns
    -------
    LazyFrame
        ``path: String``, ``size: UInt64`` (bytes), ``modified: Datetime("us", "UTC")``; the files of each source
        sorted by path. A file that vanishes between listing and asking has null size and time. A name that is not UTF-8
        is shown with those bytes escaped; such a file fails when it is hashed, and says so. A folder that cannot be
        listed is left out, with a warning; so do not `prune` a store by a listing that has warned.

    Raises
    ------
    ArgumentError
        If `source` is empty, or is no glob and does not exist.

    Examples
    --------
    >>> import imgmatch_df
    >>> imgmatch_df.scan_images("photos/**/*.jpg").collect_schema().names()
    ['path', 'size', 'modified']
    """
    patterns = [os.fspath(one) for one in ([source] if isinstance(source, str | os.PathLike) else source)]
    for pattern in patterns:
        _check_pattern(pattern)

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = _SCHEMA.names() if with_columns is None else with_columns
        paths = chain.from_iterable(_list_or_warn(pattern, recursive=recursive) for pattern in patterns)
        remaining = n_rows
        while remaining is None or remaining > 0:
            part = list(islice(paths, _BATCH_ROWS if remaining is None else min(_BATCH_ROWS, remaining)))
            if not part:
                return
            if remaining is not None:
                remaining -= len(part)
            frame = _describe_files(part, names)
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(batches, schema=_SCHEMA, is_pure=False)


def list_images(sources: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return what `scan_images` lists, now; and the folders that cannot be listed, each with the reason.

    Raises
    ------
    ArgumentError
        As `scan_images`.
    """
    for source in sources:
        _check_pattern(source)
    unlisted: list[str] = []
    paths = [path for source in sources for path in _list_paths(source, recursive=True, unlisted=unlisted)]
    starts = range(0, max(1, len(paths)), _BATCH_ROWS)
    parts = [_describe_files(paths[start : start + _BATCH_ROWS], _SCHEMA.names()) for start in starts]
    return pl.concat(parts), unlisted


def _check_pattern(pattern: str) -> None:
    if not pattern:
        raise ArgumentError(
            "source is empty, a folder, a file or a glob is needed\nHint: '.' is the working directory."
        )
    if not glob.has_magic(pattern) and not Path(pattern).exists():
        raise ArgumentError(f"no such file or folder: {pattern!r}\nHint: the working directory is {str(Path.cwd())!r}.")


def _list_or_warn(pattern: str, *, recursive: bool) -> list[str]:
    unlisted: list[str] = []
    paths = _list_paths(pattern, recursive=recursive, unlisted=unlisted)
    for folder in unlisted:
        note_unlisted()
        warnings.warn(f"cannot list {folder}, its pictures are missing", stacklevel=2)
    return paths


def _list_paths(pattern: str, *, recursive: bool, unlisted: list[str]) -> list[str]:
    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # gone since its folder was listed
            unlisted.append(f"{path_as_text(str(error.filename))!r} ({error.strerror})")

    # Sorted, so that row order does not depend on the file system.
    # A folder whose own name holds [ or * is still a folder.
    if Path(pattern).is_file():
        return [pattern]
    if not Path(pattern).is_dir():
        _note_unlisted(pattern, note)
        # Not Path.glob, which takes no absolute pattern. Not Path.is_dir, which raises without permission to look.
        return sorted(path for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path))  # noqa: PTH112, PTH207
    found: list[str] = []
    for folder, subfolders, names in os.walk(pattern, onerror=note):
        if not recursive:
            subfolders.clear()
        found += (str(Path(folder, name)) for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES)
    return sorted(found)


def _note_unlisted(pattern: str, note: Callable[[OSError], None]) -> None:
    """Note the folders that a glob with ``**`` passes over in silence: `glob` does not tell."""
    root, recursive, _ = pattern.partition("**")
    if recursive and not glob.has_magic(root):
        for _, subfolders, _ in os.walk(root or ".", onerror=note):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]


def _describe_files(paths: list[str], names: list[str]) -> pl.DataFrame:
    columns: dict[str, list[object]] = {PATH: [path_as_text(path) for path in paths]}
    if SIZE in names or MODIFIED in names:
        stats = [_stat(path) for path in paths]
        columns[SIZE] = [None if stat is None else stat.st_size for stat in stats]
        # Whole nanoseconds: seconds as a float are off by a microsecond for some.
        columns[MODIFIED] = [None if stat is None else stat.st_mtime_ns // 1000 for stat in stats]
    return pl.DataFrame({name: pl.Series(columns[name], dtype=_RAW[name]) for name in names}).cast(
        {name: _SCHEMA[name] for name in names}
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:  # gone since it was listed; hashing it will say not_found
        return None
