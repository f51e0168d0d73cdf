"""How connections are accepted: a process without free file descriptors waits for one, and says so once.

The event loop of Python tries each time as often as connections may wait, 2,048 times, and logs a traceback for each:
244 MB in 30 seconds.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from imgmatch_df.server.telemetry import log

# Few at a time: those beyond `max_connections` are turned away in the loop's next turns, and give back what they took.
_AT_ONCE: Final = 8
_PAUSE_S: Final = 0.5
_LOG_EVERY_S: Final = 10.0


class Acceptor:
    """Accepts connections from a listener.

    Parameters
    ----------
    listener
        A listening socket that does not block.
    make_protocol
        Gives the protocol of a connection.
    """

    def __init__(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._logged_at = -_LOG_EVERY_S
        self._loop.add_reader(listener, self._accept)

    def stop(self) -> list[socket.socket]:
        """Accept no more; return the connections that the system has accepted already."""
        if self._pause is None:
            self._loop.remove_reader(self._listener)
        else:
            self._pause.cancel()
        waiting = []
        with suppress(OSError):  # no more, or no more file descriptors
            while True:
                waiting.append(self._next())
        self._listener.close()  # at once: a connection that the system accepts in between is reset
        return waiting

    def _next(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        return connection

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection = self._next()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(error)
                return
            task = self._loop.create_task(self.connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def connect(self, connection: socket.socket) -> None:
        """Begin to serve a connection."""
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # it has ended meanwhile
            connection.close()

    def _wait(self, error: OSError) -> None:
        """Accept nothing for a while: the system has too few file descriptors or too little memory."""
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE_S, self._go_on)
        now = monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log("cannot accept connections", level=logging.ERROR, reason=error.strerror)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)
