"""DuckDB files as a store needs them: any number of readers and one writer at a time, of which none waits for another.

A file may come from anybody. DuckDB opens it without access to other files, to the network and to extensions, beside a
database in memory: the functions that a query names are those of DuckDB, and never macros of the file.

A writer changes a copy of the file, and the log (``.wal``) of the copy is the log of the file too, by a hard link. So
what is committed is in the file and its log at once, for whoever reads them. When the writer is done, DuckDB puts the
log into the copy, and the copy takes the place of the file. No file is changed while it has the name of the store:
killed at any moment, a writer leaves the old file with its log, or the new file. DuckDB itself tells which: a
checkpoint ends the log with a mark that names the content of the new file, and a log whose mark names what is in the
file beside it is passed over (`SingleFileCheckpointWriter::CreateCheckpoint` of DuckDB 1.5 and 2.0).
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

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ATTACHED: Final = "store"

# No checkpoint but those that are asked for, and no commit that goes past the log.
_WRITE: Final[dict[str, Any]] = {
    "storage_compatibility_version": "v1.4.0",  # so that the release of DuckDB before the current one opens the file
    "auto_checkpoint_skip_wal_threshold": (1 << 63) - 1,
    "checkpoint_threshold": "1000TB",
}
# Whatever a file says, no extension is loaded for it, and none is downloaded.
_READ: Final[dict[str, Any]] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
# What DuckDB opens of a file, by what follows its name.
_ENDINGS: Final = ("", ".wal", ".wal.checkpoint", ".wal.recovery")

# DuckDB writes larger commits into the file, past the log: a row group has 122,880 rows.
MAX_COMMIT_ROWS: Final = 1 << 16
_COPIED_BYTES: Final = 1 << 22
_PRIVATE_FOLDER: Final = 0o700


def log_of(path: Path) -> Path:
    """Return the path of the log of a DuckDB file."""
    return path.with_name(f"{path.name}.wal")


# Readers.


class _Instance:
    """A DuckDB database that has one file attached, and the number of readers that share it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: DuckDBPyConnection | None = None
        self.n_readers = 0


# Readers of one file share an instance: to open one takes 20 ms, and the system drops the locks of a process on a file
# when any of its descriptors of that file is closed.
_instances: dict[tuple[object, ...], _Instance] = {}
_mutex = threading.Lock()
_left_to_parent: list[object] = []


@contextmanager
def reading(path: Path) -> Iterator["DuckDBPyConnection"]:
    """Give a connection that reads a DuckDB file, of its own for each thread; its tables are in `ATTACHED`.

    Neither the file nor its log is changed. While another program writes the file, this waits for `locks.WAIT_S`.
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
    # A writer has replaced the file between the opening of the file and that of its log.
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
    """Return a connection to a database in memory that has a DuckDB file attached, and can open no other file.

    Parameters
    ----------
    path
        The file.
    write
        Whether it may be changed: then commits go to its log alone, until ``CHECKPOINT`` is executed.
    """
    import duckdb

    # Not connect(path): DuckDB keeps one instance for each path, and would give that of a file that was replaced.
    # What does not fit into memory goes to the temporary folder, not beside the file or into the working directory.
    spilled = Path(tempfile.gettempdir(), f"imgmatch-df-{uuid4().hex}")
    config = {**_READ, **(_WRITE if write else {}), "temp_directory": str(spilled)}
    connection = duckdb.connect(":memory:", config=config)
    try:
        hide_progress(connection)
        if write:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        name = os.path.realpath(path)
        _refuse_special_log(Path(name))
        # Before the file is opened, so that nothing of it is looked at with more access.
        connection.execute(f"SET allowed_paths = [{', '.join(_text(name + ending) for ending in _ENDINGS)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute(f"ATTACH {_text(name)} AS {ATTACHED} (TYPE duckdb{'' if write else ', READ_ONLY'})")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_special_log(path: Path) -> None:
    """Raise `StoreError` if the log of a file is a link, which leads to another file, or not a file at all."""
    log = log_of(path)
    if os.path.lexists(log) and not stat.S_ISREG(log.lstat().st_mode):
        raise StoreError(f"{str(log)!r} is not a file, such as the log of {path.name!r}\nHint: remove it.")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _leave_to_parent() -> None:
    """After a fork: the instances have threads of the parent, so that the child can neither use nor close them."""
    global _mutex
    _mutex = threading.Lock()
    _left_to_parent.extend(_instances.values())
    _instances.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


# The writer.


class Draft:
    """A DuckDB file in the making, which takes the place of `path` when it is published.

    Parameters
    ----------
    path
        The file. The caller is its only writer, and reads it meanwhile (`reading`), so that no other program writes it.
    mend
        What to do with the copy, before it is opened.

    Raises
    ------
    StoreError
        If there is no room for a copy, or the file cannot be used.
    """

    def __init__(self, path: Path, *, mend: Callable[[Path], None] | None = None) -> None:
        self._path, self._log = path, log_of(path)
        with ExitStack() as stack, duckdb_errors(path):
            stack.callback(clear, path)
            folder = new_folder(path)
            self._copy, self._link = folder / path.name, folder / "link"
            self._copied_log = log_of(self._copy)
            # Open to the end: to close it would drop the lock of the readers in this process.
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
        """Return the size of the log."""
        return _n_bytes(self._copied_log)

    def committed(self) -> None:
        """Let the file have the log of the copy. To be called after each commit."""
        with duckdb_errors(self._path):
            if not self._copied_log.exists() or self._has_log():
                return
            copy_access(self._path, self._copied_log)
            # What a log that is there has committed to the file is in the copy of the log, too.
            os.link(self._copied_log, self._link)
            self._link.replace(self._log)
            sync_folder(self._path.parent)

    def publish(self) -> None:
        """Put what was committed into the file, and close it.

        Raises
        ------
        StoreError
            If there is no room, or another program has changed the file. What was committed stays in the log.
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
            # Killed up to here: the mark in the log names a content that the file has not, so both are read.
            if os.name == "nt":
                self._file.close()
            self._copy.replace(self._path)
            sync_folder(self._path.parent)
            # Killed here: the mark names what is in the file, so the log is passed over.
            self._log.unlink(missing_ok=True)
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Close it. What was committed stays in the log."""
        with duckdb_errors(self._path):
            self._held.close()

    def _has_log(self) -> bool:
        return self._log.exists() and self._log.samefile(self._copied_log)


class InPlace:
    """A DuckDB file that is changed itself, where the file system has no hard links: the face of `Draft`.

    Nobody reads it meanwhile, and a process that is killed in a checkpoint may leave a torn block (`duckdb_repair`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

        def opened() -> "DuckDBPyConnection":
            with duckdb_errors(path):
                return attach(path, write=True)

        self.connection = when_free(opened)

    def log_bytes(self) -> int:
        """Return the size of the log."""
        return _n_bytes(log_of(self._path))

    def committed(self) -> None:
        """Do nothing: the log is that of the file."""

    def publish(self) -> None:
        """Put what was committed into the file, and close it.

        Raises
        ------
        StoreError
            If there is no room.
        """
        with duckdb_errors(self._path), closing(self.connection):
            self.connection.execute(f"CHECKPOINT {ATTACHED}")

    def discard(self) -> None:
        """Close it. What was committed stays in the log."""
        self.connection.close()


def clear(path: Path) -> None:
    """Remove what a killed writer of `path` left beside its log."""
    folder = _folder(path)
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder)
    # What earlier releases left.
    old = path.with_name(f".{path.name}.partial")
    for temporary in (old, log_of(old), old.with_name(f"{old.name}.wal.link")):
        temporary.unlink(missing_ok=True)
    shutil.rmtree(old.with_name(f"{old.name}.tmp"), ignore_errors=True)


