"""Bytes in flight: what has arrived over the network, or is arriving, and has not been decoded yet.

Belongs to one event loop. Everything happens in its thread but the release of what has arrived.
"""

import asyncio
import threading
from collections.abc import Callable


class Memory:
    """The bytes that all fetches of the process hold.

    Parameters
    ----------
    call_back
        Called in any thread when bytes have become free that somebody waits for; must have `wake` called in the loop's.
    """

    def __init__(self, call_back: Callable[[], object]) -> None:
        self.n_bytes = 0
        self._n_arrived = 0
        self._arriving: dict[Claim, None] = {}
        self._waiting: dict[Claim, Callable[[], object]] = {}
        self._call_back = call_back
        self._wake_at: float | None = None
        self._lock = threading.Lock()

    def claim(self, max_bytes: int) -> "Claim":
        """Return an empty claim; its fetch may go on while no more than `max_bytes` are held in all."""
        claim = Claim(self, max_bytes)
        self._arriving[claim] = None
        return claim

    def has_room(self, max_bytes: int) -> bool:
        """Return whether another fetch may begin: what is under way has the other half of `max_bytes` to land in.

        If not, `call_back` tells when that may have changed.
        """
        with self._lock:
            has_room = self.n_bytes < max_bytes / 2
            if not has_room:
                self._run_short(max_bytes)
            return has_room

    def wake(self) -> None:
        """Let everyone who waits try again."""
        waiting, self._waiting = self._waiting, {}
        for claim, go_on in waiting.items():
            if claim in self._arriving:  # not dropped meanwhile, by one that was woken before it
                go_on()

    def _take(self, claim: "Claim", n_bytes: int) -> bool:
        # Bodies that are all half there would wait for each other for ever. So the oldest goes on, unless something
        # that has arrived is to be freed soon; that bounds the excess to one body.
        with self._lock:
            fits = self.n_bytes + n_bytes <= claim.max_bytes
            if not fits and (self._n_arrived or next(iter(self._arriving), None) is not claim):
                self._run_short(claim.max_bytes)
                return False
            self.n_bytes += n_bytes
            return True

    def _run_short(self, max_bytes: int) -> None:
        # Not as soon as one picture has been decoded: to wake the loop, and all that wait to fill what little there is,
        # costs 0.5 ms a picture; a quarter full is enough to decode meanwhile.
        self._wake_at = max(self._wake_at or 0, max_bytes / 4)

    def _free(self, n_bytes: int, n_arrived: int) -> None:
        with self._lock:
            self.n_bytes -= n_bytes
            self._n_arrived -= n_arrived
            wakes = self._wake_at is not None and (self.n_bytes <= self._wake_at or not self._n_arrived)
            if wakes:
                self._wake_at = None
        if wakes:
            self._call_back()


class Claim:
    """The bytes that one fetch holds.

    Parameters
    ----------
    memory
        Where they count.
    max_bytes
        Most bytes that all may hold for this one to take more.
    """

    def __init__(self, memory: Memory, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._memory = memory
        self._n_bytes = 0

    def take(self, n_bytes: int) -> bool:
        """Take more bytes and return True; False, and nothing is taken, where there is no room."""
        taken = self._memory._take(self, n_bytes)
        if taken:
            self._n_bytes += n_bytes
        return taken

    def when_room(self, go_on: Callable[[], object]) -> None:
        """Have `go_on` called, once, when there may be room; never after `arrive` or `drop`."""
        self._memory._waiting[self] = go_on

    async def wait_and_take(self, n_bytes: int, clock: asyncio.Timeout) -> None:
        """Take more bytes, as soon as there is room; meanwhile the `clock` stands still."""
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

    def arrive(self) -> None:
        """Say that all bytes are there: from now on they are waiting to be decoded."""
        with self._memory._lock:
            del self._memory._arriving[self]
            self._memory._n_arrived += 1

    def drop(self) -> None:
        """Give back the bytes of a fetch that came to nothing."""
        del self._memory._arriving[self]
        self._memory._waiting.pop(self, None)
        self._memory._free(self._n_bytes, 0)

    def release(self) -> None:
        """Give back the bytes of what has arrived; from any thread."""
        self._memory._free(self._n_bytes, 1)
