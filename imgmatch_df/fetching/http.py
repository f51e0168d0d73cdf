"""Transport for http and https; safe for URLs from untrusted sources.

Each connection goes to an IP address that is checked at the moment of connecting. So neither a redirect nor a host
name that resolves to another IP address later reaches a private network.
"""

import asyncio
import os
import socket
import ssl
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from importlib.metadata import version
from itertools import chain
from math import inf
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

import pycurl

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.curl import BlockedAddressError, ConnectionPool
from imgmatch_df.fetching.response import ResponseHeader, check_header, make_decompressor, not_compressed, parse_header
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.fetching.transport import OnDone, Outcome, no_response_in_time
from imgmatch_df.fetching.urls import HttpUrl, clean_url, is_ip, origin_of
from imgmatch_df.options import Options
from imgmatch_df.schemes import refused_scheme
from imgmatch_df.sources import Fetched, describe, too_many_bytes

_MAX_REDIRECTS: Final = 5
_POLL_S: Final = 0.1  # for expired deadlines; one shared timer, since a timer per request costs 5 us
_ABORT: Final = -1  # returned to libcurl to end a transfer
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_REQUEST_HEADERS: Final = [
    "Accept: image/*,*/*;q=0.8",
    "Accept-Encoding: identity",  # image formats are compressed already
    f"User-Agent: imgmatch-df/{version('imgmatch-df')}",
]
_OPTIONS: Final[dict[int, Any]] = {
    pycurl.HTTPHEADER: _REQUEST_HEADERS,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,  # in HTTP/2, a paused body blocks the others of its connection
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.FOLLOWLOCATION: 0,  # followed by `_follow_or_finish`, which checks the target
    pycurl.PATH_AS_IS: 1,  # `clean_url` has normalised it
    pycurl.PROXY: "",  # a proxy of the environment would connect to IP addresses that were not checked
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.HTTP_CONTENT_DECODING: 0,  # decompressed by `make_decompressor`, piece by piece
    pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
    pycurl.BUFFERSIZE: 1 << 17,
    pycurl.NOSIGNAL: 1,
}
_MAX_HEADER_BYTES: Final = 1 << 16  # libcurl ends a header at 300 KB, with the code of a lost connection
# A callback costs 5 us, and a fast server with small chunks causes 100,000 in a row. After this many, the transfer is
# paused for one turn of the loop, in which libcurl joins chunks.
_SMALL_CHUNK_BYTES: Final = 4096
_MAX_SMALL_CHUNKS: Final = 64
_MAX_MS: Final = (1 << 31) - 1
_TLS_ERRORS: Final = (
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CACERT,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_ISSUER_ERROR,
)
_NOT_HTTP: Final = Failure("fetch_failed", "the response is not HTTP")
_NOT_HTTP_ERRORS: Final = (pycurl.E_UNSUPPORTED_PROTOCOL, 8, 100)  # CURLE_WEIRD_SERVER_REPLY, CURLE_TOO_LARGE
_LOST_ERRORS: Final = (pycurl.E_PARTIAL_FILE, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR)


