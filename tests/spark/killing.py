"""SIGKILL for executors and Python workers of a Spark session, and what Spark reported of it.

A process is stopped first (SIGSTOP). If the driver then says that it has a running task, it is killed, else it
continues: so no task ends between the look and the kill, whatever the load of the machine.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Literal, NamedTuple

REASONS = {"executor": "ExecutorLostFailure", "worker": "ExceptionFailure"}  # of the tasks of what was killed
CRASH = "Python worker exited unexpectedly"
SETTLE_S = 0.25  # the driver shows tasks with a delay of 0.1 s
MAX_RUNS = 5


class MissedMomentError(AssertionError):
    """Nothing was killed at one of the moments, or too late: the work was done by then."""


def again_if_missed(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test again, in a new folder, where it missed a moment: when work is done depends on the machine."""

    @wraps(test)
    def run(*, tmp_path: Path, **fixtures: Any) -> None:
        for number in range(1, MAX_RUNS + 1):
            folder = tmp_path / str(number)
            folder.mkdir()
            try:
                return test(tmp_path=folder, **fixtures)
            except MissedMomentError:
                if number == MAX_RUNS:
                    raise
        return None

    return run


@dataclass(frozen=True)
class Aim:
    """When to kill, and what: an executor, or the Python workers of one, that has a task while `moment()` holds."""

    name: str
    moment: Callable[[], bool]
    victim: Literal["executor", "worker"] = "executor"


class Retry(NamedTuple):
    """An attempt of a task that failed, and succeeded in a later one."""

    stage: int
    partition: int
    reason: str


@dataclass
class Kills:
    """What was killed: for each aim the stages of the tasks that ran there, and their retries in Spark's event log."""

    stages: dict[str, set[int]] = field(default_factory=dict)
    retries: dict[str, list[Retry]] = field(default_factory=dict)
    error: BaseException | None = None


@contextmanager
def killing(spark: Any, *aims: Aim) -> Iterator[Kills]:
    """Kill processes of executors at several moments, one after the other.

    It fails where nothing was killed at one of the moments, or where Spark's event log has no retry of a task of the
    stages that ran there. So a test fails that no longer meets its moment.
    """
    log, kills, end = event_log(spark), Kills(), threading.Event()
    start = log.stat().st_size
    thread = threading.Thread(target=_kill_in_turn, args=(spark, aims, kills, end))
    thread.start()
    try:
        yield kills
    finally:
        end.set()
        thread.join()
    if kills.error is not None:
        raise kills.error
    if missed := [aim.name for aim in aims if aim.name not in kills.stages]:
        raise MissedMomentError(f"no process had a task at these moments: {missed}")
    for _ in range(1000):
        retries = read_retries(log, start)
        for aim in aims:
            kills.retries[aim.name] = [
                one for one in retries if one.stage in kills.stages[aim.name] and one.reason == REASONS[aim.victim]
            ]
        if all(kills.retries.values()):
            return
        time.sleep(0.1)  # the log is written by a thread of the driver
    raise MissedMomentError(f"Spark reports no retry for some of the kills: {kills.retries}")


def _kill_in_turn(spark: Any, aims: tuple[Aim, ...], kills: Kills, end: threading.Event) -> None:
    try:
        for aim in aims:
            while aim.name not in kills.stages:
                if end.is_set():
                    return
                if aim.moment():
                    pids = executor_pids(spark)
                    for executor in sorted(running_stages(spark).keys() & pids.keys()):
                        if stages := _kill(spark, aim, executor, pids[executor]):
                            kills.stages[aim.name] = stages
                            break
                time.sleep(0.01)
    except BaseException as error:  # noqa: BLE001  # raised in the thread of the test
        kills.error = error


