"""uvicorn's HTTP protocol with limits for one connection.

uvicorn itself has no timeout for an incomplete header or an unread response, no limit of pipelined requests, and drops
the body of a request with `Connection: Upgrade`.
"""

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

# No response is written while the client has not read this many bytes of earlier ones.
_MAX_UNREAD_BYTES: Final = 1 << 14
# Pipelined requests that wait for an earlier response. Each takes some kilobytes; clients pipeline a few.
_MAX_QUEUED: Final = 16
_MAX_HEADER_BYTES: Final = 1 << 16
# Responses are written in pieces of this size. asyncio keeps a piece until its last byte is sent, but counts only the
# bytes that are not sent: of one piece of 4 MB, of which 3 MB are sent, it would keep 4 MB and count 1 MB.
_PIECE_BYTES: Final = 1 << 16
# No more is read while so many bytes of a body wait for the application: as many as asyncio reads at a time.
_MAX_WAITING_BYTES: Final = 1 << 18


class Connection(HttpToolsProtocol):
    """HTTP protocol of uvicorn, with timeouts for incomplete headers and for unread responses."""

    held: Held
    max_connections: int
    header_timeout_s: float
    response_timeout_s: float

    def connection_made(self, transport: Any) -> None:
        """Accept a connection, or refuse it if there are too many."""
        self.since = monotonic()  # when the current header began, or the last response was complete
        self._read_at = self.since  # when the client last read a part of a response
        self._n_unread = 0
        self._n_header = 0  # bytes of the complete lines of the current header, or of the trailers
        self._n_incomplete = 0  # bytes since a header or a part of a body last began or ended
        self._in_header = False
        self._is_over = False  # further data is discarded
        self._last: Refusal | None = None  # to be sent after the responses in flight
        transport.set_write_buffer_limits(_MAX_UNREAD_BYTES)
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._write(Refusal(503, "too many connections", retry_after="1"))
            self.transport.close()

    # --- Requests ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse the data, unless the connection is ending."""
        if self._is_over:
            return
        if self.timeout_keep_alive_task is not None:
            self.since = monotonic()  # the next header begins
        self._unset_keepalive_if_required()
        self._n_incomplete += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # RFC 9110, 7.8: a server may ignore an upgrade. The body has not been parsed yet.
            header = self._header_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)  # the old parser may parse nothing more
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.data_received(header + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._n_header > _MAX_HEADER_BYTES:
                self._end_with(_too_large())
            elif not self._is_over:
                self._end_with(Refusal(400, "Invalid HTTP request received."))
        else:
            if self._n_incomplete > _MAX_HEADER_BYTES:
                self._end_with(_too_large())

    def on_message_begin(self) -> None:
        """Begin a request; if too many requests wait, end the connection after their responses."""
        if len(self.pipeline) >= _MAX_QUEUED:
            self._is_over = True
            raise OverflowError
        self._in_header = True
        self._n_header = self._n_incomplete = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a line of the header. Lines of trailers are ignored: RFC 9110, 6.5.1."""
        self._count(len(name) + len(value) + 4)
        if self._in_header:
            super().on_header(name, value)

    def _count(self, n_bytes: int) -> None:
        self._n_header += n_bytes
        if self._n_header > _MAX_HEADER_BYTES:
            raise OverflowError

    def on_headers_complete(self) -> None:
        """Start the application, unless the header contains an upgrade."""
        self._in_header = False
        self._n_header = self._n_incomplete = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            if self.scope["method"] != "HEAD":  # whose responses have no body
                cycle: Any = self.cycle
                cycle.transport = _OneWrite(self.transport)
        elif self.parser.get_method() == b"CONNECT":
            raise ValueError  # this is not a proxy

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the application, without the copies and the pauses of uvicorn.

        uvicorn stops to read at 64 KB, which one call of `recv` exceeds, and which costs 20 us per request.
        """
        self._n_incomplete = 0
        cycle = self.cycle
        if self.parser.should_upgrade():
            super().on_body(body)
        elif not cycle.response_complete:
            if not cycle.body:
                cycle.body = body  # type: ignore[assignment]  # the application takes it as it is
            elif isinstance(cycle.body, bytes):
                cycle.body = bytearray(cycle.body + body)
            else:
                cycle.body += body
            if len(cycle.body) > _MAX_WAITING_BYTES:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Report the end of the body to the application."""
        self._n_header = self._n_incomplete = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _header_without_upgrade(self) -> bytes:
        """Return the parsed header without its field `Upgrade`."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s: %s\r\n" % line for line in self.headers if line[0] != b"upgrade"]
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, b"".join(lines))

    # --- Responses and the end of the connection ---------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Count the bytes that wait to be sent, then start the next request or end the connection."""
        self.since = monotonic()
        self._note_unread()
        super().on_response_complete()
        if self._is_over and self.cycle.response_complete and not self.transport.is_closing():
            if self._last is not None:
                self._write(self._last)
            self._close_late()

    def resume_writing(self) -> None:
        """Continue to write: the client has read most of what was sent."""
        self._read_at = monotonic()
        super().resume_writing()

    def _note_unread(self) -> None:
        self._n_unread = self.transport.get_write_buffer_size()
        self.held.note(self.transport, self._n_unread)

    def _end_with(self, refusal: Refusal) -> None:
        """Refuse data that is not valid HTTP, after the responses in flight, and discard further data."""
        self._is_over = True
        log("not read", level=logging.WARNING, client=self.client and self.client[0], code=refusal.code)
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self._write(refusal)
            self._close_late()
        elif cycle.more_body:  # the invalid data is in the body of the last request: the application refuses it
            cycle.scope[UNREADABLE] = refusal
            cycle.more_body = cycle.keep_alive = False
            cycle.message_event.set()
        else:
            self._last = refusal

    def _write(self, refusal: Refusal) -> None:
        """Write a response without the application. The connection must be closed after it."""
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
        self._note_unread()

    def _close_late(self) -> None:
        """End the connection for writing now, and for reading after `DISCARD_S`.

        A connection that is closed while more data arrives is reset, and the client loses the responses on their way.
        """
        self.transport.write_eof()
        asyncio.get_running_loop().call_later(DISCARD_S, self.transport.close)

    def abort_if_stuck(self, now: float) -> None:
        """Abort the connection if its header does not end in time, or its responses are not read."""
        n_unread = self.transport.get_write_buffer_size()
        if not n_unread or n_unread < self._n_unread:
            self._read_at = now
        self._n_unread = n_unread
        if not n_unread and self.timeout_keep_alive_task is not None:
            return  # between two requests, uvicorn has a timeout
        is_idle = self.cycle is None or self.cycle.response_complete  # otherwise the application has timeouts
        timeout_s = self.response_timeout_s if n_unread else self.header_timeout_s
        if now - self._read_at > self.response_timeout_s or (is_idle and now - self.since > timeout_s):
            self.transport.abort()


class _OneWrite:
    """Transport of one response, whose header is written together with the beginning of its body.

    uvicorn writes them one after the other: one more system call, and the client wakes up twice.
    """

    __slots__ = ("_header", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._header: bytes | None = None  # empty when it was written

    def write(self, data: bytes) -> None:
        """Write bytes, in pieces; keep those of the header until the next ones."""
        if self._header is None and not data.startswith(b"HTTP/1.1 100 "):
            self._header = data
            return
        if self._header:
            header = self._take_header()
            self._transport.write(header + data[:_PIECE_BYTES])
            start = _PIECE_BYTES
        else:
            start = 0
        for first in range(start, len(data), _PIECE_BYTES):
            self._transport.write(data[first : first + _PIECE_BYTES])

    def is_closing(self) -> bool:
        """Return whether the connection is being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection after what was written."""
        self._write_header()
        self._transport.close()

    def _take_header(self) -> bytes:
        header, self._header = self._header or b"", b""
        return header

    def _write_header(self) -> None:
        if self._header:
            self._transport.write(self._take_header())


def _too_large() -> Refusal:
    return Refusal(431, f"the header, or the trailers, must have at most {_MAX_HEADER_BYTES:,} bytes")
