"""Search for the files of folders and globs, with counts of those that are left out."""

import fnmatch
import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from imgmatch_df.archives.paths import ARCHIVE_SUFFIXES
from imgmatch_df.images.extras import EXTRAS, extras_of, install_command, read_suffixes
from imgmatch_df.sources import describe, path_as_text

# Suffixes of the files that are listed in a folder, in any case.
IMAGE_SUFFIXES: Final = frozenset(
    (
        *(".apng", ".avif", ".bmp", ".btf", ".dib", ".gif", ".j2c", ".j2k", ".jfi", ".jfif", ".jif", ".jp2", ".jpc"),
        *(".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tf8", ".tif"),
        *(".tiff", ".webp"),
    )
)
# Suffixes of images of unsupported formats: they are left out, with a warning.
UNREAD_SUFFIXES: Final = frozenset(
    (
        *(".avci", ".avcs", ".avifs", ".hdp", ".jxr", ".wdp"),
        *(".bay", ".r3d", ".raw"),  # of cameras, and not read by the extra "raw"
        *(".cur", ".dcm", ".dds", ".dpx", ".exr", ".fit", ".fits", ".hdr", ".icns", ".ico", ".jls", ".jng", ".mng"),
        *(".pam", ".pcx", ".pfm", ".psb", ".psd", ".qoi", ".ras", ".sgi", ".svg", ".svgz", ".tga", ".xbm", ".xcf"),
        ".xpm",
    )
)
# Suffixes of images that an extra reads: they are listed if it is installed, else left out with a warning.
EXTRA_SUFFIXES: Final = frozenset[str]().union(*(extra.suffixes for extra in EXTRAS))
KNOWN_SUFFIXES: Final = IMAGE_SUFFIXES | EXTRA_SUFFIXES | UNREAD_SUFFIXES

# Reasons why a file or a folder is left out.
UNREAD_FORMAT: Final = "unread_format"
ARCHIVE: Final = "archive"
MISSING_EXTRA: Final = "missing_extra"
OTHER_FILE: Final = "other_file"
BROKEN_LINK: Final = "broken_link"
LINKED_FOLDER: Final = "linked_folder"
HIDDEN_FOLDER: Final = "hidden_folder"
HIDDEN_FILE: Final = "hidden_file"
UNLISTED_FOLDER: Final = "unlisted_folder"

# The reason, and the lower-case suffix of a file or None for a folder.
LeftOut = tuple[str, str | None]

_SUFFIXES_SHOWN: Final = 8
_MAX_SUFFIX_CHARS: Final = 16


