"""Opening of local files named by a column, restricted to `base_dir` even if links are replaced during a call."""

import os
import sys
from typing import Final

# Without O_NONBLOCK, opening a FIFO without a writer blocks for ever. O_BINARY exists on Windows only.
_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAX_PATH_BYTES: Final = 1024  # of F_GETPATH on macOS


class OutsideError(OSError):
    """The file is outside of `base_dir`."""


def join_base(path: str, base_dir: str | None) -> str:
    """Return the path to open; a relative `path` is resolved against `base_dir`."""
    return path if base_dir is None else os.path.join(base_dir, path)  # noqa: PTH118  # a Path takes longer than the read


def open_file(path: str, base_dir: str | None) -> int:
    """Return a file descriptor, open for reading.

    Parameters
    ----------
    path
        As `join_base` returns it.
    base_dir
        The folder that must contain the file after links are resolved; None allows every file.

    Raises
    ------
    OutsideError
        If the opened file is outside of `base_dir`. The opened file is checked, not only the path, because a link may
        be replaced between a check and the open.
    OSError
        If the file cannot be opened.
    """
    if base_dir is not None and not _is_within(os.path.realpath(path), base_dir):
        raise OutsideError  # checked before the open too, because opening a device may have side effects
    file = os.open(path, _OPEN_FLAGS)
    try:
        if base_dir is not None and not _is_within(_real_path(file, path), base_dir):
            raise OutsideError
    except BaseException:
        os.close(file)
        raise
    return file


def stat_file(path: str, base_dir: str | None) -> os.stat_result | None:
    """Return the status of a file; None if it does not exist or is outside of `base_dir`."""
    path = join_base(path, base_dir)
    try:
        if base_dir is None:
            return os.stat(path)  # noqa: PTH116  # called a million times
        file = open_file(path, base_dir)
    except (OSError, ValueError):
        return None
    try:
        return os.fstat(file)
    finally:
        os.close(file)


def _is_within(real_path: str, folder: str) -> bool:
    return real_path.startswith(os.path.join(os.path.realpath(folder), ""))  # noqa: PTH118


def _real_path(file: int, path: str) -> str:
    """Return the real path of an open file."""
    if sys.platform == "linux" and os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        return os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(file, fcntl.F_GETPATH, bytes(_MAX_PATH_BYTES)).rstrip(b"\0"))
    real = os.path.realpath(path)
    if not os.path.samestat(os.fstat(file), os.stat(real)):  # noqa: PTH116
        raise OutsideError
    return real
