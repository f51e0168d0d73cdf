"""Sequential parsing of image files: values, run lengths, and the parts around the pixels.

A file of 64 MiB may have 30 million comments, chunks or codes. In Python each one takes 0.1 to 3 us and holds the
GIL; here it takes a few nanoseconds, without the GIL.
"""

from typing import Any

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df.images.kernels.loads import big_16, big_32, byte_at, either_16, little_32

Array = Any

# Called from compiled code only: without the wrapper for Python they compile faster.
_inner = kernel(no_cpython_wrapper=True)

_COMMENT, _LF, _CR, _SPACE, _ZERO, _NINE = 0x23, 0x0A, 0x0D, 0x20, 0x30, 0x39  # of PNM
_APP1, _SCAN, _JPEG_COMMENT = 0xE1, 0xDA, 0xFE
_EXIF = 0x45786966  # in WebP in capitals
_JFIF, _ADOBE = 0x4A464946, 0x41646F62
_ORIENTATION = 0x0112
_IDAT, _TRNS, _PNG_EXIF = 0x49444154, 0x74524E53, 0x65584966
_WEBP_PIXELS = (0x56503858, 0x414E494D, 0x414E4D46, 0x414C5048, 0x56503820, 0x5650384C)  # VP8X ANIM ANMF ALPH VP8 VP8L
_WEBP_EXIF, _WEBP_HEADER, _WEBP_FLAGS = 0x45584946, 0x56503858, 0x1A  # flags: alpha, animation, EXIF
_GIF_EXTENSION, _GIF_FRAME, _GIF_END, _GIF_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def as_bytes(data: bytes | bytearray | memoryview) -> Array:
    """Return encoded bytes as the argument of a kernel: uint8[n], read-only."""
    values = np.frombuffer(data, np.uint8)
    if not memoryview(data).readonly:
        values.flags.writeable = False  # one type, for which the kernels are compiled once
    return values


@kernel
def parse_orientation(data: Array, start: int, stop: int) -> int:
    """Return the orientation, 1 to 8, in an EXIF block; 1 if it is invalid, 0 if there is none.

    data uint8[n]; the block is data[start:stop], from its byte order mark on.
    """
    if stop > len(data):
        stop = len(data)
    if start + 8 > stop:
        return 0
    is_little = byte_at(data, start) == 0x49 and byte_at(data, start + 1) == 0x49  # OpenCV reads others as big endian
    at = start + (little_32(data, start + 4) if is_little else big_32(data, start + 4))
    if at + 2 > stop or either_16(data, start + 2, is_little) != 42:
        return 0
    n_entries = either_16(data, at, is_little)
    at += 2
    for _ in range(n_entries):
        if at + 10 > stop:
            return 0
        if either_16(data, at, is_little) == _ORIENTATION:
            value = either_16(data, at + 8, is_little)
            return value if 1 <= value <= 8 else 1
        at += 12
    return 0


@_inner
def _jpeg_segment(data: Array, at: int) -> tuple[int, int]:
    """Return start and end of the next segment of a JPEG, as libjpeg finds it: after padding and other bytes.

    At the first scan and at the end of the file, start and end are equal.
    """
    marker = np.intp(0)
    while at + 4 <= len(data):
        marker = byte_at(data, at + 1)
        if byte_at(data, at) == 0xFF and marker != 0 and marker != 0xFF:
            break
        at += 1
    if at + 4 > len(data) or marker == _SCAN:
        return at, at
    if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without a body
        return at, at + 2
    length = big_16(data, at + 2)
    return at, at + 2 + (length if length > 2 else 2)


@_inner
def _jpeg_orientation(data: Array, at: int, end: int) -> int:
    """Return the orientation in a segment of a JPEG, 0 if there is none."""
    if byte_at(data, at + 1) != _APP1 or at + 10 > len(data) or big_16(data, at + 8) != 0:
        return 0
    return parse_orientation(data, at + 10, end) if big_32(data, at + 4) == _EXIF else 0


@_inner
def _is_relevant(data: Array, at: int, end: int) -> bool:
    """Return whether a segment of a JPEG affects its pixels."""
    marker = byte_at(data, at + 1)
    if 0xE0 <= marker <= 0xEF:  # two of these define the colours
        if at + 16 > end or at + 16 > len(data):
            return False
        name, next_byte = big_32(data, at + 4), byte_at(data, at + 8)
        is_jfif = marker == 0xE0 and name == _JFIF and next_byte == 0
        return is_jfif or (marker == 0xEE and name == _ADOBE and next_byte == 0x65)
    return marker != _JPEG_COMMENT and end > at + 2


