"""HTTP responses: status line and headers, and incremental decompression of the body."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.retry import Retryable, is_retriable_status, parse_retry_after
from imgmatch_df.fetching.urls import HttpUrl, follow_redirect
from imgmatch_df.options import Options
from imgmatch_df.sources import too_many_bytes

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NOT_FOUND: Final = (404, 410)
_MAX_ETAG_CHARS: Final = 256
_STATUS: Final = re.compile(rb"HTTP/\d(?:\.\d)?\s+(\d{3})")
_ENCODINGS: Final = ("gzip", "x-gzip", "deflate")
_MAX_PIECE_BYTES: Final = 1 << 18  # bytes decompressed at a time


class ResponseHeader(NamedTuple):
    """Status line and headers of a response.

    Parameters
    ----------
    status
        HTTP status, such as 200.
    fields
        Header fields by name in lower case; the first one if several have the same name.
    """

    status: int
    fields: dict[str, str]

    @property
    def content_type(self) -> str:
        """Media type of the body, such as ``"image/jpeg"``; empty if unknown."""
        return self.fields.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def etag(self) -> str:
        """Version of the body: its ETag, or its time of modification; empty if unknown."""
        tag = self.fields.get("etag") or self.fields.get("last-modified") or ""
        return "".join(filter(str.isprintable, tag))[:_MAX_ETAG_CHARS]

    @property
    def encoding(self) -> str:
        """Compression of the body; empty if there is none."""
        encoding = self.fields.get("content-encoding", "").lower()
        return "" if encoding == "identity" else encoding

    @property
    def n_bytes(self) -> int | None:
        """Content-Length in bytes, None if it is absent or invalid."""
        text = self.fields.get("content-length", "")
        return int(text[:18]) if text.isascii() and text.isdigit() else None


def parse_header(lines: Iterable[bytes]) -> ResponseHeader | None:
    """Return the header of a response, None while it is incomplete.

    Interim responses (HTTP 1xx) before it are skipped, except 101, after which the connection uses another protocol.
    Trailer fields, which follow a chunked body, are ignored.
    """
    status, fields = 0, dict[str, str]()
    is_first = True
    for line in lines:
        if not line.strip():
            if status >= 200 or status == 101:
                return ResponseHeader(status, fields)
            is_first = True
        elif is_first:  # not detected by its text: a field may be named HTTP/ as well
            found = _STATUS.match(line)
            status, fields, is_first = int(found[1]) if found else 0, {}, False
        else:
            name, _, value = line.partition(b":")
            fields.setdefault(name.decode("latin-1").lower(), value.strip().decode("utf-8", "replace"))
    return None


def check_header(header: ResponseHeader, url: HttpUrl, options: Options) -> HttpUrl | Failure | Retryable | None:
    """Return the target of a redirect, or why the body is not read; None if it is read."""
    status = header.status
    if status in _REDIRECTS:
        location = header.fields.get("location")
        if location is None:
            return Failure("fetch_failed", f"HTTP {status}, a redirect without a Location header")
        return follow_redirect(url, location)
    if status in _NOT_FOUND:
        return Failure("not_found", f"HTTP {status}")
    if is_retriable_status(status):
        wait_s = parse_retry_after(header.fields.get("retry-after", ""))
        return Retryable(Failure("fetch_failed", f"HTTP {status}"), wait_s)
    if status == 206:
        return Failure("fetch_failed", "HTTP 206, a part of the image instead of all of it")
    if status != 200:
        return Failure("fetch_failed", f"HTTP {status}")
    if header.encoding and header.encoding not in _ENCODINGS:
        return Failure("fetch_failed", f"unsupported Content-Encoding {header.encoding[:20]!r}")
    if header.n_bytes is not None and header.n_bytes > options.max_bytes:
        return too_many_bytes(f"{header.n_bytes:,} bytes", options.max_bytes)
    return None


def not_compressed(chunk: bytes) -> Iterator[bytes]:
    """Return a chunk of a body without compression as the only piece."""
    return iter((chunk,))


def make_decompressor(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return a function that decompresses chunks of a body piece by piece, so that it can be stopped at `max_bytes`."""
    if not encoding:
        return not_compressed
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib

    def pieces(chunk: bytes) -> Iterator[bytes]:
        while chunk and not stream.eof:
            yield stream.decompress(chunk, _MAX_PIECE_BYTES)
            chunk = stream.unconsumed_tail

    return pieces
