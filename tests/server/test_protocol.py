"""The HTTP protocol of one connection, without a network: writes of responses, and bodies that arrive in parts."""

import asyncio
import socket
import tracemalloc
from time import process_time

import pytest
import uvicorn
from uvicorn.server import ServerState

from imgmatch_df.server.held import Held
from imgmatch_df.server.protocol import Connection


class Transport:
    """What was written, one write each, and whether reading was paused."""

    def __init__(self):
        self.writes, self.is_closed, self.n_pauses = [], False, 0

    def write(self, data):
        self.writes.append(bytes(data))

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed

    def pause_reading(self):
        self.n_pauses += 1

    def get_write_buffer_size(self):
        return 0

    def get_extra_info(self, _name):
        return None

    def set_write_buffer_limits(self, _high):
        pass

    def resume_reading(self):
        pass


def connect(app):
    """Return the protocol of a new connection."""
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    limits = {"held": Held(1 << 30), "max_connections": 9, "header_timeout_s": 9, "response_timeout_s": 9}
    return type("Limited", (Connection,), limits)(config, ServerState(), {})


def talk(app, *parts, turns=50):
    """Pass parts of requests to a connection, one a turn of the loop; return its transport."""

    async def run():
        connection, transport = connect(app), Transport()
        connection.connection_made(transport)
        for part in parts:
            connection.data_received(part)
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return transport

    return asyncio.run(run())


async def received(receive):
    body, n_messages, more = b"", 0, True
    while more:
        message = await receive()
        assert isinstance(message["body"], bytes | bytearray)  # a bytearray before uvicorn 0.42
        body, more, n_messages = body + message["body"], message["more_body"], n_messages + 1
    return body, n_messages


async def echo(_scope, receive, send):
    body, _ = await received(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def request(body, method=b"POST", headers=b""):
    return b"%s / HTTP/1.1\r\nhost: a\r\n%scontent-length: %d\r\n\r\n%s" % (method, headers, len(body), body)


def test_header_and_body_are_one_write():
    for body in (b"", b"x" * 1000, b"HTTP/1.1 200 OK\r\n\r\n"):
        (write,) = talk(echo, request(body)).writes
        assert write == b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def test_a_large_body_is_written_in_pieces():
    body = bytes(range(256)) * (1 << 13)
    parts = (request(body)[at : at + (1 << 16)] for at in range(0, len(body) + 99, 1 << 16))
    header, written = b"HTTP/1.1 200 OK\r\ncontent-length: 2097152\r\n\r\n", talk(echo, *parts).writes
    assert b"".join(written) == header + body
    assert max(map(len, written)) <= len(header) + (1 << 16)


def test_what_is_kept_of_a_response_is_what_is_not_sent():
    """asyncio keeps the whole of what one call of `write` got until its last byte is sent."""
    size = 8 << 20

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def run():
        loop = asyncio.get_running_loop()
        client, server = socket.socketpair()
        with client, server:
            client.setblocking(False)
            transport, connection = await loop.connect_accepted_socket(lambda: connect(app), server)
            tracemalloc.start()
            await loop.sock_sendall(client, request(b""))
            n_read = 0
            while n_read < size - (2 << 20) or transport.get_write_buffer_size() > 1 << 20:
                n_read += len(await loop.sock_recv(client, 1 << 15))
            assert connection.cycle.response_complete
            n_left, n_kept = transport.get_write_buffer_size(), tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            transport.abort()
            await asyncio.sleep(0)
            return n_left, n_kept

    n_left, n_kept = asyncio.run(run())
    assert n_left > 0
    assert n_kept < 3 << 20  # Python 3.11 keeps up to twice the rest


def test_pipelined_responses_and_interim_ones_come_in_order():
    one, two = request(b"one", headers=b"expect: 100-continue\r\n"), request(b"two")
    header = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    first, *others = talk(echo, one[:-3], one[-3:] + two + two).writes
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert others == [header + b"one", header + b"two", header + b"two"]


def test_a_response_to_head_has_a_header():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b""})

    assert talk(app, request(b"", b"HEAD")).writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]


def test_a_body_in_chunks_is_one_write_after_another():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a", b"", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": part != b"b"})

    written = b"".join(talk(app, request(b"")).writes)
    assert written == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


@pytest.mark.filterwarnings("ignore")
def test_an_application_that_fails_after_the_header_sends_it_and_closes():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        raise ValueError

    transport = talk(app, request(b""))
    assert transport.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]
    assert transport.is_closed


def test_a_body_that_arrives_at_once_is_one_message_and_is_not_paused():
    counted = []

    async def app(_scope, receive, _send):
        counted.append(await received(receive))
        await asyncio.sleep(9)

    body = bytes(range(256)) * 780
    assert talk(app, request(body)).n_pauses == 0
    assert counted == [(body, 1)]


def test_more_than_the_limit_pauses_the_reading():
    async def app(_scope, _receive, _send):
        await asyncio.sleep(9)

    body = b"x" * (1 << 20)
    parts = [request(body)[at : at + 100_000] for at in range(0, 500_000, 100_000)]
    assert talk(app, *parts).n_pauses


def test_many_small_chunks_take_time_in_proportion_to_their_number():
    def seconds(n_chunks):
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        start = process_time()
        written = b"".join(talk(echo, head + b"1\r\nx\r\n" * n_chunks + b"0\r\n\r\n").writes)
        assert written.endswith(b"\r\n\r\n" + b"x" * n_chunks)
        return process_time() - start

    assert seconds(80_000) < 4 * 8 * max(seconds(10_000), 0.005)
