"""The network of the process: from a running loop, several threads, a forked child; at exit, and at Ctrl-C."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import trustme
from hostile_server import HostileServer
from waiting import wait_until

from imgmatch_df.fetching import scheduler

pytestmark = pytest.mark.long

OPTIONS = {"allow_private_networks": True, "timeout_s": 100}
posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")

HEAD = """
import os, signal, sys, threading, time
import polars as pl
import imgmatch_df
from imgmatch_df.fetching import scheduler
from imgmatch_df.batch.run import hash_batch
from imgmatch_df.options import Options
options = dict(allow_private_networks=True, timeout_s=1000)  # longer than any test waits
base = sys.argv[1]
good = pl.Series("url", [f"{base}/ok/{n}.jpg" for n in range(20)])
slow = pl.Series("url", [f"{base}/slow-headers?s=1000&n={n}" for n in range(80)])
"""


@pytest.fixture(scope="module")
def server(encoded):
    with HostileServer(encoded) as running:
        yield running


def start(server, code):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HEAD + code, server.url("")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server, code, timeout_s=200):
    process = start(server, code)
    out, err = process.communicate(timeout=timeout_s)
    assert err == ""
    assert process.returncode == 0
    return out.strip()


def test_exit_is_silent(server):
    assert run(server, "print(good.imgmatch.phash(**options).null_count())") == "0"


def test_an_exit_does_not_wait_for_slow_servers(server):
    code = """
threading.Thread(target=slow.imgmatch.phash, kwargs=options, daemon=True).start()
while scheduler._scheduler is None or not scheduler._scheduler._n_connections:
    time.sleep(0.05)
print("leaving", flush=True)
"""
    process = start(server, code)
    assert process.stdout.readline() == "leaving\n"
    _, err = process.communicate(timeout=200)
    assert "Unclosed" not in err
    assert "destroyed" not in err


def test_inside_a_running_loop(server):
    async def notebook():
        frame = pl.DataFrame({"url": [server.url(f"/ok/{n}.jpg") for n in range(5)]})
        return frame.with_columns(pl.col("url").imgmatch.phash(**OPTIONS))

    assert asyncio.run(notebook())["phash"].null_count() == 0


@posix
def test_a_forked_child_has_its_own_scheduler(server):
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
hashes = lambda: hash_batch(good, Options(**options)).struct.field("phash").to_list()
before = hashes()
child = os.fork()
same = hashes() == before
if not child:
    sys.exit(0 if same else 3)
print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), hashes() == before)
"""
    assert run(server, code) == "True 0 True"


@posix
def test_a_forked_child_leaves_the_connections_to_its_parent(encoded, tmp_path):
    """Closing them, at its exit too, would say good-bye over TLS in the parent's name."""
    code = """
import gc, warnings
warnings.simplefilter("ignore", DeprecationWarning)
print(good.imgmatch.phash(**options).null_count(), flush=True)
child = os.fork()
if not child:
    gc.collect()
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(good.imgmatch.phash(**options).null_count())
"""
    with vouched_server(encoded, tmp_path) as server:
        process = run_vouched(server, code, tmp_path)
        assert server.n_connections <= 20
    assert (process.stdout.split(), process.stderr) == (["0", "0", "0"], "")


@posix
@pytest.mark.parametrize(
    "call",
    [
        "slow.imgmatch.phash(**options)",
        "slow.to_frame().with_columns(pl.col('url').imgmatch.phash(**options), pl.col('url').imgmatch.bmh1(**options))",
        "slow.to_frame().imgmatch.visual_hash('url', **options)",
        "slow.to_frame().lazy().select(pl.col('url').imgmatch.phash(**options)).collect(engine='streaming')",
    ],
    ids=["series", "eager", "verb", "streaming"],
)
def test_ctrl_c_stops_at_once_and_cancels_all_requests(server, call):
    code = f"""
def press():
    while scheduler._scheduler is None or not scheduler._scheduler._n_connections:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
try:
    try:
        {call}
    finally:
        stopped = time.monotonic()
        time.sleep(0.3)
except KeyboardInterrupt:
    pass
try:
    time.sleep(0.5)  # Polars may raise it a second time
except KeyboardInterrupt:
    time.sleep(0.5)
names = [thread.name for thread in threading.enumerate() if thread.name.startswith("imgmatch")]
shared = scheduler._scheduler
print(shared._n_connections, len(shared._downloads), sorted(set(names) - {{"imgmatch_0", "imgmatch_1"}}))
"""
    n_open, n_downloads, names = run(server, code).split(maxsplit=2)
    assert names == "['imgmatch-network']"
    if "streaming" not in call:  # on a busy machine, Polars may be done with Ctrl-C before the batches look for it
        assert (n_open, n_downloads) == ("0", "0")


