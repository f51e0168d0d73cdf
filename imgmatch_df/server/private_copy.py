"""Private copies of stores, so that reading a store never keeps anybody from writing it.

DuckDB locks a file that it has open, for reading too, and refuses a writer meanwhile. Polars maps a Parquet file into
memory, and dies with the process where somebody else cuts the file short meanwhile.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from imgmatch_df.errors import StoreError

# What DuckDB writes beside a file, by the end of its name.
_LOG: Final = ".wal"
_ENDINGS: Final = ("", _LOG, f"{_LOG}.checkpoint", f"{_LOG}.recovery")
# Two writes within a tick of the kernel's clock, up to 10 ms, leave the same time of modification.
_TICK_NS: Final = 20_000_000


class BeingWrittenError(StoreError):
    """A store changes faster than it is copied. Trying again helps."""


class FileState(NamedTuple):
    """What tells whether a file has been replaced or written."""

    device: int
    inode: int
    n_bytes: int
    modified_ns: int


Identity = dict[Path, FileState]


def identify(path: Path) -> Identity:
    """Return the files of the store at `path` and their states; empty where there are none.

    Raises
    ------
    OSError
        If they cannot be looked at.
    """
    path = Path(os.path.realpath(path))
    files = sorted(path.iterdir()) if path.is_dir() else [path.with_name(path.name + ending) for ending in _ENDINGS]
    found = {}
    for file in files:
        with suppress(FileNotFoundError):  # has just been removed, or DuckDB has not written it
            status = file.stat()
            found[file] = FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Give a copy of the store at `path` as it was at one time, with its name.

    Parameters
    ----------
    path
        The store. This process must not write it: closing a file gives up the locks that a process has on it.

    Raises
    ------
    BeingWrittenError
        If the store was written while it was copied.
    StoreError
        If there is no room for the copy, or the store cannot be read.
    """
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgmatch-store-")))
            copy = folder / path.name  # not the name that a link leads to: the ending tells what kind of store it is
            _copy(path, copy)
        except OSError as error:
            raise _not_copied(path, f"{error.strerror}: {str(error.filename or folder)!r}") from error
        yield copy


def _copy(path: Path, copy: Path) -> None:
    """Copy the files of a store.

    They must stay as they are meanwhile, except that DuckDB's log may grow: while the file beside it does not change,
    the log is only appended to, and DuckDB reads a log that is cut off up to its last whole transaction.
    """
    before = identify(path)
    n_bytes, n_free = sum(state.n_bytes for state in before.values()), shutil.disk_usage(copy.parent).free
    if n_bytes > n_free:
        raise _not_copied(path, f"it has {n_bytes:,} bytes, and {tempfile.gettempdir()!r} has {n_free:,} free")
    real = Path(os.path.realpath(path))
    log = real.with_name(real.name + _LOG)
    now_ns = time.time_ns()
    if any(abs(now_ns - state.modified_ns) < _TICK_NS for file, state in before.items() if file != log):
        raise _busy(path)
    for file, state in before.items():
        part = copy.parent / (copy.name + str(file).removeprefix(str(real)))
        part.parent.mkdir(exist_ok=True)
        try:
            with file.open("rb", buffering=0) as source, part.open("wb", buffering=0) as target:
                _copy_bytes(source.fileno(), target.fileno(), state.n_bytes)
        except FileNotFoundError:
            raise _busy(path) from None
    after = identify(path)
    if log in after and _is_continued(before.get(log), after[log]):
        before[log] = after[log]
    if before != after:
        raise _busy(path)


def _is_continued(old: FileState | None, new: FileState) -> bool:
    return old is None or (old[:2] == new[:2] and old.n_bytes <= new.n_bytes)


def _copy_bytes(source: int, target: int, n_bytes: int) -> None:
    """Copy the first bytes of a file, by the kernel where it can: file systems that share blocks copy none."""
    while n_bytes:
        try:
            n_copied = os.copy_file_range(source, target, n_bytes)
        except (AttributeError, OSError):  # other systems than Linux; two file systems that cannot
            data = os.read(source, min(n_bytes, 1 << 20))
            n_copied = 0
            while n_copied < len(data):
                n_copied += os.write(target, data[n_copied:])
        if not n_copied:
            return  # the file has been cut short, as its state shows afterwards
        n_bytes -= n_copied


def _busy(path: Path) -> BeingWrittenError:
    return BeingWrittenError(
        f"{str(path)!r} is being written\nHint: it is read as soon as its writer pauses for 0.1 seconds."
    )


def _not_copied(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{str(path)!r} cannot be copied, which is how it is read: {reason}\n"
        "Hint: make room, or have TMPDIR name a folder with more; each copy is gone as soon as it has been read."
    )
