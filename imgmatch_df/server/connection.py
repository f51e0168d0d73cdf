"""One connection of a client: what uvicorn does with it, and what it must not be able to do to us."""

import asyncio
from time import monotonic
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Up to where a write is held back for the next one, and from where on the next one is not worth a copy.
_SMALL_BYTES: Final = 4096
_LARGE_BYTES: Final = 1 << 20
_WRITE_WITHIN_S: Final = 60.0


class _JoinedWrites:
    """A transport that holds a small write back until the next one, at most to the loop's next turn.

    An answer's head and body are then one call of the system, not two, each of which wakes the client and hands the
    interpreter's lock to another thread: 1.05 times the requests a second with 16 connections.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)  # all else is the transport's own

    def write(self, data: bytes) -> None:
        """Write, soon."""
        if not self._held and len(data) < _SMALL_BYTES:
            self._held = data
            asyncio.get_running_loop().call_soon(self._flush)
        elif len(data) < _LARGE_BYTES:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._flush()
            self._transport.write(data)

    def close(self) -> None:
        """Write what is held back, and end the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


class Connection(HttpToolsProtocol):
    """A connection of uvicorn that has no patience: neither for heads that never end nor for unread answers."""

    max_connections: int
    header_timeout_s: float

    def connection_made(self, transport: Any) -> None:
        """Take a connection on, or turn it away."""
        self.since = monotonic()
        joined: Any = _JoinedWrites(transport)
        super().connection_made(joined)
        if len(self.connections) > self.max_connections:
            self._turn_away(503, "too many connections", b"retry-after: 1\r\n")

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.since = monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._turn_away(400, msg.strip())

    def _turn_away(self, code: int, text: str, headers: bytes = b"") -> None:
        body = b'{"status":{"code":%d,"text":"%s"}}' % (code, text.encode())
        phrase = {400: b"Bad Request", 503: b"Service Unavailable"}[code]
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
            % (code, phrase, len(body), headers, body)
        )
        self.transport.close()

    def abort_if_stuck(self, now: float) -> None:
        """End a connection whose head does not end, or whose answer is not read."""
        if self.cycle is not None and not self.cycle.response_complete:
            return  # the application has its own clocks
        unread = self.transport.get_write_buffer_size()
        if now - self.since > (_WRITE_WITHIN_S if unread else self.header_timeout_s):
            self.transport.abort()
