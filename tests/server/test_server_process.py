"""`imgmatch serve` as a process: its options, its start, its workers and its end."""

import asyncio
import base64
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack
from pathlib import Path

import duckdb
import polars as pl
import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from service import PROGRAM, TOKEN, Service, is_listening, read_all
from typer.testing import CliRunner
from waiting import wait_until

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.errors import ArgumentError
from imgmatch_df.server import process as server_run
from imgmatch_df.server import uvicorn_version
from imgmatch_df.server.settings import Settings, is_loopback, read_tokens

pytestmark = pytest.mark.long

PHOTO = base64.b64encode(jpeg(draw(2, 300, 200))).decode()
GOOD = {"records": [{"_base64": PHOTO}]}


def run(*options, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "IMGMATCH_TOKEN"}
    return subprocess.run(
        [*PROGRAM, *options], env=inherited | environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    ("installed", "is_allowed"),
    [("0.33.9", False), ("0.34.0", True), ("0.54.2", True), ("0.55.0", False), ("1.0.0", False), ("unknown", False)],
)
def test_only_tested_minors_of_uvicorn_are_used(monkeypatch, installed, is_allowed):
    monkeypatch.setattr(uvicorn_version, "version", lambda _: installed)
    if is_allowed:
        uvicorn_version.check_uvicorn()
        return
    done = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert done.exit_code == 2
    assert f"imgmatch serve needs uvicorn 0.34 to 0.54, the installed version is {installed}" in done.stderr
    assert "Hint: pip install" in done.stderr


def test_the_tested_minors_of_uvicorn_are_those_that_the_package_allows():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    first, last = uvicorn_version.FIRST_MINOR, uvicorn_version.LAST_MINOR
    wanted = f"uvicorn>={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"
    assert wanted in project["project"]["optional-dependencies"]["server"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.invalid"])
def test_without_a_token_only_this_machine(host):
    done = run("--host", host, "--port", "0")
    assert done.returncode == 2
    assert "without a token, host must be a loopback address" in done.stderr
    assert "IMGMATCH_TOKEN" in done.stderr.split("Hint:")[1]


def test_loopback_hosts():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "no-such-host.invalid")))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--port", "70000"], "port must be"),
        (["--workers", "0"], "workers must be a whole number of at least 1, got 0"),
        (["--deadline-s", "nan"], "deadline_s must be"),
        (["--max-body-bytes", "-1"], "max_body_bytes must be"),
        (["--decode", "fast"], "decode must be one of"),
        (["--trim", "edges"], "trim must be one of"),
        (["--token-file", "no-such-file"], "cannot be read"),
    ],
)
def test_wrong_options(options, text):
    done = CliRunner().invoke(app, ["serve", *options], env={"COLUMNS": "200", "IMGMATCH_TOKEN": ""})
    assert done.exit_code == 2
    assert text in done.output
    assert "Hint:" in done.output


def test_tokens_of_file_and_environment(tmp_path, monkeypatch):
    file = tmp_path / "tokens"
    monkeypatch.delenv("IMGMATCH_TOKEN", raising=False)
    assert read_tokens(None) == ()
    file.write_text("one\n\n  two \r\none\n")
    assert read_tokens(file) == ("one", "two")
    monkeypatch.setenv("IMGMATCH_TOKEN", "three")
    assert read_tokens(file) == ("one", "two", "three")
    for wrong in ("", "\n \n", "a b", "é", "a\x07"):
        file.write_text(wrong)
        with pytest.raises(ArgumentError) as error:
            read_tokens(file)
        assert wrong.strip() == "" or wrong not in str(error.value)
    assert "three" not in repr(Settings(tokens=("three",)))


def test_tokens_are_no_option():
    assert run("--token", "x").returncode == 2


