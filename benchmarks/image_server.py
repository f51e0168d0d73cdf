"""A web server that sends images from memory, each after the latency in its path.

    python image_server.py FOLDER

Prints its port. ``/20/17.jpg`` is image 17 (modulo their number) after 20 ms. It is one `asyncio.Protocol` with one
write per response, because the contenders need the processors.
"""

import asyncio
import sys
from pathlib import Path


class ImageServer(asyncio.Protocol):
    def __init__(self, responses: list[bytes]) -> None:
        self._responses = responses
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            header, self._received = self._received.split(b"\r\n\r\n", 1)
            method, path, _ = header.split(b" ", 2)
            latency_ms, _, name = path.strip(b"/").partition(b"/")
            response = self._responses[int(name.partition(b".")[0]) % len(self._responses)]
            if method == b"HEAD":
                response = response[: response.index(b"\r\n\r\n") + 4]
            if latency_ms == b"0":
                self._send(response)
            else:
                asyncio.get_running_loop().call_later(int(latency_ms) / 1000, self._send, response)

    def _send(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


async def main(folder: Path) -> None:
    header = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n{}\r\n"
    responses = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        more = "Accept-Ranges: bytes\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n"
        responses.append(header.format(len(data), more).encode() + data)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ImageServer(responses), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