class HttpClient:
    """The HTTP connections of the process. Made, used and closed on the thread of one event loop.

    Parameters
    ----------
    loop
        Event loop of the scheduler.
    circuits
        Hosts that do not respond: redirects to them are not followed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, circuits: CircuitBreaker) -> None:
        self._loop = loop
        self._circuits = circuits
        # Two pools: a connection to a private network, which one expression allows, must not serve another expression.
        self._pools = {allowed: ConnectionPool(loop, allow_private_networks=allowed) for allowed in (False, True)}
        self._idle: dict[bool, list[_HttpAttempt]] = {allowed: [] for allowed in self._pools}
        self._in_flight: set[_HttpAttempt] = set()
        self._deadline_timer: asyncio.TimerHandle | None = None

    @staticmethod
    def origin_of(url: str) -> str:
        """Return scheme, host and port of a URL in normal form."""
        return origin_of(url)

    def start(self, url: str, options: Options, claim: Claim, on_done: OnDone) -> "_HttpAttempt":
        """Start one attempt to fetch a URL, including at most five redirects; see `Transport.start`."""
        idle = self._idle[options.allow_private_networks]
        if not idle:
            pool = self._pools[options.allow_private_networks]
            idle.append(_HttpAttempt(self._loop, pool, self._circuits, self._in_flight, idle))
        attempt = idle.pop()
        attempt.start(url, options, claim, on_done)
        if self._deadline_timer is None:
            self._deadline_timer = self._loop.call_later(_POLL_S, self._check_deadlines)
        return attempt

    def close(self) -> None:
        """Close all connections. No attempt is in flight."""
        for pool in self._pools.values():
            pool.close()

    def _check_deadlines(self) -> None:
        now = self._loop.time()
        self._deadline_timer = self._loop.call_later(_POLL_S, self._check_deadlines)
        for attempt in [attempt for attempt in self._in_flight if attempt.deadline < now]:
            attempt.time_out()
        if not self._in_flight:
            self._deadline_timer.cancel()
            self._deadline_timer = None


@dataclass(slots=True)
class _Fetch:
    """Arguments and state of one attempt, from the first request to the last redirect."""

    options: Options
    claim: Claim
    on_done: OnDone
    end: float  # time of the loop when `timeout_s` expires
    n_redirects: int = 0
    body: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Exchange:
    """One request and its response; a redirect starts another one."""

    url: HttpUrl
    opened: list[int] = field(default_factory=list)  # descriptors of the sockets opened for it
    is_stray: bool = False  # not sent, because the connection had bytes of no request
    refused: Failure | Retryable | None = None  # why a socket was not opened
    header: ResponseHeader | None = None
    outcome: HttpUrl | Outcome | BaseException | None = None  # when the response determines it
    decompress: Callable[[bytes], Iterator[bytes]] = not_compressed  # set with the header
    n_small: int = 0  # small chunks so far
    # A paused chunk: its remaining pieces, and its length, because libcurl passes it again.
    pending: Iterator[bytes] | None = None
    n_pending_bytes: int = 0
    left_s: float | None = None  # time until the deadline, while the attempt waits for the byte budget


P = ParamSpec("P")
LoopCallback: TypeAlias = Callable[Concatenate["_HttpAttempt", P], None]


def _fails_attempt(callback: LoopCallback[P]) -> LoopCallback[P]:
    """Decorate a loop callback: fail the attempt if the callback raises; otherwise it would never complete."""

    @wraps(callback)
    def call(attempt: "_HttpAttempt", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(attempt, *args, **kwargs)
        except Exception as error:
            if not attempt.fail(error):
                raise

    return call


class _HttpAttempt:
    """One attempt to fetch a URL. Reused after it has finished: configuring a curl handle takes 30 us.

    Parameters
    ----------
    loop
        Event loop of the scheduler.
    pool
        Pool of connections.
    circuits
        Hosts that do not respond.
    in_flight, idle
        Collections that contain the attempt while it is in flight, and when it can be reused.
    """

    _fetch: _Fetch  # set by `start`
    _exchange: _Exchange  # set by `_resolve`

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: ConnectionPool,
        circuits: CircuitBreaker,
        in_flight: "set[_HttpAttempt]",
        idle: "list[_HttpAttempt]",
    ) -> None:
        self.deadline = 0.0
        self._loop = loop
        self._pool = pool
        self._circuits = circuits
        self._in_flight = in_flight
        self._idle = idle
        self._resolving: asyncio.Task[str] | None = None
        self._soon: asyncio.Handle | None = None
        self._is_sent = False
        self._authorization: str | None = None
        self._lines: list[bytes] = []
        self._curl = pycurl.Curl()
        for option, value in {**_OPTIONS, **_trusted_certificates()}.items():
            if value is None:
                self._curl.unsetopt(option)
            else:
                self._curl.setopt(option, value)
        self._curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self._curl.setopt(pycurl.PREREQFUNCTION, self._before_request)
        self._curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self._curl.setopt(pycurl.WRITEFUNCTION, self._take_chunk)

    @_fails_attempt
    def start(self, url: str, options: Options, claim: Claim, on_done: OnDone) -> None:
        """Start the attempt with the request for `url`."""
        self._fetch = _Fetch(options, claim, on_done, self._loop.time() + options.timeout_s)
        self.deadline = self._fetch.end
        self._in_flight.add(self)
        self._pool.keep(options.n_connections)
        cleaned = clean_url(url)
        if isinstance(cleaned, Failure):
            self._soon = self._loop.call_soon(self._finish, cleaned)
        else:
            self._resolve(cleaned)

    def cancel(self) -> None:
        """Cancel the attempt: its callback gets None."""
        self._finish(None)

    def fail(self, error: Exception) -> bool:
        """Finish on the next turn of the loop, with a bug; return False if the attempt has finished already."""
        if self in self._in_flight:
            self._soon = self._loop.call_soon(self._finish, error)
            return True
        return False

    @_fails_attempt
    def time_out(self) -> None:
        """End the attempt because `deadline` has passed."""
        if self._resolving is not None:
            self._finish(_no_connection_in_time(self._fetch.options))
        else:
            self._stop_sending()
            self._follow_or_finish(self._check_header() or no_response_in_time(self._fetch.options))

    def _finish(self, outcome: Outcome | BaseException | None) -> None:
        self._stop_sending()
        if isinstance(outcome, Retryable) and self._fetch.n_redirects:
            outcome = outcome._replace(host=self._exchange.url.origin)
        if self._resolving is not None:
            self._resolving.remove_done_callback(self._on_resolved)
        if self._soon is not None:
            self._soon.cancel()
        self._resolving = self._soon = None
        self._in_flight.discard(self)
        self._idle.append(self)
        self._fetch.body = bytearray()
        self._fetch.on_done(outcome)

    def _stop_sending(self) -> None:
        if self._is_sent:
            self._is_sent = False
            self._pool.stop(self._curl)

    # --- request -----------------------------------------------------------------------------------------------------

    def _resolve(self, url: HttpUrl) -> None:
        """Start the exchange for a URL with the look-up of its host."""
        self._exchange = _Exchange(url)
        if is_ip(url.host):
            self._send()
            return
        self._resolving = self._pool.resolve(url.host, url.port)
        if self._resolving.done():
            self._on_resolved(self._resolving)
        else:
            self._resolving.add_done_callback(self._on_resolved)
            self.deadline = min(self._fetch.end, self._loop.time() + self._fetch.options.timeout_s / 3)

    @_fails_attempt
    def _on_resolved(self, resolved: "asyncio.Task[str]") -> None:
        if resolved is not self._resolving:
            return  # the attempt ended when the look-up was done already and this callback was scheduled
        self._resolving = None
        self.deadline = self._fetch.end
        error = resolved.exception()
        if error is None:
            self._curl.setopt(pycurl.RESOLVE, [resolved.result()])
            self._send()
        elif isinstance(error, BlockedAddressError):
            self._finish(Failure("fetch_blocked", str(error)))
        elif isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST:
            self._finish(Failure("fetch_failed", f"no such host: {self._exchange.url.host[:60]}"))
        else:
            self._finish(_no_connection(error) if isinstance(error, OSError) else error)

    def _send(self) -> None:
        url, curl = self._exchange.url, self._curl
        self._lines.clear()
        try:
            curl.setopt(pycurl.URL, url.text)
            curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(int(self._fetch.options.timeout_s * 1000 / 3) + 1, _MAX_MS))
            if url.authorization != self._authorization:
                self._authorization = url.authorization
                more = [] if url.authorization is None else [f"Authorization: {url.authorization}"]
                curl.setopt(pycurl.HTTPHEADER, [*_REQUEST_HEADERS, *more])
            self._pool.start(curl, self._on_end)
            self._is_sent = True
        except pycurl.error as error:
            self._soon = self._loop.call_soon(self._finish, _libcurl_failure(error.args[-1]))

    def _open_socket(self, _purpose: int, destination: Any) -> Any:
        """Check an IP address that libcurl is about to connect to, and return a socket; all connections pass here."""
        family, kind, protocol, sockaddr = destination
        refused = self._pool.refuse(str(sockaddr[0]))
        if refused is not None:
            self._exchange.refused = Failure("fetch_blocked", refused)
            return pycurl.SOCKET_BAD
        try:
            opened = socket.socket(family, kind, protocol).detach()  # libcurl closes it
        except OSError as error:
            self._exchange.refused = _no_connection(error)
            return pycurl.SOCKET_BAD
        self._exchange.opened.append(opened)
        return opened

    def _before_request(self, *ends: str | int) -> Any:
        """Return whether the request may be sent on the connection that libcurl has chosen for it."""
        if self._pool.is_quiet(ends, self._exchange.opened):
            return pycurl.PREREQFUNC_OK
        self._exchange.is_stray = True
        return pycurl.PREREQFUNC_ABORT

    # --- response ----------------------------------------------------------------------------------------------------

    def _check_header(self) -> HttpUrl | Outcome | BaseException | None:
        """Return the outcome as far as the response so far determines it, else None."""
        exchange = self._exchange
        if exchange.header is None and (header := parse_header(self._lines)) is not None:
            exchange.header = header
            exchange.outcome = check_header(header, exchange.url, self._fetch.options)
            exchange.decompress = make_decompressor(header.encoding)
        return exchange.outcome

    def _take_chunk(self, chunk: bytes) -> Any:
        """Take a chunk of the body; return None, `_ABORT`, or `WRITEFUNC_PAUSE` to get it again with later bytes."""
        exchange, fetch = self._exchange, self._fetch
        try:
            if self._check_header() is not None:
                # If the chunk is the whole body, the connection can be used again; a longer body is not received.
                return None if exchange.header is not None and exchange.header.n_bytes == len(chunk) else _ABORT
            if exchange.header is None:
                exchange.outcome = _NOT_HTTP
                return _ABORT
            if len(chunk) < _SMALL_CHUNK_BYTES:
                exchange.n_small += 1
                if exchange.n_small % _MAX_SMALL_CHUNKS == 0:
                    self._soon = self._loop.call_soon(self._unpause)
                    return pycurl.WRITEFUNC_PAUSE
            n_seen = exchange.n_pending_bytes
            pieces = exchange.decompress(chunk[n_seen:] if n_seen else chunk)
            if exchange.pending is not None:
                pieces = chain(exchange.pending, pieces)
                exchange.pending, exchange.n_pending_bytes = None, 0
            for piece in pieces:
                n_bytes = len(fetch.body) + len(piece)
                if n_bytes > fetch.options.max_bytes:
                    exchange.outcome = too_many_bytes(f"at least {n_bytes:,} bytes", fetch.options.max_bytes)
                    return _ABORT
                if not fetch.claim.take(len(piece)):
                    exchange.pending, exchange.n_pending_bytes = chain((piece,), pieces), len(chunk)
                    self._wait_for_room()
                    return pycurl.WRITEFUNC_PAUSE
                if exchange.left_s is not None:
                    self.deadline, exchange.left_s = self._loop.time() + exchange.left_s, None
                fetch.body += piece
        except zlib.error as error:
            encoding = exchange.header.encoding if exchange.header else ""
            exchange.outcome = Failure("fetch_failed", f"the body is not valid {encoding}: {error}")
            return _ABORT
        except BaseException as error:  # noqa: BLE001  # libcurl would print it; raised again where the batch is waited for
            exchange.outcome = error
            return _ABORT
        return None

    def _wait_for_room(self) -> None:
        """Resume the transfer when the byte budget has room; the wait does not count against the deadline."""
        self._fetch.claim.when_room(self._unpause)
        if self._exchange.left_s is None:
            self._exchange.left_s = self.deadline - self._loop.time()
            self.deadline = inf

    @_fails_attempt
    def _unpause(self) -> None:
        try:
            self._curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            self._stop_sending()
            self._on_end(error.args[0], error.args[1])

    @_fails_attempt
    def _on_end(self, code: int, message: str) -> None:
        self._is_sent = False
        if self._exchange.is_stray:  # nothing was sent, and the connection is closed
            self._exchange = _Exchange(self._exchange.url)
            self._send()
            return
        outcome = self._check_header()
        if outcome is None:
            outcome = self._explain(code, message) if code else self._make_fetched()
        self._follow_or_finish(outcome)

    def _follow_or_finish(self, outcome: HttpUrl | Outcome | BaseException) -> None:
        """Follow a redirect; finish with any other outcome."""
        if not isinstance(outcome, HttpUrl):
            self._finish(outcome)
            return
        self._fetch.n_redirects += 1
        if self._fetch.n_redirects > _MAX_REDIRECTS:
            detail = f"more than {_MAX_REDIRECTS} redirects, the last one to {describe(outcome.text)}"
            self._finish(Failure("fetch_failed", detail))
            return
        refused = refused_scheme(outcome.scheme, self._fetch.options.schemes)
        refused = refused or self._circuits.refuse(outcome.origin, self._loop.time())
        if refused is not None:
            self._finish(refused)
        else:
            self._resolve(outcome)

    def _make_fetched(self) -> Fetched | Failure:
        header, body = self._exchange.header, self._fetch.body
        if header is None:
            return _NOT_HTTP
        if not body:
            return Failure("missing", "zero bytes")
        return Fetched(bytes(body), header.content_type, header.etag)

    def _explain(self, code: int, message: str) -> Failure | Retryable:
        """Return the outcome for an error code of libcurl."""
        header = self._exchange.header
        if code == pycurl.E_COULDNT_CONNECT:
            error_code = self._curl.getinfo(pycurl.OS_ERRNO)
            error = OSError(error_code, os.strerror(error_code)) if error_code else OSError(message)
            return self._exchange.refused or _no_connection(error)
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return _no_connection_in_time(self._fetch.options)
        if code in _TLS_ERRORS:
            return Failure("fetch_failed", f"no trusted connection: {describe(message.lower())}")
        if code in _NOT_HTTP_ERRORS:
            return _NOT_HTTP
        if code not in _LOST_ERRORS:
            return _libcurl_failure(message)
        if header is None:
            if sum(map(len, self._lines)) > _MAX_HEADER_BYTES:
                detail = f"the response is not HTTP: its header exceeds {_MAX_HEADER_BYTES:,} bytes"
                return Failure("fetch_failed", detail)
            return _lost("the connection ended before a response")
        of = "" if header.n_bytes is None else f" of {header.n_bytes:,}"
        return _lost(f"the connection ended after {len(self._fetch.body):,}{of} bytes")


def _trusted_certificates() -> dict[int, Any]:
    """Return the options of libcurl for the certificates that Python trusts."""
    paths = ssl.get_default_verify_paths()  # SSL_CERT_FILE and SSL_CERT_DIR, else the paths of the system
    if sys.platform in ("win32", "darwin") and paths.cafile is None:
        return {pycurl.SSL_OPTIONS: pycurl.SSLOPT_NATIVE_CA}
    if paths.cafile is None:
        return {} if paths.capath is None else {pycurl.CAPATH: paths.capath}
    if paths.openssl_capath_env in os.environ and paths.capath is not None:
        return {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: paths.capath}
    # CAPATH is unset, because with it libcurl reads the file again for each connection.
    return {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: None}


def _libcurl_failure(message: object) -> Failure:
    return Failure("fetch_failed", f"libcurl: {describe(str(message))}")


def _lost(detail: str) -> Retryable:
    return Retryable(Failure("fetch_failed", detail), responded=False)


def _no_connection(error: OSError) -> Retryable:
    return _lost(f"no connection: {describe(str(error.strerror or error).lower())}")


def _no_connection_in_time(options: Options) -> Retryable:
    return Retryable(Failure("fetch_timeout", f"no connection within {options.timeout_s / 3:g} s"), responded=False)
