"""A set of keys that grows chunk by chunk, for which looking up a chunk costs what the chunk is long."""

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Digests = npt.NDArray[np.uint64]


class SeenKeys:
    """The keys seen so far.

    They are kept in levels, each sorted by a digest of 64 bits and at least twice as long as the next: so each key is
    sorted again only a few times. Keys are compared themselves where their digests are equal.

    Parameters
    ----------
    dtype
        That of the keys.
    """

    def __init__(self, dtype: pl.DataType) -> None:
        self._dtype = dtype
        self._levels: list[tuple[Digests, pl.Series]] = []
        self._last = pl.Series([], dtype=dtype)  # not sorted before it is needed

    @property
    def keys(self) -> pl.Series:
        """The keys, in no order."""
        return pl.concat([*(keys for _, keys in self._levels), self._last])

    def find(self, keys: pl.Series) -> pl.Series:
        """Return for each key whether it was seen: Boolean."""
        import numpy as np

        self._sort_last()
        found = np.zeros(len(keys), np.bool_)
        if not self._levels:
            return pl.Series(found)
        digests = digests_of(keys)
        order = np.argsort(digests)  # sorted digests are looked up five times as fast
        sorted_digests = digests[order]
        for level_digests, level_keys in self._levels:
            places = np.searchsorted(level_digests, sorted_digests)
            rows = order
            while True:
                is_same = places < len(level_digests)
                is_same[is_same] = level_digests[places[is_same]] == digests[rows[is_same]]
                rows, places = rows[is_same], places[is_same]
                if not rows.size:
                    break
                found[rows] |= (keys.gather(rows) == level_keys.gather(places)).to_numpy()
                places = places + 1  # another key may have the same digest
        return pl.Series(found)

    @staticmethod
    def may_repeat(keys: pl.Series) -> bool:
        """Return whether two of `keys` have the same digest. Ten times as fast as to find equal keys."""
        import numpy as np

        digests = np.sort(digests_of(keys))
        return bool((digests[1:] == digests[:-1]).any())

    def add(self, keys: pl.Series) -> None:
        """Add keys of which none was seen."""
        self._sort_last()
        self._last = keys

    def _sort_last(self) -> None:
        import numpy as np

        keys, self._last = self._last, self._last.clear()
        if keys.is_empty():
            return
        digests = digests_of(keys)
        while self._levels and len(self._levels[-1][0]) < 2 * len(digests):
            level_digests, level_keys = self._levels.pop()
            digests, keys = np.concatenate([level_digests, digests]), pl.concat([level_keys, keys], rechunk=True)
        order = np.argsort(digests)
        self._levels.append((digests[order], keys.gather(order)))


def digests_of(keys: pl.Series) -> "Digests":
    """Return 64 bits of each key that are equal where keys are."""
    return keys.hash().to_numpy()
