"""Decoder of TIFF, by the rules of libtiff's tif_getimage.c, which OpenCV uses.

Pillow converts TIFF to its own modes, which do not cover all kinds. So only its decompressors are used: it gets the
strips or tiles of a file with other tags, for which it returns plain bytes. Large images are decompressed band by
band, so that a few MB are used in addition to the pixels, for any number of bits per sample.
"""

import io
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from imgmatch_df.images import tiff_colours
from imgmatch_df.images.pixels import memory, strips
from imgmatch_df.images.tiff_colours import RowBand
from imgmatch_df.images.tiff_streams import CheckedInflate, UncommonBlockError, open_stream
from imgmatch_df.images.tiff_tags import Layout, Tags, UnsupportedTiffError, blocks_of, layout_of

__all__ = ["SIGNATURES", "Tiff", "TooManyPixelsError", "UnsupportedTiffError", "decode"]

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

# As in Pillow, bytes 2 and 3 may be in the wrong order.
SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")

_NAMES: Final = {
    2: "CCITT RLE",
    3: "CCITT G3",
    4: "CCITT G4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "deflate",
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32771: "CCITT RLE",
    32773: "PackBits",
    32809: "ThunderScan",
    32909: "PixarLog",
    32946: "deflate",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGILog",
    34677: "SGILog",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_FAX: Final = (2, 3, 4, 32771)
_DEFLATE: Final = (8, 32946)
_BYTES: Final = (5, 8, 32946, 32773, 34925, 50000)  # compressions of any bytes
_IMAGES: Final = (6, 7, 32909, 50001)  # compressions of images with 8-bit samples
# Mode of Pillow and photometric interpretation, by number of samples.
_MODES: Final = {1: ("L", 1), 3: ("RGB", 2), 4: ("RGBA", 2)}
_IMAGE_MODES: Final = {**_MODES, 2: ("LA", 1)}  # Pillow stores four bytes per pixel for two samples
_MAX_BITS: Final = 320  # per pixel: five 64-bit values. A small file could declare 65,535 samples
MAX_PADDING: Final = 4  # maximum pixels of all tiles, in multiples of `max_pixels`: tiles may exceed the image
_BAND_BYTES: Final = 8 << 20  # stored rows at a time, but at least one strip or row of tiles
_MAX_SUBSAMPLED_WIDTH: Final = 1 << 20  # limit of OpenCV
_MAX_ROW_BYTES: Final = 64 << 20  # a row is the smallest unit of decompression
_MAX_OLD_LZW_BYTES: Final = 64 << 20  # a strip or a row of tiles, which Pillow decompresses as a whole
_FREE_BLOCKS: Final = 65_536
_MIN_BLOCK_BYTES: Final = 8192  # of more than `_MAX_SMALL_BLOCKS` that are read without libtiff
_MAX_SMALL_BLOCKS: Final = 16
_PIXELS_OF_BLOCK: Final = {True: 256, False: 16}  # minimum above `_FREE_BLOCKS`; key: whether blocks are compressed


class TooManyPixelsError(Exception):
    """`size` is the width and height of the image, or of the blocks that must be decompressed for it."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.size = width, height


class Tiff(NamedTuple):
    """A decoded image: uint8 pixels, (rows, columns) grey or (rows, columns, 4), and the EXIF orientation to apply."""

    pixels: Pixels
    orientation: int
    width: int
    height: int


def decode(
    data: Data,
    max_pixels: int,
    take: Callable[[int], Pixels],
    background: int | None = None,
    *,
    admit: Callable[[int, int, int], object] = lambda *_: None,
) -> Tiff:
    """Return the first image of a TIFF.

    Parameters
    ----------
    data
        The file.
    max_pixels
        Maximum pixels of the image, and of one of its tiles.
    take
        Returns a buffer of a number of bytes for the pixels.
    background
        Grey value behind transparent pixels, 0 to 255; None drops the transparency.
    admit
        Called with width, height and bytes that decoding takes, before any memory is used.

    Raises
    ------
    TooManyPixelsError
        Before any memory is allocated.
    UnsupportedTiffError
        The file is of an unsupported kind.
    EOFError, ValueError, OSError, struct.error
        The file is truncated or damaged.
    """
    tags = Tags(data)
    layout = layout_of(tags)
    width, height = layout.width, layout.height
    for columns, rows, limit in (
        (width, height, max_pixels),
        (layout.block_width, layout.block_height, max_pixels),
        (layout.across * layout.block_width, layout.down * layout.block_height, MAX_PADDING * max_pixels),
    ):
        if columns * rows > limit:
            raise TooManyPixelsError(columns, rows)
    _check(tags, layout)
    if layout.compression in (6, 7) and layout.photometric == 6 and not layout.planes:
        layout = layout._replace(photometric=2)  # libjpeg returns red, green and blue
    elif layout.compression in _FAX and layout.photometric != 3:
        layout = layout._replace(bits=8)  # the decompressor returns 0 and 255
    grid = _grid(layout)
    shows_alpha = background is not None and tiff_colours.has_alpha(layout)
    n_planes = tiff_colours.planes_wanted(layout, with_alpha=shows_alpha) if layout.planes else 1
    admit(width, height, bytes_needed(layout.compression, width, height, grid, n_planes, len(data)))
    offsets, counts = blocks_of(tags, layout, grid.estimate)

    def pixels(*, is_quick: bool) -> Pixels:
        bands: Iterable[RowBand] = _RowBands(tags, layout, grid, offsets, counts, n_planes, is_quick=is_quick)
        if n_planes * grid.n_rows * grid.row_bytes <= _BAND_BYTES:
            bands = list(bands)  # they may be needed twice
        pixels = tiff_colours.pixels_of(tags, layout, bands, take)
        if background is not None and shows_alpha:
            tiff_colours.put_over(pixels, layout, bands, background)
        return pixels

    # A block takes 11 us more here than in libtiff, and a file 200 us less.
    is_quick = len(offsets) <= _MAX_SMALL_BLOCKS or grid.block_rows * grid.block_bytes >= _MIN_BLOCK_BYTES
    try:
        image = pixels(is_quick=is_quick)
    except UncommonBlockError:  # libtiff decides what is read
        image = pixels(is_quick=False)
    return Tiff(image, layout.orientation, width, height)


def _check(tags: Tags, layout: Layout) -> None:
    """Raise if the file is of an unsupported kind."""
    compression, bits = layout.compression, layout.bits
    name = _NAMES.get(compression, f"compression {compression}")
    if compression not in (1, *_FAX, *_BYTES, *_IMAGES):
        raise UnsupportedTiffError(f"compressed by {name}")
    if not layout.planes and layout.n_samples * bits > _MAX_BITS:
        raise UnsupportedTiffError(f"{layout.n_samples} samples of {bits} bits per pixel")
    if compression in _FAX and (bits, layout.n_samples) != (1, 1):
        raise UnsupportedTiffError(f"{name} of {layout.n_samples} samples of {bits} bits")
    if compression in _IMAGES and (bits != 8 or (not layout.planes and layout.n_samples not in _IMAGE_MODES)):
        raise UnsupportedTiffError(f"{name} of {layout.n_samples} samples of {bits} bits")
    if layout.predictor not in (1, 2, 3):
        raise UnsupportedTiffError(f"predictor {layout.predictor}")
    if layout.predictor == 2 and bits not in (8, 16, 32, 64):
        raise UnsupportedTiffError(f"predictor 2 of {bits}-bit samples")
    if layout.predictor == 3 and (layout.sample_format != 3 or bits not in (16, 32, 64)):
        raise UnsupportedTiffError(f"predictor 3 of {bits}-bit samples that are not floats")
    n_blocks = layout.across * layout.down
    if layout.width > _MAX_SUBSAMPLED_WIDTH and tiff_colours.is_subsampled(layout):
        raise UnsupportedTiffError(f"subsampled YCbCr of {layout.width:,} columns")
    if n_blocks > _FREE_BLOCKS + layout.width * layout.height // _PIXELS_OF_BLOCK[compression != 1]:
        kind = "tiles" if layout.tiled else "strips"
        raise UnsupportedTiffError(f"{n_blocks:,} {kind} of {layout.block_width}x{layout.block_height} pixels")
    if tags.hint(32997, 1) != 1 or tags.hint(32998, 1) != 1:
        raise UnsupportedTiffError("volume of several slices")
    tiff_colours.check(tags, layout)


class Grid(NamedTuple):
    """Sizes of the stored rows: rows of pixels, or of blocks of pixels if YCbCr is subsampled."""

    n_rows: int  # in the image
    row_bytes: int
    block_rows: int  # in a full strip or tile
    block_bytes: int  # per row of a block
    estimate: int  # libtiff's estimate of the bytes of a full strip or tile


def _grid(layout: Layout) -> Grid:
    if tiff_colours.is_subsampled(layout):
        across, down = layout.subsampling
        unit = across * down + 2
        rows, columns = -(-layout.block_height // down), -(-layout.block_width // across)
        whole, rest = divmod(layout.height, layout.block_height)
        n_rows = whole * rows + -(-rest // down)
        estimate = rows * columns * unit if layout.tiled else columns * unit // down * layout.block_height
        return Grid(n_rows, layout.across * columns * unit, rows, columns * unit, estimate)
    bits = layout.bits * (1 if layout.planes else layout.n_samples)
    row_bytes, block_bytes = -(-layout.width * bits // 8), -(-layout.block_width * bits // 8)
    if layout.across > 1 and layout.block_width * bits % 8:
        raise UnsupportedTiffError("tiles whose width is not a whole number of bytes")
    if row_bytes > _MAX_ROW_BYTES and layout.compression != 1:
        raise UnsupportedTiffError(f"rows of {row_bytes:,} bytes")
    return Grid(layout.height, row_bytes, layout.block_height, block_bytes, layout.block_height * block_bytes)


def bytes_needed(compression: int, width: int, height: int, grid: Grid, n_planes: int, n_data: int) -> int:
    """Return the bytes of memory that decoding an image takes."""
    block = grid.block_rows * grid.block_bytes
    blocks = grid.block_rows * grid.row_bytes  # side by side
    whole = grid.n_rows * grid.row_bytes
    in_bands = compression == 1 or compression in _BYTES
    rows = min(whole, max(_BAND_BYTES, blocks)) if in_bands else whole
    if compression in _BYTES and blocks > _BAND_BYTES:  # streams and their buffers
        rows, block = 4 * _BAND_BYTES, 0
    elif compression == 1:
        block = 0
    else:  # Pillow's pixels of three samples have 4 bytes
        rows += rows // 3 + min(n_data, 4 * rows if in_bands else n_data)
    return 4 * width * height + n_planes * (rows + block)


class _RowBands:
    """Stored rows of an image; each iteration decompresses them again."""

    def __init__(
        self, tags: Tags, layout: Layout, grid: Grid, offsets: Any, counts: Any, n_planes: int, *, is_quick: bool
    ) -> None:
        self._tags = tags
        self._layout = layout
        self._grid = grid
        self._offsets = offsets.reshape(-1, layout.down, layout.across)[:n_planes]
        self._counts = counts.reshape(-1, layout.down, layout.across)[:n_planes]
        self._is_quick = is_quick

    def __iter__(self) -> Iterator[RowBand]:
        layout, grid = self._layout, self._grid
        in_bands = layout.compression == 1 or layout.compression in _BYTES
        step = max(1, _BAND_BYTES // (grid.block_rows * grid.row_bytes)) if in_bands else layout.down
        for first in range(0, layout.down, step):
            last = min(first + step, layout.down)
            n_rows = min(last * grid.block_rows, grid.n_rows) - first * grid.block_rows
            planes = [
                self._read(offsets[first:last].ravel(), counts[first:last].ravel(), grid._replace(n_rows=n_rows))
                for offsets, counts in zip(self._offsets, self._counts, strict=True)
            ]
            top, bottom = first * layout.block_height, min(last * layout.block_height, layout.height)
            if tiff_colours.is_subsampled(layout):
                yield RowBand(slice(top, bottom), [_joined(list(parts)) for parts in planes])
                continue
            for parts in zip(*planes, strict=True):
                yield RowBand(slice(top, top + len(parts[0])), list(parts))
                top += len(parts[0])

    def _read(self, offsets: Any, counts: Any, grid: Grid) -> Iterator[Pixels]:
        """Yield the decompressed rows of some blocks of a plane, (rows, bytes)."""
        tags, layout = self._tags, self._layout
        if layout.compression == 1:
            rows = _read_plain(tags.data, layout, grid, offsets, counts)
            yield tiff_colours.REVERSED[rows] if layout.reversed_bits else rows
            return
        n_bytes = grid.block_rows * grid.row_bytes  # of blocks side by side
        stream: Iterator[Pixels] | None = None
        if self._is_quick and layout.compression in _DEFLATE:
            stream = self._read_checked(offsets, counts, grid)
        elif n_bytes > _BAND_BYTES and (reads := _open_streams(tags, layout, offsets, counts)):
            stream = _stream(grid, reads)
        elif layout.compression in _BYTES and n_bytes > _MAX_OLD_LZW_BYTES:
            raise UnsupportedTiffError(f"LZW of before TIFF 5 in a strip or tiles of {n_bytes:,} bytes")
        if stream is not None:
            for rows in stream:
                yield self._undo_predictor(rows, grid)[:, : grid.row_bytes]
            return
        for rows, predicted in _decompress(tags, layout, grid, offsets, counts):
            undone = rows if predicted else self._undo_predictor(rows, grid)
            yield undone[:, : grid.row_bytes] if layout.predictor == 3 else undone

    def _read_checked(self, offsets: Any, counts: Any, grid: Grid) -> Iterator[Pixels]:
        """Yield the rows of undamaged blocks, each row as long as the blocks side by side."""
        tags, layout = self._tags, self._layout
        size = grid.block_rows * grid.block_bytes
        parts = list(zip(offsets.tolist(), counts.tolist(), strict=True))
        for i, top in enumerate(range(0, grid.n_rows, grid.block_rows)):
            one = grid._replace(n_rows=min(grid.block_rows, grid.n_rows - top))
            n_bytes = size if layout.tiled else one.n_rows * grid.block_bytes
            row = parts[i * layout.across : (i + 1) * layout.across]
            blocks = [CheckedInflate(_block(tags, layout, *part), n_bytes) for part in row]
            yield from _stream(one, [block.read for block in blocks])
            for block in blocks:
                block.check()

    def _undo_predictor(self, rows: Pixels, grid: Grid) -> Pixels:
        layout = self._layout
        if layout.predictor == 1:
            return rows
        step = 1 if layout.planes else layout.n_samples
        undo = tiff_colours.undo_differences if layout.predictor == 2 else tiff_colours.undo_float_differences
        rows = rows if rows.flags.writeable else rows.copy()
        for left in range(0, rows.shape[1], grid.block_bytes):  # each tile separately
            undo(rows[:, left : left + grid.block_bytes], layout, step)
        return rows


def _joined(parts: list[Pixels]) -> Pixels:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _read_plain(data: Data, layout: Layout, grid: Grid, offsets: Any, counts: Any) -> Pixels:
    first, size = int(offsets[0]), grid.block_rows * grid.row_bytes
    n_bytes = grid.n_rows * grid.row_bytes
    last = n_bytes - (len(offsets) - 1) * size  # bytes of the last strip
    is_plain = not layout.tiled and counts[-1] >= last
    if is_plain and (len(counts) == 1 or ((counts[:-1] >= size).all() and (np.diff(offsets) == size).all())):
        return np.frombuffer(data, np.uint8, n_bytes, first).reshape(grid.n_rows, grid.row_bytes)  # contiguous
    rows = np.empty((grid.n_rows, grid.row_bytes), np.uint8)
    blocks = zip(offsets.tolist(), counts.tolist(), strict=True)
    for top in range(0, grid.n_rows, grid.block_rows):
        for left in range(0, grid.row_bytes, grid.block_bytes):
            offset, count = next(blocks)
            target = rows[top : top + grid.block_rows, left : left + grid.block_bytes]
            n_rows = grid.block_rows if layout.tiled else len(target)
            if count < n_rows * grid.block_bytes:
                raise EOFError(f"{n_rows * grid.block_bytes:,} bytes needed at byte {offset:,}, {count:,} announced")
            stored = np.frombuffer(data, np.uint8, len(target) * grid.block_bytes, offset)
            target[...] = stored.reshape(len(target), grid.block_bytes)[:, : target.shape[1]]
    return rows


def _open_streams(tags: Tags, layout: Layout, offsets: Any, counts: Any) -> list[Callable[[int], Pixels]]:
    """Return a stream for each of some blocks, an empty list if their compression has none."""
    reads = []
    for offset, count in zip(offsets.tolist(), counts.tolist(), strict=True):
        read = open_stream(layout.compression, _block(tags, layout, offset, count))
        if read is None:
            return []
        reads.append(read)
    return reads


def _block(tags: Tags, layout: Layout, offset: int, count: int) -> Pixels:
    block = np.frombuffer(tags.data, np.uint8, count, offset)
    return tiff_colours.REVERSED[block] if layout.reversed_bits else block


def _stream(grid: Grid, reads: list[Callable[[int], Pixels]]) -> Iterator[Pixels]:
    """Yield rows of a strip, or of tiles side by side, each as long as these; the predictor is not undone."""
    step = max(1, _BAND_BYTES // (len(reads) * grid.block_bytes))
    for top in range(0, grid.n_rows, step):
        n_rows = min(step, grid.n_rows - top)
        blocks = [read(n_rows * grid.block_bytes).reshape(n_rows, grid.block_bytes) for read in reads]
        yield blocks[0] if len(blocks) == 1 else np.hstack(blocks)


def _decompress(tags: Tags, layout: Layout, grid: Grid, offsets: Any, counts: Any) -> Iterator[tuple[Pixels, bool]]:
    """Yield rows that Pillow's libtiff decompresses, (rows, bytes), and whether the predictor is undone."""
    n_samples = 1 if layout.planes else layout.n_samples
    compression = layout.compression
    modes = _IMAGE_MODES if compression in _IMAGES else _MODES
    mode, photometric, bits, predictor = "L", 1, 8, 1
    width, height, block_width = grid.row_bytes, grid.n_rows, grid.block_bytes
    if layout.predictor == 3:  # it needs complete rows of a tile
        width = layout.across * grid.block_bytes
    more: dict[int, tuple[int, Any]] = {}
    if compression in _FAX:
        mode, bits = "1", 1
        width, block_width = layout.width, layout.block_width
        more = {tag: (4, [tags.hint(tag, 0, 0, 0xFFFFFFFF)]) for tag in (292, 293)}
        n_samples = 1
    elif layout.bits == 8 and n_samples in modes and not tiff_colours.is_subsampled(layout):
        mode, photometric = modes[n_samples]
        width, block_width, predictor = layout.width, layout.block_width, layout.predictor
        if compression in (6, 7):
            more = _jpeg_tags(tags)
            photometric = 6 if tags.hint(262, 6) == 6 and mode == "RGB" else photometric
    else:
        n_samples = 1
    data = tags.data
    if compression in _BYTES and len(offsets) < layout.across * layout.down:  # a band
        data, offsets, counts = _only(data, offsets, counts, grid.block_rows * grid.block_bytes)
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * n_samples),
        259: (3, [compression]),
        262: (3, [photometric]),
        266: (3, [1]),
        277: (3, [n_samples]),
        284: (3, [1]),
        317: (3, [predictor]),
        **({338: (3, [2])} if mode in ("LA", "RGBA") else {}),
        **({322: (4, [block_width]), 323: (4, [grid.block_rows])} if layout.tiled else {278: (4, [grid.block_rows])}),
        324 if layout.tiled else 273: (4, offsets),
        325 if layout.tiled else 279: (4, counts),
        **more,
    }
    if layout.reversed_bits and compression not in (6, 7):  # not for libjpeg
        data = tiff_colours.REVERSED[np.frombuffer(data, np.uint8)].tobytes()
    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(_with_tags(data, entries))) as image:
            del data
            image.load()
    except OSError as error:
        raise ValueError(f"its {_NAMES[compression]} data are damaged or end early") from error
    step = 4 if mode in ("RGB", "RGBA") else 1  # bytes per pixel in Pillow's memory
    for _, strip in strips(image):
        if mode == "LA":
            rows = np.asarray(strip).reshape(strip.height, -1)
        else:
            rows = memory(strip.convert("L") if mode == "1" else strip).reshape(strip.height, width * step)
        if layout.predictor != 1 and predictor == 1:
            rows = rows.copy()  # changed in place later
        yield np.packbits(rows, axis=1) if layout.bits == 1 and mode == "1" else rows, predictor != 1


