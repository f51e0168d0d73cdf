"""`imgmatch serve` and those who do not wish it well: wrong, huge, slow, half-sent and dropped requests."""

import asyncio
import base64
import json
import select
import socket
import time
from contextlib import ExitStack, suppress

import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from service import PREFIX, TOKEN, Service, read_all
from waiting import wait_until

pytestmark = pytest.mark.long

PHOTO = base64.b64encode(jpeg(draw(1, 64, 48))).decode()
GOOD = {"records": [{"_base64": PHOTO}]}
LIMITS = [
    *("--max-body-bytes", "300000", "--max-values", "5000", "--max-records", "50", "--max-pixels", "100000"),
    *("--max-connections", "60", "--attempts", "1", "--allow-private-networks"),
]
PATIENCE = [f"--{name}-s=600" for name in ("body-timeout", "header-timeout", "deadline", "timeout")]
IMPATIENCE = ["--body-timeout-s=1.5", "--header-timeout-s=1.5", "--keep-alive-s=1", "--deadline-s=6", "--timeout-s=600"]


@pytest.fixture(scope="module")
def service():
    with Service(*LIMITS, *PATIENCE) as running:
        yield running
        check_log(running)


@pytest.fixture(scope="module")
def impatient():
    """A service that gives up clients and servers soon: of a request that must succeed, it may give up the client."""
    with Service(*LIMITS, *IMPATIENCE) as running:
        yield running
        check_log(running)


def check_log(running):
    assert not [event for event in running.events if event["event"] == "bug"], running.lines[-50:]
    assert not [line for line in running.lines if line.startswith("Traceback")], running.lines[-50:]


@pytest.fixture(scope="module")
def patient():
    """A service that waits for slow clients and servers longer than a test takes."""
    with Service("--allow-private-networks", "--grace-s", "1", "--max-connections", "300", *PATIENCE) as running:
        yield running


def n_under_way(service):
    metrics = service.get("/metrics", authorization=f"Token {TOKEN}").body.decode().splitlines()
    return float(next(line for line in metrics if line.startswith("imgmatch_requests_under_way ")).split()[1])


def check_refusal(answer, code):
    assert answer.code == code, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["status"]["code"] == code
    assert answer.json["status"]["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return answer.text


def test_wrong_tokens(service):
    wrong = [
        "",
        TOKEN,
        "Token",
        f"Token {TOKEN}x",
        f"Token {TOKEN[:-1]}",
        f"Bearer {TOKEN}",
        "Token é".encode().decode("latin-1"),
        "Token " + 5000 * "a",
    ]
    for authorization in wrong:
        for method in ("ping", "visual_hash"):
            answer = service.ask(method, GOOD, authorization=authorization)
            assert "Authorization must be" in check_refusal(answer, 401)
            assert answer.headers["www-authenticate"] == "Token"
    assert service.ask("ping", authorization=f"token  {TOKEN} ").code == 200


def test_other_paths_methods_and_types(service):
    check_refusal(service.ask("nothing", GOOD), 404)
    check_refusal(service.get("/nothing"), 404)
    check_refusal(service.get("/image_matching/v2/../../etc/passwd"), 404)
    answer = service.get(PREFIX + "visual_hash")
    check_refusal(answer, 405)
    assert answer.headers["allow"] == "POST"
    check_refusal(service.send("POST", "/health", b"{}", {}), 405)
    for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "image/jpeg"):
        assert "application/json" in check_refusal(service.ask("visual_hash", GOOD, content_type=content_type), 415)
    check_refusal(service.ask("visual_hash", GOOD, content_encoding="gzip"), 415)
    assert service.ask("visual_hash", GOOD, content_type="Application/JSON; charset=utf-8").code == 200


