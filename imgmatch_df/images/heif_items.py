"""Items of a HEIF that its primary image is made of, from its boxes, before any pixel is decoded.

libheif shows the tiles of a file that is cut and leaves the others out. And a small file can have a grid of grids,
whose tiles are all decoded, for an image of few pixels.
"""

import math
import struct
from typing import Final

from imgmatch_df.images.avif import Box, read_boxes, read_locations, read_references

Data = bytes | memoryview

_META: Final = (b"meta",)
_PROPERTIES: Final = (b"meta", b"iprp", b"ipco")
_MAX_DEPTH: Final = 4  # grids of overlays of grids
# Pixels of all tiles per pixel of the image: tiles may exceed it.
_SPARE: Final = 4
_FREE_PIXELS: Final = 10_000_000


def check_items(data: Data) -> int:
    """Check the items of the primary image of a HEIF; return the end of the last item of any kind, such as EXIF.

    Raises
    ------
    EOFError, struct.error
        If the file ends before the bytes of an item.
    ValueError
        If the items have far more pixels than the image.
    """
    boxes = list(read_boxes(data, 0, len(data)))
    primary = _primary(data, boxes)
    if primary is None:  # of a sequence
        return len(data)
    parts = dict(read_references(data, boxes, b"dimg"))
    properties = _properties(data, boxes)
    sizes = {item: _size(data, of_item) for item, of_item in properties.items()}
    seen: dict[int, int] = {}
    n_pixels = _count_pixels(primary, parts, sizes, seen, 0)
    for item, owners in read_references(data, boxes, b"auxl"):
        if primary in owners and _is_alpha(data, properties.get(item, [])):
            n_pixels += _count_pixels(item, parts, sizes, seen, 0)
    whole = max(sizes.get(primary, 0), _FREE_PIXELS)
    if n_pixels > _SPARE * whole:
        raise ValueError(f"tiles of {n_pixels:,} pixels for an image of {sizes.get(primary, 0):,}")
    last = 0
    idat = next((box for box in boxes if box.name == b"idat" and box.around == _META), None)
    for box in boxes:
        if box.name != b"iloc" or box.around != _META:
            continue
        for item, is_in_idat, extents in read_locations(data, box):
            end = len(data)
            if is_in_idat:
                end = 0 if idat is None else idat.end - idat.start
            ends = [at + length for at, length in extents]
            if item in seen and any(one > end for one in ends):
                raise EOFError("the pixels end after the end of the file")
            last = max(last, *ends) if ends and not is_in_idat else last
    return last


def _primary(data: Data, boxes: list[Box]) -> int | None:
    for box in boxes:
        if box.name == b"pitm" and box.around == _META:
            (item,) = struct.unpack_from(">I" if data[box.start] else ">H", data, box.start + 4)
            return int(item)
    return None


def _properties(data: Data, boxes: list[Box]) -> dict[int, list[Box]]:
    """Return the properties of each item."""
    properties = [box for box in boxes if box.around == _PROPERTIES]
    found: dict[int, list[Box]] = {}
    for box in boxes:
        if box.name != b"ipma":
            continue
        id_format, width = ">I" if data[box.start] else ">H", 2 if data[box.start + 3] & 1 else 1
        (n_items,) = struct.unpack_from(">I", data, box.start + 4)
        at = box.start + 8
        for _ in range(n_items):
            if at >= box.end:
                raise EOFError("the box ipma is cut off")
            (item,) = struct.unpack_from(id_format, data, at)
            at += struct.calcsize(id_format)
            n_properties = data[at]
            at += 1
            for place in range(at, at + width * n_properties, width):
                number = int.from_bytes(data[place : place + width], "big") & (0x7FFF if width == 2 else 0x7F)
                if 0 < number <= len(properties):
                    found.setdefault(item, []).append(properties[number - 1])
            at += width * n_properties
    return found


def _size(data: Data, properties: list[Box]) -> int:
    """Return the number of pixels by the property `ispe`, 0 without it."""
    sizes = (struct.unpack_from(">II", data, box.start + 4) for box in properties if box.name == b"ispe")
    return math.prod(next(sizes, (0,)))


def _is_alpha(data: Data, properties: list[Box]) -> bool:
    kinds = (bytes(data[box.start : box.end]) for box in properties if box.name == b"auxC")
    return any(b"auxiliary:alpha" in kind or b":auxid:1\0" in kind for kind in kinds)


def _count_pixels(
    item: int, parts: dict[int, tuple[int, ...]], sizes: dict[int, int], seen: dict[int, int], depth: int
) -> int:
    """Return the pixels that are decoded for an item; `seen` gets those of it and of its parts."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"images in images, more than {_MAX_DEPTH} deep")
    if item not in seen:
        own = parts.get(item)
        of_parts = 0 if own is None else sum(_count_pixels(one, parts, sizes, seen, depth + 1) for one in own)
        seen[item] = of_parts if own else sizes.get(item, 0)
    return seen[item]
