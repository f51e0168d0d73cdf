"""Locks of stores and outputs: one writer at a time, and retries while a file is in use."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from imgmatch_df.errors import StoreError

# How long to wait for a store that is in use. Writers without hard links, and DuckDB shells, lock a file for the whole
# time that they use it.
WAIT_S = 5.0
_MIN_PAUSE_S: Final = 0.005
_MAX_PAUSE_S: Final = 0.1

# The writers, by process and path: a forked child inherits this dictionary, but not the locks.
_writers: Final[dict[tuple[int, str], object]] = {}

T = TypeVar("T")


class BusyError(StoreError):
    """A store is used by another thread or process."""


def when_free(attempt: Callable[[], T]) -> T:
    """Return the result of `attempt`, which is called again for `WAIT_S` seconds while it raises `BusyError`.

    Raises
    ------
    BusyError
        If the store is still in use at the end.
    """
    deadline, pause_s = time.monotonic() + WAIT_S, _MIN_PAUSE_S
    while True:
        try:
            return attempt()
        except BusyError:
            if time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)


def lock_path(target: Path) -> Path:
    """Return the path of the file that the writer of `target` locks."""
    return target.with_name(f".{target.name}.lock")


@contextmanager
def sole_writer(target: Path) -> Iterator[None]:
    """Be the only writer of `target` within the block; wait up to `WAIT_S` seconds for another writer.

    Processes exclude each other with a lock file beside `target`, which is removed at the end. The system releases the
    lock of a process that is killed.

    Raises
    ------
    BusyError
        If another thread or process writes `target`.
    StoreError
        If the lock file cannot be created.
    """
    from filelock import FileLock, Timeout

    path, writer = lock_path(target), object()
    process = os.getpid()
    key = (process, os.path.realpath(target))
    # No soft locks: a killed process would leave them.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)

    def enter() -> None:
        if _writers.setdefault(key, writer) is not writer:
            raise busy(target, "this process")
        try:
            _check_lock_file(path)
            lock.acquire()
        except BaseException as error:
            _writers.pop(key)
            if isinstance(error, Timeout):
                raise busy(target, "another process") from None
            if isinstance(error, OSError):
                raise StoreError(
                    f"cannot write into {str(path.parent)!r}: {error.strerror}\n"
                    "Hint: choose another folder for the store."
                ) from error
            raise

    when_free(enter)
    try:
        yield
    finally:
        if os.getpid() == process:  # a child that was forked within the block does not have the lock
            # Removed while it is locked: filelock retries if the file that it has locked is deleted.
            if os.name != "nt":
                path.unlink(missing_ok=True)
            lock.release()
            _writers.pop(key)


def busy(target: Path, by: str) -> BusyError:
    """Return the error for a store that is in use `by` another thread or process."""
    return BusyError(
        f"{str(target)!r} is in use by {by}\n"
        "Hint: one writer at a time, and no reader meanwhile; try again when it is done."
    )


def _check_lock_file(path: Path) -> None:
    """Raise if the lock file is a link, or if its folder does not exist, which filelock would create."""
    path.parent.stat()
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if path.is_symlink() or found.st_nlink > 1:
        raise StoreError(f"the lock file {str(path)!r} of the store is a link\nHint: remove the link.")
