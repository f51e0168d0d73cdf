"""A web server that does everything wrong that servers do, on loopback, in a thread of its own.

What it does is in the path: ``/ok/3.jpg``, ``/status/503``, ``/endless`` … Each `async def` below is one way to be bad.
"""

import asyncio
import gzip
import socket
import ssl
import struct
import sys
import threading
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the header of zlib, as some servers send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def in_parts(encode, data: bytes) -> bytes:
    """Encode each third of the data alone."""
    third = len(data) // 3 + 1
    return b"".join(encode(data[at : at + third]) for at in range(0, len(data), third))


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw": raw_deflate,
    "members": partial(in_parts, gzip.compress),
    "br": brotli.compress,
    "zstd": zstd.compress,
    "frames": partial(in_parts, zstd.compress),
    "identity": bytes,
}
BOMB = gzip.compress(bytes(64 << 20))  # 64 MiB of nothing in 64 KB


@dataclass
class Request:
    """One request as it came."""

    target: str
    headers: dict[str, str]
    writer: asyncio.StreamWriter
    n_before: int  # requests for the same target before this one

    @property
    def parts(self) -> list[str]:
        return unquote(urlsplit(self.target).path).strip("/").split("/")

    def query(self, name: str, default: str = "") -> str:
        return parse_qs(urlsplit(self.target).query).get(name, [default])[0]

    async def send(self, body: bytes = b"", *, code: int = 200, length: int | None = None, **headers: str) -> bool:
        """Send an answer; return whether the connection may be used again."""
        lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()
        return True


