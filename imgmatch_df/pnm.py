"""PBM, PGM, PPM and PAM, by the rules of OpenCV's readers."""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_GAP: Final = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NUMBERS: Final = {
    n: re.compile(_GAP + (rb"(\d+)" + _GAP) * (n - 1) + rb"(\d+)[^\d]", re.DOTALL) for n in (2, 3)
}
_COMMENT: Final = re.compile(rb"#[^\r\n]*")
_PAM_HEADER: Final = re.compile(rb"P7\s((?:.*\n)*?)ENDHDR[^\n]*\n")
_PAM_LINE: Final = re.compile(rb"^\s*(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d+)", re.MULTILINE)
_MAX_HEADER: Final = 1 << 20  # of bytes with comments


class Header(NamedTuple):
    """What the header says.

    Parameters
    ----------
    kind
        1 to 7: the digit of the signature.
    width, height
        In pixels.
    channels
        Of a pixel, 1 to 4.
    largest
        The value of white, 1 to 65535.
    offset
        Of the pixels, from the start of the file.
    """

    kind: int
    width: int
    height: int
    channels: int
    largest: int
    offset: int


def read_header(data: Data) -> Header:
    """Return what the header says.

    Raises
    ------
    EOFError
        If the file ends within it.
    ValueError
        If it is not one.
    """
    head, kind = bytes(data[:_MAX_HEADER]), data[1] - ord("0")
    if kind == 7:
        found = _PAM_HEADER.match(head)
        if found is None:
            raise EOFError("no end of the header")
        lines = {name: int(number) for name, number in _PAM_LINE.findall(found[1])}
        width, height, channels, largest = (lines.get(name, 0) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
        offset = found.end()
    else:
        found = _NUMBERS[2 if kind in (1, 4) else 3].match(head, 2)
        if found is None:
            raise (ValueError if len(head) > 40 else EOFError)(f"header {head[:20]!r}")
        width, height, largest = (int(number[:10]) if len(number) < 40 else 0 for number in (*found.groups(), b"1")[:3])
        channels, offset = 3 if kind in (3, 6) else 1, found.end()
    if not (width > 0 and height > 0 and 1 <= channels <= 4 and 0 < largest < 65536):
        raise ValueError(f"{width}x{height} pixels of {channels} channels up to {largest}")
    return Header(kind, width, height, channels, largest, offset)


def read_pixels(data: Data, header: Header) -> tuple[Pixels, Pixels | None]:
    """Return the pixels, (rows, columns) grey or (rows, columns, 4), and alpha where there is one.

    Raises
    ------
    EOFError
        If the file ends before its last pixel.
    ValueError
        If there is something else than numbers in a file of plain text.
    """
    shape = header.height, header.width, header.channels
    values = (_plain if header.kind <= 3 else _binary)(data, header, shape)
    alpha = None
    if header.channels in (2, 4):
        alpha = _eight_bits(values[..., -1], header)
    if header.channels < 3:
        return np.ascontiguousarray(_eight_bits(values[..., 0], header)), alpha
    pixels = np.empty((header.height, header.width, 4), np.uint8)
    pixels[..., :3] = _eight_bits(values[..., :3], header)
    return pixels, alpha


def _eight_bits(values: npt.NDArray[Any], header: Header) -> Pixels:
    if header.largest > 255:
        return (values >> 8).astype(np.uint8)
    if header.kind in (2, 3) or header.largest == 1:  # OpenCV scales these, and takes all others as they are
        return (values.astype(np.uint16) * 255 // header.largest).astype(np.uint8)
    return values.astype(np.uint8)


def _binary(data: Data, header: Header, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if header.kind == 4:
        pitch = -(-header.width // 8)
        rows = _stored(data, header, np.dtype("u1"), pitch * header.height).reshape(header.height, pitch)
        return 1 - np.unpackbits(rows, axis=1)[:, : header.width, None]
    dtype = np.dtype("u1" if header.largest < 256 else ">u2")
    return _stored(data, header, dtype, int(np.prod(shape))).reshape(shape)


def _stored(data: Data, header: Header, dtype: np.dtype[Any], n_values: int) -> npt.NDArray[Any]:
    n_bytes = n_values * dtype.itemsize
    if len(data) - header.offset < n_bytes:
        raise EOFError(f"{n_bytes:,} bytes of pixels announced, {max(0, len(data) - header.offset):,} found")
    return np.frombuffer(data, dtype, n_values, header.offset)


def _plain(data: Data, header: Header, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    text = _COMMENT.sub(b" ", bytes(data[header.offset :]))
    n_values = int(np.prod(shape))
    if header.kind == 1:
        digits = np.frombuffer(text, np.uint8)
        digits = digits[(digits >= ord("0")) & (digits <= ord("9"))][:n_values]
        values = (digits == ord("0")).astype(np.uint16)
    else:
        values = np.array(text.split(None, n_values)[:n_values], dtype="S8").astype(np.int64)
        if (values < 0).any():
            raise ValueError("a negative value")
        values = values.clip(0, header.largest)
    if len(values) < n_values:
        raise EOFError(f"{n_values:,} values announced, {len(values):,} found")
    return values.reshape(shape)
