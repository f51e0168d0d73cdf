"""How much memory decoding takes in the process at a time: it does not grow with the number of threads.

What an image takes depends on its format and on its header more than on its pixels: `decode_costs` has the figures.
"""

import os
import threading
from collections import deque
from typing import Final

# Of all images together. Each thread keeps up to 64 MB beside, and smaller images are not counted: 16 threads stay
# below 4 GB.
MAX_BYTES_IN_FLIGHT: Final = 2_000_000_000
# Images that take less are not counted: a lock for each would cost more than it bounds.
SMALL: Final = 16_000_000


class PixelBudget:
    """Bytes of images that are being decoded; who would exceed the limit waits, first come, first served.

    Each image is a block: ``with budget:``.

    Parameters
    ----------
    max_bytes
        The limit. An image that takes more is decoded while no other is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()
        self._held = threading.local()

    def __enter__(self) -> None:
        """Begin an image: what this thread takes from here on is given back at the end of the block."""
        self._held.n_bytes = 0

    def __exit__(self, *_: object) -> None:
        if self._held.n_bytes:
            self._release()
        self._held.n_bytes = None

    def take(self, n_bytes: int) -> None:
        """Take the bytes of the image that this thread is about to decode; wait until there is room for them.

        Nothing is taken outside of a block, and nothing more for an image that is decoded a second time.
        """
        held: int | None = getattr(self._held, "n_bytes", None)
        if held is None or n_bytes <= max(SMALL, held):
            return
        self._release()  # who waits holds nothing, so nobody waits for ever
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
            try:
                while self._tickets[0] is not ticket or not self._fits(n_bytes):
                    self._changed.wait()
                self._n_bytes += n_bytes
                self._held.n_bytes = n_bytes
            finally:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def _fits(self, n_bytes: int) -> bool:
        return self._n_bytes == 0 or self._n_bytes + n_bytes <= self._max_bytes

    def _release(self) -> None:
        n_bytes, self._held.n_bytes = self._held.n_bytes, 0
        if n_bytes:
            with self._changed:
                self._n_bytes -= n_bytes
                self._changed.notify_all()


PIXELS: PixelBudget = PixelBudget(MAX_BYTES_IN_FLIGHT)


def _forget_threads_of_parent() -> None:
    global PIXELS
    PIXELS = PixelBudget(MAX_BYTES_IN_FLIGHT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
