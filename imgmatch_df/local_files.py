"""Local files that a column names, kept inside `base_dir` also while links in it are replaced."""

import os
import sys
from typing import Final

# A FIFO without a writer would block an ordinary open for ever. O_BINARY exists, and matters, on Windows alone.
_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAX_PATH_BYTES: Final = 1024  # of macOS, for F_GETPATH


class OutsideError(OSError):
    """The path leads out of `base_dir`."""


def join_base(path: str, base_dir: str | None) -> str:
    """Return `path` as it is opened: relative ones start from `base_dir`."""
    return path if base_dir is None else os.path.join(base_dir, path)  # noqa: PTH118  # a Path costs more than the read


def open_file(path: str, base_dir: str | None) -> int:
    """Return a descriptor of the file, open for reading.

    Parameters
    ----------
    path
        As `join_base` returns it.
    base_dir
        The folder that the file must lie in, links resolved; None allows every file.

    Raises
    ------
    OutsideError
        If the opened file lies elsewhere. The file that was opened is judged, not the path: a link that is replaced
        between a check and the open cannot lead outside.
    OSError
        If it cannot be opened.
    """
    if base_dir is not None and not _lies_within(os.path.realpath(path), base_dir):
        raise OutsideError  # before it is opened: to open a device may have effects
    file = os.open(path, _OPEN_FLAGS)
    try:
        if base_dir is not None and not _lies_within(_real_path(file, path), base_dir):
            raise OutsideError
    except BaseException:
        os.close(file)
        raise
    return file


def stat_file(path: str, base_dir: str | None) -> os.stat_result | None:
    """Return what is known of a file, None where there is none or it lies outside of `base_dir`."""
    path = join_base(path, base_dir)
    try:
        if base_dir is None:
            return os.stat(path)  # noqa: PTH116  # a million times
        file = open_file(path, base_dir)
    except (OSError, ValueError):
        return None
    try:
        return os.fstat(file)
    finally:
        os.close(file)


def _lies_within(real_path: str, folder: str) -> bool:
    return real_path.startswith(os.path.join(os.path.realpath(folder), ""))  # noqa: PTH118


def _real_path(file: int, path: str) -> str:
    """Return where an open file lies."""
    if sys.platform == "linux" and os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        return os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(file, fcntl.F_GETPATH, bytes(_MAX_PATH_BYTES)).rstrip(b"\0"))
    real = os.path.realpath(path)
    if not os.path.samestat(os.fstat(file), os.stat(real)):  # noqa: PTH116
        raise OutsideError
    return real
