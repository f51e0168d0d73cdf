"""`imgmatch serve` under load: its speed as a share of direct hashing, and the time of requests.

    python benchmarks/serving.py FOLDER [--quick] [--only photos|store] [--update-docs]

Load comes from wrk (https://github.com/wg/wrk; a package of Debian, Fedora, Homebrew …), on the same processors. See
benchmarks/README.md.
"""

import argparse
import base64
import json
import os
import pickle
import resource
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    Arena,
    Contender,
    Way,
    WorkerError,
    allowed_cpus,
    children,
    cpu_s,
    describe_machine,
    markdown_table,
    median_and_quartiles,
    package_version,
    pin,
    replace_between,
    serve,
)
from photos import draw_photos, read_folder, repeated

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("imgmatch-df", "polars", "duckdb", "uvicorn", "starlette", "pydantic", "pybase64")
# Workers and connections.
LOADS = ((1, 1), (1, 16), (1, 256), (2, 16), (2, 256))
IN_DOCS = ("workers", "connections", "requests a second", "of direct, base64", "p50, ms", "p99, ms", "failed")
N_DIRECT = 400  # images in a round of direct hashing
TOKEN = secrets.token_urlsafe()
STORE_CONNECTIONS = (1, 16, 64)
N_BODIES = 2000  # different requests for stored URLs


def hash_base64(photos: list[bytes], _n_threads: int) -> dict[str, Way]:
    several = repeated(photos, N_DIRECT)
    return _direct([f"data:image/jpeg;base64,{base64.b64encode(photo).decode()}" for photo in several])


def hash_bytes(photos: list[bytes], _n_threads: int) -> dict[str, Way]:
    return _direct(repeated(photos, N_DIRECT))


def _direct(sources: list[Any]) -> dict[str, Way]:
    import polars as pl

    import imgmatch_df

    def prepare() -> Callable[[], object]:
        frame = pl.DataFrame({"photo": sources})

        def run() -> None:
            hashed = frame.select(imgmatch_df.visual_hash("photo").alias("hashed")).unnest("hashed")
            if hashed["phash"].null_count():
                raise RuntimeError(f"{hashed['phash'].null_count()} photos failed")

        return run

    return {"eager": prepare}


CONTENDERS = {
    "base64": Contender("`visual_hash` of a column of base64", ("imgmatch-df",), hash_base64),
    "bytes": Contender("`visual_hash` of a column of bytes", ("imgmatch-df",), hash_bytes),
}


class Load(NamedTuple):
    """The results of one run of wrk."""

    rate: float
    n_requests: int
    n_failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_ms: float  # processor time of the service, per request
    decoders_cpu_ms: float  # of it, that of the decoder processes
    wrk_cpu_ms: float


@contextmanager
def service(*options: str) -> Iterator[tuple[int, int]]:
    """Run `imgmatch serve`; yield its port and process id when it is ready."""
    program = ["-c", "from imgmatch_df.cli import main; main()", "serve", "--port", "0", *options]
    with _running(program) as found:
        yield found


