"""Rules of a listing: which files and folders are left out, by patterns and by their kind."""

import os
import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import shown

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_HERE: Final = "./"


class Rules(NamedTuple):
    """Which files and folders a listing has.

    Parameters
    ----------
    recursive
        Whether folders are listed with their subfolders.
    exclude
        Patterns of files and folders that are left out.
    hidden
        Whether hidden files and folders are listed.
    follow_links
        Whether links to folders are followed.
    """

    recursive: bool = True
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_links: bool = False


DEFAULT_RULES: Final = Rules()


class Exclusion:
    """Patterns of files and folders that are left out.

    They are those of ``.gitignore``, without comments and negation.

    Parameters
    ----------
    patterns
        One or more patterns.
    suffixes
        Suffixes, in lower case, that match in any case at the end of a pattern.

    Raises
    ------
    ArgumentError
        If a pattern is invalid.
    """

    def __init__(self, patterns: Sequence[str], suffixes: Collection[str] = ()) -> None:
        own = [_normalised(pattern, suffixes) for pattern in patterns]
        for pattern, text in zip(own, patterns, strict=True):
            _check(pattern, text)
        # A pattern with a slash may also name the path as it is listed.
        anchored = [pattern for pattern in own if "/" in pattern.rstrip("/")]
        self._below = _compile(own)
        self._relative = _compile([pattern for pattern in anchored if not pattern.startswith("/")])
        self._absolute = _compile([pattern for pattern in anchored if pattern.startswith("/")])

    def matches(self, path: str, root: str = "", *, is_folder: bool = False) -> bool:
        """Return whether a pattern matches the path of a file, or one of its folders.

        Parameters
        ----------
        path
            The path as it is listed.
        root
            The folder of the source, where the path below it begins.
        is_folder
            Whether it is the path of a folder.
        """
        end = "/" * is_folder
        start = os.path.join(root, "")  # noqa: PTH118
        below = path[len(start) :] if path.startswith(start) else path
        if os.sep != "/":
            path, below = path.replace(os.sep, "/"), below.replace(os.sep, "/")
        if self._below.match_file(below + end):
            return True
        listed = self._absolute if os.path.isabs(path) else self._relative  # noqa: PTH117
        return bool(listed) and listed.match_file(path.removeprefix(_HERE) + end)


def _compile(patterns: Sequence[str]) -> "GitIgnoreSpec":
    from pathspec import GitIgnoreSpec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the regular expression that it makes of "[[]"
        return GitIgnoreSpec.from_lines(patterns)


def _check(pattern: str, text: str) -> None:
    """Refuse a pattern that is invalid, or matches nothing."""
    try:
        is_valid = [part.include for part in _compile([pattern]).patterns] == [True]
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ArgumentError(
            f"exclude has an invalid pattern, got {shown(text)}\n"
            "Hint: such as '*.png', 'previews' or 'photos/2019/**'; write [[] for a bracket."
        )


def _normalised(pattern: str, suffixes: Collection[str]) -> str:
    """Return a pattern whose first character has no special meaning, with one of `suffixes` in any case."""
    pattern = os.path.expanduser(pattern)  # noqa: PTH111
    if os.sep != "/":
        pattern = pattern.replace(os.sep, "/")
    pattern = pattern.removeprefix(_HERE)
    if pattern.startswith(("#", "!")):
        pattern = f"\\{pattern}"
    if pattern.endswith(" "):
        pattern = f"{pattern[:-1]}\\ "
    stem, suffix = os.path.splitext(pattern)  # noqa: PTH122
    if suffix.lower() in suffixes:
        pattern = stem + "".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in suffix)
    return pattern
