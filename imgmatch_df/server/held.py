"""Bytes in memory of request bodies and of unread responses, counted so that they can be limited."""

from time import monotonic
from typing import Final, Protocol

# The sizes of the transports' buffers are added up at most this often: with thousands of slow readers it takes half a
# millisecond. In between, the sum is an upper bound, because buffers grow by counted writes only.
_COUNT_AFTER_S: Final = 0.1


class Writer(Protocol):
    """The method of a transport that is used here."""

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that wait to be sent."""


class Held:
    """Bytes held: request bodies until their response is sent, and responses until the client has read them.

    Parameters
    ----------
    max_bytes
        Above it, requests are refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_requested = 0
        self._n_unsent = 0
        self._unsent: dict[Writer, int] = {}
        self._counted_at = 0.0

    def hold(self, n_bytes: int) -> None:
        """Add bytes of a body; negative when the body is released."""
        self._n_requested += n_bytes

    def note(self, writer: Writer, n_bytes: int) -> None:
        """Set the number of bytes in the buffer of a transport, after a write."""
        if n_bytes or writer in self._unsent:
            self._n_unsent += n_bytes - self._unsent.get(writer, 0)
            self._unsent[writer] = n_bytes

    @property
    def is_full(self) -> bool:
        """Whether requests must be refused."""
        if self._n_requested + self._n_unsent <= self._max_bytes:
            return False
        if monotonic() - self._counted_at > _COUNT_AFTER_S:
            self.count()
        return self._n_requested + self._n_unsent > self._max_bytes

    def count(self) -> int:
        """Return the number of bytes held now."""
        self._counted_at = monotonic()
        sizes = ((writer, writer.get_write_buffer_size()) for writer in self._unsent)
        self._unsent = {writer: n_bytes for writer, n_bytes in sizes if n_bytes}
        self._n_unsent = sum(self._unsent.values())
        return self._n_requested + self._n_unsent
