"""Listing of the images of folders, globs and archives as a lazy frame of path, size and modification time."""

import glob
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.archives.paths import COMPRESSED_HINT, is_archive, is_compressed, split_path
from imgmatch_df.columns import MODIFIED, MODIFIED_DTYPE, PATH, REASON, SAMPLE_KEY, SIZE, SUFFIX, N
from imgmatch_df.errors import ArgumentError, ImgMatchWarning
from imgmatch_df.images.exclusion import DEFAULT_RULES, Rules
from imgmatch_df.images.folders import ARCHIVE, Finder, LeftOut, exclusion_of, left_out_text, listed_suffixes
from imgmatch_df.images.members import list_members
from imgmatch_df.incomplete import note_unlisted
from imgmatch_df.options import check_flag, shown
from imgmatch_df.sources import path_as_text

_SCHEMA = pl.Schema({PATH: pl.String(), SIZE: pl.UInt64(), MODIFIED: MODIFIED_DTYPE})
_SCHEMA_WITH_KEYS = pl.Schema({**_SCHEMA, SAMPLE_KEY: pl.String()})
_RAW = {**_SCHEMA_WITH_KEYS, MODIFIED: pl.Int64()}
_BATCH_ROWS = 10_000

ImageSource = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Listing(NamedTuple):
    """Images of sources, and what is left out.

    Parameters
    ----------
    frame
        Result of `scan_images`, collected.
    unlisted
        Folders and archives that cannot be listed, or not all of them, each with its reason.
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
    sample_keys: bool = False,
) -> pl.LazyFrame:
    """List the images of folders, globs and archives, lazily.

    Use it as the start of a query; nothing is listed before the query runs, and a query for paths only does not read
    the sizes. Files are not opened: a file that is not an image fails when it is hashed.

    Parameters
    ----------
    source
        A folder (its files with an image suffix, in any case), one file, or a glob such as ``"photos/**/*.jpg"``; or
        several of these. Relative paths start from the working directory, ``~`` is the home directory. Of an archive
        (``.tar``, ``.zip``, ``.cbt``, ``.cbz``) that is named or matched, the files with an image suffix are listed;
        nothing is extracted.
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
    sample_keys
        Whether to add the column ``key: String``: the key that webdataset gives the sample of a file in an archive,
        which is its name up to the first dot. Null for other files.

    Returns
    -------
    LazyFrame
        ``path: String``, ``size: UInt64`` (bytes), ``modified: Datetime("us", "UTC")``; the files of each source
        sorted by path, each path once. A file that is deleted after the listing has null size and time. A name
        that is not UTF-8 is shown with its invalid bytes escaped; such a file fails when it is hashed. The path of a
        file in an archive is that of the archive, a slash, and its name: ``"shards/0.tar/a.jpg"``; such files have the
        order and the ``modified`` of the archive.

    Raises
    ------
    ArgumentError
        If `source` is empty or does not exist, or is a glob that matches no file: at once, and again when the query
        runs. A folder without images gives no rows.

    Warns
    -----
    ImgMatchWarning
        When the query runs: if images that are not read are left out (``.psd``; ``.heic`` without its extra), if
        archives, links to folders, hidden images or hidden folders in a folder are left out, and for each folder and
        archive that cannot be listed, or is cut. Do not `prune` a store with such a listing.

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
    check_flag("sample_keys", sample_keys, "True adds the column 'key' of webdataset.")
    schema = _SCHEMA_WITH_KEYS if sample_keys else _SCHEMA

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = schema.names() if with_columns is None else with_columns
        finder = _find(patterns, rules)
        _warn(finder.unlisted_texts(), finder.left_out(of_globs=False))
        n_left = n_rows
        paths: Iterable[str] = finder.paths
        if n_rows is not None and not any(map(is_archive, paths)):
            paths = itertools.islice(paths, n_rows)
        for frame in _describe(finder, paths, names, _warn):
            rows = frame if n_left is None else frame.head(n_left)
            yield rows if predicate is None else rows.filter(predicate)
            if n_left is not None and (n_left := n_left - rows.height) <= 0:
                return

    return register_io_source(batches, schema=schema, is_pure=False)


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

        - ``"unread_format"``: an image of an unsupported format, such as ``.psd``.
        - ``"missing_extra"``: an image that an extra reads which is not installed: ``.heic``, ``.jxl``, ``.nef`` …
        - ``"archive"``: an archive in a folder; name it, or a glob that matches it, to list its images.
        - ``"other_file"``: any other file without an image suffix.
        - ``"broken_link"``: a broken link without an image suffix, perhaps to a folder on a disk that is not mounted.
        - ``"linked_folder"``: a link to a folder that is not followed.
        - ``"unlisted_folder"``: a folder that cannot be listed, for lack of permission or another reason.
        - ``"hidden_folder"``, ``"hidden_file"``: a hidden folder, and a hidden image outside of them.
        - ``"excluded_folder"``, ``"excluded_file"``: what `exclude` matches.

        Files that do not match a glob are not counted, other files in an archive are. Nothing inside a folder that is
        left out is counted.

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
    finder = _find(_check_sources(source, rules), rules)
    counts = finder.left_out()
    for archive in filter(is_archive, finder.paths):
        counts.update(list_members(archive, _BATCH_ROWS, has_keys=False, finder=finder).left_out)
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
    if patterns:
        exclusion_of(rules.exclude)
    return rules


