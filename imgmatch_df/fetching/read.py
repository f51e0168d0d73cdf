"""Dispatch of sources by kind: this module reads paths, base64 and bytes, the download scheduler reads URLs."""

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.files import read_file
from imgmatch_df.options import Options
from imgmatch_df.schemes import refused_scheme
from imgmatch_df.sources import decode_base64, parse_source, too_many_bytes


def read_source(value: str | bytes | memoryview | None, options: Options) -> bytes | memoryview | Failure:
    """Return the encoded image that `value` names, or why it cannot be read.

    Parameters
    ----------
    value
        One value of a column: text (see `sources.parse_source`), the image itself as bytes or another object with the
        buffer protocol (a `pyarrow.Buffer` is not copied), or None for null.
    options
        `max_bytes`, `base_dir`, `schemes` and, for URLs, the options of fetching apply.

    Returns
    -------
    bytes, memoryview or Failure
        Never empty: zero bytes are `missing`.
    """
    if value is None:
        return Failure("missing", "null")
    if not isinstance(value, str):
        return _check_size(value if isinstance(value, bytes) else memoryview(value).cast("B"), options)
    source = parse_source(value)
    if isinstance(source, Failure):
        return source
    if (refused := refused_scheme(source.scheme, options.schemes)) is not None:
        return refused
    match source:
        case ("path", str(path)):
            return read_file(path, options)
        case ("base64", str(text)):
            data = decode_base64(text, options.max_bytes)
            return data if isinstance(data, Failure) else _check_size(data, options)
        case ("bytes", bytes(data)):
            return _check_size(data, options)
    return _read_url(str(source.value), options)


def _check_size(data: bytes | memoryview, options: Options) -> bytes | memoryview | Failure:
    n_bytes = len(data)
    if n_bytes == 0:
        return Failure("missing", "zero bytes")
    if n_bytes > options.max_bytes:
        return too_many_bytes(f"{n_bytes:,} bytes", options.max_bytes)
    return data


def _read_url(url: str, options: Options) -> bytes | Failure:
    from imgmatch_df.fetching.scheduler import fetch

    result = fetch(url, options)
    return result if isinstance(result, Failure) else result.data