class Finder:
    """List of the files of several sources, each path once, and counts of what is left out."""

    def __init__(self) -> None:
        # The files in the order of the sources, those of one source sorted. The values are None.
        self.paths: dict[str, None] = {}
        # Folders that cannot be listed, with the reason of the system.
        self.unlisted: dict[str, str] = {}
        self._counts: Counter[LeftOut] = Counter()
        self._walked: set[str] = set()
        self._suffixes = listed_suffixes()
        # By path, since several parts of a glob may skip the same folder.
        self._skipped: dict[str, LeftOut] = {}

    def add(self, source: str, *, recursive: bool = True) -> bool:
        """List one source, and return whether it has any file.

        Parameters
        ----------
        source
            A file, a folder (its files with an image suffix), or a glob (its matches).
        recursive
            Whether a folder is listed with its subfolders.
        """
        found: Iterator[str]
        # The name of a folder may contain [ or *.
        if os.path.isfile(source):  # noqa: PTH113  # a Path raises without permission
            found = iter([source])
        elif os.path.isdir(source):  # noqa: PTH112
            found = self._list_folder(source, recursive=recursive)
        else:
            found = self.match(source)
        # Sorted, so that row order does not depend on the file system.
        listed = [_plain(path) for path in sorted(found)]
        self.paths.update(dict.fromkeys(listed))
        return bool(listed)

    def left_out(self) -> Counter[LeftOut]:
        """Return how many files and folders are left out, by reason and suffix."""
        counts = self._counts.copy()
        # A path that one source skips may be listed by another one.
        listed = self.paths.keys() | self._walked
        counts.update(what for path, what in self._skipped.items() if path not in listed)
        if self.unlisted:
            counts[UNLISTED_FOLDER, None] = len(self.unlisted)
        return counts

    def unlisted_texts(self) -> tuple[str, ...]:
        """Return the folders that cannot be listed, each with the reason, for messages."""
        return tuple(f"{path_as_text(folder)!r} ({reason})" for folder, reason in self.unlisted.items())

    def match(self, pattern: str) -> Iterator[str]:
        """Yield the files that match a glob, as `glob.iglob` does with ``recursive=True``, in any order.

        Two differences: the suffix of an image or an archive matches in any case, and ``**`` does not follow a link to
        a folder that contains the link. A pattern without wildcards has no matches.
        """
        if not glob.has_magic(pattern):
            return
        parent, last = os.path.split(pattern)
        folders = self._folders(parent)
        if last == "**":
            folders, last = self._below_all(folders), "*"
        is_match = _matcher(last)
        if is_match is None:
            paths = (os.path.join(folder, last) for folder in folders)  # noqa: PTH118  # a Path changes "./a" to "a"
            yield from (path for path in paths if os.path.lexists(path) and not os.path.isdir(path))  # noqa: PTH112
            return
        for folder in folders:
            for entry in self._entries(folder):
                if not is_match(entry.name) or _is_folder(entry):
                    continue
                path = os.path.join(folder, entry.name)  # noqa: PTH118
                if _is_hidden(entry.name) and not _is_hidden(last):
                    self._skipped[path] = (HIDDEN_FILE, suffix_of(entry.name))
                else:
                    yield path

    def _list_folder(self, top: str, *, recursive: bool) -> Iterator[str]:
        top = str(Path(top))
        waiting = ["" if top == os.curdir else top]
        while waiting:
            folder = waiting.pop()
            is_counted = folder in self._walked  # by an earlier source
            self._walked.add(folder)
            for entry in self._entries(folder):
                path = os.path.join(folder, entry.name)  # noqa: PTH118
                suffix = suffix_of(entry.name)
                if _is_folder(entry):
                    if recursive and _is_link(entry):
                        self._skipped[path] = (LINKED_FOLDER, None)
                    elif recursive:
                        waiting.append(path)
                elif suffix in self._suffixes:
                    yield path
                elif not is_counted:
                    self._counts[_reason(entry, path, suffix), suffix] += 1

    def _folders(self, pattern: str) -> Iterator[str]:
        """Yield the folders that match the part of a glob before its last component; some may not exist."""
        parent, last = os.path.split(pattern)
        if not glob.has_magic(pattern):
            yield pattern
        elif not last:
            yield from self._folders(parent)
        elif last == "**":
            yield from self._below_all(self._folders(parent))
        elif not glob.has_magic(last):
            yield from (os.path.join(folder, last) for folder in self._folders(parent))  # noqa: PTH118
        else:
            for folder in self._folders(parent):
                for entry in self._entries(folder):
                    if not fnmatch.fnmatch(entry.name, last) or not _is_folder(entry):
                        continue
                    path = os.path.join(folder, entry.name)  # noqa: PTH118
                    if _is_hidden(entry.name) and not _is_hidden(last):
                        self._skipped[path] = (HIDDEN_FOLDER, None)
                    else:
                        yield path

    def _below_all(self, tops: Iterator[str]) -> Iterator[str]:
        """Yield folders and all their subfolders, each once."""
        seen = set()
        for top in tops:
            for folder in self._below(top):
                if folder not in seen:
                    seen.add(folder)
                    yield folder

    def _below(self, top: str) -> Iterator[str]:
        # Each folder with the real paths of the folders whose links led to it.
        waiting: list[tuple[str, tuple[str, ...]]] = [(top, ())]
        while waiting:
            folder, left = waiting.pop()
            yield folder
            for entry in self._entries(folder):
                if not _is_folder(entry):
                    continue
                path = os.path.join(folder, entry.name)  # noqa: PTH118
                if _is_hidden(entry.name):
                    self._skipped[path] = (HIDDEN_FOLDER, None)
                elif not _is_link(entry):
                    waiting.append((path, left))
                else:
                    target, links = os.path.realpath(path), (*left, os.path.realpath(folder))
                    if any(_contains(target, one) for one in links):
                        self._skipped[path] = (LINKED_FOLDER, None)
                    else:
                        waiting.append((path, links))

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(folder or os.curdir) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):  # deleted since its parent was listed, or never present
            return []
        except OSError as error:
            self.unlisted[folder or os.curdir] = error.strerror or type(error).__name__
            return []


