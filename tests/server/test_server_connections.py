"""`imgmatch serve` and single connections: what they may ask ahead, how large heads are, and who never reads."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from service import PREFIX, TOKEN, Service, read_all
from waiting import wait_until

pytestmark = pytest.mark.long

PHOTO = base64.b64encode(jpeg(draw(1, 64, 48))).decode()
BODY = json.dumps({"records": [{"_base64": PHOTO}]}).encode()
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMITS = ["--body-timeout-s", "3", "--header-timeout-s", "3", "--keep-alive-s", "2", "--allow-private-networks"]


@pytest.fixture(scope="module")
def service():
    with Service(*LIMITS) as running:
        yield running
        assert not [event for event in running.events if event["event"] == "bug"], running.lines[-50:]
        assert not [line for line in running.lines if "Traceback" in line], running.lines[-50:]
        assert not [line for line in running.lines if "uvicorn" in line], running.lines[-50:]


def answers(service, *parts):
    """Return the codes of the answers to what is sent, and the bodies, until the connection ends."""
    with service.connect() as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05 * (len(parts) < 10))
        received = read_all(connection)
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), head
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        body, received = json.loads(rest[:length]), rest[length:]
        assert body["status"]["code"] in (int(head.split()[1]), 300)
        assert fields.get(b"connection") != b"close" or not received, "only the last one says so"
        assert body["status"].get("request_id", "") in fields[b"x-request-id"].decode()
        found.append((int(head.split()[1]), body))
    return found


def codes(service, *parts):
    return [code for code, _ in answers(service, *parts)]


# Requests sent ahead


def test_a_few_requests_may_be_sent_ahead(service):
    last = service.head(content_length=len(BODY), connection="close") + BODY
    assert codes(service, HEALTH * 16 + last) == [200] * 17


def test_of_thousands_sent_ahead_a_few_are_answered(service):
    assert codes(service, HEALTH * 20_000) == [200] * 17
    assert codes(service, *[HEALTH] * 200)[:17] == [200] * 17


def test_who_sent_too_much_ahead_may_read_the_answers_late(service):
    """A connection that is closed before the client stops sending is reset, and what is still on its way is lost."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", service.port))
        connection.sendall(ask * 100)
        time.sleep(0.5)
        with suppress(ConnectionError):
            for _ in range(3):
                connection.sendall(ask)
                time.sleep(0.1)
        received = read_all(connection)
    assert received.count(b"HTTP/1.1 200") >= 17
    assert received.endswith(b"}")


@pytest.fixture(scope="module")
def impatient():
    """A service that waits for two seconds where others wait for a minute."""
    with Service(*LIMITS, "--response-timeout-s", "2") as running:
        yield running


def memory_mb(running):
    lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


