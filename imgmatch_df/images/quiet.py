"""Filter for the warnings of Pillow, in a thread that decodes and in no other thread.

A plain ``filterwarnings("ignore", module="PIL")`` would also hide the warnings of Pillow that the user's own code
causes, such as `DecompressionBombWarning`.
"""

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
    """Category of all warnings in a thread that is decoding, and of none in other threads.

    `warnings.catch_warnings` replaces the filters of the whole process: with several threads they are restored in the
    wrong order or not at all, and the user's own warnings are lost meanwhile. One filter that depends on the thread is
    safe.
    """


_FILTER: Final = ("ignore", None, _PillowWarning, None, 0)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Ignore the warnings of this thread in the block."""
    if warnings.filters[:1] != [_FILTER]:  # a filter was added before ours, or ours was removed
        warnings.simplefilter("ignore", _PillowWarning)
    _HERE.decoding = True
    try:
        yield
    finally:
        _HERE.decoding = False
