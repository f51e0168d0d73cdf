"""Counts of the ones in groups of bits, which bound the distance of hashes, and the order of rows by them.

The counts of two hashes differ in sum by at most as many as their bits do. Where the bits of a group are much alike in
every hash, the difference of the counts is nearly that of the bits: eight bytes then decide what 64 bytes would. The
rows are ordered so that each block of 64 has near counts, and a box around the counts of a block decides for the whole
block (a k-d tree, of which only the leaves are kept: Bentley, CACM 1975).
"""

from typing import NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U8, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.gaps import BOXES, near_boxes, near_points, near_points_each, write_gaps
from imgmatch_df._kernels.popcount import (
    int64,
    lowest_one,
    near_stretch,
    popcount,
    uint8,
    uint64,
    unlike_masked,
    unlike_sixteen,
    unlike_words,
)
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.matching.kernels.probes import distance_within

_VALUES: int = 256
_MANY: int = 12  # near rows of a block, from which on comparing all 64 at once takes less time


class RowBlocks(NamedTuple):
    """Rows in blocks of 64, in the order of their counts.

    Parameters
    ----------
    hashes
        Hashes in this order, (n, n_words) uint64.
    rows
        Row of each position, (n,) uint32.
    points
        Counts, (n_blocks, n_axes, 64) uint8; the last block is filled with zeros.
    lows, highs
        Smallest and largest counts of each block, 64 blocks together: (ceil(n_blocks / 64), n_axes, 64) uint8.
    """

    hashes: U64
    rows: U32
    points: U8
    lows: U8
    highs: U8


@kernel
def group_bits(planes: U64, means: U64, n_rounds: int, group: I64, inverted: U8, alike: I64) -> None:
    """Divide bits into groups that are alike in a sample of 512 hashes: a k-means whose means are bits as well.

    planes (n_bits, 8) uint64: the values of each bit in the sample; a bit and its inverse count as the same. means
    (n_groups, 8) uint64: a buffer. Write the group of each bit, whether it is the inverse of the mean (1), and its
    likeness to the mean, from 0 to 512, (n_bits,) each.
    """
    n_bits, n_groups, n_sampled = planes.shape[0], means.shape[0], 512
    # The first means are bits that are little alike.
    alike[:] = 0
    chosen = n_bits // 2
    for number in range(n_groups):
        means[number] = planes[chosen]
        for bit in range(n_bits):
            likeness = abs(n_sampled - 2 * int64(unlike_words(planes, 8 * bit, means, 8 * number)))
            alike[bit] = max(alike[bit], likeness)
        chosen = alike.argmin()
    ones = np.empty((n_groups, n_sampled), np.int64)
    for turn in range(n_rounds):
        for bit in range(n_bits):
            alike[bit] = -1
            for number in range(n_groups):
                likeness = n_sampled - 2 * int64(unlike_words(planes, 8 * bit, means, 8 * number))
                if abs(likeness) > alike[bit]:
                    alike[bit], group[bit] = abs(likeness), number
                    inverted[bit] = likeness < 0
        if turn == n_rounds - 1:
            break
        ones[:] = 0
        for bit in range(n_bits):
            flip = uint64(0) - uint64(inverted[bit])
            of_group = ones[group[bit]]
            for word in range(8):
                values = planes[bit, word] ^ flip
                for row in range(64):
                    of_group[64 * word + row] += 2 * int64((values >> uint64(row)) & uint64(1)) - 1
        means[:] = 0
        for number in range(n_groups):
            for row in range(n_sampled):
                means[number, row >> 6] |= uint64(ones[number, row] > 0) << uint64(row & 63)


@kernel
def count_groups(
    hashes: U64, rows: U32, inverted: U64, masks: U64, shift: int, start: int, stop: int, counts: U8
) -> None:
    """Write the counts of ``rows[start:stop]``, divided by ``2**shift`` and rounded down, to ``counts[start:stop]``.

    hashes (n, n_words) uint64, rows (m,) uint32, inverted (1, n_words) uint64: bits that are inverted first, masks
    (n_axes, n_words) uint64: the bits of each group, at most 255 a group, counts (m, n_axes) uint8.
    """
    n_words = hashes.shape[1]
    for at in range(start, stop):
        row = int64(rows[at])
        for axis in range(masks.shape[0]):
            total = uint64(0)
            word = 0
            while word + 8 <= n_words:
                total += unlike_masked(hashes, row * n_words + word, inverted, word, masks, axis * n_words + word)
                word += 8
            while word < n_words:
                total += popcount((hashes[row, word] ^ inverted[0, word]) & masks[axis, word])
                word += 1
            counts[at, axis] = total >> uint64(shift)


