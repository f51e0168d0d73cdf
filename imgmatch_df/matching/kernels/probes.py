"""Comparison of the rows of a band's buckets with each other, and with buckets whose keys differ by a few bits.

`probe_runs` compares the rows of a bucket with the run of each neighbouring bucket in place; `probe_gathered` copies
many runs into one buffer first.
"""

from typing import Final, NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import (
    LANES,
    STRETCH,
    copy_lanes,
    int64,
    lowest_one,
    near_mask,
    near_stretch,
    next_near,
    next_stretch,
    popcount,
    prefetch_row,
    uint64,
    unlike_masked,
    unlike_words,
)
from imgmatch_df.matching.kernels.bands import Ordered
from imgmatch_df.matching.kernels.hamming import Pairs

# For kernels that only other kernels call: without wrappers for Python they compile faster.
_inner: Final = kernel(no_cpython_wrapper=True)

_PENDING = 256  # unverified candidates: 64 KiB of hashes of 128 bytes, well inside the second-level cache
_GATHERED = 1536  # hashes compared with a bucket at once: 12 KiB per word, inside the first-level cache


class Verdict(NamedTuple):
    """What makes a candidate of a band a pair that the band reports.

    Parameters
    ----------
    band
        Number of the band that is probed.
    same
        Whether both sides are one: a self-join.
    radius
        Maximum distance of a pair, in bits.
    radii
        Maximum distance within each band, (n_bands,) int64.
    masks
        Bits of each band, (n_bands, n_words) uint64.
    """

    band: int
    same: bool
    radius: int
    radii: I64
    masks: U64


@kernel(inline="always")
def distance_within(left: U64, i: int, right: U64, j: int, radius: int) -> int:
    """Return the distance of two rows; above `radius` it may be a lower bound that is above `radius` too."""
    n_words = left.shape[1]
    total: int = uint64(0)
    word = 0
    while word + 8 <= n_words:  # one check per eight words: a check per word is a branch mispredicted half of the time
        total += unlike_words(left, i * n_words + word, right, j * n_words + word)
        if total > radius:
            return total
        word += 8
    while word < n_words:
        total += popcount(left[i, word] ^ right[j, word])
        word += 1
    return total


@kernel(inline="always")
def _is_first_band(left: U64, i: int, right: U64, j: int, band: int, masks: U64, radii: I64) -> bool:
    """Return whether `band` is the first band in which two rows lie within the band's radius.

    Two rows compared in a bucket of `band` may lie outside its radius: hashed keys collide, and the last block of a run
    extends into the next run.
    """
    n_words = left.shape[1]
    for number in range(band + 1):  # a pair within the radius of many bands is within that of one of the first
        unlike: int = uint64(0)
        word = 0
        while word + 8 <= n_words:
            unlike += unlike_masked(left, i * n_words + word, right, j * n_words + word, masks, number * n_words + word)
            word += 8
        while word < n_words:
            unlike += popcount((left[i, word] ^ right[j, word]) & masks[number, word])
            word += 1
        if int64(unlike) <= radii[number]:
            return number == band
    return False


@_inner
def _collect(near: int, row: int, at: int, left: Ordered, right: Ordered, n_open: int, out: Pairs) -> int:
    """Write the candidates of a left row, the right rows ``at + bit`` of a mask, from `n_open` on; return their end."""
    right_rows, right_hashes = right.rows, right.hashes
    i = int64(left.rows[row])
    prefetch_row(left.hashes, i)
    while near:
        j = int64(right_rows[at + int64(lowest_one(near))])
        near &= near - uint64(1)
        prefetch_row(right_hashes, j)
        out.left[n_open] = i
        out.right[n_open] = j
        n_open += 1
    return n_open


@_inner
def _settle(found: int, n_open: int, verdict: Verdict, left: Ordered, right: Ordered, out: Pairs) -> int:
    """Keep the candidates ``found..n_open`` that are pairs of this band; return their end."""
    limit, band, radii, masks = uint64(verdict.radius), verdict.band, verdict.radii, verdict.masks
    left_hashes, right_hashes = left.hashes, right.hashes
    left_out, right_out, distance_out = out.left, out.right, out.distance
    for candidate in range(found, n_open):
        i, j = int64(left_out[candidate]), int64(right_out[candidate])
        distance = distance_within(left_hashes, i, right_hashes, j, limit)
        if distance <= limit and _is_first_band(left_hashes, i, right_hashes, j, band, masks, radii):
            if verdict.same and i > j:
                i, j = j, i
            left_out[found] = i
            right_out[found] = j
            distance_out[found] = distance
            found += 1
    return found


