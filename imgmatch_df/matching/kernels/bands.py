"""Assignment of bits to bands, and the order of the rows by the key of a band.

A band is a slice of the permuted bits. `order_band` sorts the rows by it with one counting sort and copies a few words
in that order, so that a bucket is contiguous in memory (a run); `probes` compares runs. Many rows of one word are
sorted in two steps, `distribute_rows` and `sort_parts`. A scan is the band of no bits: it has one bucket.
"""

from typing import Any, NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import LANES, int64, near_mask, next_near, popcount, uint64, unlike_words

_FACTOR: Any = uint64(0x9E3779B97F4A7C15)


class Ordered(NamedTuple):
    """One side of a join in the order of a band's key; `order_band` writes it.

    Parameters
    ----------
    hashes
        All hashes of the side, (n, n_words) uint64, by row.
    starts
        Where each bucket begins, (n_buckets + 1,) uint32.
    rows
        Row of each position, (m,) uint32.
    words
        Copies of the words that are compared first, (k, m + LANES) uint64, by position.
    """

    hashes: U64
    starts: U32
    rows: U32
    words: U64


@kernel(no_cpython_wrapper=True)
def _transpose(block: U64) -> None:
    """Transpose the 64 x 64 bits of each column of block (64, n_words) uint64 (Warren, Hacker's Delight, 7-3)."""
    n_words = block.shape[1]
    flat = block.reshape(block.size)
    width = uint64(32)
    mask = uint64(0x00000000FFFFFFFF)
    while width:
        for group in range(uint64(0), uint64(64), uint64(2) * width):
            for i in range(group, group + width):
                upper_row = flat[i * n_words : (i + uint64(1)) * n_words]
                lower_row = flat[(i + width) * n_words : (i + width + uint64(1)) * n_words]
                for word in range(n_words):  # the innermost loop, so that LLVM vectorises over the words of a row
                    upper, lower = upper_row[word], lower_row[word]
                    swap = ((upper >> width) ^ lower) & mask
                    upper_row[word] = upper ^ (swap << width)
                    lower_row[word] = lower ^ swap
        width >>= uint64(1)
        mask ^= mask << width


@kernel
def permute_bits(hashes: U64, rows: U32, order: I64, start: int, stop: int, columns: U64) -> None:
    """Write ``hashes[rows[start:stop]]`` as columns start..stop, with bit ``order[i]`` moved to bit i.

    hashes (n, n_words) uint64, rows (m,) uint32, order (64 * n_words,) int64, columns (n_words, >= m) uint64.
    """
    n_words = hashes.shape[1]
    planes = np.empty((64, n_words), np.uint64)  # after the last row are bits that are not used
    chosen = np.empty((64, n_words), np.uint64)
    for first in range(start, stop, 64):
        n_rows = stop - first if stop - first < 64 else 64
        for row in range(n_rows):
            source = rows[first + row]
            for word in range(n_words):  # a slice would take numba a second longer to compile
                planes[row, word] = hashes[source, word]
        _transpose(planes)
        for word in range(n_words):
            for bit in range(64):
                moved = order[64 * word + bit]
                chosen[bit, word] = planes[moved & 63, moved >> 6]
        _transpose(chosen)
        for word in range(n_words):
            for row in range(n_rows):
                columns[word, first + row] = chosen[row, word]