def has_links(path: Path) -> bool:
    """Return whether a file beside `path` can have two names."""
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
    """Make the folder beside `path` where a writer has a copy and its log, and return it.

    DuckDB opens files by their names and follows links: so they are where nobody else can put any.
    """
    folder = _folder(path)
    folder.mkdir(mode=_PRIVATE_FOLDER)
    return folder


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock a file as a reader of DuckDB does: no other process writes it while this one has it open."""
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
    """Keep DuckDB from showing its progress."""
    # In a notebook it writes its bar to standard output, which may be where an export goes. Only where it is on:
    # without ipywidgets it is off there, and to say so again is an error.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("SET enable_progress_bar = false")


# Errors.


class TornBlock(NamedTuple):
    """A block whose checksum is not that of its content.

    Parameters
    ----------
    location
        Where in the file it begins.
    computed
        The checksum of its content, as it is to be in the file.
    """

    location: int
    computed: bytes


_TORN: Final = re.compile(r"computed checksum (\d+) does not match stored checksum \d+ in block at location (\d+)")
_CHECKSUM_BYTES: Final = 8


def torn_block(said: str) -> TornBlock | None:
    """Return the block that an error of DuckDB names, if it is of this kind."""
    found = _TORN.search(said)
    return None if found is None else TornBlock(int(found[2]), int(found[1]).to_bytes(_CHECKSUM_BYTES, "little"))


@contextmanager
def duckdb_errors(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn the errors of DuckDB and of the system into what a person can do.

    With `opening`, a block with a wrong checksum is one of metadata, which a killed writer may have left so.
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
    except UnicodeDecodeError as error:  # of a damaged name, in what DuckDB says
        raise store_error(path, "a name in it is not text") from error


def store_error(path: Path, said: str) -> StoreError:
    """Return the error for what DuckDB says of a file."""
    shown, reason = repr(str(path)), describe(said.splitlines()[0], 300) if said else "no reason"
    if "Could not set lock" in said:
        holder = re.search(r"PID (\d+)", said)
        return busy(path, "another process" if holder is None else f"process {holder[1]}")
    if "different configuration" in said or "file handle conflict" in said:
        return busy(path, "another connection of this process")
    if "newer version of DuckDB" in said:
        return StoreError(
            f"{shown} was written by a newer DuckDB: {reason}\nHint: pip install -U duckdb; nothing was changed."
        )
    if "not a valid DuckDB database file" in said:
        return StoreError(f"{shown} is no DuckDB file\nHint: choose another name for the store; nothing was changed.")
    if any(words in said for words in NO_ROOM):
        return StoreError(
            f"there is no room for {shown}: {reason}\n"
            "Hint: what was committed stays; make room, and the same call goes on where it stopped."
        )
    if any(words in said for words in ("Permission denied", "Read-only file system", "read-only mode")):
        return StoreError(f"{shown} cannot be opened: {reason}\nHint: is the file or its folder read-only?")
    return StoreError(
        f"{shown} cannot be used: {reason}\nHint: is it damaged? A copy, or a new store under another name, helps."
    )