def _only(data: Data, offsets: Any, counts: Any, n_bytes: int) -> tuple[bytes, Any, Any]:
    """Return a file with the compressed bytes of some blocks only, and their offsets and byte counts.

    `n_bytes` is the size of a block. Blocks of more than four times as many bytes are truncated: they may overlap.
    """
    counts = np.minimum(counts, 4 * n_bytes + 1024)
    ends = 8 + np.cumsum(counts)
    view = memoryview(data)
    blocks = [view[at : at + count] for at, count in zip(offsets.tolist(), counts.tolist(), strict=True)]
    return b"".join([bytes(8), *blocks]), ends - counts, counts


def _jpeg_tags(tags: Tags) -> dict[int, tuple[int, Any]]:
    more: dict[int, tuple[int, Any]] = {}
    for tag in (530, *range(512, 522)):
        if tag in tags:
            more[tag] = (3 if tag in (512, 515, 530) else 4, tags.integers(tag, 16))
    if 347 in tags:
        more[347] = (7, np.frombuffer(tags.raw(347), np.uint8))
    return more


def _with_tags(data: Data, entries: dict[int, tuple[int, Any]]) -> bytes:
    """Return a file with the bytes of `data` at the same offsets and with other tags."""
    at = len(data) + len(data) % 2
    if at + (1 << 20) > 0xFFFFFFFF:
        raise UnsupportedTiffError("compressed and 4 GiB or more")
    table, after = bytearray(struct.pack("<H", len(entries))), bytearray()
    rest = at + 2 + 12 * len(entries) + 4
    for tag in sorted(entries):
        kind, values = entries[tag]
        body = np.asarray(values).astype({3: "<u2", 4: "<u4", 7: "u1"}[kind]).tobytes()
        table += struct.pack("<HHI", tag, kind, len(values))
        if len(body) > 4:
            table += struct.pack("<I", rest + len(after))
            after += body + bytes(len(body) % 2)
        else:
            table += body.ljust(4, b"\0")
    return b"".join((b"II*\0", struct.pack("<I", at), data[8:], bytes(len(data) % 2), table, bytes(4), after))
