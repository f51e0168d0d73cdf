"""The memory of requests and responses: what has arrived and is worked on, and what clients have not read yet."""

from time import monotonic
from typing import Final, Protocol

# How long the sizes of the transports' buffers are remembered: with thousands of slow readers, adding them up takes
# half a millisecond. Meanwhile they are known to be at most as large as they were, or as the last write made them.
_COUNT_AFTER_S: Final = 0.1


class Writer(Protocol):
    """A transport, as far as it is needed here."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""


class Held:
    """Bytes that are held: bodies of requests until they are answered, and responses until they are sent.

    Parameters
    ----------
    max_bytes
        Beyond that nothing more is taken on.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_requested = 0
        self._n_unsent = 0
        self._unsent: dict[Writer, int] = {}
        self._counted_at = 0.0

    def hold(self, n_bytes: int) -> None:
        """Count bytes of a body; negative, when they are given back."""
        self._n_requested += n_bytes

    def note(self, writer: Writer, n_bytes: int) -> None:
        """Count what a transport has to send after a write."""
        if n_bytes or writer in self._unsent:
            self._n_unsent += n_bytes - self._unsent.get(writer, 0)
            self._unsent[writer] = n_bytes

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be taken on."""
        if self._n_requested + self._n_unsent <= self._max_bytes:
            return False
        if monotonic() - self._counted_at > _COUNT_AFTER_S:
            self.count()
        return self._n_requested + self._n_unsent > self._max_bytes

    def count(self) -> int:
        """Return how many bytes are held just now."""
        self._counted_at = monotonic()
        sizes = ((writer, writer.get_write_buffer_size()) for writer in self._unsent)
        self._unsent = {writer: n_bytes for writer, n_bytes in sizes if n_bytes}
        self._n_unsent = sum(self._unsent.values())
        return self._n_requested + self._n_unsent
