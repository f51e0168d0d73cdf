"""Functions of every benchmark: contenders in separate processes, interleaved rounds, tables in the documents.

Each contender has a worker process that holds its data and runs one timed round per request, so that imports,
allocators and thread settings are separate. The limit runs between any two contenders, and a contender is compared with
the two runs of the limit around it, because the speed of a machine may drift by a third.
"""

import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from typing import Any

# A function that prepares one round, untimed, and returns the function that is timed.
Way = Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Contender:
    """One row of a table.

    Parameters
    ----------
    label
        Its name in the tables.
    packages
        The distributions it needs. If one is not installed, its row says so.
    ways
        ``ways(data, n_threads)``, run in the worker, returns the ways to run one round, by name. The fastest is used.
    result
        ``result(data, n_threads)``, run in the worker, returns the results, for comparison.
    """

    label: str
    packages: tuple[str, ...]
    ways: Callable[[Any, int], dict[str, Way]]
    result: Callable[[Any, int], object] | None = None

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if package_version(package) is None]


@dataclass
class Timings:
    """The rounds of one contender."""

    way: str = ""
    seconds: list[float] = field(default_factory=list)
    to_limit: list[float] = field(default_factory=list)  # speed as a share of the limit's, round by round
    failure: str | None = None


class WorkerError(Exception):
    """A contender failed."""