FLOODS = {
    "nothing there": b"GET / HTTP/1.1\r\n\r\n" * 100_000,
    "large answers": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 3000,
    "no token": f"POST {PREFIX}visual_hash HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode() * 40_000,
    "large answers, few": b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 16,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_who_never_reads_is_left_and_takes_little(impatient, flood):
    before_mb = memory_mb(impatient) if sys.platform == "linux" else None
    connections = []
    try:
        for _ in range(4):
            connection = socket.socket()
            connections.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.settimeout(0.5)
            connection.connect(("127.0.0.1", impatient.port))
            with suppress(OSError):
                connection.sendall(flood)
        if before_mb is not None:
            assert memory_mb(impatient) - before_mb < 60
        for connection in connections:
            wait_until(lambda connection=connection: is_reset(connection))
    finally:
        for connection in connections:
            connection.close()
    assert impatient.get("/health").code == 200


def is_reset(connection):
    """Return whether the other side has given up, without reading."""
    try:
        connection.send(b"x")
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def is_holding(running):
    """Return whether the service keeps bytes of requests or responses."""
    return b"imgmatch_held_bytes 0.0" not in running.get("/metrics", authorization=f"Token {TOKEN}").body


def test_a_response_is_read_in_time_or_not_at_all(impatient):
    """A client that reads a little now and then gets no more time."""
    large = json.dumps({"records": [{"x": 20_000_000 * "x"}]}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", impatient.port))
        began = time.monotonic()
        connection.sendall(impatient.head(content_length=len(large)) + large)
        while is_holding(impatient):
            assert time.monotonic() < began + 100, "it is kept"
            with suppress(ConnectionError):
                connection.recv(2000)
            time.sleep(0.1)
        assert time.monotonic() - began >= 2


@pytest.mark.slow
def test_an_idle_connection_is_kept_as_long_as_told():
    """However soon a head has to be there, once it has begun."""
    with Service("--keep-alive-s", "100", "--header-timeout-s", "1") as running, running.connect() as connection:
        for wait_s in (2.5, 2.5, 0):
            connection.sendall(HEALTH)
            response = b""
            while not response.endswith(b"}"):  # the header and the body may come separately
                part = connection.recv(1 << 16)
                assert part
                response += part
            assert response.startswith(b"HTTP/1.1 200 ")
            time.sleep(wait_s)
        connection.sendall(HEALTH[:20])
        started = time.monotonic()
        connection.settimeout(200)
        assert not read_all(connection)
        assert 0.5 < time.monotonic() - started < 90  # after 1 s, not after 100: a header has begun


# Heads


def head_of(n_bytes):
    """Return a request of so many bytes of head, in lines of a hundred."""
    lines = [b"GET /health HTTP/1.1", b"host: localhost", b"connection: close"]
    while (left := n_bytes - sum(len(line) + 2 for line in lines) - 2) > 0:
        lines.append(b"a: ".ljust(min(98, left - 2), b"b"))
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def check_431(found, n_before=0):
    *before, (code, body) = found
    assert [code for code, _ in before] == [200] * n_before
    assert code == 431
    assert "at most 65,536 bytes" in body["status"]["text"]


def test_heads_are_as_large_as_they_may_be(service):
    assert codes(service, head_of(60_000)) == [200]
    kept = head_of(60_000).replace(b"connection: close\r\n", b"")
    assert codes(service, kept * 3 + head_of(65_000)) == [200] * 4
    cookie = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncookie: " + b"c" * 60_000 + b"\r\n\r\n"
    assert codes(service, *(cookie[start : start + 7000] for start in range(0, len(cookie), 7000))) == [200]


TOO_LARGE = {
    "many lines": head_of(70_000),
    "one line": HEALTH[:-2] + b"a: " + b"b" * 200_000 + b"\r\n\r\n",
    "an address": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "endless lines": HEALTH[:-2] + b"a: b\r\n" * 1_000_000,
    "an endless line": HEALTH[:-2] + b"a: " + b"b" * 10_000_000,
    "an endless name": HEALTH[:-2] + b"b" * 10_000_000,
    "an endless address": b"GET /" + b"a" * 10_000_000,
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_larger_heads_are_refused(service, sent):
    check_431(answers(service, sent))
    check_431(answers(service, HEALTH, sent), 1)
    check_431(answers(service, HEALTH * 3 + sent), 3)
    post = service.head(content_length=len(BODY)) + BODY
    check_431(answers(service, post + sent[:300], sent[300:]), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_endless_head_takes_no_memory(service):
    before_mb = memory_mb(service)
    with service.connect() as connection:
        connection.sendall(HEALTH[:-2])
        with suppress(OSError):
            for _ in range(60):
                connection.sendall(b"a: b\r\n" * 160_000)
        assert memory_mb(service) - before_mb < 30


CHUNKS = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
TRAILERS = {
    "many": b"a: b\r\n" * 20_000,
    "one": b"a: " + b"b" * 70_000 + b"\r\n",
    "endless": b"a: " + b"b" * 10_000_000,
}


@pytest.mark.parametrize("trailers", TRAILERS.values(), ids=TRAILERS.keys())
def test_trailers_are_bounded_too(service, trailers):
    post = service.head(transfer_encoding="chunked") + CHUNKS
    check_431(answers(service, post + trailers + b"\r\n"))
    check_431(answers(service, HEALTH * 3 + post + trailers + b"\r\n"), 3)


def test_trailers_change_nothing(service):
    """What is not to stand in trailers, such as the token, does not count there."""
    wrong = service.head(transfer_encoding="chunked", authorization="no", connection="close")
    trailers = b"Authorization: Token %s\r\n\r\n" % TOKEN.encode()
    assert codes(service, wrong + CHUNKS + trailers) == [401]
    slow = HEALTH + wrong + CHUNKS + trailers
    assert codes(service, slow) == [200, 401]


def test_an_endless_chunk_line_is_refused(service):
    post = service.head(transfer_encoding="chunked")
    check_431(answers(service, post + b"5;" + b"a" * 10_000_000))


def test_bodies_are_no_heads(service):
    body = json.dumps({"records": [{"x": 3_000_000 * "x"}]}).encode()
    post = service.head(content_length=len(body)) + body
    last = service.head(content_length=len(body), connection="close") + body
    assert codes(service, post * 2 + last) == [200] * 3
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(BODY[i : i + 3]), BODY[i : i + 3]) for i in range(0, len(BODY), 3))
    head = service.head(transfer_encoding="chunked", connection="close")
    assert codes(service, head + chunks * 1 + b"0\r\na: b\r\n\r\n") == [200]


def test_what_cannot_be_read_waits_for_its_turn(service):
    """The answers before it come first, also where they take long."""
    with HostileServer([jpeg(draw(0))]) as web:
        body = json.dumps({"records": [{"_url": web.url("/slow-headers/x?s=1")}]}).encode()
        post = service.head(content_length=len(body)) + body
        found = answers(service, post, post + HEALTH + b"nonsense\r\n\r\n" + HEALTH)
    assert [code for code, _ in found] == [200, 200, 200, 400]
    head = service.head(transfer_encoding="chunked")
    assert codes(service, head + b'5\r\n{"rec\r\nx\r\n') == [400]
    assert codes(service, HEALTH * 2 + head + b'5\r\n{"rec\r\nx\r\n' + HEALTH) == [200, 200, 400]


# Other protocols


UPGRADES = {"h2c": "h2c", "websocket": "websocket", "several": "h2c, TLS/1.0"}


@pytest.mark.parametrize("protocol", UPGRADES.values(), ids=UPGRADES.keys())
def test_an_upgrade_is_ignored(service, protocol):
    inner = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    upgraded = {"connection": "Upgrade, HTTP2-Settings", "upgrade": protocol, "http2_settings": "AAMAAABkAAQ"}
    last = service.head(content_length=len(BODY), connection="close, Upgrade", upgrade=protocol) + BODY
    post = service.head(content_length=len(BODY), **upgraded) + BODY
    hidden = service.head(content_length=len(inner), **upgraded) + inner
    chunked = service.head(transfer_encoding="chunked", **upgraded) + CHUNKS + b"\r\n"
    found = answers(service, post + hidden + HEALTH + chunked + last)
    assert [code for code, _ in found] == [200, 400, 200, 200, 200]
    assert [len(found[number][1]["records"][0]["phash"]) for number in (0, 3, 4)] == [64] * 3
    bytewise = [last[start : start + 1] for start in range(len(last))]
    assert codes(service, *bytewise) == [200]
    get = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert codes(service, get) == [200]
    assert codes(service, get.replace(b", close", b"") * 10_000) == [200] * 17


def test_a_body_does_not_become_a_request(service):
    """As sent through a proxy: the head first, the body once the proxy has read it."""
    inner = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    head = service.head(connection="Upgrade", upgrade="h2c", content_length=len(inner))
    with service.connect() as connection:
        connection.sendall(head)
        time.sleep(0.3)
        connection.sendall(inner)
        time.sleep(0.3)
        received = connection.recv(1 << 16)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1") == 1


def test_no_proxy(service):
    for sent in (b"CONNECT a.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        assert codes(service, sent) == [400]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_with_http2(service):
    command = ["curl", "-sS", "-m", "10", "--http2", "-H", f"Authorization: Token {TOKEN}"]
    command += ["-H", "Content-Type: application/json", "-d", "@-", service.url(PREFIX + "visual_hash")]
    done = subprocess.run(command, input=BODY, capture_output=True, timeout=30, check=True)
    assert len(json.loads(done.stdout)["records"][0]["phash"]) == 64
