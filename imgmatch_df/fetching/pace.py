"""Delay between requests to one host, counted over all calls of the process (`min_interval_s`)."""

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

_MAX_HOSTS: Final = 4096  # hosts that are remembered without a look at their times


class HostPace:
    """The times at which requests to hosts were started. Used on the thread of one event loop."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._longest_s = 0.0
        self._purge_at = _MAX_HOSTS

    def next_start(self, host: str, min_interval_s: float) -> float:
        """Return the first time at which a request to `host` may start; it may lie in the past.

        Parameters
        ----------
        host
            Scheme, host and port.
        min_interval_s
            Minimum time since the last request, in seconds.
        """
        self._longest_s = max(self._longest_s, min_interval_s)
        return self._started.get(host, -self._longest_s) + min_interval_s

    def record(self, host: str, time: float) -> None:
        """Record a request to `host`, started or to be started at `time`."""
        self._started[host] = max(time, self._started.get(host, time))
        if len(self._started) > self._purge_at:
            # Only times that no delay depends on are forgotten.
            self._started = {name: at for name, at in self._started.items() if at + self._longest_s > time}
            self._purge_at = 2 * max(len(self._started), _MAX_HOSTS // 2)

    def reserve(self, host: str, min_interval_s: float, now: float) -> float:
        """Return the time at which a request to `host` starts, and record it."""
        start = max(now, self.next_start(host, min_interval_s))
        self.record(host, start)
        return start


def pace_of(loop: asyncio.AbstractEventLoop) -> HostPace:
    """Return the times of the requests of an event loop."""
    found = _paces.get(loop)
    if found is None:
        found = _paces[loop] = HostPace()
    return found


_paces: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, HostPace]] = WeakKeyDictionary()