@kernel
def read_jpeg_segments(data: Array) -> tuple[int, int, int, bool, int, int, int]:
    """Read the segments of a JPEG up to its first scan.

    data uint8[n]. Returns where they end, how many affect the pixels, the number of components, whether a frame is
    progressive, the orientation of the first EXIF block that has one, 0 if none has, and the height and the width.
    """
    n_segments = n_components = orientation = height = width = 0
    is_progressive = False
    end = np.intp(2)  # no constant, for which _jpeg_segment would be compiled anew
    while True:
        at, end = _jpeg_segment(data, end)
        if at == end:
            return at, n_segments, n_components, is_progressive, orientation, height, width
        marker = byte_at(data, at + 1)
        n_segments += _is_relevant(data, at, end)
        if 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC and at + 9 < len(data):
            is_progressive |= marker & 3 == 2
            height, width = big_16(data, at + 5), big_16(data, at + 7)
            n_components = byte_at(data, at + 9)
        elif orientation == 0:
            orientation = _jpeg_orientation(data, at, end)


@kernel
def keep_jpeg_segments(data: Array, out: Array) -> tuple[int, int]:
    """Copy the segments of a JPEG before its first scan that affect its pixels, and the first orientation.

    data uint8[n], out uint8[n]. Returns the number of bytes copied, and the offset of the scan or the size of the file.
    """
    out[0], out[1] = data[0], data[1]
    n_kept, end = 2, np.intp(2)
    orientation = 0
    while True:
        at, end = _jpeg_segment(data, end)
        if at == end:
            return n_kept, at
        is_kept = _is_relevant(data, at, end)
        if orientation == 0:
            orientation = _jpeg_orientation(data, at, end)
            is_kept |= orientation != 0
        if is_kept:
            for i in range(at, min(end, len(data))):
                out[n_kept] = data[i]
                n_kept += 1


@kernel
def skip_png_chunks(data: Array, at: int) -> int:
    """Return the offset of the next relevant chunk of a PNG: critical, `tRNS`, `eXIf`, truncated or unnamed."""
    while at + 8 <= len(data):
        end = at + 12 + big_32(data, at)
        name = big_32(data, at + 4)
        if end > len(data) or not data[at + 4] & 0x20 or name in (_TRNS, _PNG_EXIF):
            return at
        for i in range(at + 4, at + 8):
            if not 0x41 <= data[i] & 0xDF <= 0x5A:
                return at
        at = end
    return at


@kernel
def join_png_pixels(data: Array, at: int, out: Array) -> tuple[int, int, int]:
    """Copy the bodies of consecutive chunks `IDAT`.

    data uint8[n]; at: offset of the first one; out uint8[m], m the bytes of all bodies, or 0 to copy none. Returns
    their end, their number, and the bytes of their bodies; the end is beyond `data` if the last one is truncated.
    """
    n_chunks = n_bytes = 0
    while at + 8 <= len(data) and big_32(data, at + 4) == _IDAT:
        length = big_32(data, at)
        if len(out) > 0:
            for i in range(min(length, len(data) - at - 8)):
                out[n_bytes + i] = data[at + 8 + i]
        n_bytes += length
        n_chunks += 1
        at += 12 + length
    return at, n_chunks, n_bytes


@kernel
def first_gif_frame(data: Array, start: int) -> tuple[int, int]:
    """Return the offsets of the first frame of a GIF and of the last control extension before it, -1 for none.

    data uint8[n]; start: end of the header and its palette.
    """
    at, control = start, -1
    while True:
        while at < len(data) and data[at] != _GIF_EXTENSION and data[at] != _GIF_FRAME and data[at] != _GIF_END:
            at += 1
        if at >= len(data) or data[at] == _GIF_END:
            return -1, control
        if data[at] == _GIF_FRAME:
            return at, control
        if at + 2 < len(data) and data[at + 1] == _GIF_CONTROL and data[at + 2] == 4:
            control = at
        at += 2
        while at < len(data) and data[at]:
            at += 1 + int(data[at])
        at += 1


@kernel
def keep_webp_chunks(data: Array, out: Array) -> tuple[int, bool]:
    """Copy the chunks of a WebP that affect its pixels, and its EXIF block.

    data uint8[n], out uint8[n + 1]. Returns the number of bytes copied, and whether one of these chunks is truncated.
    """
    at, n_kept = 12, 0
    is_cut = little_32(data, 4) + 8 > len(data)
    while at + 8 <= len(data):
        name, length = big_32(data, at), little_32(data, at + 4)
        end = at + 8 + length
        are_pixels = False
        for known in _WEBP_PIXELS:
            are_pixels |= name == known
        # Without its EXIF block, a truncated file would have the wrong orientation.
        if end > len(data) and (are_pixels or (name == _WEBP_EXIF and is_cut)):
            return n_kept, True
        if are_pixels or (name == _WEBP_EXIF and end <= len(data)):
            for i in range(at, end):
                out[n_kept] = data[i]
                n_kept += 1
            if name == _WEBP_HEADER and length >= 10:
                out[n_kept - length] &= _WEBP_FLAGS
            if length % 2:
                out[n_kept] = 0
                n_kept += 1
        at = end + length % 2
    return n_kept, False


