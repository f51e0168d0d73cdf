"""Pillow's Lanczos resize of a grey image to a small one, bit for bit.

Pillow rounds the weights to 22 bits and each of the two passes to 8, so all sums are sums of integers, and their order
is free.

Source: Pillow src/libImaging/Resample.c.
"""

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_N_BITS: Final = 22  # of the fraction of a weight
_HALF: Final = 1 << (_N_BITS - 1)
_SUPPORT: Final = 3.0  # pixels of the small image on both sides
_BAND: Final = 1024  # columns whose sums stay in the cache

_inner: Final = kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")


@_inner
def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


@kernel(signatures=[types.void(types.intp, types.intp[:, ::1], types.int32[:, ::1])], error_model="numpy")
def _fill_weights(n: int, bounds: Array, weights: Array) -> None:
    """Find the weights of n values in m others: bounds intp[m, 2], first value and number; weights int32[m, k]."""
    scale = n / len(bounds)
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    exact = np.empty(weights.shape[1], np.float64)
    for i in range(len(bounds)):
        centre = (i + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), n) - first
        total = 0.0
        for k in range(count):
            x = (k + first - centre + 0.5) * (1.0 / stretch)
            exact[k] = _sinc(x) * _sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0
            total += exact[k]
        for k in range(count):
            weight = (exact[k] / total if total != 0.0 else exact[k]) * (1 << _N_BITS)
            weights[i, k] = int(weight - 0.5 if weight < 0 else weight + 0.5)
        bounds[i, 0], bounds[i, 1] = first, count


@lru_cache(maxsize=64)  # up to 64 x 100 KB for photos of many sizes
def _weights(n: int, n_out: int) -> tuple[Array, Array]:
    bounds = np.zeros((n_out, 2), np.intp)
    weights = np.zeros((n_out, 2 * math.ceil(_SUPPORT * max(n / n_out, 1.0)) + 1), np.int32)
    _fill_weights(n, bounds, weights)
    return bounds, weights


@_inner
def _rounded(total: int) -> Any:
    return np.uint8(min(max(total >> _N_BITS, 0), 255))


_PASS: Final = types.void(
    types.Array(types.uint8, 2, "C", readonly=True), types.intp[:, ::1], types.int32[:, ::1], types.uint8[:, ::1]
)


@kernel(signatures=[_PASS], error_model="numpy")
def _resize_rows(pixels: Array, bounds: Array, weights: Array, out: Array) -> None:
    for y in range(pixels.shape[0]):
        row = pixels[y]
        for x in range(out.shape[1]):
            here, factors = row[bounds[x, 0] : bounds[x, 0] + bounds[x, 1]], weights[x]
            total = np.int32(_HALF)
            for k in range(len(here)):
                total += np.int32(here[k]) * factors[k]
            out[y, x] = _rounded(total)


@kernel(signatures=[_PASS], error_model="numpy")
def _resize_columns(pixels: Array, bounds: Array, weights: Array, out: Array) -> None:
    sums = np.empty(_BAND, np.int32)
    for left in range(0, pixels.shape[1], _BAND):
        width = min(_BAND, pixels.shape[1] - left)
        for y in range(out.shape[0]):
            for x in range(width):
                sums[x] = _HALF
            for k in range(bounds[y, 1]):
                row, factor = pixels[bounds[y, 0] + k, left : left + width], weights[y, k]
                for x in range(width):
                    sums[x] += np.int32(row[x]) * factor
            for x in range(width):
                out[y, left + x] = _rounded(sums[x])


def resize(pixels: Array, width: int, height: int) -> Array:
    """Return a grey image as Pillow 13 resizes it: pixels uint8[h, w], C-contiguous; uint8[height, width]."""
    n_rows, n_columns = pixels.shape
    # Pillow takes the pass first that leaves fewer pixels to the other one, as it counts them.
    columns_first = n_rows > height and n_rows - height > 2 * (n_columns - width)
    for axis in (0, 1) if columns_first else (1, 0):
        n, n_out = pixels.shape[axis], (height, width)[axis]
        if n != n_out:
            out = np.empty((pixels.shape[0], n_out) if axis else (n_out, pixels.shape[1]), np.uint8)
            (_resize_rows if axis else _resize_columns)(pixels, *_weights(n, n_out), out)
            pixels = out
    return pixels


_RED, _GREEN, _BLUE = np.uint32(19595), np.uint32(38470), np.uint32(7471)  # they sum to 2**16


@kernel(signatures=[types.void(types.Array(types.uint32, 1, "C", readonly=True), types.uint8[::1])])
def write_grey(pixels: Array, out: Array) -> None:
    """Weigh colours as Pillow's `convert("L")`: pixels uint32[n], each of them RGBX from the lowest byte on."""
    for i in range(len(out)):
        pixel = pixels[i]
        red, green, blue = pixel & np.uint32(255), (pixel >> np.uint32(8)) & np.uint32(255), pixel >> np.uint32(16)
        total = red * _RED + green * _GREEN + (blue & np.uint32(255)) * _BLUE + np.uint32(1 << 15)
        out[i] = np.uint8(total >> np.uint32(16))
