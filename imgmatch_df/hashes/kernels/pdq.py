"""The 64 x 64 means and the bits of PDQ, by the very float32 operations of its reference.

The reference blurs the whole image twice by running sums along rows, then along columns, and reads 64 x 64 of the
result. A running sum rounds by what came before it, so no sum may be reordered, but sums of different lines may run
side by side: the image goes through in groups of 16 rows, which are transposed for the sums along rows. The last two
blurs are divided and kept only where the 64 x 64 means are read, and each row is kept only while a window needs it.

Before and behind the lines are zeros: to add or take off one leaves a sum as it is, so no end needs a loop of its own.

Source: ThreatExchange pdq/cpp/downscaling/downscaling.cpp and pdq/cpp/hashing/pdqhashing.cpp.
"""

import math
from functools import cache
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.hashes.kernels.stack import stack_array, zero_items
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
_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")


_edge: Final = stack_array(types.uint8, 4 * _BLOCK)
_means: Final = stack_array(types.float32, _SIDE * _SIDE)
_sums: Final = stack_array(types.float32, N_LINES)
_row_sums: Final = stack_array(types.float32, N_LINES)
_places: Final = stack_array(types.intp, N_LINES)
_narrow: Final = stack_array(types.float32, _SIDE * N_LINES)
_half: Final = stack_array(types.float32, _BLOCK)
_turned: Final = stack_array(types.float32, _SIDE * N_LINES)
_values: Final = stack_array(types.float32, _N_BITS)
_rows: Final = stack_array(types.float32, _SIDE * _SIDE)


@_inner
def _fill_block(
    pixels: Array, height: int, width: int, n_channels: int, y: int, x: int, edge: Array, tile: Array, target: int
) -> None:
    """Write the luma of 16 x 16 pixels from (y, x) on to a tile, zeros beyond the image."""
    start, pitch = (y * width + x) * n_channels, width * n_channels
    if y + N_LINES > height or x + N_LINES > width:
        zero_items(edge, 0, len(edge))
        n_bytes = (N_LINES if width - x > N_LINES else width - x) * n_channels
        for row in range(N_LINES if height - y > N_LINES else height - y):
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
    last, before = x if x < n - 1 else n - 1, x - window if x - window > -1 else -1
    return np.float32(last - before if last - before > 1 else 1)


@_inner
def _average_at_places(tile: Array, base: int, n: int, window: int, means: Array, target: int) -> None:
    """Average `window` of n vectors, fewer at the ends, at 64 places: vector `base` of the tile is the first one.

    means float32, written from `target` on.
    """
    ahead = window // 2
    sums = _sums()
    zero_items(sums, 0, N_LINES)
    x: Any = 0
    for j in range(_SIDE):
        stop = np.intp((j + 0.5) * n / _SIDE) + ahead + 1
        slide(sums, tile, base + x, base + stop, window)
        x = stop
        count = _count(x - 1, window, n)
        for lane in range(N_LINES):
            means[target + N_LINES * j + lane] = sums[lane] / count


@_inner
def _zeros(n: int) -> Array:
    zeros = np.empty(n, np.float32)
    zero_items(zeros, 0, n)
    return zeros


@_inner
def _write_bits(means: Array, out: Array) -> None:
    """Compare 16 x 16 low cosine coefficients with their median: out uint8[32], the last coefficient first."""
    half, turned, values = _half(), _turned(), _values()
    for i in range(_N_TILES):
        for row in range(0, _N_BITS_SIDE, 4):
            multiply_rows(_COSINES, row * _SIDE, _SIDE, means, i * _SIDE * N_LINES, half, row * N_LINES)
        transpose_block(half, 0, turned, _BLOCK * i)
    for row in range(0, _N_BITS_SIDE, 4):
        multiply_rows(_COSINES, row * _SIDE, _SIDE, turned, 0, half, row * N_LINES)
    transpose_block(half, 0, values, 0)
    median = _lower_median(values)
    zero_items(out, 0, len(out))
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
def _quality(means: Array) -> Any:
    """Return the sum of the steps between neighbouring means, in percent of 255 cut to whole numbers, 100 at most."""
    rows = _rows()
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
    return 100 if total > 9000 else total // 90


_BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)


