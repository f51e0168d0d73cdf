"""The parts of the service that share its threads: who hashes what and when, and who writes the log."""

import asyncio
import base64
import errno
import io
import json
import logging
import socket
import threading
import time
from dataclasses import replace

import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from waiting import wait_until

from imgmatch_df.batch.isolation import DeclinedError, DecodersUnavailableError
from imgmatch_df.batch.run import hash_sources
from imgmatch_df.errors import Failure
from imgmatch_df.options import Options
from imgmatch_df.server import accepting, handlers, hash_queue, telemetry
from imgmatch_df.server.hash_queue import Hasher
from imgmatch_df.server.held import Held
from imgmatch_df.sources import Fetched
from imgmatch_df.threads import n_threads, pool

OPTIONS = Options(max_bytes=1 << 20, allow_private_networks=True, attempts=1)


def uri(seed, width=60, height=40):
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(draw(seed, width, height))).decode()}"


async def closing(work):
    """Return what `work`, called with a Hasher, gives."""
    made = Hasher(OPTIONS)
    try:
        return await work(made)
    finally:
        made.close()


# Hashing


def test_rows_are_those_of_a_batch():
    sources = [
        uri(1),
        None,
        "DATA:;base64,AAAA",
        "data:,%89PNG",
        "data:;base64,",
        "data:;base64,a-b_c!",
        f"data:;base64,{'A' * (2 << 20)}",
        uri(2, 300, 200),
        "data:",
        uri(1),
    ]
    rows = asyncio.run(closing(lambda made: made.hash(sources)))
    batch = hash_sources(sources, OPTIONS)
    assert rows == [batch.row(number) for number in range(len(sources))]
    assert [row["status"] for row in rows].count("ok") == 3


def test_rows_of_addresses_are_those_of_a_batch(encoded):
    with HostileServer(encoded) as web:
        sources = [
            web.url("/ok/1.jpg"),
            uri(1),
            web.url("/html/x"),
            web.url("/status/404"),
            None,
            web.url("/ok/1.jpg"),
            web.url("/cut/x"),
            web.url("/garbage/x"),
            web.url("/empty/x"),
            web.url("/ok/2.jpg"),
        ]
        rows = asyncio.run(closing(lambda made: made.hash(sources)))
        assert web.targets["/ok/1.jpg"] == 1
        batch = hash_sources(sources, OPTIONS)
    assert rows == [batch.row(number) for number in range(len(sources))]
    assert [row["status"] for row in rows].count("ok") == 4


def test_what_was_fetched_for_a_request_given_up_takes_no_memory(encoded, monkeypatch):
    """Neither what waits to be hashed, nor what comes later."""
    released, held = [], threading.Event()

    class Scheduler:
        def start(self, download):
            for number in range(2):
                download.deliver(number, Fetched(encoded[number]), lambda number=number: released.append(number))
            self.download = download

        def stop(self, download):
            download.deliver(2, Fetched(encoded[2]), lambda: released.append(2))

    async def work(made):
        given_up = asyncio.ensure_future(made.hash([f"http://a.example/{number}" for number in range(3)]))
        await asyncio.sleep(0.05)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        held.set()

    scheduler = Scheduler()
    monkeypatch.setattr(hash_queue, "shared_scheduler", lambda: scheduler)
    monkeypatch.setattr(hash_queue, "n_threads", lambda: 1)
    monkeypatch.setattr(hash_queue, "hash_source", lambda *_, **__: held.wait(100) and {"status": "ok"})
    asyncio.run(closing(work))
    wait_until(lambda: len(released) >= 3)
    assert sorted(released) == [0, 1, 2]


def test_failures_given_keep_their_place():
    rows = asyncio.run(closing(lambda made: made.hash([uri(1), Failure("bad_source", "no"), uri(2)])))
    assert [(row["status"], row["detail"]) for row in rows] == [("ok", None), ("bad_source", "no"), ("ok", None)]


