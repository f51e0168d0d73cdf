"""Chunks of a PNG for its pixels, without all others, which may be damaged, large or bombs.

libpng, which OpenCV uses, skips a damaged ancillary chunk; Pillow refuses the file. So Pillow gets the critical chunks
only, and the other relevant ones are read here: orientation and transparency.
"""

import struct
import zlib
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.kernels import codecs

Data = bytes | memoryview

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

_MAX_CHUNKS: Final = 10_000  # relevant ones
_MAX_PIXEL_CHUNKS: Final = 1000  # Pillow takes 2 us per chunk; more are joined
_CHUNK: Final = struct.Struct(">I4s")
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
CHANNELS: Final = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class Png(NamedTuple):
    """A PNG without the chunks that do not affect its pixels.

    Parameters
    ----------
    data
        Header, palette, pixels and end.
    width, height, bits, colour, interlaced
        Values of the header.
    exif
        First EXIF block, empty if there is none.
    transparency
        Body of the first undamaged chunk `tRNS`, empty if there is none.
    pixel_chunks
        Start and end of the chunks of pixels in `data`.
    """

    data: Data
    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool
    exif: bytes
    transparency: bytes
    pixel_chunks: tuple[int, int]

    def pixels_are_complete(self) -> bool:
        """Return whether all pixels of the header are present: Pillow does not report missing rows."""
        missing = self._n_bytes()
        stream = zlib.decompressobj()
        rest: Data = _joined(codecs.as_bytes(self.data), *self.pixel_chunks)
        while rest and missing > 0:
            missing -= len(stream.decompress(rest, 1 << 16))
            rest = stream.unconsumed_tail
        return missing - len(stream.flush()) <= 0

    def _n_bytes(self) -> int:
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, across, down in passes:
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * self.bits * CHANNELS[self.colour] // 8))
        return total

    def last_row(self) -> int:
        """Return the number of the row that is decoded last."""
        return self.height // 2 * 2 - 1 if self.interlaced and self.height > 1 else self.height - 1


def read_chunks(data: Data) -> Png:
    """Return the relevant chunks of a PNG.

    Raises
    ------
    EOFError
        If the file ends before its pixels begin.
    SyntaxError
        If libpng would refuse its chunks.
    """
    view, values = memoryview(data), codecs.as_bytes(data)
    if len(view) < 33:
        raise EOFError(f"{len(view)} bytes")
    width, height, bits, colour, method, _, interlaced = struct.unpack_from(">IIBBBBB", view, 16)
    if bytes(view[8:16]) != b"\0\0\0\x0dIHDR" or method != 0 or colour not in CHANNELS or interlaced > 1:
        raise SyntaxError("invalid header")
    palette, exif, transparency = view[:0], b"", b""
    at, pixels = 33, None
    for _ in range(_MAX_CHUNKS):
        at = codecs.skip_png_chunks(values, at)
        if at + 8 > len(view):
            break
        length, name = _CHUNK.unpack_from(view, at)
        end = at + 12 + length
        if name == b"IDAT":
            end, n_chunks, _ = codecs.join_png_pixels(values, at, np.empty(0, np.uint8))
            pixels = pixels or (at, end, n_chunks)
        elif name == b"IEND":
            break
        elif end > len(view) or not name.isalpha():
            if pixels is not None:
                break
            raise EOFError("a chunk is cut off") if end > len(view) else SyntaxError("a chunk has an invalid name")
        elif name == b"eXIf":
            if not exif and bytes(view[at + 8 : at + 10]) in (b"II", b"MM") and _is_undamaged(view, at, end):
                exif = bytes(view[at + 8 : end - 4])
        elif pixels is None:
            if name == b"PLTE":
                if colour == PALETTE:
                    if palette or length % 3 or not 3 <= length <= 768:
                        raise SyntaxError(f"invalid palette of {length:,} bytes")
                    palette = view[at:end]
            elif name == b"tRNS":
                if not transparency and _is_undamaged(view, at, end):
                    transparency = bytes(view[at + 8 : end - 4])
            elif name[:1].isupper():
                raise SyntaxError("an unknown critical chunk")
        at = end
    if pixels is None:
        raise EOFError("no pixels")
    if colour == PALETTE and not palette:
        raise SyntaxError("no palette")
    start, end, n_chunks = pixels
    first, is_cut, pixel_chunks = 33 + len(palette), end > len(view), view[start:end]
    if n_chunks > _MAX_PIXEL_CHUNKS:
        body = _joined(values, start, end)
        length = min(len(body) + max(0, end - len(view)), 0x7FFFFFFF)
        crc = b"" if is_cut else bytes(4)  # a placeholder: Pillow does not check it
        pixel_chunks = memoryview(b"".join([_CHUNK.pack(length, b"IDAT"), body, crc]))
    is_all = n_chunks <= _MAX_PIXEL_CHUNKS and start == first and bytes(view[end : end + 13]) == _END
    # No end after truncated pixels: it would be read as pixels.
    only = data if is_all else b"".join([view[:33], palette, pixel_chunks, b"" if is_cut else _END])
    place = first, first + len(pixel_chunks)
    return Png(only, width, height, bits, colour, interlaced != 0, exif, transparency, place)


def transparent(png: Png, samples: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8] | None:
    """Return the alpha channel by the chunk `tRNS`, 0 to 255; None if all pixels are opaque.

    Parameters
    ----------
    png
        Result of `read_chunks`.
    samples
        Pixels as stored: indices of the palette, or grey or RGB values of 8 or 16 bits.
    """
    table = np.frombuffer(png.transparency, np.uint8)
    if png.colour == PALETTE and 0 < len(table) <= 256:
        opaque: npt.NDArray[np.uint8] = np.full(256, 255, np.uint8)
        opaque[: len(table)] = table
        return np.take(opaque, samples)
    if (png.colour, len(table)) not in ((GREY, 2), (RGB, 6)):
        return None
    key = table.view(">u2").astype(np.uint32) & ((1 << png.bits) - 1)
    key = key * 255 // ((1 << png.bits) - 1) if png.bits < 8 else key
    is_key = samples == key[0] if png.colour == GREY else (samples == key).all(axis=-1)
    return np.where(is_key, 0, 255).astype(np.uint8)


def _joined(values: Any, start: int, end: int) -> memoryview:
    """Return the bodies of the chunks of pixels, as far as they are present."""
    body = np.empty(min(end, len(values)) - start, np.uint8)
    _, _, n_bytes = codecs.join_png_pixels(values, start, body)
    return body[: n_bytes - max(0, end - 4 - len(values))].data


def _is_undamaged(view: memoryview, at: int, end: int) -> bool:
    return zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
