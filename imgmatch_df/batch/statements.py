"""The Polars statements that are running, and what the expressions of one statement share.

Polars calls the function under several expressions once for each of them in an eager statement, and in a lazy query
where it does not merge them; one call follows the other where its pool has one thread. A result may be shared by the
calls of one statement, and by no others: a statement that runs later reads its sources again. Nothing that such a call
receives names its statement, and time does not tell it either. But the thread that runs a statement is inside a
function of Polars until the statement ends, so the Python stacks of all threads show which statements are running, and
what is kept on the frame of that function is dropped when the statement ends.

Queries for which no thread waits (`collect_async`) are not seen; their expressions share nothing.
"""

import sys
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import Any, Final
from weakref import ref

_SHARED: Final = "__imgmatch_shared"
# Functions of these modules are called by Polars and call Polars, but run no expression on a source.
_NO_STATEMENTS: Final = frozenset(("imgmatch_df.hashes.codec", "imgmatch_df.batch.sharing"))


class Running:
    """The statements that run now. The call that makes it belongs to one of them, though not known which."""

    def __init__(self) -> None:
        self._inner: list[dict[Any, Any]] = []  # the innermost of each thread
        self._outer: list[dict[Any, Any]] = []
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return  # the frames of another thread may be read only while it cannot run
        for innermost in sys._current_frames().values():
            for number, frame in enumerate(_statements(innermost)):
                shared = frame.f_locals.get(_SHARED)
                if shared is None:
                    shared = {}
                    frame.f_locals[_SHARED] = shared
                (self._outer if number else self._inner).append(shared)

    def get(self, key: object) -> Any:
        """Return what has been put under `key` since all these statements began, else None."""
        found = [shared[key][0]() if key in shared else None for shared in self._inner + self._outer]
        return found[0] if found and all(value is found[0] for value in found) else None

    def put(self, key: object, value: Any, max_values: int) -> None:
        """Keep `value` until the innermost of these statements end; each of them keeps at most `max_values`."""
        weak = ref(value)
        for statements, kept in ((self._inner, value), (self._outer, None)):
            for shared in statements:
                shared.pop(key, None)
                shared[key] = weak, kept
                while len(shared) > max_values:
                    del shared[next(iter(shared))]


def _statements(innermost: FrameType) -> list[FrameType]:
    """Return the frame of each statement that a thread runs, innermost first: where its stack enters Polars."""
    entries: list[FrameType] = []
    inner: FrameType | None = None  # the frame of Polars below, which is not known to be the entry yet
    frame: FrameType | None = innermost
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "polars" and frame.f_code.co_flags & CO_OPTIMIZED:
            inner = frame
        else:
            if inner is not None:
                entries.append(inner)
                inner = None
            if module in _NO_STATEMENTS:
                entries.clear()
        frame = frame.f_back
    # A frame that is left is the outermost one: the thread belongs to Polars, and calls a function of a query.
    return entries