MALFORMED = {
    "empty": b"",
    "cut": b'{"records": [{"_base64": "',
    "text": b"hello",
    "two": b'{"records": []}{"records": []}',
    "NaN": b'{"records": [{"x": NaN}]}',
    "Infinity": b'{"records": [], "range": -Infinity}',
    "invalid UTF-8": b'{"records": [{"x": "\xff\xfe"}]}',
    "surrogate": b'{"records": [{"x": "\\ud800"}]}',
    "control": b'{"records": [{"x": "\x00"}]}',
    "deep lists": b'{"records": ' + 2000 * b"[" + 2000 * b"]" + b"}",
    "deep objects": b'{"records": [{"x": ' + 2000 * b'{"a":' + b"1" + 2000 * b"}" + b"}]}",
    "UTF-16": '{"records": []}'.encode("utf-16"),
    "overflow": b'{"records": [{"_url": "", "x": 1e999}]}',
    "nested overflow": b'{"records": [{"x": [{"y": [1, -1e400]}]}]}',
    "overflow of the query": b'{"query_record": {"x": 1e999}, "records": []}',
    "overflow without exponent": b'{"records": [{"x": ' + 400 * b"9" + b".0}]}",
    "digits": b'{"records": [{"x": ' + 5000 * b"9" + b"}]}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("method", ["visual_hash", "rank_images"])
def test_malformed_json(service, body, method):
    assert "must be JSON" in check_refusal(service.ask(method, body), 400)


WRONG = [
    ([], "the body must be a JSON object, got a list"),
    ("x", "the body must be a JSON object, got 'x'"),
    ({}, "records is missing"),
    ({"records": None}, "records must be a list, got None"),
    ({"records": {"_url": "x"}}, "records must be a list"),
    ({"records": [1]}, "records[0] must be an object, got 1"),
    ({"records": [{}, {"_url": 5}]}, "records[1]._url must be a string, got 5"),
    ({"records": [{"_base64": ["x"]}]}, "records[0]._base64 must be a string, got a list"),
    ({"records": [{"_id": 1.5}]}, "records[0]._id must be a string or a whole number, got 1.5"),
    ({"records": [{"_id": True}]}, "records[0]._id must be a string or a whole number, got True"),
    ({"records": [{}] * 11}, "records must hold at most 10, got 11"),
    ({"records": [], "hash_type": "sha1"}, "hash_type must be 'bmh1' or 'phash', got 'sha1'"),
    ({"records": [], "hash_type": []}, "hash_type"),
    ({"records": [], "hash_type": {"a": 1}}, "hash_type"),
]


@pytest.mark.parametrize(("body", "text"), WRONG)
def test_wrong_fields_are_named(service, body, text):
    assert check_refusal(service.ask("visual_hash", body), 422).startswith(text)


@pytest.mark.parametrize("value", [-1, 101, 1e300, "5", True, [1], 10**400])
def test_wrong_ranges(service, value):
    body = json.dumps({"records": [], "range": value}).encode()
    assert check_refusal(service.ask("remove_duplicates", body), 422).startswith("range must be a number")


def test_other_wrong_calls(service):
    assert "query_record is missing" in check_refusal(service.ask("rank_images", {"records": []}), 422)
    several = {"records": [], "hash_type": ["bmh1", "phash"]}
    assert "hash_type" in check_refusal(service.ask("remove_duplicates", several), 422)
    assert "at most 50, got 51" in check_refusal(service.ask("remove_duplicates", {"records": [{}] * 51}), 422)
    assert service.ask("remove_duplicates", {"records": [{}] * 50}).code == 200
    assert service.ask("remove_duplicates", {"records": []}).json["records"] == []


def test_the_last_of_equal_keys_counts(service):
    body = b'{"records": [{"_url": "http://a/", "_base64": "@", "_base64": "%s"}], "records": 1, "records": [{}]}'
    (record,) = service.ask("visual_hash", body % PHOTO.encode()).json["records"]
    assert record.keys() == {"_id", "_status"}
    assert service.ask("visual_hash", b'{"records": [{"x": 1, "x": {"y": 2}}]}').json["records"][0]["x"] == {"y": 2}


def test_numbers_of_any_size_come_back(service):
    body = b'{"records": [{"a": 1e308, "b": -0.0, "c": 123456789012345678901234567890, "d": 1E-400}]}'
    (record,) = service.ask("visual_hash", body).json["records"]
    assert (record["a"], record["c"], record["d"]) == (1e308, 123456789012345678901234567890, 0)


def test_too_large(service):
    check_refusal(service.ask("visual_hash", b" " * 300_001), 413)
    check_refusal(service.ask("visual_hash", {"records": [{}] * 10_000}), 413)
    check_refusal(service.ask("visual_hash", b"[" * 10_000), 413)
    assert service.ask("visual_hash", json.dumps(GOOD).encode().ljust(300_000)).code == 200


def test_a_million_records_are_not_parsed(patient):
    assert "JSON values" in check_refusal(patient.ask("visual_hash", {"records": [{}] * 1_000_000}), 413)
    assert patient.ask("visual_hash", GOOD).code == 200


def test_too_much_without_a_length_is_cut_off_while_it_comes(service):
    with service.connect() as connection:
        head = service.head(transfer_encoding="chunked")
        connection.sendall(head)
        n_sent = 0
        try:
            while n_sent < 50 << 20:
                connection.sendall(b"10000\r\n" + bytes(65536).replace(b"\0", b" ") + b"\r\n")
                n_sent += 65536
        except OSError:
            pass
        assert n_sent < 20 << 20
    with service.connect() as connection:
        connection.sendall(service.head(content_length=10**15))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_too_many_pixels_and_bad_pictures_are_rows(service):
    big = base64.b64encode(jpeg(draw(0, 400, 300))).decode()
    (record,) = service.ask("visual_hash", {"records": [{"_base64": big}]}).json["records"]
    assert "pixels" in record["_status"]["text"]


# By hand, over a socket


def test_chunked_and_pipelined(service):
    body = json.dumps(GOOD).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    with service.connect() as connection:
        connection.sendall(service.head(transfer_encoding="chunked") + chunks + b"0\r\n\r\n")
        one = service.head(content_length=len(body)) + body
        last = service.head(content_length=len(body), connection="close") + body
        connection.sendall(one * 3 + last)
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 5
    assert answers.count(b'"phash":"') == 5


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST /image_matching/v2/ping HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /image_matching/v2/ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /image_matching/v2/ping HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /image_matching/v2/ping HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        bytes(range(256)) * 4,
    ],
)
def test_no_http_at_all(service, sent):
    with service.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ", b"HTTP/1.1 404 ")), answer
    if answer.startswith(b"HTTP/1.1 400"):
        assert b'{"status":{"code":400,' in answer
    assert service.get("/health").code == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", None),
        (b"POST /image_matching/v2/vis", None),
        ("head", 408),
        ("half a body", 408),
    ],
    ids=["nothing", "half a head", "no body", "half a body"],
)
def test_slow_clients_are_left(impatient, sent, code):
    if sent == "head":
        sent = impatient.head(content_length=1000)
    elif sent == "half a body":
        sent = impatient.head(content_length=1000) + b'{"records": ['
    with impatient.connect() as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % code) if code else not answer


