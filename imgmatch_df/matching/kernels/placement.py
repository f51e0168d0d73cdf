"""Verification of pairs of images: votes of points of both for one placement of one image in the other.

A placement is a similarity (scale, shift, a small rotation), or a scale for each axis and a shift. It comes from two
matches, whose points differ by a on the left and by b on the right: as complex numbers, a point that lies u from the
first one should lie b / a * u from it on the right, and v agrees if ``|b * u - a * v|`` is small. Places are whole
numbers, so that this is exact in float64. Votes are the same on every processor, and for the swapped pair.
docs/how-it-works/local-matching.md has the definition, and what its constants were compared with.
"""

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U8, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import LANES, STRETCH, close_places, int64, near_stretch, popcount, uint64
from imgmatch_df.matching.kernels.turned_points import TURN_STEPS, turn_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.matching.points import Points

    F64 = NDArray[np.float64]

MAX_POINTS: Final = STRETCH
"""Maximum number of points of an image."""
MATCH_RADIUS: Final = 12  # bits
_MAX_MATCHES: Final = 200
_LANES: Final = 16  # matches that are compared at once
_MATCH_WORDS: Final = -(-_MAX_MATCHES // 64)
_MAX_SEEDS: Final = 40  # matches whose pairs give placements, the nearest first
# If so many matches agree, two of them give no other placement. A whole copy takes 15 us, and would take 570.
_MANY: Final = 12
_MIN_SPREAD: Final = 144.0  # between the two points of a placement, pixels, squared
_MIN_STEP: Final = 8.0  # between them along each axis, for a scale of its own
_TOLERANCE: Final = 9.0  # pixels of the image in which the copy is larger, squared
_MIN_COSINE: Final = 0.9609375  # of the rotation, squared: 11.4 degrees
_MAX_ASPECT: Final = 1.625  # between the scales of both axes
_MAX_RATIO: Final = 5.75  # of the scale, squared: 2.4
_MAX_LEVELS: Final = 6
# MAX_RATIOS[d + 6] bounds the squared scale for matches whose right point is d levels above the left one: a level is a
# factor of 2 ** (1 / 4), and levels differ from the scale by at most 1. Multiples of 1 / 1024, so that products with
# squared lengths are exact.
_MAX_RATIOS: Final = np.array([round(1024 * 2 ** ((d + 1) / 2)) / 1024 for d in range(-_MAX_LEVELS, _MAX_LEVELS + 1)])
# The squared scale from which on points are expected 1, 2, ... levels higher.
_LEVEL_RATIOS: Final = np.array([round(1024 * 2 ** ((d - 0.5) / 2)) / 1024 for d in range(1, _MAX_LEVELS + 2)])
_SAME_PLACE: Final = 64.0  # pixels, squared: matches that lie nearer in both images are one
# Points are found where their patch fits into the image, in whole pixels of their level.
_HALF_PATCHES: Final = np.array([round(16 * 20 * 2 ** (level / 4)) / 16 for level in range(_MAX_LEVELS + 1)])
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
    scale x, scale y, shift x, shift y in base pixels; coverage (n,) float64. Pairs with fewer than `min_votes` votes, at
    least 1, have zeros.
    """
    fewest = 2  # matches that can have so many votes
    while fewest < MAX_POINTS and _weigh(fewest, 0) < min_votes:
        fewest += 1
    words = np.zeros((2, MAX_POINTS + LANES), np.uint64)
    places = np.zeros((2, 3, MAX_POINTS), np.float64)
    found = np.empty((MAX_POINTS * MAX_POINTS, 3), np.uint8)
    starts = np.empty(MATCH_RADIUS + 2, np.int64)
    matches = np.zeros((5, 64 * _MATCH_WORDS), np.float64)
    possible = np.empty((_MAX_SEEDS, _MATCH_WORDS), np.uint64)
    near = np.empty(_MATCH_WORDS, np.uint64)
    numbers = np.empty((_MAX_MATCHES, 2), np.uint64)
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
        n_agreeing, is_stretched = _find_placement(
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
        matches[0, at], matches[1, at] = places[0, 0, i], places[0, 1, i]
        matches[2, at], matches[3, at] = places[1, 0, j], places[1, 1, j]
        matches[4, at] = places[1, 2, j] - places[0, 2, i]
        numbers[at, 0], numbers[at, 1] = uint64(i), uint64(j)
    return min(n_found, _MAX_MATCHES)


@kernel
def _find_placement(
    matches: "F64",
    numbers: U64,
    n: int,
    fewest: int,
    form: "F64",
    possible: U64,
    near: U64,
    agreeing: I64,
    best: I64,
) -> tuple[int, bool]:
    """Write the matches that agree with the best placement, and return their number and whether it has two scales.

    The best placement is that with which most matches agree, the first of several. Two matches that agree with a
    placement of `_MANY` matches are not tried. If fewer than `fewest` matches agree with each placement, the number is
    less than that, and not exact. best (64,) int64. form (11,) float64, possible (40, 4) and near (4,) uint64, and
    agreeing (64,) int64 are work buffers.
    """
    one = uint64(1)
    n_most = _count_distinct(numbers, n)
    if n_most < fewest:
        return 0, False
    # Placements with fewer matches are of no use, unless they decide which placements are not tried.
    n_least = min(fewest, _MANY) - 1
    n_best, is_stretched, in_best = 0, False, uint64(0)
    for a in range(min(n, _MAX_SEEDS)):
        _find_possible(matches, n, a, possible[a])
        seconds = possible[a, 0] & ((one << uint64(a)) - one)
        while seconds:
            b = int64(popcount((seconds & (~seconds + one)) - one))
            seconds &= seconds - one
            if n_best >= _MANY and in_best >> uint64(a) & in_best >> uint64(b) & one:
                continue
            n_possible = 0
            for word in range(_MATCH_WORDS):
                n_possible += int64(popcount(possible[a, word] & possible[b, word]))
            if n_possible <= max(n_best, n_least):
                continue
            for has_two_scales in (False, True):
                ax, ay = matches[0, b] - matches[0, a], matches[1, b] - matches[1, a]
                bx, by = matches[2, b] - matches[2, a], matches[3, b] - matches[3, a]
                if has_two_scales:
                    if not _set_scales(ax, ay, bx, by, form):
                        continue
                    low, high = _allowed_levels(abs(ax * ay), abs(bx * by))
                else:
                    if not _set_similarity(ax, ay, bx, by, form):
                        continue
                    low, high = _allowed_levels(ax * ax + ay * ay, bx * bx + by * by)
                if not low <= min(matches[4, a], matches[4, b]) <= max(matches[4, a], matches[4, b]) <= high:
                    continue
                if _find_near(matches, n, a, form, low, high, near) <= max(n_best, n_least):
                    continue
                n_agreeing = _find_agreeing(near, numbers, agreeing)
                if n_agreeing > n_best:
                    n_best, is_stretched = n_agreeing, has_two_scales
                    in_best = uint64(0)
                    for k in range(n_best):
                        best[k] = agreeing[k]
                        if agreeing[k] < _MAX_SEEDS:
                            in_best |= one << uint64(agreeing[k])
                    if n_best == n_most:
                        return n_best, is_stretched
    return n_best, is_stretched


@kernel(inline="always")
def _count_distinct(numbers: U64, n: int) -> int:
    """Return the maximum number of matches of which no two have a point in common, or more."""
    lefts = rights = uint64(0)
    for k in range(n):
        lefts |= uint64(1) << numbers[k, 0]
        rights |= uint64(1) << numbers[k, 1]
    return min(int64(popcount(lefts)), int64(popcount(rights)))


@kernel
def _find_possible(matches: "F64", n: int, a: int, possible: U64) -> None:
    """Write the matches that may agree with some placement with which match `a` agrees: bits of possible (4,) uint64.

    Two matches that agree with a placement, whose points differ by u on the left and by v on the right, are at most
    2 levels apart. The placement changes lengths by at most 3.06, angles by at most 13.8 degrees (two scales; a
    similarity less), and what remains is at most 3 pixels where the copy is larger, for two scales along each axis. So
    ``|v| <= 3.06 * (|u| + 3)``, the same for u, and ``|u x v| <= 0.2381 * |u| * |v| + 4.25 * max(|u|, |v|)`` unless one
    of them is shorter than 4.5. Here, squares are compared, with ``(p + q)**2 <= 1.5 * p**2 + 3 * q**2``.
    """
    x, y, z, w, level = matches[0, a], matches[1, a], matches[2, a], matches[3, a], matches[4, a]
    possible[:] = 0
    for block in range((n + _LANES - 1) // _LANES):
        at = uint64(block * _LANES)
        bits = uint64(0)
        for lane in range(_LANES):
            k = at + uint64(lane)
            ux, uy, vx, vy = matches[0, k] - x, matches[1, k] - y, matches[2, k] - z, matches[3, k] - w
            left_size, right_size = ux * ux + uy * uy, vx * vx + vy * vy
            across = ux * vy - uy * vx
            limit = 0.086 * left_size * right_size + 54.2 * max(left_size, right_size)
            is_along = (across * across <= limit) & (ux * vx + uy * vy >= 0)
            is_possible = (
                (abs(matches[4, k] - level) <= 2)
                & (right_size <= 14.1 * left_size + 253.0)
                & (left_size <= 14.1 * right_size + 253.0)
                & (is_along | (min(left_size, right_size) < 20.25))
            )
            bits |= uint64(is_possible) << uint64(lane)
        possible[at >> uint64(6)] |= bits << (at & uint64(63))
    _keep_first(possible, n)


@kernel(inline="always")
def _keep_first(bits: U64, n: int) -> int:
    """Clear the bits of the words from bit n on, and return the number of those that are left."""
    n_bits = 0
    for word in range(bits.size):
        size = min(max(n - 64 * word, 0), 64)
        bits[word] &= uint64(0xFFFFFFFFFFFFFFFF) >> uint64(64 - size) if size else uint64(0)
        n_bits += int64(popcount(bits[word]))
    return n_bits


@kernel(inline="always")
def _set_similarity(ax: float, ay: float, bx: float, by: float, form: "F64") -> bool:
    """Write how far a match is off a similarity, as `_find_agreeing` reads it; return whether it is allowed."""
    left_size, right_size = ax * ax + ay * ay, bx * bx + by * by
    along = ax * bx + ay * by
    if (
        min(left_size, right_size) < _MIN_SPREAD
        or right_size > _MAX_RATIO * left_size
        or left_size > _MAX_RATIO * right_size
        or along <= 0
        or along * along < _MIN_COSINE * (left_size * right_size)
    ):
        return False
    form[0], form[1], form[2], form[3] = bx, -by, -ax, ay
    form[4], form[5], form[6], form[7] = by, bx, -ay, -ax
    form[8] = form[9] = 1.0
    form[10] = _TOLERANCE * max(left_size, right_size)
    return True


@kernel(inline="always")
def _set_scales(ax: float, ay: float, bx: float, by: float, form: "F64") -> bool:
    """Write how far a match is off a scale for each axis; return whether these are allowed."""
    left_size, right_size = abs(ax * ay), abs(bx * by)
    if (
        ax * bx <= 0
        or ay * by <= 0
        or min(abs(ax), abs(ay), abs(bx), abs(by)) < _MIN_STEP
        or right_size > _MAX_RATIO * left_size
        or left_size > _MAX_RATIO * right_size
        or abs(bx * ay) > _MAX_ASPECT * abs(by * ax)
        or abs(by * ax) > _MAX_ASPECT * abs(bx * ay)
    ):
        return False
    form[0], form[1], form[2], form[3] = bx, 0.0, -ax, 0.0
    form[4], form[5], form[6], form[7] = 0.0, by, 0.0, -ay
    form[8], form[9] = max(ay * ay, by * by), max(ax * ax, bx * bx)
    form[10] = _TOLERANCE * (form[8] * form[9])
    return True


@kernel
def _find_near(matches: "F64", n: int, seed: int, form: "F64", low: float, high: float, near: U64) -> int:
    """Write the matches that lie near a placement and whose levels fit, bits of near (4,) uint64; return their number.

    form (11,) float64: two linear forms of how a match differs from the seed in x and y on the left, x and y on the
    right; the weights of their squares; the limit of the weighted sum.
    """
    ax, ay, bx, by = form[0], form[1], form[2], form[3]
    cx, cy, dx, dy = form[4], form[5], form[6], form[7]
    x_weight, y_weight, limit = form[8], form[9], form[10]
    x, y, z, w = matches[0, seed], matches[1, seed], matches[2, seed], matches[3, seed]
    near[:] = 0
    for block in range((n + _LANES - 1) // _LANES):
        at = uint64(block * _LANES)
        bits = uint64(0)
        for lane in range(_LANES):
            k = at + uint64(lane)
            ux, uy, vx, vy = matches[0, k] - x, matches[1, k] - y, matches[2, k] - z, matches[3, k] - w
            off_x = (ax * ux + ay * uy) + (bx * vx + by * vy)
            off_y = (cx * ux + cy * uy) + (dx * vx + dy * vy)
            is_near = off_x * off_x * x_weight + off_y * off_y * y_weight <= limit
            bits |= uint64(is_near & (matches[4, k] >= low) & (matches[4, k] <= high)) << uint64(lane)
        near[at >> uint64(6)] |= bits << (at & uint64(63))
    return _keep_first(near, n)


@kernel(inline="always")
def _find_agreeing(near: U64, numbers: U64, agreeing: I64) -> int:
    """Write the matches that agree, the first one of each point, and return their number."""
    one = uint64(1)
    used_left = used_right = uint64(0)
    n_agreeing = 0
    for word in range(near.size):
        bits = near[word]
        while bits:
            k = 64 * word + int64(popcount((bits & (~bits + one)) - one))
            bits &= bits - one
            in_left, in_right = one << numbers[k, 0], one << numbers[k, 1]
            if used_left & in_left or used_right & in_right:
                continue
            used_left |= in_left
            used_right |= in_right
            agreeing[n_agreeing] = k
            n_agreeing += 1
    return n_agreeing


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
    for block in range((n_points + _LANES - 1) // _LANES):
        at = uint64(block * _LANES)
        bits = uint64(0)
        for lane in range(_LANES):
            point = at + uint64(lane)
            level = places[side, 2, point] + shift
            margin = n * (_HALF_PATCHES[uint64(min(max(level, 0.0), float(_MAX_LEVELS)))] - _SLACK)
            from_x, from_y = n * places[side, 0, point] - centre_x, n * places[side, 1, point] - centre_y
            x, y = xx * from_x + xy * from_y, yx * from_x + yy * from_y
            is_inside = (margin - to_x <= x) & (x <= width - margin - to_x)
            is_inside &= (margin - to_y <= y) & (y <= height - margin - to_y)
            bits |= uint64(is_inside & (level >= 0) & (level <= _MAX_LEVELS)) << uint64(lane)
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
            half = _HALF_PATCHES[min(int64(places[side, 2, point]), _MAX_LEVELS)]
            low = min(low, places[side, axis, point] - half)
            high = max(high, places[side, axis, point] + half)
        share *= (min(high, whole) - max(low, 0.0)) / whole
    return share
