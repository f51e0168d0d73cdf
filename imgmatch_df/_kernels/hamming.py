"""Distances of whole hashes, groups of equal ones, and the sorting of what a join found."""

import numpy as np
import numpy.typing as npt
from numba import njit

from imgmatch_df._kernels.popcount import int64, popcount, prefetch_row, uint64

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_BATCH = 256  # rows whose places in a table are fetched before they are looked at


@njit(nogil=True, cache=True)
def hamming_words(query: U64, hashes: U64, out: U16) -> bool:
    """Write the distances of hashes (n, n_words) uint64 to one, (n_words,) uint64: out (n,) uint16. Return True."""
    for row in range(hashes.shape[0]):
        total = uint64(0)
        for word in range(hashes.shape[1]):
            total += popcount(hashes[row, word] ^ query[word])
        out[row] = total
    return True


@njit(nogil=True, cache=True)
def hamming_pairs(left_hashes: U64, right_hashes: U64, left: U32, right: U32, out: U16) -> None:
    """Write the distances of pairs of rows: hashes (n, n_words) uint64, left, right (m,) uint32, out (m,) uint16."""
    for pair in range(left.size):
        total = uint64(0)
        for word in range(left_hashes.shape[1]):
            total += popcount(left_hashes[left[pair], word] ^ right_hashes[right[pair], word])
        out[pair] = total


@njit(nogil=True, cache=True)
def count_distances(distances: U16, counts: I64) -> None:
    """Add the number of rows at each distance: distances (n,) uint16, counts (max + 1,) int64."""
    for row in range(distances.size):
        counts[distances[row]] += 1


@njit(nogil=True, cache=True)
def take_nearest(distances: U16, starts: I64, k: int, indices: U32) -> None:
    """Write the rows of the k smallest distances, ties by row; starts (max + 1,) int64: where each distance begins."""
    for row in range(distances.size):
        at = starts[distances[row]]
        if at < k:
            indices[at] = row
            starts[distances[row]] = at + 1


@njit(nogil=True, cache=True)
def mix_words(hashes: U64, out: U64, counts: I64) -> None:
    """Write a well mixed word of each hash, equal for equal ones, and count the rows of each part for `find_first`.

    hashes (n, n_words) uint64, out (n,) uint64, counts (a power of two,) int64.
    """
    for row in range(hashes.shape[0]):
        mixed = uint64(0)
        for word in range(hashes.shape[1]):
            mixed = (mixed ^ hashes[row, word]) * uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> uint64(29)
        mixed *= uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> uint64(32)
        out[row] = mixed
        counts[(mixed >> uint64(32)) & uint64(counts.size - 1)] += 1


@njit(nogil=True, cache=True)
def find_first(hashes: U64, mixed: U64, part: int, n_parts: int, table: U64, first: U32) -> int:
    """Write the first row with an equal hash for the rows of one part and return how many of them are not it.

    hashes (n, n_words) uint64, mixed (n,) uint64: from `mix_words`; a row is of the part that its higher half names,
    n_parts a power of two. table (a power of two above the rows of the part, 1) uint64 of zeros, first (n,) uint32.
    """
    mask = uint64(table.size - 1)
    tags = uint64(0xFFFFFFFF00000000)
    batch = np.empty(_BATCH, np.uint32)
    n_equal = 0
    for start in range(0, mixed.size, _BATCH):
        n_rows = 0
        for row in range(start, min(start + _BATCH, mixed.size)):
            batch[n_rows] = row
            n_rows += ((mixed[row] >> uint64(32)) & uint64(n_parts - 1)) == uint64(part)
        for i in range(n_rows):  # 8 ns a row where a look at the table after the other takes 35
            prefetch_row(table, int64(mixed[batch[i]] & mask))
        for i in range(n_rows):
            row = int64(batch[i])
            slot, tag = mixed[row] & mask, mixed[row] & tags
            first[row] = row
            while table[slot, 0]:
                if table[slot, 0] & tags == tag:
                    other = int64(table[slot, 0] & ~tags) - 1
                    equal = True
                    for word in range(hashes.shape[1]):
                        if hashes[row, word] != hashes[other, word]:
                            equal = False
                            break
                    if equal:
                        first[row] = other
                        n_equal += 1
                        break
                slot = (slot + uint64(1)) & mask
            if first[row] == row:
                table[slot, 0] = tag | uint64(row + 1)
    return n_equal


@njit(nogil=True, cache=True)
def number_first(first: U32, group: U32, rows: U32, sizes: I64) -> None:
    """Write numbers of the distinct hashes in the order of their first rows.

    first (n,) uint32: from `find_first`, group (n,) uint32: the number of each row's hash, rows (n_distinct,) uint32:
    the first row of each number, sizes (n_distinct,) int64: the rows of each number.
    """
    n_groups = 0
    for row in range(first.size):
        if first[row] == row:
            group[row] = n_groups
            rows[n_groups] = row
            sizes[n_groups] = 1
            n_groups += 1
        else:
            group[row] = group[first[row]]
            sizes[group[row]] += 1


@njit(nogil=True, cache=True)
def expand_equal(members: U32, starts: I64, at: int, left: U32, right: U32) -> int:
    """Write every pair of rows with equal hashes from position `at` on, the smaller row left, and return their end.

    members (n,) uint32: rows by group, ascending within it; starts (n_groups + 1,) int64: where each group begins.
    """
    for group in range(starts.size - 1):
        for i in range(starts[group], starts[group + 1]):
            for j in range(i + 1, starts[group + 1]):
                left[at] = members[i]
                right[at] = members[j]
                at += 1
    return at


@njit(nogil=True, cache=True)
def expand_pairs(
    group_left: U32,
    group_right: U32,
    group_distance: U16,
    left_members: U32,
    left_starts: I64,
    right_members: U32,
    right_starts: I64,
    same: bool,
    at: int,
    left: U32,
    right: U32,
    distance: U16,
) -> int:
    """Write the pairs of rows that pairs of groups stand for, from position `at` on, and return the next position."""
    for pair in range(group_left.size):
        a, b = group_left[pair], group_right[pair]
        for i in range(left_starts[a], left_starts[a + 1]):
            for j in range(right_starts[b], right_starts[b + 1]):
                row, other = left_members[i], right_members[j]
                if same and row > other:
                    row, other = other, row
                left[at] = row
                right[at] = other
                distance[at] = group_distance[pair]
                at += 1
    return at


@njit(nogil=True, cache=True)
def sort_by_key(key: U32, counts: I64, order: U32, order_out: U32) -> None:
    """Write `order` stably sorted by ``key[order]``, (m,) uint32 each; counts (largest key + 1,) int64 of zeros."""
    for i in range(key.size):
        counts[key[i]] += 1
    total = 0
    for i in range(counts.size):
        count = counts[i]
        counts[i] = total
        total += count
    for i in range(order.size):
        at = counts[key[order[i]]]
        counts[key[order[i]]] = at + 1
        order_out[at] = order[i]
