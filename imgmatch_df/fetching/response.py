"""Answers of web servers: what their head says, and how their body is inflated."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from imgmatch_df.errors import Failure, Setback
from imgmatch_df.fetching.urls import Address, follow_redirect
from imgmatch_df.options import Options

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_GONE: Final = (404, 410)
_MAX_ETAG: Final = 256
_STATUS: Final = re.compile(rb"HTTP/\d(?:\.\d)?\s+(\d{3})")
_PIECE: Final = 1 << 18  # bytes inflated at a time


class Head(NamedTuple):
    """The head of an answer.

    Parameters
    ----------
    code
        Its status, such as 200.
    headers
        By name in lower case; of several with one name the first.
    """

    code: int
    headers: dict[str, str]

    @property
    def content_type(self) -> str:
        """What the server calls the body, such as ``"image/jpeg"``; empty where it says nothing."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def etag(self) -> str:
        """What tells the body from later ones: its ETag, or when it was modified; empty where unknown."""
        tag = self.headers.get("etag") or self.headers.get("last-modified") or ""
        return "".join(filter(str.isprintable, tag))[:_MAX_ETAG]

    @property
    def coding(self) -> str:
        """How the body is compressed; empty where it is not."""
        coding = self.headers.get("content-encoding", "").lower()
        return "" if coding == "identity" else coding

    @property
    def n_bytes(self) -> int | None:
        """How many bytes are announced."""
        text = self.headers.get("content-length", "")
        return int(text[:18]) if text.isascii() and text.isdigit() else None


def read_head(lines: Iterable[bytes]) -> Head | None:
    """Return the head that the lines of an answer make, None while it is not whole.

    Interim answers (HTTP 1xx) before it are left out, but for 101, after which nothing of HTTP comes; so are the lines
    that follow a chunked body.
    """
    code, headers = 0, dict[str, str]()
    is_first = True
    for line in lines:
        if not line.strip():
            if code >= 200 or code == 101:
                return Head(code, headers)
            is_first = True
        elif is_first:  # a header may be called HTTP/ as well
            status = _STATUS.match(line)
            code, headers, is_first = int(status[1]) if status else 0, {}, False
        else:
            name, _, value = line.partition(b":")
            headers.setdefault(name.decode("latin-1").lower(), value.strip().decode("utf-8", "replace"))
    return None


def judge_head(head: Head, address: Address, options: Options) -> Address | Failure | Setback | None:
    """Return what a head settles: where it redirects to, or why there is no body to read; None to read it."""
    code = head.code
    if code in _REDIRECTS:
        location = head.headers.get("location")
        if location is None:
            return Failure("fetch_failed", f"HTTP {code}, a redirect that does not say where to")
        return follow_redirect(address, location)
    if code in _GONE:
        return Failure("not_found", f"HTTP {code}")
    if code == 429 or code >= 500:
        return Setback(Failure("fetch_failed", f"HTTP {code}"), _retry_after_s(head))
    if code == 206:
        return Failure("fetch_failed", "HTTP 206, a part of the picture although all of it was asked for")
    if code != 200:
        return Failure("fetch_failed", f"HTTP {code}")
    if head.coding and head.coding not in _INFLATABLE:
        what = f"the body is compressed with {head.coding[:20]!r}, which was not asked for"
        return Failure("fetch_failed", what)
    if head.n_bytes is not None and head.n_bytes > options.max_bytes:
        return too_many_bytes(f"{head.n_bytes:,} bytes", options)
    return None


def _retry_after_s(head: Head) -> float | None:
    text = head.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def too_many_bytes(what: str, options: Options) -> Failure:
    """Return the failure of a body that is larger than it may be; `what` says how large."""
    return Failure("too_many_bytes", f"{what}, more than max_bytes={options.max_bytes:,}; raise max_bytes to allow it")


_INFLATABLE: Final = ("gzip", "x-gzip", "deflate")


def inflater(coding: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return a function that inflates a body a piece at a time, so that a bomb stops at `max_bytes`."""
    if not coding:
        return lambda chunk: iter((chunk,))
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib

    def pieces(chunk: bytes) -> Iterator[bytes]:
        while chunk and not stream.eof:
            yield stream.decompress(chunk, _PIECE)
            chunk = stream.unconsumed_tail

    return pieces
