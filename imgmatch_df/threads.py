"""The one thread pool of the process. Kernels and decoders release the GIL, so threads are enough."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncio import Future
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

_lock = threading.Lock()


def n_threads() -> int:
    """Return how many threads this process may keep busy: the processors that it is allowed to run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pool() -> "ThreadPoolExecutor":
    """Return the pool, `n_threads` wide. Tasks in it must not wait for other tasks of it."""
    with _lock:
        return _pool()


@cache
def _pool() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(n_threads(), thread_name_prefix="imgmatch")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return the result of `work`, which may block for long, done in a thread of its own.

    The thread ends with the process, where those of an executor are waited for: nobody can wake a look-up of a name.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    result: Future[T] = loop.create_future()

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
