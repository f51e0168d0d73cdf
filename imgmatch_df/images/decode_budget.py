"""Limits for files that take far more time or memory to decode than their pixels need, checked in their headers.

The decoders have no limits of their own: a JPEG 2000 file of 134 bytes can take 1.7 GB per megapixel (a tree for each
sample), and a progressive JPEG of 300 KB minutes (hundreds of scans over all pixels).
"""

import itertools
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from imgmatch_df.images.jpeg import Segments

Data = bytes | memoryview

# Photos have 1 to 10 scans, the longest legal progression of an 8-bit grey image 882. An empty scan takes 0.4 s for
# 88 megapixels, so 64 scans take 3 s for 10 megapixels.
MAX_SCANS: Final = 64
# Before the first scan, without comments and metadata. Photos have up to 20; Pillow takes 3 us per segment.
MAX_SEGMENTS: Final = 10_000
# Limits for the structures of OpenJPEG. A code-block of 256 samples is 16 x 16; common are 64 x 64.
_SAMPLES_OF_BLOCK: Final = 256
_FREE_BLOCKS: Final = 16_384
_FREE_TILES: Final = 1024
_MAX_COMPONENTS: Final = 5
_FREE_PACKETS: Final = 1_000_000
_MAX_BOXES: Final = 10_000  # Pillow takes 3 us per box
_MAX_MARKERS: Final = 100_000  # OpenJPEG keeps a list of them

_SOS: Final = b"\xff\xda"
_JP2_SIGNATURE: Final = b"\0\0\0\x0cjP  "
_SUPERBOXES: Final = (b"jp2h", b"res ")  # the second one is inside of the first
# Markers with a body that OpenJPEG knows.
_MARKERS: Final = bytes.fromhex("50 51 52 53 55 57 58 59 5C 5D 5E 5F 60 61 63 64 74 75 77 78 90 93 D9")
_UNKNOWN: Final = 0
_COD, _COC, _SOT, _SOD, _EOC = 0x52, 0x53, 0x90, 0x93, 0xD9


def jpeg_budget(data: Data, segments: Segments) -> str | None:
    """Return why a JPEG is not decoded, None if it is.

    Parameters
    ----------
    data
        The file, from its SOI marker on.
    segments
        Content of its segments.

    Notes
    -----
    The markers of scans are counted in all bytes: in entropy-coded data FF is followed by 00 or a restart marker, so
    no other bytes look like one. Images with a single scan are not searched.
    """
    if segments.n_segments > MAX_SEGMENTS:
        return f"{segments.n_segments:,} segments, at most {MAX_SEGMENTS:,} are read"
    end = segments.end
    has_scan = end + 4 < len(data) and data[end] == _SOS[0] and data[end + 1] == _SOS[1]
    if not segments.is_progressive and has_scan and data[end + 4] >= segments.n_components:
        return None
    n_scans = bytes(data).count(_SOS, end)
    return None if n_scans <= MAX_SCANS else f"{n_scans:,} scans, at most {MAX_SCANS} are decoded"


class _Coding(NamedTuple):
    """Coding style of a component: exponents of the code-blocks, and of the precincts from the lowest level up."""

    n_layers: int
    n_levels: int
    block: tuple[int, int]
    precincts: list[tuple[int, int]]


def jpeg2000_budget(data: Data) -> str | None:
    """Return why a JPEG 2000 file is not decoded, None if it is.

    Parameters
    ----------
    data
        The file, or the codestream only. The decoder refuses other data.
    """
    view = memoryview(data)
    try:
        signature = bytes(view[:8])
        if signature.startswith(b"\xff\x4f\xff\x51"):
            return _check_codestream(view)
        if signature != _JP2_SIGNATURE:
            return None
        boxes = list(itertools.islice(_boxes(view, 0, len(view)), _MAX_BOXES + 1))
        if len(boxes) > _MAX_BOXES:
            return f"more than {_MAX_BOXES:,} boxes"
        start = dict(boxes).get(b"jp2c")
        return None if start is None else _check_codestream(view[start:])
    except (struct.error, IndexError):
        return None  # truncated within its headers