def test_a_drip_is_left_too(impatient):
    """One byte at a time, so that the connection is never idle."""
    with impatient.connect() as connection:
        connection.settimeout(10)
        wait_until(lambda: is_reset_by(connection))


def is_reset_by(connection):
    """Return whether the other side has closed the connection, found by sending a byte."""
    time.sleep(0.05)
    try:
        connection.sendall(b"P")
    except ConnectionError:
        return True
    return False


def test_slow_clients_hold_no_worker(patient):
    slow = [patient.connect() for _ in range(40)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(patient.head(content_length=5000)[: 30 if number % 2 else None])
        for _ in range(5):
            assert patient.ask("visual_hash", GOOD).code == 200
        assert not select.select(slow, [], [], 0)[0], "the service waits for them no longer"
    finally:
        for connection in slow:
            connection.close()


def test_too_many_connections(patient):
    idle = [patient.connect() for _ in range(310)]
    try:
        idle[-1].settimeout(60)
        assert idle[-1].recv(1000).startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in idle:
            connection.close()
    wait_until(lambda: is_accepted(patient))
    assert patient.ask("visual_hash", GOOD).code == 200


def is_accepted(service):
    with suppress(OSError):
        return service.get("/health").code == 200
    return False


def test_the_deadline_ends_what_hangs_and_stops_its_downloads(impatient):
    with HostileServer([jpeg(draw(0))]) as web:
        started = time.monotonic()
        answer = impatient.ask(
            "visual_hash", {"records": [{"_url": web.url("/slow-headers/x?s=600")}, {"_base64": PHOTO}]}
        )
        assert time.monotonic() - started > 5
        assert "not done within 6 seconds" in check_refusal(answer, 503)
        assert answer.headers["retry-after"] == "1"


def test_a_client_that_leaves_is_forgotten(patient):
    with HostileServer([jpeg(draw(0))]) as web:
        body = json.dumps({"records": [{"_url": web.url("/slow-headers/x?s=200")}]}).encode()
        with patient.connect() as connection:
            connection.sendall(patient.head(content_length=len(body)) + body)
            wait_until(lambda: n_under_way(patient) == 1)
        wait_until(lambda: n_under_way(patient) == 0, 20)


def test_a_slow_server_holds_up_nobody_else(patient):
    """However many requests wait for it."""
    with ExitStack() as stack:
        web, slow = (stack.enter_context(HostileServer([jpeg(draw(0))])) for _ in range(2))
        for number in range(200):
            body = json.dumps({"records": [{"_url": slow.url(f"/slow-headers/{number}?s=200")}]}).encode()
            connection = stack.enter_context(patient.connect())
            connection.sendall(patient.head(content_length=len(body)) + body)
        wait_until(lambda: n_under_way(patient) == 200)
        (record,) = patient.ask("visual_hash", {"records": [{"_url": web.url("/ok/1.jpg")}]}).json["records"]
        assert len(record["phash"]) == 64
        assert n_under_way(patient) == 200


def test_overload_is_said():
    options = ["--allow-private-networks", "--max-requests", "2", *PATIENCE]
    with HostileServer([jpeg(draw(0))], is_holding=True) as web, Service(*options) as running:
        body = json.dumps({"records": [{"_url": web.url("/held/x")}]}).encode()
        busy = [running.connect() for _ in range(2)]
        for connection in busy:
            connection.sendall(running.head(content_length=len(body), connection="close") + body)
        wait_until(lambda: n_under_way(running) == 2)
        answer = running.ask("visual_hash", GOOD)
        assert "in flight" in check_refusal(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        web.is_holding = False
        for connection in busy:
            with connection:
                assert read_all(connection).startswith(b"HTTP/1.1 200 ")
        assert running.ask("visual_hash", GOOD).code == 200


@pytest.mark.slow
def test_a_thousand_pictures_hold_up_nobody():
    """One request's many photos are taken in turn with those of others."""
    large = base64.b64encode(jpeg(draw(3, 1600, 1200))).decode()
    with Service() as running:
        body = json.dumps({"records": [{"_base64": large}] * (60_000_000 // len(large))}).encode()
        with running.connect() as connection:
            connection.sendall(running.head("remove_duplicates", content_length=len(body), connection="close") + body)
            wait_until(lambda: n_under_way(running) == 1)
            assert running.ask("visual_hash", GOOD).code == 200
            assert n_under_way(running) == 1, "it waited for the many"
            connection.settimeout(200)
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")


# A thousand at once


async def ask_once(service, body, n_times):
    codes = []
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    for _ in range(n_times):
        writer.write(service.head(content_length=len(body)) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-len"))
        answer = json.loads(await reader.readexactly(length))
        codes.append((int(head.split()[1]), answer["status"]["code"], len(answer["records"][0]["phash"])))
    writer.close()
    await writer.wait_closed()
    return codes


@pytest.mark.slow
def test_a_thousand_clients_at_once():
    with Service() as running:
        body = json.dumps(GOOD).encode()

        async def all_of_them():
            return await asyncio.gather(*(ask_once(running, body, 2) for _ in range(1000)))

        answers = asyncio.run(all_of_them())
        assert [code for codes in answers for code in codes] == [(200, 200, 64)] * 2000


@pytest.mark.parametrize("name", ["Host", "Authorization", "Content-Type", "Content-Encoding"])
def test_a_header_of_which_one_counts_stands_once(service, name):
    values = {"Host": "localhost", "Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
    line = f"{name}: {values.get(name, 'identity')}\r\n"
    body = json.dumps(GOOD).encode()
    head = service.head(content_length=len(body), connection="close").decode()
    for lines, code in ((line * 2, b"400"), (line, b"200")):
        others = "".join(one for one in head.splitlines(keepends=True)[:-1] if not one.lower().startswith(name.lower()))
        with service.connect() as connection:
            connection.sendall(f"{others}{lines}\r\n".encode() + body)
            received = read_all(connection)
        assert received.split(b" ", 2)[1] == code, received
        if code == b"400":
            assert f"the header {name.lower()} must occur once" in received.decode()


def test_the_page_is_not_framed(service):
    policy = service.get("/docs").headers["content-security-policy"]
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
