"""The speed of hashing a column of URLs, as a share of hashing the same images from bytes in memory.

    python benchmarks/fetching.py FOLDER [--n-urls 1200] [--quick] [--update-docs]

A server in a separate process sends the images of the folder, after 0, 20 and 200 ms. See benchmarks/README.md.
"""

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    Arena,
    Contender,
    Timings,
    Way,
    WorkerError,
    allowed_cpus,
    cpu_s,
    describe_machine,
    markdown_table,
    median_and_quartiles,
    pin,
    replace_between,
    serve,
)
from photos import read_folder, repeated

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("imgmatch-df", "pycurl", "polars", "polars-cv", "daft", "requests")
LATENCIES_MS = (0, 20, 200)
N_MANY = 512  # connections of our second row
MAX_ROUND_S = 5.0  # a contender whose first round takes longer runs it once
N_COST_ROUNDS = 5


class Data(NamedTuple):
    """The input of the contenders: the same images as URLs and as bytes."""

    urls: list[str]
    images: list[bytes]


# Contenders. Each imports its own library when its worker starts.


def hash_local_bytes(data: Data, _n_threads: int) -> dict[str, Way]:
    return _ours(data.images)


def hash_urls(data: Data, _n_threads: int) -> dict[str, Way]:
    return _ours(data.urls, allow_private_networks=True)


def hash_urls_many(data: Data, _n_threads: int) -> dict[str, Way]:
    return _ours(data.urls, allow_private_networks=True, n_connections=N_MANY, n_connections_per_host=N_MANY)


def _ours(sources: list[str] | list[bytes], **options: Any) -> dict[str, Way]:
    import polars as pl

    import imgmatch_df

    def eager() -> Callable[[], object]:
        frame = pl.DataFrame({"source": sources})
        return lambda: _check(frame.select(*expressions()))

    def streaming() -> Callable[[], object]:
        frame = pl.DataFrame({"source": sources}).lazy()
        return lambda: _check(frame.select(*expressions()).collect(engine="streaming"))

    def expressions() -> list[pl.Expr]:
        return [imgmatch_df.phash("source", **options), imgmatch_df.bmh1("source", **options)]

    def _check(hashes: pl.DataFrame) -> None:
        if hashes["phash"].null_count():
            raise RuntimeError(f"{hashes['phash'].null_count()} rows failed")

    return {"eager": eager, "streaming": streaming}


def fetch_with_requests(data: Data, _n_threads: int) -> dict[str, Way]:
    """Download with one thread per connection, as most scripts do, then hash with our expressions, 500 URLs each."""
    import polars as pl
    import requests

    import imgmatch_df

    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=64)
    session.mount("http://", adapter)
    pool = ThreadPoolExecutor(64)

    def get(url: str) -> bytes:
        response = session.get(url, timeout=30)
        response.raise_for_status()
        return response.content

    def run() -> None:
        for start in range(0, len(data.urls), 500):
            frame = pl.DataFrame({"source": list(pool.map(get, data.urls[start : start + 500]))})
            frame.select(imgmatch_df.phash("source"), imgmatch_df.bmh1("source"))

    return {"64 threads": lambda: run}


def hash_with_polars_cv(data: Data, _n_threads: int) -> dict[str, Way]:
    import polars as pl
    from polars_cv import Pipeline

    pipeline = Pipeline().source("file_path").perceptual_hash()

    def way(engine: str) -> Way:
        def prepare() -> Callable[[], object]:
            frame = pl.DataFrame({"source": data.urls}).lazy()
            hashes = frame.select(pl.col("source").cv.pipe(pipeline).sink("list"))  # type: ignore[attr-defined]
            return lambda: hashes.collect(engine=engine)  # type: ignore[call-overload]

        return prepare

    return {"streaming": way("streaming")}  # in memory it is no faster