@kernel
def deal_bits(planes: U64, n_bands: int, order: I64) -> None:
    """Assign bits to bands round-robin; each band greedily takes the bit least correlated with those it already has.

    order (n_bits,) int64: the bits, band after band. planes (n_bits, 8) uint64: their values in 512 rows of a sample,
    permuted by the call. A bit that is nearly constant counts as correlated.
    """
    n_bits, n_sampled = planes.shape[0], 512
    likeness = np.empty((n_bands, n_bits), np.int64)
    for bit in range(n_bits):
        ones = int64(0)
        for word in range(planes.shape[1]):
            ones += int64(popcount(planes[bit, word]))
        likeness[:, bit] = (n_sampled - 2 * ones) ** 2
    names = np.arange(n_bits)
    taken = np.empty((1, planes.shape[1]), np.uint64)
    for turn in range(n_bits):
        band = turn % n_bands
        n_left = n_bits - turn
        own = likeness[band, :n_left]
        best = own.argmin()
        # If `n_bands` does not divide the bits, the first bands have one bit more.
        order[band * (n_bits // n_bands) + min(band, n_bits % n_bands) + turn // n_bands] = names[best]
        taken[0] = planes[best]
        last = n_left - 1  # swap-remove: twice as fast as a mask of used bits
        names[best], planes[best] = names[last], planes[last]
        for other in range(n_bands):
            likeness[other, best] = likeness[other, last]
        for bit in range(last):
            unlike = int64(unlike_words(planes, 8 * bit, taken, 0))
            own[bit] += (n_sampled - 2 * unlike) ** 2


@kernel
def count_agreements(
    columns: U64, n: int, low: int, n_bits: int, within: int, first_word: int, n_words: int, radius: int
) -> tuple[int, int]:
    """Return how many pairs of columns 0..n are within `within` bits in a slice, and how many of these pass.

    The slice is ``low..low + n_bits``. A pair passes if its `n_words` words from `first_word` on, cyclically, differ in
    at most `radius` bits.
    """
    slices = np.zeros((1, n + LANES), np.uint64)
    last = min((low + n_bits - 1) >> 6, columns.shape[0] - 1)
    shift = uint64(low & 63)
    for row in range(n):
        both = (columns[low >> 6, row] >> shift) | (columns[last, row] << (uint64(63) - shift) << uint64(1))
        slices[0, row] = both << uint64(64 - n_bits)
    limit = uint64(within)
    n_agree = n_pass = 0
    for at in range(0, n, LANES):
        stop = min(n, at + LANES)
        i = next_near(slices, at, slices, 0, 1, limit, stop)
        while i < stop:
            agree = near_mask(slices, at, slices, i, 1, limit)
            for j in range(max(at, i + 1), stop):
                if (agree >> uint64(j - at)) & uint64(1):
                    n_agree += 1
                    total = uint64(0)
                    for k in range(n_words):
                        word = (first_word + k) % columns.shape[0]
                        total += popcount(columns[word, i] ^ columns[word, j])
                    n_pass += total <= uint64(radius)
            i = next_near(slices, at, slices, i + 1, 1, limit, stop)
    return n_agree, n_pass


@kernel
def count_prefixes(columns: U64, n: int, radius: int, passed: I64) -> None:
    """Add up the pairs of columns 0..n that are within the radius after each word, in passed (n_words,) int64."""
    limit = uint64(radius)
    for i in range(n):
        for j in range(i + 1, n):
            total = uint64(0)
            for word in range(columns.shape[0]):
                total += popcount(columns[word, i] ^ columns[word, j])
                if total > limit:
                    break
                passed[word] += 1


@kernel(inline="always")
def _slice(left: U64, right: U64, row: int, shift: int, top: int, factor: int) -> int:
    """Return the bits of a band at the top of a word, times `factor`; `left` and `right` hold its two ends."""
    carry = uint64(63) - shift
    key: int = (((left[row] >> shift) | (right[row] << carry << uint64(1))) << top) * factor
    return key


@kernel
def pick_together(columns: U64, low: int, n_bits: int, n_mark_bits: int, marks: U64, picked: U32) -> int:
    """Write the columns that share their bits ``low..low + n_bits`` with another column and return their number.

    columns (n_words, n) uint64, picked (n,) uint32. Slices are compared by `n_mark_bits` bits of a hash, so some unique
    columns are picked too. marks (>= 2**n_mark_bits / 32,) uint64: a buffer of two bits per hash value, "seen" and
    "seen again". Two reads of marks in the second-level cache take 4 ns per row, a row of a counting sort 9.
    """
    n = columns.shape[1]
    left, right = columns[low >> 6], columns[min((low + n_bits - 1) >> 6, columns.shape[0] - 1)]
    shift, top = uint64(low & 63), uint64(64 - n_bits)
    factor = uint64(1) if n_bits == n_mark_bits else _FACTOR
    drop = uint64(64 - n_mark_bits)
    marks[:] = 0
    for row in range(n):
        key = _slice(left, right, row, shift, top, factor) >> drop
        seen, place = uint64(1) << (uint64(2) * (key & uint64(31))), key >> uint64(5)
        mark = marks[place]
        marks[place] = mark | seen | ((mark & seen) << uint64(1))
    n_picked = 0
    for row in range(n):
        key = _slice(left, right, row, shift, top, factor) >> drop
        picked[n_picked] = row
        n_picked += int64((marks[key >> uint64(5)] >> (uint64(2) * (key & uint64(31)))) >> uint64(1)) & 1
    return n_picked


@kernel
def count_parts(hashes: U64, rows: U32, low: int, n_bits: int, n_key_bits: int, counts: I64) -> None:
    """Count the rows with each value of the first bits of a band's key: hashes (n, 1) uint64, rows (m,) uint32.

    counts (n_parts,) int64, which are added to; n_parts is a power of two.
    """
    words = hashes.reshape(hashes.size)
    shift, top = uint64(low & 63), uint64(64 - n_bits)
    factor = uint64(1) if n_bits == n_key_bits else _FACTOR
    drop = uint64(65) - popcount(uint64(2 * counts.size - 1))
    for i in range(rows.size):
        # Shifted in two steps: a part may have no bits.
        counts[_slice(words, words, rows[i], shift, top, factor) >> (drop - uint64(1)) >> uint64(1)] += 1


@kernel
def distribute_rows(
    hashes: U64, rows: U32, low: int, n_bits: int, n_key_bits: int, places: I64, words_out: U64, rows_out: U32
) -> None:
    """Write rows (m,) uint32 and their words part by part, see `count_parts`; `sort_parts` sorts the parts.

    places (n_parts,) int64: next place of each part in words_out and rows_out.
    """
    words = hashes.reshape(hashes.size)
    shift, top = uint64(low & 63), uint64(64 - n_bits)
    factor = uint64(1) if n_bits == n_key_bits else _FACTOR
    drop = uint64(65) - popcount(uint64(2 * places.size - 1))
    for i in range(rows.size):
        row = rows[i]
        part = _slice(words, words, row, shift, top, factor) >> (drop - uint64(1)) >> uint64(1)
        at = places[part]
        places[part] = at + 1
        words_out[at] = words[row]
        rows_out[at] = row


@kernel
def sort_parts(
    bounds: I64,
    first: int,
    low: int,
    n_bits: int,
    n_key_bits: int,
    n_part_bits: int,
    starts: U32,
    words: U64,
    rows: U32,
) -> None:
    """Sort rows and words by the key of a band within each part, in place, and write where each bucket begins.

    bounds (m + 1,) int64: where the parts from number `first` on begin. A part is copied first, so it should fit the
    second-level cache: then 100,000,000 rows take 15 ns each, where a scatter over all of the memory takes 60.
    """
    shift, top = uint64(low & 63), uint64(64 - n_bits)
    factor = uint64(1) if n_bits == n_key_bits else _FACTOR
    drop = uint64(64 - n_key_bits)
    n_in_part = uint64(1) << uint64(n_key_bits - n_part_bits)
    longest = 0
    for part in range(bounds.size - 1):
        longest = max(longest, bounds[part + 1] - bounds[part])
    copied, named = np.empty(longest, np.uint64), np.empty(longest, np.uint32)
    ends = np.empty(n_in_part, np.uint32)
    for part in range(bounds.size - 1):
        begin, n = bounds[part], bounds[part + 1] - bounds[part]
        ends[:] = 0
        for i in range(n):
            copied[i] = words[begin + i]
            named[i] = rows[begin + i]
            ends[(_slice(copied, copied, i, shift, top, factor) >> drop) & (n_in_part - uint64(1))] += np.uint32(1)
        total = np.uint32(begin)
        bucket = uint64(first + part) * n_in_part
        for i in range(n_in_part):
            count = ends[i]
            starts[bucket + i] = total
            ends[i] = total
            total += count
        starts[bucket + n_in_part] = total
        for i in range(n):
            key = (_slice(copied, copied, i, shift, top, factor) >> drop) & (n_in_part - uint64(1))
            at = ends[key]
            ends[key] = at + np.uint32(1)
            words[at] = copied[i]
            rows[at] = named[i]


@kernel
def order_band(
    columns: U64,
    names: U32,
    picked: U32 | None,
    low: int,
    n_bits: int,
    n_key_bits: int,
    first_word: int,
    starts: U32,
    rows: U32,
    words: U64,
) -> None:
    """Sort columns (n_words, n) uint64 by the key of bits ``low..low + n_bits``, at most 64.

    The key is the slice itself, or a multiplicative hash of it if the slice is wider than the key. picked (m,) uint32:
    the columns to sort, ascending; None for all. names (n,) uint32: the row of each column. starts
    (2**n_key_bits + 2,) uint32: where each bucket begins, and one unused item; rows (m,) uint32: the names in bucket
    order; words (k, >= m) uint64: copies, in that order, of the k words from `first_word` on, cyclically.
    """
    left, right = columns[low >> 6], columns[min((low + n_bits - 1) >> 6, columns.shape[0] - 1)]
    shift, top = uint64(low & 63), uint64(64 - n_bits)
    factor = uint64(1) if n_bits == n_key_bits else _FACTOR
    if n_key_bits == 0:
        factor = uint64(0)
    drop = uint64(64 - max(n_key_bits, 1))

    n = names.size
    if picked is not None:
        n = picked.size
    starts[:] = 0
    for i in range(n):
        row = i
        if picked is not None:
            row = int64(picked[i])
        starts[(_slice(left, right, row, shift, top, factor) >> drop) + uint64(2)] += np.uint32(1)
    n_before = np.uint32(0)
    for bucket in range(starts.size):
        n_before += starts[bucket]
        starts[bucket] = n_before
    source = columns[first_word]
    target = words[0]
    has_more = words.shape[0] > 1
    for i in range(n):
        row = i
        if picked is not None:
            row = int64(picked[i])
        # The start of a bucket is counted up until it is the start of the next one.
        key = (_slice(left, right, row, shift, top, factor) >> drop) + uint64(1)
        at = starts[key]
        starts[key] = at + np.uint32(1)
        rows[at] = row if has_more else int64(names[row])
        target[at] = source[row]
    if has_more:
        for k in range(1, words.shape[0]):
            source = columns[(first_word + k) % columns.shape[0]]
            for position in range(n):
                words[k, position] = source[rows[position]]
        for position in range(n):
            rows[position] = names[rows[position]]


@kernel
def halve_words(words: U64, start: int, halves: U32) -> None:
    """Write 32 bits of each word (n,) uint64, from bit `start` on, cyclically, into halves (n,) uint32."""
    down, up = uint64(start & 63), uint64(-start & 63)
    for row in range(words.size):
        halves[row] = np.uint32((words[row] >> down) | (words[row] << up))
