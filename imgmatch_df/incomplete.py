"""Count of folders that could not be listed, so that a store is not pruned by an incomplete listing."""

import threading

_lock = threading.Lock()
_n_unlisted = 0


def note_unlisted() -> None:
    """Add one folder that a query could not list."""
    global _n_unlisted
    with _lock:
        _n_unlisted += 1


def n_unlisted() -> int:
    """Return the number of folders that queries of this process could not list so far."""
    return _n_unlisted