class Worker:
    """A contender in a separate process, on given processors."""

    def __init__(self, script: str, name: str, cpus: Sequence[int]) -> None:
        n_threads = str(len(cpus))
        settings = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, script, "--worker", name, ",".join(map(str, cpus))],
            env={**os.environ, **dict.fromkeys(settings, n_threads), "DAFT_PROGRESS_BAR": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def request(self, *request: str) -> Any:
        """Return the worker's result for ``start FILE [WAY]``, ``round`` or ``result FILE``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reported below, where there is no reply
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"ended with exit code {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run(main: Callable[[], None], contenders: Mapping[str, Contender]) -> None:
    """Run a benchmark, or one of its workers."""
    if sys.argv[1:2] == ["--worker"]:
        serve(contenders, *sys.argv[2:])
        return
    try:
        main()
    except WorkerError as error:
        raise SystemExit(f"failed: {error}") from error


def serve(contenders: Mapping[str, Contender], name: str, cpus: str) -> None:
    """Run the worker: execute requests from standard input until it ends."""
    pin([int(cpu) for cpu in cpus.split(",")])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some peers print to standard output
    contender = contenders[plain_name(name)]
    n_threads = cpus.count(",") + 1
    data: Any = None
    way: Way | None = None
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        result: object = None
        try:
            if request == "start":
                data = pickle.loads(Path(arguments[0]).read_bytes())
                ways = contender.ways(data, n_threads)
                result, way = (arguments[1], ways[arguments[1]]) if arguments[1:] else _fastest(ways)
            elif request == "round" and way is not None:
                result = _seconds(way)
            elif request == "result" and contender.result is not None:
                result = contender.result(pickle.loads(Path(arguments[0]).read_bytes()), n_threads)
            reply = {"result": result}
        except Exception as error:  # noqa: BLE001  # a peer may raise anything; it becomes its row of the table
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def plain_name(name: str) -> str:
    """Return the key of a contender: ``full`` for ``full@2``, so that one can run several times with other settings."""
    return name.partition("@")[0]


def _fastest(ways: dict[str, Way]) -> tuple[str, Way]:
    for way in ways.values():
        _seconds(way)  # imports, compilation, first touch of memory
    if len(ways) > 1:
        seconds = {name: min(_seconds(way) for _ in range(3)) for name, way in ways.items()}
        name = min(seconds, key=seconds.__getitem__)
    else:
        (name,) = ways
    return name, ways[name]


def _seconds(way: Way) -> float:
    run = way()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Arena:
    """The contenders of a benchmark, and their workers, which stay for all its sections.

    Parameters
    ----------
    script
        The benchmark, which calls `serve` when its first argument is ``--worker``.
    contenders
        By key; ``key@anything`` is the same contender in another worker.
    """

    def __init__(self, script: str, contenders: Mapping[str, Contender]) -> None:
        self._script = script
        self._contenders = contenders
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> "Arena":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def worker(self, name: str, cpus: Sequence[int]) -> Worker:
        """Return the worker of a contender, started on `cpus` by the first call."""
        missing = self._contenders[plain_name(name)].missing
        if missing:
            raise WorkerError(f"not installed ({', '.join(missing)})")
        if name not in self._workers:
            self._workers[name] = Worker(self._script, name, cpus)
        return self._workers[name]

    def race(
        self,
        names: Mapping[str, Sequence[int]],
        data_file: Path,
        *,
        limit: str,
        n_rounds: int,
        ways: Mapping[str, str] | None = None,
        max_round_s: float = inf,
    ) -> dict[str, Timings]:
        """Return the timings of contenders, taken in turn, with `limit` before and after each.

        Parameters
        ----------
        names
            The contenders and the processors of each.
        data_file
            Pickle of the data that `Contender.ways` gets.
        limit
            The contender with which the others are compared.
        n_rounds
            Rounds of each contender.
        ways
            Ways of contenders that an earlier race chose. They do not warm up again.
        max_round_s
            A contender whose first round takes longer runs no other one.
        """
        chosen = ways or {}
        results = {name: Timings() for name in names}
        for name, cpus in names.items():  # one after the other, so that no two warm up at the same time
            try:
                results[name].way = self.worker(name, cpus).request(
                    "start", str(data_file), *filter(None, [chosen.get(name)])
                )
            except WorkerError as error:
                self._drop(results, name, error)
        if results[limit].failure is not None:
            raise WorkerError(f"the limit itself: {results[limit].failure}")
        for _ in range(n_rounds):
            before = self._round(results, limit)
            for name, timings in list(results.items()):
                if name == limit or timings.failure is not None or max(timings.seconds, default=0.0) > max_round_s:
                    continue
                try:
                    own = self._round(results, name)
                except WorkerError as error:
                    self._drop(results, name, error)
                    continue
                after = self._round(results, limit)
                results[name].to_limit.append((before + after) / 2 / own)
                before = after
        results[limit].to_limit = [1.0] * n_rounds
        return results

    def _round(self, results: dict[str, Timings], name: str) -> float:
        seconds = float(self._workers[name].request("round"))
        results[name].seconds.append(seconds)
        return seconds

    def _drop(self, results: dict[str, Timings], name: str, error: WorkerError) -> None:
        results[name] = Timings(failure=f"{(str(error).splitlines() or ['failed'])[0]:.100}")
        if name in self._workers:
            self._workers.pop(name).close()


def median_and_quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the quartiles around it."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def package_version(package: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def allowed_cpus() -> list[int]:
    """Return the processors that this process may run on, one of each physical core first."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    seen: set[str] = set()
    first: list[int] = []
    siblings: list[int] = []
    for cpu in sorted(os.sched_getaffinity(0)):
        core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        key = core.read_text() if core.exists() else str(cpu)
        (siblings if key in seen else first).append(cpu)
        seen.add(key)
    return first + siblings


def pin(cpus: Iterable[int]) -> None:
    """Keep this process, and those it starts, on `cpus`, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its children, in seconds. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_s, children(pid)))


def children(pid: int) -> list[int]:
    """Return the ids of the processes that a process has started, in any of its threads. Linux only."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def describe_machine(n_cpus: int, packages: Iterable[str]) -> str:
    """Return one line: processor, system, versions and today's date."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((line.split(":")[1].strip() for line in cpuinfo.open() if line.startswith("model name")), model)
    versions = ", ".join(f"{package} {package_version(package) or 'not installed'}" for package in packages)
    return (
        f"{model}, {n_cpus} cores, {platform.system()}, Python {platform.python_version()}, {versions}; "
        f"{date.today().isoformat()}."
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns after the first are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace_between(path: Path, marker: str, text: str) -> None:
    """Put `text` between ``<!-- marker:begin -->`` and ``<!-- marker:end -->`` of a file."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    page = path.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise SystemExit(f"{path} needs the lines {begin} and {end}, once each, in this order")
    before, after = page.split(begin)[0], page.split(end)[1]
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")