def list_images(sources: Sequence[str], rules: Rules = DEFAULT_RULES) -> Listing:
    """List the images of folders, globs and archives at once, and what is left out.

    Parameters
    ----------
    sources
        Folders, files and globs.
    rules
        Which files and folders are listed.

    Raises
    ------
    ArgumentError
        As `scan_images`; also if a folder has no images, or the archives that a source names have none.
    """
    finder = Finder(rules)
    unlisted: list[str] = []
    left_out: Counter[LeftOut] = Counter()
    parts = [_describe_files([], _SCHEMA.names())]

    def note(texts: Iterable[str], counts: Counter[LeftOut]) -> None:
        unlisted.extend(texts)
        left_out.update(counts)

    for source in _check_sources(sources, rules):
        n_before, n_noted = len(finder.paths), len(unlisted)
        if not _add(finder, source):
            raise _no_images(source, rules)
        paths = list(finder.paths)[n_before:]
        found = list(_describe(finder, paths, _SCHEMA.names(), note))
        if paths and not sum(frame.height for frame in found):
            raise _no_members(source, unlisted[n_noted:], left_out)
        parts += found
    return Listing(pl.concat(parts), (*finder.unlisted_texts(), *unlisted), finder.left_out() + left_out)


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
        if is_compressed(pattern) and not os.path.isdir(pattern):  # noqa: PTH112
            raise ArgumentError(f"{path_as_text(pattern)!r} is a compressed tar\nHint: {COMPRESSED_HINT}")
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


def _warn(unlisted: Iterable[str], left_out: Counter[LeftOut]) -> None:
    for what in unlisted:
        note_unlisted()
        warnings.warn(f"cannot list {what}, its images are missing", ImgMatchWarning, stacklevel=2)
    if text := left_out_text(left_out, only_warned=True):
        warnings.warn(
            f"scan_images left out {text}\n"
            "Hint: install the extra, or convert such images; name archives as sources; hidden=True and "
            "follow_links=True list such files and folders, exclude= names those that are not wanted.",
            ImgMatchWarning,
            stacklevel=2,
        )


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
    if (member := split_path(pattern)) is not None:
        hint = f"{path_as_text(member.archive)!r} lists all images of the archive; filter its paths."
    elif "{" in pattern and "}" in pattern:
        hint = "braces are not expanded; pass several globs, such as ['*.jpg', '*.png']."
    elif is_glob and any(map(os.path.isdir, glob.iglob(pattern, recursive=True))):  # noqa: PTH207
        hint = f"it matches folders only; end it with '{os.sep}**{os.sep}*.jpg' for the files in them."
    return ArgumentError(f"{what}\nHint: {hint}")


def _no_images(folder: str, rules: Rules) -> ArgumentError:
    finder = Finder(rules)
    finder.add(folder)
    if finder.unlisted:
        return ArgumentError(f"{_cannot_list(finder)}\nHint: get permission to read the folder.")
    left_out = finder.left_out()
    text = left_out_text(left_out)
    what = f"no images in {path_as_text(folder)!r}{', left out: ' * bool(text)}{text}"
    suffixes = [suffix for reason, suffix in left_out if reason == ARCHIVE]
    if suffixes:
        pattern = os.path.join(path_as_text(folder), "**", f"*{min(map(str, suffixes))}")  # noqa: PTH118
        return ArgumentError(f"{what}\nHint: name the archives: {pattern!r} lists the images in them.")
    return ArgumentError(
        f"{what}\nHint: known suffixes are {' '.join(sorted(listed_suffixes()))}; a glob takes files of any suffix."
    )


def _cannot_list(finder: Finder) -> str:
    return f"cannot list {finder.unlisted_texts()[0]}"


def _no_members(source: str, unlisted: Sequence[str], left_out: Counter[LeftOut]) -> ArgumentError:
    if unlisted:
        return ArgumentError(f"cannot list {unlisted[0]}\nHint: is it whole, and may it be read?")
    text = left_out_text(left_out)
    return ArgumentError(
        f"no images in {path_as_text(source)!r}{', left out: ' * bool(text)}{text}\n"
        f"Hint: known suffixes are {' '.join(sorted(listed_suffixes()))}."
    )


def _describe(
    finder: Finder, paths: Iterable[str], names: list[str], note: Callable[[Iterable[str], Counter[LeftOut]], None]
) -> Iterator[pl.DataFrame]:
    """Yield the rows of files and of the members of archives; `note` gets what an archive does not list."""
    files: list[str] = []
    left_out: Counter[LeftOut] = Counter()
    for path in paths:
        if is_archive(path):
            if files:
                yield _describe_files(files, names)
                files = []
            members = list_members(path, _BATCH_ROWS, has_keys=SAMPLE_KEY in names, finder=finder)
            left_out.update(members.left_out)
            note(() if members.unlisted is None else (members.unlisted,), Counter())
            for frame in members.frames:
                yield frame.select(names).cast({name: _SCHEMA_WITH_KEYS[name] for name in names})
            continue
        files.append(path)
        if len(files) == _BATCH_ROWS:
            yield _describe_files(files, names)
            files = []
    if files:
        yield _describe_files(files, names)
    note((), left_out)


def _describe_files(paths: list[str], names: list[str]) -> pl.DataFrame:
    columns: dict[str, list[object]] = {PATH: [path_as_text(path) for path in paths]}
    if SIZE in names or MODIFIED in names:
        stats = [_stat(path) for path in paths]
        columns[SIZE] = [None if stat is None else stat.st_size for stat in stats]
        # Whole nanoseconds: seconds as a float are wrong by a microsecond for some files.
        columns[MODIFIED] = [None if stat is None else stat.st_mtime_ns // 1000 for stat in stats]
    if SAMPLE_KEY in names:
        columns[SAMPLE_KEY] = [None] * len(paths)
    return pl.DataFrame({name: pl.Series(columns[name], dtype=_RAW[name]) for name in names}).cast(
        {name: _SCHEMA_WITH_KEYS[name] for name in names}
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:  # deleted since it was listed; its row becomes not_found
        return None
