"""The 64 x 64 means and the bits of PDQ, by the very float32 operations of its reference.

The reference blurs the whole image twice by running sums along rows, then along columns, and reads 64 x 64 of the
result. A running sum rounds by what came before it, so no sum may be reordered, but sums of different lines may run
side by side: rows go through in groups of 16, columns as they lie in memory. The last two blurs are divided and kept
only where the 64 x 64 means are read, and each row is kept only while a window needs it.

Source: ThreatExchange pdq/cpp/downscaling/downscaling.cpp and pdq/cpp/hashing/pdqhashing.cpp.
"""

import math
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_MIN_SIDE: Final = 5  # smaller images have no bits and quality 0
_SIDE: Final = 64
_N_BITS_SIDE: Final = 16
_GROUP: Final = 16  # rows that are summed side by side: one or two vectors of float32
_SCALE: Final = float(np.float32(math.sqrt(2 / _SIDE)))
_COSINES: Final = np.array(
    [
        [_SCALE * math.cos(math.pi / 2 / _SIDE * i * (2 * j + 1)) for j in range(_SIDE)]
        for i in range(1, _N_BITS_SIDE + 1)
    ]
).astype(np.float32)

_inner: Final = kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_inner
def _fill_luma(pixels: Array, top: int, tile: Array) -> None:
    """Write the luma of up to 16 rows from `top` on, transposed: tile float32[width, 16]."""
    for lane in range(min(_GROUP, pixels.shape[0] - top)):
        y = top + lane
        for x in range(pixels.shape[1]):
            if pixels.ndim == 3:
                red, green, blue = pixels[y, x, 0], pixels[y, x, 1], pixels[y, x, 2]
            else:
                red = green = blue = pixels[y, x]
            # In doubles, rounded once, as C++ promotes them. Grey is weighed too: the reference sees it as RGB.
            tile[x, lane] = np.float32(0.299 * red + 0.587 * green + 0.114 * blue)


@_inner
def _copy_luma(pixels: Array, means: Array) -> None:
    """Write the luma of an image of 64 x 64 pixels: means float32[64, 64]."""
    tile = np.empty((_SIDE, _GROUP), np.float32)
    for top in range(0, _SIDE, _GROUP):
        _fill_luma(pixels, top, tile)
        for lane in range(_GROUP):
            for x in range(_SIDE):
                means[top + lane, x] = tile[x, lane]


@_inner
def _blur_rows(tile: Array, window: int, blurred: Array) -> None:
    """Average `window` values along the first axis, fewer at its ends: tile and blurred float32[width, 16]."""
    width = tile.shape[0]
    ahead = window // 2  # values that the window reaches beyond its own
    sums = np.zeros(_GROUP, np.float32)
    for x in range(width + ahead):
        first = x - window
        if x < width:
            for lane in range(_GROUP):
                sums[lane] += tile[x, lane]
        if first >= 0:
            for lane in range(_GROUP):
                sums[lane] -= tile[first, lane]
        if x >= ahead:
            n_values = np.float32(min(x, width - 1) - max(first, -1))
            for lane in range(_GROUP):
                blurred[x - ahead, lane] = sums[lane] / n_values


@_inner
def _blur_at(lines: Array, window: int, places: Array, blurred: Array) -> None:
    """Average as `_blur_rows`, at 64 ascending places only: lines float32[n, lanes], blurred float32[64, lanes]."""
    n, n_lanes = lines.shape
    ahead = window // 2
    sums = np.zeros(n_lanes, np.float32)
    j = 0
    for x in range(n + ahead):
        first = x - window
        if x < n:
            for lane in range(n_lanes):
                sums[lane] += lines[x, lane]
        if first >= 0:
            for lane in range(n_lanes):
                sums[lane] -= lines[first, lane]
        while j < _SIDE and places[j] == x - ahead:
            n_values = np.float32(min(x, n - 1) - max(first, -1))
            for lane in range(n_lanes):
                blurred[j, lane] = sums[lane] / n_values
            j += 1


@_inner
def _places(n: int) -> Array:
    """Return where 64 means are read of `n` values: int64[64]."""
    places = np.empty(_SIDE, np.int64)
    for i in range(_SIDE):
        places[i] = int((i + 0.5) * n / _SIDE)
    return places


