"""The 64 x 64 means and the bits of PDQ, by the very float32 operations of its reference.

The reference blurs the whole image twice by running sums along rows, then along columns, and reads 64 x 64 of the
result. A running sum rounds by what came before it, so no sum may be reordered, but sums of different lines may run
side by side: the image goes through in groups of 16 rows, which are transposed for the sums along rows. The last two
blurs are divided and kept only where the 64 x 64 means are read, and each row is kept only while a window needs it.

Before and behind the lines are zeros: to add or take off one leaves a sum as it is, so no end needs a loop of its own.

Source: ThreatExchange pdq/cpp/downscaling/downscaling.cpp and pdq/cpp/hashing/pdqhashing.cpp.
"""

import math
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.hashes.kernels.tiles import (
    N_LINES,
    average_columns,
    fill_colour,
    fill_grey,
    multiply_rows,
    slide,
    slide_and_average,
    transpose_block,
)

Array = np.ndarray[Any, Any]

_MIN_SIDE: Final = 5  # smaller images have no bits and quality 0
_SIDE: Final = 64
_N_BITS_SIDE: Final = 16
_N_BITS: Final = _N_BITS_SIDE**2
_BLOCK: Final = N_LINES * N_LINES
_N_BLOCKS: Final = 16  # of 16 x 16 pixels, that go through the steps while they are in the cache
_N_TILES: Final = _SIDE // N_LINES  # of 64 x 64 means, 16 columns each
_SCALE: Final = float(np.float32(math.sqrt(2 / _SIDE)))
_COSINES: Final = np.array(
    [_SCALE * math.cos(math.pi / 2 / _SIDE * i * (2 * j + 1)) for i in range(1, _N_BITS_SIDE + 1) for j in range(_SIDE)]
).astype(np.float32)

# Without Python's check for a division by zero, which keeps loops from becoming vectors. Nothing is divided by zero.
_inner: Final = kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")


@_inner
def _clear(array: Array, first: int, stop: int) -> None:
    for i in range(first, stop):
        array[i] = 0


@_inner
def _fill_block(
    pixels: Array, height: int, width: int, n_channels: int, y: int, x: int, edge: Array, tile: Array, target: int
) -> None:
    """Write the luma of 16 x 16 pixels from (y, x) on to a tile, zeros beyond the image."""
    start, pitch = (y * width + x) * n_channels, width * n_channels
    if y + N_LINES > height or x + N_LINES > width:
        _clear(edge, 0, len(edge))
        n_bytes = min(N_LINES, width - x) * n_channels
        for row in range(min(N_LINES, height - y)):
            for i in range(n_bytes):
                edge[N_LINES * n_channels * row + i] = pixels[start + row * pitch + i]
        pixels, start, pitch = edge, 0, N_LINES * n_channels
    if n_channels == 1:
        fill_grey(tile, target, pixels, start, pitch)
    else:
        fill_colour(tile, target, pixels, start, pitch)


@_inner
def _count(x: int, window: int, n: int) -> Any:
    """Return how many of n values a window has whose last one is value x."""
    return np.float32(max(min(x, n - 1) - max(x - window, -1), 1))


@_inner
def _average_at_places(tile: Array, base: int, n: int, window: int, means: Array) -> None:
    """Average `window` of n vectors, fewer at the ends, at 64 places: vector `base` of the tile is the first one."""
    ahead = window // 2
    sums = np.zeros(N_LINES, np.float32)
    x = 0
    for j in range(_SIDE):
        stop = int((j + 0.5) * n / _SIDE) + ahead + 1
        slide(sums, tile, base + x, base + stop, window)
        x = stop
        count = _count(x - 1, window, n)
        for lane in range(N_LINES):
            means[N_LINES * j + lane] = sums[lane] / count


