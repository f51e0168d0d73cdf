"""Pictures over http and https: one attempt at a time, safe on an address that a stranger wrote.

Every connection goes to an IP address that was checked in the moment of connecting, so neither a name that changes its
address nor a redirect leads into a private network.
"""

import asyncio
import socket
import ssl
import warnings
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from imgmatch_df.addresses import Address, blocked_reason, clean_url, follow_redirect
from imgmatch_df.errors import Failure, Setback
from imgmatch_df.memory import Claim
from imgmatch_df.options import Options
from imgmatch_df.sources import Fetched, describe
from imgmatch_df.threads import in_daemon_thread

_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_GONE: Final = (404, 410)
_PIECE: Final = 1 << 18  # bytes read, and bytes inflated, at a time
_MAX_ETAG: Final = 256
_MAX_HEADER_CHARS: Final = 1 << 15
_DNS_TTL_S: Final = 60
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_HEADERS: Final = {
    "Accept": "image/*,*/*;q=0.8",
    "Accept-Encoding": "identity",  # pictures are compressed already
    "User-Agent": f"imgmatch-df/{version('imgmatch-df')}",
}


class BlockedAddressError(OSError):
    """A connection to a machine that is not on the public internet. Never leaves this file."""


class WebClient:
    """The connections of the process to web servers. Made, used and closed in one event loop."""

    def __init__(self) -> None:
        # Two pools, or a connection into a private network that one expression is allowed to make would serve another.
        self._sessions = {allowed: _make_session(allow_private_networks=allowed) for allowed in (False, True)}
        self._of_parent: list[aiohttp.BaseConnector] = []

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    def detach(self) -> None:
        """Forget the connections without touching them: in a forked child they are the parent's."""
        for session in self._sessions.values():
            if isinstance(session.connector, _Connector):
                session.connector.is_of_parent = True
                self._of_parent.append(session.connector)
            session.detach()

    async def attempt(self, url: str, options: Options, claim: Claim) -> Fetched | Failure | Setback:
        """Return what `url` gives, after at most five redirects.

        Parameters
        ----------
        url
            An http or https address, as people write it.
        options
            `timeout_s`, `max_bytes` and `allow_private_networks` count here.
        claim
            Gets the bytes as they come, which is also how they are held back.
        """
        address = clean_url(url)
        if isinstance(address, Failure):
            return address
        try:
            async with asyncio.timeout(options.timeout_s) as clock:
                for _ in range(1 + _MAX_REDIRECTS):
                    answer = await self._request(address, options, claim, clock)
                    if not isinstance(answer, Address):
                        return answer
                    address = answer
        except TimeoutError:
            return Setback(Failure("fetch_timeout", f"no whole answer within {options.timeout_s:g} s"))
        return Failure("fetch_failed", f"more than {_MAX_REDIRECTS} redirects, the last one to {describe(address.url)}")

    async def _request(
        self, address: Address, options: Options, claim: Claim, clock: asyncio.Timeout
    ) -> Fetched | Address | Failure | Setback:
        session = self._sessions[options.allow_private_networks]
        headers = {} if address.authorization is None else {"Authorization": address.authorization}
        try:
            async with session.get(
                URL(address.url, encoded=True),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=options.timeout_s / 3),
            ) as response:
                answer = _judge(response, address, options) or await _read_body(response, options, claim, clock)
                if not isinstance(answer, Fetched):
                    response.close()  # whatever is left of the body is not read
                return answer
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _explain(error, address, options)


class _Connector(aiohttp.TCPConnector):
    """A pool that a forked child can leave alone: closing it there would take the parent's sockets off its selector."""

    is_of_parent = False

    def __del__(self, _warnings: Any = warnings) -> None:
        if not self.is_of_parent:
            super().__del__(_warnings)


def _make_session(*, allow_private_networks: bool) -> aiohttp.ClientSession:
    connector = _Connector(
        limit=0,  # `network` counts, for all pools together
        resolver=_Resolver(check=not allow_private_networks),
        ttl_dns_cache=_DNS_TTL_S,
        socket_factory=None if allow_private_networks else _checked_socket,
        ssl=ssl.create_default_context(),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),  # what one row's server says is not told to the next
        headers=_HEADERS,
        auto_decompress=False,  # a piece at a time instead, below
        trust_env=False,  # a proxy would connect to addresses that were never checked
        read_bufsize=_PIECE,
        max_line_size=_MAX_HEADER_CHARS,
        max_field_size=_MAX_HEADER_CHARS,
    )


# --- where a connection may go ---------------------------------------------------------------------------------------