def test_every_token_of_the_file_opens_and_a_taken_port_is_said(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("first\nsecond\n")
    with Service("--token-file", str(file), "--host", "0.0.0.0") as running:
        for token in ("first", "second", TOKEN):
            assert running.ask("ping", authorization=f"Token {token}").code == 200
        assert running.ask("ping", authorization="Token third").code == 401
        done = run("--port", str(running.port))
        assert done.returncode == 2
        assert re.search(r"cannot listen at 127.0.0.1 port \d+: Address already in use", done.stderr)


def test_without_a_token_it_says_so_and_answers_to_its_own_name_only():
    with Service(token=None) as running:
        assert any("no token is set" in line for line in running.lines)
        assert running.ask("visual_hash", GOOD).code == 200
        for host in ("localhost:80", "127.0.0.1", "[::1]:8000"):
            assert running.ask("ping", host=host).code == 200
        for host in ("evil.example", "evil.example:8000", "127.evil.example", "localhost.evil.example"):
            assert running.ask("ping", host=host).code == 421
        assert running.stop() == 0


def test_a_missing_extra_is_named():
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from imgmatch_df.cli import main; sys.argv = ['imgmatch', 'serve']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert "imgmatch-df[server]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_does_not_load_the_server():
    code = (
        "import sys, imgmatch_df.cli.app; print([m for m in ('uvicorn', 'starlette', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.strip() == "[]"


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("platform", "limits", "expected"),
    [
        ("linux", (1024, 524_288), (524_288, 524_288)),
        ("linux", (1024, INFINITY), (10_240, INFINITY)),
        ("linux", (524_288, 524_288), None),
        ("linux", (20_000, INFINITY), None),
        ("linux", (INFINITY, INFINITY), None),
        ("darwin", (256, INFINITY), (10_240, INFINITY)),
        ("darwin", (256, 1 << 20), (10_240, 1 << 20)),
        ("darwin", (256, 1024), (1024, 1024)),
        ("darwin", (49_152, INFINITY), None),
        ("darwin", (INFINITY, INFINITY), None),
    ],
)
@pytest.mark.parametrize("error", [None, ValueError("not allowed to raise maximum limit"), OSError(22, "Invalid")])
def test_open_files_are_raised_as_far_as_the_system_allows(monkeypatch, platform, limits, expected, error):
    """And a system that allows less than it says ends nothing."""
    asked = []

    def set_limit(_, wanted):
        asked.append(wanted)
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    server_run._allow_many_files()
    assert asked == ([] if expected is None else [expected])


def test_a_system_without_limits_is_none_of_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    server_run._allow_many_files()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_ends_at_once(number):
    with Service("--grace-s", "600") as running:
        running.process.send_signal(number)
        assert running.process.wait(100) == 0  # a sixth of --grace-s
        assert not is_listening(running.port)


class Client:
    """Asks again and again over one connection, and notes what became of each request."""

    def __init__(self, service):
        self.service = service
        self.n_answered = 0
        self.lost = []

    async def run(self):
        body = json.dumps(GOOD).encode()
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port)
            except OSError:
                return  # it takes nobody on any more
            closed = False
            while not closed:
                writer.write(self.service.head(content_length=len(body)) + body)
                try:
                    await writer.drain()
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(re.search(rb"content-length: (\d+)", head)[1])
                    answer = json.loads(await reader.readexactly(length))
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.lost.append(repr(error))
                    return
                assert head.startswith(b"http/1.1 200"), head
                assert len(answer["records"][0]["phash"]) == 64
                self.n_answered += 1
                closed = b"connection: close" in head
            writer.close()


@pytest.mark.parametrize("n_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stop_under_load_loses_no_request(n_workers):
    with Service("--workers", str(n_workers)) as running:
        clients = [Client(running) for _ in range(32)]

        async def load():
            tasks = [asyncio.create_task(client.run()) for client in clients]
            while sum(client.n_answered for client in clients) < 60:
                await asyncio.sleep(0.05)
            running.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*tasks), 100)

        asyncio.run(load())
        assert running.process.wait(100) == 0
        assert [client.lost for client in clients if client.lost] == []