def test_requests_take_turns(monkeypatch):
    """A request of one photo waits for a few of the other's hundred."""
    done, both = [], threading.Event()

    def hash_slowly(source, _, **_kinds):
        assert both.wait(100)
        time.sleep(0.005)
        done.append(source)
        return {"status": source}

    async def work(made):
        large = asyncio.ensure_future(made.hash([f"data:{number}" for number in range(100)]))
        await asyncio.sleep(0.02)
        small = asyncio.ensure_future(made.hash(["data:small"]))
        await asyncio.sleep(0.02)
        both.set()
        return await small, await large

    monkeypatch.setattr(hash_queue, "hash_source", hash_slowly)
    small, large = asyncio.run(closing(work))
    assert small == [{"status": "data:small"}]
    assert done.index("data:small") < 50
    assert large == [{"status": f"data:{number}"} for number in range(100)]


def test_the_pool_is_shared_with_others(monkeypatch):
    """What else wants the threads, such as pictures that were fetched, waits for a turn and not for a request."""

    done, submitted = [], threading.Event()

    def hash_slowly(source, _, **_kinds):
        assert submitted.wait(100)
        time.sleep(0.005)
        done.append(source)
        return {"status": source}

    async def work(made):
        n_photos = 200 * n_threads()
        photos = asyncio.ensure_future(made.hash(["data:"] * n_photos))
        await asyncio.sleep(0.02)
        other = asyncio.wrap_future(pool().submit(lambda: len(done)))
        submitted.set()
        assert await other < n_photos / 2
        assert len(await photos) == n_photos

    monkeypatch.setattr(hash_queue, "hash_source", hash_slowly)
    asyncio.run(closing(work))


def test_a_request_given_up_is_not_hashed_on(monkeypatch):
    seen = []

    def hash_slowly(source, _, **_kinds):
        seen.append(source)
        time.sleep(0.005)
        return {"status": source}

    async def work(made):
        given_up = asyncio.ensure_future(made.hash(["data:"] * 1000))
        while not seen:
            await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        n_seen = len(seen)
        assert await made.hash(["data:other"]) == [{"status": "data:other"}]
        assert len(seen) <= n_seen + n_threads() + 1

    monkeypatch.setattr(hash_queue, "hash_source", hash_slowly)
    asyncio.run(closing(work))


def test_an_error_is_that_of_its_request(monkeypatch):
    def hash_or_fail(source, _, **_kinds):
        if source == "data:bad":
            raise MemoryError("no room")
        return {"status": source}

    async def work(made):
        bad = made.hash(["data:1", "data:bad", "data:bad", "data:2"])
        return await asyncio.gather(bad, made.hash(["data:3", "data:4"]), return_exceptions=True)

    monkeypatch.setattr(hash_queue, "hash_source", hash_or_fail)
    bad, good = asyncio.run(closing(work))
    assert isinstance(bad, MemoryError)
    assert good == [{"status": "data:3"}, {"status": "data:4"}]


def test_what_waits_at_the_end_is_told(monkeypatch):
    held = threading.Event()

    async def work(made):
        waits = asyncio.ensure_future(made.hash(["data:"] * 100))
        await asyncio.sleep(0.02)
        made.close()
        held.set()
        with pytest.raises(RuntimeError, match="has ended"):
            await waits

    monkeypatch.setattr(hash_queue, "hash_source", lambda *_, **__: held.wait(100) and {"status": "ok"})
    asyncio.run(closing(work))


class Isolated:
    """A Hasher with decoder processes that are none."""

    def __init__(self, monkeypatch):
        self.responded_at = 0.0
        self.is_closed = False
        monkeypatch.setattr(hash_queue, "Decoders", lambda: self)

    def hash_image(self, data, options, out, lane):
        raise NotImplementedError

    def take_free(self):
        return None

    def close(self):
        self.is_closed = True


