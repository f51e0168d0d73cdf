"""A web server that costs next to nothing: pictures from memory, each after the latency that its path asks for.

    python picture_server.py FOLDER

Prints its port. ``/20/17.jpg`` is picture 17 (modulo their number) after 20 ms. One `asyncio.Protocol` and one write an
answer: as little of the processors as Python can do, since the contenders need them.
"""

import asyncio
import sys
from pathlib import Path


class Pictures(asyncio.Protocol):
    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, self._head = self._head.split(b"\r\n\r\n", 1)
            method, path, _ = head.split(b" ", 2)
            latency_ms, _, name = path.strip(b"/").partition(b"/")
            answer = self._answers[int(name.partition(b".")[0]) % len(self._answers)]
            if method == b"HEAD":
                answer = answer[: answer.index(b"\r\n\r\n") + 4]
            if latency_ms == b"0":
                self._send(answer)
            else:
                asyncio.get_running_loop().call_later(int(latency_ms) / 1000, self._send, answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def main(folder: Path) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n{}\r\n"
    answers = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        more = "Accept-Ranges: bytes\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n"
        answers.append(head.format(len(data), more).encode() + data)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Pictures(answers), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