@dataclass
class HostileServer:
    """The server; `pictures` is what it has to offer when it behaves."""

    pictures: list[bytes]
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    targets: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    n_open: int = 0
    most_open: int = 0
    n_connections: int = 0
    n_sent: int = 0
    n_strays: int = 0
    latency_s: float = 0.0
    is_holding: bool = False

    def __enter__(self) -> "HostileServer":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def start() -> None:
            # Many come at once: a short queue would refuse some.
            self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self.tls, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.create_task(start())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(100)
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0.02)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(stop(), self._loop)
        self._thread.join(100)
        self._loop.close()

    def url(self, path: str, host: str | None = None) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{host or self.host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                target = head[0].split(" ")[1]
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                self.headers.append(headers)
                request = Request(target, headers, writer, self.targets[target])
                self.targets[target] += 1
                self.n_open += 1
                self.most_open = max(self.most_open, self.n_open)
                try:
                    if self.latency_s:
                        await asyncio.sleep(self.latency_s)
                    way = getattr(self, f"do_{request.parts[0].replace('-', '_')}", self.do_status)
                    if not await way(request):
                        break
                finally:
                    self.n_open -= 1
        writer.close()

    # --- as it should be ---------------------------------------------------------------------------------------------

    async def do_ok(self, request: Request) -> bool:
        number = int(request.parts[1].partition(".")[0])
        return await request.send(self.pictures[number % len(self.pictures)], Content_Type="image/jpeg")

    async def do_stray(self, request: Request) -> bool:
        """Send a response as `ok` does, and to the first request one more: after so many seconds, or with the first."""
        if request.n_before == 0 and request.query("after"):
            stray = self._send_stray(Request("", {}, request.writer, 0))
            if request.query("after") == "0":
                await asyncio.gather(self.do_ok(request), stray)
                return True
            self._loop.call_later(float(request.query("after")), self._loop.create_task, stray)
        return await self.do_ok(request)

    async def _send_stray(self, request: Request) -> None:
        await request.send(self.pictures[-1], Content_Type="image/jpeg")
        self.n_strays += 1

    async def do_tagged(self, request: Request) -> bool:
        told = {
            "tag": {"ETag": '"v1"', "Last_Modified": "never"},
            "time": {"Last_Modified": "Sun, 22 Nov 2026 00:00:00 GMT"},
        }
        return await request.send(self.pictures[0], Content_Type="image/jpeg", **told.get(request.parts[1], {}))

    async def do_crumbs(self, request: Request) -> bool:
        """Send the image in chunks of two bytes, or `bytes` of them."""
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
        size = int(request.query("bytes", "2"))
        body = self.pictures[0] if request.query("end") else bytes(4 << 20)
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            request.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if at % (1 << 14) == 0:
                await request.writer.drain()
        request.writer.write(b"0\r\n\r\n")
        await request.writer.drain()
        return True

    async def do_escapes(self, request: Request) -> bool:
        return await request.send(b"\0", Content_Type="text/\x1b[2Jhello", ETag='"\x1b]0;x\x07"')

    async def do_empty(self, request: Request) -> bool:
        return await request.send(Content_Type="image/jpeg")

    async def do_status(self, request: Request) -> bool:
        code = int(request.parts[1]) if request.parts[0] == "status" else 404
        return await request.send(b"" if code == 204 else b"no", code=code)

    async def do_flaky(self, request: Request) -> bool:
        """Fail as often as asked for, then behave."""
        if request.n_before < int(request.query("times", "1")):
            return await request.send(code=int(request.query("code", "503")))
        return await request.send(self.pictures[0])

    async def do_busy(self, request: Request) -> bool:
        """Ask to wait, once."""
        if request.n_before:
            return await request.send(self.pictures[0])
        return await request.send(code=429, Retry_After=request.query("after"))

    async def do_zipped(self, request: Request) -> bool:
        return await request.send(gzip.compress(self.pictures[0]), Content_Encoding="gzip")

    async def do_chunked(self, request: Request) -> bool:
        data = self.pictures[0]
        half = len(data) // 2
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (data[:half], data[half:], b""):
            request.writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await request.writer.drain()
        return True

    async def do_bits(self, request: Request) -> bool:
        """Send a picture in chunks of every size, many at once, gzipped where the path says so."""
        data = self.pictures[int(request.query("n", "0")) % len(self.pictures)]
        coding = ""
        if request.parts[-1] == "zipped":
            data, coding = gzip.compress(data), "Content-Encoding: gzip\r\n"
        request.writer.write(f"HTTP/1.1 200 OK\r\n{coding}Transfer-Encoding: chunked\r\n\r\n".encode())
        start, n_bytes = 0, 1
        while start < len(data):
            part = data[start : start + n_bytes]
            request.writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            start, n_bytes = start + n_bytes, n_bytes % 97 * 2 + 1
            if n_bytes == 1:
                await request.writer.drain()
                await asyncio.sleep(0.001)
        request.writer.write(b"0\r\n\r\n")
        return True

    async def do_odd_header(self, request: Request) -> bool:
        """Name a header, and what follows a chunked body, as status lines begin."""
        data = self.pictures[0] if request.parts[-1] != "empty" else b""
        odd = b"HTTP/foo: bar\r\nHTTP/1.1 500 x: y\r\n"
        if request.parts[-1] != "trailer":
            request.writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (odd, len(data), data))
            return True
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        request.writer.write(b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(data), data, odd))
        return True

    async def do_interim(self, request: Request) -> bool:
        """Say that an answer is coming, which comes where the path says so."""
        request.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await request.writer.drain()
        if request.parts[-1] != "ok":
            await asyncio.sleep(30)
        return await request.send(self.pictures[0])

    async def do_until_end(self, request: Request) -> bool:
        """Give no length: the end of the connection is the end of the picture."""
        request.writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + self.pictures[0])
        await request.writer.drain()
        return False

    # --- slow --------------------------------------------------------------------------------------------------------

    async def do_slow_headers(self, request: Request) -> bool:
        await asyncio.sleep(float(request.query("s", "60")))
        return await request.send(self.pictures[0])

    async def do_held(self, request: Request) -> bool:
        """Send an image when `is_holding` is false."""
        while self.is_holding:
            await asyncio.sleep(0.01)
        return await request.send(self.pictures[0])

    async def do_gathered(self, request: Request) -> bool:
        """Send an image when so many requests are open, and a moment later, in which more may come."""
        while self.most_open < int(request.query("of")):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.03)
        return await request.send(self.pictures[0])

    async def do_stalled(self, request: Request) -> bool:
        """Send the first lines of a response, and end after some time."""
        lines = [b"HTTP/1.1 200 OK\r\n", b"Content-Length: 1000\r\n\r\n", b"\xff\xd8"]
        request.writer.write(b"".join(lines[: int(request.query("lines", "3"))]))
        await request.writer.drain()
        await asyncio.sleep(float(request.query("s", "60")))
        return False

    async def do_drip(self, request: Request) -> bool:
        """One byte a second."""
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            request.writer.write(b"\xff")
            await request.writer.drain()
            await asyncio.sleep(1)
        return False

    # --- too much ----------------------------------------------------------------------------------------------------

    async def do_endless(self, request: Request) -> bool:
        request.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            request.writer.write(bytes(1 << 16))
            self.n_sent += 1 << 16
            await request.writer.drain()

    async def do_endless_headers(self, request: Request) -> bool:
        request.writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            request.writer.write(b"X-A: " + b"a" * 1000 + b"\r\n")
            await request.writer.drain()

    async def do_long_header(self, request: Request) -> bool:
        return await request.send(X_A="a" * 200_000)

    async def do_late_404(self, request: Request) -> bool:
        """Announce words to say what is wrong, and never say them."""
        request.writer.write(b"HTTP/1.1 404 Whatever\r\nContent-Length: 500\r\n\r\n")
        await request.writer.drain()
        await asyncio.sleep(30)
        return False

    async def do_announced(self, request: Request) -> bool:
        """Announce a terabyte."""
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n" + bytes(1000))
        await request.writer.drain()
        await asyncio.sleep(30)
        return False

    async def do_bomb(self, request: Request) -> bool:
        return await request.send(BOMB, Content_Encoding="gzip", Content_Type="image/jpeg")

    async def do_sized(self, request: Request) -> bool:
        return await request.send(bytes(int(request.parts[1])))

    # --- lies and cuts -----------------------------------------------------------------------------------------------

    async def do_cut(self, request: Request) -> bool:
        """Announce more than there is."""
        await request.send(self.pictures[0][:500], length=1000)
        return False

    async def do_longer(self, request: Request) -> bool:
        """Announce less than there is: what follows could be taken for the answer to the next request."""
        secret = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        return await request.send(self.pictures[0] + secret, length=len(self.pictures[0]))

    async def do_cut_chunked(self, request: Request) -> bool:
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + bytes(100))
        await request.writer.drain()
        return False

    async def do_reset(self, request: Request) -> bool:
        """Send a reset instead of an end."""
        sock = request.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.writer.transport.abort()
        return False

    async def do_hang_up(self, request: Request) -> bool:
        return False

    async def do_garbage(self, request: Request) -> bool:
        request.writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n" + bytes(range(256)))
        await request.writer.drain()
        return False

    async def do_html(self, request: Request) -> bool:
        return await request.send(b"<!DOCTYPE html>".ljust(512), Content_Type="text/html; charset=utf-8")

    async def do_broken_zip(self, request: Request) -> bool:
        return await request.send(b"this is no gzip", Content_Encoding="gzip")

    async def do_unknown_zip(self, request: Request) -> bool:
        return await request.send(b"???", Content_Encoding="x-compress")

    # --- refusals and encodings --------------------------------------------------------------------------------------

    async def do_refuse(self, request: Request) -> bool:
        """Refuse with a text: of the query, of a type and an encoding that it names."""
        body = request.query("text").encode(request.query("charset", "utf-8"))
        packed = {"gzip": gzip.compress, "raw": raw_deflate, "": bytes}[request.query("encoding")](body)
        headers = {"Content_Type": request.query("type", "text/plain")}
        if request.query("encoding"):
            headers["Content_Encoding"] = request.query("encoding").replace("raw", "deflate")
        return await request.send(packed, code=int(request.query("code", "403")), **headers)

    async def do_echo(self, request: Request) -> bool:
        """Refuse, and repeat everything that was sent."""
        text = f"{request.headers} {request.target}"
        return await request.send(
            text.encode(), code=int(request.query("code", "403")), Content_Type="text/plain", ETag=f'"{text[:200]}"'
        )

    async def do_echo_type(self, request: Request) -> bool:
        """Repeat the header as the type and the version of no image."""
        token = request.headers.get("Authorization", "none")
        return await request.send(b"no image", Content_Type=f"text/{token}", ETag=f'"{token}"')

    async def do_endless_refusal(self, request: Request) -> bool:
        request.writer.write(b"HTTP/1.1 403 Whatever\r\nContent-Type: text/plain\r\n\r\nno robots ")
        while True:
            request.writer.write(b"please " * 1000)
            self.n_sent += 7000
            await request.writer.drain()

    async def do_slow_refusal(self, request: Request) -> bool:
        request.writer.write(
            b"HTTP/1.1 403 Whatever\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\nno robots"
        )
        await request.writer.drain()
        await asyncio.sleep(30)
        return False

    async def do_encoded(self, request: Request) -> bool:
        """Send the image in the encodings that the path names, in the order in which they are applied."""
        data, names = self.pictures[0], request.parts[1:]
        for name in names:
            data = ENCODERS[name](data)
        cut = int(request.query("cut", "0"))
        data = data[: len(data) - cut] + request.query("more").encode()
        names = [{"raw": "deflate", "members": "gzip", "frames": "zstd"}.get(name, name) for name in names]
        headers = [f"Content-Encoding: {name}\r\n" for name in names]
        if not request.query("lines"):
            headers = [f"Content-Encoding: {', '.join(names)}\r\n"]
        head = f"HTTP/1.1 200 OK\r\n{''.join(headers)}Content-Length: {len(data)}\r\n\r\n"
        request.writer.write(head.encode())
        for at in range(0, len(data), size := int(request.query("size", "1000000"))):
            request.writer.write(data[at : at + size])
            await request.writer.drain()
        return True

    # --- elsewhere ---------------------------------------------------------------------------------------------------

    async def do_to(self, request: Request) -> bool:
        return await request.send(code=int(request.query("code", "302")), Location=request.query("u"))

    async def do_loop(self, request: Request) -> bool:
        return await request.send(code=302, Location=request.target)

    async def do_hops(self, request: Request) -> bool:
        """Redirect as often as the path says."""
        n_left = int(request.parts[1])
        return await request.send(code=301, Location=f"/hops/{n_left - 1}" if n_left > 1 else "/ok/0.jpg")

    async def do_nowhere(self, request: Request) -> bool:
        return await request.send(code=301)

    async def do_login(self, request: Request) -> bool:
        if request.headers.get("Authorization") != "Basic bWU6c2VjcmV0":
            return await request.send(code=401)
        return await request.send(self.pictures[0])
