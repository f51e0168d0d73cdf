"""State of one attempt to fetch a URL over HTTP, and its outcome as it is shown."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.fetching.content_encoding import Decompressor
from imgmatch_df.fetching.proxies import is_forwarded
from imgmatch_df.fetching.refusal_text import RefusalReader, with_refusal
from imgmatch_df.fetching.request_headers import hide, secrets_of
from imgmatch_df.fetching.response import ResponseHeader
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.fetching.transport import OnDone, Outcome
from imgmatch_df.fetching.urls import HttpUrl
from imgmatch_df.options import Options
from imgmatch_df.sources import Fetched

# Smaller pieces of a body are joined at once, because each takes 50 bytes more.
SMALL_PIECE_BYTES: Final = 4096


@dataclass(slots=True)
class Fetch:
    """Arguments and state of one attempt, from the first request to the last redirect."""

    options: Options
    claim: Claim
    on_done: OnDone
    end: float  # time of the loop when `timeout_s` expires
    first: HttpUrl | None = None  # URL of the column in normal form
    n_redirects: int = 0
    n_bytes: int = 0  # of the body so far
    pieces: list[bytes | bytearray] = field(default_factory=list)

    def add(self, piece: bytes) -> None:
        """Add a piece to the body."""
        self.n_bytes += len(piece)
        if len(piece) >= SMALL_PIECE_BYTES:
            self.pieces.append(piece)
        elif self.pieces and isinstance(self.pieces[-1], bytearray):
            self.pieces[-1] += piece
        else:
            self.pieces.append(bytearray(piece))

    def take_body(self) -> bytes:
        """Return the body, and forget it."""
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)


@dataclass(slots=True)
class Exchange:
    """One request and its response; a redirect starts another one."""

    url: HttpUrl
    opened: list[int] = field(default_factory=list)  # descriptors of the sockets opened for it
    is_stray: bool = False  # not sent, because the connection had bytes of no request
    refused: Failure | Retryable | None = None  # why a socket was not opened
    header: ResponseHeader | None = None
    outcome: HttpUrl | Outcome | BaseException | None = None  # when the response determines it
    decompressor: Decompressor | None = None  # set with the header
    is_plain: bool = False  # the header allows the body, and it is not compressed
    refusal: RefusalReader | None = None  # for the text of a server that refuses the request
    n_small: int = 0  # small chunks so far
    # A paused chunk: its remaining pieces, and its length, because libcurl passes it again.
    pending: Iterator[bytes] | None = None
    n_pending_bytes: int = 0
    left_s: float | None = None  # time until the deadline, while the attempt waits for the byte budget


def without_secrets(outcome: Outcome, fetch: Fetch, exchange: Exchange) -> Outcome:
    """Return an outcome with the text of a refusal, and without what the server repeats of the request."""
    first, options = fetch.first, fetch.options
    if first is None:  # the URL is not valid, so nothing was sent
        return outcome
    if isinstance(outcome, Fetched):
        if options.headers is None:
            return outcome
        secrets = secrets_of(first, options)
        return outcome._replace(content_type=hide(outcome.content_type, secrets), etag=hide(outcome.etag, secrets))
    secrets = secrets_of(first, options)
    if exchange.url is not first:
        secrets += secrets_of(exchange.url, options)
    failure = outcome.failure if isinstance(outcome, Retryable) else outcome
    detail = hide(failure.detail, secrets)
    status = 0 if exchange.header is None else exchange.header.status
    if options.proxy is not None and status >= 400 and status != 407 and is_forwarded(options.proxy, exchange.url):
        detail = detail.replace(f"HTTP {status}", f"HTTP {status} through the proxy {options.proxy.origin}", 1)
    if exchange.refusal is not None:
        detail = with_refusal(detail, status, exchange.refusal.text(secrets))
    failure = failure._replace(detail=detail)
    return outcome._replace(failure=failure) if isinstance(outcome, Retryable) else failure
