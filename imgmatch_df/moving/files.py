"""Moves of single files that never lose, replace or mix up a file, whenever the process is killed.

A file is renamed to a temporary name in its folder, then checked, and then moved to its new path. So a file that
another program writes between the check and the move is never taken for the checked one, and of two processes only one
gets the file. Into another file system it is copied, and the copy compared, before the original is removed.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from imgmatch_df.atomic import copy_access, move, open_new, sync_folder


class ChangedError(OSError):
    """The file is not the one that was planned to be moved."""


class HeldError(OSError):
    """A file could not be moved and not be put back: it has its temporary name, until `settle` puts it back."""


def relocate(
    origin: str, destination: str, tag: str, is_expected: Callable[[os.stat_result], bool], *, copies: bool = False
) -> None:
    """Move a file, also into another file system. No file is replaced.

    Parameters
    ----------
    origin
        Path of the file.
    destination
        Its new path; missing folders are made.
    tag
        Text in the names of temporary files; `settle` needs the same.
    is_expected
        Whether a status is that of the planned file.
    copies
        Whether to copy the file, where a rename is known to fail.

    Raises
    ------
    ChangedError
        If `origin` is another file.
    FileExistsError
        If there is a file at `destination`.
    HeldError
        If the file cannot be moved, and another file is at `origin` meanwhile.
    OSError
        If the file cannot be moved. It stays at `origin`.
    """
    held, copy = _temporary(origin, destination, tag)
    folder = os.path.dirname(destination)
    _make_folder(folder)
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), destination)
    found = os.lstat(origin)
    if not is_expected(found):
        raise ChangedError(errno.ESTALE, "changed meanwhile", origin)
    copies = copies or found.st_dev != os.stat(folder).st_dev
    try:
        if copies:
            _copy(origin, copy)
        if os.path.lexists(held):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), held)
        os.rename(origin, held)  # in one step: a link and an unlink could remove a newer file
        try:
            if not is_expected(os.lstat(held)):
                raise ChangedError(errno.ESTALE, "changed meanwhile", origin)
            move(Path(copy if copies else held), Path(destination))
        except BaseException:
            _put_back(held, origin)
            raise
    except OSError as error:
        _discard(copy, copies)
        if error.errno == errno.EXDEV and not copies:  # a mount point of the same device
            relocate(origin, destination, tag, is_expected, copies=True)
            return
        raise
    if copies:
        sync_folder(Path(folder))  # a power cut must not take both names
        os.unlink(held)


def settle(origin: str, destination: str, tag: str) -> None:
    """Finish or take back a call of `relocate` that was killed; do nothing where none was.

    Raises
    ------
    OSError
        If the file cannot get one of its two names.
    """
    held, copy = _temporary(origin, destination, tag)
    _discard(copy, made=True)  # the original is still there, at `origin` or `held`
    if not os.path.lexists(held):
        return
    if _are_one(held, destination) or _are_one(held, origin) or _is_copy(held, destination):
        os.unlink(held)  # one of several names
    else:
        _put_back(held, origin)


def make_link(kind: str, kept: str, path: str) -> None:
    """Make a link at `path` to the file `kept`; never replace a file.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    if kind == "hard":
        os.link(os.path.realpath(kept), path)
    else:
        os.symlink(kept, path)


def is_link_to(kind: str, kept: str, path: str) -> bool:
    """Return whether `path` is the link that `make_link` makes."""
    try:
        return _are_one(os.path.realpath(kept), path) if kind == "hard" else os.readlink(path) == kept
    except OSError:
        return False


def digest_of(path: str) -> bytes:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _temporary(origin: str, destination: str, tag: str) -> tuple[str, str]:
    """Return the name of the file while it is moved, and that of its copy."""
    held, copy = f".imgmatch-{tag}.held", f".imgmatch-{tag}.copy"
    return os.path.join(os.path.dirname(origin), held), os.path.join(os.path.dirname(destination), copy)


def _copy(origin: str, copy: str) -> None:
    with open(origin, "rb") as file, open_new(Path(copy), like=Path(origin)) as made:
        shutil.copyfileobj(file, made, 1 << 20)
        made.flush()
        os.fsync(made.fileno())
    copy_access(Path(origin), Path(copy))
    shutil.copystat(origin, copy)
    if digest_of(origin) != digest_of(copy):
        raise OSError(errno.EIO, "the copy differs from the file", copy)


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, durably."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder) or os.curdir
    _make_folder(parent)
    with suppress(FileExistsError):
        os.mkdir(folder)
    sync_folder(Path(parent))


def _put_back(held: str, origin: str) -> None:
    try:
        move(Path(held), Path(origin))
    except OSError as error:
        raise HeldError(error.errno, f"{error.strerror}; nor can it be put back, it is {held} now", origin) from error


def _discard(copy: str, made: bool) -> None:
    if made:
        with suppress(FileNotFoundError):
            os.unlink(copy)


def _are_one(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def _is_copy(one: str, other: str) -> bool:
    """Return whether two regular files on different devices have the same bytes."""
    try:
        left, right = os.lstat(one), os.lstat(other)
    except FileNotFoundError:
        return False
    if left.st_dev == right.st_dev or left.st_size != right.st_size:
        return False
    return S_ISREG(left.st_mode) and S_ISREG(right.st_mode) and digest_of(one) == digest_of(other)
