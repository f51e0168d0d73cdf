"""`imgmatch serve` and what it may take: memory of unread responses, open files, and processes that end with it."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from drawing import draw, jpeg
from service import PROGRAM, TOKEN, Service
from waiting import wait_until

from imgmatch_df.server.metrics_folder import metrics_folder, remove_unused_folders, using_folder

pytestmark = pytest.mark.long

PHOTO = base64.b64encode(jpeg(draw(1, 64, 48))).decode()
GOOD = {"records": [{"_base64": PHOTO}]}
MB = 1_000_000
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children(pid):
    """Return the processes that descend from one."""
    found = children_of(pid)
    return found + [one for child in found for one in children(child)]


def children_of(pid):
    found = []
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_running(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def memory_mb(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def held_bytes(service):
    text = service.get("/metrics", authorization=f"Token {TOKEN}").body.decode()
    return float(next(line for line in text.splitlines() if line.startswith("imgmatch_held_bytes ")).split()[1])


# Responses that are not read


def post_unread(service, stack, n_bytes):
    """Post a large record, read nothing; return the connection."""
    body = json.dumps({"records": [{"_base64": "A" * n_bytes}]}).encode()
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", service.port))
    with suppress(ConnectionError):
        connection.sendall(service.head(content_length=len(body)) + body)
    return connection


LIMIT = 24 * MB


@pytest.fixture(scope="module")
def service():
    # What the program has freed is given back to the system, so that its memory is what it keeps.
    program = ["env", "MALLOC_MMAP_THRESHOLD_=1000000", *PROGRAM] if sys.platform == "linux" else PROGRAM
    with Service("--max-held-bytes", str(LIMIT), "--response-timeout-s", "600", program=program) as running:
        yield running
        assert not [event for event in running.events if event["event"] == "bug"], running.lines[-50:]
        assert not [line for line in running.lines if "Traceback" in line], running.lines[-50:]


@linux_only
def test_unread_responses_are_held_bytes(service):
    before_mb = memory_mb(service.process.pid)
    with ExitStack() as stack:
        for _ in range(25):
            post_unread(service, stack, 20 * MB)
        wait_until(lambda: held_bytes(service) > LIMIT / 2)
        assert held_bytes(service) <= LIMIT
        # 17 MB: one response. Without the limit 400 MB.
        assert memory_mb(service.process.pid) - before_mb < 100
        refused = service.ask("visual_hash", {"records": [{"_base64": "A" * 23 * MB}]})
        assert refused.code == 503
        assert "responses that are not read" in refused.text
        assert service.get("/health").code == 200
    wait_until(lambda: held_bytes(service) == 0)
    assert service.ask("visual_hash", GOOD).code == 200


def test_a_large_response_that_is_read_is_whole(service):
    record = {"_base64": "A" * 20 * MB, "_id": "large"}
    assert service.ask("visual_hash", {"records": [record]}).json["records"][0]["_base64"] == record["_base64"]
    assert held_bytes(service) == 0


# Decoder processes


@linux_only
@pytest.mark.parametrize("victim", ["decoders", "fork server"])
def test_killed_decoders_are_replaced(service, victim):
    (server,) = children_of(service.process.pid)
    decoders = children(server)
    assert decoders
    for pid in [server] if victim == "fork server" else decoders:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, decoders)))
    # Each of those that are gone may cost one record.
    records = [service.ask("visual_hash", GOOD).json["records"][0] for _ in range(12)]
    assert all("phash" in record for record in records[-4:])
    assert sum("phash" not in record for record in records) <= len(decoders)
    assert service.get("/ready").code == 200


@linux_only
def test_ready_says_when_nothing_can_be_hashed(service):
    (server,) = children_of(service.process.pid)
    decoders = children(server)
    os.kill(server, signal.SIGSTOP)
    for pid in decoders:
        os.kill(pid, signal.SIGKILL)
    try:
        wait_until(lambda: service.get("/ready").code == 503)
        assert service.get("/health").code == 200
    finally:
        os.kill(server, signal.SIGCONT)
    wait_until(lambda: service.get("/ready").code == 200)
    assert "phash" in service.ask("visual_hash", GOOD).json["records"][0]


@pytest.mark.slow
def test_without_decoder_processes():
    with Service("--no-isolate") as service:
        assert "phash" in service.ask("visual_hash", GOOD).json["records"][0]
        if sys.platform == "linux":
            assert not children(service.process.pid)


# Open files


@linux_only
@pytest.mark.slow
def test_few_open_files_mean_few_connections_and_few_lines():
    limit = ["-c", f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); {PROGRAM[-2]}", PROGRAM[-1]]
    with Service(program=[*PROGRAM[:-3], *limit]) as service:
        said = service.wait_for_event("fewer connections")
        assert 20 <= said["max_connections"] < 64
        assert said["open_files"] == 64
        n_lines = len(service.lines)
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(service.connect())
            time.sleep(3)
            assert len(service.lines) - n_lines < 20
            used_s = cpu_s(service.process.pid)
            time.sleep(1)
            assert cpu_s(service.process.pid) - used_s < 0.7
        wait_until(lambda: answers(service))
        assert service.ask("visual_hash", GOOD).json["records"][0]["phash"]
        assert not [line for line in service.lines if "Traceback" in line]


def answers(service):
    with suppress(OSError):
        return service.get("/ready").code == 200
    return False


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Processes


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_all_processes_end_when_the_first_is_killed(n_workers, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Service("--workers", str(n_workers)) as service:
        wait_until(lambda: len([event for event in service.events if event["event"] == "ready"]) == n_workers)
        pids = children(service.process.pid)
        assert len(pids) > n_workers
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(map(is_running, pids)))
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", service.port))
            listener.listen()
    assert not list(tmp_path.glob("imgmatch-metrics-*"))


@pytest.mark.skipif(os.name != "posix", reason="folders are not locked")
def test_folders_of_metrics_are_removed_when_no_process_uses_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others = tmp_path / "others"
    others.mkdir()
    (others / "file").touch()
    (tmp_path / "imgmatch-metrics-link").symlink_to(others)
    for name in ("used", "left"):
        (tmp_path / f"imgmatch-metrics-{name}").mkdir()
        (tmp_path / f"imgmatch-metrics-{name}" / "counter_1.db").touch()
    with using_folder(str(tmp_path / "imgmatch-metrics-used")):
        with metrics_folder() as folder:
            remove_unused_folders()
            assert Path(folder).exists()
            names = {path.name.removeprefix("imgmatch-metrics-") for path in tmp_path.iterdir()}
            assert names == {"others", "link", "used", Path(folder).name.removeprefix("imgmatch-metrics-")}
        assert not Path(folder).exists()
        assert (others / "file").exists()
    remove_unused_folders()
    assert not (tmp_path / "imgmatch-metrics-used").exists()


BROKEN = """
from imgmatch_df.batch import image_hashes
def fail():
    raise RuntimeError("no kernel can be compiled")
image_hashes.sample_images = fail
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_service_that_cannot_hash_ends(n_workers, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    done = subprocess.run(
        [*PROGRAM, "--port", "0", "--workers", str(n_workers)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "IMGMATCH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 3
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert "no kernel can be compiled" in next(line for line in lines if line["event"] == "cannot hash")["reason"]
    assert not [line for line in done.stderr.splitlines() if line.startswith("Traceback")]
