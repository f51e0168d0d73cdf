"""Atomic file writes: a file appears complete or not at all, also after a crash or a power cut."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

# Only the owner may open a temporary file before it gets the permissions of the file that it replaces.
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o666  # less the umask
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

# Parts of the messages of operating systems, DuckDB and Polars about a full disk.
NO_ROOM: Final = ("No space left", "File too large", "Disk quota", "out of disk")


@contextmanager
def written_file(path: Path, temporary: Path, *, like: Path | None = None, replace: bool = True) -> Iterator[BinaryIO]:
    """Yield a new temporary file that becomes `path` when the block ends without an error, and is removed otherwise.

    Parameters
    ----------
    path
        Final path of the file.
    temporary
        Path of the temporary file, in the file system of `path`. A file that a killed run left there is removed, so
        only one process at a time may use this name.
    like
        File whose owner and permissions the new file gets, if it exists.
    replace
        Whether to replace an existing `path`.

    Raises
    ------
    FileExistsError
        If `path` exists, and `replace` is false.
    OSError
        If the file cannot be written.
    """
    temporary.unlink(missing_ok=True)
    try:
        with open_new(temporary, like=like) as file:
            yield file
        if like is not None and like.exists():
            copy_access(like, temporary)
        publish(temporary, path, replace=replace)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path, *, replace: bool) -> None:
    """Rename a finished file to `path`, durably: after a power cut, `path` is the old file or the complete new one.

    Parameters
    ----------
    temporary
        The finished file, in the file system of `path`.
    path
        Final path of the file.
    replace
        Whether to replace an existing `path`.

    Raises
    ------
    FileExistsError
        If `path` exists, and `replace` is false.
    """
    sync(temporary)
    if replace:
        temporary.replace(path)
    else:
        move(temporary, path)
    sync_folder(path.parent)


def move(path: Path, target: Path) -> None:
    """Rename a file within its file system, and never replace another file.

    Raises
    ------
    FileExistsError
        If `target` exists.
    OSError
        If the file cannot be renamed.
    """
    try:
        os.link(path, target)  # a rename would replace an existing file
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise
        if os.path.lexists(target):  # a file system without hard links
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        path.rename(target)
    else:
        path.unlink()


def real_path(path: Path) -> Path:
    """Return the path that a symbolic link leads to, existing or not; return any other path unchanged.

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
    """Create a file and open it for reading and writing. Symbolic links are never followed.

    Parameters
    ----------
    path
        Path of the new file.
    like
        File whose permissions the new file will get from `copy_access`. Until then, only the owner may open it.

    Raises
    ------
    FileExistsError
        If there is a file or a link of that name.
    """
    mode = _PRIVATE if like is not None and like.exists() else _PUBLIC
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode), "rb+")


def copy_access(path: Path, copy: Path) -> None:
    """Give `copy` the owner, group and permissions of `path` if the system allows it, and never wider access."""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(copy, found.st_uid, -1)
        try:
            os.chown(copy, -1, found.st_gid)
        except OSError:  # the file keeps another group, which gets the permissions of everyone
            mode = mode & ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    copy.chmod(mode)


def sync(path: Path) -> None:
    """Flush the content of a file to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, except on Windows."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
