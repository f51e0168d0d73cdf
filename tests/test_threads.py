"""How many threads are used, and that one is enough for everything."""

import os
import subprocess
import sys
import threading
from zlib import crc32

import polars as pl
import pytest
from hostile_server import HostileServer

import imgmatch_df
from imgmatch_df import threads
from imgmatch_df.store import parquet_checksums

pytestmark = pytest.mark.long


@pytest.fixture
def chosen(monkeypatch):
    """A function that sets `IMGMATCH_MAX_THREADS`."""
    return lambda text: monkeypatch.setenv("IMGMATCH_MAX_THREADS", text)


@pytest.mark.parametrize(("text", "n_threads"), [("1", 1), (" 7 ", 7), ("007", 7), ("1000", 1000), ("9" * 5000, 1024)])
def test_the_number_can_be_chosen(chosen, text, n_threads):
    chosen(text)
    assert threads.n_threads() == n_threads


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_choice_is_none(chosen, text, monkeypatch):
    chosen(text)
    found = threads.n_threads()
    monkeypatch.delenv("IMGMATCH_MAX_THREADS")
    assert threads.n_threads() == found >= 1


@pytest.mark.parametrize("text", ["0", "000", "-1", "1.5", "two", "1 2", "1_000", "٣", "0x2", "inf"])
@pytest.mark.parametrize(
    "call",
    [
        threads.n_threads,
        lambda: pl.col("url").imgmatch.phash(),
        lambda: pl.LazyFrame({"phash": [1]}, schema={"phash": pl.UInt64}).imgmatch.near_duplicates(3, "phash"),
    ],
    ids=["n_threads", "an expression", "a verb"],
)
def test_a_wrong_choice_is_raised_by_the_call(chosen, text, call):
    chosen(text)
    with pytest.raises(imgmatch_df.ArgumentError, match=r"IMGMATCH_MAX_THREADS must be .*got '.*\nHint: "):
        call()


def test_the_command_reports_a_wrong_choice(tmp_path):
    environment = {**os.environ, "IMGMATCH_MAX_THREADS": "many"}
    command = [sys.executable, "-c", "from imgmatch_df.cli import main; main()", "visual-hash", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 2
    assert "IMGMATCH_MAX_THREADS must be a whole number" in done.stderr


@pytest.mark.parametrize(
    ("processors", "polars", "quota", "n_threads"),
    [(8, 8, None, 8), (2, 8, None, 2), (8, 1, None, 1), (8, 8, 3, 3), (4, 6, 5, 4), (1, 1, 1, 1)],
)
def test_the_smallest_limit_counts(monkeypatch, processors, polars, quota, n_threads):
    monkeypatch.delenv("IMGMATCH_MAX_THREADS", raising=False)
    monkeypatch.setattr(threads, "_n_processors", lambda: processors)
    monkeypatch.setattr(pl, "thread_pool_size", lambda: polars)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    threads._n_allowed.cache_clear()
    try:
        assert threads.n_threads() == n_threads
    finally:
        threads._n_allowed.cache_clear()


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": ""}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "many 100000\n"}, None),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "many 100000\n"}, None),
        # Without the file of the process, the group at the top.
        ({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        # The group of the process, and those above.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "250000 100000\n",
            },
            3,
        ),
        # A container that sees the name of the host, or one beside it.
        ({"proc/self/cgroup": "0::/docker/1f\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/../1f\n", "sys/fs/cgroup/1f/cpu.max": "200000 100000\n"}, 2),
        # Version 1.
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/y\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "350000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "5:cpuacct,cpu:/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "5:cpuset:/\n", "sys/fs/cgroup/cpuset/cpu.max": "100000 100000"}, None),
        # Both versions.
        ({"proc/self/cgroup": "0::/s\n", "sys/fs/cgroup/unified/s/cpu.max": "100000 100000\n"}, 1),
    ],
)
def test_the_quota_of_control_groups(tmp_path, files, quota):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert threads.cpu_quota(tmp_path) == quota


def test_a_quota_that_cannot_be_read(tmp_path):
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert threads.cpu_quota(tmp_path) is None


# --- one thread ------------------------------------------------------------------------------------------------------

