"""The placement of one image in another with which most of their matches agree.

A placement is a similarity (scale, shift, a small rotation), or a scale for each axis and a shift. It comes from two
matches, whose points differ by a on the left and by b on the right: as complex numbers, a point that lies u from the
first one should lie b / a * u from it on the right, and v agrees if ``|b * u - a * v|`` is small. Places are whole
numbers, so that this is exact in float64.

Most placements are not compared with all matches: they cannot have more of them than the best one so far.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import int64, popcount, uint64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

MAX_MATCHES: Final = 200
MATCH_LANES: Final = 16  # matches that are compared at once
MATCH_WORDS: Final = -(-MAX_MATCHES // 64)
MAX_SEEDS: Final = 40  # matches whose pairs give placements, the nearest first
# If so many matches agree, two of them give no other placement.
_MANY: Final = 12
_MIN_SPREAD: Final = 144.0  # between the two points of a placement, pixels, squared
_MIN_STEP: Final = 8.0  # between them along each axis, for a scale of its own
_TOLERANCE: Final = 9.0  # pixels of the image in which the copy is larger, squared
_MIN_COSINE: Final = 0.9609375  # of the rotation, squared: 11.4 degrees
_MAX_ASPECT: Final = 1.625  # between the scales of both axes
_MAX_RATIO: Final = 5.75  # of the scale, squared: 2.4
MAX_LEVELS: Final = 6
# MAX_RATIOS[d + 6] bounds the squared scale for matches whose right point is d levels above the left one: a level is a
# factor of 2 ** (1 / 4), and levels differ from the scale by at most 1. Multiples of 1 / 1024, so that products with
# squared lengths are exact.
_MAX_RATIOS: Final = np.array([round(1024 * 2 ** ((d + 1) / 2)) / 1024 for d in range(-MAX_LEVELS, MAX_LEVELS + 1)])


@kernel
def find_placement(
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
    for a in range(min(n, MAX_SEEDS)):
        _find_possible(matches, n, a, possible[a])
        seconds = possible[a, 0] & ((one << uint64(a)) - one)
        while seconds:
            b = int64(popcount((seconds & (~seconds + one)) - one))
            seconds &= seconds - one
            if n_best >= _MANY and in_best >> uint64(a) & in_best >> uint64(b) & one:
                continue
            n_possible = 0
            for word in range(MATCH_WORDS):
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
                        if agreeing[k] < MAX_SEEDS:
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
    for block in range((n + MATCH_LANES - 1) // MATCH_LANES):
        at = uint64(block * MATCH_LANES)
        bits = uint64(0)
        for lane in range(MATCH_LANES):
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
    for block in range((n + MATCH_LANES - 1) // MATCH_LANES):
        at = uint64(block * MATCH_LANES)
        bits = uint64(0)
        for lane in range(MATCH_LANES):
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
    low = -MAX_LEVELS
    while low < MAX_LEVELS and right_size > _MAX_RATIOS[low + MAX_LEVELS] * left_size:
        low += 1
    high = MAX_LEVELS
    while high > -MAX_LEVELS and left_size > _MAX_RATIOS[MAX_LEVELS - high] * right_size:
        high -= 1
    return low, high
