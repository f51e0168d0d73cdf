"""Size and samples of a JPEG XL, from its header (ISO/IEC 18181-1, annexes B to D), before any pixel is decoded."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

Data = bytes | memoryview

CODESTREAM: Final = b"\xff\n"
CONTAINER: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEADER_BYTES: Final = 256  # more than the parts that are read can have
_MAX_BOXES: Final = 10_000
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height


class Header(NamedTuple):
    """What the header of a JPEG XL says.

    Parameters
    ----------
    width, height
        Size in pixels, as stored.
    bits
        Bits of a sample.
    n_extra
        Number of channels beside the colours, such as alpha.
    is_jpeg
        Whether the file is a JPEG that was packed without loss.
    """

    width: int
    height: int
    bits: int
    n_extra: int
    is_jpeg: bool


def read_header(data: Data) -> Header:
    """Return what the header of a JPEG XL says.

    Raises
    ------
    EOFError, struct.error
        If the file ends within it.
    ValueError
        If it has more than 10,000 boxes.
    """
    stream, is_jpeg = bytes(data[:_HEADER_BYTES]), False
    if stream.startswith(CONTAINER):
        stream = b""
        for name, start, end in _boxes(data):
            if name == b"jbrd":
                is_jpeg = True
            elif name in (b"jxlc", b"jxlp") and len(stream) < _HEADER_BYTES:
                start += 4 if name == b"jxlp" else 0  # its number
                stream += bytes(data[start : min(end, start + _HEADER_BYTES)])
    if not stream.startswith(CODESTREAM):
        raise EOFError("no codestream")
    return _read_codestream(_LowFirst(stream[2:]), is_jpeg=is_jpeg)


def _boxes(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each box."""
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if length == 0 else at + length
        if end < start:
            raise ValueError("a box is shorter than its header")
        yield name, start, min(end, len(data))
        at = end
    raise ValueError(f"more than {_MAX_BOXES:,} boxes")


class _LowFirst:
    """Reader of the bits of a header, the lowest bit first."""

    def __init__(self, header: bytes) -> None:
        self._value, self._left = int.from_bytes(header, "little"), 8 * len(header)

    def __call__(self, n_bits: int) -> int:
        self._left -= n_bits
        if self._left < 0:
            raise EOFError("the header is cut off")
        value = self._value & ((1 << n_bits) - 1)
        self._value >>= n_bits
        return value

    def u32(self, *kinds: tuple[int, int]) -> int:
        """Return a number of one of four kinds: an offset, and the number of bits that are added to it."""
        offset, n_bits = kinds[self(2)]
        return offset + self(n_bits)


def _read_codestream(read: _LowFirst, *, is_jpeg: bool) -> Header:
    width, height = _read_size(read)
    if read(1):  # everything else has its default
        return Header(width, height, 8, 0, is_jpeg)
    if read(1):
        _skip_extra_fields(read)
    if read(1):  # floats
        bits = read.u32((32, 0), (16, 0), (24, 0), (1, 6))
        read(4)
    else:
        bits = read.u32((8, 0), (10, 0), (12, 0), (1, 6))
    read(1)
    return Header(width, height, bits, read.u32((0, 0), (1, 0), (2, 4), (1, 12)), is_jpeg)


def _read_size(read: _LowFirst) -> tuple[int, int]:
    def side() -> int:
        return 8 * (read(5) + 1) if is_small else read.u32((1, 9), (1, 13), (1, 18), (1, 30))

    is_small = read(1)
    height, ratio = side(), read(3)
    return _width(height, ratio) if ratio else side(), height


def _width(height: int, ratio: int) -> int:
    across, down = _RATIOS[ratio - 1]
    return height * across // down


def _skip_extra_fields(read: _LowFirst) -> None:
    read(3)  # the orientation
    if read(1):
        _read_size(read)  # intrinsic
    if read(1):
        _skip_preview(read)
    if read(1):  # animation
        read.u32((100, 0), (1000, 0), (1, 10), (1, 30))
        read.u32((1, 0), (1001, 0), (1, 8), (1, 10))
        read.u32((0, 0), (0, 3), (0, 16), (0, 32))
        read(1)


def _skip_preview(read: _LowFirst) -> None:
    sides = ((16, 0), (32, 0), (1, 5), (33, 9)) if read(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
    read.u32(*sides)
    if not read(3):
        read.u32(*sides)