@_inner
def _reduce(pixels: Array, height: int, width: int, n_channels: int, edge: Array, means: Array) -> None:
    """Blur an image twice and read it at 64 x 64 places: means float32[4 tiles, 64, 16]."""
    row_window, column_window = (width + 127) // 128, (height + 127) // 128
    row_ahead, column_ahead = row_window // 2, column_window // 2  # values that a window reaches beyond its own
    n_blocks, n_groups = (width + N_LINES - 1) // N_LINES, (height + column_ahead + N_LINES - 1) // N_LINES
    # One tile for all steps of a group of rows, each of which writes where nothing is read any more. Its vector
    # `luma + x` is column x, and `averaged + x` is column x after one blur and after two.
    luma, averaged = 2 * row_window, row_window + row_ahead
    end = max(averaged + N_LINES * n_blocks, averaged + width + row_ahead, luma + N_LINES * n_blocks)
    tile = np.zeros((luma + row_ahead + N_LINES * (n_blocks + 1)) * N_LINES, np.float32)
    row_counts = np.empty(luma + row_ahead + width, np.float32)
    for x in range(width + row_ahead):
        row_counts[luma + x] = _count(x, row_window, width)
    column_counts = np.empty(N_LINES * n_groups, np.float32)
    for y in range(N_LINES * n_groups):
        column_counts[y] = _count(y, column_window, height)
    # The last rows that have been through the first blur along them, a block after the other; each row is kept in the
    # place of the one that leaves the window when it enters.
    n_kept = column_window * N_LINES
    kept = np.zeros(n_blocks * n_kept, np.float32)
    places = np.empty(N_LINES, np.intp)
    column_sums = np.zeros(N_LINES * n_blocks, np.float32)
    row_sums = np.empty(N_LINES, np.float32)
    narrow = np.empty(_SIDE * N_LINES, np.float32)
    before = column_window + N_LINES
    n_low = before + N_LINES * n_groups + N_LINES
    low = np.zeros(_N_TILES * n_low * N_LINES, np.float32)  # rows that have been through three blurs
    for y in range(0, N_LINES * n_groups, N_LINES):
        _clear(tile, 0, luma * N_LINES)
        _clear(row_sums, 0, len(row_sums))
        for i in range(N_LINES):
            places[i] = (y + i) % column_window * N_LINES
        n_summed, n_done = 0, 0
        for first in range(0, n_blocks, _N_BLOCKS):
            stop = min(first + _N_BLOCKS, n_blocks)
            for x in range(N_LINES * first, N_LINES * stop, N_LINES):
                _fill_block(pixels, height, width, n_channels, y, x, edge, tile, (luma + x) * N_LINES)
            is_last = stop == n_blocks
            n_ready = width + row_ahead if is_last else N_LINES * stop
            slide_and_average(row_sums, tile, luma + n_summed, luma + n_ready, row_window, row_counts)
            n_summed = n_ready
            if is_last:
                _clear(tile, (averaged + width) * N_LINES, end * N_LINES)
            if first == 0:
                _clear(tile, 0, averaged * N_LINES)
            for block in range(n_done, n_blocks if is_last else (n_ready - row_ahead) // N_LINES):
                start = (averaged + N_LINES * block) * N_LINES
                average_columns(
                    tile, start, column_sums, N_LINES * block, kept, block * n_kept, places, column_counts, y
                )
                n_done += 1
        _average_at_places(tile, averaged, width, row_window, narrow)
        for i in range(_N_TILES):
            transpose_block(narrow, _BLOCK * i, low, (i * n_low + before + y - column_ahead) * N_LINES)
    for i in range(_N_TILES):
        start = i * n_low * N_LINES
        _clear(low, start, start + before * N_LINES)
        _clear(low, start + (before + height) * N_LINES, start + n_low * N_LINES)
        tile_of_means = means[i * _SIDE * N_LINES : (i + 1) * _SIDE * N_LINES]
        _average_at_places(low, i * n_low + before, height, column_window, tile_of_means)


@_inner
def _copy_luma(pixels: Array, height: int, width: int, n_channels: int, edge: Array, means: Array) -> None:
    """Write the luma of an image of 64 x 64 pixels: means float32[4 tiles, 64, 16]."""
    for i in range(_N_TILES):
        for y in range(0, _SIDE, N_LINES):
            target = (i * _SIDE + y) * N_LINES
            _fill_block(pixels, height, width, n_channels, np.intp(y), N_LINES * i, edge, means, target)
            transpose_block(means, target, means, target)


@_inner
def _write_bits(means: Array, out: Array) -> None:
    """Compare 16 x 16 low cosine coefficients with their median: out uint8[32], the last coefficient first."""
    half = np.empty(_BLOCK, np.float32)
    turned = np.empty(_SIDE * N_LINES, np.float32)
    for i in range(_N_TILES):
        for row in range(0, _N_BITS_SIDE, 4):
            multiply_rows(_COSINES, row * _SIDE, _SIDE, means, i * _SIDE * N_LINES, half, row * N_LINES)
        transpose_block(half, 0, turned, _BLOCK * i)
    values = np.empty(_N_BITS, np.float32)
    for row in range(0, _N_BITS_SIDE, 4):
        multiply_rows(_COSINES, row * _SIDE, _SIDE, turned, 0, half, row * N_LINES)
    transpose_block(half, 0, values, 0)
    median = _lower_median(values)
    _clear(out, 0, len(out))
    for bit in range(_N_BITS):
        out[31 - (bit >> 3)] |= np.uint8(values[bit] > median) << np.uint8(bit & 7)


@_inner
def _lower_median(values: Array) -> Any:
    """Return the lower of the two values in the middle; there are no NaN."""
    # Their bits as integers, negative ones turned around, are in the order of the values.
    keys = np.empty(_N_BITS, np.int32)
    bits = values.view(np.int32)
    for i in range(_N_BITS):
        keys[i] = bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFFFFFF))
    low, high = -(1 << 31), (1 << 31) - 1
    while low < high:
        middle = (low + high) >> 1
        key, n_below = np.int32(middle), np.int32(0)
        for i in range(_N_BITS):
            n_below += np.int32(keys[i] <= key)
        if n_below < _N_BITS // 2:
            low = middle + 1
        else:
            high = middle
    for i in range(_N_BITS):
        if keys[i] == low:
            return values[i]
    return values[0]  # never


