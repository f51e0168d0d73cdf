"""How many pixels the process decodes at a time: the memory of decoding does not grow with the number of threads."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A decoder takes up to 24 bytes a pixel: 3 GB. One image alone may exceed it.
MAX_PIXELS_IN_FLIGHT: Final = 128_000_000
# Smaller images are not counted: a lock for each would cost more than it bounds.
SMALL: Final = 1_000_000


class PixelBudget:
    """Pixels that are being decoded; who would exceed the limit waits, first come, first served.

    Parameters
    ----------
    max_pixels
        The limit.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._n_pixels = 0
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()
        self._held = threading.local()

    @contextmanager
    def image(self) -> Iterator[None]:
        """Give back at the end what this thread takes within."""
        self._held.n_pixels = 0
        try:
            yield
        finally:
            self._release()
            self._held.n_pixels = None

    def take(self, n_pixels: int) -> None:
        """Take the pixels of the image that this thread is about to decode; wait until there is room for them.

        Nothing is taken outside of `image`, and nothing more for an image that is decoded a second time.
        """
        held: int | None = getattr(self._held, "n_pixels", None)
        if held is None or n_pixels <= max(SMALL, held):
            return
        self._release()  # who waits holds nothing, so nobody waits for ever
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
            try:
                while self._tickets[0] is not ticket or not self._fits(n_pixels):
                    self._changed.wait()
                self._n_pixels += n_pixels
                self._held.n_pixels = n_pixels
            finally:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def _fits(self, n_pixels: int) -> bool:
        return self._n_pixels == 0 or self._n_pixels + n_pixels <= self._max_pixels

    def _release(self) -> None:
        n_pixels, self._held.n_pixels = self._held.n_pixels, 0
        if n_pixels:
            with self._changed:
                self._n_pixels -= n_pixels
                self._changed.notify_all()


PIXELS: PixelBudget = PixelBudget(MAX_PIXELS_IN_FLIGHT)


def _forget_threads_of_parent() -> None:
    global PIXELS
    PIXELS = PixelBudget(MAX_PIXELS_IN_FLIGHT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
