"""A count of the folders that could not be listed: who prunes by a listing has to know that it is not whole."""

import threading

_lock = threading.Lock()
_n_unlisted = 0


def note_unlisted() -> None:
    """Count a folder that a query could not list."""
    global _n_unlisted
    with _lock:
        _n_unlisted += 1


def n_unlisted() -> int:
    """Return how many folders queries of this process could not list so far."""
    return _n_unlisted
