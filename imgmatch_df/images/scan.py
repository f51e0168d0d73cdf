"""Listing of the images of folders and globs as a lazy frame of path, size and modification time."""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.columns import MODIFIED, MODIFIED_DTYPE, PATH, REASON, SIZE, SUFFIX, N
from imgmatch_df.errors import ArgumentError, ImgMatchWarning
from imgmatch_df.images.exclusion import DEFAULT_RULES, Rules
from imgmatch_df.images.folders import IMAGE_SUFFIXES, Finder, LeftOut, exclusion_of, left_out_text
from imgmatch_df.incomplete import note_unlisted
from imgmatch_df.options import check_flag, shown
from imgmatch_df.sources import path_as_text

_SCHEMA = pl.Schema({PATH: pl.String(), SIZE: pl.UInt64(), MODIFIED: MODIFIED_DTYPE})
_RAW = {**_SCHEMA, MODIFIED: pl.Int64()}
_BATCH_ROWS = 10_000

ImageSource = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Listing(NamedTuple):
    """Images of sources, and what is left out.

    Parameters
    ----------
    frame
        Result of `scan_images`, collected.
    unlisted
        Folders that cannot be listed, each with its reason.
    left_out
        Number of files and folders that are left out, by reason and suffix.
    """

    frame: pl.DataFrame
    unlisted: tuple[str, ...]
    left_out: Counter[LeftOut]


def scan_images(
    source: ImageSource,
    *,
    recursive: bool = True,
    exclude: str | Sequence[str] = (),
    hidden: bool = False,
    follow_links: bool = False,
) -> pl.LazyFrame:
    """List the images of folders and globs, lazily.

    Use it as the start of a query; nothing is listed before the query runs, and a query for paths only does not read
    the sizes. Files are not opened: a file that is not an image fails when it is hashed.

    Parameters
    ----------
    source
        A folder (its files with an image suffix, in any case), one file, or a glob such as ``"photos/**/*.jpg"``; or
        several of these. Relative paths start from the working directory, ``~`` is the home directory.
    recursive
        Whether a folder is listed with its subfolders.
    exclude
        One or more patterns of files and folders that are left out, as in ``.gitignore``: ``"previews"`` and
        ``"*.png"`` match names at any depth, ``"2019/raw"`` the path below `source` or as it is listed,
        ``"raw/**/small"`` folders at any depth below ``raw``, ``"cache/"`` folders only. There are no comments and no
        negation.
    hidden
        Whether hidden files and folders are listed: names that begin with a dot, and folders that systems make for
        themselves, such as ``@eaDir``, ``#recycle``, ``$RECYCLE.BIN`` and ``__MACOSX``.
    follow_links
        Whether links to folders are followed. A folder that several paths lead to is listed once, by its own path
        if that is in `source`, so that links to a folder above them are not followed without end.

    Returns
    -------
    LazyFrame
        ``path: String``, ``size: UInt64`` (bytes), ``modified: Datetime("us", "UTC")``; the files of each source
        sorted by path, each path once. A file that is deleted after the listing has null size and time. A name
        that is not UTF-8 is shown with its invalid bytes escaped; such a file fails when it is hashed.

    Raises
    ------
    ArgumentError
        If `source` is empty or does not exist, or is a glob that matches no file: at once, and again when the query
        runs. A folder without images gives no rows.

    Warns
    -----
    ImgMatchWarning
        When the query runs: if images of unsupported formats are left out (``.heic``, ``.cr2`` …), if links
        to folders, hidden images or hidden folders in a folder are left out, and for each folder that cannot be listed.
        Do not `prune` a store with such a listing.

    Notes
    -----
    In a glob, ``*`` and ``**`` do not match hidden names, ``**`` matches any number of folders, and an image suffix
    matches in any case: ``*.jpg`` lists ``IMG_1.JPG``, too, and so it does in `exclude`. Everything else is
    case-sensitive. ``**`` always follows links to folders, except a link to a folder that it is in. `count_left_out`
    counts what is left out.

    Examples
    --------
    >>> import imgmatch_df
    >>> imgmatch_df.scan_images("photos").collect_schema().names()
    ['path', 'size', 'modified']
    """
    rules = make_rules(recursive, exclude, hidden, follow_links)
    patterns = _check_sources(source, rules)

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = _SCHEMA.names() if with_columns is None else with_columns
        finder = _find(patterns, rules)
        _warn(finder)
        paths = list(finder.paths)[:n_rows]
        for start in range(0, len(paths), _BATCH_ROWS):
            frame = _describe_files(paths[start : start + _BATCH_ROWS], names)
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(batches, schema=_SCHEMA, is_pure=False)


