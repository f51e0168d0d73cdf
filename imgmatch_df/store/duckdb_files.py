"""Concurrent access to a DuckDB file, because DuckDB lets a writer and readers wait for each other.

A file may be untrusted. DuckDB opens it without access to other files, the network and extensions, attached to a
database in memory, so that a query calls the functions of DuckDB and never macros of the file.

A writer changes a copy of the file. The log (``.wal``) of the copy is also the log of the file, by a hard link, so
readers of the file see each commit at once. At the end, DuckDB merges the log into the copy, and the copy replaces the
file. A file is never changed under the name of the store: a killed writer leaves the old file with its log, or the new
file. DuckDB distinguishes them: a checkpoint ends the log with a mark that identifies the content of the new file, and
DuckDB ignores a log whose mark matches the file (`SingleFileCheckpointWriter::CreateCheckpoint` of 1.5 and 2.0).
"""

import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple
from uuid import uuid4

from imgmatch_df.atomic import NO_ROOM, copy_access, sync, sync_folder
from imgmatch_df.errors import StoreError
from imgmatch_df.sources import describe
from imgmatch_df.store.base import RepairableError
from imgmatch_df.store.locks import busy, when_free
from imgmatch_df.threads import n_threads

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ATTACHED: Final = "store"

# Only explicit checkpoints, and no commit that bypasses the log.
_WRITE: Final[dict[str, Any]] = {
    "storage_compatibility_version": "v1.4.0",  # the release of DuckDB before the current one can open the file
    "auto_checkpoint_skip_wal_threshold": (1 << 63) - 1,
    "checkpoint_threshold": "1000TB",
}
# No extension is loaded or downloaded, whatever a file names.
_READ: Final[dict[str, Any]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "arrow_output_version": "1.4",  # BLOB as views, which Polars takes without a copy
}
# Polars takes views without a copy, and they may have more than 2 GB together.
_STRINGS_AS_VIEWS: Final = "SET produce_arrow_string_view = true"
# Suffixes of the files that DuckDB opens for a database.
_SUFFIXES: Final = ("", ".wal", ".wal.checkpoint", ".wal.recovery")

# DuckDB writes larger commits directly into the file: a row group has 122,880 rows.
MAX_COMMIT_ROWS: Final = 1 << 16
_COPIED_BYTES: Final = 1 << 22
_PRIVATE_FOLDER: Final = 0o700


def log_of(path: Path) -> Path:
    """Return the path of the log of a DuckDB file."""
    return path.with_name(f"{path.name}.wal")


# Readers.


