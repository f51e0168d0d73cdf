"""Sources to bytes: the only file that reads pictures from disk; what comes over the wire it leaves to `scheduler`."""

import errno
import os
import stat
from typing import Final

from imgmatch_df.errors import Failure
from imgmatch_df.local_files import OutsideError, join_base, open_file, stat_file
from imgmatch_df.options import Options
from imgmatch_df.sources import Source, decode_base64, describe, parse_source, path_from_text, refused_scheme

_SCHEME_OF_KIND: Final = {"path": "file", "base64": "data", "bytes": "data"}
_STATUS_OF_ERRNO: Final = {
    errno.ENOENT: ("not_found", "no such file"),
    errno.ENOTDIR: ("not_found", "no such file"),
    errno.EISDIR: ("bad_source", "a directory, not a file"),
    errno.ENXIO: ("bad_source", "not a regular file"),
    errno.ENAMETOOLONG: ("bad_source", "longer than a path can be"),
    errno.EACCES: ("fetch_failed", "no permission to read"),
    errno.EPERM: ("fetch_failed", "no permission to read"),
    errno.ELOOP: ("fetch_failed", "symbolic links that go in a circle"),
}


def read_source(value: str | bytes | memoryview | None, options: Options) -> bytes | memoryview | Failure:
    """Return the encoded image that `value` stands for, or why it cannot be had.

    Parameters
    ----------
    value
        One value of a column: text (see `sources.parse_source`), the image itself as bytes or anything else with the
        buffer protocol (a `pyarrow.Buffer` is passed on without a copy), or None for null.
    options
        `max_bytes` and `base_dir` count here.

    Returns
    -------
    bytes, memoryview or Failure
        Never empty: zero bytes are `missing`.

    Notes
    -----
    Only regular files are read, and no more of them than the size that they had when they were opened, so that a
    device, a FIFO or a growing file neither blocks nor floods.
    """
    if value is None:
        return Failure("missing", "null")
    if not isinstance(value, str):
        return _check_size(value if isinstance(value, bytes) else memoryview(value).cast("B"), options)
    source = parse_source(value)
    if isinstance(source, Failure):
        return source
    if source.kind != "url" and (refused := refused_scheme(_SCHEME_OF_KIND[source.kind], options.schemes)) is not None:
        return refused
    match source:
        case ("path", str(path)):
            return _read_file(path, options)
        case ("base64", str(text)):
            data = decode_base64(text, options.max_bytes)
            return data if isinstance(data, Failure) else _check_size(data, options)
        case ("bytes", bytes(data)):
            return _check_size(data, options)
    return _read_url(str(source.value), options)


def file_stamp(value: str | bytes | memoryview | None, options: Options) -> tuple[int, int, int] | None:
    """Return what changes when the file that `value` names is written again; None where it names no file."""
    source = parse_source(value) if isinstance(value, str) else None
    if isinstance(source, Source) and source.kind == "path":
        found = stat_file(str(source.value), options.base_dir)
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
    return None


def _check_size(data: bytes | memoryview, options: Options) -> bytes | memoryview | Failure:
    n_bytes = len(data)
    if n_bytes == 0:
        return Failure("missing", "zero bytes")
    if n_bytes > options.max_bytes:
        return _too_many_bytes(n_bytes, options)
    return data


def _too_many_bytes(n_bytes: int, options: Options) -> Failure:
    return Failure(
        "too_many_bytes", f"{n_bytes:,} bytes, more than max_bytes={options.max_bytes:,}; raise max_bytes to allow it"
    )


def _read_url(url: str, options: Options) -> bytes | Failure:
    from imgmatch_df.fetching.scheduler import fetch

    answer = fetch(url, options)
    return answer if isinstance(answer, Failure) else answer.data


def _read_file(path: str, options: Options) -> bytes | memoryview | Failure:
    path = join_base(path, options.base_dir)
    try:
        with os.fdopen(open_file(path, options.base_dir), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return Failure("bad_source", f"not a regular file: {describe(path)}")
            if found.st_size > options.max_bytes:
                return _too_many_bytes(found.st_size, options)
            data = file.read(found.st_size)
    except OutsideError:
        return Failure("fetch_blocked", f"leads out of base_dir: {describe(path)}")
    except OSError as error:
        return _file_failure(error, path)
    except UnicodeEncodeError:
        return Failure("bad_source", f"holds characters that no file name can: {describe(path)}")
    return data if data else Failure("missing", f"zero bytes: {describe(path)}")


def _file_failure(error: OSError, path: str) -> Failure:
    if os.name == "nt" and os.path.isdir(path):  # noqa: PTH112  (Windows says "permission denied")
        error = IsADirectoryError(errno.EISDIR, "")
    if error.errno == errno.ENOENT and "\\x" in path and os.path.lexists(path_from_text(path)):
        return Failure("bad_source", f"the name is not UTF-8, rename the file: {describe(path)}")
    status, reason = _STATUS_OF_ERRNO.get(error.errno or 0, ("fetch_failed", error.strerror or "cannot be read"))
    return Failure(status, f"{reason}: {describe(path)}")
