"""PBM, PGM and PPM, by the rules of OpenCV's reader."""

import re
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.kernels import codecs
from imgmatch_df.images.pixels import unpack

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_GAP: Final = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NUMBERS: Final = {n: re.compile(_GAP + (rb"(\d+)" + _GAP) * (n - 1) + rb"(\d+)[^\d]", re.DOTALL) for n in (2, 3)}
_MAX_HEADER: Final = 1 << 20  # bytes, with comments


class PnmHeader(NamedTuple):
    """Header of a PBM, PGM or PPM.

    Parameters
    ----------
    kind
        Digit of the signature, 1 to 6.
    width, height
        Size of the image, in pixels.
    channels
        Values per pixel, 1 or 3.
    largest
        Value of white, 1 to 65535.
    offset
        Start of the pixels in the file.
    """

    kind: int
    width: int
    height: int
    channels: int
    largest: int
    offset: int


def read_header(data: Data) -> PnmHeader:
    """Return the header.

    Raises
    ------
    EOFError
        If the file ends within it.
    ValueError
        If it is not one.
    """
    start, kind = bytes(data[:_MAX_HEADER]), data[1] - ord("0")
    found = _NUMBERS[2 if kind in (1, 4) else 3].match(start, 2)
    if found is None:
        raise (ValueError if len(start) > 40 else EOFError)("invalid header")
    width, height, largest = (int(number.lstrip(b"0")[:9] or b"0") for number in (*found.groups(), b"1")[:3])
    if not (width > 0 and height > 0 and 0 < largest < 65536):
        raise ValueError(f"{width}x{height} pixels of values up to {largest}")
    return PnmHeader(kind, width, height, 3 if kind in (3, 6) else 1, largest, found.end())


def read_pixels(data: Data, header: PnmHeader) -> Pixels:
    """Return the pixels, (rows, columns) grey or (rows, columns, 4) with an unused byte.

    Raises
    ------
    EOFError
        If the file ends before its last pixel.
    ValueError
        If a file of plain text contains anything but numbers.
    """
    shape = header.height, header.width, header.channels
    if header.kind == 6 and header.largest < 256:
        _check_length(data, header, header.width * header.height * 3)
        return unpack(data, header.offset, (header.width, header.height), "RGB")
    if header.kind <= 3:
        return _plain(data, header)
    values = _eight_bits(_binary(data, header, shape), header)
    if header.channels == 1:
        return values[..., 0].copy()
    pixels = np.empty((header.height, header.width, 4), np.uint8)
    pixels[..., :3] = values
    return pixels


def _eight_bits(values: npt.NDArray[Any], header: PnmHeader) -> Pixels:
    if header.largest > 255:
        return (values >> 8).astype(np.uint8)
    if header.kind < 5:  # OpenCV scales these, and uses the bytes of the others unchanged
        values = values.astype(np.uint16) * np.uint16(255) // np.uint16(header.largest)
    return values.astype(np.uint8)


def _binary(data: Data, header: PnmHeader, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if header.kind == 4:
        pitch = -(-header.width // 8)
        rows = _read_values(data, header, np.dtype("u1"), pitch * header.height).reshape(header.height, pitch)
        return 1 - np.unpackbits(rows, axis=1)[:, : header.width, None]
    dtype = np.dtype("u1" if header.largest < 256 else ">u2")
    return _read_values(data, header, dtype, int(np.prod(shape))).reshape(shape)


def _read_values(data: Data, header: PnmHeader, dtype: np.dtype[Any], n_values: int) -> npt.NDArray[Any]:
    _check_length(data, header, n_values * dtype.itemsize)
    return np.frombuffer(data, dtype, n_values, header.offset)


def _check_length(data: Data, header: PnmHeader, n_bytes: int) -> None:
    if len(data) - header.offset < n_bytes:
        raise EOFError(f"{n_bytes:,} bytes of pixels announced, {max(0, len(data) - header.offset):,} found")


def _plain(data: Data, header: PnmHeader) -> Pixels:
    """Return the pixels of plain text."""
    text, n_pixels = codecs.as_bytes(data), header.width * header.height
    pixels = np.empty((n_pixels, 1 if header.channels == 1 else 4), np.uint8)
    at = len(text)
    if header.kind == 1:
        n_found = codecs.parse_bits(text, header.offset, pixels[:, 0])
    else:
        n_found, at = codecs.parse_values(text, header.offset, header.largest, header.channels, pixels)
    n_values = n_pixels * header.channels
    if n_found < n_values and at < len(text):
        raise ValueError("characters that are not digits among the values")
    if n_found < n_values:
        raise EOFError(f"{n_values:,} values announced, {n_found:,} found")
    shape = (header.height, header.width)
    return pixels.reshape(shape if header.channels == 1 else (*shape, 4))
