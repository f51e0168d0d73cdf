"""Responses as JSON, and errors in the documented envelope ``{"status": {"code": …, "text": …}}``."""

import asyncio
from typing import Any, Final

import orjson
from pydantic_core import to_json
from starlette.types import Receive, Send

from imgmatch_df.documented.values import Json, format_status

Headers = list[tuple[bytes, bytes]]

_JSON: Final = (b"content-type", b"application/json")
# How long the rest of a refused body is read.
DISCARD_S: Final = 2.0
# Key of the ASGI scope: the refusal of a body whose rest is not valid HTTP.
UNREADABLE: Final = "imgmatch.unreadable"
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")


class Refusal(Exception):  # noqa: N818  # it becomes a response
    """An error response.

    Parameters
    ----------
    code
        HTTP status.
    text
        The invalid value, and what is allowed.
    headers
        Further headers, such as `allow` or `retry_after`.
    """

    def __init__(self, code: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text.replace("\n", " ")
        self.headers: Headers = [
            (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()
        ]

    def body(self, request_id: str) -> Json:
        """Return the JSON of the response."""
        return {"status": format_status(self.code, self.text, request_id=request_id)}


def overloaded(text: str) -> Refusal:
    """Return the refusal of a request that may succeed later."""
    return Refusal(503, text, retry_after="1")


def encode(body: Json) -> bytes:
    """Return JSON text, with orjson: a tenth of the time of `json` and pydantic for the base64 of a photo."""
    try:
        return orjson.dumps(body)
    except TypeError:  # a whole number of more than 64 bits in a field of the client
        return to_json(body)


async def send_json(send: Send, code: int, body: Json, headers: Headers) -> None:
    """Send a JSON response."""
    await send_bytes(send, code, encode(body), [_JSON, _NO_SNIFFING, *headers])


async def send_bytes(send: Send, code: int, body: bytes, headers: Headers, *, more: bool = False) -> None:
    """Send a response; with `more`, it must be completed by an empty body."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": code, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_refusal(receive: Receive, send: Send, refusal: Refusal, request_id: str, *, discard_bytes: int) -> None:
    """Send a refusal. If `discard_bytes` is not 0, read at most so many bytes of the body and close the connection.

    A connection that is closed with unread bytes is reset, and the client loses the response.
    """
    body = refusal.body(request_id)
    if not discard_bytes:
        await send_json(send, refusal.code, body, refusal.headers)
        return
    headers = [(b"connection", b"close"), _JSON, _NO_SNIFFING, *refusal.headers]
    await send_bytes(send, refusal.code, encode(body), headers, more=True)
    await _discard(receive, discard_bytes)
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive, n_bytes: int) -> None:
    try:
        async with asyncio.timeout(DISCARD_S):
            while n_bytes > 0:
                message: Any = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                n_bytes -= len(message["body"])
    except TimeoutError:
        return