def _check_codestream(data: memoryview) -> str | None:
    width, height, x0, y0, tile_width, tile_height, n_components = struct.unpack_from(">6I8xH", data, 8)
    width, height = width - x0, height - y0
    if width <= 0 or height <= 0 or not tile_width or not tile_height:
        return None
    if n_components > _MAX_COMPONENTS:
        return f"more than {_MAX_COMPONENTS} components"
    n_samples = width * height * n_components
    tile_width, tile_height = min(tile_width, width), min(tile_height, height)
    n_tiles = -(-width // tile_width) * -(-height // tile_height)
    if n_tiles > _FREE_TILES + n_samples // 4096:
        return f"{n_tiles:,} tiles"
    markers = [marker for marker, _ in itertools.islice(_segments(data), _MAX_MARKERS + 1)]
    if len(markers) > _MAX_MARKERS:
        return f"more than {_MAX_MARKERS:,} segments"
    if _UNKNOWN in markers and _SOT in markers[: markers.index(_UNKNOWN)]:
        return "an unknown segment in the header of a tile"  # OpenJPEG refuses it as well
    for coding in _codings(data):
        n_blocks = n_packets = 0.0
        for level, (precinct_x, precinct_y) in enumerate(coding.precincts):
            shift = coding.n_levels - level
            columns = max(1, tile_width >> shift)
            rows = max(1, tile_height >> shift)
            inner = level > 0  # three bands of half the size; the precinct is halved as well
            block_x = min(coding.block[0], max(0, precinct_x - inner))
            block_y = min(coding.block[1], max(0, precinct_y - inner))
            n_precincts = -(-columns // (1 << precinct_x)) * -(-rows // (1 << precinct_y))
            n_blocks += (columns * rows) / (1 << block_x + block_y) + n_precincts
            n_packets += n_precincts * coding.n_layers
        n_blocks, n_packets = n_blocks * n_tiles * n_components, n_packets * n_tiles * n_components
        if n_blocks > _FREE_BLOCKS + n_samples / _SAMPLES_OF_BLOCK * 2:
            return f"{n_blocks:,.0f} code-blocks and precincts for {n_samples:,} samples"
        if n_packets > _FREE_PACKETS + n_samples:
            return f"{n_packets:,.0f} packets for {n_samples:,} samples"
    return None


def _codings(data: memoryview) -> Iterator[_Coding]:
    """Yield each coding style of a codestream, from its main header and the headers of its tiles."""
    n_components = struct.unpack_from(">H", data, 40)[0]
    n_layers = 1
    for marker, at in _segments(data):
        if marker == _COD:
            n_layers = struct.unpack_from(">H", data, at + 2)[0]
            yield _coding(data, at + 5, n_layers, has_precincts=bool(data[at] & 1))
        elif marker == _COC:
            at += 1 if n_components < 257 else 2
            yield _coding(data, at + 1, n_layers, has_precincts=bool(data[at] & 1))


def _coding(data: memoryview, at: int, n_layers: int, *, has_precincts: bool) -> _Coding:
    n_levels = min(data[at], 32)
    block = (data[at + 1] & 15) + 2, (data[at + 2] & 15) + 2
    sizes = data[at + 5 : at + 6 + n_levels] if has_precincts else memoryview(b"\xff" * (n_levels + 1))
    return _Coding(n_layers, n_levels, block, [(size & 15, size >> 4) for size in sizes])


def _segments(data: memoryview) -> Iterator[tuple[int, int]]:
    """Yield marker and offset of the body of each segment, in the main header and the headers of tile-parts."""
    at, tile_end, marker = 2, 0, _COD
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] not in _MARKERS:
            if data[at] != 0xFF and marker != _UNKNOWN:
                return
            marker = _UNKNOWN  # OpenJPEG skips two bytes at a time until a segment that it knows
            yield marker, at
            at += 2
            continue
        marker = data[at + 1]
        if marker == _EOC:
            return
        if marker == _SOD:
            if tile_end <= at:  # until the end of the file
                return
            at = tile_end
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        if length < 2:
            return
        if marker == _SOT:
            n_bytes = struct.unpack_from(">I", data, at + 6)[0]
            tile_end = at + n_bytes if n_bytes else 0
        yield marker, at + 4
        at += 2 + length


def _boxes(view: memoryview, at: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield name and offset of the body of each box up to the codestream, nested ones included."""
    while at + 8 <= end:
        length, name = struct.unpack_from(">I4s", view, at)
        body = at + 8
        if length == 1 and at + 16 <= end:
            (length,), body = struct.unpack_from(">Q", view, body), at + 16
        yield name, body
        if name == b"jp2c" or length < body - at:  # 0: until the end of the file
            return
        if name in _SUPERBOXES[depth : depth + 1]:
            yield from _boxes(view, body, min(at + length, end), depth + 1)
        at += length
