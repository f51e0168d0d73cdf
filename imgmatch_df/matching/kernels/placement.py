"""Verification of pairs of images: votes of points of both for one placement of one image in the other.

Votes are the same on every processor, and for the swapped pair. docs/how-it-works/local-matching.md has the definition,
and what its constants were compared with.
"""

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U8, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import (
    LANES,
    STRETCH,
    close_places,
    int64,
    lowest_one,
    near_stretch,
    popcount,
    uint64,
)
from imgmatch_df.matching.kernels.agreement import (
    MATCH_LANES,
    MATCH_WORDS,
    MAX_LEVELS,
    MAX_MATCHES,
    MAX_SEEDS,
    find_placement,
)
from imgmatch_df.matching.kernels.turned_points import TURN_STEPS, turn_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.matching.points import Points

    F64 = NDArray[np.float64]

MAX_POINTS: Final = STRETCH
"""Maximum number of points of an image."""
MATCH_RADIUS: Final = 12  # bits
# The squared scale from which on points are expected 1, 2, ... levels higher.
_LEVEL_RATIOS: Final = np.array([round(1024 * 2 ** ((d - 0.5) / 2)) / 1024 for d in range(1, MAX_LEVELS + 2)])
_SAME_PLACE: Final = 64.0  # pixels, squared: matches that lie nearer in both images are one
# Points are found where their patch fits into the image, in whole pixels of their level.
_HALF_PATCHES: Final = np.array([round(16 * 20 * 2 ** (level / 4)) / 16 for level in range(MAX_LEVELS + 1)])
_SLACK: Final = 0.75
_USUAL_PLACES: Final = 40
_FEWEST_PLACES: Final = 6


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
    min_votes: int,
    votes: U8,
    placements: "F64",
    coverage: "F64",
) -> None:
    """Write the votes of pairs of images, the placement of the turned left one in the right one, and the coverage.

    left, right (n,) int64: images; turn (n,) uint8: of the left one. votes (n,) uint8; placements (n, 4) float64:
    scale x, scale y, shift x, shift y in base pixels; coverage (n,) float64. Pairs with fewer than `min_votes` votes,
    at least 1, have zeros.
    """
    fewest = 2  # matches that can have so many votes
    while fewest < MAX_POINTS and _weigh(fewest, 0) < min_votes:
        fewest += 1
    words = np.zeros((2, MAX_POINTS + LANES), np.uint64)
    places = np.zeros((2, 3, MAX_POINTS), np.float64)
    found = np.empty((MAX_POINTS * MAX_POINTS, 3), np.uint8)
    starts = np.empty(MATCH_RADIUS + 2, np.int64)
    matches = np.zeros((5, 64 * MATCH_WORDS), np.float64)
    possible = np.empty((MAX_SEEDS, MATCH_WORDS), np.uint64)
    near = np.empty(MATCH_WORDS, np.uint64)
    numbers = np.empty((MAX_MATCHES, 2), np.uint64)
    agreeing = np.empty(MAX_POINTS, np.int64)
    best = np.empty(MAX_POINTS, np.int64)
    form = np.empty(11, np.float64)
    fit = np.empty(8, np.float64)
    sizes = np.empty(2, np.float64)
    spots = np.zeros((4, MAX_POINTS), np.uint8)
    sides = np.empty((2, 2), np.int64)
    for pair in range(left.size):
        swaps, reverses_rows, reverses_columns = TURN_STEPS[turn[pair]]
        start, other = left_points.starts[left[pair]], right_points.starts[right[pair]]
        n_left = min(left_points.starts[left[pair] + 1] - start, MAX_POINTS)
        n_right = min(right_points.starts[right[pair] + 1] - other, MAX_POINTS)
        width, height = int64(left_points.boxes[left[pair], 4]), int64(left_points.boxes[left[pair], 5])
        if swaps:
            width, height = height, width
        for point in range(n_left):
            words[0, point] = turn_hash(left_points.hashes[start + point], swaps, reverses_rows, reverses_columns)
            x, y = int64(left_points.places[start + point, 0]), int64(left_points.places[start + point, 1])
            if swaps:
                x, y = y, x
            places[0, 0, point] = width - x if reverses_columns else x
            places[0, 1, point] = height - y if reverses_rows else y
            places[0, 2, point] = left_points.places[start + point, 2]
            for k in range(2):
                spots[k, point] = left_points.places[start + point, k]  # a turn keeps distances
        for point in range(n_right):
            words[1, point] = right_points.hashes[other + point]
            for k in range(3):
                places[1, k, point] = right_points.places[other + point, k]
            for k in range(2):
                spots[2 + k, point] = right_points.places[other + point, k]
        # The order of equally near matches is that of the image that comes first, so that it is the same for the
        # swapped pair.
        first = int64(_is_after(left_points, left[pair], right_points, right[pair]))
        n_matches = _find_matches(words, places, n_left, n_right, first, found, starts, matches, numbers)
        votes[pair] = 0
        placements[pair] = 0.0
        coverage[pair] = 0.0
        n_agreeing, is_stretched = find_placement(
            matches, numbers, n_matches, fewest, form, possible, near, agreeing, best
        )
        if n_agreeing < fewest:
            continue
        n_places = _count_places(matches, best, n_agreeing)
        if _weigh(n_places, 0) < min_votes:
            continue
        sides[0, 0], sides[0, 1] = width, height
        sides[1, 0], sides[1, 1] = right_points.boxes[right[pair], 4], right_points.boxes[right[pair], 5]
        _fit(matches, best, n_agreeing, is_stretched, fit, sizes, placements[pair])
        shift = _level_shift(sizes[0], sizes[1])
        n_expected = min(
            _count_expected(places, spots, n_left, 0, n_agreeing, fit, sizes, is_stretched, shift, sides),
            _count_expected(places, spots, n_right, 1, n_agreeing, fit, sizes, is_stretched, -shift, sides),
        )
        n_votes = _weigh(n_places, n_expected)
        if n_votes < min_votes:
            placements[pair] = 0.0
            continue
        votes[pair] = n_votes
        coverage[pair] = min(
            _span(places, numbers, best, n_agreeing, 0, sides), _span(places, numbers, best, n_agreeing, 1, sides)
        )