class _Instance:
    """A DuckDB instance with one attached file, and the number of its readers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: DuckDBPyConnection | None = None
        self.n_readers = 0


# Readers of one file share an instance: opening one takes 20 ms, and the system releases the locks of a process on a
# file when the process closes any descriptor of that file.
_instances: dict[tuple[object, ...], _Instance] = {}
_mutex = threading.Lock()
_left_to_parent: list[object] = []


@contextmanager
def reading(path: Path) -> Iterator["DuckDBPyConnection"]:
    """Yield a connection for this thread that reads a DuckDB file, whose tables are in `ATTACHED`.

    The file and its log are not changed. While another program writes the file, this waits for `locks.WAIT_S`.
    """
    with ExitStack() as stack:
        yield when_free(lambda: _reader(path, stack))


def _reader(path: Path, stack: ExitStack) -> "DuckDBPyConnection":
    import duckdb

    with duckdb_errors(path, opening=True):
        before = _identity(path)
        try:
            with ExitStack() as opened:
                cursor = opened.enter_context(_cursor(path, (os.path.realpath(path), *before)))
                if _identity(path) == before:
                    stack.push(opened.pop_all())
                    return cursor
        except duckdb.Error:
            if _identity(path) == before:
                raise
    # A writer has replaced the file after the file was opened and before its log was opened.
    raise busy(path, "another process")


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_dev, found.st_ino)


@contextmanager
def _cursor(path: Path, key: tuple[object, ...]) -> Iterator["DuckDBPyConnection"]:
    with _mutex:
        instance = _instances.setdefault(key, _Instance())
        instance.n_readers += 1
    try:
        with instance.lock:
            if instance.connection is None:
                instance.connection = attach(path)
            cursor = instance.connection.cursor()
        with closing(cursor):
            yield cursor
    finally:
        _release(key, instance)


def _release(key: tuple[object, ...], instance: _Instance) -> None:
    with _mutex:
        instance.n_readers -= 1
        if instance.n_readers == 0:
            _instances.pop(key, None)
            if instance.connection is not None:
                instance.connection.close()


def attach(path: Path, *, write: bool = False) -> "DuckDBPyConnection":
    """Return a connection to a database in memory with an attached DuckDB file, which can open no other file.

    Parameters
    ----------
    path
        The file.
    write
        Whether it may be changed. Commits then go only to its log, until ``CHECKPOINT`` is executed.
    """
    import duckdb

    # Not connect(path): DuckDB keeps one instance per path, and would return the instance of a replaced file.
    # DuckDB spills to the temporary folder, not beside the file or into the working directory.
    spilled = Path(tempfile.gettempdir(), f"imgmatch-df-{uuid4().hex}")
    config = {**_READ, **(_WRITE if write else {}), "temp_directory": str(spilled)}
    if write:
        config["threads"] = n_threads() + 1  # the calling thread does not take part in a checkpoint
    connection = duckdb.connect(":memory:", config=config)
    try:
        hide_progress(connection)
        with suppress(duckdb.CatalogException):  # a release without the setting
            connection.execute(_STRINGS_AS_VIEWS)
        if write:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        name = os.path.realpath(path)
        _refuse_special_log(Path(name))
        # Set before the file is opened, so that no file is read with more access.
        connection.execute(f"SET allowed_paths = [{', '.join(_text(name + suffix) for suffix in _SUFFIXES)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute(f"ATTACH {_text(name)} AS {ATTACHED} (TYPE duckdb{'' if write else ', READ_ONLY'})")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_special_log(path: Path) -> None:
    """Raise `StoreError` if the log of a file is a link, or not a file."""
    log = log_of(path)
    if os.path.lexists(log) and not stat.S_ISREG(log.lstat().st_mode):
        raise StoreError(f"{str(log)!r} is the log of {path.name!r}, and must be a regular file\nHint: remove it.")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _leave_to_parent() -> None:
    """Drop the instances after a fork: their threads are in the parent, so the child cannot use or close them."""
    global _mutex
    _mutex = threading.Lock()
    _left_to_parent.extend(_instances.values())
    _instances.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


# The writer.


class Draft:
    """A changed copy of a DuckDB file, which replaces the file when it is published.

    Parameters
    ----------
    path
        The file. The caller is its only writer, and has opened it with `reading`, so that no other program writes it.
    mend
        Changes the copy before it is opened.
    shares_log
        Whether readers of the file see each commit. Otherwise they see nothing before the draft is published, and a
        killed writer loses what it has committed; then there must be no log.

    Raises
    ------
    StoreError
        If there is no room for a copy, or the file cannot be used.
    """

    def __init__(self, path: Path, *, mend: Callable[[Path], None] | None = None, shares_log: bool = True) -> None:
        self._path, self._log = path, log_of(path)
        self.shares_log = shares_log
        with ExitStack() as stack, duckdb_errors(path):
            stack.callback(clear, path)
            folder = new_folder(path)
            self._copy, self._link = folder / path.name, folder / "link"
            self._copied_log = log_of(self._copy)
            # Stays open: closing it would release the locks of the readers in this process.
            self._file = stack.enter_context(path.open("rb"))
            _lock(self._file, path)
            self._stamp = _file_stamp(path)
            _refuse_special_log(path)
            with self._copy.open("xb") as copy:
                shutil.copyfileobj(self._file, copy, _COPIED_BYTES)
            if self._log.exists():
                shutil.copyfile(self._log, self._copied_log)
            if mend is not None:
                mend(self._copy)
            self.connection = stack.enter_context(closing(attach(self._copy, write=True)))
            self._held = stack.pop_all()

    def log_bytes(self) -> int:
        """Return the size of the log, in bytes."""
        return _n_bytes(self._copied_log)

    def committed(self) -> None:
        """Make the log of the copy the log of the file, if they share it; to be called after each commit."""
        with duckdb_errors(self._path):
            if not self.shares_log or not self._copied_log.exists() or self._has_log():
                return
            copy_access(self._path, self._copied_log)
            # The copy of the log also has the commits of the old log.
            os.link(self._copied_log, self._link)
            self._link.replace(self._log)
            sync_folder(self._path.parent)

    def publish(self) -> None:
        """Merge the commits into the file, and close the file.

        Raises
        ------
        StoreError
            If there is no room, or another program has changed the file. The commits stay in the log.
        """
        with self._held, duckdb_errors(self._path):
            if not self._copied_log.exists():  # nothing was committed
                self._log.unlink(missing_ok=True)
                return
            self.connection.execute(f"CHECKPOINT {ATTACHED}")
            self.connection.close()
            copy_access(self._path, self._copy)
            sync(self._copy)
            if _file_stamp(self._path) != self._stamp:
                raise busy(self._path, "another program, which has changed it")
            # If killed before this line, the mark of the log does not match the file, so DuckDB reads both.
            if os.name == "nt":
                self._file.close()
            self._copy.replace(self._path)
            sync_folder(self._path.parent)
            # If killed after it, the mark matches the file, so DuckDB ignores the log.
            self._log.unlink(missing_ok=True)
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Close the file. The commits stay in the log."""
        with duckdb_errors(self._path):
            self._held.close()

    def _has_log(self) -> bool:
        return self._log.exists() and self._log.samefile(self._copied_log)