@_inner
def _quality(means: Array) -> int:
    """Return the sum of the steps between neighbouring means, in percent of 255 cut to whole numbers, 100 at most."""
    rows = np.empty(_SIDE * _SIDE, np.float32)
    for i in range(_N_TILES):
        for y in range(_SIDE):
            for lane in range(N_LINES):
                rows[_SIDE * y + N_LINES * i + lane] = means[(i * _SIDE + y) * N_LINES + lane]
    total = np.int32(0)
    for i in range(_SIDE * (_SIDE - 1)):
        total += abs(np.int32((rows[i] - rows[i + _SIDE]) * np.float32(100) / np.float32(255)))
    for y in range(_SIDE):
        for x in range(_SIDE - 1):
            i = _SIDE * y + x
            total += abs(np.int32((rows[i] - rows[i + 1]) * np.float32(100) / np.float32(255)))
    return min(int(total) // 90, 100)


_BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)


@kernel(signatures=[types.intp(_BYTES, types.intp, types.intp, types.intp, types.uint8[::1])], error_model="numpy")
def _hash_bytes(pixels: Array, height: int, width: int, n_channels: int, out: Array) -> int:
    means = np.empty(_SIDE * _SIDE, np.float32)
    edge = np.zeros(_BLOCK * 4, np.uint8)
    if height == _SIDE and width == _SIDE:
        # The reference does not blur it: even sums of one value round.
        _copy_luma(pixels, height, width, n_channels, edge, means)
    else:
        _reduce(pixels, height, width, n_channels, edge, means)
    _write_bits(means, out)
    return _quality(means)


def hash_pixels(pixels: Array, out: Array) -> int:
    """Write the PDQ hash of an upright image and return its quality, 0 to 100: out uint8[32].

    pixels uint8[h, w, 4] RGBX (the fourth byte is ignored) or uint8[h, w] grey, C-contiguous.
    """
    height, width = pixels.shape[:2]
    if height < _MIN_SIDE or width < _MIN_SIDE:
        out[:] = 0
        return 0
    quality: int = _hash_bytes(pixels.reshape(-1), height, width, 1 if pixels.ndim == 2 else 4, out)
    return quality
