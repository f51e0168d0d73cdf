"""Distances of whole hashes, groups of rows with equal hashes, and the order of the pairs of a join."""

from typing import NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U16, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import int64, popcount, uint64


class Pairs(NamedTuple):
    """Verified pairs of rows, or the buffers for them.

    Parameters
    ----------
    left, right
        Rows, (m,) uint32. In a self-join `left` is the smaller row.
    distance
        Hamming distance in bits, (m,) uint16.
    """

    left: U32
    right: U32
    distance: U16


@kernel
def hamming_words(query: U64, hashes: U64, out: U16) -> bool:
    """Write the distances of hashes (n, n_words) uint64 to a query (n_words,) into out (n,) uint16. Return True."""
    for row in range(hashes.shape[0]):
        total = uint64(0)
        for word in range(hashes.shape[1]):
            total += popcount(hashes[row, word] ^ query[word])
        out[row] = total
    return True


@kernel
def hamming_pairs(left_hashes: U64, right_hashes: U64, left: U32, right: U32, out: U16) -> None:
    """Write the distances of pairs of rows: hashes (n, n_words) uint64, left, right (m,) uint32, out (m,) uint16."""
    for pair in range(left.size):
        total = uint64(0)
        for word in range(left_hashes.shape[1]):
            total += popcount(left_hashes[left[pair], word] ^ right_hashes[right[pair], word])
        out[pair] = total


@kernel
def count_distances(distances: U16, counts: I64) -> None:
    """Count the rows at each distance: distances (n,) uint16, counts (max + 1,) int64, which are added to."""
    for row in range(distances.size):
        counts[distances[row]] += 1


@kernel
def count_all_distances(hashes: U64, start: int, stop: int, counts: I64) -> None:
    """Count the pairs of rows ``start..stop`` and later rows at each distance.

    hashes (n, n_words) uint64; counts (max + 1,) int64, which are added to.
    """
    for row in range(start, stop):
        for other in range(row + 1, hashes.shape[0]):
            total = uint64(0)
            for word in range(hashes.shape[1]):
                total += popcount(hashes[row, word] ^ hashes[other, word])
            counts[total] += 1


@kernel
def take_nearest(distances: U16, starts: I64, k: int, indices: U32) -> None:
    """Write the rows of the k smallest distances, ties by row; starts (max + 1,) int64: where each distance begins."""
    for row in range(distances.size):
        at = starts[distances[row]]
        if at < k:
            indices[at] = row
            starts[distances[row]] = at + 1


@kernel
def mix_words(hashes: U64, out: U32, counts: I64) -> None:
    """Write 32 mixed bits of each hash, equal for equal hashes, and count the rows of each part for `part_rows`.

    hashes (n, n_words) uint64, out (n,) uint32, counts (a power of two,) int64.
    """
    for row in range(hashes.shape[0]):
        mixed = uint64(0)
        for word in range(hashes.shape[1]):
            mixed = (mixed ^ hashes[row, word]) * uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> uint64(29)
        mixed *= uint64(0xBF58476D1CE4E5B9)
        mixed >>= uint64(32)
        out[row] = mixed
        counts[mixed & uint64(counts.size - 1)] += 1


@kernel
def part_rows(mixed: U32, first_row: int, places: I64, tagged: U64, first: U32) -> None:
    """Write rows and their mixed bits part by part; the lowest mixed bits are the number of the part.

    mixed (n,) uint32: from `mix_words`, of the rows from `first_row` on; places (n_parts,) int64: next place of each
    part in tagged; first (n,) uint32: receives the rows.
    """
    for i in range(mixed.size):
        row = first_row + i
        part = mixed[i] & uint64(places.size - 1)
        tagged[places[part]] = uint64(mixed[i]) << uint64(32) | uint64(row)
        places[part] += 1
        first[i] = row


