"""The ASGI application: who may ask, what may come in, and what goes out."""

import asyncio
import hashlib
import hmac
import logging
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from math import isinf
from time import monotonic
from typing import Any, Final, get_args
from uuid import uuid4

from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from imgmatch_df.batch.isolation import DecodersUnavailableError
from imgmatch_df.columns import OK
from imgmatch_df.documented.requests import read_rows
from imgmatch_df.documented.responses import ping_response
from imgmatch_df.documented.values import Json, Method
from imgmatch_df.errors import ArgumentError, ImgMatchError
from imgmatch_df.server import endpoints, openapi, page
from imgmatch_df.server.hash_queue import Hasher, Known, nothing_known
from imgmatch_df.server.held import Held
from imgmatch_df.server.models import read_body, request_models
from imgmatch_df.server.responses import UNREADABLE, Headers, Refusal, overloaded, send_bytes, send_json, send_refusal
from imgmatch_df.server.settings import Settings
from imgmatch_df.server.telemetry import Metrics, log

_METHODS: Final = frozenset({*get_args(Method), "ping"})
_JSON_TYPES: Final = ("application/json",)
# Those that are read here: of two, a proxy may have looked at the other one (RFC 9112, 3.2 and 11.2).
_SINGLE_HEADERS: Final = frozenset({b"host", b"authorization", b"content-type", b"content-encoding"})
# How long an answer is waited for before the connection is looked at: nearly all are there by then.
_LOOK_AFTER_S: Final = 1.0


_CANNOT_HASH: Final = "no image can be hashed at present"