EVERYTHING = """
import sys, tempfile
from concurrent.futures import ThreadPoolExecutor
import polars as pl
import imgmatch_df
from imgmatch_df import threads
from imgmatch_df.store import parquet_checksums
import faulthandler; faulthandler.dump_traceback_later(200, exit=True)

urls, paths = sys.argv[1:4], sys.argv[4:]
options = {"allow_private_networks": True}
frame = pl.DataFrame({"url": urls + paths})
column = pl.col("url").imgmatch
exprs = [column.phash(**options), column.bmh1(**options), column.visual_hash(**options)]

def verbs(_=None):
    hashed = frame.imgmatch.visual_hash(**options)
    return (
        frame.select(*exprs).height,
        frame.lazy().select(*exprs).collect(engine="streaming").height,
        frame.lazy().imgmatch.remove_duplicates(24, source="url", **options).collect(engine="streaming").height,
        frame.lazy().imgmatch.cluster(24, source="url", **options).collect().height,
        hashed.imgmatch.match(hashed.lazy(), 0).height,
        hashed.imgmatch.rank_images(paths[0], k=2).height,
        frame.lazy().map_batches(lambda part: part.imgmatch.cluster(24, source="url", **options).select("url"))
        .collect().height,
        frame.select(exprs[0].imgmatch.hamming(exprs[0])).sum().item(),
    )

expected = verbs()
with ThreadPoolExecutor(4) as users:
    assert list(users.map(verbs, range(6))) == [expected] * 6
with tempfile.TemporaryDirectory() as folder:
    for name in ("a.duckdb", "a.parquet"):
        frame.lazy().imgmatch.sink_hashes(f"{folder}/{name}", source="url", **options)
        assert imgmatch_df.read_hashes(f"{folder}/{name}").height == len(frame)
print(threads.n_threads(), threads.pool()._max_workers, *expected)
"""


@pytest.mark.parametrize(
    ("environment", "n_threads"),
    [
        ({"POLARS_MAX_THREADS": "1"}, 1),
        pytest.param({"POLARS_MAX_THREADS": "1", "IMGMATCH_MAX_THREADS": "3"}, 3, marks=pytest.mark.slow),
        pytest.param({"POLARS_MAX_THREADS": "3", "IMGMATCH_MAX_THREADS": "1"}, 1, marks=pytest.mark.slow),
    ],
)
def test_one_thread_is_enough_for_everything(paths, encoded, environment, n_threads):
    with HostileServer(encoded[:3]) as server:
        sources = [*(server.url(f"/ok/{number}.jpg") for number in range(3)), *paths["url"][3:7]]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", EVERYTHING, *sources],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert done.stdout.split() == [str(n_threads)] * 2 + ["7", "7", "7", "7", "7", "2", "7", "0"], done.stderr


# --- a forked child --------------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys, warnings
import numpy as np
import polars as pl
import imgmatch_df
from imgmatch_df import options, progress, threads
from imgmatch_df.batch import run as batches
from imgmatch_df.matching import join

warnings.simplefilter("ignore", DeprecationWarning)  # forking a process that has threads
warnings.simplefilter("ignore", RuntimeWarning)
chosen = options.make_options(allow_private_networks=True, progress=True)
sources = pl.Series("url", sys.argv[1:])
words = np.arange(50_000, dtype=np.uint64).reshape(-1, 1)

def work():
    hashed = batches.hash_batch(sources, chosen).struct.field("phash").to_list()
    pairs = join.self_join(words, 1, 64, max_pairs=10**7)
    return hashed, len(pairs.left), int(pairs.left.sum())

expected = work()
pl.DataFrame({"url": sources}).lazy().imgmatch.visual_hash(allow_private_networks=True).collect(engine="streaming")
with threads._lock, progress.METER._lock:  # as when other threads of the parent have them
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        os._exit(0 if work() == work() == expected else 1)
_, status = os.waitpid(child, 0)
print(status, work() == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_hashes_and_joins_and_so_does_the_parent(paths, encoded):
    """Polars' own pool does not survive a fork; all that is ours does."""
    with HostileServer(encoded[:3]) as server:
        sources = [*(server.url(f"/ok/{number}.jpg") for number in range(3)), *paths["url"][3:7]]
        command = [sys.executable, "-c", FORK, *sources]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_all_threads_of_the_pool_may_check_files_at_once(tmp_path, monkeypatch):
    """Checksums are computed in the same pool; a task of the pool that waited for another one would never end."""
    monkeypatch.setattr(parquet_checksums, "_BYTES_FOR_THREADS", 0)
    path = tmp_path / "a.parquet"
    path.write_bytes(os.urandom(1 << 20))
    n_tasks = threads.n_threads()
    together = threading.Barrier(n_tasks, timeout=200)
    ranges = [(start, 1000) for start in range(0, 1 << 20, 5000)]
    data = path.read_bytes()
    expected = [crc32(data[start : start + n_bytes]) for start, n_bytes in ranges]

    def check():
        with path.open("rb") as file:
            together.wait()
            return list(parquet_checksums._checksums(file, ranges))

    found = [threads.pool().submit(check) for _ in range(n_tasks)]
    assert [one.result(timeout=200) for one in found] == [expected] * n_tasks
