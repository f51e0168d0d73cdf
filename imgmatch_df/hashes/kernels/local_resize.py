"""Grey pixels of an image and their resizing, in integers, for the `local` hash.

Each output pixel is an exact sum of integers, rounded once at the end. The order of the additions is therefore free,
and the resized mirror image is the mirror image of the resized one.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_N_TAPS: Final = 6  # rows that an output row covers: at most 4 whole ones and two parts

_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)


@_inner
def _luma(red: Any, green: Any, blue: Any) -> Any:
    total = np.uint32(19595) * np.uint32(red) + np.uint32(38470) * np.uint32(green) + np.uint32(7471) * np.uint32(blue)
    return np.uint8((total + np.uint32(32768)) >> np.uint32(16))


@kernel(
    signatures=[types.void(_BYTES, *(types.intp,) * 5, types.uint8[:, ::1])],
    error_model="numpy",
)
def sample_grey(pixels: Array, pitch: int, n_channels: int, top: int, left: int, step: int, out: Array) -> None:
    """Write the luma of each `step`-th pixel of each `step`-th row, from (top, left) on: out uint8[h, w].

    pixels uint8 RGBX or grey, `pitch` bytes a row. Luma as Pillow's mode L.
    """
    height, width = out.shape
    stride = step * n_channels
    for y in range(height):
        start = (top + y * step) * pitch + left * n_channels
        row = pixels[start : start + (width - 1) * stride + n_channels]
        target = out[y]
        if step > 1:
            place, distance = np.uint64(0), np.uint64(stride)  # unsigned: numba would test signed ones for below 0
            for x in range(width):
                target[x] = row[place] if n_channels == 1 else _luma(row[place], row[place + _1], row[place + _2])
                place += distance
        elif n_channels == 1:
            for x in range(width):
                target[x] = row[x]
        else:
            for x in range(width):
                target[x] = _luma(row[4 * x], row[4 * x + 1], row[4 * x + 2])


@_inner
def _fill_row_taps(n_from: int, n_to: int, firsts: Array, counts: Array, weights: Array) -> int:
    """Write which input rows make each output row, and return the sum of their weights: weights int32[n_to, 6].

    Down: by the area they cover. Up: linear between the centres of the two nearest ones.
    """
    if n_to > n_from:
        for i in range(n_to):
            place = (2 * i + 1) * n_from - n_to  # in half output rows
            first = place // (2 * n_to)
            part = place - first * 2 * n_to
            if first < 0 or first >= n_from - 1:
                firsts[i], counts[i], weights[i, 0] = min(max(first, 0), n_from - 1), 1, 2 * n_to
            else:
                firsts[i], counts[i], weights[i, 0], weights[i, 1] = first, 2, 2 * n_to - part, part
        return 2 * n_to
    for i in range(n_to):
        start, stop = i * n_from, (i + 1) * n_from
        first, last = start // n_to, (stop - 1) // n_to
        firsts[i], counts[i] = first, last - first + 1
        for j in range(first, last + 1):
            weights[i, j - first] = min(stop, (j + 1) * n_to) - max(start, j * n_to)
    return n_from


@_inner
def _fill_column_taps(n_from: int, n_to: int, firsts: Array, parts: Array) -> int:
    """Write where each output pixel starts in a row, and return the sum of the weights of its input pixels.

    Down: input pixel and part of it, in 1/n_to, one entry more for the end. Up: left neighbour and the weight of the
    right one, in 1/(2 * n_to).
    """
    if n_to > n_from:
        for i in range(n_to):
            place = (2 * i + 1) * n_from - n_to
            first = place // (2 * n_to)
            firsts[i], parts[i] = first, place - first * 2 * n_to
            if first < 0 or first >= n_from - 1:
                firsts[i], parts[i] = min(max(first, 0), n_from - 1), 0
        return 2 * n_to
    for i in range(n_to + 1):
        firsts[i] = i * n_from // n_to
        parts[i] = i * n_from - firsts[i] * n_to
    return n_from


@_inner
def resize_part(grey: Array, top: int, left: int, height: int, width: int, out: Array) -> None:
    """Resize a part of grey pixels, by area where an axis gets shorter, linearly where it gets longer.

    grey uint8[h, w], out uint8[h, w], both C-contiguous; at most to a fourth of a side.
    """
    new_height, new_width = out.shape
    firsts, counts = np.empty(new_height, np.int32), np.empty(new_height, np.int32)
    weights = np.zeros((new_height, _N_TAPS), np.int32)
    starts, parts = np.empty(new_width + 1, np.uint32), np.empty(new_width + 1, np.int32)
    total = _fill_row_taps(height, new_height, firsts, counts, weights)
    total *= _fill_column_taps(width, new_width, starts, parts)
    is_wider = new_width > width
    sums, before = np.zeros(width + 1, np.int32), np.zeros(width + 1, np.int32)
    values = np.empty(new_width + 1, np.int32)
    half = np.int32(total // 2)
    # Exact: a quotient is 0.5 / total or more away from the next whole number.
    reciprocal = 1.0 / total
    for y in range(new_height):
        first = top + firsts[y]
        row, weight = grey[first, left : left + width], weights[y, 0]
        for x in range(width):
            sums[x] = weight * np.int32(row[x])
        for k in range(1, counts[y]):
            row, weight = grey[first + k, left : left + width], weights[y, k]
            for x in range(width):
                sums[x] += weight * np.int32(row[x])
        target = out[y]
        if is_wider:
            for x in range(new_width):
                start, part = starts[x], parts[x]
                values[x] = (2 * new_width - part) * sums[start] + part * sums[start + 1]
            for x in range(new_width):
                target[x] = np.uint8((np.float64(np.int32(values[x] + half)) + 0.5) * reciprocal)
            continue
        # Differences of running sums; these may pass 2**31, their differences do not.
        running = np.int32(0)
        for x in range(width):
            before[x] = running
            running += sums[x]
        before[width] = running
        for x in range(new_width + 1):
            start = starts[x]
            values[x] = new_width * before[start] + parts[x] * sums[start]
        for x in range(new_width):
            value = np.int32(values[x + 1] - values[x] + half)
            target[x] = np.uint8((np.float64(value) + 0.5) * reciprocal)


@kernel(signatures=[types.void(types.uint8[:, ::1], *(types.intp,) * 4, types.uint8[:, ::1])], error_model="numpy")
def resize_grey(grey: Array, top: int, left: int, height: int, width: int, out: Array) -> None:
    """Resize a part of grey pixels as `resize_part`."""
    resize_part(grey, top, left, height, width, out)
