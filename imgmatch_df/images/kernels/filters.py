"""The row filters of PNG, which store each byte as its difference from a prediction.

Source: PNG specification, section 9. A prediction needs the pixel to the left, so the pixels of one row cannot be
computed at once. Those of four rows can, each one pixel behind the row above it: this takes a third of the time.
"""

from typing import Any

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.images.kernels.lanes import both, four_pixels, mean, move_down, nearest_bytes, pixel_at, pixel_of, plus

Array = Any

NONE, SUB, UP, AVERAGE, PAETH = range(5)

_uint32: Any = types.uint32

# Called from compiled code only: without the wrapper for Python they compile faster.
_inner = kernel(no_cpython_wrapper=True)


@_inner
def _filter_of(filters: Array, row: int) -> Any:
    return filters[row] if row < len(filters) else np.uint8(NONE)


@_inner
def _ones(is_set: bool) -> Any:
    return _uint32(0xFFFFFFFF if is_set else 0)


@_inner
def _masks(filters: Array, i: int) -> Any:
    """Return lanes with ones for those of four rows that need the left pixel, the upper one, Paeth, and Average."""
    a, b, c, d = (
        _filter_of(filters, i), _filter_of(filters, i + 1), _filter_of(filters, i + 2), _filter_of(filters, i + 3)
    )  # fmt: skip
    is_sub = four_pixels(_ones(a == SUB), _ones(b == SUB), _ones(c == SUB), _ones(d == SUB))
    is_up = four_pixels(_ones(a == UP), _ones(b == UP), _ones(c == UP), _ones(d == UP))
    is_paeth = four_pixels(_ones(a == PAETH), _ones(b == PAETH), _ones(c == PAETH), _ones(d == PAETH))
    is_average = four_pixels(_ones(a == AVERAGE), _ones(b == AVERAGE), _ones(c == AVERAGE), _ones(d == AVERAGE))
    return plus(is_sub, is_paeth), plus(is_up, is_paeth), is_paeth, is_average


@_inner
def _are_valid(filters: Array) -> bool:
    largest = 0
    for i in range(len(filters)):
        largest = max(largest, int(filters[i]))
    return largest <= PAETH


@_inner
def _predict(left: Any, up: Any, corner: Any, has_left: Any, has_up: Any, is_paeth: Any, is_average: Any) -> Any:
    """Return the predictions for four pixels, each by its filter: Sub and Up are Paeth's with zeros."""
    nearest = nearest_bytes(both(left, has_left), both(up, has_up), both(corner, is_paeth))
    return plus(nearest, both(mean(left, up), is_average))


@kernel
def unfilter_pixels(data: Array, start: int, out: Array, n_channels: int) -> bool:
    """Write the pixels of rows of three or four channels, and return whether their filters are valid.

    data uint8[n_rows * (1 + n_channels * width)]; out uint32[height, width]: red, green, blue, and alpha or 255. The
    rows from `start` on are written; the one above is read.
    """
    width = out.shape[1]
    n_bytes = 1 + n_channels * width
    n_rows = len(data) // n_bytes
    filters = data[: n_rows * n_bytes : n_bytes]
    if not _are_valid(filters):
        return False
    unused = 4 - n_channels  # bytes before the pixel in its word, so that nothing behind `data` is read
    shift, opaque, none = _uint32(8 * unused), _uint32(0xFF000000 if unused else 0), _uint32(0)
    above = np.zeros(width, np.uint32) if start == 0 else out[start - 1]
    for i in range(0, n_rows, 4):
        n_second = width if i + 1 < n_rows else 0
        n_third = width if i + 2 < n_rows else 0
        n_fourth = width if i + 3 < n_rows else 0
        at = i * n_bytes + 1 - unused
        y = start + i
        has_left, has_up, is_paeth, is_average = _masks(filters, i)
        left = corner = four_pixels(none, none, none, none)
        for x in range(width + 3):
            first = second = third = fourth = over = none
            if x < width:
                first = pixel_at(data, at + x * n_channels) >> shift
                over = above[x]
            if 0 <= x - 1 < n_second:
                second = pixel_at(data, at + n_bytes + (x - 1) * n_channels) >> shift
            if 0 <= x - 2 < n_third:
                third = pixel_at(data, at + 2 * n_bytes + (x - 2) * n_channels) >> shift
            if 0 <= x - 3 < n_fourth:
                fourth = pixel_at(data, at + 3 * n_bytes + (x - 3) * n_channels) >> shift
            up = move_down(left, over)
            predicted = _predict(left, up, corner, has_left, has_up, is_paeth, is_average)
            left = plus(four_pixels(first, second, third, fourth), predicted)
            corner = up
            if x < width:
                out[y, x] = pixel_of(left, 0) | opaque
            if 0 <= x - 1 < n_second:
                out[y + 1, x - 1] = pixel_of(left, 1) | opaque
            if 0 <= x - 2 < n_third:
                out[y + 2, x - 2] = pixel_of(left, 2) | opaque
            if 0 <= x - 3 < n_fourth:
                out[y + 3, x - 3] = pixel_of(left, 3) | opaque
        above = out[min(y + 3, len(out) - 1)]
    return True


