"""The one thread pool of the process, and how tasks are shared out to it.

Kernels and decoders release the GIL, so threads are enough.
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

_AHEAD: Final = 64  # results that helpers have ready for the calling thread

MAX_THREADS: Final = "IMGMATCH_MAX_THREADS"
_MOST: Final = 1024

_lock = threading.Lock()


def n_threads() -> int:
    """Return how many threads this process may keep busy.

    `IMGMATCH_MAX_THREADS`, else the smallest of: the processors that the process is allowed to run on, the quota of its
    control groups, and the width of Polars' own pool, which `POLARS_MAX_THREADS` sets.

    Raises
    ------
    ArgumentError
        If `IMGMATCH_MAX_THREADS` is not a whole number of at least 1.
    """
    chosen = max_threads()
    return min(_n_processors(), _n_allowed()) if chosen is None else chosen


def max_threads() -> int | None:
    """Return `IMGMATCH_MAX_THREADS`, at most 1,024, or None; raise `ArgumentError` where it is not a number."""
    text = os.environ.get(MAX_THREADS, "").strip()
    if not text:
        return None
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit() and digits):
        raise ArgumentError(
            f"the environment variable {MAX_THREADS} must be a whole number of at least 1, got {text[:80]!r}\n"
            "Hint: unset it to use all processors."
        )
    return min(int(digits[:6]), _MOST)


def _n_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return getattr(os, "process_cpu_count", os.cpu_count)() or 1  # the first exists from Python 3.13 on


@cache
def _n_allowed() -> int:
    import polars as pl

    return max(1, min(pl.thread_pool_size(), cpu_quota() or sys.maxsize))


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return how many processors the control groups of this process allow, rounded up; None where they do not tell.

    Parameters
    ----------
    root
        Where ``proc/self/cgroup`` and ``sys/fs/cgroup`` are.
    """
    text = _read(root / "proc/self/cgroup") or "0::/"
    quotas = []
    for line in text.splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [controllers, "cpu", "cpu,cpuacct", "cpuacct,cpu"] if controllers else ["", "unified"]
        for mount in dict.fromkeys(mounts):
            # A limit of a group above holds as well. In a container the group may be named as the host sees it; then
            # the files of its own group are at the top.
            parts = [part for part in group.split("/") if part not in ("", ".", "..")]
            folders = [root.joinpath("sys/fs/cgroup", mount, *parts[:n]) for n in range(len(parts) + 1)]
            quotas += [quota for folder in folders if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _quota_of(folder: Path) -> int | None:
    """Return the quota of one control group, of version 2 or 1, in whole processors."""
    quota, _, period = (_read(folder / "cpu.max") or "").strip().partition(" ")
    if not quota:
        quota, period = ((_read(folder / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period"))
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None  # "max" and "-1" are no limit
    return -(-int(quota) // int(period))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def pool() -> "ThreadPoolExecutor":
    """Return the pool, `n_threads` wide. Tasks in it must not wait for other tasks of it."""
    with _lock:
        return _pool()


@cache
def _pool() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(n_threads(), thread_name_prefix="imgmatch")


class Task(Protocol[T_co]):
    """A call that is repeated until it is finished, and gives something every time."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""

    def __call__(self) -> T_co:
        """Go on for a while."""

    def then(self) -> "Sequence[Task[T_co]]":
        """Return the tasks that can be done from then on; called once, when this one is finished."""


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
    """Call the tasks, as `run_tasks` does, until all are finished."""
    for _ in run_tasks(tasks, n_at_work):
        pass


def run_tasks(tasks: Sequence[Task[T]], n_at_work: int | None) -> Iterator[tuple[Task[T], T]]:
    """Call the tasks and those that follow from them until all are finished, and yield what every call gives.

    At most `n_at_work` threads are at work, None for all. The calling one is among them, so that small joins wait for
    nobody, and so that Ctrl-C reaches it within a call; from then on no task is called again, and those under way end
    by themselves.
    """
    todo = deque(tasks)
    given: SimpleQueue[tuple[Task[T], T] | None] = SimpleQueue()

    def call(task: Task[T]) -> tuple[Task[T], T]:
        result = task()
        if task.finished:  # first what follows: others may wait for it, and for the memory that it gives back
            todo.extendleft(reversed(task.then()))
        else:
            todo.append(task)
        return task, result

    def take() -> Task[T] | None:
        with suppress(IndexError):
            return todo.popleft()
        return None

    def help_out() -> None:
        # Not too far ahead: when the caller stops asking, as after an error, this stops as well.
        try:
            while given.qsize() < _AHEAD and (task := take()) is not None:
                given.put(call(task))
        finally:
            given.put(None)

    helpers: list[Future[None]] = []
    n_helpers = min(n_at_work or n_threads(), n_threads() + 1) - 1
    n_out = 0
    try:
        while True:
            while n_out < min(n_helpers, len(todo) - 1):
                helpers.append(pool().submit(help_out))
                n_out += 1
            if (task := take()) is not None:
                yield call(task)
            else:
                n_out -= len(helpers)
                helpers = [helper for helper in helpers if not helper.cancel()]  # the pool may be busy for others
                n_out += len(helpers)
            idle = task is None
            while not given.empty() or (idle and n_out):
                gift = given.get()
                idle = False
                if gift is None:
                    n_out -= 1
                else:
                    yield gift
            if idle and not todo:
                break
        for helper in helpers:
            helper.result()
    finally:
        todo.clear()
        for helper in helpers:
            helper.cancel()


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return the result of `work`, which may block for long, done in a thread of its own.

    The thread ends with the process, where those of an executor are waited for: nobody can wake a look-up of a name.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():  # cancelled meanwhile
            return
        if error is None:
            result.set_result(value)  # type: ignore[arg-type]  # `work` gave it
        else:
            result.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:  # noqa: BLE001  # raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, daemon=True, name="imgmatch-blocking").start()
    return await result


def _forget_threads_of_parent() -> None:
    # A forked child has the pool's bookkeeping but none of its threads, and possibly a held lock.
    global _lock
    _lock = threading.Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