def listed_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that are listed in a folder: those of `IMAGE_SUFFIXES` and installed extras."""
    return IMAGE_SUFFIXES | read_suffixes()


def unread_reason(suffix: str) -> str | None:
    """Return why an image with a suffix is not listed, None if it is, or if it is not the suffix of an image."""
    if suffix in UNREAD_SUFFIXES:
        return UNREAD_FORMAT
    return MISSING_EXTRA if suffix in EXTRA_SUFFIXES and suffix not in listed_suffixes() else None


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot; empty if there is none."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # a tenth of the time of a Path
    return "" if suffix == "." else path_as_text(suffix)


def left_out_text(left_out: Mapping[LeftOut, int], *, only_warned: bool = False) -> str:
    """Return one line about what is left out, such as ``2 .heic, 1 .cr2; 3 linked folders``; empty for nothing.

    It does not mention folders that cannot be listed: each of those is named elsewhere, with its reason.

    Parameters
    ----------
    left_out
        Result of `Finder.left_out`.
    only_warned
        Whether to name only what `scan_images` warns of: images that are not read, archives, and linked folders.
    """
    of_reason: dict[str, Counter[str]] = {}
    for (reason, suffix), n in left_out.items():
        of_reason.setdefault(reason, Counter())[suffix or ""] += n
    parts = [_suffixes_text(of_reason.get(UNREAD_FORMAT, Counter()))]
    if needing := of_reason.get(MISSING_EXTRA):
        parts.append(f"{_suffixes_text(needing)} ({install_command(*extras_of(frozenset(needing)))})")
    names = {ARCHIVE: "archive", LINKED_FOLDER: "linked folder"}
    if not only_warned:
        others = of_reason.get(OTHER_FILE, Counter())
        if others:
            parts.append(f"{_count(others.total(), 'other file')} ({_suffixes_text(others)})")
        names |= {HIDDEN_FOLDER: "hidden folder", HIDDEN_FILE: "hidden file", BROKEN_LINK: "broken link"}
    parts += [_count(of_reason[reason].total(), name) for reason, name in names.items() if reason in of_reason]
    return "; ".join(part for part in parts if part)


def _suffixes_text(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{n:,} {describe(suffix, _MAX_SUFFIX_CHARS) or 'without a suffix'}" for suffix, n in ordered]
    n_more = len(shown) - _SUFFIXES_SHOWN
    if n_more > 1:
        n_files = sum(n for _, n in ordered[_SUFFIXES_SHOWN:])
        shown[_SUFFIXES_SHOWN:] = [f"{n_files:,} of {n_more:,} more suffixes"]
    return ", ".join(shown)


def _count(n: int, name: str) -> str:
    return f"{n:,} {name}{'s' * (n != 1)}"


def _reason(entry: "os.DirEntry[str]", path: str, suffix: str) -> str:
    if (unread := unread_reason(suffix)) is not None:
        return unread
    if suffix in ARCHIVE_SUFFIXES and os.path.isfile(path):  # noqa: PTH113
        return ARCHIVE
    # A folder on a disk that is not mounted is a broken link.
    return BROKEN_LINK if entry.is_symlink() and not os.path.exists(path) else OTHER_FILE  # noqa: PTH110


def _matcher(pattern: str) -> Callable[[str], bool] | None:
    """Return a function that matches file names with the last component of a glob; None if that is a plain name."""
    stem, suffix = os.path.splitext(pattern)  # noqa: PTH122
    suffix = suffix.lower()
    if suffix in KNOWN_SUFFIXES or suffix in ARCHIVE_SUFFIXES:
        n = len(suffix)
        return lambda name: name[-n:].lower() == suffix and fnmatch.fnmatch(name[:-n], stem)
    if not glob.has_magic(pattern):
        return None
    patterns = (pattern, stem + suffix)

    def is_match(name: str) -> bool:
        if fnmatch.fnmatch(name, pattern):
            return True
        # The suffix may have wildcards (*.jp*g), or no dot before it in the pattern (*jpg).
        own_stem, own = os.path.splitext(name)  # noqa: PTH122
        if own.lower() not in KNOWN_SUFFIXES:
            return False
        names = (own_stem + own.lower(), own_stem + own.upper())
        return any(fnmatch.fnmatch(*pair) for pair in itertools.product(names, patterns))

    return is_match


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link without permission, or to itself
        return False


def _is_link(entry: "os.DirEntry[str]") -> bool:
    is_junction = getattr(entry, "is_junction", None)  # on Windows, since Python 3.12
    return entry.is_symlink() or (is_junction is not None and is_junction())


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))  # noqa: PTH118


def _plain(path: str) -> str:
    """Return a normalised path, so that a folder and a glob list a file once."""
    return str(Path(path)) if "./" in path or "//" in path else path
