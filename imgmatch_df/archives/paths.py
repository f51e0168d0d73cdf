"""Paths of members: the path of the archive, a slash, and the name of the member.

A regular file has no files below it, so such a path names nothing else: it cannot be the path of a file, whatever
characters it has.
"""

import os
import re
from typing import Final, NamedTuple

# Suffixes of the archives that are opened, in any case. `.cbt` and `.cbz` are comic books.
ARCHIVE_SUFFIXES: Final = frozenset((".cbt", ".cbz", ".tar", ".zip"))
# Of these, a member is only found by decompressing all members before it.
COMPRESSED_SUFFIXES: Final = (
    *(".tar.bz2", ".tar.gz", ".tar.lz4", ".tar.xz", ".tar.zst", ".tbz", ".tbz2", ".tgz", ".txz", ".tzst"),
)
_SEPARATORS: Final = r"[/\\]" if os.name == "nt" else "/"
_ARCHIVE: Final = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted({*ARCHIVE_SUFFIXES, *COMPRESSED_SUFFIXES}, reverse=True)))})"
    rf"(?={_SEPARATORS})",
    re.IGNORECASE,
)
_UP: Final = r"\x2e\x2e"
# The key of a sample of webdataset: the name up to the first dot after the last slash.
_SAMPLE: Final = re.compile(r"((?:.*/|)[^.]+)[.][^/]*")

COMPRESSED_HINT: Final = "decompress it: the members of a .tar or .zip are read where they are."


class MemberPath(NamedTuple):
    """The path of a member.

    Parameters
    ----------
    archive
        Path of the archive.
    member
        Text of the member, see `member_text`.
    """

    archive: str
    member: str

    @property
    def is_compressed(self) -> bool:
        """Whether the archive is a compressed tar, which is not read."""
        return is_compressed(self.archive)


def split_path(path: str) -> MemberPath | None:
    """Return the archive and the member that a path names; None for the path of a file, and where there is no archive.

    The part of a path that is a regular file with the suffix of an archive is the archive. A folder may have any name.
    """
    for found in _ARCHIVE.finditer(path):
        archive = path[: found.end()]
        if os.path.isfile(archive):  # noqa: PTH113  # a Path raises without permission
            member = path[found.end() + 1 :]
            return MemberPath(archive, member_text(member.replace("\\", "/") if os.name == "nt" else member))
    return None


def join_member(archive: str, text: str) -> str:
    """Return the path of a member."""
    return f"{archive}/{text}"


def is_archive(path: str) -> bool:
    """Return whether a path is that of a file that is opened as an archive."""
    return os.path.splitext(path)[1].lower() in ARCHIVE_SUFFIXES and os.path.isfile(path)  # noqa: PTH113, PTH122


def is_compressed(path: str) -> bool:
    """Return whether a path has the suffix of a compressed tar."""
    return path.lower().endswith(COMPRESSED_SUFFIXES)


def member_text(name: str) -> str:
    r"""Return the name of a member as a path has it.

    Empty parts, ``.`` and a slash at the start are left out, as `tar` does when it extracts. ``..`` is escaped as
    ``\x2e\x2e``, so that no program takes the path for that of a file outside of the archive. Bytes that are not UTF-8
    are escaped, too.
    """
    name = _as_text(name)
    if "./" in name or "//" in name or name.startswith("/") or name.endswith((".", "/")):
        parts = (part for part in name.split("/") if part not in ("", "."))
        name = "/".join(_UP if part == ".." else part for part in parts)
    return name


def sample_key(name: str) -> str | None:
    """Return the key that webdataset gives the sample of a member; None for a member that it skips."""
    found = _SAMPLE.fullmatch(_as_text(name))
    return None if found is None else found[1]


def _as_text(name: str) -> str:
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
