"""Connections to web servers: libcurl's, driven by an event loop, to none but addresses that were checked."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import pycurl

from imgmatch_df.fetching.urls import blocked_reason
from imgmatch_df.threads import in_daemon_thread

_DNS_TTL_S: Final = 60
_MAX_PLACES: Final = 1024
# Each takes a thread for as long as the system's resolver does, which may be half a minute where no server responds.
_MAX_LOOK_UPS: Final = 64

# Told in the loop's thread how a request ended: libcurl's code, 0 for a whole answer, and its words.
Ended = Callable[[int, str], None]
# IP address of the server and of this machine, port of the server and of this machine.
Ends = tuple[str | int, ...]


class BlockedAddressError(OSError):
    """A connection to a machine that is not on the public internet. Becomes a row."""


class Connections:
    """A pool of connections to web servers. Made, used and closed in the thread of its event loop.

    Parameters
    ----------
    loop
        One that watches file descriptors.
    allow_private_networks
        Whether addresses that are not on the public internet may be connected to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, allow_private_networks: bool) -> None:
        self._loop = loop
        self._check = not allow_private_networks
        self._look_ups = asyncio.Semaphore(_MAX_LOOK_UPS)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_alarm)
        self._ended: dict[pycurl.Curl, Ended] = {}
        self._watched: dict[int, int] = {}
        self._n_kept = 0
        self._due: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._places: dict[tuple[str, int], tuple[asyncio.Task[str], float]] = {}
        self._socket_of: dict[Ends, int] = {}
        self._ends_of: dict[int, Ends] = {}

    def find(self, host: str, port: int) -> asyncio.Task[str]:
        """Return a task that finds where the name `host` leads, in the words of libcurl's option RESOLVE.

        It raises `socket.gaierror`, or `BlockedAddressError` where none of the addresses may be connected to.
        """
        now = self._loop.time()
        task, until = self._places.get((host, port), (None, now))
        if task is None or (task.done() and (until <= now or task.exception() is not None)):
            self._places.pop((host, port), None)
            if len(self._places) >= _MAX_PLACES:
                del self._places[next(iter(self._places))]  # the one found first
            task = self._loop.create_task(_find_place(host, port, self._look_ups, check=self._check))
            # Seen, also where nobody waits any more: else asyncio prints what went wrong.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._places[host, port] = task, now + _DNS_TTL_S
        return task

    def refuse(self, ip: str) -> str | None:
        """Return why no connection may be made to `ip`, None where one may."""
        return _blocked(ip) if self._check and blocked_reason(ip) is not None else None

    def is_quiet(self, ends: Ends, opened: list[int]) -> bool:
        """Return whether a request may be sent on a connection: not where the server has sent what nobody asked for.

        It would be taken for the response to this request, and each response for that to the next one.

        Parameters
        ----------
        ends
            IP address of the server and of this machine, port of the server and of this machine.
        opened
            Descriptors of the sockets that were opened for this request. A connection that has not been used is not
            looked at: TLS may have left something there.
        """
        fd = next((fd for fd in opened if _ports(fd) == ends[2:]), None)
        if fd is None:
            return ends not in self._socket_of or not _has_bytes(self._socket_of[ends])
        self._socket_of.pop(self._ends_of.get(fd, ()), None)  # of a connection that is closed
        self._ends_of[fd], self._socket_of[ends] = ends, fd
        return True

    def keep(self, n_connections: int) -> None:
        """Keep so many connections for what comes, if not more already."""
        if n_connections > self._n_kept:
            self._n_kept = n_connections
            self._multi.setopt(pycurl.M_MAXCONNECTS, n_connections)

    def start(self, curl: pycurl.Curl, ended: Ended) -> None:
        """Send the request that `curl` has been set up for."""
        self._ended[curl] = ended
        self._multi.add_handle(curl)

    def stop(self, curl: pycurl.Curl) -> None:
        """Give up the request of `curl`; of that nobody is told."""
        del self._ended[curl]
        self._multi.remove_handle(curl)

    def close(self) -> None:
        """Close all connections."""
        for curl in list(self._ended):
            self.stop(curl)
        self._multi.close()
        if self._alarm is not None:
            self._alarm.cancel()

    # --- between libcurl and the loop --------------------------------------------------------------------------------

    def _watch(self, wanted: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        """Have the loop watch `fd` for what libcurl waits for."""
        if wanted == pycurl.POLL_REMOVE:
            wanted = pycurl.POLL_NONE
        before = self._watched.pop(fd, pycurl.POLL_NONE)
        if wanted:
            self._watched[fd] = wanted
        changed = before ^ wanted
        if changed & pycurl.POLL_IN:
            if wanted & pycurl.POLL_IN:
                self._loop.add_reader(fd, self._act, fd, pycurl.CSELECT_IN)
            else:
                self._loop.remove_reader(fd)
        if changed & pycurl.POLL_OUT:
            if wanted & pycurl.POLL_OUT:
                self._loop.add_writer(fd, self._act, fd, pycurl.CSELECT_OUT)
            else:
                self._loop.remove_writer(fd)

    def _set_alarm(self, wait_ms: int) -> None:
        """Have libcurl called in `wait_ms`; not at all where that is negative."""
        if wait_ms < 0:
            self._due = None
            return
        self._due = self._loop.time() + wait_ms / 1000
        # libcurl puts it off several times a request; an alarm that comes too early looks again, which costs less.
        if self._alarm is None or self._alarm.when() > self._due:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._due is None:
            return
        if self._due > self._loop.time():
            self._alarm = self._loop.call_at(self._due, self._ring)
            return
        self._due = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, fd: int, ready: int) -> None:
        _, n_running = self._multi.socket_action(fd, ready)
        if n_running == len(self._ended):
            return
        n_more = 1
        while n_more:
            n_more, whole, broken = self._multi.info_read()
            for curl in whole:
                self._end(curl, 0, "")
            for curl, code, words in broken:
                self._end(curl, code, words)

    def _end(self, curl: pycurl.Curl, code: int, words: str) -> None:
        ended = self._ended.pop(curl, None)
        if ended is not None:  # not stopped meanwhile, by one that ended before it
            self._multi.remove_handle(curl)
            ended(code, words)


