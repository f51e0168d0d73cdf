"""The members of one archive, as columns: 60 bytes and a name for each, where the objects of a library take 1,000."""

import io
import os
import posixpath
from array import array
from bisect import bisect_left
from typing import Final

from imgmatch_df.archives.paths import member_text

# How the bytes of a member are read. Others are `ZIPPED` plus the number of the compression in zip files.
PLAIN: Final = 0  # as they are, at the offset
SPARSE: Final = 1  # by tarfile, from the header at the offset
LOST_LINK: Final = 2
CUT: Final = 3  # the archive ends within them
ENCRYPTED: Final = 4
ZIPPED: Final = 16

_MAX_LINKS: Final = 40  # of Linux
_CUT_CHARS: Final = 80
_LARGEST: Final = 1 << 62


class UnreadableError(Exception):
    """The archive cannot be listed; the message is the reason."""


class Contents:
    """The files and links of one archive, in its order. Directories and devices are left out.

    Attributes
    ----------
    names
        Names as the archive has them; bytes that are not UTF-8 are surrogates.
    texts
        Names as paths have them, each once; see `finish`.
    offset, size, stored, crc, kind
        Of each member: where its bytes (or its header) begin, how many it has, how many are in the archive, their
        checksum in a zip file, and how they are read.
    n_others
        Number of members that are neither files, nor links, nor directories.
    note
        Why the listing may not be whole, None if it is.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.texts: list[str] = []
        self.offset = array("q")
        self.size = array("q")
        self.stored = array("q")
        self.crc = array("Q")
        self.kind = array("l")
        self.n_others = 0
        self.note: str | None = None
        # The target of each link, and whether it is a hard link, which leads to a member before it.
        self._links: dict[int, tuple[str, bool]] = {}

    def add(
        self, name: str, offset: int, size: int, kind: int = PLAIN, *, stored: int | None = None, crc: int = 0
    ) -> None:
        """Add a file."""
        self.names.append(name)
        # A damaged header may have larger numbers than a file; they fit into 64 bits with a sign here.
        self.offset.append(max(-_LARGEST, min(offset, _LARGEST)))
        self.size.append(min(size, _LARGEST))
        self.stored.append(min(size if stored is None else stored, _LARGEST))
        self.crc.append(crc)
        self.kind.append(kind)

    def add_link(self, name: str, target: str, *, is_hard: bool) -> None:
        """Add a link to another member."""
        if not is_hard:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        self._links[len(self.names)] = (target, is_hard)
        self.add(name, 0, 0, LOST_LINK)

    def finish(self) -> None:
        """Follow the links, and give members of one name different texts.

        The last of them has the plain text, as it is the one that remains when all are extracted; those before it are
        in the folders ``;1``, ``;2`` …
        """
        self.texts = [member_text(name) for name in self.names]
        if self._links:
            self._follow_links()
        if len(set(self.texts)) == len(self.texts):
            return
        taken, last = set(self.texts), {text: at for at, text in enumerate(self.texts)}
        n_before: dict[str, int] = {}
        for at, text in enumerate(self.texts):
            if last[text] == at:
                continue
            number = n_before.get(text, 0) + 1
            while (numbered := f";{number}/{text}") in taken:
                number += 1
            n_before[text] = number
            taken.add(numbered)
            self.texts[at] = numbered

    def _follow_links(self) -> None:
        places: dict[str, list[int]] = {}
        for place, text in enumerate(self.texts):
            places.setdefault(text, []).append(place)
        for link in self._links:
            at: int | None = link
            for _ in range(_MAX_LINKS):
                if at is None or at not in self._links:
                    break
                target, is_hard = self._links[at]
                found = places.get(member_text(target), [])
                n_found = bisect_left(found, at) if is_hard else len(found)
                at = found[n_found - 1] if n_found else None
            if at is not None and at not in self._links:
                for column in (self.offset, self.size, self.stored, self.crc, self.kind):
                    column[link] = column[at]


def read_at(file: int, n_bytes: int, offset: int) -> bytes:
    """Return up to `n_bytes` at an offset of an open file; fewer at its end."""
    if not hasattr(os, "pread"):  # Windows: each thread has opened the file for itself
        os.lseek(file, offset, os.SEEK_SET)
    data = _read_once(file, n_bytes, offset)
    if len(data) == n_bytes or not data:
        return data
    parts, n_read = [data], len(data)  # a system reads at most 2 GB at once
    while n_read < n_bytes and (data := _read_once(file, n_bytes - n_read, offset + n_read)):
        parts.append(data)
        n_read += len(data)
    return b"".join(parts)


def _read_once(file: int, n_bytes: int, offset: int) -> bytes:
    return os.pread(file, n_bytes, offset) if hasattr(os, "pread") else os.read(file, n_bytes)


class FilePart(io.RawIOBase):
    """A part of an open file as a file, so that a library reads no more than it."""

    def __init__(self, file: int, start: int, end: int) -> None:
        self._file, self._start, self._end, self._at = file, start, end, start

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position."""
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._start, base + offset)
        return self.tell()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # of any buffer
        """Read into a buffer."""
        data = read_at(self._file, max(0, min(len(buffer), self._end - self._at)), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def shown_name(name: str) -> str:
    """Return the name of a member for messages."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in member_text(name))
    return text if len(text) <= _CUT_CHARS else f"{text[: _CUT_CHARS - 1]}…"