@kernel
def parse_values(text: Array, at: int, largest: int, n_channels: int, out: Array) -> tuple[int, int]:
    """Read the values of a PGM or PPM in plain text, as OpenCV's reader does, and scale them to bytes.

    text uint8[n]; at: start; largest: value of white, larger values are clipped to it; out uint8[m, k], of which the
    first n_channels columns are written. Returns the number of values and the end: m * n_channels values, or fewer if
    the text ends (a last value without a byte after it may be truncated) or contains anything else.
    """
    n_bytes = len(text)
    for pixel in range(len(out)):
        for channel in range(n_channels):
            while at < n_bytes and (text[at] == _COMMENT or text[at] == _SPACE or 9 <= text[at] <= 13):
                if text[at] == _COMMENT:
                    while at < n_bytes and text[at] != _LF and text[at] != _CR:
                        at += 1
                else:
                    at += 1
            start, value = at, 0
            while at < n_bytes and _ZERO <= text[at] <= _NINE:
                value = min(10 * value + int(text[at]) - _ZERO, 1 << 31)
                at += 1
            if at in (start, n_bytes):
                return pixel * n_channels + channel, at
            if text[at] != _COMMENT:
                at += 1  # one byte after a value is skipped, whatever it is
            value = min(value, largest)
            out[pixel, channel] = value >> 8 if largest > 255 else value * 255 // largest
    return len(out) * n_channels, at


@kernel
def parse_bits(text: Array, at: int, out: Array) -> int:
    """Read the values of a PBM in plain text, each of one digit: 0 is white, 255.

    text uint8[n]; at: start; out uint8[m]. Returns the number of values, at most m.
    """
    n_values = 0
    while at < len(text) and n_values < len(out):
        if text[at] == _COMMENT:
            while at < len(text) and text[at] != _LF and text[at] != _CR:
                at += 1
        else:
            if _ZERO <= text[at] <= _NINE:
                out[n_values] = 255 if text[at] == _ZERO else 0
                n_values += 1
            at += 1
    return n_values


@kernel
def decode_run_lengths(data: Array, at: int, has_nibbles: bool, has_lines: bool, out: Array) -> bool:
    """Decode RLE8 or RLE4 of a BMP, and return whether the codes reach the end of the image.

    data uint8[n]; at: start of the codes; has_nibbles: RLE4; has_lines: each row ends with a code. out uint8[height,
    width]: indices of the palette in the order of the file, 0 for pixels that the codes skip.
    """
    height, width = out.shape
    indices = out.reshape(height * width)
    indices[:] = 0
    x = y = 0
    while at + 2 <= len(data) and y < height:
        count, value = int(data[at]), int(data[at + 1])
        at += 2
        if count > 0 or value > 2:
            n_pixels = count if count > 0 else value
            n_bytes = 0  # of pixels that are not run-length encoded
            if count == 0:
                n_bytes = (value + 1) // 2 if has_nibbles else value
                if at + n_bytes > len(data):
                    return False
            start = y * width + x
            for i in range(min(n_pixels, width - x if has_lines else len(indices) - start)):
                byte = value
                if count == 0:
                    byte = int(data[at + i // 2] if has_nibbles else data[at + i])
                if has_nibbles:
                    byte = byte & 15 if i % 2 else byte >> 4
                indices[start + i] = byte
            at += n_bytes + n_bytes % 2
            x += n_pixels
            if has_lines and y == 0 and x >= 2 * width:
                return False  # no row has an end
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            return True
        elif at + 2 <= len(data):
            x, y, at = x + int(data[at]), y + int(data[at + 1]), at + 2
    is_last = y > height - 1 or (y == height - 1 and x >= width)
    return is_last or (not has_lines and x >= len(indices))


@kernel
def look_up(rows: Array, table: Array, top_down: bool, out: Array) -> None:
    """Write the colours of indices.

    rows uint8[height, at least width]; table uint8[256] or uint32[256]; top_down: the first row is the top row; out
    [height, width] of the table's type.
    """
    height, width = out.shape
    for y in range(height):
        row = rows[y if top_down else height - 1 - y]
        for x in range(width):
            out[y, x] = table[row[x]]
