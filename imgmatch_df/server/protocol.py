"""One connection of a client: what uvicorn does with it, and what it must not be able to do to us."""

import asyncio
import logging
from http import HTTPStatus
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imgmatch_df.server.held import Held
from imgmatch_df.server.responses import DISCARD_S, UNREADABLE, Refusal, encode
from imgmatch_df.server.telemetry import log

# Up to where a write is held back for the next one, and from where on the next one is not worth a copy.
_SMALL_BYTES: Final = 4096
_LARGE_BYTES: Final = 1 << 20
# From where on a transport that the client does not read takes no further response.
_MAX_UNSENT_BYTES: Final = 1 << 14
# Requests that may wait for the answer to the one before; each takes some kilobytes, and clients send a few ahead.
_MAX_QUEUED: Final = 16
_MAX_HEAD_BYTES: Final = 1 << 16


class _JoinedWrites:
    """A transport that holds a small write back until the next one, at most to the loop's next turn.

    An answer's head and body are then one call of the system, not two, each of which wakes the client and hands the
    interpreter's lock to another thread: 1.05 times the requests a second with 16 connections.
    """

    def __init__(self, transport: asyncio.Transport, held: Held) -> None:
        self.lingers = False  # when it is closed
        self._count = held
        self._transport = transport
        self._held = b""
        self._n_written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)  # all else is the transport's own

    @property
    def n_taken(self) -> int:
        """How many bytes the system has taken, on their way to the client."""
        return self._n_written - self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write, soon."""
        if not self._held and len(data) < _SMALL_BYTES:
            self._held = data
            asyncio.get_running_loop().call_soon(self._flush)
        elif len(data) < _LARGE_BYTES:
            held, self._held = self._held, b""
            self._write(held + data)
        else:
            self._flush()
            self._write(data)

    def close(self) -> None:
        """Write what is held back and end the connection, once the client has had time to read where that `lingers`.

        A connection that is closed while more comes in is reset, and the client never sees what was on its way to it.
        """
        self._flush()
        if self.lingers:
            self.lingers = False
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(DISCARD_S, self._transport.close)
        else:
            self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._write(held)

    def _write(self, data: bytes) -> None:
        self._n_written += len(data)
        self._transport.write(data)
        self._count.note(self._transport, self._transport.get_write_buffer_size())


class Connection(HttpToolsProtocol):
    """A connection of uvicorn that has no patience: neither for heads that never end nor for unread answers."""

    held: Held
    max_connections: int
    header_timeout_s: float
    response_timeout_s: float

    def connection_made(self, transport: Any) -> None:
        """Take a connection on, or turn it away."""
        self.since = self._taken_at = monotonic()
        self._n_taken = 0
        self._n_head = 0  # bytes of the lines of this head that have ended, or of these trailers
        self._n_unended = 0  # bytes in which neither a head nor a part of a body has begun or ended
        self._in_head = False
        self._is_over = False  # nothing more is read
        self._last: Refusal | None = None  # the last answer, after those under way
        transport.set_write_buffer_limits(_MAX_UNSENT_BYTES)
        self._writer = _JoinedWrites(transport, self.held)
        joined: Any = self._writer
        super().connection_made(joined)
        if len(self.connections) > self.max_connections:
            self._write(Refusal(503, "too many connections", retry_after="1"))
            self.transport.close()

    # --- what comes in -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read on, unless the connection is ending."""
        if self._is_over:
            return
        if self.timeout_keep_alive_task is not None:
            self.since = monotonic()  # the next head begins
        self._unset_keepalive_if_required()
        self._n_unended += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # RFC 9110, 7.8: a server may go on as if nobody had asked for another protocol; the body is still to come.
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)  # the one there is may have done with the connection
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.data_received(head + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._n_head > _MAX_HEAD_BYTES:
                self._end_with(_too_large())
            elif not self._is_over:
                self._end_with(Refusal(400, "Invalid HTTP request received."))
        else:
            if self._n_unended > _MAX_HEAD_BYTES:
                self._end_with(_too_large())

    def on_message_begin(self) -> None:
        """Begin a head, unless so many requests wait that the last of them ends the connection."""
        if len(self.pipeline) >= _MAX_QUEUED:
            self._is_over = self._writer.lingers = True
            self.cycle.keep_alive = False
            raise OverflowError
        self._in_head = True
        self._n_head = self._n_unended = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Add to the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a line of the head; those of trailers are left out, RFC 9110, 6.5.1."""
        self._count(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)

    def _count(self, n_bytes: int) -> None:
        self._n_head += n_bytes
        if self._n_head > _MAX_HEAD_BYTES:
            raise OverflowError

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head = False
        self._n_head = self._n_unended = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise ValueError  # no proxy

    def on_body(self, body: bytes) -> None:
        """Hand a part of the body on."""
        self._n_unended = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Hand on that the body has ended."""
        self._n_head = self._n_unended = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _head_without_upgrade(self) -> bytes:
        """Return the head that has been read, as it were if the client had asked for no other protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s: %s\r\n" % line for line in self.headers if line[0] != b"upgrade"]
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, b"".join(lines))

    # --- how it ends -------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.since = monotonic()
        super().on_response_complete()
        if self._last is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._turn_away(self._last)

    def _end_with(self, refusal: Refusal) -> None:
        """Answer what cannot be read, in its turn, and read no more."""
        self._is_over = True
        log("not read", level=logging.WARNING, client=self.client and self.client[0], code=refusal.code)
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self._turn_away(refusal)
        elif cycle.more_body:  # it is the body of the last request that cannot be read, and the application says so
            cycle.scope[UNREADABLE] = refusal
            cycle.more_body = cycle.keep_alive = False
            cycle.message_event.set()
        else:
            self._last = refusal

    def _turn_away(self, refusal: Refusal) -> None:
        """Answer without the application, and end the connection."""
        self._write(refusal)
        self._writer.lingers = True
        self._writer.close()

    def _write(self, refusal: Refusal) -> None:
        self._is_over = True
        self.since = monotonic()
        request_id = str(uuid4())
        body = encode(refusal.body(request_id))
        headers = [
            *refusal.headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ]
        phrase = HTTPStatus(refusal.code).phrase.encode()
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (refusal.code, phrase, lines, body))

    def abort_if_stuck(self, now: float) -> None:
        """End a connection whose head does not end, or whose answers are not read."""
        unread, n_taken = self.transport.get_write_buffer_size(), self._writer.n_taken
        if not unread or n_taken != self._n_taken:
            self._n_taken, self._taken_at = n_taken, now
        if not unread and self.timeout_keep_alive_task is not None:
            return  # between two requests, where uvicorn has a clock
        is_idle = self.cycle is None or self.cycle.response_complete  # else the application has its own clocks
        patience_s = self.response_timeout_s if unread else self.header_timeout_s
        if now - self._taken_at > self.response_timeout_s or (is_idle and now - self.since > patience_s):
            self.transport.abort()


def _too_large() -> Refusal:
    return Refusal(431, f"the head, or the trailers, must have at most {_MAX_HEAD_BYTES:,} bytes")
