"""The corners of a small grey image and the hashes of the patches around them, in integers.

A corner is a vertex between four pixels, so that windows and patches of an even side are centred on it, and those of
the turned image are the turned ones.
"""

import math
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df.hashes.kernels.local_resize import resize_part

Array = np.ndarray[Any, Any]

N_POINTS: Final = 64
N_RECORD_BYTES: Final = 11
_N_LEVELS: Final = 7
# Most points of each level and the smaller ones: 14, 12, 10, 9, 8, 6, 5 a level, and what smaller levels left over.
_QUOTAS: Final = np.array((64, 50, 38, 28, 19, 11, 5))
_SCALES: Final = np.array((65536, 55109, 46341, 38968, 32768, 27554, 23170))  # 2**(-level / 4), in 1/65536
_HALF_PATCH: Final = 20
_CELL: Final = 5
_HALF_WINDOW: Final = 4  # of the structure tensor
_REACH: Final = 4  # a corner has the highest response within so many vertices
_MIN_RESPONSE: Final = 522
_GRID: Final = 6
_N_CELLS: Final = _GRID * _GRID
# The cosine matrix of H.265: each row but the first one sums to 0.
_COSINES: Final = np.array(
    [
        [64, 64, 64, 64, 64, 64, 64, 64],
        [89, 75, 50, 18, -18, -50, -75, -89],
        [83, 36, -36, -83, -83, -36, 36, 83],
        [75, -18, -89, -50, 50, 89, 18, -75],
        [64, -64, -64, 64, 64, -64, -64, 64],
        [50, -89, 18, 75, -75, -18, 89, -50],
        [36, -83, 83, -36, -36, 83, -83, 36],
        [18, -50, 75, -89, 89, -75, 50, -18],
    ],
    np.int32,
)
_TURNED_COSINES: Final = np.ascontiguousarray(_COSINES.T)

_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")


@_inner
def _smooth(grey: Array, out: Array) -> None:
    """Smooth by 1-2-1 along both axes, the pixels at the edges repeated: uint8[h, w] both."""
    height, width = grey.shape
    sums = np.empty(width + 2, np.int16)
    for y in range(height):
        above, here, below = grey[max(y - 1, 0)], grey[y], grey[min(y + 1, height - 1)]
        for x in range(width):
            sums[x + 1] = np.int16(above[x]) + np.int16(2) * np.int16(here[x]) + np.int16(below[x])
        sums[0], sums[width + 1] = sums[1], sums[width]
        target = out[y]
        for x in range(width):
            target[x] = np.uint8((sums[x] + np.int16(2) * sums[x + 1] + sums[x + 2] + np.int16(8)) >> np.int16(4))


@_inner
def _respond(grey: Array, out: Array) -> None:
    """Write twice the smaller eigenvalue of the structure tensor at each vertex 16 pixels or more from the edge.

    grey uint8[h, w]; out int32[h - 31, w - 31], vertex (16, 16) first.
    """
    height, width = grey.shape
    n_columns = out.shape[1]
    edge = _HALF_PATCH - _REACH - _HALF_WINDOW  # the first pixel that a window covers
    n = width - 2 * edge
    side = 2 * _HALF_WINDOW
    products = np.empty((side, 3, n), np.int32)
    sums = np.zeros((3, n), np.int32)
    twos, fours = np.empty(n, np.int32), np.empty(n, np.int32)
    eights = np.empty((3, n), np.int32)
    for y in range(edge, height - edge):
        slot = (y - edge) % side
        is_full = y - edge >= side
        above, here, below = grey[y - 1], grey[y], grey[y + 1]
        xx, yy, xy = products[slot, 0], products[slot, 1], products[slot, 2]
        if is_full:
            for c in range(3):
                for i in range(n):
                    sums[c, i] -= products[slot, c, i]
        for i in range(n):
            x = edge + i
            right = np.int32(here[x + 1]) - np.int32(here[x - 1])
            down = np.int32(below[x]) - np.int32(above[x])
            xx[i] = right * right
            yy[i] = down * down
            xy[i] = right * down
        for c in range(3):
            for i in range(n):
                sums[c, i] += products[slot, c, i]
        row = y - edge - side + 1
        if row < 0:
            continue
        for c in range(3):
            for i in range(n - 1):
                twos[i] = sums[c, i] + sums[c, i + 1]
            for i in range(n - 3):
                fours[i] = twos[i] + twos[i + 2]
            for i in range(n - 7):
                eights[c, i] = fours[i] + fours[i + 4]
        target = out[row]
        for i in range(n_columns):
            trace = eights[0, i] + eights[1, i]
            across = np.float64(np.int32(eights[0, i] - eights[1, i]))
            mixed = np.float64(np.int32(2 * eights[2, i]))
            # Below 2**53, so exact; the root is rounded correctly, so cutting it gives the whole root.
            target[i] = trace - np.int32(math.sqrt(across * across + mixed * mixed))


