"""Search for the files of folders and globs, with counts of those that are left out."""

import fnmatch
import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from imgmatch_df.archives.paths import ARCHIVE_SUFFIXES
from imgmatch_df.images.exclusion import DEFAULT_RULES, Exclusion, Rules
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
EXCLUDED_FILE: Final = "excluded_file"
EXCLUDED_FOLDER: Final = "excluded_folder"

# Folders that systems and network drives make for themselves, in lower case: of thumbnails, deleted files, snapshots
# and resource forks. They are hidden as names with a leading dot are.
_HIDDEN_NAMES: Final = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # of Synology and QNAP
        *("$recycle.bin", "system volume information", "__macosx"),  # of Windows and macOS
    )
)

# The reason, and the lower-case suffix of a file or None for a folder.
LeftOut = tuple[str, str | None]

_WILDCARDS: Final = "*?["
_SUFFIXES_SHOWN: Final = 8
_MAX_SUFFIX_CHARS: Final = 16


class Finder:
    """List of the files of several sources, each path once, and counts of what is left out.

    Parameters
    ----------
    rules
        Which files and folders are listed.
    """

    def __init__(self, rules: Rules = DEFAULT_RULES) -> None:
        self.rules = rules
        self._exclusion = exclusion_of(rules.exclude) if rules.exclude else None
        # The files in the order of the sources, those of one source sorted. The values are None.
        self.paths: dict[str, None] = {}
        # Folders that cannot be listed, with the reason of the system.
        self.unlisted: dict[str, str] = {}
        self._counts: Counter[LeftOut] = Counter()
        self._walked: set[str] = set()
        self._suffixes = listed_suffixes()
        # By path, since several parts of a glob may skip the same folder.
        self._skipped: dict[str, LeftOut] = {}
        # Those that `*` and `**` of a glob do not match.
        self._unmatched: dict[str, LeftOut] = {}
        # Device and inode of the folders that are listed, while links are followed.
        self._real: set[tuple[int, int]] = set()
        self._n_repeated = 0

    def add(self, source: str) -> bool:
        """List one source, and return whether it has any file.

        Parameters
        ----------
        source
            A file, a folder (its files with an image suffix), or a glob (its matches).
        """
        found: Iterator[str]
        n_repeated = self._n_repeated
        # The name of a folder may contain [ or *.
        if os.path.isfile(source):  # noqa: PTH113  # a Path raises without permission
            found = iter(() if self._excludes(source, os.path.dirname(source)) else (source,))  # noqa: PTH120
        elif os.path.isdir(source):  # noqa: PTH112
            found = self._list_folder(source)
        else:
            found = self.match(source)
        # Sorted, so that row order does not depend on the file system.
        listed = [_plain(path) for path in sorted(found)]
        self.paths.update(dict.fromkeys(listed))
        return bool(listed) or self._n_repeated > n_repeated

    def left_out(self, *, of_globs: bool = True) -> Counter[LeftOut]:
        """Return how many files and folders are left out, by reason and suffix.

        Parameters
        ----------
        of_globs
            Whether to count hidden files and folders that the wildcards of a glob do not match.
        """
        counts = self._counts.copy()
        # A path that one source skips may be listed by another one.
        listed = self.paths.keys() | self._walked
        skipped = {**self._unmatched, **self._skipped} if of_globs else self._skipped
        counts.update(what for path, what in skipped.items() if path not in listed)
        if self.unlisted:
            counts[UNLISTED_FOLDER, None] = len(self.unlisted)
        return counts

    def unlisted_texts(self) -> tuple[str, ...]:
        """Return the folders that cannot be listed, each with the reason, for messages."""
        return tuple(f"{path_as_text(folder)!r} ({reason})" for folder, reason in self.unlisted.items())

    def match(self, pattern: str) -> Iterator[str]:
        """Yield the files that match a glob, as `glob.iglob` does with ``recursive=True``, in any order.

        Three differences: the suffix of an image or an archive matches in any case, ``**`` does not follow a link to a
        folder that contains the link, and names in `_HIDDEN_NAMES` are hidden. A pattern without wildcards has no
        matches.
        """
        if not glob.has_magic(pattern):
            return
        parent, last = os.path.split(pattern)
        root = _root_of(parent)
        folders = self._folders(parent, root)
        if last == "**":
            folders, last = self._below_all(folders, root), "*"
        is_match = _matcher(last)
        if is_match is None:
            for folder in folders:
                path = os.path.join(folder, last)  # noqa: PTH118  # a Path changes "./a" to "a"
                is_file = os.path.lexists(path) and not os.path.isdir(path)  # noqa: PTH112
                if is_file and not self._excludes(path, root):
                    yield path
            return
        for folder in folders:
            for entry in self._entries(folder):
                if not is_match(entry.name) or _is_folder(entry):
                    continue
                path = os.path.join(folder, entry.name)  # noqa: PTH118
                if self._excludes(path, root):
                    continue
                if self._is_unmatched(entry.name, last):
                    self._unmatched[path] = (HIDDEN_FILE, suffix_of(entry.name))
                else:
                    yield path

    def _list_folder(self, top: str) -> Iterator[str]:
        top = str(Path(top))
        top = "" if top == os.curdir else top
        rules = self.rules
        waiting: list[str] = [top]
        links: list[str] = []
        while waiting or links:
            if not waiting:  # folders before links, so that their files have their real paths
                links.sort(reverse=True)
                waiting.append(links.pop())
            folder = waiting.pop()
            if rules.follow_links and not self._is_new(folder):
                continue
            is_counted = folder in self._walked  # by an earlier source
            self._walked.add(folder)
            start = os.path.join(folder, "")  # noqa: PTH118
            for entry in self._entries(folder):
                name = entry.name
                path = start + name
                suffix = suffix_of(name)
                if _is_folder(entry):
                    if not rules.recursive or self._excludes(path, top, is_folder=True):
                        continue
                    if _is_hidden(name) and not rules.hidden:
                        self._skipped[path] = (HIDDEN_FOLDER, None)
                    elif not _is_link(entry):
                        waiting.append(path)
                    elif rules.follow_links:
                        links.append(path)
                    else:
                        self._skipped[path] = (LINKED_FOLDER, None)
                elif suffix not in KNOWN_SUFFIXES:
                    if not is_counted:
                        self._counts[_reason(entry, path, suffix), suffix] += 1
                elif self._exclusion is not None and self._excludes(path, top):
                    pass
                elif name[0] == "." and not rules.hidden:
                    self._skipped[path] = (HIDDEN_FILE, suffix)
                elif suffix in self._suffixes:
                    yield path
                elif not is_counted:
                    self._counts[unread_reason(suffix) or UNREAD_FORMAT, suffix] += 1

    def _is_new(self, folder: str) -> bool:
        """Return whether a folder is not listed yet, by its own or any other path."""
        try:
            found = os.stat(folder or os.curdir)  # noqa: PTH116
        except OSError:  # deleted, or without permission: listing it has the reason
            return True
        real = (found.st_dev, found.st_ino)
        if real in self._real:
            self._n_repeated += 1
            return False
        self._real.add(real)
        return True

    def _excludes(self, path: str, root: str, *, is_folder: bool = False) -> bool:
        """Return whether a pattern excludes a path, and count it then."""
        if self._exclusion is None or not self._exclusion.matches(path, root, is_folder=is_folder):
            return False
        self._skipped[_plain(path)] = (EXCLUDED_FOLDER, None) if is_folder else (EXCLUDED_FILE, suffix_of(path))
        return True

    def member_reason(self, archive: str, name: str) -> str | None:
        """Return why a member of an archive is left out: it or one of its folders is excluded or hidden; else None."""
        if self._exclusion is not None and self._exclusion.matches(f"{archive}/{name}", archive):
            return EXCLUDED_FILE
        if self.rules.hidden:
            return None
        *folders, own = name.split("/")
        return HIDDEN_FILE if own.startswith(".") or any(map(_is_hidden, folders)) else None

    def _is_unmatched(self, name: str, pattern: str) -> bool:
        """Return whether a name is hidden and begins with a wildcard of its pattern."""
        return not self.rules.hidden and pattern[0] in _WILDCARDS and _is_hidden(name)

    def _folders(self, pattern: str, root: str) -> Iterator[str]:
        """Yield the folders that match the part of a glob before its last component; some may not exist."""
        parent, last = os.path.split(pattern)
        if not glob.has_magic(pattern):
            yield pattern
        elif not last:
            yield from self._folders(parent, root)
        elif last == "**":
            yield from self._below_all(self._folders(parent, root), root)
        elif not glob.has_magic(last):
            yield from (os.path.join(folder, last) for folder in self._folders(parent, root))  # noqa: PTH118
        else:
            for folder in self._folders(parent, root):
                for entry in self._entries(folder):
                    if not fnmatch.fnmatch(entry.name, last) or not _is_folder(entry):
                        continue
                    path = os.path.join(folder, entry.name)  # noqa: PTH118
                    if self._excludes(path, root, is_folder=True):
                        continue
                    if self._is_unmatched(entry.name, last):
                        self._unmatched[path] = (HIDDEN_FOLDER, None)
                    else:
                        yield path

    def _below_all(self, tops: Iterator[str], root: str) -> Iterator[str]:
        """Yield folders and all their subfolders, each once."""
        seen = set()
        for top in tops:
            for folder in self._below(top, root):
                if folder not in seen:
                    seen.add(folder)
                    yield folder

    def _below(self, top: str, root: str) -> Iterator[str]:
        # Each folder with the real paths of the folders whose links led to it.
        waiting: list[tuple[str, tuple[str, ...]]] = [(top, ())]
        while waiting:
            folder, left = waiting.pop()
            yield folder
            for entry in self._entries(folder):
                if not _is_folder(entry):
                    continue
                path = os.path.join(folder, entry.name)  # noqa: PTH118
                if self._excludes(path, root, is_folder=True):
                    continue
                if self._is_unmatched(entry.name, "**"):
                    self._unmatched[path] = (HIDDEN_FOLDER, None)
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