@kernel
def unfilter_single_bytes(data: Array, start: int, out: Array) -> bool:
    """Write the bytes of rows of which a pixel has at most one, and return whether their filters are valid.

    data uint8[n_rows * (1 + n_bytes)]; out uint8[height, n_bytes]. The rows from `start` on are written; the one above
    is read.
    """
    width = out.shape[1]
    n_bytes = 1 + width
    n_rows = len(data) // n_bytes
    filters = data[: n_rows * n_bytes : n_bytes]
    if not _are_valid(filters):
        return False
    none = _uint32(0)
    above = np.zeros(width, np.uint8) if start == 0 else out[start - 1]
    for i in range(0, n_rows, 4):
        n_second = width if i + 1 < n_rows else 0
        n_third = width if i + 2 < n_rows else 0
        n_fourth = width if i + 3 < n_rows else 0
        at = i * n_bytes + 1
        y = start + i
        has_left, has_up, is_paeth, is_average = _masks(filters, i)
        left = corner = four_pixels(none, none, none, none)
        for x in range(width + 3):
            first = second = third = fourth = over = none
            if x < width:
                first = _uint32(data[at + x])
                over = _uint32(above[x])
            if 0 <= x - 1 < n_second:
                second = _uint32(data[at + n_bytes + x - 1])
            if 0 <= x - 2 < n_third:
                third = _uint32(data[at + 2 * n_bytes + x - 2])
            if 0 <= x - 3 < n_fourth:
                fourth = _uint32(data[at + 3 * n_bytes + x - 3])
            up = move_down(left, over)
            predicted = _predict(left, up, corner, has_left, has_up, is_paeth, is_average)
            left = plus(four_pixels(first, second, third, fourth), predicted)
            corner = up
            if x < width:
                out[y, x] = pixel_of(left, 0)
            if 0 <= x - 1 < n_second:
                out[y + 1, x - 1] = pixel_of(left, 1)
            if 0 <= x - 2 < n_third:
                out[y + 2, x - 2] = pixel_of(left, 2)
            if 0 <= x - 3 < n_fourth:
                out[y + 3, x - 3] = pixel_of(left, 3)
        above = out[min(y + 3, len(out) - 1)]
    return True


@kernel
def unfilter_bytes(data: Array, start: int, out: Array, n_before: int) -> bool:
    """Write the bytes of rows, and return whether their filters are valid.

    data uint8[n_rows * (1 + n_bytes)]; out uint8[height, n_bytes]; n_before: distance of the byte to the left, 1 to 8.
    The rows from `start` on are written; the one above is read.
    """
    n_bytes = out.shape[1]
    above = np.zeros(n_bytes, np.uint8) if start == 0 else out[start - 1]
    for i in range(len(data) // (1 + n_bytes)):
        at = i * (1 + n_bytes)
        filter_ = data[at]
        if filter_ > PAETH:
            return False
        coded = data[at + 1 : at + 1 + n_bytes]
        row = out[start + i]
        if filter_ == NONE:
            for x in range(n_bytes):
                row[x] = coded[x]
        elif filter_ == UP:
            for x in range(n_bytes):
                row[x] = coded[x] + above[x]
        else:
            for x in range(n_bytes):
                left = int(row[x - n_before]) if x >= n_before else 0
                up = int(above[x])
                predicted = left
                if filter_ == AVERAGE:
                    predicted = (left + up) >> 1
                elif filter_ == PAETH:
                    corner = int(above[x - n_before]) if x >= n_before else 0
                    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                    if to_up < to_left or to_corner < to_left:
                        predicted = up if to_up <= to_corner else corner
                row[x] = int(coded[x]) + predicted & 0xFF
        above = row
    return True


@kernel
def unpack_samples(rows: Array, n_bits: int, scale: int, out: Array) -> None:
    """Write samples of 1, 2, 4 or 8 bits as bytes.

    rows uint8[height, at least width * n_bits / 8]; scale: factor of each sample; out uint8[height, width].
    """
    height, width = out.shape
    for y in range(height):
        for x in range(width):
            bit = x * n_bits
            out[y, x] = ((rows[y, bit >> 3] >> (8 - n_bits - (bit & 7))) & ((1 << n_bits) - 1)) * scale


@kernel
def largest_sample(rows: Array) -> int:
    """Return the largest of samples, uint8[height, width]."""
    largest = 0
    for y in range(rows.shape[0]):
        for x in range(rows.shape[1]):
            largest = max(largest, int(rows[y, x]))
    return largest
