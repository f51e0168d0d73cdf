"""Reading of members by their paths: their bytes, and what is known of them without a read."""

import errno
import os
from stat import S_ISREG
from typing import Final, NamedTuple

from imgmatch_df.archives.contents import (
    CUT,
    ENCRYPTED,
    LOST_LINK,
    SPARSE,
    ZIPPED,
    Contents,
    UnreadableError,
    read_at,
)
from imgmatch_df.archives.index import Place, index_of, list_contents
from imgmatch_df.archives.paths import MemberPath, join_member
from imgmatch_df.archives.tar import TAR_ERRORS, read_sparse
from imgmatch_df.archives.zips import read_zipped
from imgmatch_df.errors import Failure
from imgmatch_df.local_files import open_file
from imgmatch_df.sources import describe, too_many_bytes

_NS_PER_US: Final = 1000


class Opened(NamedTuple):
    """The members of an archive, and its time of modification in microseconds since 1970."""

    contents: Contents
    modified: int


def open_contents(archive: str) -> Opened:
    """List the members of an archive.

    Raises
    ------
    UnreadableError
        If it cannot be read or listed; the message is the reason.
    """
    try:
        file = open_file(archive, None)
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    try:
        facts = os.fstat(file)
        if not S_ISREG(facts.st_mode):
            raise UnreadableError("not a regular file")
        return Opened(list_contents(archive, file, facts), facts.st_mtime_ns // _NS_PER_US)
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    finally:
        os.close(file)


def read_member(path: MemberPath, base_dir: str | None, max_bytes: int) -> bytes | Failure:
    """Return the content of a member, or why it cannot be read.

    Parameters
    ----------
    path
        Archive and member.
    base_dir, max_bytes
        Options of those names. `base_dir` must contain the archive.

    Raises
    ------
    OSError
        If the archive cannot be opened or read.
    """
    file = open_file(path.archive, base_dir)
    try:
        if path.is_compressed:
            hint = "decompress it, since members are read where they are"
            return Failure("bad_source", f"a compressed tar: {describe(path.archive)}; {hint}")
        found = _find(path, file)
        if isinstance(found, Failure):
            return found
        data = _read(found, file, path, max_bytes)
    finally:
        os.close(file)
    return data if data else Failure("missing", f"zero bytes: {describe(_shown(path))}")


def stat_member(path: MemberPath, base_dir: str | None) -> tuple[int, int] | None:
    """Return the size of a member, and the time of modification of its archive in microseconds; None if unknown."""
    if path.is_compressed:
        return None
    try:
        file = open_file(path.archive, base_dir)
    except (OSError, ValueError):
        return None
    try:
        found = _find(path, file)
        if isinstance(found, Failure) or found.kind == LOST_LINK:
            return None
        return found.size, os.fstat(file).st_mtime_ns // _NS_PER_US
    except OSError:
        return None
    finally:
        os.close(file)


def _find(path: MemberPath, file: int) -> Place | Failure:
    facts = os.fstat(file)
    if not S_ISREG(facts.st_mode):
        raise OSError(errno.ENXIO, "not a regular file")
    try:
        found = index_of(path.archive, file, facts).find(path.member)
    except UnreadableError as error:
        return Failure("fetch_failed", f"{describe(path.archive)}: {error}")
    return found or Failure("not_found", f"no such member: {describe(_shown(path))}")


def _read(place: Place, file: int, path: MemberPath, max_bytes: int) -> bytes | Failure:
    offset, size, stored, crc, kind = place
    if kind == LOST_LINK:
        return Failure("not_found", f"a link to no file of the archive: {describe(_shown(path))}")
    if kind == CUT:
        return Failure("fetch_failed", f"the archive is cut: it has {stored:,} of {size:,} bytes of the member")
    if kind == ENCRYPTED:
        return Failure("fetch_failed", f"an encrypted member: {describe(_shown(path))}")
    if size > max_bytes:
        return too_many_bytes(f"{size:,} bytes", max_bytes)
    if kind >= ZIPPED:
        return read_zipped(file, offset, size, kind, stored=stored, crc=crc, max_bytes=max_bytes)
    try:
        data = read_sparse(file, offset, size) if kind == SPARSE else read_at(file, size, offset)
    except TAR_ERRORS as error:
        return Failure("fetch_failed", f"damaged tar archive: {error}")
    if len(data) < size:
        return Failure("fetch_failed", f"the archive has changed: it has {len(data):,} of {size:,} bytes of the member")
    return data


def _shown(path: MemberPath) -> str:
    return join_member(*path)