@kernel
def probe_runs(
    flips: U32, verdict: Verdict, left: Ordered, right: Ordered, cursor: I64, budget: int, out: Pairs
) -> int:
    """Write the pairs of a band whose keys differ by one of flips (n,) uint32, 0 for equal keys; return their number.

    The call stops when the budget or the buffers are used up, and continues at the next call; call again while
    ``cursor[0] < cursor[1]``. cursor (6,) int64: next position of the left order, last position (exclusive), its
    bucket, block of the run, row, and flip.
    """
    limit, same = uint64(verdict.radius), verdict.same
    left_starts, left_words = left.starts, left.words
    right_starts, right_words = right.starts, right.words
    n_words = left_words.shape[0]
    # Candidates are verified in batches, after their rows were prefetched: on real hashes nearly all of the time was
    # spent on waiting for one row after the other.
    room = out.left.size - LANES
    found = n_open = 0
    spent = 0
    position, stop, bucket, at, row, flip = cursor
    while position < stop:
        while left_starts[bucket + 1] <= position:
            bucket += 1
        last = min(int64(left_starts[bucket + 1]), stop)
        while flip < flips.size:
            other = int64(uint64(bucket) ^ uint64(flips[flip]))
            triangle = same and other == bucket
            run_stop = 0 if same and other < bucket else int64(right_starts[other + 1])
            at = max(at, position if triangle else int64(right_starts[other]))
            spent += 1
            while at < run_stop:
                n_lanes = min(run_stop - at, LANES)
                lanes = uint64(0xFFFFFFFFFFFFFFFF) >> uint64(64 - n_lanes)
                row = max(row, position)
                above = min(last, at) if triangle else last
                below = min(last, at + n_lanes - 1) if triangle else 0
                while row < above or row < below:
                    near = uint64(0)
                    base = at
                    if row < above:
                        spent -= row
                        row = next_near(right_words, at, left_words, row, n_words, limit, above)
                        spent += row + 1
                        if row < above:
                            near = near_mask(right_words, at, left_words, row, n_words, limit) & lanes
                    if near == 0 and row >= above and row < below:  # within the block: each row with the rows after it
                        base = row + 1
                        near = near_mask(right_words, base, left_words, row, n_words, limit)
                        near &= lanes >> uint64(base - at)
                    if near:
                        if n_open > room:
                            found = n_open = _settle(found, n_open, verdict, left, right, out)
                        if n_open > room or spent > budget:
                            cursor[0], cursor[2], cursor[3], cursor[4], cursor[5] = position, bucket, at, row, flip
                            return _settle(found, n_open, verdict, left, right, out)
                        n_open = _collect(near, row, base, left, right, n_open, out)
                        if n_open - found > _PENDING:
                            spent += n_open - found
                            found = n_open = _settle(found, n_open, verdict, left, right, out)
                    row += 1
                row = 0
                at += LANES
                if spent > budget:
                    cursor[0], cursor[2], cursor[3], cursor[4], cursor[5] = position, bucket, at, row, flip
                    return _settle(found, n_open, verdict, left, right, out)
            at = 0
            flip += 1
        flip = 0
        position = last
    cursor[0] = position
    return _settle(found, n_open, verdict, left, right, out)


@_inner
def _choose_runs(
    starts: U32,
    flips: U32,
    bucket: int,
    above: bool,
    flip: int,
    skip: int,
    column: U32 | U64,
    ends: U64,
    shifts: U64,
) -> tuple[int, int, int]:
    """Choose the runs of the buckets a flip away, up to `_GATHERED` rows, and return their number.

    The choice begins at position `flip` of flips (n,) uint32, without the first `skip` rows of that run. `above`: only
    buckets after `bucket`. column (n_rows + LANES, 1): the words to be gathered, which are prefetched. ends, shifts
    (n,) uint64: the end of each run in the gathered buffer, and the offset from there to its place in the order. Also
    return the flip, and the number of rows of its run, at which the next choice begins.
    """
    one, room = uint64(1), uint64(_GATHERED)
    here = uint64(bucket)
    n = n_runs = uint64(0)
    now, last = uint64(flip), uint64(flips.size)
    skipped = uint64(skip)
    while now < last:
        other = here ^ uint64(flips[now])
        if not above or other > here:
            start = uint64(starts[other]) + skipped
            n_rest = uint64(starts[other + one]) - start
            prefetch_row(column, int64(start))
            shifts[n_runs] = start - n
            n += n_rest
            if n >= room:
                ends[n_runs] = room
                n_runs += one
                skipped += n_rest - (n - room)
                break
            ends[n_runs] = n
            n_runs += one
            skipped = uint64(0)
        now += one
    return int64(n_runs), int64(now), int64(skipped)


@_inner
def _gather_runs(source: U32 | U64, ends: U64, shifts: U64, n_runs: int, target: U32 | U64) -> None:
    """Copy the runs of `_choose_runs` one after the other: source (n + LANES,), target (>= n_rows + LANES,)."""
    at = uint64(0)
    for run in range(uint64(n_runs)):
        shift, end = shifts[run], ends[run]
        # The next run overwrites what is copied past the end. Most runs fit into the first lanes, so the first copy is
        # unconditional: a branch before it would be mispredicted.
        copy_lanes(target, int64(at), source, int64(at + shift))
        at += uint64(LANES)
        while at < end:
            copy_lanes(target, int64(at), source, int64(at + shift))
            at += uint64(LANES)
        at = end


@_inner
def _find_run(ends: U64, n_runs: int, place: int) -> int:
    """Return the run that contains a gathered row."""
    run, n = uint64(0), uint64(n_runs)
    while n > uint64(1):
        half = n >> uint64(1)
        if ends[run + half - uint64(1)] <= uint64(place):
            run += half
        n -= half
    return int64(run)


