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
from pathlib import Path
from typing import Any, Literal

SETTLE_S = 0.25  # the driver shows tasks with a delay of 0.1 s


@dataclass(frozen=True)
class Retry:
    """A task that failed because of a kill, and succeeded in another attempt."""

    stage: int
    task: int
    reason: str


@dataclass
class Kill:
    """What was killed, and the retries that Spark's event log reports."""

    victims: list[int] = field(default_factory=list)
    retries: list[Retry] = field(default_factory=list)
    error: BaseException | None = None


@contextmanager
def killing(
    spark: Any, moment: Callable[[], bool], victim: Literal["executor", "worker"] = "executor"
) -> Iterator[Kill]:
    """Kill an executor, or the Python workers of one, that has a task while `moment()` holds; once.

    At the end, `retries` of the yielded `Kill` is read from the event log. It fails where nothing was killed, or Spark
    reports no retry.
    """
    log, kill, end = event_log(spark), Kill(), threading.Event()
    start = log.stat().st_size
    thread = threading.Thread(target=_kill_once, args=(spark, moment, victim, kill, end))
    thread.start()
    try:
        yield kill
    finally:
        end.set()
        thread.join()
    if kill.error is not None:
        raise kill.error
    assert kill.victims, "no process had a task at the moment"
    for _ in range(100):
        kill.retries = read_retries(log, start)
        if kill.retries:
            return
        time.sleep(0.1)
    raise AssertionError(f"Spark reports no retry after the kill of {kill.victims}")


def _kill_once(spark: Any, moment: Callable[[], bool], victim: str, kill: Kill, end: threading.Event) -> None:
    try:
        while not end.is_set():
            busy = busy_executors(spark) if moment() else set()
            pids = executor_pids(spark)
            for executor in sorted(busy & pids.keys()):
                if _kill_one(spark, moment, executor, pids[executor], victim, kill):
                    return
            time.sleep(0.01)
    except BaseException as error:  # noqa: BLE001  # raised in the thread of the test
        kill.error = error


def _kill_one(spark: Any, moment: Callable[[], bool], executor: str, pid: int, victim: str, kill: Kill) -> bool:
    workers = python_workers(pid)
    stopped = [pid, *workers]
    for one in stopped:
        _send(one, signal.SIGSTOP)
    try:
        time.sleep(SETTLE_S)
        if not moment() or executor not in busy_executors(spark):
            return False
        n_failed = failed_tasks(spark)
        if victim == "executor":
            _send(pid, signal.SIGKILL)
            kill.victims.append(pid)
            return True
        for one in workers:
            _send(one, signal.SIGKILL)
    finally:
        for one in stopped:
            _send(one, signal.SIGCONT)
    # A worker may have been one that waits for its next task.
    for _ in range(20):
        if failed_tasks(spark) > n_failed:
            kill.victims.extend(workers)
            return True
        time.sleep(0.05)
    return False


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def executor_pids(spark: Any) -> dict[str, int]:
    """Return the processes of the executors of this session alone, by their names."""
    application, found = spark.sparkContext.applicationId, {}
    for pid, words in _processes():
        if any(word.endswith("CoarseGrainedExecutorBackend") for word in words) and application in words:
            found[words[words.index("--executor-id") + 1]] = pid
    return found


def python_workers(executor: int) -> list[int]:
    """Return the Python workers of an executor: the children of its daemon."""
    daemons = [pid for pid, words in _processes() if "pyspark.daemon" in words and _parent(pid) == executor]
    return [pid for pid, _ in _processes() if _parent(pid) in daemons]


def busy_executors(spark: Any) -> set[str]:
    """Return the executors that have a running task, as the driver knows."""
    store = spark.sparkContext._jsc.sc().statusStore()
    executors = store.executorList(True)
    every = [executors.apply(number) for number in range(executors.size())]
    return {one.id() for one in every if one.activeTasks() > 0}


def failed_tasks(spark: Any) -> int:
    """Return the number of tasks of the session that failed."""
    executors = spark.sparkContext._jsc.sc().statusStore().executorList(False)
    return sum(executors.apply(number).failedTasks() for number in range(executors.size()))


def event_log(spark: Any) -> Path:
    """Return the file of Spark's event log: JSON, one event a line."""
    folder = Path(spark.conf.get("spark.eventLog.dir").removeprefix("file://"))
    (log,) = folder.glob(f"{spark.sparkContext.applicationId}*")
    return log


def read_retries(log: Path, start: int = 0) -> list[Retry]:
    """Return the tasks that failed since a byte of the event log and have succeeded in another attempt."""
    failed: dict[tuple[int, int], str] = {}
    found = []
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            if not line.endswith(b"\n"):
                break  # being written
            event = json.loads(line)
            if event["Event"] != "SparkListenerTaskEnd":
                continue
            task, reason = (event["Stage ID"], event["Task Info"]["Index"]), event["Task End Reason"]["Reason"]
            if reason != "Success":
                failed[task] = reason
            elif task in failed:
                found.append(Retry(*task, failed.pop(task)))
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
