"""Timers of requests, all on one timer of the event loop.

A request has three timers, and nearly all of them are cancelled. Each timer of asyncio is sorted into a heap by methods
in Python: 30 microseconds of each request.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

# How late a timer may be. The shortest timeouts of the service are whole seconds by default.
_LATE_S: Final = 0.05


class Timer:
    """A callback at a time, until it is cancelled."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: "Timers", when: float, callback: Callable[[], object]) -> None:
        self._timers = timers
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        """Cancel the callback; it may have been called already."""
        self._timers.discard(self)


class Timers:
    """Timers of one event loop, each late by at most about 0.05 s. Used on its thread."""

    def __init__(self) -> None:
        self._active: dict[Timer, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `delay_s`."""
        loop = asyncio.get_running_loop()
        timer = Timer(self, loop.time() + delay_s, callback)
        self._active[timer] = None
        if self._next is None or loop is not self._loop:
            self._loop = loop
            self._next = loop.call_later(_LATE_S, self._run)
        return timer

    def timeout(self, within_s: float) -> "Timeout":
        """Return a context manager that cancels its block after `within_s`, and raises `TimeoutError` then."""
        return Timeout(self, within_s)

    def discard(self, timer: Timer) -> None:
        """Forget a timer."""
        self._active.pop(timer, None)

    def _run(self) -> None:
        self._next = None
        now = asyncio.get_running_loop().time()
        for timer in [timer for timer in self._active if timer.when <= now]:
            if timer in self._active:  # not cancelled by a callback before it
                del self._active[timer]
                timer.callback()
        if self._active and self._next is None:
            self._next = asyncio.get_running_loop().call_later(_LATE_S, self._run)


class Timeout:
    """As `asyncio.timeout`, for a block of the current task."""

    __slots__ = ("_expired", "_n_cancelling", "_task", "_timer", "_timers", "_within_s")

    def __init__(self, timers: Timers, within_s: float) -> None:
        self._timers = timers
        self._within_s = within_s
        self._expired = False

    def __enter__(self) -> None:
        """Start the time."""
        task: Any = asyncio.current_task()
        self._task = task
        self._n_cancelling = task.cancelling()
        self._timer = self._timers.call_later(self._within_s, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End the time; raise `TimeoutError` if it cancelled the block."""
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._n_cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