class Exchange:
    """One HTTP request and the facts for its log line."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = str(uuid4())
        self.started = monotonic()
        self.method = scope["path"].removeprefix(openapi.PREFIX)
        if self.method not in _METHODS:
            self.method = "other"
        self.code = 0
        self.n_bytes = 0
        # Whether more of the body is to come, so that an early answer has to end the connection.
        self.is_open = b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"
        self.statuses: list[str] = []


class Service:
    """The application.

    Parameters
    ----------
    settings
        Who may ask, and how much.
    known
        Gives the hashes of addresses that are stored already: see `hash_queue.Known`.
    """

    def __init__(self, settings: Settings, known: Known = nothing_known) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.held = Held(settings.max_held_bytes)
        self.draining = False
        self.failed = False  # it cannot hash, and has to end
        self._known = known
        self._digests = [hashlib.sha256(token.encode()).digest() for token in settings.tokens]
        self._models = request_models(settings)
        self._api = openapi.describe_api(settings, self._models)
        self._n_under_way = 0
        self._ready = False
        self._examples: dict[Method, tuple[Json, Json]] = {}
        self._hasher: Hasher
        posts: list[tuple[str, Callable[[Exchange, Receive, Send], Awaitable[None]]]] = [
            (f"{openapi.PREFIX}{method}", self._answer) for method in get_args(Method)
        ]
        posts.append((f"{openapi.PREFIX}ping", self._ping))
        gets = [
            ("/health", self._health),
            ("/ready", self._show_ready),
            ("/metrics", self._show_metrics),
            ("/openapi.json", self._show_api),
            ("/docs", self._show_page),
            ("/", self._lead_to_page),
        ]
        self._router = Router(
            [
                *(Route(path, _Endpoint(answer), methods=["POST"]) for path, answer in posts),
                *(Route(path, _Endpoint(answer), methods=["GET"]) for path, answer in gets),
            ],
            redirect_slashes=False,
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing that goes wrong leaves here."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        scope["path"] = scope["path"].rstrip("/") or "/"
        call = Exchange(scope)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.code = message["status"]
                headers = message["headers"]
                headers.append((b"x-request-id", call.request_id.encode()))
                if self.draining and (b"connection", b"close") not in headers:
                    headers.append((b"connection", b"close"))
            await send(message)

        scope["app"], scope["imgmatch"] = self, call
        try:
            _check_headers(scope["headers"])
            self._check_host(call)
            await self._router(scope, receive, send_noted)
        except (Refusal, ArgumentError, HTTPException) as error:
            # The frames of its traceback hold the body, which counts no more.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            await self._refuse(call, _as_refusal(error), receive, send_noted)
        except DecodersUnavailableError as error:
            log("cannot hash", level=logging.ERROR, reason=str(error), request_id=call.request_id)
            await self._refuse(call, overloaded(_CANNOT_HASH), receive, send_noted)
        except Exception as error:  # the last line: a bug is logged, and the client learns its number
            log("bug", level=logging.ERROR, exc_info=error, request_id=call.request_id, method=call.method)
            if not call.code:
                await self._refuse(call, Refusal(500, "internal error"), receive, send_noted)
            else:
                raise
        finally:
            self._note(call)

    async def _refuse(self, call: Exchange, refusal: Refusal, receive: Receive, send: Send) -> None:
        n_bytes = self.settings.max_body_bytes if call.is_open else 0
        await send_refusal(receive, send, refusal, call.request_id, discard_bytes=n_bytes)

    def _note(self, call: Exchange) -> None:
        seconds = monotonic() - call.started
        self.metrics.count(call.method, call.code, seconds, call.n_bytes, call.statuses)
        client = call.scope.get("client")
        reasons = Tally(status for status in call.statuses if status != OK)
        log(
            "request",
            request_id=call.request_id,
            client=client[0] if client else None,
            verb=call.scope["method"],
            path=call.scope["path"][:200],
            code=call.code or None,  # none: the client has gone
            seconds=round(seconds, 6),
            bytes=call.n_bytes,
            records=len(call.statuses),
            failed=reasons.total(),
            reasons=dict(reasons),
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncIterator[None]:
        self._hasher = Hasher(self.settings.options, self._known)
        warming = asyncio.create_task(self._warm_up())
        yield
        self._ready = False
        warming.cancel()
        self._hasher.close()

    async def _warm_up(self) -> None:
        started = monotonic()
        try:
            await asyncio.gather(
                asyncio.to_thread(self._hasher.warm_up), asyncio.to_thread(endpoints.warm_up, self.settings.options)
            )
            await self._make_examples()
        except Exception as error:  # noqa: BLE001  # whatever it is, the process ends
            bug = None if isinstance(error, ImgMatchError) else error
            log("cannot hash", level=logging.CRITICAL, reason=str(error), exc_info=bug)
            self.failed = True
            return
        self._ready = True
        log("ready", seconds=round(monotonic() - started, 3))

    async def _make_examples(self) -> None:
        for method, body in page.example_requests(self.settings.max_hashed_records, self.settings.max_records).items():
            with suppress(ArgumentError):  # limits under which not even the example's query has a hash
                rows, request_id = read_rows(body, method), str(uuid4())
                response = await endpoints.answer(
                    rows, method, self._hasher, self.settings, request_id, monotonic(), statuses=[]
                )
                self._examples[method] = body, response

    # --- who may ask -------------------------------------------------------------------------------------------------

    def _check_host(self, call: Exchange) -> None:
        """Refuse other names for this machine while everybody on it may ask.

        A web page whose name is made to resolve to 127.0.0.1 could otherwise use the service from the user's browser.
        """
        if self._digests:
            return
        host = call.headers.get(b"host", b"localhost").decode("latin-1").lower()
        name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
        if name not in ("localhost", self.settings.host.lower()) and not _is_loopback_address(name):
            raise Refusal(421, "without a token only localhost is answered, under its own name")

    def _check_token(self, call: Exchange) -> None:
        if not self._digests:
            return
        scheme, _, given = call.headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        known = False
        for own in self._digests:  # all of them, in a time that tells nothing
            known |= hmac.compare_digest(own, digest)
        if scheme.lower() != b"token" or not known:
            text = "Authorization must be 'Token YOUR_API_TOKEN', with a token of this service"
            raise Refusal(401, text, www_authenticate="Token")

    # --- what may come in --------------------------------------------------------------------------------------------

    async def _answer(self, call: Exchange, receive: Receive, send: Send) -> None:
        self._check_token(call)
        settings = self.settings
        try:
            async with asyncio.timeout(settings.deadline_s):
                try:
                    response = await self._under_way(call, await self._read_body(call, receive), receive)
                    if response is None:
                        return  # the client has gone
                    await send_json(send, 200, response, [])
                finally:
                    self.held.hold(-call.n_bytes)
        except TimeoutError:
            if call.code:
                return  # the client reads too slowly, and is left
            text = f"not done within {settings.deadline_s:g} seconds"
            raise Refusal(503, text, retry_after="1") from None

    def count_held(self) -> None:
        """Tell the metrics how many bytes are held."""
        self.metrics.held_bytes.set(self.held.count())

    def _check_room(self) -> None:
        if self.held.is_full:
            raise overloaded("too many bytes of requests, and of responses that are not read")

    async def _read_body(self, call: Exchange, receive: Receive) -> bytes:
        """Return the body; refuse it as soon as it is known to be too much."""
        settings, headers = self.settings, call.headers
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if content_type not in _JSON_TYPES:
            raise Refusal(415, f"Content-Type must be application/json, got {content_type[:60]!r}")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "Content-Encoding is not supported: send the JSON itself")
        too_large = Refusal(413, f"the body must have at most {settings.max_body_bytes:,} bytes")
        if int(headers.get(b"content-length", b"0")) > settings.max_body_bytes:
            raise too_large
        parts, n_values = [], 0
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(400, "the body ended early")
                    part = message.get("body", b"")
                    call.n_bytes += len(part)
                    self.held.hold(len(part))
                    if call.n_bytes > settings.max_body_bytes:
                        raise too_large
                    self._check_room()
                    # What parsing costs besides the photos, counted before it is done.
                    n_values += _count_values(part, settings.max_values)
                    if n_values > settings.max_values:
                        text = f"the body must have at most {settings.max_values:,} JSON values"
                        raise Refusal(413, text)
                    parts.append(part)
                    if not message.get("more_body", False):
                        call.is_open = False
                        if UNREADABLE in call.scope:
                            raise call.scope[UNREADABLE]
                        return b"".join(parts)
        except TimeoutError:
            text = f"the body must arrive within {settings.body_timeout_s:g} seconds"
            raise Refusal(408, text) from None

    async def _under_way(self, call: Exchange, body: bytes, receive: Receive) -> dict[str, Any] | None:
        """Return the answer, worked out while the client is there."""
        if self._n_under_way >= self.settings.max_requests:
            raise overloaded(f"{self._n_under_way:,} requests are under way")
        self._n_under_way += 1
        self.metrics.under_way.set(self._n_under_way)
        try:
            method: Any = call.method
            arrived = monotonic()
            request = read_body(_parse(body), method, self._models[method])
            del body  # the photos are held once, not twice
            work = endpoints.answer(
                request, method, self._hasher, self.settings, call.request_id, arrived, call.statuses
            )
            with _Presence(receive):
                return await work
            return None  # the client has gone
        finally:
            self._n_under_way -= 1
            self.metrics.under_way.set(self._n_under_way)

    async def _ping(self, call: Exchange, _receive: Receive, send: Send) -> None:
        self._check_token(call)
        await send_json(send, 200, ping_response(), [])

    # --- for those who run it ----------------------------------------------------------------------------------------

    async def _health(self, _call: Exchange, _receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": {"code": 200, "text": "OK"}}, [])

    async def _show_ready(self, _call: Exchange, _receive: Receive, send: Send) -> None:
        if not self._ready or self.draining:
            raise overloaded("stopping" if self.draining else "warming up")
        if not await self._hasher.can_hash():
            raise overloaded(_CANNOT_HASH)
        await send_json(send, 200, {"status": {"code": 200, "text": "OK"}}, [])

    async def _show_metrics(self, call: Exchange, _receive: Receive, send: Send) -> None:
        self._check_token(call)
        self.count_held()
        await send_bytes(send, 200, self.metrics.text(), [(b"content-type", b"text/plain; version=0.0.4")])

    async def _show_api(self, _call: Exchange, _receive: Receive, send: Send) -> None:
        self._check_room()
        await send_json(send, 200, self._api, [])

    async def _lead_to_page(self, _call: Exchange, _receive: Receive, send: Send) -> None:
        await send_bytes(send, 307, b"", [(b"location", b"/docs")])

    async def _show_page(self, call: Exchange, _receive: Receive, send: Send) -> None:
        self._check_room()
        policy = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        headers: Headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy)]
        host = call.headers.get(b"host", b"").decode("latin-1")
        await send_bytes(send, 200, page.page(self._api, self._examples, host), headers)


def _check_headers(headers: Headers) -> None:
    """Refuse a request that has two of a header of which one counts."""
    seen = set()
    for name, _ in headers:
        if name in _SINGLE_HEADERS:
            if name in seen:
                raise Refusal(400, f"the header {name.decode()} must stand once")
            seen.add(name)


def _is_loopback_address(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class _Endpoint:
    """What a route of Starlette takes for an application of its own, so that no request object is made."""

    def __init__(self, answer: Callable[[Exchange, Receive, Send], Awaitable[None]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope["imgmatch"], receive, send)


class _Presence:
    """Ends what stands in the block when the client has gone; looks only where it takes long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._gone = False

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_AFTER_S, self._look)

    def _look(self) -> None:
        self._watch = asyncio.ensure_future(self._wait_until_gone())

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            return True
        return False


