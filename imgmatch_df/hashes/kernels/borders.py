"""The inside of an image without its uniform borders, such as letterbox bars and frames.

A border is a run of lines from one side inwards that are uniform and of one tone. It is trimmed only where it ends at
a straight edge, so that the white background of a product stays. All four sides are searched at once, with the same
rule, and again inside of what was trimmed: a frame is often as wide as the image on two of its sides only.

A line is described by the histogram of its luma, without the order of its pixels. So the inside of the turned image is
the turned inside, for all eight turns. An image without borders costs the reading of four lines.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_LUMA: Final = (19595, 38470, 7471)  # of R, G and B, as Pillow's convert("L"); they sum to 2**16
_HALF: Final = 1 << 15
_MAX_DEVIATION: Final = 3  # mean deviation of a uniform line from its median, inclusive
_MAX_STEP: Final = 8  # from the median of the outermost line to that of another line of the border, inclusive
_EDGE_STEP: Final = 16  # a pixel beyond the edge differs by more from the median of the outermost line
_MIN_EDGE_LINES: Final = 8  # read in search of the edge, 1 % of the side if that is more: JPEG blurs blocks of 8
_MIN_SIDE: Final = 16  # smaller images have no borders, and the inside is not smaller
_TOP, _BOTTOM, _LEFT, _RIGHT = range(4)

_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")


@_inner
def _count_levels(pixels: Array, box: Array, side: int, distance: int, counts: Array) -> None:
    """Count the luma levels of the line at a distance from one side of the box: counts int64[256]."""
    counts[:] = 0
    across = side >= _LEFT
    if across:
        first, stop = box[_TOP], box[_BOTTOM]
    else:
        first, stop = box[_LEFT], box[_RIGHT]
    line = box[side] + distance if side in (_TOP, _LEFT) else box[side] - 1 - distance
    is_grey = pixels.shape[2] == 1
    for i in range(first, stop):
        y, x = (i, line) if across else (line, i)
        if is_grey:
            level = np.intp(pixels[y, x, 0])
        else:
            red, green, blue = np.intp(pixels[y, x, 0]), np.intp(pixels[y, x, 1]), np.intp(pixels[y, x, 2])
            level = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue + _HALF) >> 16
        counts[level] += 1


@_inner
def _lower_median(counts: Array, n: int) -> int:
    total = 0
    for level in range(256):
        total += counts[level]
        if 2 * total >= n:
            return level
    return 255  # never: the counts sum to n


@_inner
def _is_uniform(counts: Array, n: int, median: int) -> bool:
    deviation = 0
    for level in range(256):
        deviation += counts[level] * abs(level - median)
    return deviation <= _MAX_DEVIATION * n


@_inner
def _is_beyond_edge(counts: Array, n: int, tone: int) -> bool:
    n_beyond = 0
    for level in range(256):
        if abs(level - tone) > _EDGE_STEP:
            n_beyond += counts[level]
    return 2 * n_beyond >= n


@_inner
def _border_lines(pixels: Array, box: Array, side: int, counts: Array) -> int:
    """Return how many lines the border on one side of the box has, 0 if there is none."""
    height, width = box[_BOTTOM] - box[_TOP], box[_RIGHT] - box[_LEFT]
    n_lines, n = (width, height) if side >= _LEFT else (height, width)
    tone = np.intp(0)
    n_uniform = 0
    while 20 * n_uniform < 9 * n_lines:  # 45 % of the side
        _count_levels(pixels, box, side, n_uniform, counts)
        median = _lower_median(counts, n)
        if n_uniform == 0:
            tone = median
        if abs(median - tone) > _MAX_STEP or not _is_uniform(counts, n, median):
            break
        n_uniform += 1
    else:
        return 0
    if n_uniform == 0 or 50 * n_uniform < n_lines:  # 2 %
        return 0
    for distance in range(n_uniform, min(n_lines, n_uniform + max(_MIN_EDGE_LINES, n_lines // 100))):
        _count_levels(pixels, box, side, distance, counts)
        if _is_beyond_edge(counts, n, tone):
            return distance
    return 0


_PIXELS: Final = types.Array(types.uint8, 3, "A", readonly=True)


@kernel(signatures=[types.void(_PIXELS, types.intp[::1])], error_model="numpy")
def _shrink(pixels: Array, box: Array) -> None:
    """Move the sides of a box inwards over the borders: box intp[4], top, bottom, left, right."""
    counts = np.empty(256, np.int64)
    found = np.zeros(4, np.intp)
    while box[_BOTTOM] - box[_TOP] >= _MIN_SIDE and box[_RIGHT] - box[_LEFT] >= _MIN_SIDE:
        for side in range(4):
            found[side] = _border_lines(pixels, box, side, counts)
        n_rows = box[_BOTTOM] - box[_TOP] - found[_TOP] - found[_BOTTOM]
        n_columns = box[_RIGHT] - box[_LEFT] - found[_LEFT] - found[_RIGHT]
        if not found.any() or n_rows < _MIN_SIDE or n_columns < _MIN_SIDE:
            return
        box[_TOP] += found[_TOP]
        box[_BOTTOM] -= found[_BOTTOM]
        box[_LEFT] += found[_LEFT]
        box[_RIGHT] -= found[_RIGHT]


def find_borders(pixels: Array) -> tuple[int, int, int, int]:
    """Return the inside of an image as (top, bottom, left, right): rows top:bottom, columns left:right.

    pixels uint8[h, w, 4] RGBX (the fourth byte is ignored) or uint8[h, w] grey, of any strides.
    """
    height, width = pixels.shape[:2]
    box = np.array((0, height, 0, width), np.intp)
    _shrink(pixels[:, :, None] if pixels.ndim == 2 else pixels, box)
    top, bottom, left, right = box.tolist()
    return top, bottom, left, right
