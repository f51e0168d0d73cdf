"""Places of the members of archives, by their paths, in memory for as long as an archive does not change."""

import os
import threading
from collections import OrderedDict
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imgmatch_df.archives.contents import Contents
from imgmatch_df.archives.tar import list_tar
from imgmatch_df.archives.zips import list_zip

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Members in memory, of all archives; 46 bytes each. One archive is kept, however many it has.
_MAX_MEMBERS: Final = 1 << 21
_DIGEST: Final = Struct("<QQ")

# Device, inode, size and time of modification of an archive: another archive has other ones.
_Identity = tuple[int, int, int, int]


class Place(NamedTuple):
    """The place of a member, see `Contents`."""

    offset: int
    size: int
    stored: int
    crc: int
    kind: int


class MemberIndex:
    """The places of the members of one archive, by a digest of their texts: two of 2**64 members would share one."""

    def __init__(self, contents: Contents) -> None:
        import numpy as np

        digests = np.frombuffer(b"".join(map(_digest, contents.texts)), np.dtype("<u8")).reshape(-1, 2)
        order = np.argsort(digests[:, 0], kind="stable")
        self._high, self._low = digests[order, 0], digests[order, 1]
        columns = (contents.offset, contents.size, contents.stored, contents.crc, contents.kind)
        self._columns: list[NDArray[Any]] = [np.array(column)[order] for column in columns]

    def __len__(self) -> int:
        return len(self._high)

    def find(self, text: str) -> Place | None:
        """Return the place of a member, None if the archive has no such member."""
        high, low = _DIGEST.unpack(_digest(text))
        at = int(self._high.searchsorted(self._high.dtype.type(high)))
        while at < len(self._high) and self._high[at] == high:
            if self._low[at] == low:
                return Place(*(int(column[at]) for column in self._columns))
            at += 1
        return None


def list_contents(archive: str, file: int, facts: os.stat_result) -> Contents:
    """Return the members of an archive, and keep its index for the reads that follow.

    Parameters
    ----------
    archive
        Its path; the suffix is its format.
    file
        Its descriptor.
    facts
        Result of `os.fstat`.

    Raises
    ------
    UnreadableError
        If it cannot be listed.
    """
    return _list(archive, file, facts)[0]


def index_of(archive: str, file: int, facts: os.stat_result) -> MemberIndex:
    """Return the index of an archive; see `list_contents`. Threads that need the same index at once make one."""
    identity = _identity(facts)
    with _lock:
        found = _kept.get(identity)
        if found is not None:
            _kept.move_to_end(identity)
            return found
        gate = _gates.setdefault(identity, threading.Lock())
    with gate:
        with _lock:
            found = _kept.get(identity)
        if found is None:
            try:
                found = _list(archive, file, facts)[1]
            finally:
                with _lock:
                    _gates.pop(identity, None)
    return found


def _list(archive: str, file: int, facts: os.stat_result) -> tuple[Contents, MemberIndex]:
    contents = list_tar(file, facts.st_size) if archive.lower().endswith((".tar", ".cbt")) else list_zip(file)
    index = MemberIndex(contents)
    _keep(_identity(facts), index)
    return contents, index


def _identity(facts: os.stat_result) -> _Identity:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _keep(identity: _Identity, index: MemberIndex) -> None:
    with _lock:
        _kept[identity] = index
        _kept.move_to_end(identity)
        n_members = sum(map(len, _kept.values()))
        while n_members > _MAX_MEMBERS and len(_kept) > 1:
            n_members -= len(_kept.popitem(last=False)[1])


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST.size).digest()


def _forget_locks_of_parent() -> None:
    """Replace the locks in a forked child: a thread of the parent may have held them."""
    global _lock
    _lock = threading.Lock()
    _gates.clear()


_lock = threading.Lock()
_kept: OrderedDict[_Identity, MemberIndex] = OrderedDict()
_gates: dict[_Identity, threading.Lock] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks_of_parent)