class InPlace:
    """A DuckDB file that is changed in place, on file systems without hard links. The methods are those of `Draft`.

    No other process can read it meanwhile. A process that is killed in a checkpoint may leave a torn block, which
    `duckdb_repair` mends.
    """

    shares_log: Final = True

    def __init__(self, path: Path) -> None:
        self._path = path

        def opened() -> "DuckDBPyConnection":
            with duckdb_errors(path):
                return attach(path, write=True)

        self.connection = when_free(opened)

    def log_bytes(self) -> int:
        """Return the size of the log, in bytes."""
        return _n_bytes(log_of(self._path))

    def committed(self) -> None:
        """Do nothing: the file has its own log."""

    def publish(self) -> None:
        """Merge the commits into the file, and close the file.

        Raises
        ------
        StoreError
            If there is no room.
        """
        with duckdb_errors(self._path), closing(self.connection):
            self.connection.execute(f"CHECKPOINT {ATTACHED}")

    def discard(self) -> None:
        """Close the file. The commits stay in the log."""
        self.connection.close()


def clear(path: Path) -> None:
    """Remove the temporary files of a killed writer of `path`; its log stays."""
    folder = _folder(path)
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder)
    # Files of earlier releases.
    old = path.with_name(f".{path.name}.partial")
    for temporary in (old, log_of(old), old.with_name(f"{old.name}.wal.link")):
        temporary.unlink(missing_ok=True)
    shutil.rmtree(old.with_name(f"{old.name}.tmp"), ignore_errors=True)


def has_links(path: Path) -> bool:
    """Return whether the file system of `path` has hard links."""
    try:
        folder = new_folder(path)
        one = folder / path.name
        one.touch()
        os.link(one, folder / "link")
    except OSError:
        return False
    finally:
        with suppress(OSError):
            clear(path)
    return True


def new_folder(path: Path) -> Path:
    """Create the private folder beside `path` for the copy of a writer and its log, and return it.

    DuckDB opens files by name and follows links, so no other user may create links there.
    """
    folder = _folder(path)
    folder.mkdir(mode=_PRIVATE_FOLDER)
    return folder


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock an open file as a reader of DuckDB does, so that no other process writes it."""
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise busy(path, "another process") from None


def _n_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _file_stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def hide_progress(connection: "DuckDBPyConnection") -> None:
    """Disable the progress bar of DuckDB."""
    # In a notebook the bar is written to standard output, which may be the output of an export. Without ipywidgets it
    # is disabled already, and to disable it again is an error.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("SET enable_progress_bar = false")


# Errors.


class TornBlock(NamedTuple):
    """A block whose stored checksum is wrong.

    Parameters
    ----------
    location
        Offset of the block in the file, in bytes.
    computed
        The checksum of its content, as the file would store it.
    """

    location: int
    computed: bytes


_TORN: Final = re.compile(r"computed checksum (\d+) does not match stored checksum \d+ in block at location (\d+)")
_CHECKSUM_BYTES: Final = 8


def torn_block(message: str) -> TornBlock | None:
    """Return the block that a message of DuckDB reports as torn; None for another message."""
    found = _TORN.search(message)
    return None if found is None else TornBlock(int(found[2]), int(found[1]).to_bytes(_CHECKSUM_BYTES, "little"))


@contextmanager
def duckdb_errors(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn errors of DuckDB and of the system into a `StoreError` with a hint.

    With `opening`, a block with a wrong checksum is metadata that a killed writer may have left.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if opening and torn_block(str(error)) is not None and log_of(path).exists():
            raise RepairableError(
                f"{str(path)!r} is damaged: {str(error).splitlines()[0][:300]}\n"
                "Hint: if its writer was killed, the next write_hashes or `imgmatch visual-hash -o` repairs it."
            ) from error
        raise store_error(path, str(error)) from error
    except OSError as error:
        raise store_error(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:  # a damaged name in a message of DuckDB
        raise store_error(path, "a name in it is not text") from error


def store_error(path: Path, message: str) -> StoreError:
    """Return the error for a message of DuckDB about a file."""
    shown, reason = repr(str(path)), describe(message.splitlines()[0], 300) if message else "no reason"
    if "Could not set lock" in message:
        holder = re.search(r"PID (\d+)", message)
        return busy(path, "another process" if holder is None else f"process {holder[1]}")
    if "different configuration" in message or "file handle conflict" in message:
        return busy(path, "another connection of this process")
    if "newer version of DuckDB" in message:
        return StoreError(
            f"{shown} was written by a newer DuckDB: {reason}\nHint: pip install -U duckdb; nothing was changed."
        )
    if "not a valid DuckDB database file" in message:
        return StoreError(
            f"{shown} is not a DuckDB file\nHint: choose another name for the store; nothing was changed."
        )
    if any(words in message for words in NO_ROOM):
        return StoreError(
            f"there is no room for {shown}: {reason}\n"
            "Hint: committed rows are kept; make room, and the same call continues where it stopped."
        )
    if any(words in message for words in ("Permission denied", "Read-only file system", "read-only mode")):
        return StoreError(
            f"{shown} cannot be opened: {reason}\nHint: check the permissions of the file and its folder."
        )
    return StoreError(
        f"{shown} cannot be used: {reason}\nHint: if it is damaged, restore a copy, or write a new store."
    )