@kernel
def split_rows(counts: U8, order: U32, spare: U32) -> None:
    """Sort an order (m,) uint32 of rows of counts (n, n_axes) uint8 by the axis with the largest spread, stably.

    spare (m,) uint32: a buffer.
    """
    n, n_axes = order.size, counts.shape[1]
    # The spread of some rows is enough to choose an axis.
    step = max(1, n // 256)
    best, axis = -1.0, 0
    for candidate in range(n_axes):
        total = squares = 0.0
        n_seen = 0
        for i in range(0, n, step):
            value = float(counts[order[i], candidate])
            total += value
            squares += value * value
            n_seen += 1
        spread = squares - total * total / n_seen
        if spread > best:
            best, axis = spread, candidate
    places = np.zeros(_VALUES + 1, np.int64)
    for i in range(n):
        places[int64(counts[order[i], axis]) + 1] += 1
    for value in range(_VALUES):
        places[value + 1] += places[value]
    for i in range(n):
        value = int64(counts[order[i], axis])
        spare[places[value]] = order[i]
        places[value] += 1
    for i in range(n):
        order[i] = spare[i]


@kernel
def order_rows(counts: U8, order: U32, spare: U32) -> None:
    """Order rows (m,) uint32 in blocks of near counts: split at whole blocks until each part is one block."""
    starts, stops = np.empty(64, np.int64), np.empty(64, np.int64)
    starts[0], stops[0] = 0, order.size
    n_open = 1
    while n_open:
        n_open -= 1
        start, stop = starts[n_open], stops[n_open]
        n_blocks = (stop - start + BOXES - 1) // BOXES
        if n_blocks < 2:
            continue
        cut = n_blocks // 2 * BOXES
        split_rows(counts, order[start:stop], spare[start:stop])
        starts[n_open], stops[n_open] = start, start + cut
        starts[n_open + 1], stops[n_open + 1] = start + cut, stop
        n_open += 2


@kernel
def fill_blocks(hashes: U64, rows: U32, counts: U8, order: U32, start: int, stop: int, blocks: RowBlocks) -> None:
    """Fill the blocks ``start..stop``.

    hashes (n, n_words) uint64, rows (m,) uint32, counts (m, n_axes) uint8, order (m,) uint32: from `order_rows`.
    """
    n_words, n_axes = hashes.shape[1], counts.shape[1]
    hashes_out, rows_out, points, lows, highs = blocks
    for block in range(start, stop):
        first = block * BOXES
        n_rows = min(BOXES, order.size - first)
        for axis in range(n_axes):
            low, high = uint8(255), uint8(0)
            for lane in range(n_rows):
                value = counts[order[first + lane], axis]
                points[block, axis, lane] = value
                low, high = min(low, value), max(high, value)
            lows[block // BOXES, axis, block % BOXES] = low
            highs[block // BOXES, axis, block % BOXES] = high
        for lane in range(n_rows):
            row = int64(rows[order[first + lane]])
            rows_out[first + lane] = row
            for word in range(n_words):
                hashes_out[first + lane, word] = hashes[row, word]


@kernel
def count_near(blocks: RowBlocks, limit: int) -> tuple[int, int, int]:
    """Return how many pairs of blocks, of rows and blocks, and of rows have counts within a limit of each other."""
    _, rows, points, lows, highs = blocks
    n, n_blocks = rows.size, points.shape[0]
    of_blocks = of_rows = near = 0
    bound = uint8(limit)
    for block in range(n_blocks):
        for other in range(block, n_blocks):
            if (
                near_boxes(lows, highs, other // BOXES, lows, highs, block // BOXES, block % BOXES, bound)
                >> uint64(other % BOXES)
            ) & uint64(1):
                of_blocks += 1
                seen = near_points(points, block, lows, highs, other // BOXES, other % BOXES, bound)
                for lane in range(min(BOXES, n - block * BOXES)):
                    if (seen >> uint64(lane)) & uint64(1):
                        of_rows += 1
                        found = near_points(points, other, points, points, block, lane, bound)
                        if other == block:
                            found &= ~((uint64(2) << uint64(lane)) - uint64(1))
                        n_there = min(BOXES, n - other * BOXES)
                        near += int64(popcount(found & (uint64(0xFFFFFFFFFFFFFFFF) >> uint64(BOXES - n_there))))
    return of_blocks, of_rows, near


@kernel
def join_blocks(
    left: RowBlocks, right: RowBlocks, same: bool, radius: int, limit: int, cursor: I64, budget: int, out: Pairs
) -> int:
    """Write the pairs of rows of two sides within `radius` bits, whose counts are within `limit`; return their number.

    The call stops when the budget or the buffers are used up, and continues at the next call; call again while
    ``cursor[0] < cursor[1]``. cursor (4,) int64: next block of the left side, last block (exclusive), block of the
    right side, lane of the left block. `same`: a self-join, of which each pair is written once, the smaller row left.
    """
    bound, farthest = uint8(limit), uint64(radius)
    every = uint64(0xFFFFFFFFFFFFFFFF)
    left_hashes, left_rows, left_points, left_lows, left_highs = left
    right_hashes, right_rows, right_points, right_lows, right_highs = right
    left_out, right_out, distance_out = out.left, out.right, out.distance
    n_right_blocks = right_points.shape[0]
    room = left_out.size - BOXES
    found = spent = n_done = 0
    block, stop, other, lane = cursor
    while block < stop:
        n_lanes = uint64(min(BOXES, left_rows.size - block * BOXES))
        if same:
            other = max(other, block)
        while other < n_right_blocks:
            group = other // BOXES
            boxes = near_boxes(
                right_lows, right_highs, group, left_lows, left_highs, block // BOXES, block % BOXES, bound
            )
            boxes &= every << uint64(other % BOXES)
            spent += 1
            while boxes:
                box = int64(lowest_one(boxes))
                boxes &= boxes - uint64(1)
                if group * BOXES + box >= n_right_blocks:
                    break
                if group * BOXES + box != other:
                    other, lane = group * BOXES + box, 0
                is_own = same and other == block
                n_there = uint64(min(BOXES, right_rows.size - other * BOXES))
                lanes_there = every >> (uint64(BOXES) - n_there)
                seen = near_points(left_points, block, right_lows, right_highs, group, box, bound)
                seen &= every >> (uint64(BOXES) - n_lanes)
                seen &= every << uint64(lane)
                spent += 1
                while seen:
                    lane = int64(lowest_one(seen))
                    if found > room or (n_done and spent > budget):
                        cursor[0], cursor[2], cursor[3] = block, other, lane
                        return found
                    n_done += 1
                    seen &= seen - uint64(1)
                    near = near_points(right_points, other, left_points, left_points, block, lane, bound) & lanes_there
                    if is_own:
                        near &= ~((uint64(2) << uint64(lane)) - uint64(1))
                    at = block * BOXES + lane
                    spent += 1
                    while near:
                        there = other * BOXES + int64(lowest_one(near))
                        near &= near - uint64(1)
                        distance = distance_within(left_hashes, at, right_hashes, there, farthest)
                        spent += 1
                        if distance <= farthest:
                            i, j = left_rows[at], right_rows[there]
                            if same and i > j:
                                i, j = j, i
                            left_out[found] = i
                            right_out[found] = j
                            distance_out[found] = distance
                            found += 1
                lane = 0
            other, lane = (group + 1) * BOXES, 0
        block += 1
        other = lane = 0
        if spent > budget:
            break
    cursor[0], cursor[2], cursor[3] = block, 0, 0
    return found


@kernel(inline="always")
def _whole_distance(left: U64, i: int, right: U64, j: int, radius: int) -> int:
    """Return what `distance_within` does; without a check within 16 words, which every other pair would fail."""
    if left.shape[1] == 16:
        return unlike_sixteen(left, 16 * i, right, 16 * j)
    return distance_within(left, i, right, j, radius)


@kernel
def _put(heap: U64, n: int, key: int) -> None:
    """Put a key into a heap of n keys, the largest first, at the place of the largest if it is full."""
    if n < heap.size:
        place = n
        while place and heap[(place - 1) >> 1] < key:
            heap[place] = heap[(place - 1) >> 1]
            place = (place - 1) >> 1
        heap[place] = key
        return
    place = 0
    while 2 * place + 1 < n:
        child = 2 * place + 1
        if child + 1 < n and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key


@kernel
def _turn_block(hashes: U64, first: int, n: int, columns: U64) -> None:
    """Write the rows ``first..first + n`` of hashes (m, n_words) uint64 as columns (n_words, >= n) uint64."""
    for row in range(n):
        for word in range(hashes.shape[1]):
            columns[word, row] = hashes[first + row, word]


@kernel
def search_nearest(
    queries: RowBlocks, blocks: RowBlocks, shift: int, radius: int, group: int, nearest: U64, found: I64
) -> None:
    """Write the nearest rows of the queries of one block within `radius` bits, in any order.

    nearest (m, k) uint64, by the row of the query: distance in the high 32 bits, row in the low ones; found (m,) int64:
    how many there are. Counts were divided by ``2**shift``.
    """
    query_hashes, query_rows, query_points, query_lows, query_highs = queries
    hashes, rows, points, lows, highs = blocks
    n_blocks, n_axes = points.shape[0], points.shape[1]
    every = uint64(0xFFFFFFFFFFFFFFFF)
    first = group * BOXES
    n_queries = min(BOXES, query_rows.size - first)
    # Blocks in the order of their distance from the box of the queries: the first ones bring the limits down.
    low, high = np.zeros((1, n_axes, BOXES), np.uint8), np.zeros((1, n_axes, BOXES), np.uint8)
    for axis in range(n_axes):
        low[0, axis, 0] = query_lows[group // BOXES, axis, group % BOXES]
        high[0, axis, 0] = query_highs[group // BOXES, axis, group % BOXES]
    gaps, order = np.empty(lows.shape[0] * BOXES, np.uint8), np.empty(n_blocks, np.uint32)
    for at in range(lows.shape[0]):
        write_gaps(lows, highs, at, low, high, 0, gaps)
    ends = np.zeros(_VALUES + 1, np.int64)
    for block in range(n_blocks):
        ends[int64(gaps[block]) + 1] += 1
    for value in range(_VALUES):
        ends[value + 1] += ends[value]
    for block in range(n_blocks):
        order[ends[int64(gaps[block])]] = block
        ends[int64(gaps[block])] += 1
    slack = n_axes * ((1 << shift) - 1)
    farthest, limits = np.full(BOXES, radius, np.int64), np.zeros(BOXES, np.uint8)
    limits[:n_queries] = min(255, (radius + slack) >> shift)
    # Of hashes whose counts do not differ, all rows of a block are near: then 64 distances are counted word by word,
    # which takes a quarter of the time of one distance after the other.
    columns = np.zeros((hashes.shape[1], BOXES), np.uint64)
    query_columns = np.zeros((hashes.shape[1], BOXES), np.uint64)
    _turn_block(query_hashes, first, n_queries, query_columns)
    for at in range(n_blocks):
        block = int64(order[at])
        if gaps[block] > limits.max():
            break
        n_there = uint64(min(BOXES, rows.size - block * BOXES))
        is_turned = False
        seen = near_points_each(query_points, group, lows, highs, block // BOXES, block % BOXES, limits)
        seen &= every >> uint64(BOXES - n_queries)
        while seen:
            lane = int64(lowest_one(seen))
            seen &= seen - uint64(1)
            query = int64(query_rows[first + lane])
            heap, n = nearest[query], found[query]
            near = near_points(points, block, query_points, query_points, group, lane, limits[lane])
            near &= every >> (uint64(BOXES) - n_there)
            if popcount(near) >= uint64(_MANY):
                if not is_turned:
                    _turn_block(hashes, block * BOXES, int64(n_there), columns)
                    is_turned = True
                near &= near_stretch(columns, 0, query_columns, lane, hashes.shape[1], uint64(farthest[lane]))
            while near:
                there = block * BOXES + int64(lowest_one(near))
                near &= near - uint64(1)
                distance = _whole_distance(query_hashes, first + lane, hashes, there, uint64(farthest[lane]))
                if distance <= uint64(farthest[lane]):
                    key = distance << uint64(32) | uint64(rows[there])
                    if n < heap.size or key < heap[0]:
                        _put(heap, n, key)
                        n = min(n + 1, heap.size)
                        if n == heap.size:
                            farthest[lane] = int64(heap[0] >> uint64(32))
            found[query] = n
            limits[lane] = min(255, (farthest[lane] + slack) >> shift)
