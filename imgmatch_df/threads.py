"""The one thread pool of the process. Kernels and decoders release the GIL, so threads are enough."""

import os
import threading
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

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


def _forget_threads_of_parent() -> None:
    # A forked child has the pool's bookkeeping but none of its threads, and possibly a held lock.
    global _lock
    _lock = threading.Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