@kernel
def _find_matches(
    words: U64,
    places: "F64",
    n_left: int,
    n_right: int,
    first: int,
    found: U8,
    starts: I64,
    matches: "F64",
    numbers: U64,
) -> int:
    """Write the nearest matches of two images, and return their number.

    In the order of their distance, then of the point of side `first`, then of the other. matches (5, 256) float64:
    x, y on the left, x, y on the right, level of the right point less that of the left; numbers (200, 2) uint64: of the
    points.
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
            j = int64(lowest_one(near))
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
        if at >= MAX_MATCHES:
            continue
        points = (int64(found[k, 0]), int64(found[k, 1]))
        i, j = points[first], points[second]
        matches[0, at], matches[1, at] = places[0, 0, i], places[0, 1, i]
        matches[2, at], matches[3, at] = places[1, 0, j], places[1, 1, j]
        matches[4, at] = places[1, 2, j] - places[0, 2, i]
        numbers[at, 0], numbers[at, 1] = uint64(i), uint64(j)
    return min(n_found, MAX_MATCHES)


@kernel
def _level_shift(left_size: float, right_size: float) -> int:
    """Return by how many levels points are expected higher on the right."""
    shift = 0
    for ratio in _LEVEL_RATIOS:
        shift += int64(right_size >= ratio * left_size) - int64(left_size >= ratio * right_size)
    return shift


@kernel
def _fit(matches: "F64", best: I64, n: int, is_stretched: bool, fit: "F64", sizes: "F64", placement: "F64") -> None:
    """Write the placement that fits n agreeing matches.

    fit (8,) float64: n times the centre of the points, as x, y on the left, x, y on the right; then two numbers that
    take left points to the right, and two for the way back: scale times cosine and sine of the rotation, or scale x and
    scale y. The scale is the ratio of how far the points lie from their centre, whose squares sizes (2,) float64 has,
    so that the swapped pair has its inverse. placement (4,) float64: scale x, scale y, and where the corner 0, 0 of the
    left base comes to lie.
    """
    for axis in range(4):
        fit[axis] = 0.0
        for k in range(n):
            fit[axis] += matches[axis, best[k]]
    xx_left = yy_left = xx_right = yy_right = along = across = 0.0
    for k in range(n):
        ax, ay = n * matches[0, best[k]] - fit[0], n * matches[1, best[k]] - fit[1]
        bx, by = n * matches[2, best[k]] - fit[2], n * matches[3, best[k]] - fit[3]
        xx_left += ax * ax
        yy_left += ay * ay
        xx_right += bx * bx
        yy_right += by * by
        along += ax * bx + ay * by
        across += ax * by - ay * bx
    if is_stretched:
        sizes[0], sizes[1] = math.sqrt(xx_left * yy_left), math.sqrt(xx_right * yy_right)
        fit[4], fit[5] = math.sqrt(xx_right / xx_left), math.sqrt(yy_right / yy_left)
        fit[6], fit[7] = math.sqrt(xx_left / xx_right), math.sqrt(yy_left / yy_right)
        placement[0], placement[1] = fit[4], fit[5]
    else:
        sizes[0], sizes[1] = xx_left + yy_left, xx_right + yy_right
        length = math.sqrt(along * along + across * across)
        cosine, sine = (along / length, across / length) if length else (1.0, 0.0)
        placement[0] = placement[1] = scale = math.sqrt(sizes[1] / sizes[0])
        fit[4], fit[5] = scale * cosine, scale * sine
        back = math.sqrt(sizes[0] / sizes[1])
        fit[6], fit[7] = back * cosine, -(back * sine)
    x, y = _moved(-fit[0], -fit[1], fit, 0, is_stretched)
    placement[2], placement[3] = (fit[2] + x) / n, (fit[3] + y) / n


@kernel(inline="always")
def _moved(x: float, y: float, fit: "F64", side: int, is_stretched: bool) -> tuple[float, float]:
    """Return where a difference of places on one side lies on the other."""
    first, second = fit[4 + 2 * side], fit[5 + 2 * side]
    if is_stretched:
        return first * x, second * y
    return first * x - second * y, second * x + first * y


@kernel
def _count_places(matches: "F64", best: I64, n: int) -> int:
    """Return the number of agreeing matches, without those at the place of an earlier one, as on another level."""
    n_places = 0
    for k in range(n):
        is_new = True
        for earlier in range(k):
            ax = matches[0, best[k]] - matches[0, best[earlier]]
            ay = matches[1, best[k]] - matches[1, best[earlier]]
            bx = matches[2, best[k]] - matches[2, best[earlier]]
            by = matches[3, best[k]] - matches[3, best[earlier]]
            if ax * ax + ay * ay < _SAME_PLACE and bx * bx + by * by < _SAME_PLACE:
                is_new = False
                break
        n_places += is_new
    return n_places


@kernel
def _count_expected(
    places: "F64",
    spots: U8,
    n_points: int,
    side: int,
    n: int,
    fit: "F64",
    sizes: "F64",
    is_stretched: bool,
    shift: int,
    sides: I64,
) -> int:
    """Return how many places with points of one side lie where the other image could have points.

    spots (4, 64) uint8: x and y of the points of both sides, not turned; shift: levels by which points are higher on
    the other side; sides (2, 2) int64: widths and heights of both bases. Comparisons are with exact numbers, so that a
    turn of both images and the swapped pair have the same result.
    """
    other = 1 - side
    first, second = fit[4 + 2 * side], fit[5 + 2 * side]
    xx, xy, yx, yy = (first, 0.0, 0.0, second) if is_stretched else (first, -second, second, first)
    centre_x, centre_y, to_x, to_y = fit[2 * side], fit[2 * side + 1], fit[2 * other], fit[2 * other + 1]
    width, height = float(n * sides[other, 0]), float(n * sides[other, 1])
    inside = uint64(0)
    for block in range((n_points + MATCH_LANES - 1) // MATCH_LANES):
        at = uint64(block * MATCH_LANES)
        bits = uint64(0)
        for lane in range(MATCH_LANES):
            point = at + uint64(lane)
            level = places[side, 2, point] + shift
            margin = n * (_HALF_PATCHES[uint64(min(max(level, 0.0), float(MAX_LEVELS)))] - _SLACK)
            from_x, from_y = n * places[side, 0, point] - centre_x, n * places[side, 1, point] - centre_y
            x, y = xx * from_x + xy * from_y, yx * from_x + yy * from_y
            is_inside = (margin - to_x <= x) & (x <= width - margin - to_x)
            is_inside &= (margin - to_y <= y) & (y <= height - margin - to_y)
            bits |= uint64(is_inside & (level >= 0) & (level <= MAX_LEVELS)) << uint64(lane)
        inside |= bits << at
    if n_points < MAX_POINTS:
        inside &= (uint64(1) << uint64(n_points)) - uint64(1)
    # Squared distances are whole numbers.
    limit = np.uint8(math.ceil(_SAME_PLACE * sizes[side] / max(sizes[0], sizes[1])) - 1)
    n_places = 0
    earlier = uint64(0)
    while inside:
        bit = inside & (~inside + uint64(1))
        inside ^= bit
        point = int64(popcount(bit - uint64(1)))
        close = close_places(spots, 2 * side, spots[2 * side, point], spots[2 * side + 1, point], limit)
        n_places += (close & earlier) == uint64(0)
        earlier |= bit
    return n_places


@kernel
def _weigh(n_places: int, n_expected: int) -> int:
    """Return the votes: the number of agreeing places, as it would be if 40 places could agree, rounded down.

    Of pairs of images that show different things and of which e places could agree, those with n places that do are as
    rare as others with the same n**3 / e.
    """
    n_expected = max(n_expected, n_places, _FEWEST_PLACES)
    votes = 0
    while (votes + 1) ** 3 * n_expected <= _USUAL_PLACES * n_places**3:
        votes += 1
    return votes


@kernel
def _span(places: "F64", numbers: U64, best: I64, n: int, side: int, sides: I64) -> float:
    """Return the share of a base image that the box around the patches of the agreeing points takes."""
    share = 1.0
    for axis in range(2):
        whole = float(max(sides[side, axis], 1))
        low, high = whole, 0.0
        for k in range(n):
            point = numbers[best[k], side]
            half = _HALF_PATCHES[min(int64(places[side, 2, point]), MAX_LEVELS)]
            low = min(low, places[side, axis, point] - half)
            high = max(high, places[side, axis, point] + half)
        share *= (min(high, whole) - max(low, 0.0)) / whole
    return share
