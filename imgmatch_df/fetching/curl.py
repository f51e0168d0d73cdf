"""libcurl multi handle on an asyncio loop. Connects only to IP addresses that passed the private-network check."""

import asyncio
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

import pycurl

from imgmatch_df.fetching.private_networks import blocked_reason
from imgmatch_df.threads import in_daemon_thread

_DNS_TTL_S: Final = 60
_MAX_RESOLVED: Final = 1024
# Events of one call of the system: the other callbacks of the loop wait for their bodies.
_MAX_EVENTS: Final = 64
# A look-up occupies a thread until the resolver of the system returns: half a minute if no DNS server responds.
_MAX_LOOKUPS: Final = 64

# Callback, run on the loop thread when a transfer has ended: code of libcurl (0 for a complete response) and message.
OnEnd: TypeAlias = Callable[[int, str], None]
# Both ends of a connection: IP addresses of server and client, then ports of server and client.
Ends: TypeAlias = tuple[str | int, ...]


class BlockedAddressError(OSError):
    """All IP addresses of a host are outside of the public internet. Becomes the result of the row."""


class _Resolved(NamedTuple):
    task: asyncio.Task[str]
    expires: float  # time of the loop


class ConnectionPool:
    """Pool of HTTP connections. Made, used and closed on the thread of its event loop.

    Parameters
    ----------
    loop
        Event loop that can watch file descriptors.
    allow_private_networks
        Whether to connect to IP addresses outside of the public internet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, allow_private_networks: bool) -> None:
        self._loop = loop
        self._check = not allow_private_networks
        self._lookups = asyncio.Semaphore(_MAX_LOOKUPS)
        # Registering a socket with the loop, for each request again, takes 20 us; with an epoll of its own, 2 us.
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._act_on_events, self._epoll)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._on_end: dict[pycurl.Curl, OnEnd] = {}
        self._watched: dict[int, int] = {}
        self._n_kept = 0
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resolved: dict[tuple[str, int], _Resolved] = {}
        self._socket_of: dict[Ends, int] = {}
        self._ends_of: dict[int, Ends] = {}

    def resolve(self, host: str, port: int) -> asyncio.Task[str]:
        """Return a task that resolves a host name, to a value for the option RESOLVE of libcurl.

        It raises `socket.gaierror`, or `BlockedAddressError` if all IP addresses of the host are blocked.
        """
        now = self._loop.time()
        found = self._resolved.get((host, port))
        if found is None or (found.task.done() and (found.expires <= now or found.task.exception() is not None)):
            self._resolved.pop((host, port), None)
            if len(self._resolved) >= _MAX_RESOLVED:
                del self._resolved[next(iter(self._resolved))]  # the oldest
            task = self._loop.create_task(_resolve_for_curl(host, port, self._lookups, check=self._check))
            # Retrieve the exception: asyncio logs it if no attempt waits for it any more.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            found = self._resolved[host, port] = _Resolved(task, now + _DNS_TTL_S)
        return found.task

    def refuse(self, ip: str) -> str | None:
        """Return why a connection to `ip` is not allowed, None if it is."""
        return _blocked(ip) if self._check and blocked_reason(ip) is not None else None

    def is_quiet(self, ends: Ends, opened: list[int]) -> bool:
        """Return whether a connection may be used: not if the server has sent bytes that belong to no request.

        They would be parsed as the response to the next request, and each response as that to the request after it.

        Parameters
        ----------
        ends
            Both ends of the connection.
        opened
            Descriptors of the sockets that were opened for this request. A new connection is not checked: bytes of the
            TLS handshake may be left in it.
        """
        fd = next((fd for fd in opened if _ports(fd) == ends[2:]), None) if opened else None
        if fd is None:
            return ends not in self._socket_of or not _has_bytes(self._socket_of[ends])
        self._socket_of.pop(self._ends_of.get(fd, ()), None)  # closed, with the same descriptor
        self._ends_of[fd], self._socket_of[ends] = ends, fd
        return True

    def keep(self, n_connections: int) -> None:
        """Keep at least this many idle connections."""
        if n_connections > self._n_kept:
            self._n_kept = n_connections
            self._multi.setopt(pycurl.M_MAXCONNECTS, n_connections)

    def start(self, curl: pycurl.Curl, on_end: OnEnd) -> None:
        """Start the transfer that `curl` has been configured for."""
        self._on_end[curl] = on_end
        self._multi.add_handle(curl)

    def stop(self, curl: pycurl.Curl) -> None:
        """Cancel the transfer of `curl`, without a call of its callback."""
        del self._on_end[curl]
        self._multi.remove_handle(curl)

    def close(self) -> None:
        """Close all connections."""
        for curl in list(self._on_end):
            self.stop(curl)
        self._multi.close()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        if self._timer is not None:
            self._timer.cancel()

    # --- callbacks of libcurl and of the loop ------------------------------------------------------------------------

    def _watch(self, wanted: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        """Register `fd` for the events that libcurl waits for."""
        if wanted == pycurl.POLL_REMOVE:
            wanted = pycurl.POLL_NONE
        before = self._watched.pop(fd, pycurl.POLL_NONE)
        if wanted:
            self._watched[fd] = wanted
        if self._epoll is None:
            self._watch_in_loop(fd, before, wanted)
        elif not wanted:
            with suppress(OSError):  # it has been closed, which unregisters it
                self._epoll.unregister(fd)
        elif before:
            self._epoll.modify(fd, _EVENTS[wanted])
        else:
            self._epoll.register(fd, _EVENTS[wanted])

    def _watch_in_loop(self, fd: int, before: int, wanted: int) -> None:
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

    def _set_timer(self, wait_ms: int) -> None:
        """Schedule a call of libcurl in `wait_ms`; cancel it if that is negative."""
        if wait_ms < 0:
            self._due = None
            return
        self._due = self._loop.time() + wait_ms / 1000
        # libcurl reschedules its timer several times per request. Letting a stale timer fire and re-arm is cheaper
        # than cancelling it each time.
        if self._timer is None or self._timer.when() > self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._due > self._loop.time():
            self._timer = self._loop.call_at(self._due, self._fire)
            return
        self._due = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act_on_events(self, epoll: "select.epoll") -> None:
        for fd, events in epoll.poll(0, _MAX_EVENTS):
            if fd in self._watched:  # not closed by the callback of an event before it
                writable = pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0
                # An error is reported as readable too, so that libcurl reads it.
                readable = pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0
                self._act(fd, readable | writable)

    def _act(self, fd: int, ready: int) -> None:
        _, n_running = self._multi.socket_action(fd, ready)
        if n_running == len(self._on_end):
            return
        n_more = 1
        while n_more:
            n_more, complete, failed = self._multi.info_read()
            for curl in complete:
                self._end(curl, 0, "")
            for curl, code, message in failed:
                self._end(curl, code, message)

    def _end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        on_end = self._on_end.pop(curl, None)
        if on_end is not None:  # None if a callback before this one has stopped the transfer
            self._multi.remove_handle(curl)
            on_end(code, message)


_EVENTS: Final = (
    {}
    if not hasattr(select, "epoll")
    else {
        pycurl.POLL_IN: select.EPOLLIN,
        pycurl.POLL_OUT: select.EPOLLOUT,
        pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
    }
)


def _ports(fd: int) -> tuple[int, int] | None:
    """Return the ports of both ends of a connection, None if `fd` is not connected."""
    try:
        opened = socket.socket(fileno=fd)
    except OSError:  # libcurl has closed it, after a failed connection to one IP address of several
        return None
    try:
        return opened.getpeername()[1], opened.getsockname()[1]
    except OSError:  # not connected
        return None
    finally:
        opened.detach()


def _has_bytes(fd: int) -> bool:
    """Return whether there are bytes to read, or the connection has been closed."""
    if hasattr(select, "poll"):  # this runs before each request, and takes 1 us; the other way takes 6 us
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(0))
    # Family and kind are given: detecting them takes as long as the rest.
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


# --- check of IP addresses -------------------------------------------------------------------------------------------


def _blocked(ip: str, host: str | None = None) -> str:
    what = f"{ip} is" if host is None else f"{host[:60]} is {ip},"
    return f"blocked: {what} {blocked_reason(ip)}; pass allow_private_networks=True to allow it"


def _look_up(host: str) -> list[tuple[socket.AddressFamily, str]]:
    return [(family, str(end[0])) for family, *_, end in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


async def _resolve_for_curl(host: str, port: int, lookups: asyncio.Semaphore, *, check: bool) -> str:
    # The resolver of libcurl is not used: exit would wait for its thread, however long a look-up takes.
    async with lookups:
        found = [ip for _, ip in await in_daemon_thread(lambda: _look_up(host))]
    allowed = [ip for ip in found if not check or blocked_reason(ip) is None]
    if not allowed:
        raise BlockedAddressError(_blocked(found[0], host))
    return f"+{host}:{port}:{','.join(allowed)}"  # the plus sign makes libcurl drop the entry after a minute