def _kill(spark: Any, aim: Aim, executor: str, pid: int) -> set[int]:
    """Kill what is aimed at, if it has a task; return the stages of its tasks."""
    workers = python_workers(pid)
    stopped = [pid, *workers]
    for one in stopped:
        _send(one, signal.SIGSTOP)
    try:
        time.sleep(SETTLE_S)
        attempts = running_stages(spark).get(executor, set())
        if not attempts or not aim.moment():
            return set()
        n_crashed = crashed_tasks(spark, attempts)
        for one in [pid] if aim.victim == "executor" else workers:
            _send(one, signal.SIGKILL)
    finally:
        for one in stopped:
            _send(one, signal.SIGCONT)
    stages = {stage for stage, _ in attempts}
    if aim.victim == "executor":
        return stages
    for _ in range(2000):
        if crashed_tasks(spark, attempts) > n_crashed:
            return stages
        if not attempts & running_stages(spark).get(executor, set()):
            break
        time.sleep(0.05)
    time.sleep(SETTLE_S)
    return stages if crashed_tasks(spark, attempts) > n_crashed else set()  # else a worker that waited for a task


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def executor_pids(spark: Any) -> dict[str, int]:
    """Return the processes of the executors of this session alone, by their names.

    Sessions that start within one second have one application ID; the port of the driver is its own.
    """
    driver, found = f":{spark.conf.get('spark.driver.port')}", {}
    for pid, words in _processes():
        if "--driver-url" in words and words[words.index("--driver-url") + 1].endswith(driver):
            found[words[words.index("--executor-id") + 1]] = pid
    return found


def python_workers(executor: int) -> list[int]:
    """Return the Python workers of an executor: the children of its daemon."""
    words = dict(_processes())
    daemons = [pid for pid in children(executor) if "pyspark.daemon" in words.get(pid, [])]
    return [pid for daemon in daemons for pid in children(daemon)]


def children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    return [pid for pid, _ in _processes() if _parent(pid) == parent]


def running_stages(spark: Any) -> dict[str, set[tuple[int, int]]]:
    """Return the attempts of stages that have running tasks, by executor, as the driver knows."""
    store, found = spark.sparkContext._jsc.sc().statusStore(), {}
    for stage in _sequence(store.activeStages()):
        if stage.numActiveTasks() > 0:
            for task in _sequence(store.taskList(stage.stageId(), stage.attemptId(), 10_000)):
                if task.status() == "RUNNING":
                    found.setdefault(task.executorId(), set()).add((stage.stageId(), stage.attemptId()))
    return found


def _sequence(values: Any) -> list[Any]:
    return [values.apply(number) for number in range(values.size())]


def crashed_tasks(spark: Any, attempts: set[tuple[int, int]]) -> int:
    """Return the number of tasks of some attempts of stages whose Python worker was killed."""
    store = spark.sparkContext._jsc.sc().statusStore()
    tasks = [task for stage, attempt in attempts for task in _sequence(store.taskList(stage, attempt, 10_000))]
    errors = [task.errorMessage() for task in tasks]
    return sum(error.isDefined() and CRASH in error.get() for error in errors)


def event_log(spark: Any) -> Path:
    """Return the file of Spark's event log: JSON, one event a line."""
    folder = Path(spark.conf.get("spark.eventLog.dir").removeprefix("file://"))
    (log,) = folder.glob(f"{spark.sparkContext.applicationId}*")
    return log


def read_retries(log: Path, start: int = 0) -> list[Retry]:
    """Return the attempts that failed since a byte of the event log, of tasks that have succeeded in a later one."""
    failed: dict[tuple[int, int], list[str]] = {}
    found = []
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            if not line.endswith(b"\n"):
                break  # being written
            event = json.loads(line)
            if event["Event"] != "SparkListenerTaskEnd":
                continue
            task, reason = (event["Stage ID"], event["Task Info"]["Partition ID"]), event["Task End Reason"]["Reason"]
            if reason != "Success":
                failed.setdefault(task, []).append(reason)
            else:
                found += [Retry(*task, one) for one in failed.pop(task, [])]
    return found


def _processes() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # has ended
                continue


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])
