"""Reader of local files and members of archives: regular files only, within `base_dir` and `max_bytes`."""

import errno
import os
import stat
from typing import Final

from imgmatch_df.archives.paths import split_path
from imgmatch_df.archives.reading import read_member
from imgmatch_df.errors import Failure
from imgmatch_df.local_files import OutsideError, join_base, open_file
from imgmatch_df.options import Options
from imgmatch_df.sources import describe, path_from_text, too_many_bytes

_STATUS_OF_ERRNO: Final = {
    errno.ENOENT: ("not_found", "no such file"),
    errno.ENOTDIR: ("not_found", "no such file"),
    errno.EISDIR: ("bad_source", "a directory, not a file"),
    errno.ENXIO: ("bad_source", "not a regular file"),
    errno.ENAMETOOLONG: ("bad_source", "path too long"),
    errno.EACCES: ("fetch_failed", "no permission to read"),
    errno.EPERM: ("fetch_failed", "no permission to read"),
    errno.ELOOP: ("fetch_failed", "too many symbolic links, perhaps a loop"),
}


def read_file(path: str, options: Options) -> bytes | Failure:
    """Return the content of a file or of a member of an archive, or why it cannot be read.

    Only regular files are read, and at most the size that the file had when it was opened, so that a device, a FIFO or
    a growing file neither blocks nor fills the memory.

    Parameters
    ----------
    path
        Absolute, or relative to the option `base_dir`.
    options
        `max_bytes` and `base_dir` apply.
    """
    path = join_base(path, options.base_dir)
    try:
        if (member := split_path(path)) is not None:
            return read_member(member, options.base_dir, options.max_bytes)
        file = open_file(path, options.base_dir)
        try:
            found = os.fstat(file)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, "")
            if not stat.S_ISREG(found.st_mode):
                return Failure("bad_source", f"not a regular file: {describe(path)}")
            if found.st_size > options.max_bytes:
                return too_many_bytes(f"{found.st_size:,} bytes", options.max_bytes)
            data = _read_bytes(file, found.st_size)
        finally:
            os.close(file)
    except OutsideError:
        return Failure("fetch_blocked", f"outside of base_dir: {describe(path)}")
    except OSError as error:
        return _explain_error(error, path)
    except UnicodeEncodeError:
        return Failure("bad_source", f"characters that are not allowed in a file name: {describe(path)}")
    return data if data else Failure("missing", f"zero bytes: {describe(path)}")


def _read_bytes(file: int, n_bytes: int) -> bytes:
    """Return the next bytes of a file, fewer at its end; a file object takes longer to make than a photo to read."""
    data = os.read(file, n_bytes)
    if len(data) == n_bytes or not data:
        return data
    parts = [data]
    while data and (n_bytes := n_bytes - len(data)):  # more than 2 GB are read in parts
        data = os.read(file, n_bytes)
        parts.append(data)
    return b"".join(parts)


def _explain_error(error: OSError, path: str) -> Failure:
    if os.name == "nt" and os.path.isdir(path):  # noqa: PTH112  # Windows reports "permission denied"
        error = IsADirectoryError(errno.EISDIR, "")
    if error.errno == errno.ENOENT and "\\x" in path and _exists(os.fsdecode(path_from_text(path))):
        return Failure("bad_source", f"the file name is not UTF-8, rename the file: {describe(path)}")
    status, reason = _STATUS_OF_ERRNO.get(error.errno or 0, ("fetch_failed", error.strerror or "cannot be read"))
    return Failure(status, f"{reason}: {describe(path)}")


def _exists(path: str) -> bool:
    return os.path.lexists(path) or split_path(path) is not None
