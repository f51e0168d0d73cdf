"""`imgmatch serve` while strangers send images that take seconds, and slowly: others are served as before."""

import asyncio
import base64
import io
import json
import random
import struct
import time
import zlib
from contextlib import suppress

import pytest
from drawing import draw, jpeg
from PIL import Image
from service import Service

N_CONNECTIONS = 200
N_SLOW = 100


def body_of(image):
    return json.dumps({"records": [{"_base64": base64.b64encode(image).decode()}]}).encode()


def deep_tiff(side):
    """Return an RGB TIFF of 16 bits, all of whose strips are the same bytes."""
    n_rows = 100
    strip = zlib.compress(bytes(side * 6 * n_rows), 9)
    strip += bytes(len(strip) % 2)
    n_strips = -(-side // n_rows)
    at = 8 + len(strip) + 2 + 12 * 9 + 4
    lists = [struct.pack("<3H", 16, 16, 16), struct.pack(f"<{n_strips}I", *[8] * n_strips)]
    lists.append(struct.pack(f"<{n_strips}I", *[len(strip)] * n_strips))
    ats = [at, at + 6, at + 6 + len(lists[1])]
    tags = [(256, 3, 1, side), (257, 3, 1, side), (258, 3, 3, ats[0]), (259, 3, 1, 8), (262, 3, 1, 2)]
    tags += [(273, 4, n_strips, ats[1]), (277, 3, 1, 3), (278, 3, 1, n_rows), (279, 4, n_strips, ats[2])]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(strip))
    return head + strip + struct.pack("<H", len(tags)) + entries + bytes(4) + b"".join(lists)


def saved(image, file_format):
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()


class Load:
    """Clients that ask again and again, and how long each good request took."""

    def __init__(self, service, good, bombs):
        self.service = service
        self.good = good
        self.bombs = bombs
        self.seconds = []
        self.n_bombs = 0
        self.bomb_codes = set()
        self.background = set()
        self.writers = []
        self.random = random.Random(1)

    async def run(self, seconds):
        """Return the 99th percentile of the good requests, of those that still wait, too."""
        self.ends = time.monotonic() + seconds
        clients = [self.good_client() for _ in range(N_CONNECTIONS)]
        if self.bombs:
            clients += [self.slow_client() for _ in range(N_SLOW)]
        await asyncio.wait_for(asyncio.gather(*clients), seconds + 200)
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        for writer in self.writers:
            # Unlike close(), without sending the rest of a bomb. asyncio raises for a connection that was lost.
            with suppress(AttributeError):
                writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]

    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port, limit=1 << 20)
        self.writers.append(writer)
        return reader, writer

    async def good_client(self):
        reader, writer = await self.connect()
        while time.monotonic() < self.ends:
            if self.bombs and self.random.random() < 0.1:
                task = asyncio.create_task(self.send_bomb(*await self.connect()))
                self.background.add(task)
                task.add_done_callback(self.background.discard)
                continue
            began = time.monotonic()
            code = await self.ask(reader, writer, self.random.choice(self.good))
            assert code == 200
            self.seconds.append(time.monotonic() - began)

    async def send_bomb(self, reader, writer):
        """Send a bomb over a connection of its own; nobody waits for what becomes of it."""
        self.n_bombs += 1
        self.bomb_codes.add(await self.ask(reader, writer, self.random.choice(self.bombs)))
        writer.close()

    async def slow_client(self):
        """Send a body in many small parts."""
        body = self.good[0]
        while time.monotonic() < self.ends:
            _, writer = await self.connect()
            writer.write(self.service.head(content_length=len(body)))
            with suppress(OSError):
                for start in range(0, len(body), 100):
                    writer.write(body[start : start + 100])
                    await writer.drain()
                    await asyncio.sleep(0.1)
                    if time.monotonic() > self.ends:
                        break
            writer.close()

    async def ask(self, reader, writer, body):
        writer.write(self.service.head(content_length=len(body)) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        return int(head.split()[1])


@pytest.mark.slow
def test_bombs_and_slow_clients_hold_up_nobody():
    """10 % of the requests are bombs, which in threads would stop all others within a second."""
    good = [body_of(jpeg(draw(seed, 300, 200))) for seed in range(10)]
    bombs = [
        body_of(deep_tiff(9400)),
        body_of(deep_tiff(3900)),
        body_of(saved(Image.new("L", (9400, 9400)), "PNG")),
        body_of(saved(Image.new("CMYK", (3900, 3900)), "JPEG")),
        body_of(saved(Image.new("RGB", (1900, 1900)), "TIFF")[:-1000]),
    ]
    with Service() as service:
        asyncio.run(Load(service, good, []).run(2))
        before_s = asyncio.run(Load(service, good, []).run(4))
        attacked = Load(service, good, bombs)
        attacked_s = asyncio.run(attacked.run(8))
        after_s = asyncio.run(Load(service, good, []).run(4))
        assert attacked.n_bombs > 20
        assert attacked.bomb_codes <= {200, 503}
        assert service.get("/ready").code == 200
        assert not [event for event in service.events if event["event"] == "bug"]
    assert attacked_s < 10 * max(before_s, after_s), (before_s, attacked_s, after_s)
