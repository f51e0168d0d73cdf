"""ASGI application of the service: authorization, limits of a request, routes, and errors as responses."""

import asyncio
import hashlib
import hmac
import logging
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from math import isinf
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from pydantic import BaseModel
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from imgmatch_df.batch.isolation import DecodersUnavailableError
from imgmatch_df.columns import OK
from imgmatch_df.documented.values import Json
from imgmatch_df.errors import ArgumentError, ImgMatchError
from imgmatch_df.server import handlers, openapi, page
from imgmatch_df.server.endpoints import ENDPOINTS, Endpoint, request_models
from imgmatch_df.server.handlers import Call
from imgmatch_df.server.hash_queue import Hasher, Known, nothing_known
from imgmatch_df.server.held import Held
from imgmatch_df.server.models import check_body
from imgmatch_df.server.responses import UNREADABLE, Headers, Refusal, overloaded, send_bytes, send_json, send_refusal
from imgmatch_df.server.settings import Settings
from imgmatch_df.server.store_lookup import StoredRows
from imgmatch_df.server.telemetry import Metrics, log
from imgmatch_df.server.timers import Timers

# Headers that are read here. If a request has one twice, a proxy may use the other value (RFC 9112, 3.2 and 11.2).
_SINGLE_HEADERS: Final = frozenset({b"host", b"authorization", b"content-type", b"content-encoding"})
# Most responses are sent by then, and their requests need no task that waits for a disconnect.
_WATCH_AFTER_S: Final = 1.0
_CANNOT_HASH: Final = "no image can be hashed at present"


class HttpRequest:
    """One HTTP request, and the facts for its log line."""

    def __init__(self, scope: Scope, label: str) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = str(uuid4())
        self.started = monotonic()
        self.label = label  # of the metrics
        self.code = 0
        self.n_bytes = 0
        # Whether a part of the body has not arrived, so that an early response must close the connection.
        self.is_open = b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"
        self.statuses: list[str] = []


Respond = Callable[[HttpRequest, Receive, Send], Awaitable[None]]


