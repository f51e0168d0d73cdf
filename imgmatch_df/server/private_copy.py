"""Private copies of stores, so that a store can be written while it is read.

DuckDB locks a file that it reads, and another process cannot write it then. Polars maps a Parquet file into memory; if
another process truncates the file, the reading process is killed.
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

# Endings of the files that DuckDB writes beside a database.
_LOG: Final = ".wal"
_ENDINGS: Final = ("", _LOG, f"{_LOG}.checkpoint", f"{_LOG}.recovery")
# Two writes within a tick of the kernel's clock, at most 10 ms, leave the same modification time.
_TICK_NS: Final = 20_000_000


class BeingWrittenError(StoreError):
    """A store was written while it was copied. A retry may succeed."""


class FileState(NamedTuple):
    """Properties of a file that change when it is replaced or written."""

    device: int
    inode: int
    n_bytes: int
    modified_ns: int


Identity = dict[Path, FileState]


def identify(path: Path) -> Identity:
    """Return the files of the store at `path` and their states; empty if there are no files.

    Raises
    ------
    OSError
        If a folder or file cannot be read.
    """
    path = Path(os.path.realpath(path))
    files = sorted(path.iterdir()) if path.is_dir() else [path.with_name(path.name + ending) for ending in _ENDINGS]
    found = {}
    for file in files:
        with suppress(FileNotFoundError):  # just removed, or not written by DuckDB
            status = file.stat()
            found[file] = FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Yield a consistent copy of the store at `path`, with its name.

    Parameters
    ----------
    path
        The store. This process must not write it, because closing a file releases the locks of the process on it.

    Raises
    ------
    BeingWrittenError
        If the store was written while it was copied.
    StoreError
        If the disk has no room for the copy, or the store cannot be read.
    """
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgmatch-store-")))
            copy = folder / path.name  # also for a link, because the suffix decides the kind of store
            _copy(path, copy)
        except OSError as error:
            raise _not_copied(path, f"{error.strerror}: {str(error.filename or folder)!r}") from error
        yield copy


def _copy(path: Path, copy: Path) -> None:
    """Copy the files of a store.

    They must not change meanwhile, except that DuckDB's log may grow: while the database file does not change, DuckDB
    only appends to the log, and it reads a truncated log up to the last complete transaction.
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
    if log in after and _is_appended(before.get(log), after[log]):
        before[log] = after[log]
    if before != after:
        raise _busy(path)


def _is_appended(old: FileState | None, new: FileState) -> bool:
    return old is None or (old[:2] == new[:2] and old.n_bytes <= new.n_bytes)


def _copy_bytes(source: int, target: int, n_bytes: int) -> None:
    """Copy the first bytes of a file, in the kernel if possible: some file systems share the blocks instead."""
    while n_bytes:
        try:
            n_copied = os.copy_file_range(source, target, n_bytes)
        except (AttributeError, OSError):  # not Linux, or two file systems without support
            data = os.read(source, min(n_bytes, 1 << 20))
            n_copied = 0
            while n_copied < len(data):
                n_copied += os.write(target, data[n_copied:])
        if not n_copied:
            return  # the file was truncated, which its state shows afterwards
        n_bytes -= n_copied


def _busy(path: Path) -> BeingWrittenError:
    return BeingWrittenError(
        f"{str(path)!r} is being written\nHint: wait; it is read as soon as its writer pauses for 0.1 seconds."
    )


def _not_copied(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{str(path)!r} cannot be copied, and a copy is needed to read it: {reason}\n"
        "Hint: make room, or set TMPDIR to a folder with more; each copy is removed after reading."
    )
