"""Running Polars statements, and values that the expressions of one statement share.

In an eager statement, Polars calls the function of several expressions once per expression; in a lazy query it does so
if it does not merge them. With one thread in its pool, these calls run one after the other. Calls of the same statement
may share a result. A later statement must read its sources again. The arguments of a call do not identify its
statement, and the time of a call does not either. But the thread that runs a statement is inside a function of Polars
until the statement ends. The Python stacks of all threads therefore show which statements are running, and a value that
is stored on the frame of that function is dropped when the statement ends.

Queries without a waiting thread (`collect_async`) do not appear in any stack; their expressions share nothing.
"""

import sys
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import Any, Final
from weakref import ref

_SHARED: Final = "__imgmatch_shared"
# Polars calls functions of these modules, which call Polars again, but never with an expression on a source.
_NO_STATEMENTS: Final = frozenset(("imgmatch_df.hashes.codec", "imgmatch_df.batch.sharing"))


class Running:
    """The statements that are running. The caller belongs to one of them, but it is unknown to which."""

    def __init__(self) -> None:
        self._inner: list[dict[Any, Any]] = []  # the innermost statement of each thread
        self._outer: list[dict[Any, Any]] = []
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return  # it is safe to read the frames of another thread only while that thread cannot run
        for innermost in sys._current_frames().values():
            for number, frame in enumerate(_statements(innermost)):
                shared = frame.f_locals.get(_SHARED)
                if shared is None:
                    shared = {}
                    frame.f_locals[_SHARED] = shared
                (self._outer if number else self._inner).append(shared)

    def get(self, key: object) -> Any:
        """Return the value of `key` if it was put after all of these statements had begun, else None."""
        found = [shared[key][0]() if key in shared else None for shared in self._inner + self._outer]
        return found[0] if found and all(value is found[0] for value in found) else None

    def put(self, key: object, value: Any, max_values: int) -> None:
        """Keep `value` until the innermost statements end; each statement keeps at most `max_values`."""
        weak = ref(value)
        for statements, kept in ((self._inner, value), (self._outer, None)):
            for shared in statements:
                shared.pop(key, None)
                shared[key] = weak, kept
                while len(shared) > max_values:
                    del shared[next(iter(shared))]


def _statements(innermost: FrameType) -> list[FrameType]:
    """Return the frame at which a thread's stack enters Polars, for each of its statements, innermost first."""
    entries: list[FrameType] = []
    inner: FrameType | None = None  # the last frame of Polars, which is the entry if its caller is not Polars
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
    # If the outermost frame is one of Polars, the thread is one of its pool, which runs no statement.
    return entries
