"""Borders of an image: bars and frames of one tone that end at a straight edge, such as letterbox bars.

The white ground of a product is not a border: it does not end at a straight edge.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_inner: Final = kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
_BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)

_PASSES: Final = 2  # a second one finds bars inside a frame
_MAX_DEVIATION: Final = 3  # mean absolute deviation of a line from its median
_MAX_DRIFT: Final = 8  # of the median of a line from that of the outermost line
_EDGE_STEP: Final = 16  # at the edge, more than this from the tone of the border
_EDGE_LINES: Final = 3  # in which the edge must come, or 1 % of the side


@_inner
def _count_greys(pixels: Array, n_channels: int, start: int, along: int, length: int, counts: Array) -> None:
    """Count the grey values of a line in counts[256]."""
    counts[:] = 0
    for i in range(length):
        at = start + i * along
        if n_channels == 1:
            counts[pixels[at]] += 1
        else:
            red, green, blue = np.uint32(pixels[at]), np.uint32(pixels[at + 1]), np.uint32(pixels[at + 2])
            counts[(19595 * red + 38470 * green + 7471 * blue + 32768) >> np.uint32(16)] += 1


@_inner
def _median(counts: Array, n: int) -> int:
    """Return the lower median of n values, given how often each occurs."""
    below = 0
    for value in range(256):
        below += counts[value]
        if 2 * below >= n:
            return value
    return 255


@_inner
def _depth(
    pixels: Array, n_channels: int, start: int, step: int, along: int, n_lines: int, length: int, counts: Array
) -> int:
    """Return how many lines the border has that begins at byte `start`, 0 if there is none.

    `step` bytes lead from one line to the next, `along` from one pixel of a line to the next.
    """
    tone, depth = 0, 0
    while depth < n_lines:
        _count_greys(pixels, n_channels, start + depth * step, along, length, counts)
        median = _median(counts, length)
        if depth == 0:
            tone = median
        deviation = 0
        for value in range(256):
            deviation += counts[value] * abs(value - median)
        if abs(median - tone) > _MAX_DRIFT or deviation > _MAX_DEVIATION * length:
            break
        depth += 1
        if 100 * depth >= 45 * n_lines:
            return 0
    if depth == 0 or 50 * depth < n_lines:
        return 0
    for at in range(depth, min(n_lines - 1, depth + max(_EDGE_LINES, n_lines // 100))):
        _count_greys(pixels, n_channels, start + at * step, along, length, counts)
        n_other = 0
        for value in range(256):
            if abs(value - tone) > _EDGE_STEP:
                n_other += counts[value]
        if 2 * n_other >= length:
            return at + 1
    return 0


@kernel(signatures=[types.UniTuple(types.intp, 4)(_BYTES, *(types.intp,) * 3)], error_model="numpy")
def _find(pixels: Array, height: int, width: int, n_channels: int) -> tuple[int, int, int, int]:
    top, left, bottom, right = 0, 0, height, width
    counts = np.empty(256, np.int64)
    for _ in range(_PASSES):
        # Steps in bytes from one line to the next, and along a line.
        row, column = width * n_channels, n_channels
        origin = top * row + left * column
        beyond = (bottom - 1) * row + (right - 1) * column
        n_rows, n_columns = bottom - top, right - left
        first = _depth(pixels, n_channels, origin, row, column, n_rows, n_columns, counts)
        last = _depth(pixels, n_channels, beyond, -row, -column, n_rows, n_columns, counts)
        before = _depth(pixels, n_channels, origin, column, row, n_columns, n_rows, counts)
        after = _depth(pixels, n_channels, beyond, -column, -row, n_columns, n_rows, counts)
        if not (first or last or before or after):
            break
        # Both borders of a side are less than it only where they do not meet.
        if top + first < bottom - last:
            top, bottom = top + first, bottom - last
        if left + before < right - after:
            left, right = left + before, right - after
    return top, bottom, left, right


def find_borders(pixels: Array) -> tuple[int, int, int, int]:
    """Return the rows and columns inside borders: the first row, the one after the last, and the same of columns.

    Parameters
    ----------
    pixels
        uint8 (h, w) grey or (h, w, 4) RGBX, C-contiguous.

    Notes
    -----
    A line is uniform if the mean absolute deviation from its median is at most 3, and its median is within 8 of that of
    the outermost line. A border is at least 2 % and less than 45 % of the side in uniform lines, followed within 1 % of
    the side (3 lines at least) by a line of which half differs from the median of the outermost line by more than 16;
    that line is of the border too. All four sides are found in one box and then trimmed, twice. So the borders of a
    turned image are the turned borders. Grey is (19595 R + 38470 G + 7471 B + 32768) >> 16; the median of an even
    number of values is the lower one.
    """
    n_channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    top, bottom, left, right = _find(pixels.reshape(-1), pixels.shape[0], pixels.shape[1], n_channels)
    return top, bottom, left, right