class Service:
    """The application.

    Parameters
    ----------
    settings
        Tokens and limits.
    known
        Returns stored hashes of URLs: see `hash_queue.Known`.
    """

    def __init__(self, settings: Settings, known: Known = nothing_known) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.held = Held(settings.max_held_bytes)
        self._timers = Timers()
        self.draining = False
        self.failed = False  # no image can be hashed: the process must end
        self._known = known
        self._stored = known if isinstance(known, StoredRows) else None
        self._digests = [hashlib.sha256(token.encode()).digest() for token in settings.tokens]
        self._models = request_models(settings)
        self._endpoints = {endpoint.path: endpoint for endpoint in ENDPOINTS.values()}
        self._labels = {endpoint.path: endpoint.name for endpoint in ENDPOINTS.values()}
        self._api = openapi.describe_api(settings, self._models)
        self._n_in_flight = 0
        self._ready = False
        self._examples: dict[str, tuple[Json, Json]] = {}
        self._hasher: Hasher
        operation: dict[str, Respond] = {
            "/health": self._send_health,
            "/ready": self._send_readiness,
            "/metrics": self._send_metrics,
            "/openapi.json": self._send_api,
            "/docs": self._send_page,
            "/": self._redirect_to_page,
        }
        self._router = Router(
            [
                *(
                    Route(endpoint.path, _RouteApp(partial(self._serve, endpoint)), methods=["POST"])
                    for endpoint in ENDPOINTS.values()
                ),
                *(Route(path, _RouteApp(respond), methods=["GET"]) for path, respond in operation.items()),
            ],
            redirect_slashes=False,
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request. Errors become responses; only an error after the first byte is raised."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        scope["path"] = scope["path"].rstrip("/") or "/"
        request = HttpRequest(scope, self._labels.get(scope["path"], "other"))

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.code = message["status"]
                headers = message["headers"]
                headers.append((b"x-request-id", request.id.encode()))
                if self.draining and (b"connection", b"close") not in headers:
                    headers.append((b"connection", b"close"))
            await send(message)

        scope["app"], scope["imgmatch"] = self, request
        try:
            _check_headers(scope["headers"])
            self._check_host(request)
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is None or scope["method"] != "POST" or scope.get("root_path"):
                await self._router(scope, receive, send_and_note)
            else:  # the router would take 20 us
                await self._serve(endpoint, request, receive, send_and_note)
        except (Refusal, ArgumentError, HTTPException) as error:
            # The frames of its traceback refer to the body, whose bytes are no longer counted.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            await self._refuse(request, _as_refusal(error), receive, send_and_note)
        except DecodersUnavailableError as error:
            log("cannot hash", level=logging.ERROR, reason=str(error), request_id=request.id)
            await self._refuse(request, overloaded(_CANNOT_HASH), receive, send_and_note)
        except Exception as error:  # a bug: the response has the id of its log line
            log("bug", level=logging.ERROR, exc_info=error, request_id=request.id, method=request.label)
            if not request.code:
                await self._refuse(request, Refusal(500, "internal error"), receive, send_and_note)
            else:
                raise
        finally:
            self._note(request)

    async def _refuse(self, request: HttpRequest, refusal: Refusal, receive: Receive, send: Send) -> None:
        n_bytes = self.settings.max_body_bytes if request.is_open else 0
        await send_refusal(receive, send, refusal, request.id, discard_bytes=n_bytes)

    def _note(self, request: HttpRequest) -> None:
        """Count the request in the metrics, and log it."""
        seconds = monotonic() - request.started
        self.metrics.count(request.label, request.code, seconds, request.n_bytes, request.statuses)
        client = request.scope.get("client")
        failed = [status for status in request.statuses if status != OK]
        log(
            "request",
            request_id=request.id,
            client=client[0] if client else None,
            verb=request.scope["method"],
            path=request.scope["path"][:200],
            code=request.code or None,  # None: the client disconnected before the response
            seconds=round(seconds, 6),
            bytes=request.n_bytes,
            records=len(request.statuses),
            failed=len(failed),
            reasons=dict(Tally(failed)) if failed else {},  # a Counter takes 4 us
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
                asyncio.to_thread(self._hasher.warm_up), asyncio.to_thread(handlers.warm_up, self.settings.options)
            )
            await self._make_examples()
        except Exception as error:  # noqa: BLE001  # of any kind: the process ends
            bug = None if isinstance(error, ImgMatchError) else error
            log("cannot hash", level=logging.CRITICAL, reason=str(error), exc_info=bug)
            self.failed = True
            return
        self._ready = True
        log("ready", seconds=round(monotonic() - started, 3))

    async def _make_examples(self) -> None:
        for endpoint in ENDPOINTS.values():
            if endpoint.example is None:
                continue
            body = endpoint.example(self.settings)
            with suppress(ArgumentError):  # the limits may be so low that the image of the query has no hash
                self._examples[endpoint.name] = body, await endpoint.handler(Call(body, self._hasher, self.settings))

    # --- Authorization -----------------------------------------------------------------------------------------------

    def _check_host(self, request: HttpRequest) -> None:
        """Refuse unknown Host headers while no token is set (protection from DNS rebinding).

        Otherwise a web page whose host name resolves to 127.0.0.1 could use the service from the user's browser.
        """
        if self._digests:
            return
        host = request.headers.get(b"host", b"localhost").decode("latin-1").lower()
        name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
        if name not in ("localhost", self.settings.host.lower()) and not _is_loopback_ip(name):
            raise Refusal(421, "without a token, the Host header must be localhost or a loopback address")

    def _check_token(self, request: HttpRequest) -> None:
        if not self._digests:
            return
        scheme, _, given = request.headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        known = False
        for own in self._digests:  # all of them, so that the time does not depend on the token
            known |= hmac.compare_digest(own, digest)
        if scheme.lower() != b"token" or not known:
            text = "Authorization must be 'Token YOUR_API_TOKEN', with a token of this service"
            raise Refusal(401, text, www_authenticate="Token")

    # --- Endpoints of the API ----------------------------------------------------------------------------------------

    async def _serve(self, endpoint: Endpoint, request: HttpRequest, receive: Receive, send: Send) -> None:
        self._check_token(request)
        model = self._models.get(endpoint.name)
        if model is None:
            await send_json(send, 200, await endpoint.handler(self._call(request, {}, monotonic())), [])
            return
        deadline_s = self.settings.deadline_s
        try:
            with self._timers.timeout(deadline_s):
                try:
                    body = self._read_body(request, receive)
                    response = await self._handle(endpoint, model, request, await body, receive)
                    if response is not None:
                        await send_json(send, 200, response, [])
                finally:
                    self.held.hold(-request.n_bytes)
        except TimeoutError:
            if request.code:
                return  # the client reads too slowly
            raise overloaded(f"not done within {deadline_s:g} seconds") from None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request in flight; refuse it if there are too many."""
        if self._n_in_flight >= self.settings.max_requests:
            raise overloaded(f"{self._n_in_flight:,} requests are in flight")
        self._n_in_flight += 1
        self.metrics.in_flight.set(self._n_in_flight)
        try:
            yield
        finally:
            self._n_in_flight -= 1
            self.metrics.in_flight.set(self._n_in_flight)

    async def _handle(
        self, endpoint: Endpoint, model: type[BaseModel], request: HttpRequest, body: bytes, receive: Receive
    ) -> Json | None:
        """Return the response, None if the client has disconnected."""
        arrived = monotonic()
        with self._counted():
            call = self._call(request, check_body(_parse(body), model), arrived)
            del body  # so that the images are in memory once, as parsed
            with _CancelOnDisconnect(receive, self._timers):
                return await endpoint.handler(call)
        return None

    def _call(self, request: HttpRequest, body: Json, arrived: float) -> Call:
        return Call(body, self._hasher, self.settings, request.id, arrived, request.statuses, self._stored)

    def count_held(self) -> None:
        """Update the metric of the bytes held."""
        self.metrics.held_bytes.set(self.held.count())

    def _check_memory(self) -> None:
        if self.held.is_full:
            raise overloaded("too many bytes of requests, and of responses that are not read")

    async def _read_body(self, request: HttpRequest, receive: Receive) -> bytes:
        """Return the body; refuse it as soon as it exceeds a limit."""
        settings, headers = self.settings, request.headers
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if content_type != "application/json":
            raise Refusal(415, f"Content-Type must be application/json, got {content_type[:60]!r}")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "Content-Encoding is not supported: send the JSON itself")
        if int(headers.get(b"content-length", b"0")) > settings.max_body_bytes:
            raise _too_large(settings)
        parts, n_values = [], 0
        try:
            with self._timers.timeout(settings.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(400, "the body ended early")
                    part = message.get("body", b"")
                    request.n_bytes += len(part)
                    self.held.hold(len(part))
                    if request.n_bytes > settings.max_body_bytes:
                        raise _too_large(settings)
                    self._check_memory()
                    # Limits the time of parsing, except that of the images.
                    n_values += _count_values(part, settings.max_values)
                    if n_values > settings.max_values:
                        text = f"the body must have at most {settings.max_values:,} JSON values"
                        raise Refusal(413, text)
                    parts.append(part)
                    if not message.get("more_body", False):
                        request.is_open = False
                        if UNREADABLE in request.scope:
                            raise request.scope[UNREADABLE]
                        return b"".join(parts)
        except TimeoutError:
            text = f"the body must arrive within {settings.body_timeout_s:g} seconds"
            raise Refusal(408, text) from None

    # --- Routes for operation ----------------------------------------------------------------------------------------

    async def _send_health(self, _request: HttpRequest, _receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": {"code": 200, "text": "OK"}}, [])

    async def _send_readiness(self, _request: HttpRequest, _receive: Receive, send: Send) -> None:
        if not self._ready or self.draining:
            raise overloaded("stopping" if self.draining else "warming up")
        if not await self._hasher.can_hash():
            raise overloaded(_CANNOT_HASH)
        await send_json(send, 200, {"status": {"code": 200, "text": "OK"}}, [])

    async def _send_metrics(self, request: HttpRequest, _receive: Receive, send: Send) -> None:
        self._check_token(request)
        self.count_held()
        await send_bytes(send, 200, self.metrics.text(), [(b"content-type", b"text/plain; version=0.0.4")])

    async def _send_api(self, _request: HttpRequest, _receive: Receive, send: Send) -> None:
        self._check_memory()
        await send_json(send, 200, self._api, [])

    async def _redirect_to_page(self, _request: HttpRequest, _receive: Receive, send: Send) -> None:
        await send_bytes(send, 307, b"", [(b"location", b"/docs")])

    async def _send_page(self, request: HttpRequest, _receive: Receive, send: Send) -> None:
        self._check_memory()
        policy = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        headers: Headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy)]
        host = request.headers.get(b"host", b"").decode("latin-1")
        await send_bytes(send, 200, page.page(self._api, self._examples, host), headers)


def _check_headers(headers: Headers) -> None:
    """Refuse a request that repeats one of `_SINGLE_HEADERS`."""
    seen = set()
    for name, _ in headers:
        if name in _SINGLE_HEADERS:
            if name in seen:
                raise Refusal(400, f"the header {name.decode()} must occur once")
            seen.add(name)


def _is_loopback_ip(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class _RouteApp:
    """ASGI application of one route: for a plain function, Starlette would make a request object of its own."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._respond(scope["imgmatch"], receive, send)


class _CancelOnDisconnect:
    """Context manager that cancels its block when the client disconnects, and ends without an error then."""

    def __init__(self, receive: Receive, timers: Timers) -> None:
        self._receive = receive
        self._timers = timers
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._disconnected = False

    def __enter__(self) -> None:
        self._timer = self._timers.call_later(_WATCH_AFTER_S, self._start_watch)

    def _start_watch(self) -> None:
        self._watch = asyncio.ensure_future(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._disconnected = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._disconnected and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            return True
        return False


def _too_large(settings: Settings) -> Refusal:
    return Refusal(413, f"the body must have at most {settings.max_body_bytes:,} bytes")


def _count_values(part: bytes, maximum: int) -> int:
    """Return the number of commas and opening brackets, or a number above `maximum`.

    `bytes.count` compares each byte: 0.4 ms for a photo in base64. `find` takes 10 microseconds.
    """
    n_values = 0
    for mark in (b",", b"{", b"["):
        position = part.find(mark)
        while position >= 0 and n_values <= maximum:
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
    """Return whether a number is infinite, such as 1e999 as parsed: no JSON response can repeat it.

    1 microsecond for a photo, 7 ms for the maximum number of values, which take 9 ms to parse.
    """
    found = [values]
    for value in found:  # the list grows by the parts of each value
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
