"""What every answer is wrapped in, errors too: ``{"status": {"code": …, "text": …}}``."""

import asyncio
from typing import Any, Final

import orjson
from pydantic_core import to_json
from starlette.types import Receive, Send

from imgmatch_df.documented.values import Json, format_status

Headers = list[tuple[bytes, bytes]]

_JSON: Final = (b"content-type", b"application/json")
# How long what is still being sent is read, once it is refused.
DISCARD_S: Final = 2.0
# Where a connection puts, in the scope of a request, why the rest of its body cannot be read.
UNREADABLE: Final = "imgmatch.unreadable"
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")


class Refusal(Exception):  # noqa: N818  # no error of ours: an answer
    """Why a request is not answered as asked.

    Parameters
    ----------
    code
        HTTP status.
    text
        What is wrong, and what is allowed.
    headers
        Such as `Allow` or `Retry-After`.
    """

    def __init__(self, code: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text.replace("\n", " ")
        self.headers: Headers = [
            (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()
        ]

    def body(self, request_id: str) -> Json:
        """Return the JSON that says so."""
        return {"status": format_status(self.code, self.text, request_id=request_id)}


def overloaded(text: str) -> Refusal:
    """Return the answer for what cannot be taken on just now."""
    return Refusal(503, text, retry_after="1")


def encode(body: Json) -> bytes:
    """Return JSON text: a tenth of what `json` and pydantic take for a photo's base64."""
    try:
        return orjson.dumps(body)
    except TypeError:  # a client's own whole number, of more than 64 bits
        return to_json(body)


async def send_json(send: Send, code: int, body: Json, headers: Headers) -> None:
    """Send a JSON answer."""
    await send_bytes(send, code, encode(body), [_JSON, _NO_SNIFFING, *headers])


async def send_bytes(send: Send, code: int, body: bytes, headers: Headers, *, more: bool = False) -> None:
    """Send an answer; with `more`, the connection waits for an empty end."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": code, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_refusal(receive: Receive, send: Send, refusal: Refusal, request_id: str, *, discard_bytes: int) -> None:
    """Send a refusal, and end the connection where there are bytes to discard: what is still being sent.

    A connection that is closed on unread bytes is reset, and the client never sees why.
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