def hash_with_daft(data: Data, n_threads: int) -> dict[str, Way]:
    import daft
    from daft.functions import decode_image, download, image_hash

    frame = daft.from_pydict({"source": data.urls})
    batches = frame.into_batches(max(1, len(data.urls) // (4 * n_threads)))
    phash = image_hash(decode_image(download(daft.col("source"), max_connections=64)), method="phash")
    return {"one batch": lambda: frame.select(phash).collect, "in batches": lambda: batches.select(phash).collect}


CONTENDERS = {
    "limit": Contender("ours, bmh1 + phash, bytes in memory (the limit)", ("imgmatch-df",), hash_local_bytes),
    "ours": Contender("ours, bmh1 + phash, defaults (32 connections to a host)", ("imgmatch-df",), hash_urls),
    "ours-many": Contender(f"ours, bmh1 + phash, {N_MANY} connections", ("imgmatch-df",), hash_urls_many),
    "requests": Contender("requests in 64 threads, then our bmh1 + phash", ("requests",), fetch_with_requests),
    "polars-cv": Contender("polars-cv, phash alone", ("polars-cv",), hash_with_polars_cv),
    "daft": Contender("Daft, `download` (64 connections), phash alone", ("daft",), hash_with_daft),
}


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """Run the server; yield its port and process id."""
    script = Path(__file__).with_name("image_server.py")
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait()


def speed_section(arena: Arena, folder: Path, cpus: list[int], data: dict[int, Data], n_rounds: int) -> str:
    rows = {name: [contender.label] for name, contender in CONTENDERS.items()}
    ways: dict[str, str] = {}
    for latency_ms, sources in data.items():
        print(f"{latency_ms} ms", file=sys.stderr)
        path = folder / f"{latency_ms}.pickle"
        path.write_bytes(pickle.dumps(tuple(sources)))
        names = dict.fromkeys(CONTENDERS, cpus)
        timings = arena.race(names, path, limit="limit", n_rounds=n_rounds, ways=ways, max_round_s=MAX_ROUND_S)
        for name, timing in timings.items():
            ways[name] = timing.way
            rows[name].append(_cell(timing, len(sources.urls)))
            print(f"    {name}: {rows[name][-1]}", file=sys.stderr)
    header = ["urls", *(f"{latency_ms} ms" for latency_ms in data)]
    return markdown_table(header, rows.values())


def _cell(timing: Timings, n_urls: int) -> str:
    if timing.failure is not None:
        return timing.failure
    share, low, high = median_and_quartiles(timing.to_limit)
    speed = n_urls / statistics.median(timing.seconds)
    return f"{speed:,.0f}, {share:.2f} ({low:.2f} to {high:.2f})"


_PEAK = """
import sys, polars as pl, imgmatch_df
urls = pl.Series([f"http://127.0.0.1:{sys.argv[1]}/20/{i}.jpg" for i in range(int(sys.argv[2]))])
assert urls.imgmatch.phash(allow_private_networks=True).null_count() == 0
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000)
"""


def processor_s(ways: dict[str, Way]) -> float:
    """Return the processor time of one round, in this process, in seconds."""
    run = ways["eager"]()
    start = time.process_time()
    run()
    return time.process_time() - start


def cost_section(arena: Arena, path: Path, cpus: list[int], server_pid: int, n_urls: int) -> str:
    """Return the table of processor time per image, of fetching and of the server separately."""
    costs: dict[str, list[tuple[float, float]]] = {"limit": [], "ours": [], "ours-many": []}
    for _ in range(N_COST_ROUNDS):
        for name, found in costs.items():
            before = cpu_s(server_pid)
            own = float(arena.worker(name, cpus).request("result", str(path)))
            found.append((1e3 * own / n_urls, 1e3 * (cpu_s(server_pid) - before) / n_urls))
    limit, *_ = (statistics.median(own for own, _ in found) for found in costs.values())
    rows = []
    for name, found in costs.items():
        own, of_server = map(statistics.median, zip(*found, strict=True))
        shares = [limit / own, limit / (own + of_server)]
        rows.append([CONTENDERS[name].label, *(f"{number:.2f}" for number in (own, of_server, *shares))])
    header = [
        "processor time an image, 20 ms",
        "ms",
        "the server's, ms",
        "share of the limit, without the server",
        "with it",
    ]
    return markdown_table(header, rows)


def memory_section(port: int, n_urls: int) -> str:
    rows = []
    for n in (n_urls // 4, n_urls):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(port), str(n)], capture_output=True, text=True, check=True
        )
        rows.append([f"{n:,}", f"{float(done.stdout):,.0f}"])
    return markdown_table(["urls, 20 ms", "peak resident memory of the process, MB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images to serve")
    parser.add_argument("--n-urls", type=int, default=1200, help="URLs in a round, all different")
    parser.add_argument("--n-rounds", type=int, default=3, help="rounds of each contender")
    parser.add_argument("--quick", action="store_true", help="fewer URLs and rounds: rough")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documents")
    arguments = parser.parse_args()
    n_urls, n_rounds = (600, 3) if arguments.quick else (arguments.n_urls, arguments.n_rounds)
    photos = read_folder(arguments.folder)
    all_cpus = allowed_cpus()
    cpus = all_cpus[:2]
    with tempfile.TemporaryDirectory() as name, Arena(__file__, CONTENDERS) as arena:
        folder = Path(name)
        images = folder / "images"
        images.mkdir()
        for number, image in enumerate(photos.data):
            (images / f"{number:06}.jpg").write_bytes(image)
        with server(images) as (port, server_pid):
            pin(cpus)
            data = {
                latency_ms: Data(
                    [f"http://127.0.0.1:{port}/{latency_ms}/{i}.jpg" for i in range(n_urls)],
                    repeated(photos.data, n_urls),
                )
                for latency_ms in LATENCIES_MS
            }
            table = speed_section(arena, folder, cpus, data, n_rounds)
            cost = cost_section(arena, folder / "20.pickle", cpus, server_pid, n_urls)
            memory = memory_section(port, n_urls)
    shared = "shares them" if len(all_cpus) <= len(cpus) else "has others"
    text = (
        f"{table}\n\nImages a second, and the share of the limit: median and quartiles of {n_rounds} rounds of "
        f"{n_urls:,} URLs on {len(cpus)} processors; the server, image_server.py, {shared}. A contender whose first "
        f"round takes more than {MAX_ROUND_S:.0f} seconds runs it once. Processor time: median of {N_COST_ROUNDS}. "
        f"{photos.describe()}.\n\n{cost}\n\n{memory}\n\n{describe_machine(len(all_cpus), PACKAGES)}"
    )
    print(text)
    if arguments.update_docs:
        replace_between(ROOT / "docs" / "benchmarks.md", "fetching", table)
        replace_between(ROOT / "benchmarks" / "README.md", "fetching", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(
            {
                key: Contender(
                    one.label,
                    one.packages,
                    lambda data, n_threads, one=one: one.ways(Data(*data), n_threads),
                    lambda data, n_threads, one=one: processor_s(one.ways(Data(*data), n_threads)),
                )
                for key, one in CONTENDERS.items()
            },
            *sys.argv[2:],
        )
    else:
        start = time.monotonic()
        try:
            main()
        except WorkerError as error:
            raise SystemExit(f"failed: {error}") from error
        print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
