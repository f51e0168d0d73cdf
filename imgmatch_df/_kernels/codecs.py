"""Image formats that are read byte by byte: text in PBM, PGM and PPM files, run lengths in BMP files.

In Python each byte costs 100 ns and holds the interpreter's lock; here a nanosecond, without it.
"""

from typing import Any

import numpy as np

from imgmatch_df._kernels.compiled import kernel

Array = Any


@kernel
def parse_numbers(text: Array, start: int, max_value: int, one_digit: bool, out: Array) -> int:
    """Read numbers in decimal digits, separated by white space and comments, as OpenCV's PXM reader does.

    text uint8[n]; start: where to begin; max_value: larger numbers count as this; one_digit: each digit is a number;
    out uint16[m]. Returns how many numbers were read: m, or fewer where the text ends or holds anything else.
    """
    at, n_bytes = start, len(text)
    for i in range(len(out)):
        while at < n_bytes and not 48 <= text[at] <= 57:
            byte = text[at]
            if byte == 35:  # a comment, up to the end of its line
                while at < n_bytes and text[at] != 10 and text[at] != 13:
                    at += 1
            elif byte != 32 and not 9 <= byte <= 13:
                return i
            at += 1
        if at >= n_bytes:
            return i
        value = 0
        while at < n_bytes and 48 <= text[at] <= 57:
            value = min(10 * value + text[at] - 48, 1 << 31)
            at += 1
            if one_digit:
                break
        out[i] = min(value, max_value)
    return len(out)


@kernel
def decode_run_lengths(data: Array, start: int, has_nibbles: bool, out: Array) -> bool:
    """Decode RLE8 or RLE4 of a BMP file, as OpenCV's reader does for sound files.

    data uint8[n]; start: where the codes begin; has_nibbles: RLE4; out uint8[height, width] gets indices of the
    palette, the bottom row first, 0 where the file skips pixels. Returns whether the codes are sound: they reach the
    end of the bitmap, and no run leaves its row.
    """
    height, width = out.shape
    out[:] = 0
    x = y = 0
    has_wrapped = False
    at, n_bytes = start, len(data)
    while at + 1 < n_bytes:
        length, code = int(data[at]), int(data[at + 1])
        at += 2
        if length > 0:
            if x + length > width:
                return False
            for i in range(length):
                if has_nibbles:
                    out[y, x + i] = code & 15 if i % 2 else code >> 4
                else:
                    out[y, x + i] = code
            x += length
            has_wrapped = x == width and not has_nibbles
            if has_wrapped:  # a row that is full needs no end, and may have one
                x = 0
                y += 1
        elif code == 0:
            if not has_wrapped:
                x = 0
                y += 1
            has_wrapped = False
        elif code == 1:
            return True
        elif code == 2:
            if at + 1 >= n_bytes:
                return False
            x += int(data[at]) + int(data[at + 1]) * width
            y += x // width
            x %= width
            at += 2
            has_wrapped = False
        else:
            n_data = (code + 1) // 2 if has_nibbles else code
            if x + code > width or at + n_data > n_bytes:
                return False
            for i in range(code):
                if has_nibbles:
                    byte = int(data[at + i // 2])
                    out[y, x + i] = byte & 15 if i % 2 else byte >> 4
                else:
                    out[y, x + i] = data[at + i]
            x += code
            at += n_data + n_data % 2
            has_wrapped = False
        if y >= height:
            return True
    return False


def as_bytes(data: Any) -> Array:
    """Return encoded bytes as the kernels take them: uint8[n]."""
    return np.frombuffer(data, np.uint8)