def test_a_stop_waits_for_what_is_under_way_and_no_longer_than_allowed():
    with (
        HostileServer([jpeg(draw(0))]) as web,
        Service("--allow-private-networks", "--grace-s", "4", "--timeout-s", "600") as running,
        ExitStack() as stack,
    ):
        bodies = [json.dumps({"records": [{"_url": web.url(f"/slow-headers/x?s={s}")}]}).encode() for s in (2, 600)]
        first, second = (stack.enter_context(running.connect()) for _ in bodies)
        for connection, body in zip((first, second), bodies, strict=True):
            connection.sendall(running.head(content_length=len(body)) + body)
        wait_until(lambda: b"requests_under_way 2.0" in running.get("/metrics", authorization=f"Token {TOKEN}").body)
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_event("stopping")
        wait_until(lambda: not is_listening(running.port))
        assert b'"phash":"' in read_all(first)
        assert running.process.wait(100) == 0
        assert time.monotonic() - started > 3


def test_several_workers_share_port_and_metrics_and_are_replaced():
    with Service("--workers", "2") as running:
        wait_until(lambda: len({event["pid"] for event in running.events if event["event"] == "listening"}) == 2)
        for _ in range(30):
            assert running.ask("visual_hash", GOOD).code == 200
        # A request is counted once it is answered, maybe a moment after the other worker is asked for the counts.
        counted = b'imgmatch_requests_total{code="200",method="visual_hash"} 30.0'
        wait_until(lambda: counted in running.get("/metrics", authorization=f"Token {TOKEN}").body)
        victim = running.wait_for_event("listening")["pid"]
        os.kill(victim, signal.SIGKILL)
        running.wait_for_event("worker died", pid=victim)
        wait_until(lambda: len({event["pid"] for event in running.events if event["event"] == "listening"}) == 3)
        assert running.ask("visual_hash", GOOD).code == 200
        assert running.stop() == 0


def test_a_store_answers_for_what_it_knows(tmp_path, encoded):
    store = tmp_path / "hashes.duckdb"
    with HostileServer(encoded) as pictures:
        known, unknown = pictures.url("/ok/1.jpg"), pictures.url("/ok/2.jpg")
        frame = pl.DataFrame({"source": [known, pictures.url("/status/404")]})
        imgmatch_df.write_hashes(frame, store, source="source", allow_private_networks=True)
        asked = {"records": [{"_url": known}, {"_url": unknown}, {"_url": known, "mine": 7}]}
        pictures.targets.clear()
        with Service("--allow-private-networks", "--store", str(store)) as service:
            first, second, third = service.ask("visual_hash", asked).json["records"]
            assert list(pictures.targets) == ["/ok/2.jpg"], "what is stored is not fetched"
            stored = imgmatch_df.read_hashes(store).row(0, named=True)
            assert first["phash"] == third["phash"] == f"{stored['phash']:064b}"
            assert (first["_width"], first["_height"]) == (stored["width"], stored["height"])
            assert second["phash"] != first["phash"]
            # Also while somebody has the store open for writing.
            with duckdb.connect(str(store)) as connection:
                connection.execute("BEGIN")
                connection.execute("DELETE FROM hashes")
                again = service.ask("visual_hash", asked).json["records"]
                connection.execute("ROLLBACK")
            assert [record["phash"] for record in again] == [first["phash"], second["phash"], first["phash"]]
            assert "/ok/1.jpg" not in pictures.targets
            # One that failed when it was stored is fetched, too.
            (gone,) = service.ask("visual_hash", {"records": [{"_url": frame["source"][1]}]}).json["records"]
            assert "Unable to download" in gone["_status"]["text"]
            assert "/status/404" in pictures.targets


def test_a_store_of_other_hashes_is_refused(tmp_path):
    frame = pl.DataFrame({"source": ["http://a.example/a.jpg"], "phash": [7]}, schema_overrides={"phash": pl.UInt64})
    imgmatch_df.write_hashes(frame, tmp_path / "phash.duckdb")
    for name, text in (("phash.duckdb", "hash_types is 'phash' in the store"), ("none.duckdb", "no such store")):
        done = run("--port", "0", "--store", str(tmp_path / name))
        assert done.returncode == 2
        assert text in done.stderr