def count_left_out(
    source: ImageSource,
    *,
    recursive: bool = True,
    exclude: str | Sequence[str] = (),
    hidden: bool = False,
    follow_links: bool = False,
) -> pl.DataFrame:
    """Count the files and folders that `scan_images` leaves out, by reason and suffix.

    Parameters
    ----------
    source, recursive, exclude, hidden, follow_links
        As `scan_images`.

    Returns
    -------
    DataFrame
        ``reason: String``, ``suffix: String`` (lower case with its dot, ``""`` for none, null for folders),
        ``n: UInt32``; the largest count first, then by reason and suffix. Reasons:

        - ``"unread_format"``: an image of an unsupported format, such as ``.heic``.
        - ``"other_file"``: any other file without an image suffix.
        - ``"broken_link"``: a broken link without an image suffix, perhaps to a folder on a disk that is not mounted.
        - ``"linked_folder"``: a link to a folder that is not followed.
        - ``"unlisted_folder"``: a folder that cannot be listed, for lack of permission or another reason.
        - ``"hidden_folder"``, ``"hidden_file"``: a hidden folder, and a hidden image outside of them.
        - ``"excluded_folder"``, ``"excluded_file"``: what `exclude` matches.

        Files that do not match a glob are not counted, and nothing inside a folder that is left out.

    Raises
    ------
    ArgumentError
        As `scan_images`.

    Examples
    --------
    >>> import imgmatch_df
    >>> imgmatch_df.count_left_out("photos").columns
    ['reason', 'suffix', 'n']
    """
    rules = make_rules(recursive, exclude, hidden, follow_links)
    counts = _find(_check_sources(source, rules), rules).left_out()
    rows = [(reason, suffix, n) for (reason, suffix), n in counts.items()]
    schema = {REASON: pl.String(), SUFFIX: pl.String(), N: pl.UInt32()}
    return pl.DataFrame(rows, schema, orient="row").sort(
        N, REASON, SUFFIX, descending=[True, False, False], nulls_last=True
    )


def make_rules(recursive: object, exclude: object, hidden: object, follow_links: object) -> Rules:
    """Return the rules of the arguments of `scan_images`.

    Raises
    ------
    ArgumentError
        If one is invalid.
    """
    check_flag("recursive", recursive, "False lists a folder without its subfolders.")
    check_flag("hidden", hidden, "True lists hidden files and folders, too.")
    check_flag("follow_links", follow_links, "True lists the folders that links lead to.")
    given = [exclude] if isinstance(exclude, str) or not isinstance(exclude, Sequence) else exclude
    patterns: list[str] = []
    for pattern in given:
        if not isinstance(pattern, str) or not pattern or "\0" in pattern:
            raise ArgumentError(
                f"exclude must be a pattern or several, as text, got {shown(pattern)}\n"
                "Hint: such as '*.png', 'previews' or 'photos/2019/**'; [] excludes nothing."
            )
        patterns.append(pattern)
    rules = Rules(bool(recursive), tuple(patterns), bool(hidden), bool(follow_links))
    exclusion_of(rules.exclude)
    return rules


def list_images(sources: Sequence[str], rules: Rules = DEFAULT_RULES) -> Listing:
    """List the images of folders and globs at once, and what is left out.

    Parameters
    ----------
    sources
        Folders, files and globs.
    rules
        Which files and folders are listed.

    Raises
    ------
    ArgumentError
        As `scan_images`; also if a folder has no images.
    """
    finder = Finder(rules)
    for source in _check_sources(sources, rules):
        if not _add(finder, source):
            raise _no_images(source, rules)
    paths = list(finder.paths)
    starts = range(0, max(1, len(paths)), _BATCH_ROWS)
    parts = [_describe_files(paths[start : start + _BATCH_ROWS], _SCHEMA.names()) for start in starts]
    return Listing(pl.concat(parts), _unlisted_texts(finder), finder.left_out())


def holds_images(folder: str, rules: Rules = DEFAULT_RULES) -> bool:
    """Return whether a folder, with its subfolders, has a file with an image suffix."""
    return Finder(rules).add(folder)


