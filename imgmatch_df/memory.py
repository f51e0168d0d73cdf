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
        self._waiting: list[asyncio.Future[None]] = []
        self._call_back = call_back
        self._is_short = False
        self._lock = threading.Lock()

    def claim(self, max_bytes: int) -> "Claim":
        """Return an empty claim; its fetch may go on while no more than `max_bytes` are held in all."""
        claim = Claim(self, max_bytes)
        self._arriving[claim] = None
        return claim

    def has_room(self, max_bytes: int) -> bool:
        """Return whether fewer than `max_bytes` are held; if not, `call_back` tells when that may have changed."""
        with self._lock:
            self._is_short |= self.n_bytes >= max_bytes
            return self.n_bytes < max_bytes

    def wake(self) -> None:
        """Let everyone who waits look again."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    def _take(self, claim: "Claim", n_bytes: int) -> bool:
        # Bodies that are all half there would wait for each other for ever. So the oldest goes on, unless something
        # that has arrived is to be freed soon; that bounds the excess to one body.
        with self._lock:
            fits = self.n_bytes + n_bytes <= claim.max_bytes
            if not fits and (self._n_arrived or next(iter(self._arriving), None) is not claim):
                self._is_short = True
                return False
            self.n_bytes += n_bytes
            return True

    def _free(self, n_bytes: int, n_arrived: int) -> None:
        with self._lock:
            self.n_bytes -= n_bytes
            self._n_arrived -= n_arrived
            was_short, self._is_short = self._is_short, False
        if was_short:  # waking a loop costs 40 microseconds: not for every picture
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

    async def take(self, n_bytes: int, clock: asyncio.Timeout) -> None:
        """Take more bytes, as soon as there is room; meanwhile the `clock` stands still."""
        memory = self._memory
        if not memory._take(self, n_bytes):
            loop = asyncio.get_running_loop()
            left_s = (clock.when() or loop.time()) - loop.time()
            clock.reschedule(None)
            taken = False
            while not taken:
                waiting = loop.create_future()
                memory._waiting.append(waiting)
                await waiting
                taken = memory._take(self, n_bytes)
            clock.reschedule(loop.time() + left_s)
        self._n_bytes += n_bytes

    def arrive(self) -> None:
        """Say that all bytes are there: from now on they are waiting to be decoded."""
        with self._memory._lock:
            del self._memory._arriving[self]
            self._memory._n_arrived += 1

    def drop(self) -> None:
        """Give back the bytes of a fetch that came to nothing."""
        del self._memory._arriving[self]
        self._memory._free(self._n_bytes, 0)

    def release(self) -> None:
        """Give back the bytes of what has arrived; from any thread."""
        self._memory._free(self._n_bytes, 1)