@_inner
def _sift(
    hits: I64, n_hits: int, n_unseen: int, limit: int, left: Ordered, right: Ordered, n_open: int, out: Pairs
) -> int:
    """Write the hits within the limit in the first `n_unseen` words as candidates from `n_open` on; return their end.

    hits (2, n) int64: positions in both orders.
    """
    left_words, right_words = left.words, right.words
    for hit in range(n_hits):
        row, at = hits[0, hit], hits[1, hit]
        distance = uint64(0)
        for word in range(n_unseen):
            distance += popcount(left_words[word, row] ^ right_words[word, at])
        if distance <= limit:
            n_open = _collect(uint64(1), row, at, left, right, n_open, out)
    return n_open


@kernel
def probe_gathered(
    flips: U32,
    left_seen: U32 | U64,
    right_seen: U32 | U64,
    verdict: Verdict,
    left: Ordered,
    right: Ordered,
    cursor: I64,
    budget: int,
    out: Pairs,
) -> int:
    """Write the pairs of keys that differ by a flip and return their number, as `probe_runs` does.

    The runs around a bucket are copied into one buffer first: in a join of 10,000,000 rows a run has five rows, and
    comparing each run in place took 18 ns per run and row. flips (n,) uint32, all with the same number of bits.
    left_seen, right_seen: what is compared first, in order: the words, or (1, n + LANES) uint32, a half of the only
    word. That half has no bits of the key, so a pair differs in it by at most the radius less the bits of the flip.
    cursor (6,) int64: next position, last position (exclusive), bucket, rows done of the run of the flip, row, flip.
    """
    limit, same = uint64(verdict.radius), verdict.same
    left_starts, right_starts = left.starts, right.starts
    within, n_unseen = limit, 0
    if left_seen.itemsize < 8:
        within, n_unseen = limit - popcount(uint64(flips[0])), left.words.shape[0]
    n_seen, width = left_seen.shape[0], _GATHERED + STRETCH
    memory = np.empty(LANES + n_seen * width, right_seen.dtype)
    skew = (-memory.ctypes.data & 63) // memory.itemsize  # align to a cache line: half of the loads would cross one
    gathered = memory[skew : skew + n_seen * width].reshape((n_seen, width))
    column = right_seen[0].reshape((right_seen.shape[1], 1))
    words, names = right.words[0].reshape((right.words.shape[1], 1)), right.rows.reshape((right.rows.size, 1))
    ends, shifts = np.empty(flips.size, np.uint64), np.empty(flips.size, np.uint64)
    # Hits wait until their words were prefetched, as candidates do.
    hits = np.empty((2, _PENDING + _GATHERED), np.int64)
    room = out.left.size - _PENDING - _GATHERED
    found = n_open = n_hits = 0
    spent = 0
    position, stop, bucket, at, row, flip = cursor
    while position < stop:
        while left_starts[bucket + 1] <= position:
            bucket += 1
        last = min(int64(left_starts[bucket + 1]), stop)
        while flip < flips.size:
            n_runs, next_flip, next_at = _choose_runs(right_starts, flips, bucket, same, flip, at, column, ends, shifts)
            n = int64(ends[n_runs - 1]) if n_runs else 0
            for word in range(n_seen):
                _gather_runs(right_seen[word], ends, shifts, n_runs, gathered[word])
            spent += 4 * n_runs
            row = max(row, position)
            while row < last:
                spent += n // LANES + 1
                block = next_stretch(gathered, 0, left_seen, row, n_seen, within, n)
                while block < n:
                    near = near_stretch(gathered, block, left_seen, row, n_seen, within)
                    if n - block < STRETCH:
                        near &= (uint64(1) << uint64(n - block)) - uint64(1)
                    while near:
                        lane = near & (~near + uint64(1))
                        near ^= lane
                        place = block + int64(popcount(lane - uint64(1)))
                        there = place + int64(shifts[_find_run(ends, n_runs, place)])
                        if n_unseen:
                            prefetch_row(words, there)
                        else:
                            prefetch_row(names, there)
                        hits[0, n_hits] = row
                        hits[1, n_hits] = there
                        n_hits += 1
                    block = next_stretch(gathered, block + STRETCH, left_seen, row, n_seen, within, n)
                row += 1
                if n_hits > _PENDING or spent > budget:
                    spent += n_hits
                    n_open = _sift(hits, n_hits, n_unseen, limit, left, right, n_open, out)
                    n_hits = 0
                    if n_open - found > _PENDING:
                        found = n_open = _settle(found, n_open, verdict, left, right, out)
                    if n_open > room or spent > budget:
                        cursor[0], cursor[2], cursor[3], cursor[4], cursor[5] = position, bucket, at, row, flip
                        return _settle(found, n_open, verdict, left, right, out)
            row = 0
            flip, at = next_flip, next_at
        flip = 0
        position = last
    cursor[0] = position
    n_open = _sift(hits, n_hits, n_unseen, limit, left, right, n_open, out)
    return _settle(found, n_open, verdict, left, right, out)
