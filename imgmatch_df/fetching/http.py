"""Pictures over http and https: one attempt at a time, safe on an address that a stranger wrote.

Every connection goes to an IP address that was checked in the moment of connecting, so neither a name that changes its
address nor a redirect leads into a private network.
"""

import asyncio
import os
import socket
import ssl
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import wraps
from importlib.metadata import version
from itertools import chain
from math import inf
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

import pycurl

from imgmatch_df.errors import Failure, Setback
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.curl import BlockedAddressError, Connections
from imgmatch_df.fetching.response import Head, inflater, judge_head, read_head, too_many_bytes
from imgmatch_df.fetching.urls import Address, clean_url, is_ip
from imgmatch_df.options import Options
from imgmatch_df.sources import Fetched, describe, refused_scheme

Outcome: TypeAlias = Fetched | Failure | Setback
# Told in the loop's thread, once and never from within `start`: the outcome; None where it was cancelled; an exception
# where we have a bug.
Landed: TypeAlias = Callable[[Outcome | BaseException | None], None]

_MAX_REDIRECTS: Final = 5
_LOOK_EVERY_S: Final = 0.1  # for those that are late: one timer for all, since one for each costs 5 microseconds
_ABORT: Final = -1  # what libcurl is answered to end a request
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_HEADERS: Final = [
    "Accept: image/*,*/*;q=0.8",
    "Accept-Encoding: identity",  # pictures are compressed already
    f"User-Agent: imgmatch-df/{version('imgmatch-df')}",
]
_OPTIONS: Final[dict[int, Any]] = {
    pycurl.HTTPHEADER: _HEADERS,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,  # in HTTP/2, a body that waits for memory stops its neighbours
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.FOLLOWLOCATION: 0,  # by hand, after a look at where to
    pycurl.PATH_AS_IS: 1,  # `clean_url` has been there
    pycurl.PROXY: "",  # one of the environment would connect to addresses that were never checked
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.HTTP_CONTENT_DECODING: 0,  # by hand, a piece at a time
    pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
    pycurl.BUFFERSIZE: 1 << 17,
    pycurl.NOSIGNAL: 1,
}
_VAST: Final = 1 << 16  # bytes of a head; libcurl ends it at 300 KB, with the code of a lost connection
# A callback costs 5 us, and libcurl makes 100,000 of them before it returns where a fast server sends small chunks.
# After so many all others have a turn, and libcurl joins the chunks that it has.
_SMALL_PIECE: Final = 4096
_SMALL_AT_A_TIME: Final = 64
_MAX_MS: Final = (1 << 31) - 1
# Codes of libcurl: what comes of certificates, of servers that speak something else, and of connections that end early.
_UNTRUSTED: Final = (
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CACERT,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_ISSUER_ERROR,
)
_NOT_HTTP: Final = Failure("fetch_failed", "the answer is no HTTP")
_NO_HTTP: Final = (pycurl.E_UNSUPPORTED_PROTOCOL, 8, 100)  # a strange answer, and a long line: no good names
_LOST: Final = (pycurl.E_PARTIAL_FILE, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR)


class WebClient:
    """The connections of the process to web servers. Made, used and closed in one event loop.

    Parameters
    ----------
    loop
        Everything happens in its thread.
    circuits
        The hosts that no redirect is followed to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, circuits: CircuitBreaker) -> None:
        self._loop = loop
        self._circuits = circuits
        # Two pools, or a connection into a private network that one expression is allowed to make would serve another.
        self._pools = {allowed: Connections(loop, allow_private_networks=allowed) for allowed in (False, True)}
        self._idle: dict[bool, list[_Attempt]] = {allowed: [] for allowed in self._pools}
        self._under_way: set[_Attempt] = set()
        self._look_out: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Close all connections, of which none may be in use."""
        for pool in self._pools.values():
            pool.close()

    def start(self, url: str, options: Options, claim: Claim, landed: Landed) -> "_Attempt":
        """Fetch what `url` gives, after at most five redirects; return what can be cancelled.

        Parameters
        ----------
        url
            An http or https address, as people write it.
        options
            `timeout_s`, `max_bytes`, `n_connections` and `allow_private_networks` count here.
        claim
            Gets the bytes as they come, which is also how they are held back.
        landed
            Told the outcome.
        """
        idle = self._idle[options.allow_private_networks]
        if not idle:
            pool = self._pools[options.allow_private_networks]
            idle.append(_Attempt(self._loop, pool, self._circuits, self._under_way, idle))
        attempt = idle.pop()
        attempt.start(url, options, claim, landed)
        if self._look_out is None:
            self._look_out = self._loop.call_later(_LOOK_EVERY_S, self._end_the_late)
        return attempt

    def _end_the_late(self) -> None:
        now = self._loop.time()
        self._look_out = self._loop.call_later(_LOOK_EVERY_S, self._end_the_late)
        for attempt in [attempt for attempt in self._under_way if attempt.deadline < now]:
            attempt.time_out()
        if not self._under_way:
            self._look_out.cancel()
            self._look_out = None


