"""Memory that goes from one join to the next.

A page that the system gives anew costs 1.6 microseconds, as much as 400 rows sorted into a band. Depending on what else
the process had allocated, a join of 100,000 rows within 4 bits took 1,000 to 1,700 of them at every call, a quarter of
its time.
"""

from collections import defaultdict
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LEAST: Final = 1 << 16
_MOST: Final = 1 << 23  # larger arrays have huge pages, which cost a sixteenth
_KEPT: Final = 1 << 24  # bytes that wait for the next join, at most

_spare: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)  # by size


class _Block:
    """Memory that is spare again when no array leans on it: threads may be at work beyond the end of a join."""

    def __init__(self, n_bytes: int) -> None:
        try:
            self._memory = _spare[n_bytes].pop()
        except IndexError:
            self._memory = np.empty(n_bytes, np.uint8)
        self.__array_interface__ = self._memory.__array_interface__

    def __del__(self, spare: Any = _spare, most: int = _KEPT) -> None:
        n_bytes = self._memory.nbytes
        if n_bytes + sum(size * len(blocks) for size, blocks in list(spare.items())) > most:
            spare.clear()  # of sizes that may never be asked for again
        spare[n_bytes].append(self._memory)


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    """Return an array as `numpy.empty` does, in memory of an earlier one where that is worth it."""
    shape = (shape,) if isinstance(shape, int) else shape
    dtype = np.dtype(dtype)
    n_bytes = prod(shape) * dtype.itemsize
    if not _LEAST <= n_bytes <= _MOST:
        return np.empty(shape, dtype)
    step = 1 << (n_bytes.bit_length() - 3)
    block = np.asarray(_Block(-(-n_bytes // step) * step))
    return block[:n_bytes].view(dtype).reshape(shape)
