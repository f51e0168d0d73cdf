"""Budget for the memory of decoding in the process, which does not grow with the number of threads.

The memory for an image depends on its format and its header more than on its pixels: `decode_costs` has the figures.
"""

import os
import threading
from collections import deque
from typing import Final

# For all images together. In addition each thread keeps up to 105 MB, and small images are not counted: 16 threads
# stay below 4 GB.
MAX_PIXEL_BYTES: Final = 2_000_000_000
# Images that take less are not counted: a lock per image would cost more than it saves.
SMALL: Final = 16_000_000


class PixelBudget:
    """Bytes of the images that are being decoded. A thread that would exceed the limit waits, in order of arrival.

    Each image is decoded in a block ``with budget:``.

    Parameters
    ----------
    max_bytes
        The limit. An image that takes more is decoded alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()
        self._held = threading.local()

    def __enter__(self) -> None:
        """Start an image: bytes that this thread takes are released at the end of the block."""
        self._held.n_bytes = 0

    def __exit__(self, *_: object) -> None:
        if self._held.n_bytes:
            self._release()
        self._held.n_bytes = None

    def take(self, n_bytes: int) -> None:
        """Take the bytes of the image that this thread is about to decode; wait for room.

        No bytes are taken outside of a block, and none again for an image that is decoded a second time.
        """
        held: int | None = getattr(self._held, "n_bytes", None)
        if held is None or n_bytes <= max(SMALL, held):
            return
        self._release()  # a waiting thread holds no bytes, so there is no deadlock
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


PIXELS: PixelBudget = PixelBudget(MAX_PIXEL_BYTES)


def _forget_threads_of_parent() -> None:
    global PIXELS
    PIXELS = PixelBudget(MAX_PIXEL_BYTES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