async def isolating(work):
    made = Hasher(replace(OPTIONS, isolate=True))
    try:
        return await work(made)
    finally:
        made.close()


def test_what_a_lane_declines_waits_for_the_next_one(monkeypatch):
    """And holds up nothing in its own."""
    decoders = Isolated(monkeypatch)
    seen, held = [], threading.Event()

    def hash_in_lane(source, _, hash_one, **_kinds):
        lane = hash_queue._LANES.index(hash_one.keywords["lane"])
        seen.append((source, lane))
        if source.startswith("data:large") and lane < 2:
            raise DeclinedError
        if lane == 2:
            held.wait(100)
        return {"status": f"{source} {lane}"}

    async def work(made):
        large = asyncio.ensure_future(made.hash([f"data:large{number}" for number in range(3 * n_threads())]))
        await asyncio.sleep(0.05)
        small = await made.hash(["data:small"] * 20)
        assert not large.done()
        held.set()
        return small, await large

    monkeypatch.setattr(hash_queue, "hash_source", hash_in_lane)
    small, large = asyncio.run(isolating(work))
    assert small == [{"status": "data:small 0"}] * 20
    assert large == [{"status": f"data:large{number} 2"} for number in range(3 * n_threads())]
    assert sorted(seen)[:3] == [("data:large0", 0), ("data:large0", 1), ("data:large0", 2)]
    assert decoders.is_closed


def test_what_a_lane_declines_of_a_request_given_up_is_dropped(monkeypatch):
    Isolated(monkeypatch)
    seen, began, held = [], threading.Event(), threading.Event()

    def hash_in_lane(source, _, hash_one, **_kinds):
        seen.append(source)
        began.set()
        held.wait(100)
        raise DeclinedError

    async def work(made):
        given_up = asyncio.ensure_future(made.hash(["data:large"]))
        await asyncio.to_thread(began.wait, 100)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        held.set()
        await asyncio.sleep(0.1)

    monkeypatch.setattr(hash_queue, "hash_source", hash_in_lane)
    asyncio.run(isolating(work))
    assert seen == ["data:large"]


def test_whether_images_can_be_hashed_is_tried(monkeypatch):
    decoders = Isolated(monkeypatch)
    n_calls = 0

    def hash_or_fail(*_, **_kinds):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            raise DecodersUnavailableError("no process")
        if n_calls > 2:
            decoders.responded_at = time.monotonic()
        return {"status": "decode_failed"}

    async def work(made):
        answers = [await made.can_hash() for _ in range(2)]
        answers += await asyncio.gather(*(made.can_hash() for _ in range(20)))
        return answers + [await made.can_hash() for _ in range(20)]

    monkeypatch.setattr(hash_queue, "hash_source", hash_or_fail)
    answers = asyncio.run(isolating(work))
    assert answers == [False, False] + [True] * 40
    assert n_calls == 3, "one at a time, and none while others show it"


# What is held


class Transport:
    def __init__(self, n_bytes):
        self.n_bytes = n_bytes

    def get_write_buffer_size(self):
        return self.n_bytes


def test_bytes_of_requests_and_responses_are_held(monkeypatch):
    now = 100.0
    monkeypatch.setattr("imgmatch_df.server.held.monotonic", lambda: now)
    held = Held(100)
    slow, other = Transport(60), Transport(30)
    held.hold(10)
    held.note(slow, 60)
    held.note(other, 30)
    assert not held.is_full
    held.hold(1)
    assert held.is_full
    assert held.count() == 101
    slow.n_bytes = 0
    assert held.is_full, "counted a moment ago"
    now += 1
    assert not held.is_full
    assert held.count() == 41
    other.n_bytes = 5
    held.note(other, 5)
    held.hold(-11)
    assert held.count() == 5
    other.n_bytes = 0
    assert held.count() == 0


# Accepting