@contextmanager
def _running(program: list[str]) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen(
        [sys.executable, *program],
        env={**os.environ, "IMGMATCH_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    read: list[str] = []
    log = None
    try:
        for line in process.stderr:
            read.append(line)
            if '"listening"' in line:
                break
        else:
            sys.exit("the service did not start:\n" + "".join(read))
        port = json.loads(line)["port"]
        log = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        while not _responds(f"http://127.0.0.1:{port}/ready"):
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        if log is not None:
            log.wait(10)


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send a body back: the minimum work of such a service."""
    parts, is_open = [], scope["path"] != "/ready"
    while is_open:
        message = await receive()
        parts.append(message["body"])
        is_open = message.get("more_body", False)
    body = b"".join(parts)
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def serve_echo() -> None:
    """Run `echo` in the server that `imgmatch serve` runs in."""
    import uvicorn

    # With the protocol set, because asyncio disables Nagle's algorithm only for such sockets.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(json.dumps({"event": "listening", "port": listener.getsockname()[1]}), file=sys.stderr, flush=True)
    config = uvicorn.Config(
        echo, http="httptools", ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])


def put_load(port: int, pid: int, bodies: Path, n_bodies: int, n_connections: int, seconds: int) -> Load:
    """Send requests for some seconds."""
    before = [cpu_s(pid), decoders_cpu_s(pid), _children_cpu_s()]
    done = subprocess.run(
        [
            *("wrk", "-t1", f"-c{n_connections}", f"-d{seconds}s", "--timeout", "60s"),
            *("-s", str(Path(__file__).with_name("serving.lua"))),
            f"http://127.0.0.1:{port}/image_matching/v2/visual_hash",
            *("--", str(bodies), str(n_bodies), TOKEN),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout.strip().splitlines()[-1])
    latencies = [report[f"p{share}_ms"] for share in (50, 90, 99)]
    after = [cpu_s(pid), decoders_cpu_s(pid), _children_cpu_s()]
    costs = [1000 * (end - start) / report["requests"] for start, end in zip(before, after, strict=True)]
    return Load(report["requests"] / report["seconds"], report["requests"], report["failed"], *latencies, *costs)


def decoders_cpu_s(pid: int) -> float:
    """Return the processor time of the decoder processes of a service, in seconds."""
    seconds = 0.0
    for child in children(pid):
        is_decoder = b"serve_forks" in Path(f"/proc/{child}/cmdline").read_bytes()
        seconds += cpu_s(child) if is_decoder else decoders_cpu_s(child)
    return seconds


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of ended processes: wrk
    return used.ru_utime + used.ru_stime


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process and of its children, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1000
    return own + sum(map(memory_mb, children(pid)))


def speed_section(
    arena: Arena, folder: Path, photos: Sequence[bytes], cpus: Sequence[int], n_rounds: int, seconds: int
) -> tuple[list[list[str]], str]:
    """Return the table of speeds and latencies, its header first, and the text of that of memory."""
    data_file = folder / "photos.pickle"
    data_file.write_bytes(pickle.dumps(list(photos)))
    bodies = folder / "bodies"
    bodies.mkdir()
    for number, photo in enumerate(photos):
        body = {"records": [{"_base64": base64.b64encode(photo).decode()}]}
        (bodies / f"{number:06}.json").write_text(json.dumps(body))
    direct = {name: arena.worker(name, cpus) for name in CONTENDERS}
    for worker in direct.values():
        worker.request("start", str(data_file))
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}

    def direct_rates() -> dict[str, float]:
        found = {name: N_DIRECT / float(worker.request("round")) for name, worker in direct.items()}
        for name, rate in found.items():
            rates[name].append(rate)
        return found

    def put_loads(label: str, port: int, pid: int, n_connections: int) -> None:
        loads: list[Load] = []
        shares: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        resident = []
        put_load(port, pid, bodies, len(photos), n_connections, 1)
        before = direct_rates()
        for _ in range(n_rounds):
            load = put_load(port, pid, bodies, len(photos), n_connections, seconds)
            resident.append(f"{memory_mb(pid):,.0f}")
            after = direct_rates()
            loads.append(load)
            for name in CONTENDERS:
                shares[name].append(2 * load.rate / (before[name] + after[name]))
            before = after
        rows.append(_row(label, n_connections, loads, shares))
        n_requests = sum(load.n_requests for load in loads)
        memory.append([label, f"{n_connections}", f"{n_requests:,}", " ".join(resident)])
        print(rows[-1], memory[-1], file=sys.stderr)

    rows: list[list[str]] = []
    memory: list[list[str]] = []
    for n_workers in dict.fromkeys(n_workers for n_workers, _ in LOADS):
        with service("--workers", str(n_workers)) as (port, pid):
            for n_connections in (connections for workers, connections in LOADS if workers == n_workers):
                put_loads(f"{n_workers}", port, pid, n_connections)
    with _running([__file__, "--echo"]) as (port, pid):
        put_loads("an echo", port, pid, 16)
    memory.pop()
    for name, contender in CONTENDERS.items():
        rows.append([contender.label, "", f"{statistics.median(rates[name]):,.0f}", *[""] * 10])
    header = ["workers", "connections", "requests a second", "of direct, base64", "of direct, bytes"]
    header += ["p50, ms", "p90, ms", "p99, ms", "p99 / p50", "failed", "processor ms a request", "in decoders", "wrk's"]
    memory_header = ["workers", "connections", "requests", "resident memory after each round, MB"]
    return [header, *rows], markdown_table(memory_header, memory)


def _row(label: str, n_connections: int, loads: list[Load], shares: dict[str, list[float]]) -> list[str]:
    def middle(values: Iterator[float]) -> float:
        return statistics.median(values)

    cells = []
    for name in ("base64", "bytes"):
        share, low, high = median_and_quartiles(shares[name])
        cells.append(f"{share:.2f} ({low:.2f} to {high:.2f})")
    return [
        label,
        f"{n_connections}",
        f"{middle(load.rate for load in loads):,.0f}",
        *cells,
        f"{middle(load.p50_ms for load in loads):,.1f}",
        f"{middle(load.p90_ms for load in loads):,.1f}",
        f"{middle(load.p99_ms for load in loads):,.1f}",
        f"{middle(load.p99_ms / load.p50_ms for load in loads):.1f}",
        f"{sum(load.n_failed for load in loads)} of {sum(load.n_requests for load in loads):,}",
        f"{middle(load.cpu_ms for load in loads):.2f}",
        f"{middle(load.decoders_cpu_ms for load in loads):.2f}",
        f"{middle(load.wrk_cpu_ms for load in loads):.2f}",
    ]


def stored_url(number: int) -> str:
    return f"http://images.invalid/photos/2024/{number % 1000:03}/{number:09}-large.jpg"


def write_store(path: Path, n_rows: int) -> None:
    """Store random hashes of URLs that cannot be fetched."""
    import numpy as np
    import polars as pl

    import imgmatch_df

    rng = np.random.default_rng(1)
    bmh1 = rng.integers(0, 256, (n_rows, 121), np.uint8)
    frame = pl.DataFrame(
        {
            "source": [stored_url(number) for number in range(n_rows)],
            "width": np.full(n_rows, 640, np.uint32),
            "height": np.full(n_rows, 480, np.uint32),
            "bmh1": [hash_.tobytes() for hash_ in bmh1],
            "phash": rng.integers(0, 1 << 64, n_rows, np.uint64),
        }
    )
    imgmatch_df.write_hashes(frame, path)


def keep_writing(path: str, first: str) -> None:
    """Commit rows to a store until killed; an error ends the process."""
    import duckdb

    for number in range(int(first), 1 << 30):
        with duckdb.connect(path) as connection:
            connection.execute(
                "INSERT INTO hashes SELECT * REPLACE (? AS source) FROM hashes LIMIT 1", [stored_url(number)]
            )
        time.sleep(0.5)


def time_lookups(path: str) -> None:
    """Print the time of a look-up inside the service and the memory of the rows, as JSON."""
    import numpy as np

    from imgmatch_df.options import Recipe
    from imgmatch_df.server.store_lookup import StoredRows

    started = time.perf_counter()
    rows = StoredRows(path, Recipe())
    load_s = time.perf_counter() - started
    urls = [stored_url(number) for number in np.random.default_rng(2).integers(0, len(rows), 20_000).tolist()]
    seconds = []
    for url in urls:
        before = time.perf_counter()
        found = rows([url])
        seconds.append(time.perf_counter() - before)
        if url not in found:
            raise RuntimeError(f"{url} is not found")
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    print(json.dumps({"load_s": load_s, "p50_ms": p50, "p99_ms": p99, "mb": rows.n_bytes / 1e6}))
    rows.close()


def store_section(folder: Path, n_rows: int, n_rounds: int, seconds: int) -> str:
    """Return the tables of look-ups in a store."""
    store, bodies = folder / "hashes.duckdb", folder / "urls"
    write_store(store, n_rows)
    bodies.mkdir()
    for number in range(N_BODIES):
        record = {"_url": stored_url(number * n_rows // N_BODIES)}
        (bodies / f"{number:06}.json").write_text(json.dumps({"records": [record]}))
    script = [sys.executable, __file__]
    done = subprocess.run([*script, "--lookups", str(store)], capture_output=True, text=True, check=True)
    inside = json.loads(done.stdout)
    rows = []
    with service("--store", str(store)) as (port, pid):

        def put_loads(label: str, n_connections: int) -> None:
            put_load(port, pid, bodies, N_BODIES, n_connections, 1)
            loads = [put_load(port, pid, bodies, N_BODIES, n_connections, seconds) for _ in range(n_rounds)]
            rows.append(_store_row(label, n_connections, loads, memory_mb(pid)))
            print(rows[-1], file=sys.stderr)

        for n_connections in STORE_CONNECTIONS:
            put_loads("", n_connections)
        writer = subprocess.Popen([*script, "--write", str(store), str(n_rows)])
        try:
            put_loads(", while another process writes it", STORE_CONNECTIONS[1])
        finally:
            if writer.poll() is not None:
                raise RuntimeError("the writer has failed")
            writer.kill()
            writer.wait()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            if b"imgmatch_failed_records_total{" in response.read():
                raise RuntimeError("some URLs were not found in the store")
    header = ["connections", "look-ups a second", "p50, ms", "p90, ms", "p99, ms", "failed"]
    header += ["processor ms a request", "resident memory, MB"]
    costs = [
        ["time of a look-up in the service, p50", f"{inside['p50_ms']:.3f} ms"],
        ["the same, p99", f"{inside['p99_ms']:.3f} ms"],
        ["memory of the stored rows", f"{inside['mb']:,.0f} MB"],
        ["loading them", f"{inside['load_s']:.2f} s"],
    ]
    return (
        f"{markdown_table(header, rows)}\n\nA DuckDB store of {n_rows:,} rows, one URL a request, for which both "
        f"hashes are returned. Medians of {n_rounds} rounds of {seconds} s. The writer commits a row every half second,"
        f" so that the rows are loaded again all the time.\n\n{markdown_table([f'{n_rows:,} rows', ''], costs)}"
    )


def _store_row(label: str, n_connections: int, loads: list[Load], resident_mb: float) -> list[str]:
    times = [
        f"{statistics.median(getattr(load, name) for load in loads):,.2f}" for name in ("p50_ms", "p90_ms", "p99_ms")
    ]
    return [
        f"{n_connections}{label}",
        f"{statistics.median(load.rate for load in loads):,.0f}",
        *times,
        f"{sum(load.n_failed for load in loads)} of {sum(load.n_requests for load in loads):,}",
        f"{statistics.median(load.cpu_ms for load in loads):.2f}",
        f"{resident_mb:,.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photos to send; without it, drawn ones")
    parser.add_argument("--n-rounds", type=int, default=5, help="rounds of each number of connections")
    parser.add_argument("--seconds", type=int, default=3, help="of a round")
    parser.add_argument("--only", choices=("photos", "store"), help="one of the two parts: photos, or stored URLs")
    parser.add_argument("--n-stored", type=int, default=1_000_000, help="rows of the store")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: rough")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documents")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt install wrk, dnf install wrk, brew install wrk")
    n_rounds, seconds = (2, 2) if arguments.quick else (arguments.n_rounds, arguments.seconds)
    all_cpus = allowed_cpus()
    cpus = all_cpus[:2]
    pin(cpus)
    machine = (
        f"wrk {_wrk_version()}; {describe_machine(len(all_cpus), [one for one in PACKAGES if package_version(one)])}"
    )
    if arguments.only != "store":
        photos = draw_photos(40) if arguments.folder is None else read_folder(arguments.folder)
        with tempfile.TemporaryDirectory() as name, Arena(__file__, CONTENDERS) as arena:
            (header, *rows), memory = speed_section(arena, Path(name), photos.data, cpus, n_rounds, seconds)
        text = (
            f"{markdown_table(header, rows)}\n\nOne photo in base64 a request, {photos.describe()}. {len(cpus)} "
            f"processors, which wrk shares. Medians of {n_rounds} rounds of {seconds} s; between any two of them both "
            f"ways of direct hashing ran ({N_DIRECT} photos in a frame, bmh1 and phash too); shares with quartiles. "
            "The echo is the same server with an application that sends the body back: what any service costs besides "
            f"the hashing.\n\n{memory}\n\n{machine}"
        )
        print(text)
        if arguments.update_docs:
            brief = [[row[header.index(name)] for name in IN_DOCS] for row in [header, *rows]]
            replace_between(ROOT / "docs" / "benchmarks.md", "serving", markdown_table(brief[0], brief[1:]))
            replace_between(ROOT / "benchmarks" / "README.md", "serving", text)
    if arguments.only != "photos":
        with tempfile.TemporaryDirectory() as name:
            found = store_section(Path(name), arguments.n_stored, n_rounds, seconds)
        text = f"{found}\n\n{len(cpus)} processors, which wrk shares. {machine}"
        print(text)
        if arguments.update_docs:
            replace_between(ROOT / "benchmarks" / "README.md", "serving-store", text)


def _wrk_version() -> str:
    words = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()
    return words[1] if len(words) > 1 else "of unknown version"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(CONTENDERS, *sys.argv[2:])
    elif sys.argv[1:2] == ["--echo"]:
        serve_echo()
    elif sys.argv[1:2] == ["--write"]:
        keep_writing(*sys.argv[2:])
    elif sys.argv[1:2] == ["--lookups"]:
        time_lookups(*sys.argv[2:])
    else:
        try:
            main()
        except WorkerError as error:
            raise SystemExit(f"failed: {error}") from error