def _count_values(part: bytes, most: int) -> int:
    """Return how many commas and opening brackets there are, or some number beyond `most`.

    `bytes.count` looks at each byte, and takes 0.4 ms for a photo; `find` skips a photo's base64 in 10 microseconds.
    """
    n_values = 0
    for mark in (b",", b"{", b"["):
        position = part.find(mark)
        while position >= 0 and n_values <= most:
            n_values += 1
            position = part.find(mark, position + 1)
    return n_values


def _parse(body: bytes) -> object:
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"the body must be JSON, but: {error}") from None
    if _has_infinity(values):
        raise Refusal(400, "the body must be JSON, but: a number is beyond 1.8e308")
    return values


def _has_infinity(values: Any) -> bool:
    """Return whether there is a number such as 1e999, which the parser takes for infinity and no answer can repeat.

    A microsecond for a photo, 7 ms for the largest number of values, which take 9 to parse.
    """
    found = [values]
    for value in found:  # and what it holds, behind it
        kind = type(value)
        if kind is dict:
            found.extend(value.values())
        elif kind is list:
            found.extend(value)
        elif kind is float and isinf(value):
            return True
    return False


def _as_refusal(error: Refusal | ArgumentError | HTTPException) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ArgumentError):
        return Refusal(422, str(error))
    if error.status_code == 405:
        headers = dict(error.headers or {})
        return Refusal(405, f"allowed here: {headers.get('Allow', 'nothing')}", **headers)
    return Refusal(error.status_code, "no such method: /docs lists them")


def create_app(settings: Settings, known: Known = nothing_known) -> Service:
    """Return the ASGI application, for `imgmatch serve` or any other ASGI server."""
    return Service(settings, known)
