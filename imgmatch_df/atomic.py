"""One writer at a time, and files that appear whole: what holds for every store, whatever becomes of the process."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgmatch_df.errors import StoreError

_mutex = threading.Lock()
_written: set[str] = set()


@contextmanager
def sole_writer(target: Path, lock: Path | None = None) -> Iterator[None]:
    """Be the only writer of `target` while the block runs.

    Parameters
    ----------
    target
        What is written.
    lock
        File that is locked between processes, and is gone afterwards; None where the format has a lock of its own. The
        system gives it back when its holder is killed.

    Raises
    ------
    StoreError
        If another thread or process writes `target`.
    """
    name = os.path.realpath(target)
    with _mutex:
        if name in _written:
            raise busy(target, "this process")
        _written.add(name)
    try:
        if lock is None:
            yield
        else:
            with _locked(lock, target):
                yield
    finally:
        with _mutex:
            _written.discard(name)


def busy(target: Path, by: str) -> StoreError:
    """Return the error for a store that is being written `by` another."""
    return StoreError(
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
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
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


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last through a power cut, where the system can."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _locked(lock: Path, target: Path) -> Iterator[None]:
    while True:
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
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
    try:
        yield
    finally:
        if os.name == "nt":
            os.close(file)
            lock.unlink(missing_ok=True)
        else:
            lock.unlink(missing_ok=True)
            os.close(file)


def _is_at(file: int, lock: Path) -> bool:
    try:
        found = lock.stat()
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
