"""Bytes of memory that decoding an image takes, by its headers, in addition to the file.

The figures are measured; `tests/images/test_decode_bounds.py` checks the decoders against them.
"""

import struct
from typing import Final

from imgmatch_df.options import MAX_PIXELS

Data = bytes | memoryview

# Of one image, at the default of `max_pixels`: 18 bytes for each of 108 megapixels.
MAX_DECODE_BYTES: Final = 2_000_000_000

# Maximum bytes per pixel.
_JPEG: Final = 5
_JPEG_OF_SEVERAL_SCANS: Final = 13  # libjpeg stores the coefficients of all components, 2 bytes each
_FORMATS: Final = {"PNG": 14, "GIF": 8, "BMP": 16, "PNM": 16, "PPM": 16, "WEBP": 13, "AVIF": 16, "HEIC": 18, "RAW": 8}
_ANY_JPEG2000: Final = 32
_MAX_PARTS: Final = 1000  # segments of a JPEG or boxes of a JPEG 2000 that are read
_SIZ: Final = b"\xff\x4f\xff\x51"


def max_bytes(max_pixels: int) -> int:
    """Return the maximum bytes of an image: 2 GB, in proportion to `max_pixels` above its default."""
    return MAX_DECODE_BYTES * max(max_pixels, MAX_PIXELS) // MAX_PIXELS


def n_bytes(name: str, data: Data, width: int, height: int) -> int:
    """Return the bytes of memory that decoding an image takes.

    Parameters
    ----------
    name
        Name of its format, except TIFF, which `tiff` estimates.
    data
        The file.
    width, height
        Size of the image, in pixels.
    """
    n_pixels = width * height
    match name:
        case "JPEG":
            return n_pixels * (_JPEG_OF_SEVERAL_SCANS if _has_several_scans(data) else _JPEG)
        case "JPEG2000":
            return _jpeg2000_bytes(data, n_pixels)
        case "PNG":  # two rows of up to 8 bytes per pixel
            return n_pixels * _FORMATS[name] + 16 * width
        case "WEBP":  # libwebp's copy of the file
            return n_pixels * _FORMATS[name] + len(data)
    return n_pixels * _FORMATS[name]


def _has_several_scans(data: Data) -> bool:
    at, end, n_components = 2, len(data) - 10, 0
    for _ in range(_MAX_PARTS):
        if at >= end or data[at] != 0xFF:
            return True
        marker = data[at + 1]
        if marker == 0xDA:
            return data[at + 4] < n_components
        if marker in (0xC2, 0xC6, 0xCA, 0xCE):
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            n_components = data[at + 9]
        at += 1 if marker == 0xFF else 2 + (data[at + 2] << 8 | data[at + 3])
    return True


def _jpeg2000_bytes(data: Data, n_pixels: int) -> int:
    """Return the bytes of a tile's samples, as 32-bit integers and as bytes, and of Pillow's pixels."""
    at = _codestream(data)
    if at is None:
        return n_pixels * _ANY_JPEG2000
    width, height, x0, y0, tile_width, tile_height, n_components = struct.unpack_from(">6I8xH", data, at + 8)
    components = bytes(data[at + 42 : at + 42 + 3 * n_components])
    n_of_tile = max(0, min(tile_width, width - x0)) * max(0, min(tile_height, height - y0))
    n_tile = 0
    for depth, across, down in zip(*(components[i::3] for i in range(3)), strict=False):
        n_tile += (4 + (1 if depth & 0x7F < 8 else 2 if depth & 0x7F < 16 else 4)) * n_of_tile // max(1, across * down)
    return max(8 * n_pixels, 4 * n_pixels + n_tile) + len(data)


def _codestream(data: Data) -> int | None:
    """Return the offset of the codestream of a JPEG 2000, None if it is unknown."""
    at = 0
    for _ in range(_MAX_PARTS):
        if bytes(data[at : at + 4]) == _SIZ:
            return at if at + 42 <= len(data) else None
        if at + 16 > len(data):
            return None
        length, name, long_length = struct.unpack_from(">I4sQ", data, at)
        header, length = (16, long_length) if length == 1 else (8, length)
        if name != b"jp2c" and length < header:
            return None
        at += header if name == b"jp2c" else length
    return None
