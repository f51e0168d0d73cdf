"""`imgmatch serve` in a process of its own, and a client that can be as rude as it likes."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from waiting import wait_until

PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli import main; main()", "serve"]
TOKEN = "a-token-of-the-tests"
PREFIX = "/image_matching/v2/"


class Service:
    """A running service: where it is, what it logs, how to ask it."""

    def __init__(
        self, *options: str, token: str | None = TOKEN, port: int = 0, program: Sequence[str] = PROGRAM
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "IMGMATCH_TOKEN"}
        if token is not None:
            environment["IMGMATCH_TOKEN"] = token
        self.token = token
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*program, "--port", str(port), *options], env=environment, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Service":
        try:
            self.port = self.wait_for_event("listening")["port"]
            wait_until(lambda: self.get("/ready").code == 200, 200)  # it may compile kernels first
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.lines.extend(iter(stream.readline, ""))

    def stop(self) -> int:
        """End it in an orderly way; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(100)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(10)
        return code

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def count(self, name: str) -> int:
        """Return how many log lines are of this event."""
        return [event["event"] for event in self.events].count(name)

    def wait_for_event(self, name: str, seconds: float = 200, **fields: object) -> dict[str, Any]:
        """Return the first log line of this event that has these fields."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for event in self.events:
                if event["event"] == name and fields.items() <= event.items():
                    return event
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.01)
        raise AssertionError(f"no {name} {fields} in {''.join(self.lines[-20:])}")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, **headers: str) -> "Answer":
        return self.send("GET", path, None, headers)

    def ask(self, method: str, body: object = None, **headers: str) -> "Answer":
        """POST to a documented method, as the documented curl commands do."""
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        if self.token is not None:
            headers.setdefault("authorization", f"Token {self.token}")
        return self.send("POST", PREFIX + method, data, headers)

    def send(self, verb: str, path: str, data: bytes | None, headers: dict[str, str]) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=200)
        try:
            connection.request(verb, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def head(self, method: str = "visual_hash", **headers: object) -> bytes:
        """Return the head of a request, to be sent by hand."""
        given = {"host": "localhost", "content-type": "application/json", "authorization": f"Token {self.token}"}
        given |= {name.replace("_", "-"): str(value) for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return f"POST {PREFIX}{method} HTTP/1.1\r\n{lines}\r\n".encode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=200)


class Answer:
    """What came back."""

    def __init__(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.code = code
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        text: str = self.json["status"]["text"]
        return text


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the connection ends."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=200) as response:
        body: bytes = response.read()
        return body
