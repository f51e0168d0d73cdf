"""HTTP responses: status line and headers, and what they mean for the row."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.content_encoding import parse_encodings, unsupported
from imgmatch_df.fetching.retry import Retryable, is_retriable_status, parse_retry_after
from imgmatch_df.fetching.urls import HttpUrl, follow_redirect
from imgmatch_df.options import Options
from imgmatch_df.sources import too_many_bytes

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NOT_FOUND: Final = (404, 410)
_MAX_ETAG_CHARS: Final = 256
_MAX_RECENT_BYTES: Final = 256
_STATUS: Final = re.compile(rb"HTTP/\d(?:\.\d)?\s+(\d{3})")
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]{1,40})", re.IGNORECASE)


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
        return (tag if tag.isprintable() else "".join(filter(str.isprintable, tag)))[:_MAX_ETAG_CHARS]

    @property
    def charset(self) -> str:
        """Character encoding of a text in lower case; empty if unknown."""
        found = _CHARSET.search(self.fields.get("content-type", ""))
        return "" if found is None else found[1].lower()

    @property
    def encodings(self) -> tuple[str, ...]:
        """Compressions of the body, in the order in which the server applied them."""
        return parse_encodings(self.fields.get("content-encoding", ""))

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
            key, text = _recent_field(line) if len(line) <= _MAX_RECENT_BYTES else _field(line)
            if key == "content-encoding" and key in fields:  # a list, which may have several lines
                fields[key] += f", {text}"
            else:
                fields.setdefault(key, text)
    return None


def _field(line: bytes) -> tuple[str, str]:
    """Return the name of a header field in lower case, and its value."""
    name, _, value = line.partition(b":")
    return name.decode("latin-1").lower(), value.strip().decode("utf-8", "replace")


_recent_field = lru_cache(maxsize=1024)(_field)  # the responses of a server have most lines in common


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
    if (why := unsupported(header.encodings)) is not None:
        return Failure("fetch_failed", why)
    n_bytes = header.n_bytes
    if n_bytes is not None and n_bytes > options.max_bytes:
        return too_many_bytes(f"{n_bytes:,} bytes", options.max_bytes)
    return None