def _look_up(host: str) -> list[tuple[socket.AddressFamily, str]]:
    return [(family, str(place[0])) for family, *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class _Resolver(AbstractResolver):
    """Names to the addresses that may be connected to; `aiohttp` connects to these and looks nothing up itself."""

    def __init__(self, *, check: bool) -> None:
        self._check = check

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # the interface
    ) -> list[ResolveResult]:
        found = await in_daemon_thread(lambda: _look_up(host))
        allowed = [(kind, ip) for kind, ip in found if not self._check or blocked_reason(ip) is None]
        if not allowed:
            raise _blocked(found[0][1], host)
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, ip in allowed
        ]

    async def close(self) -> None:
        pass


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address that is about to be connected to: the last check, which nothing gets around."""
    family, kind, protocol, _, place = address
    if blocked_reason(str(place[0])) is not None:
        raise _blocked(str(place[0]))
    return socket.socket(family, kind, protocol)


def _blocked(ip: str, host: str | None = None) -> BlockedAddressError:
    what = f"{ip} is" if host is None else f"{host[:60]} is {ip},"
    return BlockedAddressError(f"blocked: {what} {blocked_reason(ip)}; pass allow_private_networks=True to allow it")


# --- what an answer says ---------------------------------------------------------------------------------------------


def _judge(response: aiohttp.ClientResponse, address: Address, options: Options) -> Address | Failure | Setback | None:
    """Return what the head of an answer settles: a redirect, or why there is no body to read; None to read it."""
    code = response.status
    if code in _REDIRECTS:
        location = response.headers.get("Location")
        if location is None:
            return Failure("fetch_failed", f"HTTP {code}, a redirect that does not say where to")
        return follow_redirect(address, location)
    if code in _GONE:
        return Failure("not_found", f"HTTP {code}")
    if code == 429 or code >= 500:
        return Setback(Failure("fetch_failed", f"HTTP {code}"), _retry_after_s(response))
    if code == 206:
        return Failure("fetch_failed", "HTTP 206, a part of the picture although all of it was asked for")
    if code != 200:
        return Failure("fetch_failed", f"HTTP {code}")
    if response.content_length is not None and response.content_length > options.max_bytes:
        return _too_many_bytes(f"{response.content_length:,} bytes", options)
    return None


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


async def _read_body(
    response: aiohttp.ClientResponse, options: Options, claim: Claim, clock: asyncio.Timeout
) -> Fetched | Failure | Setback:
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _INFLATERS:
        return Failure("fetch_failed", f"the body is compressed with {coding[:20]!r}, which was not asked for")
    inflate = _INFLATERS[coding]()
    pieces = []
    n_bytes = 0
    try:
        async for chunk in response.content.iter_any():
            for piece in inflate(chunk):
                n_bytes += len(piece)
                if n_bytes > options.max_bytes:
                    return _too_many_bytes(f"{n_bytes:,} bytes and more", options)
                await claim.take(len(piece), clock)
                pieces.append(piece)
    except aiohttp.ClientPayloadError:
        of = "" if response.content_length is None else f" of {response.content_length:,}"
        return Setback(Failure("fetch_failed", f"the connection ended with {n_bytes:,}{of} bytes"))
    except zlib.error as error:
        return Failure("fetch_failed", f"the body is no sound {coding}: {error}")
    if not n_bytes:
        return Failure("missing", "zero bytes")
    etag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return Fetched(pieces[0] if len(pieces) == 1 else b"".join(pieces), response.content_type, etag[:_MAX_ETAG])


def _as_it_is() -> Callable[[bytes], Iterator[bytes]]:
    return lambda chunk: iter((chunk,))


def _inflate() -> Callable[[bytes], Iterator[bytes]]:
    """Return a function that inflates gzip or zlib a piece at a time, so that a bomb stops at `max_bytes`."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def pieces(chunk: bytes) -> Iterator[bytes]:
        while chunk and not stream.eof:
            yield stream.decompress(chunk, _PIECE)
            chunk = stream.unconsumed_tail

    return pieces


_INFLATERS: Final = {"": _as_it_is, "identity": _as_it_is, "gzip": _inflate, "x-gzip": _inflate, "deflate": _inflate}


def _too_many_bytes(what: str, options: Options) -> Failure:
    return Failure("too_many_bytes", f"{what}, more than max_bytes={options.max_bytes:,}; raise max_bytes to allow it")


def _explain(error: Exception, address: Address, options: Options) -> Failure | Setback:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, BlockedAddressError):
        return Failure("fetch_blocked", str(cause))
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Setback(Failure("fetch_timeout", f"no connection within {options.timeout_s / 3:g} s"))
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Failure("fetch_failed", f"no trusted connection: {_reason(cause)}")
    if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_HOST:
        return Failure("fetch_failed", f"no such host: {address.host[:60]}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Setback(Failure("fetch_failed", f"no connection: {_reason(cause)}"))
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Setback(Failure("fetch_failed", "the connection ended before the answer"))
    return Failure("fetch_failed", "the answer is no HTTP")


def _reason(error: BaseException) -> str:
    words = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return describe(" ".join(str(words).split()).lower() or type(error).__name__)
