"""Transport for http and https; safe for URLs from untrusted sources.

Each connection goes to an IP address that is checked at the moment of connecting. So neither a redirect nor a host
name that resolves to another IP address later reaches a private network.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import wraps
from itertools import chain
from math import inf
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

import pycurl

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.content_encoding import Decompressor, EncodingError, unsupported
from imgmatch_df.fetching.curl import BlockedAddressError, ConnectionPool
from imgmatch_df.fetching.exchange import SMALL_PIECE_BYTES, Exchange, Fetch, without_secrets
from imgmatch_df.fetching.pace import pace_of
from imgmatch_df.fetching.proxies import no_connection_to, refuse_private, refused_by
from imgmatch_df.fetching.refusal_text import MAX_WAIT_S, RefusalReader, has_text
from imgmatch_df.fetching.request_headers import request_lines
from imgmatch_df.fetching.response import check_header, parse_header
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.fetching.transfer_errors import (
    NOT_HTTP,
    explain_code,
    libcurl_failure,
    no_connection,
    no_connection_in_time,
)
from imgmatch_df.fetching.transfer_options import configure
from imgmatch_df.fetching.transport import OnDone, Outcome, no_response_in_time
from imgmatch_df.fetching.urls import HttpUrl, clean_url, is_ip, origin_of
from imgmatch_df.http_options import Proxy
from imgmatch_df.options import Options
from imgmatch_df.schemes import refused_scheme
from imgmatch_df.sources import Fetched, describe, too_many_bytes

_MAX_REDIRECTS: Final = 5
_POLL_S: Final = 0.1  # for expired deadlines; one shared timer, since a timer per request costs 5 us
_ABORT: Final = -1  # returned to libcurl to end a transfer
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
# A callback costs 5 us, and a fast server with small chunks causes 100,000 in a row. After this many, the transfer is
# paused for one turn of the loop, in which libcurl joins chunks.
_MAX_SMALL_CHUNKS: Final = 64
_MAX_MS: Final = (1 << 31) - 1
_MAX_PROXIED_POOLS: Final = 16


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
        # And one for each proxy: its credentials must not serve another expression either.
        self._pools: dict[bool | Proxy, ConnectionPool] = {
            allowed: ConnectionPool(loop, allow_private_networks=allowed) for allowed in (False, True)
        }
        self._idle: dict[bool | Proxy, list[_HttpAttempt]] = {allowed: [] for allowed in self._pools}
        self._in_flight: set[_HttpAttempt] = set()
        self._deadline_timer: asyncio.TimerHandle | None = None

    @staticmethod
    def origin_of(url: str) -> str:
        """Return scheme, host and port of a URL in normal form."""
        return origin_of(url)

    def start(self, url: str, options: Options, claim: Claim, on_done: OnDone) -> "_HttpAttempt":
        """Start one attempt to fetch a URL, including at most five redirects; see `Transport.start`."""
        key = options.allow_private_networks if options.proxy is None else options.proxy
        if key not in self._pools:
            self._drop_unused_pools()
            # The proxy may be in a private network, and connects in the place of this process.
            self._pools[key], self._idle[key] = ConnectionPool(self._loop, allow_private_networks=True), []
        idle = self._idle[key]
        if not idle:
            pool = self._pools[key]
            idle.append(_HttpAttempt(self._loop, pool, self._circuits, self._in_flight, idle, options.proxy))
        attempt = idle.pop()
        attempt.start(url, options, claim, on_done)
        if self._deadline_timer is None:
            self._deadline_timer = self._loop.call_later(_POLL_S, self._check_deadlines)
        return attempt

    def close(self) -> None:
        """Close all connections. No attempt is in flight."""
        for pool in self._pools.values():
            pool.close()

    def _drop_unused_pools(self) -> None:
        """Close the pools of proxies without a request in flight, if there are many."""
        of_proxies = [key for key in self._pools if isinstance(key, Proxy)]
        used = {id(attempt.idle) for attempt in self._in_flight}
        for key in of_proxies if len(of_proxies) >= _MAX_PROXIED_POOLS else ():
            if id(self._idle[key]) not in used:
                self._pools.pop(key).close()
                del self._idle[key]

    def _check_deadlines(self) -> None:
        now = self._loop.time()
        self._deadline_timer = self._loop.call_later(_POLL_S, self._check_deadlines)
        for attempt in [attempt for attempt in self._in_flight if attempt.deadline < now]:
            attempt.time_out()
        if not self._in_flight:
            self._deadline_timer.cancel()
            self._deadline_timer = None


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
    proxy
        Proxy of the pool, None for none.
    """

    _fetch: Fetch  # set by `start`
    _exchange: Exchange  # set by `_resolve`

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: ConnectionPool,
        circuits: CircuitBreaker,
        in_flight: "set[_HttpAttempt]",
        idle: "list[_HttpAttempt]",
        proxy: Proxy | None,
    ) -> None:
        self.deadline = 0.0
        self.idle = idle
        self._loop = loop
        self._pool = pool
        self._circuits = circuits
        self._in_flight = in_flight
        self._pace = pace_of(loop)
        self._proxy = proxy
        self._resolving: asyncio.Task[str] | None = None
        self._soon: asyncio.Handle | None = None
        self._is_sent = False
        self._request_lines: tuple[bytes, ...] = ()
        self._lines: list[bytes] = []
        self._curl = pycurl.Curl()
        configure(self._curl, proxy)
        self._curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self._curl.setopt(pycurl.PREREQFUNCTION, self._before_request)
        self._curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self._curl.setopt(pycurl.WRITEFUNCTION, self._take_chunk)

    @_fails_attempt
    def start(self, url: str, options: Options, claim: Claim, on_done: OnDone) -> None:
        """Start the attempt with the request for `url`."""
        self._fetch = Fetch(options, claim, on_done, self._loop.time() + options.timeout_s)
        self.deadline = self._fetch.end
        self._in_flight.add(self)
        self._pool.keep(options.n_connections)
        cleaned = clean_url(url)
        if isinstance(cleaned, Failure):
            self._soon = self._loop.call_soon(self._finish, cleaned)
        else:
            self._fetch.first = cleaned
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
            self._finish(no_connection_in_time(self._fetch.options))
        else:
            self._stop_sending()
            self._follow_or_finish(self._check_header() or no_response_in_time(self._fetch.options))

    def _finish(self, outcome: Outcome | BaseException | None) -> None:
        self._stop_sending()
        if isinstance(outcome, Retryable) and self._fetch.n_redirects and outcome.host is None:
            outcome = outcome._replace(host=self._exchange.url.origin)
        # Without a valid URL, nothing was sent.
        if self._fetch.first is not None and outcome is not None and not isinstance(outcome, BaseException):
            outcome = without_secrets(outcome, self._fetch, self._exchange)
        if self._resolving is not None:
            self._resolving.remove_done_callback(self._on_resolved)
        if self._soon is not None:
            self._soon.cancel()
        self._resolving = self._soon = None
        self._in_flight.discard(self)
        self.idle.append(self)
        self._fetch.pieces = []
        self._fetch.on_done(outcome)

    def _stop_sending(self) -> None:
        if self._is_sent:
            self._is_sent = False
            self._pool.stop(self._curl)

    # --- request -----------------------------------------------------------------------------------------------------

    def _resolve(self, url: HttpUrl) -> None:
        """Start the exchange for a URL with the look-up of its host."""
        self._exchange = Exchange(url)
        host = url.host
        if self._proxy is not None:
            if not self._fetch.options.allow_private_networks and (refused := refuse_private(url)) is not None:
                self._soon = self._loop.call_soon(self._finish, refused)
                return
            host = self._proxy.host
        if is_ip(host):
            self._send()
            return
        self._resolving = self._pool.resolve(host, url.port if self._proxy is None else self._proxy.port)
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
        elif isinstance(error, OSError) and self._proxy is not None:
            self._finish(no_connection_to(self._proxy, describe(str(error.strerror or error).lower())))
        elif isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST:
            self._finish(Failure("fetch_failed", f"no such host: {self._exchange.url.host[:60]}"))
        else:
            self._finish(no_connection(error) if isinstance(error, OSError) else error)

    def _send(self) -> None:
        url, curl = self._exchange.url, self._curl
        lines = request_lines(url, self._fetch.first or url, self._fetch.options)
        self._lines.clear()
        try:
            curl.setopt(pycurl.URL, url.text)
            curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(int(self._fetch.options.timeout_s * 1000 / 3) + 1, _MAX_MS))
            if lines is not self._request_lines:
                self._request_lines = lines
                curl.setopt(pycurl.HTTPHEADER, list(lines))
            self._pool.start(curl, self._on_end)
            self._is_sent = True
        except pycurl.error as error:
            self._soon = self._loop.call_soon(self._finish, libcurl_failure(error.args[-1]))

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
            self._exchange.refused = no_connection(error)
            return pycurl.SOCKET_BAD
        self._exchange.opened.append(opened)
        return opened

    def _before_request(self, *ends: str | int) -> Any:
        """Return whether the request may be sent on the connection that libcurl has chosen for it."""
        if self._pool.is_quiet(ends, self._exchange.opened):
            self._pace.record(self._exchange.url.origin, self._loop.time())
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
            if self._proxy is not None and header.status == 407:
                exchange.outcome = refused_by(self._proxy, 407)
            elif unsupported(encodings := header.encodings) is None:
                exchange.decompressor = Decompressor(encodings, self._fetch.options.max_bytes)
                exchange.is_plain = exchange.outcome is None and not encodings
                if has_text(header):
                    exchange.refusal = RefusalReader(header)
                    self.deadline = min(self.deadline, self._loop.time() + MAX_WAIT_S)
        return exchange.outcome

    def _take_chunk(self, chunk: bytes) -> Any:
        """Take a chunk of the body; return None, `_ABORT`, or `WRITEFUNC_PAUSE` to get it again with later bytes."""
        exchange, fetch = self._exchange, self._fetch
        try:
            if (
                exchange.is_plain  # libcurl passes 16 KB at a time, so this is the path of nearly all chunks
                and len(chunk) >= SMALL_PIECE_BYTES
                and fetch.n_bytes + len(chunk) <= fetch.options.max_bytes
                and fetch.claim.take(len(chunk))
            ):
                fetch.n_bytes += len(chunk)
                fetch.pieces.append(chunk)
                return None
            if self._check_header() is not None:
                if exchange.refusal is not None and exchange.refusal.take(chunk):
                    return None
                # If the chunk is the whole body, the connection can be used again; a longer body is not received.
                return None if exchange.header is not None and exchange.header.n_bytes == len(chunk) else _ABORT
            if exchange.header is None or exchange.decompressor is None:
                exchange.outcome = NOT_HTTP
                return _ABORT
            if len(chunk) < SMALL_PIECE_BYTES:
                exchange.n_small += 1
                if exchange.n_small % _MAX_SMALL_CHUNKS == 0:
                    self._soon = self._loop.call_soon(self._unpause)
                    return pycurl.WRITEFUNC_PAUSE
            n_seen = exchange.n_pending_bytes
            pieces = exchange.decompressor.pieces(chunk[n_seen:] if n_seen else chunk)
            if exchange.pending is not None:
                pieces = chain(exchange.pending, pieces)
                exchange.pending, exchange.n_pending_bytes = None, 0
            for piece in pieces:
                n_bytes = fetch.n_bytes + len(piece)
                if n_bytes > fetch.options.max_bytes:
                    exchange.outcome = too_many_bytes(f"at least {n_bytes:,} bytes", fetch.options.max_bytes)
                    return _ABORT
                if not fetch.claim.take(len(piece)):
                    exchange.pending, exchange.n_pending_bytes = chain((piece,), pieces), len(chunk)
                    exchange.is_plain = False
                    self._wait_for_room()
                    return pycurl.WRITEFUNC_PAUSE
                if exchange.left_s is not None:
                    self.deadline, exchange.left_s = self._loop.time() + exchange.left_s, None
                fetch.add(piece)
        except EncodingError as error:
            exchange.outcome = Failure("fetch_failed", str(error))
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
            self._exchange = Exchange(self._exchange.url)
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
        now = self._loop.time()
        refused = refused or self._circuits.refuse(outcome.origin, now)
        if refused is not None:
            self._finish(refused)
            return
        start = self._pace.reserve(outcome.origin, self._fetch.options.min_interval_s, now)
        if start <= now:
            self._resolve(outcome)
            return
        # The wait does not count against the deadline.
        self._fetch.end += start - now
        self.deadline = inf
        self._soon = self._loop.call_at(start, self._follow_now, outcome)

    @_fails_attempt
    def _follow_now(self, target: HttpUrl) -> None:
        self._soon = None
        self.deadline = self._fetch.end
        self._resolve(target)

    def _make_fetched(self) -> Fetched | Failure:
        header, decompressor = self._exchange.header, self._exchange.decompressor
        if header is None:
            return NOT_HTTP
        if decompressor is not None:
            try:
                decompressor.check_end()
            except EncodingError as error:
                return Failure("fetch_failed", str(error))
        if not self._fetch.n_bytes:
            return Failure("missing", "zero bytes")
        return Fetched(self._fetch.take_body(), header.content_type, header.etag)

    def _explain(self, code: int, message: str) -> Failure | Retryable:
        """Return the outcome for an error code of libcurl."""
        exchange = self._exchange
        if code == pycurl.E_COULDNT_CONNECT and exchange.refused is not None:
            return exchange.refused
        return explain_code(
            self._curl,
            code,
            message,
            options=self._fetch.options,
            header=exchange.header,
            n_header_bytes=sum(map(len, self._lines)),
            n_body_bytes=self._fetch.n_bytes,
        )
