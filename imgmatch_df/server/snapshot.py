"""Hashes of a store in memory, found by key or ranked. They are packed, so that a row takes 160 bytes and its key."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from imgmatch_df.columns import DETAIL, DISTANCE, HEIGHT, OK, SOURCE, STATUS, WIDTH
from imgmatch_df.documented.values import ID, RECORD, Json
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import HashKind, documented_kinds, hash_kind, hash_kinds
from imgmatch_df.server.hash_queue import Row

# Hash kinds and columns that are read from a store, beside its key.
_KINDS: Final = hash_kinds(documented_kinds())
COLUMNS: Final = (WIDTH, HEIGHT, *documented_kinds(), STATUS)


class _Part(NamedTuple):
    """The rows of one batch, in arrays: String and Binary columns of Polars take 16 more bytes per row each."""

    keys: npt.NDArray[np.uint8]  # UTF-8, concatenated
    ends: npt.NDArray[np.uint32 | np.int64]  # end of each key, after a zero
    hashes: tuple[npt.NDArray[np.uint64], ...]  # of each documented kind, as words for the kernels
    width: npt.NDArray[np.uint32]  # 0 means null
    height: npt.NDArray[np.uint32]

    def key(self, row: int) -> bytes:
        return self.keys[self.ends[row] : self.ends[row + 1]].tobytes()

    def row(self, row: int) -> dict[str, Any]:
        return {
            WIDTH: int(self.width[row]) or None,
            HEIGHT: int(self.height[row]) or None,
            **{kind.name: _value(kind, rows[row]) for kind, rows in zip(_KINDS, self.hashes, strict=True)},
            STATUS: OK,
            DETAIL: None,
        }


class Snapshot:
    """The rows of a store that have hashes, at one time. It is immutable, so that threads can share it.

    A key is searched by its 64-bit digest, and then compared as a whole.
    """

    def __init__(self, batches: Iterable[pl.DataFrame], key: str) -> None:
        """Pack `batches`, which have the String column `key` and `COLUMNS`."""
        self._key = key
        self._parts: list[_Part] = []
        self._starts: list[int] = []
        self._n_rows = 0
        digests = []
        for batch in batches:
            hashed = batch.filter(
                pl.col(STATUS) == OK,
                *(
                    pl.col(kind.name).is_not_null() if kind.is_number else pl.col(kind.name).bin.size() == kind.n_bytes
                    for kind in _KINDS
                ),
            )
            if hashed.is_empty():
                continue
            digests.append(_digest(hashed[key]))
            self._parts.append(_pack(hashed, key))
            self._starts.append(self._n_rows)
            self._n_rows += hashed.height
        unsorted = np.concatenate([np.empty(0, np.uint64), *digests])
        digests.clear()
        self._order = np.argsort(unsorted, kind="stable").astype(np.uint32 if self._n_rows < 1 << 32 else np.int64)
        self._digests = unsorted[self._order]

    def __len__(self) -> int:
        return self._n_rows

    @property
    def n_bytes(self) -> int:
        """The size in memory, in bytes."""
        arrays = [self._digests, self._order]
        for part in self._parts:
            arrays += [part.keys, part.ends, part.width, part.height, *part.hashes]
        return sum(array.nbytes for array in arrays)

    def find(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Return the rows of the `keys` that are stored, with the columns of `kinds.visual_hash_fields`."""
        wanted = list(dict.fromkeys(keys))
        digests = _digest(pl.Series(wanted, dtype=pl.String))
        starts = np.searchsorted(self._digests, digests, "left").tolist()
        ends = np.searchsorted(self._digests, digests, "right").tolist()
        found = {}
        for key, start, end in zip(wanted, starts, ends, strict=True):
            if start < end and (row := self._row(key, start, end)) is not None:
                found[key] = row
        return found

    def rank(self, value: int | bytes, hash_type: str, k: int) -> list[Json]:
        """Return the `k` rows nearest to a hash, nearest first, ties in the order of the store.

        Each has `_id` and `_record`, as those of a request, the width and height, and `distance` in bits.
        """
        from imgmatch_df.matching import ranking

        kind = hash_kind(hash_type)
        number = _KINDS.index(kind)
        query = _word_rows(pl.Series([value], dtype=kind.dtype), kind)[0]
        measured = [ranking.measure(query, part.hashes[number]) for part in self._parts]
        distances = np.concatenate([np.empty(0, np.uint16), *measured])
        nearest, bits = ranking.rank_distances(distances, k, 64 * len(query))
        return [self._ranked(int(row), int(distance)) for row, distance in zip(nearest, bits, strict=True)]

    def _ranked(self, position: int, distance: int) -> Json:
        number = bisect_right(self._starts, position) - 1
        part, row = self._parts[number], position - self._starts[number]
        key = part.key(row).decode()
        record = {"_url": key} if self._key == SOURCE else {}
        sides = {WIDTH: int(part.width[row]) or None, HEIGHT: int(part.height[row]) or None}
        return {ID: key, RECORD: record, **sides, STATUS: OK, DISTANCE: distance}

    def _row(self, key: str, start: int, end: int) -> Row | None:
        wanted = key.encode()
        for place in range(end - 1, start - 1, -1):  # the last of equal keys, which only other programs write
            position = int(self._order[place])
            number = bisect_right(self._starts, position) - 1
            part, row = self._parts[number], position - self._starts[number]
            if part.key(row) == wanted:
                return part.row(row)
        return None


def _digest(keys: pl.Series) -> npt.NDArray[np.uint64]:
    return keys.hash(seed=0).to_numpy()


def _pack(hashed: pl.DataFrame, key: str) -> _Part:
    keys, ends = _flatten(hashed[key])
    hashes = tuple(_word_rows(hashed[kind.name], kind) for kind in _KINDS)
    width, height = (hashed[name].fill_null(0).to_numpy().astype(np.uint32) for name in (WIDTH, HEIGHT))
    return _Part(keys, ends, hashes, width, height)


def _word_rows(hashes: pl.Series, kind: HashKind) -> npt.NDArray[np.uint64]:
    return hashes.to_numpy().astype(np.uint64).reshape(-1, 1) if kind.is_number else codec.hash_words(hashes, kind)


def _value(kind: HashKind, words: npt.NDArray[np.uint64]) -> int | bytes:
    return int(words[0]) if kind.is_number else words.tobytes()[: kind.n_bytes]


def _flatten(values: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32 | np.int64]]:
    """Return copies of the concatenated bytes of all values, and of the end of each value, after a zero."""
    array = values.rechunk().to_arrow()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    first, last = int(ends[0]), int(ends[-1])
    flat = np.frombuffer(data, np.uint8, last - first, first).copy() if last > first else np.empty(0, np.uint8)
    return flat, (ends - first).astype(np.uint32 if last - first < 1 << 32 else np.int64)
