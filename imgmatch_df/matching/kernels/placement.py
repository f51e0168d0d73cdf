"""Verification of pairs of images: how many points of both agree on one placement of one image in the other.

A placement is a similarity: scale, shift and a small rotation. Places are whole numbers, and a placement is compared
without a division: two matches whose points differ by a on the left and by b on the right say that a point that lies u
from the first one should lie b / a * u from it on the right (as complex numbers), and v agrees if
``|b * u - a * v|`` is small. All of it is exact in float64, so that votes are the same on every processor, and for the
swapped pair.
"""

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U8, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import LANES, STRETCH, int64, near_stretch, popcount, uint64
from imgmatch_df.turns import EVERY_TURN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.matching.points import Points

    F64 = NDArray[np.float64]

MAX_POINTS: Final = STRETCH
"""Maximum number of points of an image."""
MATCH_RADIUS: Final = 10  # bits
_MAX_MATCHES: Final = 200
_MAX_SEEDS: Final = 40  # matches whose pairs give placements, the nearest first
_MIN_SPREAD: Final = 144  # pixels, squared, between the points of a placement
_TOLERANCE: Final = 20.0  # pixels, squared, of the image in which the copy is larger
_MIN_COSINE: Final = 0.96  # of the rotation, squared: 11.5 degrees
_MAX_LEVELS: Final = 4
# MAX_RATIOS[d + 4] bounds the squared scale for matches whose right point is d levels above the left one; a level is a
# factor of 2 ** (1 / 4), and levels differ from the scale by at most 1.3. Multiples of 1 / 1024, so that products with
# squared lengths are exact.
_MAX_RATIOS: Final = np.array([round(1024 * 2 ** ((d + 1.3) / 2)) / 1024 for d in range(-_MAX_LEVELS, _MAX_LEVELS + 1)])
_MAX_RATIO: Final = 5.75  # of the scale, squared: 2.4
_HALF_PATCH: Final = 20.0
_LEVEL_SCALES: Final = np.array([2 ** (level / 4) for level in range(_MAX_LEVELS + 1)])

# What each turn does: swap, reverse rows, reverse columns.
_STEPS: Final = np.array(EVERY_TURN, np.bool_)
_ODD_COLUMNS: Final = np.uint64(sum(1 << (8 * k + m) for k in range(8) for m in range(1, 8, 2)))
_ODD_ROWS: Final = np.uint64(sum(1 << (8 * k + m) for k in range(1, 8, 2) for m in range(8)))


@kernel(inline="always")
def _swap_bits(word: int, shift: int, mask: int) -> int:
    swap = ((word >> shift) ^ word) & mask
    swapped: int = word ^ swap ^ (swap << shift)
    return swapped


@kernel
def turn_hash(word: Any, swaps: bool, reverses_rows: bool, reverses_columns: bool) -> Any:
    """Return the hash (uint64) of a patch as that of the turned patch; coefficient 0 is not compared and stays 0."""
    if swaps:
        word = _swap_bits(word, uint64(7), uint64(0x00AA00AA00AA00AA))
        word = _swap_bits(word, uint64(14), uint64(0x0000CCCC0000CCCC))
        word = _swap_bits(word, uint64(28), uint64(0x00000000F0F0F0F0))
    if reverses_rows:
        word ^= _ODD_ROWS
    if reverses_columns:
        word ^= _ODD_COLUMNS
    return word


@kernel
def turn_points(points: "Points", turn: int, hashes: U64, places: U8) -> None:
    """Write the hashes (n_points,) uint64 and places (n_points, 3) uint8 of points as those of the turned images."""
    swaps, reverses_rows, reverses_columns = _STEPS[turn]
    for image in range(points.starts.size - 1):
        width, height = points.boxes[image, 4], points.boxes[image, 5]
        if swaps:
            width, height = height, width
        for point in range(points.starts[image], points.starts[image + 1]):
            hashes[point] = turn_hash(points.hashes[point], swaps, reverses_rows, reverses_columns)
            x, y = points.places[point, 0], points.places[point, 1]
            if swaps:
                x, y = y, x
            places[point, 0] = width - x if reverses_columns else x
            places[point, 1] = height - y if reverses_rows else y
            places[point, 2] = points.places[point, 2]


@kernel
def _is_after(left: "Points", i: int, right: "Points", j: int) -> bool:
    """Return whether image i of the left side comes after image j of the right: by number of points, hashes, places."""
    start, other = left.starts[i], right.starts[j]
    n, n_other = left.starts[i + 1] - start, right.starts[j + 1] - other
    if n != n_other:
        return n > n_other
    for point in range(n):
        if left.hashes[start + point] != right.hashes[other + point]:
            return left.hashes[start + point] > right.hashes[other + point]
    for point in range(n):
        for k in range(3):
            if left.places[start + point, k] != right.places[other + point, k]:
                return left.places[start + point, k] > right.places[other + point, k]
    return False


