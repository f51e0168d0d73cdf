"""Fast decoder of the pixels of common PNG files, with the results of Pillow in a third of its time.

Pillow spends most of its time in zlib and in the filters of the rows. Here ISA-L inflates, and kernels undo the
filters. Everything else is left to Pillow, which decides what is read: interlaced files, transparent colours of 16
bits, and files with any damage, missing bytes or superfluous ones.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from imgmatch_df.images import png
from imgmatch_df.images.kernels import codecs
from imgmatch_df.images.pixels import SCRATCH

Pixels = npt.NDArray[np.uint8]

_BITS: Final = {
    png.GREY: (1, 2, 4, 8, 16),
    png.RGB: (8, 16),
    png.PALETTE: (1, 2, 4, 8),
    png.GREY_ALPHA: (8, 16),
    png.RGB_ALPHA: (8, 16),
}
_INPUT_BYTES: Final = 1 << 20  # compressed bytes at a time; most files have fewer
_MAX_WINDOW: Final = 7  # as of zlib; ISA-L does not check it
_ROW_BYTES: Final = 1 << 20  # bytes of rows at a time: they stay in the cache of the processor


class Stored(NamedTuple):
    """Pixels of a PNG.

    Parameters
    ----------
    pixels
        As `pixels.stored` returns them.
    alpha
        uint8, (rows, columns); None if all pixels are opaque, or if it is not needed.
    """

    pixels: Pixels
    alpha: Pixels | None


class _UncommonError(Exception):
    """The file has damage, or more than its pixels."""


def read_pixels(chunks: png.Png, *, has_alpha: bool) -> Stored | None:
    """Return the pixels of a common, undamaged PNG in the buffer of the thread, else None.

    Parameters
    ----------
    chunks
        Result of `png.read_chunks`.
    has_alpha
        Whether the alpha channel is needed.
    """
    try:
        from isal import igzip_lib
    except ImportError:  # Windows on Arm has none
        return None
    if not _is_common(chunks, has_alpha=has_alpha):
        return None
    damaged: Any = igzip_lib.IsalError  # annotated as an instance
    n_channels = png.CHANNELS[chunks.colour]
    n_bytes = -(-chunks.width * chunks.bits * n_channels // 8)
    try:
        pieces = _inflate(igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB), chunks, 1 + n_bytes)
        if chunks.colour == png.PALETTE:
            return _read_palette(chunks, pieces, n_bytes, has_alpha=has_alpha)
        if chunks.bits == 8 and n_channels > 2:
            stored = _read_colours(chunks, pieces, n_channels)
        else:
            stored = _read_samples(chunks, pieces, n_bytes, n_channels)
    except (damaged, _UncommonError):
        return None
    if has_alpha and stored.alpha is None and chunks.transparency:
        samples = stored.pixels if stored.pixels.ndim == 2 else stored.pixels[..., :3]
        return stored._replace(alpha=png.transparent(chunks, samples))
    return stored


def _is_common(chunks: png.Png, *, has_alpha: bool) -> bool:
    header = bytes(chunks.data[12:33])
    return (
        chunks.bits in _BITS[chunks.colour]
        and chunks.width > 0
        and chunks.height > 0
        and not chunks.interlaced
        and header[15] == 0  # filters of another method
        and _is_undamaged(header)
        and not (has_alpha and chunks.transparency and chunks.bits == 16)
    )


def _is_undamaged(chunk: png.Data) -> bool:
    """Return whether the checksum of a chunk, from its name on, is right."""
    return crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")


def _blocks(chunks: png.Png) -> Iterator[png.Data]:
    """Yield the bodies of the chunks of pixels, as far as they are present, up to `_INPUT_BYTES` at a time."""
    view, (at, end) = memoryview(chunks.data), chunks.pixel_chunks
    parts: list[png.Data] = []
    n_bytes = 0
    while at + 8 <= end:
        length = int.from_bytes(view[at : at + 4], "big")
        body, at = view[at + 8 : at + 8 + length], at + 12 + length
        while len(body):
            parts.append(body[: _INPUT_BYTES - n_bytes])
            body = body[len(parts[-1]) :]
            n_bytes += len(parts[-1])
            if n_bytes == _INPUT_BYTES:
                yield b"".join(parts) if len(parts) > 1 else parts[0]
                parts, n_bytes = [], 0
    if parts:
        yield b"".join(parts) if len(parts) > 1 else parts[0]


def _inflate(decompressor: Any, chunks: png.Png, n_row_bytes: int) -> Iterator[bytes]:
    """Yield the filtered rows, some whole ones at a time.

    Raises
    ------
    _UncommonError, IsalError
        If they are not all and only the rows of the header, with an undamaged checksum.
    """
    missing = n_row_bytes * chunks.height
    at_once = max(1, _ROW_BYTES // n_row_bytes) * n_row_bytes
    rest = b""  # the beginning of a row
    blocks = _blocks(chunks)
    first = next(blocks, b"")
    if not first or first[0] >> 4 > _MAX_WINDOW:
        raise _UncommonError
    blocks = chain([first], blocks)
    while not decompressor.eof:
        block = next(blocks, b"") if decompressor.needs_input else b""
        if decompressor.needs_input and not block:
            raise _UncommonError
        # One byte more than the last row, to reach the checksum.
        piece = decompressor.decompress(block, min(at_once, missing + 1) - len(rest))
        if not (piece or decompressor.needs_input or decompressor.eof):
            raise _UncommonError
        piece = rest + piece if rest else piece
        n_whole = len(piece) // n_row_bytes * n_row_bytes
        rest = piece[n_whole:]
        missing -= n_whole
        if rest and not missing:
            raise _UncommonError
        if n_whole:
            yield piece[:n_whole] if rest else piece
    if missing or rest or decompressor.unused_data or next(blocks, None) is not None:
        raise _UncommonError


def _unfilter(pieces: Iterator[bytes], n_bytes: int, kernel: Callable[..., bool], rows: Any, *distance: int) -> None:
    start = 0
    for piece in pieces:
        if not kernel(codecs.as_bytes(piece), start, rows, *distance):
            raise _UncommonError
        start += len(piece) // (1 + n_bytes)


def _read_colours(chunks: png.Png, pieces: Iterator[bytes], n_channels: int) -> Stored:
    from imgmatch_df.images.kernels import filters

    shape = chunks.height, chunks.width
    words = SCRATCH.take(4 * shape[0] * shape[1]).view(np.uint32).reshape(shape)
    _unfilter(pieces, n_channels * chunks.width, filters.unfilter_pixels, words, n_channels)
    pixels = words.view(np.uint8).reshape(*shape, 4)
    return Stored(pixels, pixels[..., 3] if n_channels == 4 else None)


def _read_samples(chunks: png.Png, pieces: Iterator[bytes], n_bytes: int, n_channels: int) -> Stored:
    from imgmatch_df.images.kernels import filters

    height, width = chunks.height, chunks.width
    if is_grey := chunks.bits == 8 and n_channels == 1:
        rows = SCRATCH.take(height * width).reshape(height, width)
    else:
        rows = np.empty((height, n_bytes), np.uint8)
    distance = max(1, chunks.bits * n_channels // 8)
    if distance == 1:
        _unfilter(pieces, n_bytes, filters.unfilter_single_bytes, rows)
    else:
        _unfilter(pieces, n_bytes, filters.unfilter_bytes, rows, distance)
    if is_grey:
        return Stored(rows, None)
    if chunks.bits < 8:
        grey = SCRATCH.take(height * width).reshape(height, width)
        filters.unpack_samples(rows, chunks.bits, 255 // ((1 << chunks.bits) - 1), grey)
        return Stored(grey, None)
    samples = rows.reshape(height, width, n_channels, -1)[..., 0]  # of 16 bits the high byte
    has_alpha = n_channels in (2, 4)
    if n_channels == 1 or (n_channels == 2 and chunks.bits == 8):
        grey = SCRATCH.take(height * width).reshape(height, width)
        grey[...] = samples[..., 0]
        return Stored(grey, samples[..., 1] if has_alpha else None)
    pixels = SCRATCH.take(4 * height * width).reshape(height, width, 4)
    pixels[..., :3] = samples[..., :3] if n_channels > 2 else samples[..., :1]
    pixels[..., 3] = samples[..., -1] if has_alpha else 255
    return Stored(pixels, pixels[..., 3] if has_alpha else None)


def _read_palette(chunks: png.Png, pieces: Iterator[bytes], n_bytes: int, *, has_alpha: bool) -> Stored:
    from imgmatch_df.images.kernels import filters

    chunk = memoryview(chunks.data)[33 : chunks.pixel_chunks[0]]
    if not _is_undamaged(chunk[4:]):
        raise _UncommonError
    colours = np.frombuffer(chunk[8:-4], np.uint8).reshape(-1, 3)
    table = np.full((256, 4), 255, np.uint8)
    table[: len(colours), :3] = colours
    indices: Pixels = np.empty((chunks.height, n_bytes), np.uint8)
    # Indices are seldom filtered, and unfiltered rows are copied here.
    _unfilter(pieces, n_bytes, filters.unfilter_bytes, indices, 1)
    if chunks.bits < 8:
        rows, indices = indices, np.empty((chunks.height, chunks.width), np.uint8)
        filters.unpack_samples(rows, chunks.bits, 1, indices)
    if len(colours) < 1 << chunks.bits and filters.largest_sample(indices) >= len(colours):
        raise _UncommonError
    words = SCRATCH.take(4 * indices.size).view(np.uint32).reshape(indices.shape)
    codecs.look_up(indices, table.view(np.uint32)[:, 0], True, words)
    alpha = png.transparent(chunks, indices) if has_alpha and chunks.transparency else None
    return Stored(words.view(np.uint8).reshape(*indices.shape, 4), alpha)