def _check_sources(source: ImageSource, rules: Rules) -> list[str]:
    """Return the sources as text, with the home directory in the place of ``~``."""
    sources = [source] if isinstance(source, str | os.PathLike) or not isinstance(source, Iterable) else list(source)
    patterns = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in sources]
    wrong = [one for one in patterns if not isinstance(one, str) or "\0" in one]
    if wrong:
        raise ArgumentError(
            f"source must be a path or several, as text or Path, got {shown(wrong[0])}\n"
            "Hint: a folder such as 'photos', or a glob such as 'photos/**/*.jpg'."
        )
    patterns = [os.path.expanduser(pattern) for pattern in patterns]  # noqa: PTH111  # a Path drops a leading "./"
    for pattern in patterns:
        if not pattern:
            raise ArgumentError(
                "source is empty; it must be a folder, a file or a glob\nHint: '.' is the working directory."
            )
        # A glob is checked up to its first match.
        if not os.path.exists(pattern) and not any(True for _ in Finder(rules).match(pattern)):  # noqa: PTH110
            raise _nothing_found(pattern, rules)
    return patterns


def _find(patterns: list[str], rules: Rules) -> Finder:
    finder = Finder(rules)
    for pattern in patterns:
        _add(finder, pattern)
    return finder


def _add(finder: Finder, pattern: str) -> bool:
    """List one source, and return whether it has a file; raise if a file or a glob has none."""
    is_found = finder.add(pattern)
    if not is_found and not os.path.isdir(pattern):  # noqa: PTH112  # a Path raises without permission
        raise _nothing_found(pattern, finder.rules)
    return is_found


def _warn(finder: Finder) -> None:
    for folder in _unlisted_texts(finder):
        note_unlisted()
        warnings.warn(f"cannot list {folder}, its images are missing", ImgMatchWarning, stacklevel=2)
    if text := left_out_text(finder.left_out(of_globs=False), only_warned=True):
        warnings.warn(
            f"scan_images left out {text}\n"
            "Hint: convert such images; hidden=True and follow_links=True list such files and folders, exclude= names "
            "those that are not wanted.",
            ImgMatchWarning,
            stacklevel=2,
        )


def _unlisted_texts(finder: Finder) -> tuple[str, ...]:
    return tuple(f"{path_as_text(folder)!r} ({reason})" for folder, reason in finder.unlisted.items())


def _nothing_found(pattern: str, rules: Rules) -> ArgumentError:
    finder = Finder(rules)
    finder.add(pattern)
    shown, is_glob = path_as_text(pattern), glob.has_magic(pattern)
    what = f"nothing matches {shown!r}" if is_glob else f"no such file or folder: {shown!r}"
    if finder.unlisted:
        return ArgumentError(f"{what}; {_cannot_list(finder)}\nHint: get permission to read the folder.")
    hint = f"the working directory is {str(Path.cwd())!r}."
    if text := left_out_text(finder.left_out()):
        return ArgumentError(f"no images of {shown!r} are listed, left out: {text}\nHint: change exclude or hidden.")
    if "{" in pattern and "}" in pattern:
        hint = "braces are not expanded; pass several globs, such as ['*.jpg', '*.png']."
    elif is_glob and any(map(os.path.isdir, glob.iglob(pattern, recursive=True))):  # noqa: PTH207
        hint = f"it matches folders only; end it with '{os.sep}**{os.sep}*.jpg' for the files in them."
    return ArgumentError(f"{what}\nHint: {hint}")


def _no_images(folder: str, rules: Rules) -> ArgumentError:
    finder = Finder(rules)
    finder.add(folder)
    if finder.unlisted:
        return ArgumentError(f"{_cannot_list(finder)}\nHint: get permission to read the folder.")
    text = left_out_text(finder.left_out())
    return ArgumentError(
        f"no images in {path_as_text(folder)!r}{', left out: ' * bool(text)}{text}\n"
        f"Hint: known suffixes are {' '.join(sorted(IMAGE_SUFFIXES))}; a glob takes files of any suffix."
    )


def _cannot_list(finder: Finder) -> str:
    return f"cannot list {_unlisted_texts(finder)[0]}"


def _describe_files(paths: list[str], names: list[str]) -> pl.DataFrame:
    columns: dict[str, list[object]] = {PATH: [path_as_text(path) for path in paths]}
    if SIZE in names or MODIFIED in names:
        stats = [_stat(path) for path in paths]
        columns[SIZE] = [None if stat is None else stat.st_size for stat in stats]
        # Whole nanoseconds: seconds as a float are wrong by a microsecond for some files.
        columns[MODIFIED] = [None if stat is None else stat.st_mtime_ns // 1000 for stat in stats]
    return pl.DataFrame({name: pl.Series(columns[name], dtype=_RAW[name]) for name in names}).cast(
        {name: _SCHEMA[name] for name in names}
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:  # deleted since it was listed; its row becomes not_found
        return None