def _ports(fd: int) -> tuple[int, int] | None:
    """Return the ports of both ends of a connection, None where there is none."""
    try:
        opened = socket.socket(fileno=fd)
    except OSError:  # closed, as libcurl does with an address that it gives up
        return None
    try:
        return opened.getpeername()[1], opened.getsockname()[1]
    except OSError:  # not connected
        return None
    finally:
        opened.detach()


def _has_bytes(fd: int) -> bool:
    """Return whether there is something to read, or the connection has ended."""
    # With family and kind: to look these up takes as long as the rest, and this is done before each request.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    try:
        opened.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        opened.detach()
    return True


# --- where a connection may go ---------------------------------------------------------------------------------------


def _blocked(ip: str, host: str | None = None) -> str:
    what = f"{ip} is" if host is None else f"{host[:60]} is {ip},"
    return f"blocked: {what} {blocked_reason(ip)}; pass allow_private_networks=True to allow it"


def _look_up(host: str) -> list[tuple[socket.AddressFamily, str]]:
    return [(family, str(place[0])) for family, *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


async def _find_place(host: str, port: int, look_ups: asyncio.Semaphore, *, check: bool) -> str:
    # Not by libcurl: the thread in which it looks names up is waited for at exit, however long that takes.
    async with look_ups:
        found = [ip for _, ip in await in_daemon_thread(lambda: _look_up(host))]
    allowed = [ip for ip in found if not check or blocked_reason(ip) is None]
    if not allowed:
        raise BlockedAddressError(_blocked(found[0], host))
    return f"+{host}:{port}:{','.join(allowed)}"  # the plus: libcurl is to forget it, after a minute