@kernel
def place_pairs(
    left: I64,
    right: I64,
    turn: U8,
    left_points: "Points",
    right_points: "Points",
    votes: U8,
    placements: "F64",
    coverage: "F64",
) -> None:
    """Write the votes of pairs of images, the placement of the turned left one in the right one, and the coverage.

    left, right (n,) int64: images; turn (n,) uint8: of the left one. votes (n,) uint8; placements (n, 4) float64:
    scale x, scale y, shift x, shift y in base pixels; coverage (n,) float64. Pairs with 0 votes have zeros.
    """
    words = np.zeros((2, MAX_POINTS + LANES), np.uint64)
    places = np.empty((2, MAX_POINTS, 3), np.int64)
    found = np.empty((MAX_POINTS * MAX_POINTS, 3), np.uint8)
    matches = np.empty((_MAX_MATCHES, 5), np.float64)
    levels = np.empty(_MAX_MATCHES, np.int64)
    numbers = np.empty((_MAX_MATCHES, 2), np.uint64)
    starts = np.empty(MATCH_RADIUS + 2, np.int64)
    agreeing = np.empty((2, MAX_POINTS), np.int64)
    best = np.empty(MAX_POINTS, np.int64)
    for pair in range(left.size):
        swaps, reverses_rows, reverses_columns = _STEPS[turn[pair]]
        start, other = left_points.starts[left[pair]], right_points.starts[right[pair]]
        n_left, n_right = left_points.starts[left[pair] + 1] - start, right_points.starts[right[pair] + 1] - other
        width, height = int64(left_points.boxes[left[pair], 4]), int64(left_points.boxes[left[pair], 5])
        if swaps:
            width, height = height, width
        for point in range(n_left):
            words[0, point] = turn_hash(left_points.hashes[start + point], swaps, reverses_rows, reverses_columns)
            x, y = int64(left_points.places[start + point, 0]), int64(left_points.places[start + point, 1])
            if swaps:
                x, y = y, x
            places[0, point, 0] = width - x if reverses_columns else x
            places[0, point, 1] = height - y if reverses_rows else y
            places[0, point, 2] = left_points.places[start + point, 2]
        for point in range(n_right):
            words[1, point] = right_points.hashes[other + point]
            for k in range(3):
                places[1, point, k] = right_points.places[other + point, k]
        # The order of equally near matches is that of the image that comes first, so that it is the same for the
        # swapped pair.
        first = int64(_is_after(left_points, left[pair], right_points, right[pair]))
        n_matches = _find_matches(words, places, n_left, n_right, first, found, starts, matches, levels, numbers)
        n_votes = _count_votes(matches, levels, numbers, n_matches, agreeing, best)
        votes[pair] = n_votes
        placements[pair] = 0.0
        coverage[pair] = 0.0
        if n_votes:
            _fit(matches, best, n_votes, placements[pair])
            right_box = right_points.boxes[right[pair]]
            sides = (width, height), (int64(right_box[4]), int64(right_box[5]))
            shares = (
                _span(places, numbers, best, n_votes, 0, sides[0]),
                _span(places, numbers, best, n_votes, 1, sides[1]),
            )
            coverage[pair] = min(shares[0], shares[1])


@kernel
def _find_matches(
    words: U64,
    places: I64,
    n_left: int,
    n_right: int,
    first: int,
    found: U8,
    starts: I64,
    matches: "F64",
    levels: I64,
    numbers: U64,
) -> int:
    """Write the nearest matches of two images, and return their number.

    In the order of their distance, then of the point of side `first`, then of the other. matches (200, 5) float64:
    x, y on the left, x, y on the right, and the distance; levels (200,) int64: of the right point less that of the
    left; numbers (200, 2) uint64: of the points.
    """
    n = (n_left, n_right)
    second = 1 - first
    radius = uint64(MATCH_RADIUS)
    starts[:] = 0
    n_found = 0
    last = uint64(0xFFFFFFFFFFFFFFFF) >> uint64(64 - n[second]) if n[second] else uint64(0)
    for i in range(n[first]):
        near = near_stretch(words[second : second + 1], 0, words[first : first + 1], i, 1, radius) & last
        while near:
            j = int64(popcount((near & (~near + uint64(1))) - uint64(1)))
            near &= near - uint64(1)
            distance = int64(popcount(words[first, i] ^ words[second, j]))
            found[n_found, 0], found[n_found, 1], found[n_found, 2] = i, j, distance
            starts[distance + 1] += 1
            n_found += 1
    for distance in range(1, starts.size):
        starts[distance] += starts[distance - 1]
    for k in range(n_found):
        distance = found[k, 2]
        at = starts[distance]
        starts[distance] += 1
        if at >= _MAX_MATCHES:
            continue
        points = (int64(found[k, 0]), int64(found[k, 1]))
        i, j = points[first], points[second]
        matches[at, 0], matches[at, 1] = places[0, i, 0], places[0, i, 1]
        matches[at, 2], matches[at, 3] = places[1, j, 0], places[1, j, 1]
        matches[at, 4] = distance
        levels[at] = places[1, j, 2] - places[0, i, 2]
        numbers[at, 0], numbers[at, 1] = uint64(i), uint64(j)
    return min(n_found, _MAX_MATCHES)