@posix
def test_ctrl_c_ends_the_command_at_once(server, tmp_path):
    table = tmp_path / "urls.csv"
    table.write_text("url\n" + "\n".join(server.url(f"/slow-headers?s=1000&cli={n}") for n in range(600)))
    command = [
        str(Path(sys.executable).with_name("imgmatch")),
        "visual-hash",
        str(table),
        "-o",
        str(tmp_path / "a.csv"),
    ]
    before = server.targets.total()
    process = subprocess.Popen(
        [*command, "--allow-private-networks", "--no-progress", "--timeout-s", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: server.targets.total() > before)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert b"interrupted" in err


def test_an_untrusted_certificate(encoded):
    ssl = pytest.importorskip("ssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with HostileServer(encoded, tls=context) as server:
        out = pl.Series([server.url("/ok/1.jpg")]).imgmatch.visual_hash(**OPTIONS).struct.unnest()
    assert out["status"].item() == "fetch_failed"
    assert "no trusted connection: " in out["detail"].item()
    assert out["detail"].item().endswith("after 1 attempt")


@contextmanager
def vouched_server(encoded, folder):
    ssl = pytest.importorskip("ssl")
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    with HostileServer(encoded, tls=context) as server:
        yield server


def run_vouched(server, code, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + code, server.url("")],
        env={**os.environ, "SSL_CERT_FILE": str(folder / "ca.pem")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_certificate_trusted_by_the_environment(encoded, tmp_path):
    code = "print(good.imgmatch.phash(**options).null_count())"
    with vouched_server(encoded, tmp_path) as server:
        process = run_vouched(server, code, tmp_path)
    assert (process.stdout.strip(), process.stderr) == ("0", "")


def test_a_certificate_for_another_host(encoded, tmp_path):
    code = """
from imgmatch_df.fetching import curl as connections
connections._look_up = lambda host: [(0, "127.0.0.1")]
url = base.replace("127.0.0.1", "other.example") + "/ok/1.jpg"
print(pl.Series([url]).imgmatch.visual_hash(**options).struct.field("detail").item())
"""
    with vouched_server(encoded, tmp_path) as server:
        process = run_vouched(server, code, tmp_path)
        assert not server.targets
    assert "no trusted connection: " in process.stdout


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_urls(server):
    code = """
def peak(n_rows):
    urls = pl.Series("url", [f"{base}/ok/{n}.jpg?n={n}&of={n_rows}" for n in range(n_rows)])
    urls.imgmatch.phash(max_bytes_in_flight=1_000_000, **options)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
small = peak(8000)
print(peak(24000) - small)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    # 1 kB of bookkeeping an address, and the noise of the allocator; the bodies are ten times as much.
    assert int(run(server, code, 280)) < 40_000  # kB


def test_without_the_system_calls_of_linux(server):
    """macOS has no epoll, and Windows has no poll either: the loop watches each socket then."""
    code = """
import select
del select.epoll, select.poll
urls = pl.Series("url", [f"{base}/{path}" for n in range(30) for path in (f"ok/{n}.jpg", f"not-found?n={n}")])
for _ in range(2):
    hashed = hash_batch(urls, Options(**options)).struct.unnest()
    print(hashed["status"].value_counts(sort=True)["count"].to_list(), hashed["phash"].n_unique())
"""
    expected = run(server, code.replace("del select.epoll, select.poll", ""))
    assert expected.splitlines()[0].startswith("[30, 30]")
    assert run(server, code) == expected


def test_no_more_sockets_than_the_loop_can_watch(encoded, monkeypatch):
    """On Windows that is a number below 512, whatever the caller allows."""
    monkeypatch.setattr(scheduler, "_MAX_CONNECTIONS", 4)
    with HostileServer(encoded) as server:
        server.latency_s = 0.02
        frame = pl.DataFrame({"url": [server.url(f"/ok/{number}.jpg") for number in range(40)]})
        options = {"allow_private_networks": True, "n_connections": 512, "n_connections_per_host": 512}
        assert frame.imgmatch.visual_hash(**options)["status"].unique().to_list() == ["ok"]
        assert 1 <= server.most_open <= 4
