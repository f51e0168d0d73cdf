"""Silence for the warnings of Pillow, in the thread that decodes and in no other."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class _Here(threading.local):
    decoding = False


_HERE: Final = _Here()


class _WhileDecoding(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return _HERE.decoding


class _PillowWarning(Warning, metaclass=_WhileDecoding):
    """Every warning of a thread that decodes just now, and none of any other.

    `warnings.catch_warnings` swaps the filters of the whole process: with several threads they come back in the wrong
    order, or not at all, and the user's own warnings are lost meanwhile. One filter that asks for the thread is safe.
    """


_FILTER: Final = ("ignore", None, _PillowWarning, None, 0)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Ignore the warnings of this thread in the block."""
    if warnings.filters[:1] != [_FILTER]:  # someone has put filters in front, or taken ours away
        warnings.simplefilter("ignore", _PillowWarning)
    _HERE.decoding = True
    try:
        yield
    finally:
        _HERE.decoding = False
