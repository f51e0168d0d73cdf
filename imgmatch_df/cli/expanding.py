"""Files that the SOURCE arguments name, and their kind: images, a list, a store, or a format of tables."""

import glob
import os
from pathlib import Path
from typing import Final

from imgmatch_df.archives.paths import is_archive, is_compressed
from imgmatch_df.cli.given_sources import GivenSources
from imgmatch_df.cli.input_formats import INPUT_FORMATS, input_suffix, longest_suffix, suffixes_shown
from imgmatch_df.cli.lists import LIST_SUFFIXES, STDIN
from imgmatch_df.errors import ArgumentError
from imgmatch_df.images.exclusion import Rules
from imgmatch_df.images.folders import KNOWN_SUFFIXES
from imgmatch_df.images.scan import holds_images
from imgmatch_df.store.base import is_uri, store_suffixes

# Kinds of arguments that are not formats of tables.
IMAGES: Final = "images"
LIST: Final = "a list"
STORE: Final = "a store"


def root_of(given: str) -> str:
    """Return the root of an input: the names of folders below it may be values of columns."""
    return given if Path(given).is_dir() else ""


def expand(given: str, rules: Rules) -> tuple[str, list[str]]:
    """Return the kind of an argument, one of the above or the suffix of a format of tables, and its paths.

    Raises
    ------
    ArgumentError
        If no table matches, or the suffix of a file is unknown.
    """
    if is_uri(given):
        return STORE, [given]
    if given == STDIN:
        return LIST, [given]
    given = os.path.expanduser(given)  # noqa: PTH111  # a Path drops a leading "./"
    path = Path(given)
    for form in INPUT_FORMATS.values():
        if form.is_table is not None and form.is_table(given):
            return form.suffix, [given]
    if path.is_dir():
        parts = _sorted_glob(os.path.join(glob.escape(given), "**", "*.parquet"))  # noqa: PTH118  # glob takes a str
        if parts and not holds_images(given, rules):
            return ".parquet", parts
        return IMAGES, [given]
    suffix = longest_suffix(given, (*store_suffixes(), *LIST_SUFFIXES)) or input_suffix(given)
    if suffix is not None:
        paths = [given] if path.is_file() else _sorted_glob(given)
        if not paths:
            raise _nothing_found(given)
        return LIST if suffix in LIST_SUFFIXES else suffix, paths
    is_known = path.suffix.lower() in KNOWN_SUFFIXES or is_archive(given) or is_compressed(given)
    if path.is_file() and path.suffix and not is_known:
        raise _unknown_ending(path)
    return IMAGES, [given]


def existing(path: str) -> str:
    """Return the value of --files-from, which may be a pipe and have any name."""
    if path == STDIN:
        return path
    path = os.path.expanduser(path)  # noqa: PTH111
    if not os.path.exists(path) or os.path.isdir(path):  # noqa: PTH110, PTH112
        raise ArgumentError(f"--files-from {path!r}: no such file\nHint: the working directory is {str(Path.cwd())!r}.")
    return path


def check_options(kind: str, sources: GivenSources, rules: Rules, source: str | None, base_dir: str | None) -> None:
    """Refuse options that have no effect on sources of this kind."""
    is_table = kind not in (IMAGES, LIST)
    of_tables = {"--source": None if is_table else source, "--base-dir": base_dir if kind == IMAGES else None}
    for option, value in of_tables.items():
        if value is not None:
            raise ArgumentError(f"{option} is for tables, the sources are {kind}\nHint: leave {option} out.")
    if sources.of_reference:
        return
    others = {
        "--exclude": ("folders, globs and lists", is_table and bool(rules.exclude)),
        "--hidden": ("folders and globs", kind != IMAGES and rules.hidden),
        "--follow-links": ("folders", kind != IMAGES and rules.follow_links),
        "--null": ("lists", kind != LIST and sources.null),
    }
    for option, (kinds, is_wrong) in others.items():
        if is_wrong:
            raise ArgumentError(f"{option} is for {kinds}, the sources are {kind}\nHint: leave {option} out.")


def _sorted_glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern


def _nothing_found(source: str) -> ArgumentError:
    return ArgumentError(f"nothing matches {source!r}\nHint: the working directory is {str(Path.cwd())!r}.")


def _unknown_ending(path: Path) -> ArgumentError:
    known = ", ".join(suffixes_shown((*store_suffixes(), *INPUT_FORMATS, *LIST_SUFFIXES)))
    return ArgumentError(
        f"unknown input ending {path.suffix!r} of {path.name!r}, known are {known}, folders, globs, images and "
        "archives of them\nHint: a glob matches images of any ending."
    )