@_inner
def _off_centre(y: int, x: int, height: int, width: int) -> int:
    dy, dx = 2 * y - height, 2 * x - width
    return dy * dy + dx * dx


@_inner
def _is_before(y: int, x: int, other_y: int, other_x: int, height: int, width: int) -> bool:
    """Return whether a vertex comes before another one of equal response: nearer to the centre, then by rows."""
    here, there = _off_centre(y, x, height, width), _off_centre(other_y, other_x, height, width)
    return here < there or (here == there and (y < other_y or (y == other_y and x < other_x)))


@_inner
def _find_maxima(responses: Array, height: int, width: int, found: Array) -> int:
    """Write the corners, y, x and response, in the order of rows, and return how many."""
    n_rows, n_columns = responses.shape
    edge = _HALF_PATCH - _REACH
    n = 0
    n_inside = n_columns - 2 * _REACH
    lowest = np.int32(_MIN_RESPONSE + 1)
    highest = np.empty(n_inside, np.int32)
    is_peak = np.empty(n_inside, np.bool_)
    for i in range(_REACH, n_rows - _REACH):
        # First along the columns, in vectors. Slices, because numba tests an index such as j - 1 for below 0.
        here = responses[i, _REACH:]
        for j in range(n_inside):
            highest[j] = max(here[j], lowest)
        for k in range(1, _REACH + 1):
            above, below = responses[i - k, _REACH:], responses[i + k, _REACH:]
            for j in range(n_inside):
                highest[j] = max(highest[j], above[j], below[j])
        left, right = responses[i, _REACH - 1 :], responses[i, _REACH + 1 :]
        for j in range(n_inside):
            is_peak[j] = here[j] >= max(highest[j], left[j], right[j])
        for j in range(_REACH, n_columns - _REACH):
            if not is_peak[j - _REACH]:
                continue
            value = responses[i, j]
            y, x = edge + i, edge + j
            is_highest = True
            for k in range(i - _REACH, i + _REACH + 1):
                for m in range(j - _REACH, j + _REACH + 1):
                    other = responses[k, m]
                    if other > value or (
                        other == value and (k != i or m != j) and _is_before(edge + k, edge + m, y, x, height, width)
                    ):
                        is_highest = False
                        break
                if not is_highest:
                    break
            if is_highest:
                found[n, 0], found[n, 1], found[n, 2] = y, x, value
                n += 1
    return n


@_inner
def _sort(found: Array, n: int, height: int, width: int) -> None:
    """Sort corners by response, highest first; equal ones as `_is_before`."""
    for i in range(1, n):
        y, x, value = found[i, 0], found[i, 1], found[i, 2]
        j = i
        while j > 0 and (
            found[j - 1, 2] < value
            or (found[j - 1, 2] == value and _is_before(y, x, found[j - 1, 0], found[j - 1, 1], height, width))
        ):
            found[j, 0], found[j, 1], found[j, 2] = found[j - 1, 0], found[j - 1, 1], found[j - 1, 2]
            j -= 1
        found[j, 0], found[j, 1], found[j, 2] = y, x, value


