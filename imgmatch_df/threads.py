"""The thread pool of the process, and the distribution of tasks to it.

Kernels and decoders release the GIL, so threads are sufficient.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from imgmatch_df.errors import ArgumentError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_MAX_RESULTS_QUEUED: Final = 64  # results of helpers that wait for the calling thread

MAX_THREADS: Final = "IMGMATCH_MAX_THREADS"
_MAX_ALLOWED: Final = 1024

_lock = threading.Lock()


def n_threads() -> int:
    """Return the maximum number of threads that do work for this process at a time.

    `IMGMATCH_MAX_THREADS` if it is set, else the minimum of three numbers: the processors that the process may run on,
    the quota of its control groups, and the size of the thread pool of Polars, which `POLARS_MAX_THREADS` sets.

    Raises
    ------
    ArgumentError
        If `IMGMATCH_MAX_THREADS` is not a whole number of at least 1.
    """
    chosen = max_threads()
    return min(_n_processors(), _n_allowed()) if chosen is None else chosen


def max_threads() -> int | None:
    """Return `IMGMATCH_MAX_THREADS`, at most 1,024, or None; raise `ArgumentError` if it is not a number."""
    text = os.environ.get(MAX_THREADS, "").strip()
    if not text:
        return None
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit() and digits):
        raise ArgumentError(
            f"the environment variable {MAX_THREADS} must be a whole number of at least 1, got {text[:80]!r}\n"
            "Hint: unset it to use all processors."
        )
    return min(int(digits[:6]), _MAX_ALLOWED)


def _n_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return getattr(os, "process_cpu_count", os.cpu_count)() or 1  # the first is new in Python 3.13


@cache
def _n_allowed() -> int:
    import polars as pl

    return max(1, min(pl.thread_pool_size(), cpu_quota() or sys.maxsize))


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return the number of processors that the control groups of this process allow, rounded up; None if unlimited.

    Parameters
    ----------
    root
        Folder that contains ``proc/self/cgroup`` and ``sys/fs/cgroup``.
    """
    text = _text_of(root / "proc/self/cgroup") or "0::/"
    quotas = []
    for line in text.splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [controllers, "cpu", "cpu,cpuacct", "cpuacct,cpu"] if controllers else ["", "unified"]
        for mount in dict.fromkeys(mounts):
            # Limits of parent groups apply as well. In a container, the name of the group may be that on the host; then
            # the files of the group are in the root folder.
            parts = [part for part in group.split("/") if part not in ("", ".", "..")]
            folders = [root.joinpath("sys/fs/cgroup", mount, *parts[:n]) for n in range(len(parts) + 1)]
            quotas += [quota for folder in folders if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _quota_of(folder: Path) -> int | None:
    """Return the quota of one control group, version 2 or 1, in whole processors."""
    quota, _, period = (_text_of(folder / "cpu.max") or "").strip().partition(" ")
    if not quota:
        quota, period = ((_text_of(folder / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period"))
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None  # "max" and "-1" mean unlimited
    return -(-int(quota) // int(period))


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def pool() -> "ThreadPoolExecutor":
    """Return the pool of `n_threads` threads. A task in it must not wait for another task of the pool."""
    with _lock:
        return _pool()


@cache
def _pool() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(n_threads(), thread_name_prefix="imgmatch")


class Task(Protocol[T_co]):
    """Work in several calls, until it is finished; each call returns a result."""

    @property
    def finished(self) -> bool:
        """Whether the work is done."""

    def __call__(self) -> T_co:
        """Do a part of the work and return its result."""

    def then(self) -> "Sequence[Task[T_co]]":
        """Return the tasks that depend on this one; called once, when it is finished."""


class Once:
    """A task that is finished after one call of a function; `result` holds what the function returned."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._function, self._arguments = function, arguments
        self.finished = False
        self.result: Any = None

    def __call__(self) -> None:
        """Call the function."""
        self.result = self._function(*self._arguments)
        self.finished = True

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


def finish_tasks(tasks: Sequence[Task[None]], n_at_work: int | None) -> None:
    """Call the tasks until all are finished, as `run_tasks` does."""
    for _ in run_tasks(tasks, n_at_work):
        pass


def run_tasks(tasks: Sequence[Task[T]], n_at_work: int | None) -> Iterator[tuple[Task[T], T]]:
    """Call the tasks and their dependents until all are finished, and yield the result of every call.

    At most `n_at_work` threads work at a time, None for all. The calling thread is one of them. Therefore a small join
    does not wait for the pool, a task of the pool may call this function without a deadlock, and Ctrl-C is noticed
    after at most one call. After that no task is called again; calls in flight complete.
    """
    todo = deque(tasks)
    results: SimpleQueue[tuple[Task[T], T] | None] = SimpleQueue()  # of the helpers; None if one has ended

    def call(task: Task[T]) -> tuple[Task[T], T]:
        result = task()
        if task.finished:  # dependents first: they use memory that is released when they are finished
            todo.extendleft(reversed(task.then()))
        else:
            todo.append(task)
        return task, result

    def take() -> Task[T] | None:
        with suppress(IndexError):
            return todo.popleft()
        return None

    def run_helper() -> None:
        # The queue is limited, so that helpers stop when the caller does, as after an error.
        try:
            while results.qsize() < _MAX_RESULTS_QUEUED and (task := take()) is not None:
                results.put(call(task))
        finally:
            results.put(None)

    helpers: list[Future[None]] = []
    n_helpers = min(n_at_work or n_threads(), n_threads() + 1) - 1
    n_running = 0
    try:
        while True:
            while n_running < min(n_helpers, len(todo) - 1):
                helpers.append(pool().submit(run_helper))
                n_running += 1
            if (task := take()) is not None:
                yield call(task)
            else:
                n_running -= len(helpers)
                helpers = [helper for helper in helpers if not helper.cancel()]  # the pool may be busy with other work
                n_running += len(helpers)
            idle = task is None
            while not results.empty() or (idle and n_running):
                result = results.get()
                idle = False
                if result is None:
                    n_running -= 1
                else:
                    yield result
            if idle and not todo:
                break
        for helper in helpers:
            helper.result()
    finally:
        todo.clear()
        for helper in helpers:
            helper.cancel()


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return the result of `work`, which may block for long and runs in its own thread.

    It is a daemon thread, because at exit the interpreter waits for the threads of an executor, and a name look-up
    cannot be cancelled.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():  # cancelled meanwhile
            return
        if error is None:
            result.set_result(value)  # type: ignore[arg-type]  # the result of `work`
        else:
            result.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:  # noqa: BLE001  # raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, daemon=True, name="imgmatch-blocking").start()
    return await result


def _forget_threads_of_parent() -> None:
    # A forked child has the pool object without its threads, and the lock may be held.
    global _lock
    _lock = threading.Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
