"""One writer at a time, and files that appear whole: what holds for every store, whatever becomes of the process."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from imgmatch_df.errors import StoreError

# How long a store that is in use is waited for: a reader has it open for some milliseconds, a writer for as long as it
# writes.
WAIT_S = 5.0
_SHORTEST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.1

_mutex = threading.Lock()
_written: set[str] = set()
_lock_files: set[int] = set()

# The owner of a temporary file may read and write it, and nobody else, until it has the access of the file it replaces.
PRIVATE: Final = 0o600
_PUBLIC: Final = 0o666  # less the umask
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

# What the systems, DuckDB and Polars say where a disk is full.
NO_ROOM: Final = ("No space left", "File too large", "Disk quota", "out of disk")

T = TypeVar("T")


class BusyError(StoreError):
    """Another thread or process uses a store."""


def when_free(attempt: Callable[[], T]) -> T:
    """Return what `attempt` gives; while it finds a store in use, try again for `WAIT_S` seconds.

    Raises
    ------
    BusyError
        If the store is in use all the time.
    """
    deadline, pause_s = time.monotonic() + WAIT_S, _SHORTEST_PAUSE_S
    while True:
        try:
            return attempt()
        except BusyError:
            if time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@contextmanager
def sole_writer(target: Path) -> Iterator[None]:
    """Be the only writer of `target` while the block runs; wait for another one for `WAIT_S` seconds.

    Between processes, a file beside `target` is locked, which is gone afterwards. The system gives the lock back when
    its holder is killed.

    Raises
    ------
    StoreError
        If another thread or process writes `target`.
    """
    name = os.path.realpath(target)
    lock = target.with_name(f".{target.name}.lock")

    def enter() -> int:
        with _mutex:
            if name in _written:
                raise busy(target, "this process")
            _written.add(name)
        try:
            return _lock(lock, target)
        except BaseException:
            _forget(name)
            raise

    file, process = when_free(enter), os.getpid()
    try:
        yield
    finally:
        if os.getpid() == process:  # a child that was forked meanwhile has no lock to give back
            _unlock(lock, file)
            _forget(name)


def busy(target: Path, by: str) -> BusyError:
    """Return the error for a store that is being written `by` another."""
    return BusyError(
        f"{str(target)!r} is in use by {by}\n"
        "Hint: one writer at a time, and no reader meanwhile; try again when it is done."
    )


def appear(temporary: Path, final: Path, *, replace: bool) -> None:
    """Give a finished file its name, for good: after a power cut it is there whole, or what was there before is.

    Parameters
    ----------
    temporary
        The file, in the same file system.
    final
        Its name.
    replace
        Whether it takes the place of an older file.

    Raises
    ------
    FileExistsError
        If there is a file of that name, and it is not to be replaced.
    """
    sync(temporary)
    if replace:
        temporary.replace(final)
    else:
        try:
            os.link(temporary, final)  # unlike a rename, never in the place of another file
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if final.exists():
                raise FileExistsError(errno.EEXIST, "", str(final)) from None
            temporary.rename(final)
        else:
            temporary.unlink()
    sync_folder(final.parent)


def real_path(path: Path) -> Path:
    """Return the path that a link leads to, whether there is anything or not; of another path, the path itself.

    Raises
    ------
    OSError
        If a link leads to itself.
    """
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return real


def open_new(path: Path, *, like: Path | None = None) -> BinaryIO:
    """Create a file that does not exist yet, and open it for reading and writing. A link is never followed.

    Parameters
    ----------
    path
        The file.
    like
        A file whose access it will get from `copy_access`; until then, only its owner may open it.

    Raises
    ------
    FileExistsError
        If there is a file or a link of that name.
    """
    mode = PRIVATE if like is not None and like.exists() else _PUBLIC
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode), "rb+")


def copy_access(path: Path, copy: Path) -> None:
    """Give `copy` the owner, the group and the permissions of `path`, where the system allows it; never more access."""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(copy, found.st_uid, -1)
        try:
            os.chown(copy, -1, found.st_gid)
        except OSError:  # another group has it now, which gets what everybody has
            mode = mode & ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    copy.chmod(mode)


def sync(path: Path) -> None:
    """Make the content of a file last through a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last through a power cut, where the system can."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _forget(name: str) -> None:
    with _mutex:
        _written.discard(name)


def _lock(lock: Path, target: Path) -> int:
    """Return the descriptor of the lock file, which is locked."""
    while True:
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, _PUBLIC)
        except OSError as error:
            if lock.is_symlink():
                raise StoreError(
                    f"{str(lock)!r} is a link, where the lock of the store has to be\nHint: remove the link."
                ) from error
            raise StoreError(
                f"cannot write into {str(lock.parent)!r}: {error.strerror}\nHint: choose another folder for the store."
            ) from error
        try:
            _try_lock(file)
            # The holder before us may have removed the file after we opened it: then it is a lock on nothing.
            if _is_at(file, lock):
                break
        except OSError:
            os.close(file)
            raise busy(target, "another process") from None
        os.close(file)
    _lock_files.add(file)
    return file


def _unlock(lock: Path, file: int) -> None:
    _lock_files.discard(file)
    if os.name == "nt":
        os.close(file)
        lock.unlink(missing_ok=True)
    else:
        lock.unlink(missing_ok=True)
        os.close(file)


def _is_at(file: int, lock: Path) -> bool:
    try:
        found = lock.lstat()
    except FileNotFoundError:
        return False
    ours = os.fstat(file)
    return (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)


def _try_lock(file: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _leave_to_parent() -> None:
    """After a fork: what the parent writes is not written here, and its locks end with the parent."""
    global _mutex
    _mutex = threading.Lock()
    _written.clear()
    for file in _lock_files:
        os.close(file)
    _lock_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
