"""Hits: pairs of near points of two images, counted per point and per pair of images.

An image pair with hits is one 64-bit number, so that equal pairs are found by sorting: left image, right image, turn (3
bits).
"""

from typing import Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U8, U16, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import int64, uint64
from imgmatch_df.matching.kernels.placement import turn_hash

_TURN_BITS: Final = 3
_LEFT_SHIFT: Final = 32


@kernel
def mix_images(hashes: U64, places: U8, starts: I64, boxes: U16, out: U64) -> None:
    """Write 64 mixed bits of the points and the box of each image into out (n,) uint64; other arrays as in `Points`."""
    factor = uint64(0x9E3779B97F4A7C15)
    for image in range(out.size):
        mixed = uint64(starts[image + 1] - starts[image])
        for side in range(boxes.shape[1]):
            mixed = (mixed ^ uint64(boxes[image, side])) * factor
            mixed ^= mixed >> uint64(29)
        for point in range(starts[image], starts[image + 1]):
            mixed = (mixed ^ hashes[point]) * factor
            mixed ^= mixed >> uint64(29)
            place = uint64(places[point, 0]) | uint64(places[point, 1]) << uint64(8)
            mixed = (mixed ^ (place | uint64(places[point, 2]) << uint64(16))) * factor
            mixed ^= mixed >> uint64(29)
        mixed *= uint64(0xBF58476D1CE4E5B9)
        out[image] = mixed ^ mixed >> uint64(32)


@kernel
def mark_distinct(hashes: U64, places: U8, starts: I64, boxes: U16, order: I64, distinct: U8) -> None:
    """Mark each image of an order whose points and box differ from those of the image before it; (m,) both."""
    for at in range(order.size):
        image, other = order[at], order[max(at - 1, 0)]
        n = starts[image + 1] - starts[image]
        differ = at == 0 or n != starts[other + 1] - starts[other]
        for side in range(boxes.shape[1]):
            differ |= boxes[image, side] != boxes[other, side]
        point = 0
        while not differ and point < n:
            i, j = starts[image] + point, starts[other] + point
            differ = hashes[i] != hashes[j]
            for side in range(3):
                differ |= places[i, side] != places[j, side]
            point += 1
        distinct[at] = differ


@kernel
def take_points(hashes: U64, starts: I64, chosen: I64, starts_out: I64, hashes_out: U64, owners: U32) -> None:
    """Copy the hashes of chosen images (m,) one after the other, and write the position of each one's image.

    starts_out (m + 1,) int64: where each begins; hashes_out, owners: (starts_out[m],).
    """
    for at in range(chosen.size):
        to, start = starts_out[at], starts[chosen[at]]
        for point in range(starts_out[at + 1] - to):
            hashes_out[to + point] = hashes[start + point]
            owners[to + point] = at


@kernel
def turn_hashes(hashes: U64, points: U32, swaps: bool, reverses_rows: bool, reverses_columns: bool, out: U64) -> None:
    """Write hashes[points] as those of turned images, without bit 0: hashes (n,), out (m,) uint64, points (m,)."""
    for at in range(points.size):
        out[at] = turn_hash(hashes[points[at]], swaps, reverses_rows, reverses_columns) >> uint64(1)


@kernel
def count_hits(left: U32, right: U32, left_owners: U32, right_owners: U32, counts: U32) -> None:
    """Count the hits of each left point with points of other images, in counts, which is added to.

    left, right (m,) uint32: points of both sides; owners: the image of each point.
    """
    for hit in range(left.size):
        counts[left[hit]] += np.uint32(left_owners[left[hit]] != right_owners[right[hit]])


@kernel
def pair_images(
    left: U32, right: U32, n_points: int, left_owners: U32, right_owners: U32, same: bool, turns: U8, out: U64
) -> int:
    """Write the number of the image pair of each hit, in a self-join only with left image < right; return how many.

    left, right (m,) uint32: rows of both sides of the join; the left side has `n_points` rows for each of turns
    (n_turns,) uint8, so left row i is point ``i % n_points`` in turn ``turns[i // n_points]``.
    """
    n = 0
    for hit in range(left.size):
        row = int64(left[hit])
        version = row // n_points
        i, j = uint64(left_owners[row - version * n_points]), uint64(right_owners[right[hit]])
        out[n] = i << uint64(_LEFT_SHIFT) | j << uint64(_TURN_BITS) | uint64(turns[version])
        n += int64(not same or i < j)
    return n


@kernel
def part_keys(keys: U64, shift: int, places: I64, out: U64) -> None:
    """Write keys (m,) uint64 part by part, a part for each ``key >> shift``; places: the next place of each part."""
    for at in range(keys.size):
        part = int64(keys[at] >> uint64(shift))
        out[places[part]] = keys[at]
        places[part] += 1


@kernel
def split_keys(keys: U64, left: I64, right: I64, turn: U8) -> None:
    """Write the images and turns of the numbers of image pairs; (m,) each."""
    for at in range(keys.size):
        left[at] = keys[at] >> uint64(_LEFT_SHIFT)
        right[at] = (keys[at] >> uint64(_TURN_BITS)) & uint64((1 << (_LEFT_SHIFT - _TURN_BITS)) - 1)
        turn[at] = keys[at] & uint64((1 << _TURN_BITS) - 1)


@kernel
def keep_repeated(keys: U64) -> int:
    """Move the distinct numbers that occur at least twice in keys (m,) uint64 to its start; return how many.

    For 65,536 keys the table fits the second-level cache; sorting takes ten times as long.
    """
    size = uint64(2)
    while size < uint64(2 * keys.size):
        size <<= uint64(1)
    table = np.zeros(size, np.uint64)  # 2 * (key + 1), and 1 more from its second occurrence on
    one = uint64(1)
    n = 0
    for at in range(keys.size):
        key = (keys[at] + one) << one
        slot = ((key * uint64(0x9E3779B97F4A7C15)) >> uint64(20)) & (size - one)
        while table[slot] and table[slot] | one != key | one:
            slot = (slot + one) & (size - one)
        if table[slot] == key:
            keys[n] = keys[at]
            n += 1
            table[slot] = key | one
        elif table[slot] == 0:
            table[slot] = key
    return n


@kernel
def count_rows(
    left: I64, right: I64, left_starts: I64, left_rows: I64, right_starts: I64, right_rows: I64, same: bool, counts: I64
) -> None:
    """Write how many pairs of rows each pair of images stands for, in a self-join those with left row < right row.

    left, right, counts (m,) int64; the rows of image i are ``rows[starts[i]:starts[i + 1]]``, ascending.
    """
    for pair in range(left.size):
        start, stop = right_starts[right[pair]], right_starts[right[pair] + 1]
        total = 0
        for i in range(left_starts[left[pair]], left_starts[left[pair] + 1]):
            while same and start < stop and right_rows[start] <= left_rows[i]:
                start += 1
            total += stop - start
        counts[pair] = total


@kernel
def write_rows(
    left: I64,
    right: I64,
    left_starts: I64,
    left_rows: I64,
    right_starts: I64,
    right_rows: I64,
    same: bool,
    left_out: U32,
    right_out: U32,
) -> None:
    """Write the pairs of rows that `count_rows` counts, pair of images by pair of images."""
    at = 0
    for pair in range(left.size):
        start, stop = right_starts[right[pair]], right_starts[right[pair] + 1]
        for i in range(left_starts[left[pair]], left_starts[left[pair] + 1]):
            while same and start < stop and right_rows[start] <= left_rows[i]:
                start += 1
            for j in range(start, stop):
                left_out[at] = left_rows[i]
                right_out[at] = right_rows[j]
                at += 1