@kernel
def find_first(hashes: U64, tagged: U64, bounds: I64, n_part_bits: int, first: U32) -> int:
    """Write the first row with an equal hash for those rows of some parts that have one, and return their number.

    hashes (n, n_words) uint64, tagged uint64: from `part_rows`, bounds (n_parts + 1,) int64: where each part begins in
    tagged; n_part_bits: the number of mixed bits that are equal within a part; first (n,) uint32.
    """
    rows_of = uint64(0xFFFFFFFF)
    largest = 0
    for part in range(bounds.size - 1):
        n_rows = bounds[part + 1] - bounds[part]
        largest = n_rows if n_rows > largest else largest
    size = uint64(2)
    while size < 2 * largest:
        size <<= uint64(1)
    table = np.empty(size, np.uint64)
    n_equal = 0
    for part in range(bounds.size - 1):
        size = uint64(2)
        while size < 2 * (bounds[part + 1] - bounds[part]):
            size <<= uint64(1)
        for slot in range(size):  # a slice would take numba 0.2 s longer to compile
            table[slot] = 0
        for i in range(bounds[part], bounds[part + 1]):
            row = int64(tagged[i] & rows_of)
            slot = (tagged[i] >> uint64(32 + n_part_bits)) & (size - uint64(1))
            while table[slot]:
                if (table[slot] ^ tagged[i]) >> uint64(32) == 0:
                    other = int64((table[slot] - uint64(1)) & rows_of)
                    equal = True
                    for word in range(hashes.shape[1]):
                        if hashes[row, word] != hashes[other, word]:
                            equal = False
                            break
                    if equal:
                        first[row] = other
                        n_equal += 1
                        break
                slot = (slot + uint64(1)) & (size - uint64(1))
            if table[slot] == 0:
                table[slot] = tagged[i] + uint64(1)
    return n_equal


@kernel
def link_equal(first: U32, rows: U32, later: U32, sizes: U32) -> None:
    """Write the first rows, and link the rows with equal hashes in order.

    first (n,) uint32: from `find_first`, rows (n_distinct,) uint32; later (n,) uint32 of zeros: receives the next row
    with an equal hash; sizes (n,) uint32 of zeros: receives the number of rows with the hash of each first row.
    """
    n_before = rows.size
    for row in range(first.size - 1, -1, -1):
        original = first[row]
        sizes[original] += np.uint32(1)
        if original == row:
            n_before -= 1
            rows[n_before] = row
        else:
            later[row] = later[original]
            later[original] = row


@kernel
def expand_equal(first: U32, later: U32, left: U32, right: U32) -> int:
    """Write every pair of rows with equal hashes, the smaller row left, and return their number; see `link_equal`."""
    at = 0
    for row in range(first.size):
        i = np.uint32(row)
        while first[row] == row and later[i]:
            j = later[i]
            while j:
                left[at] = i
                right[at] = j
                at += 1
                j = later[j]
            i = later[i]
    return at


@kernel
def expand_pairs(first: Pairs, left_later: U32, right_later: U32, same: bool, at: int, out: Pairs) -> int:
    """Write every pair of rows that pairs of first rows represent, from position `at` on; return the next position.

    left_later, right_later (n,) uint32: from `link_equal`, or (0,) if all rows differ.
    """
    left, right, distance = out.left, out.right, out.distance
    first_left, first_right, first_distance = first.left, first.right, first.distance
    for pair in range(first_left.size):
        i = first_left[pair]
        while True:
            j = first_right[pair]
            while True:
                left[at] = min(i, j) if same else i
                right[at] = max(i, j) if same else j
                distance[at] = first_distance[pair]
                at += 1
                j = right_later[j] if right_later.size else np.uint32(0)
                if j == 0:
                    break
            i = left_later[i] if left_later.size else np.uint32(0)
            if i == 0:
                break
    return at


@kernel
def count_keys(key: U32, starts: I64) -> None:
    """Write where each key begins in an order by key (m,) uint32 into starts (largest key + 1,) int64 of zeros."""
    for i in range(key.size):
        starts[key[i]] += 1
    total = 0
    for i in range(starts.size):
        count = starts[i]
        starts[i] = total
        total += count


@kernel
def place_by_key(key: U32, starts: I64, order: U32, order_out: U32) -> None:
    """Write a part of an order, stably sorted by ``key[order]``, (m,) uint32 each; starts: from `count_keys`."""
    for i in range(order.size):
        at = starts[key[order[i]]]
        starts[key[order[i]]] = at + 1
        order_out[at] = order[i]
