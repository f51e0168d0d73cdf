"""Byte budget of downloads, which limits the bytes that were received but not decoded yet.

It is used on the thread of one event loop, except for the release of bytes after decoding.
"""

import asyncio
import threading
from collections.abc import Callable


class ByteBudget:
    """The bytes that all downloads of the process hold.

    Parameters
    ----------
    on_room
        Callback, run on any thread when there may be room for a claim that waits; it schedules `wake` on the loop
        thread.
    """

    def __init__(self, on_room: Callable[[], object]) -> None:
        self.n_bytes = 0
        self._n_complete = 0
        self._arriving: dict[Claim, None] = {}
        self._waiting: dict[Claim, Callable[[], object]] = {}
        self._on_room = on_room
        self._wake_at: float | None = None
        self._lock = threading.Lock()

    def claim(self, max_bytes: int) -> "Claim":
        """Return an empty claim; it can take bytes while all claims hold at most `max_bytes`."""
        claim = Claim(self, max_bytes)
        self._arriving[claim] = None
        return claim

    def has_room(self, max_bytes: int) -> bool:
        """Return whether another download may start; half of `max_bytes` is reserved for downloads in flight.

        If it returns False, `on_room` is called when there may be room.
        """
        with self._lock:
            has_room = self.n_bytes < max_bytes / 2
            if not has_room:
                self._request_wake(max_bytes)
            return has_room

    def wake(self) -> None:
        """Resume all claims that wait for room."""
        waiting, self._waiting = self._waiting, {}
        for claim, resume in waiting.items():
            if claim in self._arriving:  # not dropped by a claim that was resumed before it
                resume()

    def _take(self, claim: "Claim", n_bytes: int) -> bool:
        # Incomplete bodies that all wait for room would wait for ever. So the oldest one may exceed the budget, unless
        # a complete one will be released soon; the excess is at most one body.
        with self._lock:
            fits = self.n_bytes + n_bytes <= claim.max_bytes
            if not fits and (self._n_complete or next(iter(self._arriving), None) is not claim):
                self._request_wake(claim.max_bytes)
                return False
            self.n_bytes += n_bytes
            return True

    def _request_wake(self, max_bytes: int) -> None:
        # Do not wake the loop after every decode: resuming all paused transfers for a few free bytes costs 0.5 ms per
        # image. A budget that is a quarter full still has images to decode.
        self._wake_at = max(self._wake_at or 0, max_bytes / 4)

    def _free(self, n_bytes: int, n_complete: int) -> None:
        with self._lock:
            self.n_bytes -= n_bytes
            self._n_complete -= n_complete
            wakes = self._wake_at is not None and (self.n_bytes <= self._wake_at or not self._n_complete)
            if wakes:
                self._wake_at = None
        if wakes:
            self._on_room()


class Claim:
    """The bytes that one download holds.

    Parameters
    ----------
    budget
        Budget that the bytes count against.
    max_bytes
        Maximum bytes of all claims together when this one takes more.
    """

    def __init__(self, budget: ByteBudget, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._budget = budget
        self._n_bytes = 0

    def take(self, n_bytes: int) -> bool:
        """Take `n_bytes` and return True; return False if there is no room."""
        taken = self._budget._take(self, n_bytes)
        if taken:
            self._n_bytes += n_bytes
        return taken

    def when_room(self, resume: Callable[[], object]) -> None:
        """Call `resume` once, when there may be room; never after `complete` or `drop`."""
        self._budget._waiting[self] = resume

    async def wait_and_take(self, n_bytes: int, clock: asyncio.Timeout) -> None:
        """Wait for room and take `n_bytes`; the wait does not count against the timeout `clock`."""
        if self.take(n_bytes):
            return
        loop = asyncio.get_running_loop()
        left_s = (clock.when() or loop.time()) - loop.time()
        clock.reschedule(None)
        taken = False
        while not taken:
            woken = asyncio.Event()
            self.when_room(woken.set)
            await woken.wait()
            taken = self.take(n_bytes)
        clock.reschedule(loop.time() + left_s)

    def complete(self) -> None:
        """Record that all bytes have arrived; they are held until `release`."""
        with self._budget._lock:
            del self._budget._arriving[self]
            self._budget._n_complete += 1

    def drop(self) -> None:
        """Release the bytes of a download that failed."""
        del self._budget._arriving[self]
        self._budget._waiting.pop(self, None)
        self._budget._free(self._n_bytes, 0)

    def release(self) -> None:
        """Release the bytes of a complete download, on any thread."""
        self._budget._free(self._n_bytes, 1)