@_inner
def _hash_patch(grey: Array, y: int, x: int, sums: Array, cells: Array, half: Array) -> Any:
    """Return the signs of the cosine coefficients of 8 x 8 cells around a vertex, bit 8 * k + m for (k, m)."""
    left, right = x - _HALF_PATCH, x + _HALF_PATCH
    for i in range(8):
        top = y - _HALF_PATCH + _CELL * i
        a, b, c = grey[top, left:right], grey[top + 1, left:right], grey[top + 2, left:right]
        d, e = grey[top + 3, left:right], grey[top + 4, left:right]
        for j in range(2 * _HALF_PATCH):
            sums[j] = np.int32(a[j]) + np.int32(b[j]) + np.int32(c[j]) + np.int32(d[j]) + np.int32(e[j])
        for j in range(8):
            k = _CELL * j
            cells[i, j] = sums[k] + sums[k + 1] + sums[k + 2] + sums[k + 3] + sums[k + 4]
    for k in range(8):
        for j in range(8):
            value = np.int32(0)
            for i in range(8):
                value += _COSINES[k, i] * cells[i, j]
            half[k, j] = value
    bits = np.uint64(0)
    for k in range(8):
        row = cells[k]
        row[:] = 0
        for j in range(8):
            for m in range(8):
                row[m] += half[k, j] * _TURNED_COSINES[j, m]
        for m in range(8):
            bits |= np.uint64(row[m] > 0) << np.uint64(8 * k + m)
    return bits & ~np.uint64(1)  # the sum of the patch says nothing


@kernel(signatures=["void(uint8[:, ::1], uint8[::1])"], error_model="numpy")
def write_points(base: Array, out: Array) -> None:
    """Write the points of a base image and its sizes: base uint8[h, w]; out uint8[715], its first 8 bytes left."""
    base_height, base_width = base.shape
    out[N_RECORD_BYTES:] = 0
    n_points = 0
    sums = np.empty(2 * _HALF_PATCH, np.int32)
    cells, half = np.empty((8, 8), np.int32), np.empty((8, 8), np.int32)
    for level in range(_N_LEVELS - 1, -1, -1):
        height = (base_height * _SCALES[level] + 32768) >> 16
        width = (base_width * _SCALES[level] + 32768) >> 16
        if min(height, width) < 2 * _HALF_PATCH:
            continue
        grey = np.empty((height, width), np.uint8)
        resize_part(base, 0, 0, base_height, base_width, grey)
        smooth = np.empty((height, width), np.uint8)
        _smooth(grey, smooth)
        margin = 2 * (_HALF_PATCH - _REACH) - 1
        responses = np.empty((height - margin, width - margin), np.int32)
        _respond(smooth, responses)
        found = np.empty(((height // 5 + 1) * (width // 5 + 1) + 1, 3), np.int32)
        n = _find_maxima(responses, height, width, found)
        _sort(found, n, height, width)
        in_cell = np.zeros(_N_CELLS, np.int32)
        ranks = np.empty(n, np.int32)
        for i in range(n):
            cell = _GRID * (found[i, 0] * _GRID // height) + found[i, 1] * _GRID // width
            ranks[i] = in_cell[cell]
            in_cell[cell] += 1
        stop = _QUOTAS[level]
        n_left = n
        rank = 0
        while n_left and n_points < stop:
            for i in range(n):
                if ranks[i] != rank or n_points == stop:
                    continue
                n_left -= 1
                y, x = found[i, 0], found[i, 1]
                bits = _hash_patch(smooth, y, x, sums, cells, half)
                n_points += 1
                start = N_RECORD_BYTES * n_points
                for byte in range(8):
                    out[start + byte] = np.uint8((bits >> np.uint64(56 - 8 * byte)) & np.uint64(255))
                out[start + 8] = (2 * x * base_width + width) // (2 * width)
                out[start + 9] = (2 * y * base_height + height) // (2 * height)
                out[start + 10] = level
            rank += 1
    out[8], out[9], out[10] = base_width, base_height, n_points