@kernel
def _count_votes(matches: "F64", levels: I64, numbers: U64, n: int, agreeing: I64, best: I64) -> int:
    """Write the matches that agree with the best placement in best (64,) int64, and return their number.

    The best placement is that with the most votes, the first of several. A placement comes from two of the nearest 40
    matches. Matches vote in their order; one whose left or right point has voted does not.
    """
    one = uint64(1)
    n_best = 0
    for a in range(1, min(n, _MAX_SEEDS)):
        for b in range(a):
            ax, ay = matches[b, 0] - matches[a, 0], matches[b, 1] - matches[a, 1]
            bx, by = matches[b, 2] - matches[a, 2], matches[b, 3] - matches[a, 3]
            left_size, right_size = ax * ax + ay * ay, bx * bx + by * by
            if left_size < _MIN_SPREAD or right_size < _MIN_SPREAD:
                continue
            if right_size > _MAX_RATIO * left_size or left_size > _MAX_RATIO * right_size:
                continue
            along = ax * bx + ay * by
            if along <= 0 or along * along < _MIN_COSINE * (left_size * right_size):
                continue
            low, high = _allowed_levels(left_size, right_size)
            if not low <= min(levels[a], levels[b]) <= max(levels[a], levels[b]) <= high:
                continue
            limit = _TOLERANCE * max(left_size, right_size)
            used_left = used_right = uint64(0)
            n_votes = 0
            for k in range(n):
                ux, uy = matches[k, 0] - matches[a, 0], matches[k, 1] - matches[a, 1]
                vx, vy = matches[k, 2] - matches[a, 2], matches[k, 3] - matches[a, 3]
                real = (bx * ux - by * uy) - (ax * vx - ay * vy)
                imaginary = (bx * uy + by * ux) - (ax * vy + ay * vx)
                if real * real + imaginary * imaginary > limit or not low <= levels[k] <= high:
                    continue
                in_left, in_right = one << numbers[k, 0], one << numbers[k, 1]
                if used_left & in_left or used_right & in_right:
                    continue
                used_left |= in_left
                used_right |= in_right
                agreeing[0, n_votes] = k
                n_votes += 1
            if n_votes > n_best:
                n_best = n_votes
                best[:n_votes] = agreeing[0, :n_votes]
    return n_best


@kernel(inline="always")
def _allowed_levels(left_size: float, right_size: float) -> tuple[int, int]:
    """Return the least and the largest difference of levels that fit a scale, given as two squared lengths."""
    low = -_MAX_LEVELS
    while low < _MAX_LEVELS and right_size > _MAX_RATIOS[low + _MAX_LEVELS] * left_size:
        low += 1
    high = _MAX_LEVELS
    while high > -_MAX_LEVELS and left_size > _MAX_RATIOS[_MAX_LEVELS - high] * right_size:
        high -= 1
    return low, high


@kernel
def _fit(matches: "F64", best: I64, n: int, placement: "F64") -> None:
    """Write the placement that fits the agreeing matches: scale x, scale y, shift x, shift y.

    The scale is the ratio of how far the points lie from their centre on both sides, so that the swapped pair has its
    inverse. The shift is where the corner at 0, 0 of the left base comes to lie.
    """
    centre = np.zeros(4)
    for k in range(n):
        for axis in range(4):
            centre[axis] += matches[best[k], axis]
    left_size = right_size = along = across = 0.0
    for k in range(n):
        match = matches[best[k]]
        # times n, so that all of it is whole
        ax, ay = n * match[0] - centre[0], n * match[1] - centre[1]
        bx, by = n * match[2] - centre[2], n * match[3] - centre[3]
        left_size += ax * ax + ay * ay
        right_size += bx * bx + by * by
        along += ax * bx + ay * by
        across += ax * by - ay * bx
    scale = math.sqrt(right_size / left_size)
    length = math.sqrt(along * along + across * across)
    cosine, sine = (along / length, across / length) if length else (1.0, 0.0)
    x, y = centre[0] / n, centre[1] / n
    placement[0] = placement[1] = scale
    placement[2] = centre[2] / n - scale * (cosine * x - sine * y)
    placement[3] = centre[3] / n - scale * (sine * x + cosine * y)


@kernel
def _span(places: I64, numbers: U64, best: I64, n: int, side: int, sides: tuple[int, int]) -> float:
    """Return the share of a base image that the box around the patches of the agreeing points takes."""
    share = 1.0
    for axis in range(2):
        low, high = float(sides[axis]), 0.0
        for k in range(n):
            point = numbers[best[k], side]
            half = _HALF_PATCH * _LEVEL_SCALES[places[side, point, 2]]
            low = min(low, places[side, point, axis] - half)
            high = max(high, places[side, point, axis] + half)
        share *= (min(high, float(sides[axis])) - max(low, 0.0)) / sides[axis]
    return share
