"""Acceptor of connections that pauses while the process has no free file descriptor.

asyncio's own acceptor then tries 2,048 times (the backlog) per turn of the event loop, and logs a traceback each time:
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

# Connections per turn of the loop: those above `max_connections` are closed in the next turns, which frees descriptors.
_MAX_PER_TURN: Final = 8
_PAUSE_S: Final = 0.5
_LOG_EVERY_S: Final = 10.0


class Acceptor:
    """Accepts connections from a listener.

    Parameters
    ----------
    listener
        A listening socket that does not block.
    make_protocol
        Returns the protocol of a new connection.
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
        """Accept no more connections; return those that the system has accepted already."""
        if self._pause is None:
            self._loop.remove_reader(self._listener)
        else:
            self._pause.cancel()
        waiting = []
        with suppress(OSError):  # no further connection, or no free file descriptor
            while True:
                waiting.append(self._next())
        self._listener.close()  # at once: the system resets connections that it accepts from now on
        return waiting

    def _next(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        return connection

    def _accept(self) -> None:
        for _ in range(_MAX_PER_TURN):
            try:
                connection = self._next()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._start_pause(error)
                return
            task = self._loop.create_task(self.connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def connect(self, connection: socket.socket) -> None:
        """Serve a connection."""
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client has closed it
            connection.close()

    def _start_pause(self, error: OSError) -> None:
        """Accept nothing for `_PAUSE_S`: the system has too few file descriptors or too little memory."""
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE_S, self._end_pause)
        now = monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log("cannot accept connections", level=logging.ERROR, reason=error.strerror)

    def _end_pause(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)