P = ParamSpec("P")


def _ends(callback: Callable[Concatenate["_Attempt", P], None]) -> Callable[Concatenate["_Attempt", P], None]:
    """Have an attempt land with what goes wrong in a method that the loop calls: nobody else would end it."""

    @wraps(callback)
    def call(attempt: "_Attempt", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(attempt, *args, **kwargs)
        except Exception as error:
            if not attempt.fail(error):
                raise

    return call


class _Attempt:
    """An attempt to fetch an address; when it has landed it may be started again, since setting one up costs 30 us.

    Parameters
    ----------
    loop
        Everything happens in its thread.
    pool
        Makes the connections, and says which.
    circuits
        The hosts that no redirect is followed to.
    under_way, idle
        Where it stands while it is under way, and when it may be started again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Connections,
        circuits: CircuitBreaker,
        under_way: "set[_Attempt]",
        idle: "list[_Attempt]",
    ) -> None:
        self.deadline = 0.0
        self._loop = loop
        self._pool = pool
        self._circuits = circuits
        self._under_way = under_way
        self._idle = idle
        self._looking: asyncio.Task[str] | None = None
        self._soon: asyncio.Handle | None = None
        self._is_sent = False
        self._authorization: str | None = None
        self._lines: list[bytes] = []
        self._body = bytearray()
        self._opened: list[int] = []
        self._is_stray = False
        self._curl = pycurl.Curl()
        for option, value in {**_OPTIONS, **_trusted()}.items():
            if value is None:
                self._curl.unsetopt(option)
            else:
                self._curl.setopt(option, value)
        self._curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self._curl.setopt(pycurl.PREREQFUNCTION, self._before_request)
        self._curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self._curl.setopt(pycurl.WRITEFUNCTION, self._take)

    @_ends
    def start(self, url: str, options: Options, claim: Claim, landed: Landed) -> None:
        """Begin with an address."""
        self._options = options
        self._claim = claim
        self._landed = landed
        self._n_redirects = 0
        self._end = self.deadline = self._loop.time() + options.timeout_s
        self._under_way.add(self)
        self._pool.keep(options.n_connections)
        address = clean_url(url)
        if isinstance(address, Failure):
            self._soon = self._loop.call_soon(self._land, address)
        else:
            self._look_up(address)

    def cancel(self) -> None:
        """Give up."""
        self._land(None)

    def fail(self, error: Exception) -> bool:
        """Land with an error that is ours, soon; return False where that has landed already."""
        if self in self._under_way:
            self._soon = self._loop.call_soon(self._land, error)
            return True
        return False

    @_ends
    def time_out(self) -> None:
        """Give up because `deadline` has passed."""
        if self._looking is not None:
            self._land(_no_connection_in_time(self._options))
        else:
            self._stop_sending()
            what = f"no whole answer within {self._options.timeout_s:g} s"
            late = Setback(Failure("fetch_timeout", what), responded=False)
            self._go_on(self._judge() or late)

    def _land(self, outcome: Outcome | BaseException | None) -> None:
        self._stop_sending()
        if isinstance(outcome, Setback) and self._n_redirects:
            outcome = outcome._replace(host=self._address.origin)
        if self._looking is not None:
            self._looking.remove_done_callback(self._found)
        if self._soon is not None:
            self._soon.cancel()
        self._looking = self._soon = None
        self._body = bytearray()
        self._under_way.discard(self)
        self._idle.append(self)
        self._landed(outcome)

    def _stop_sending(self) -> None:
        if self._is_sent:
            self._is_sent = False
            self._pool.stop(self._curl)

    # --- there -------------------------------------------------------------------------------------------------------

    def _look_up(self, address: Address) -> None:
        self._address = address
        if is_ip(address.host):
            self._send()
            return
        looking = self._pool.find(address.host, address.port)
        if looking.done():
            self._found(looking)
        else:
            self._looking = looking
            looking.add_done_callback(self._found)
            self.deadline = min(self._end, self._loop.time() + self._options.timeout_s / 3)

    @_ends
    def _found(self, place: "asyncio.Task[str]") -> None:
        self._looking = None
        self.deadline = self._end
        error = place.exception()
        if error is None:
            self._curl.setopt(pycurl.RESOLVE, [place.result()])
            self._send()
        elif isinstance(error, BlockedAddressError):
            self._land(Failure("fetch_blocked", str(error)))
        elif isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST:
            self._land(Failure("fetch_failed", f"no such host: {self._address.host[:60]}"))
        elif isinstance(error, OSError):
            self._land(_no_connection(error))
        else:
            self._land(error)

    def _send(self) -> None:
        self._lines.clear()
        self._body = bytearray()
        self._opened.clear()
        self._is_stray = False
        self._n_small = 0
        self._head: Head | None = None
        self._answer: Address | Outcome | BaseException | None = None
        self._refused: Failure | Setback | None = None
        self._n_bytes = 0
        self._rest: Iterator[bytes] | None = None
        self._n_seen = 0
        self._left_s: float | None = None
        address, curl = self._address, self._curl
        try:
            curl.setopt(pycurl.URL, address.url)
            curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(int(self._options.timeout_s * 1000 / 3) + 1, _MAX_MS))
            if address.authorization != self._authorization:
                self._authorization = address.authorization
                more = [] if address.authorization is None else [f"Authorization: {address.authorization}"]
                curl.setopt(pycurl.HTTPHEADER, [*_HEADERS, *more])
            self._pool.start(curl, self._ended)
            self._is_sent = True
        except pycurl.error as error:
            self._soon = self._loop.call_soon(self._land, _said(error.args[-1]))

    def _open_socket(self, _purpose: int, place: Any) -> Any:
        """Return a socket for an address that is about to be connected to: the last check, nothing gets around it."""
        family, kind, protocol, address = place
        refused = self._pool.refuse(str(address[0]))
        if refused is not None:
            self._refused = Failure("fetch_blocked", refused)
            return pycurl.SOCKET_BAD
        try:
            opened = socket.socket(family, kind, protocol).detach()  # libcurl closes it
        except OSError as error:
            self._refused = _no_connection(error)
            return pycurl.SOCKET_BAD
        self._opened.append(opened)
        return opened

    def _before_request(self, *ends: str | int) -> Any:
        """Return whether the request may be sent on the connection that libcurl has chosen for it."""
        if self._pool.is_quiet(ends, self._opened):
            return pycurl.PREREQFUNC_OK
        self._is_stray = True
        return pycurl.PREREQFUNC_ABORT

    # --- and back ----------------------------------------------------------------------------------------------------

    def _judge(self) -> Address | Outcome | BaseException | None:
        """Return what the answer comes to as far as it is there, None where that is open."""
        if self._head is None and (head := read_head(self._lines)) is not None:
            self._head = head
            self._answer = judge_head(head, self._address, self._options)
            self._inflate = inflater(head.coding)
        return self._answer

    def _take(self, chunk: bytes) -> Any:
        """Take a piece of the body: None when that is done, `WRITEFUNC_PAUSE` to get it again, perhaps with more."""
        try:
            if self._judge() is not None:
                # Where all of the body is there, the connection can be used again; the rest is not worth waiting for.
                return None if self._head is not None and self._head.n_bytes == len(chunk) else _ABORT
            if self._head is None:
                self._answer = _NOT_HTTP
                return _ABORT
            if len(chunk) < _SMALL_PIECE:
                self._n_small += 1
                if self._n_small % _SMALL_AT_A_TIME == 0:
                    self._soon = self._loop.call_soon(self._unpause)
                    return pycurl.WRITEFUNC_PAUSE
            pieces = self._inflate(chunk[self._n_seen :]) if self._n_seen else self._inflate(chunk)
            if self._rest is not None:
                pieces = chain(self._rest, pieces)
                self._rest, self._n_seen = None, 0
            for piece in pieces:
                if self._n_bytes + len(piece) > self._options.max_bytes:
                    what = f"{self._n_bytes + len(piece):,} bytes and more"
                    self._answer = too_many_bytes(what, self._options)
                    return _ABORT
                if not self._claim.take(len(piece)):
                    self._rest, self._n_seen = chain((piece,), pieces), len(chunk)
                    self._wait_for_room()
                    return pycurl.WRITEFUNC_PAUSE
                if self._left_s is not None:
                    self.deadline, self._left_s = self._loop.time() + self._left_s, None
                self._n_bytes += len(piece)
                self._body += piece
        except zlib.error as error:
            self._answer = Failure("fetch_failed", f"the body is no sound {self._head and self._head.coding}: {error}")
            return _ABORT
        except BaseException as error:  # noqa: BLE001  # libcurl would print it; raised again where the batch is waited for
            self._answer = error
            return _ABORT
        return None

    def _wait_for_room(self) -> None:
        """Have libcurl go on when there is room; meanwhile the clock stands still."""
        self._claim.when_room(self._unpause)
        if self._left_s is None:
            self._left_s = self.deadline - self._loop.time()
            self.deadline = inf

    @_ends
    def _unpause(self) -> None:
        try:
            self._curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            self._stop_sending()
            self._ended(error.args[0], error.args[1])

    @_ends
    def _ended(self, code: int, words: str) -> None:
        self._is_sent = False
        if self._is_stray:  # nothing was sent, and the connection is closed
            self._send()
            return
        answer = self._judge()
        if answer is None:
            answer = self._explain(code, words) if code else self._make_whole()
        self._go_on(answer)

    def _go_on(self, answer: Address | Outcome | BaseException) -> None:
        """Follow a redirect; land with anything else."""
        if not isinstance(answer, Address):
            self._land(answer)
            return
        self._n_redirects += 1
        if self._n_redirects > _MAX_REDIRECTS:
            what = f"more than {_MAX_REDIRECTS} redirects, the last one to {describe(answer.url)}"
            self._land(Failure("fetch_failed", what))
            return
        refused = refused_scheme(answer.url.partition(":")[0], self._options.schemes)
        refused = refused or self._circuits.refuse(answer.origin, self._loop.time())
        if refused is not None:
            self._land(refused)
        else:
            self._look_up(answer)

    def _make_whole(self) -> Fetched | Failure:
        if self._head is None:
            return _NOT_HTTP
        if not self._n_bytes:
            return Failure("missing", "zero bytes")
        return Fetched(bytes(self._body), self._head.content_type, self._head.etag)

    def _explain(self, code: int, words: str) -> Failure | Setback:
        error_code = self._curl.getinfo(pycurl.OS_ERRNO)
        if code == pycurl.E_COULDNT_CONNECT:
            why = OSError(error_code, os.strerror(error_code)) if error_code else OSError(words)
            return self._refused or _no_connection(why)
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return _no_connection_in_time(self._options)
        if code in _UNTRUSTED:
            return Failure("fetch_failed", f"no trusted connection: {describe(words.lower())}")
        if code in _NO_HTTP:
            return _NOT_HTTP
        if code not in _LOST:
            return _said(words)
        if self._head is None and sum(map(len, self._lines)) > _VAST:
            return Failure("fetch_failed", "the answer is no HTTP: its head has no end")
        if self._head is None:
            return Setback(Failure("fetch_failed", "the connection ended before the answer"), responded=False)
        of = "" if self._head.n_bytes is None else f" of {self._head.n_bytes:,}"
        what = f"the connection ended with {self._n_bytes:,}{of} bytes"
        return Setback(Failure("fetch_failed", what), responded=False)


def _trusted() -> dict[int, Any]:
    """Return the options that say whose certificates are trusted: those that Python trusts."""
    paths = ssl.get_default_verify_paths()  # SSL_CERT_FILE and SSL_CERT_DIR, else where the system has them
    if sys.platform in ("win32", "darwin") and paths.cafile is None:
        return {pycurl.SSL_OPTIONS: pycurl.SSLOPT_NATIVE_CA}
    if paths.cafile is None:
        return {} if paths.capath is None else {pycurl.CAPATH: paths.capath}
    if paths.openssl_capath_env in os.environ and paths.capath is not None:
        return {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: paths.capath}
    # With a folder besides, libcurl would read the file again for each connection.
    return {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: None}


def _said(words: object) -> Failure:
    return Failure("fetch_failed", f"libcurl says: {describe(str(words))}")


def _no_connection(error: OSError) -> Setback:
    what = f"no connection: {describe(str(error.strerror or error).lower())}"
    return Setback(Failure("fetch_failed", what), responded=False)


def _no_connection_in_time(options: Options) -> Setback:
    return Setback(Failure("fetch_timeout", f"no connection within {options.timeout_s / 3:g} s"), responded=False)