@_inner
def _reduce(pixels: Array, means: Array) -> None:
    """Blur an image twice and read it at 64 x 64 places: means float32[64, 64]."""
    height, width = pixels.shape[0], pixels.shape[1]
    row_window, column_window = (width + 127) // 128, (height + 127) // 128
    ahead = column_window // 2
    columns = _places(width)
    tile = np.zeros((width, _GROUP), np.float32)
    blurred = np.zeros((width, _GROUP), np.float32)
    done = np.zeros((width, _GROUP), np.float32)  # rows that have been through the first two blurs
    n_kept = column_window + 1
    kept = np.zeros((n_kept, width), np.float32)  # rows that have been through the first blur along them
    sums = np.zeros(width, np.float32)
    narrow = np.empty((_SIDE, _GROUP), np.float32)
    low = np.zeros((height, _SIDE), np.float32)  # rows that have been through three blurs
    n_done = 0
    for y in range(height + ahead):
        if y < height:
            lane = y % _GROUP
            if lane == 0:
                _fill_luma(pixels, y, tile)
                _blur_rows(tile, row_window, blurred)
            row = kept[y % n_kept]
            for x in range(width):
                row[x] = blurred[x, lane]
                sums[x] += row[x]
        first = y - column_window
        if first >= 0:
            row = kept[first % n_kept]
            for x in range(width):
                sums[x] -= row[x]
        if y >= ahead:
            n_values = np.float32(min(y, height - 1) - max(first, -1))
            lane = n_done % _GROUP
            for x in range(width):
                done[x, lane] = sums[x] / n_values
            n_done += 1
            if lane == _GROUP - 1 or n_done == height:
                _blur_at(done, row_window, columns, narrow)
                for i in range(lane + 1):
                    for j in range(_SIDE):
                        low[n_done - 1 - lane + i, j] = narrow[j, i]
    _blur_at(low, column_window, _places(height), means)


@_inner
def _write_bits(means: Array, out: Array) -> None:
    """Compare 16 x 16 low cosine coefficients with their median: out uint8[32], the last coefficient first."""
    half = np.zeros((_N_BITS_SIDE, _SIDE), np.float32)
    for i in range(_N_BITS_SIDE):
        for k in range(_SIDE):
            for j in range(_SIDE):
                half[i, j] += _COSINES[i, k] * means[k, j]
    values = np.zeros(_N_BITS_SIDE**2, np.float32)
    for i in range(_N_BITS_SIDE):
        for j in range(_N_BITS_SIDE):
            total = np.float32(0)
            for k in range(_SIDE):
                total += half[i, k] * _COSINES[j, k]
            values[_N_BITS_SIDE * i + j] = total
    median = np.sort(values)[_N_BITS_SIDE**2 // 2 - 1]  # the lower of the two in the middle
    out[:] = 0
    for bit in range(_N_BITS_SIDE**2):
        out[31 - (bit >> 3)] |= np.uint8(values[bit] > median) << np.uint8(bit & 7)


@_inner
def _quality(means: Array) -> int:
    """Return the sum of the steps between neighbouring means, in percent of 255 cut to whole numbers, 100 at most."""
    total = 0
    for i in range(_SIDE):
        for j in range(_SIDE):
            if i < _SIDE - 1:
                total += abs(int((means[i, j] - means[i + 1, j]) * np.float32(100) / np.float32(255)))
            if j < _SIDE - 1:
                total += abs(int((means[i, j] - means[i, j + 1]) * np.float32(100) / np.float32(255)))
    return min(total // 90, 100)


_SIGNATURES: Final = [
    types.intp(types.Array(types.uint8, n_axes, "C", readonly=True), types.uint8[::1]) for n_axes in (3, 2)
]


@kernel(signatures=_SIGNATURES)
def hash_pixels(pixels: Array, out: Array) -> int:
    """Write the PDQ hash of an upright image and return its quality, 0 to 100: out uint8[32].

    pixels uint8[h, w, 4] RGBX (the fourth byte is ignored) or uint8[h, w] grey.
    """
    out[:] = 0
    if pixels.shape[0] < _MIN_SIDE or pixels.shape[1] < _MIN_SIDE:
        return 0
    means = np.empty((_SIDE, _SIDE), np.float32)
    if pixels.shape[0] == _SIDE and pixels.shape[1] == _SIDE:
        _copy_luma(pixels, means)  # the reference does not blur it: even sums of one value round
    else:
        _reduce(pixels, means)
    _write_bits(means, out)
    return _quality(means)
