"""BMP, by the rules of OpenCV's reader: headers of every size, masks of every layout, run-length codes."""

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.kernels import codecs
from imgmatch_df.images.pixels import unpack

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_RGB, _RLE8, _RLE4, _BITFIELDS = range(4)
_PLAIN, _PLAIN_ALPHA = (0xFF0000, 0xFF00, 0xFF), 0xFF000000
_DEPTHS: Final = {_RGB: (1, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,), _BITFIELDS: (16, 32)}


class BmpHeader(NamedTuple):
    """Header of a BMP.

    Parameters
    ----------
    width, height
        Size of the image, in pixels.
    bits
        Bits per pixel.
    compression
        0 to 3.
    top_down
        Whether the first stored row is the top row.
    palette
        Blue, green and red of each colour, (colours, 3).
    masks
        Bits of red, green, blue and alpha in a pixel of 16 or 32 bits; 0 for an absent channel.
    offset
        Start of the pixels in the file.
    """

    width: int
    height: int
    bits: int
    compression: int
    top_down: bool
    palette: Pixels
    masks: tuple[int, int, int, int]
    offset: int


def read_header(data: Data) -> BmpHeader:
    """Return the header.

    Raises
    ------
    struct.error, EOFError
        If the file ends within it.
    ValueError
        If it is not supported.
    """
    offset, size = struct.unpack_from("<II", data, 10)
    n_used = compression = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    elif size >= 36:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (n_used,) = struct.unpack_from("<I", data, 46)
    else:
        raise ValueError("unknown header")  # no values: the file may be a secret of this machine
    if bits not in _DEPTHS.get(compression, ()) or (size == 12 and bits == 16):
        raise ValueError("unsupported compression or number of bits per pixel")
    if width <= 0 or height == 0:
        raise ValueError("no pixels")
    after, palette, masks = 14 + size, np.zeros((256, 3), np.uint8), (0, 0, 0, 0)
    if bits <= 8:
        entry, n_colours = (3, 1 << bits) if size == 12 else (4, n_used or 1 << bits)
        if n_colours > 256:
            raise ValueError("palette of more than 256 colours")
        if after + n_colours * entry > len(data):
            raise EOFError(f"palette of {n_colours} colours announced")
        palette[:n_colours] = np.frombuffer(data, np.uint8, n_colours * entry, after).reshape(-1, entry)[:, :3]
        after += n_colours * entry
    elif bits in (16, 32):
        masks = (0x7C00, 0x3E0, 0x1F, 0) if bits == 16 else (*_PLAIN, 0)
        if compression == _BITFIELDS and (size >= 52 or offset >= after + 12):
            at = 54 if size >= 52 else after
            red, green, blue = struct.unpack_from("<III", data, at)
            alpha = struct.unpack_from("<I", data, at + 12)[0] if size >= 56 else 0
            masks = (red, green, blue, alpha) if red | green | blue else masks
    if bits == 16 and masks[:3] not in ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)):
        raise ValueError("16 bits per pixel with masks other than 5-5-5 and 5-6-5")
    return BmpHeader(width, abs(height), bits, compression, height < 0, palette, masks, offset or after)


def read_pixels(data: Data, header: BmpHeader, take: Callable[[int], Pixels]) -> tuple[Pixels, Pixels | None]:
    """Return the pixels, (rows, columns, 4) with an unused byte, or grey, and the alpha channel if there is a mask.

    Parameters
    ----------
    data
        The file.
    header
        Its header.
    take
        Returns a buffer of a number of bytes.

    Raises
    ------
    EOFError
        If the file ends before its last pixel.
    """
    width, height, bits = header.width, header.height, header.bits
    pitch = (width * bits + 31) // 32 * 4
    n_bytes = pitch * height
    if header.compression in (_RGB, _BITFIELDS) and header.offset + n_bytes > len(data):
        raise EOFError(f"{n_bytes:,} bytes of pixels announced, {max(0, len(data) - header.offset):,} found")
    if bits == 24 or (bits == 32 and header.masks[:3] == _PLAIN and header.masks[3] in (0, _PLAIN_ALPHA)):
        rawmode = "BGR" if bits == 24 else "BGRA" if header.masks[3] else "BGRX"
        pixels = unpack(data, header.offset, (width, height), rawmode, pitch, top_down=header.top_down)
        return pixels, pixels[..., 3] if header.masks[3] else None
    if header.compression in (_RLE8, _RLE4):
        codes, indices = codecs.as_bytes(data), np.empty((height, width), np.uint8)
        has_nibbles = header.compression == _RLE4
        # Some writers omit the codes for the end of a row; some encode the padding of a row as well.
        if not any(
            codecs.decode_run_lengths(codes, header.offset, has_nibbles, has_lines, indices)
            for has_lines in (True, False)
        ):
            raise EOFError(f"{height:,} rows announced")
        return _look_up(header, indices, take), None
    rows = np.frombuffer(data, np.uint8, n_bytes, header.offset).reshape(height, pitch)
    if bits <= 8:
        return _look_up(header, _unpacked(rows, bits), take), None
    pixels = take(width * height * 4).reshape(height, width, 4)
    out = pixels if header.top_down else pixels[::-1]
    words = rows.view("<u2" if bits == 16 else "<u4")[:, :width]
    for channel, mask in enumerate(header.masks[:3]):
        out[..., channel] = _channel(words, mask, bits)
    if header.masks[3]:
        alpha = np.ascontiguousarray(_channel(words, header.masks[3], bits))
        return pixels, alpha if header.top_down else alpha[::-1]
    return pixels, None


def _channel(words: npt.NDArray[Any], mask: int, bits: int) -> npt.NDArray[Any]:
    if not mask:
        return np.zeros(words.shape, np.uint8)
    low, high = (mask & -mask).bit_length() - 1, mask.bit_length()
    values: npt.NDArray[Any] = (words & words.dtype.type(mask)) >> words.dtype.type(low)
    if bits == 16:
        values <<= 8 - (high - low)  # OpenCV pads five and six bits with zeros
        return values
    if high - low != 8:
        values = (values.astype(np.float32) * np.float32(255 / ((1 << high - low) - 1))).astype(np.uint8)
    return values


def _unpacked(rows: Pixels, bits: int) -> Pixels:
    match bits:
        case 1:
            return np.unpackbits(rows, axis=1)
        case 4:
            return np.stack([rows >> 4, rows & 15], axis=-1).reshape(len(rows), -1)
    return rows


def _look_up(header: BmpHeader, rows: Pixels, take: Callable[[int], Pixels]) -> Pixels:
    """Return the colours of the indices in `rows`, as grey if all colours are grey."""
    width, height = header.width, header.height
    rows.flags.writeable = False  # one argument type, for which the kernel is compiled once
    colours = np.zeros((256, 4), np.uint8)
    colours[:, :3] = header.palette[:, ::-1]
    if (colours[:, :3] == colours[:, :1]).all():
        grey = take(width * height).reshape(height, width)
        if (colours[:, 0] == np.arange(256)).all():
            grey[...] = (rows if header.top_down else rows[::-1])[:, :width]
        else:
            codecs.look_up(rows, colours[:, 0].copy(), header.top_down, grey)
        return grey
    pixels = take(width * height * 4).reshape(height, width, 4)
    codecs.look_up(rows, colours.view(np.uint32)[:, 0], header.top_down, pixels.view(np.uint32)[..., 0])
    return pixels