def test_a_lack_of_open_files_is_waited_for_and_logged_once(monkeypatch, caplog):
    class Listener(socket.socket):
        n_tries = 0

        def accept(self):
            self.n_tries += 1
            if self.n_tries <= 20:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"hello")
            transport.close()

    async def work():
        listener = Listener()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        acceptor = accepting.Acceptor(listener, Protocol)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return said, listener.n_tries, acceptor.stop()

    monkeypatch.setattr(accepting, "_PAUSE_S", 0.01)
    said, n_tries, waiting = asyncio.run(work())
    assert said == b"hello"
    assert n_tries >= 21
    assert waiting == []
    assert [record.message for record in caplog.records].count("cannot accept connections") == 1


# The log


def test_libraries_log_a_few_lines_a_minute(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    asyncio_logger = logging.getLogger("asyncio")
    kept = [
        (logger, logger.handlers[:], logger.filters[:], logger.propagate, logger.level)
        for logger in (asyncio_logger, logging.getLogger("uvicorn.error"), telemetry.LOGGER)
    ]
    try:
        lines = telemetry.start_logging()
        for _ in range(1000):
            asyncio_logger.error("socket.accept() out of system resource")
        late = logging.makeLogRecord({"name": "asyncio", "msg": "later", "levelno": 40, "levelname": "ERROR"})
        late.created += 100
        asyncio_logger.handle(late)
        lines.stop()
    finally:
        for logger, handlers, filters, propagate, level in kept:
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.propagate, logger.level = propagate, level
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(found) == 21
    assert found[-1]["event"] == "later"
    assert found[-1]["left_out_before"] == 980


def log_lines(monkeypatch, stream, records):
    monkeypatch.setattr("sys.stderr", stream)
    lines = telemetry.LineWriter()
    for record in records:
        lines.handle(record)
    return lines


def record(number):
    made = logging.makeLogRecord({"msg": "request", "levelname": "INFO"})
    made.fields = {"number": number}
    return made


def test_lines_come_in_order_and_none_is_lost_at_the_end(monkeypatch):
    stream = io.StringIO()
    log_lines(monkeypatch, stream, map(record, range(5000))).stop()
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == list(range(5000))


def test_a_line_does_not_wait_for_another(monkeypatch):
    stream = io.StringIO()
    lines = log_lines(monkeypatch, stream, [record(1)])
    wait_until(stream.getvalue)
    assert json.loads(stream.getvalue())["number"] == 1
    lines.stop()


def test_a_log_that_nobody_reads_holds_up_nobody(monkeypatch):
    is_writing, read = threading.Event(), threading.Event()

    class Stuck(io.StringIO):
        def write(self, text):
            is_writing.set()
            assert read.wait(100)
            return super().write(text)

    stream = Stuck()
    lines = log_lines(monkeypatch, stream, [record(0)])
    assert is_writing.wait(100)  # the first line hangs in `write`
    for number in range(1, 30_000):
        lines.handle(record(number))
    read.set()
    lines.stop()
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == list(range(10_001))


def test_a_reader_that_has_gone_ends_nothing(monkeypatch):
    class Broken(io.StringIO):
        n_writes = 0

        def write(self, text):
            self.n_writes += 1
            if self.n_writes == 1:
                raise BrokenPipeError
            return super().write(text)

    stream = Broken()
    lines = log_lines(monkeypatch, stream, [record(1)])
    wait_until(lambda: stream.n_writes)
    lines.handle(record(2))
    lines.stop()
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == [2]


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("HTTP 403: “text of an internal server” after 1 attempt", "HTTP 403 after 1 attempt"),
        ("HTTP 503: “x” through the proxy http://10.0.0.1:3128 after 1 attempt",
         "HTTP 503 through the proxy after 1 attempt"),
        ("no connection to the proxy http://box:1: refused", "no connection to the proxy: refused"),
    ],
)  # fmt: skip
def test_clients_read_no_text_of_other_servers_and_no_proxy(detail, shown):
    assert handlers._public_detail({"detail": detail, "status": "fetch_failed"}) == shown