# One kernel, because one that it called would be optimised twice.
@kernel(signatures=[types.intp(_BYTES, types.intp, types.intp, types.intp, types.uint8[::1])], error_model="numpy")
def _hash_bytes(pixels: Array, height: int, width: int, n_channels: int, out: Array) -> int:
    """Blur an image twice, read it at 64 x 64 places, and hash these means."""
    means, edge = _means(), _edge()
    row_window, column_window = (width + 127) // 128, (height + 127) // 128
    row_ahead, column_ahead = row_window // 2, column_window // 2  # values that a window reaches beyond its own
    n_blocks, n_groups = (width + N_LINES - 1) // N_LINES, (height + column_ahead + N_LINES - 1) // N_LINES
    # One tile for all steps of a group of rows, each of which writes where nothing is read any more. Its vector
    # `luma + x` is column x, and `averaged + x` is column x after one blur and after two.
    luma, averaged = 2 * row_window, row_window + row_ahead
    end = averaged + N_LINES * n_blocks
    for other in (averaged + width + row_ahead, luma + N_LINES * n_blocks):
        end = other if other > end else end
    tile = _zeros((luma + row_ahead + N_LINES * (n_blocks + 1)) * N_LINES)
    row_counts = np.empty(luma + row_ahead + width, np.float32)
    for x in range(width + row_ahead):
        row_counts[luma + x] = _count(x, row_window, width)
    column_counts = np.empty(N_LINES * n_groups, np.float32)
    for y in range(N_LINES * n_groups):
        column_counts[y] = _count(y, column_window, height)
    # The last rows that have been through the first blur along them, a block after the other; each row is kept in the
    # place of the one that leaves the window when it enters.
    n_kept = column_window * N_LINES
    kept, column_sums = _zeros(n_blocks * n_kept), _zeros(N_LINES * n_blocks)
    places, row_sums, narrow = _places(), _row_sums(), _narrow()
    before, begin = column_window + N_LINES, np.intp(0)  # no constant, for which a function would be compiled twice
    n_low = before + N_LINES * n_groups + N_LINES
    low = _zeros(_N_TILES * n_low * N_LINES)  # rows that have been through three blurs
    for y in range(0, N_LINES * n_groups, N_LINES):
        zero_items(tile, 0, luma * N_LINES)
        zero_items(row_sums, 0, len(row_sums))
        for i in range(N_LINES):
            places[i] = (y + i) % column_window * N_LINES
        n_summed, n_done = 0, 0
        for first in range(0, n_blocks, _N_BLOCKS):
            stop = first + _N_BLOCKS if first + _N_BLOCKS < n_blocks else n_blocks
            for x in range(N_LINES * first, N_LINES * stop, N_LINES):
                _fill_block(pixels, height, width, n_channels, y, x, edge, tile, (luma + x) * N_LINES)
            is_last = stop == n_blocks
            n_ready = width + row_ahead if is_last else N_LINES * stop
            slide_and_average(row_sums, tile, luma + n_summed, luma + n_ready, row_window, row_counts)
            n_summed = n_ready
            if is_last:
                zero_items(tile, (averaged + width) * N_LINES, end * N_LINES)
            if first == 0:
                zero_items(tile, 0, averaged * N_LINES)
            for block in range(n_done, n_blocks if is_last else (n_ready - row_ahead) // N_LINES):
                start = (averaged + N_LINES * block) * N_LINES
                average_columns(
                    tile, start, column_sums, N_LINES * block, kept, block * n_kept, places, column_counts, y
                )
                n_done += 1
        _average_at_places(tile, averaged, width, row_window, narrow, begin)
        for i in range(_N_TILES):
            transpose_block(narrow, _BLOCK * i, low, (i * n_low + before + y - column_ahead) * N_LINES)
    for i in range(_N_TILES):
        start = i * n_low * N_LINES
        zero_items(low, start, start + before * N_LINES)
        zero_items(low, start + (before + height) * N_LINES, start + n_low * N_LINES)
        _average_at_places(low, i * n_low + before, height, column_window, means, i * _SIDE * N_LINES)
    _write_bits(means, out)
    return _quality(means)


def _hash_small(pixels: Array, n_channels: int, out: Array) -> int:
    """Hash an image of 64 x 64 pixels, which the reference does not blur: even sums of one value round."""
    means = _means()
    for i in range(_N_TILES):
        for y in range(0, _SIDE, N_LINES):
            target, start = (i * _SIDE + y) * N_LINES, (y * _SIDE + N_LINES * i) * n_channels
            if n_channels == 1:
                fill_grey(means, target, pixels, start, _SIDE)
            else:
                fill_colour(means, target, pixels, start, 4 * _SIDE)
            transpose_block(means, target, means, target)
    _write_bits(means, out)
    return _quality(means)


@cache
def _small_kernel() -> Any:
    """Return `_hash_small`, compiled when the first such image comes."""
    signature = types.intp(_BYTES, types.intp, types.uint8[::1])
    return kernel(_hash_small, signatures=[signature], error_model="numpy")


def hash_pixels(pixels: Array, out: Array) -> int:
    """Write the PDQ hash of an upright image and return its quality, 0 to 100: out uint8[32].

    pixels uint8[h, w, 4] RGBX (the fourth byte is ignored) or uint8[h, w] grey, C-contiguous.
    """
    height, width = pixels.shape[:2]
    if height < _MIN_SIDE or width < _MIN_SIDE:
        out[:] = 0
        return 0
    n_channels, flat = 1 if pixels.ndim == 2 else 4, pixels.reshape(-1)
    quality: int
    if height == width == _SIDE:
        quality = _small_kernel()(flat, n_channels, out)
    else:
        quality = _hash_bytes(flat, height, width, n_channels, out)
    return quality
