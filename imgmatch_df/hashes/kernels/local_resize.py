"""Grey pixels of an image and their resizing, in integers, for the `local` hash.

Each output pixel is an exact sum of integers, rounded once at the end. The order of the additions is therefore free,
and the resized mirror image is the mirror image of the resized one.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_N_TAPS: Final = 6  # pixels that an output pixel covers along one axis: at most 4 whole ones and two parts

_inner: Final = kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
_BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)


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
        if n_channels == 1:
            for x in range(width):
                target[x] = row[x * stride]
        elif step == 1:
            for x in range(width):
                red, green, blue = np.uint32(row[4 * x]), np.uint32(row[4 * x + 1]), np.uint32(row[4 * x + 2])
                target[x] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> np.uint32(16)
        else:
            for x in range(width):
                i = x * stride
                red, green, blue = np.uint32(row[i]), np.uint32(row[i + 1]), np.uint32(row[i + 2])
                target[x] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> np.uint32(16)


@_inner
def _fill_taps(n_from: int, n_to: int, firsts: Array, counts: Array, weights: Array) -> int:
    """Write which input pixels make each output pixel along one axis, and return the sum of their weights.

    Down: by the area they cover. Up: linear between the centres of the two nearest ones. weights int32[n_to, 6].
    """
    if n_to > n_from:
        for i in range(n_to):
            place = (2 * i + 1) * n_from - n_to  # in half output pixels
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
def resize_into(grey: Array, out: Array) -> None:
    """Resize grey pixels, by area where an axis gets shorter, linearly where it gets longer: uint8[h, w] both."""
    height, width = grey.shape
    new_height, new_width = out.shape
    if height == new_height and width == new_width:
        for y in range(height):
            for x in range(width):
                out[y, x] = grey[y, x]
        return
    longest = max(new_height, new_width)
    firsts, counts = np.empty((2, longest), np.int32), np.empty((2, longest), np.int32)
    weights = np.zeros((2, longest, _N_TAPS), np.int32)
    total = _fill_taps(height, new_height, firsts[0], counts[0], weights[0])
    total *= _fill_taps(width, new_width, firsts[1], counts[1], weights[1])
    sums = np.empty(width, np.int32)
    # Exact: a quotient is 0.5 / total or more away from the next whole number.
    reciprocal = 1.0 / total
    for y in range(new_height):
        first = firsts[0, y]
        row, weight = grey[first], weights[0, y, 0]
        for x in range(width):
            sums[x] = weight * np.int32(row[x])
        for k in range(1, counts[0, y]):
            row, weight = grey[first + k], weights[0, y, k]
            for x in range(width):
                sums[x] += weight * np.int32(row[x])
        target = out[y]
        for x in range(new_width):
            first = firsts[1, x]
            value = np.int32(0)
            for k in range(counts[1, x]):
                value += weights[1, x, k] * sums[first + k]
            target[x] = np.uint8((np.float64(value + total // 2) + 0.5) * reciprocal)


@kernel(signatures=["void(uint8[:, :], uint8[:, ::1])"], error_model="numpy")
def resize(grey: Array, out: Array) -> None:
    """Resize grey pixels as `resize_into`; at most to a fourth of a side."""
    resize_into(grey, out)