def exclusion_of(patterns: Sequence[str]) -> Exclusion:
    """Return the exclusion of patterns, in which an image suffix matches in any case.

    Raises
    ------
    ArgumentError
        If a pattern is invalid.
    """
    return Exclusion(patterns, KNOWN_SUFFIXES)


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
        Whether to name only what `scan_images` warns of: not other files, broken links, and what is excluded.
    """
    of_reason: dict[str, Counter[str]] = {}
    for (reason, suffix), n in left_out.items():
        of_reason.setdefault(reason, Counter())[suffix or ""] += n
    parts = [_suffixes_text(of_reason.get(UNREAD_FORMAT, Counter()))]
    if needing := of_reason.get(MISSING_EXTRA):
        parts.append(f"{_suffixes_text(needing)} ({install_command(*extras_of(frozenset(needing)))})")
    names = {
        ARCHIVE: "archive",
        LINKED_FOLDER: "linked folder",
        HIDDEN_FOLDER: "hidden folder",
        HIDDEN_FILE: "hidden file",
    }
    if not only_warned:
        others = of_reason.get(OTHER_FILE, Counter())
        if others:
            parts.append(f"{_count(others.total(), 'other file')} ({_suffixes_text(others)})")
        names |= {BROKEN_LINK: "broken link", EXCLUDED_FOLDER: "excluded folder", EXCLUDED_FILE: "excluded file"}
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


def _root_of(pattern: str) -> str:
    """Return the folder that a glob starts from: its components before the first one with a wildcard."""
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)  # noqa: PTH120
    return pattern


def _is_hidden(name: str) -> bool:
    return name[0] == "." or name.lower() in _HIDDEN_NAMES


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
