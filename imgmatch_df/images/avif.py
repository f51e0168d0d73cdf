"""Sizes of the AV1 frames of an AVIF, from its boxes and headers, before any pixel is decoded.

libavif trusts the size in the container (`ispe`) and scales the decoded frame to it: a file of 2 KB with a size of
64 x 64 can contain 144 megapixels. It searches items linearly, so 100 KB of references to items take minutes.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

Data = bytes | memoryview

_MAX_BOXES: Final = 10_000
_MAX_FRAMES: Final = 8  # of an item: one, or a few layers
_MAX_OBUS: Final = 10_000
_MAX_COPIES: Final = 4  # how often items may use the bytes of the file
# Pixels of all frames per pixel of the image: there may be alpha, a thumbnail, layers.
_SPARE: Final = 4
_FREE_PIXELS: Final = 10_000_000
_HEADER_BYTES: Final = 1024  # more than a header can have
# Maximum bytes of boxes that libavif reads in nested loops: enough for a grid of 1,024 tiles with alpha.
_MAX_BYTES: Final = {
    b"iinf": 1 << 17,
    b"iloc": 1 << 16,
    b"iref": 1 << 15,
    b"ipma": 1 << 17,
    b"grpl": 1 << 15,
    b"stsc": 1 << 16,
    b"stco": 1 << 20,
    b"co64": 1 << 21,
    b"stts": 1 << 20,
    b"stss": 1 << 20,
    b"stsz": 1 << 22,
}
# Boxes that contain boxes, and the bytes before these.
_CONTAINERS: Final = {
    b"meta": 4,
    b"iinf": 6,
    b"iref": 4,
    **dict.fromkeys((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco", b"grpl"), 0),
}
_META: Final = (b"meta",)
_UNIQUE: Final = ((b"meta", ()), *((name, _META) for name in (b"iloc", b"iinf", b"iref", b"iprp", b"idat")))
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # types of OBUs
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SELECT: Final = 2  # chosen per frame


class Box(NamedTuple):
    """A box: its name, the names of its parents, and start and end of its body."""

    name: bytes
    around: tuple[bytes, ...]
    start: int
    end: int


def largest_frame(data: Data) -> tuple[int, int]:
    """Return the width and height of the largest frame that is decoded for the first image of an AVIF.

    Raises
    ------
    EOFError, struct.error
        If the file ends early.
    ValueError
        If it has no frames, or too many boxes, items or frames.
    """
    boxes = list(read_boxes(data, 0, len(data)))
    places = Counter((box.name, box.around) for box in boxes)
    for name, around in _UNIQUE:
        if places[name, around] > 1:
            raise ValueError(f"two boxes {name.decode()}")
    whole = max((_size(data, box) for box in boxes if box.name == b"ispe"), default=0)
    largest, n_pixels = (0, 0), Counter[int]()
    n_bytes = n_obus = 0
    for image, extents in (*_items(data, boxes), *_samples(data, boxes)):
        n_bytes += sum(end - start for start, end in extents)
        if n_bytes > _MAX_COPIES * len(data):
            raise ValueError("images that share bytes")
        if any(end > len(data) for _, end in extents):
            raise EOFError("the pixels end after the end of the file")
        sequence, n_frames = None, 0
        for kind, body in _obus(b"".join(data[start:end] for start, end in extents)):
            n_obus += 1
            if kind == _SEQUENCE_HEADER:
                sequence = _Sequence(_Bits(body))
            elif kind in (_FRAME_HEADER, _FRAME) and sequence is not None:
                n_frames += 1
                size = sequence.frame_size(_Bits(body))
                largest = max(largest, size, key=math.prod)
                n_pixels[image] += math.prod(size)
            if n_obus > _MAX_OBUS or n_frames > _MAX_FRAMES:
                raise ValueError(f"more than {_MAX_FRAMES} frames, or {_MAX_OBUS:,} parts, of an image")
    if not math.prod(largest):
        raise EOFError("no frames")
    if max(n_pixels.values()) > _SPARE * max(whole, math.prod(largest), _FREE_PIXELS):
        raise ValueError(f"frames of {max(n_pixels.values()):,} pixels for an image of {whole:,}")
    return largest


def read_boxes(data: Data, at: int, end: int, around: tuple[bytes, ...] = (), n_boxes: int = 0) -> Iterator[Box]:
    """Yield the boxes from `at` to `end`, each before its children."""
    while at + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if length == 0 and not around else at + length
        if stop < start or stop > end:
            if not around:  # libavif reads no further than it needs
                return
            raise EOFError("a box ends after its parent")
        n_boxes += 1
        if n_boxes > _MAX_BOXES:
            raise ValueError(f"more than {_MAX_BOXES:,} boxes")
        if stop - start > _MAX_BYTES.get(name, len(data)):
            raise ValueError(f"a box {name.decode()} of {stop - start:,} bytes")
        yield Box(name, around, start, stop)
        if name in _CONTAINERS and name not in around:
            inside = start + _CONTAINERS[name]
            if name == b"iinf" and data[start]:  # its version
                inside += 2
            for box in read_boxes(data, inside, stop, (*around, name), n_boxes):
                n_boxes += 1
                yield box
        at = stop


def _size(data: Data, box: Box) -> int:
    width, height = struct.unpack_from(">II", data, box.start + 4)
    return int(width) * int(height)


def _items(data: Data, boxes: list[Box]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield for each item of type `av01` the image that it belongs to, and the ranges of its bytes."""
    kinds: dict[int, bytes] = {}
    images: dict[int, int] = {}
    for box in boxes:
        if box.name == b"infe" and box.around == (b"meta", b"iinf") and data[box.start] in (2, 3):
            item, _, kind = struct.unpack_from(">HH4s" if data[box.start] == 2 else ">IH4s", data, box.start + 4)
            kinds[item] = kind
    for name in (b"dimg", b"auxl"):  # tiles of an image, and their alpha
        for item, others in read_references(data, boxes, name):
            if name == b"dimg":
                images.update(dict.fromkeys(others, item))
            else:
                images[item] = images.get(others[0], item) if others else item
    idat = next((box for box in boxes if box.name == b"idat" and box.around == _META), None)
    for box in boxes:
        if box.name == b"iloc" and box.around == _META:
            for item, is_in_idat, extents in read_locations(data, box):
                if kinds.get(item) != b"av01":
                    continue
                if is_in_idat and idat is None:
                    raise EOFError("no box idat")
                base = idat.start if is_in_idat and idat is not None else 0
                yield images.get(item, item), [(base + at, base + at + length) for at, length in extents]


def read_references(data: Data, boxes: list[Box], name: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the items with a kind of reference, each with the items that it refers to."""
    letter = "H"
    for box in boxes:
        if box.name == b"iref" and box.around == _META:
            letter = "I" if data[box.start] else "H"  # by its version
        elif box.name == name and box.around == (b"meta", b"iref"):
            item, n_others = struct.unpack_from(f">{letter}H", data, box.start)
            yield item, struct.unpack_from(f">{n_others}{letter}", data, box.start + struct.calcsize(f">{letter}H"))


def read_locations(data: Data, box: Box) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yield for each item its number, whether it is in the box `idat`, and offsets and lengths of its bytes."""
    at, version = box.start + 6, data[box.start]

    def integer(n_bytes: int) -> int:
        nonlocal at
        at += n_bytes
        if at > box.end:
            raise EOFError("the box iloc is cut off")
        return int.from_bytes(data[at - n_bytes : at], "big")

    sizes = data[box.start + 4], data[box.start + 5]
    offset_size, length_size, base_size, index_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15
    wide = 4 if version == 2 else 2
    for _ in range(integer(wide)):
        item = integer(wide)
        is_in_idat = integer(2) & 15 == 1 if version else False
        integer(2)
        base = integer(base_size)
        extents = []
        for _ in range(integer(2)):
            integer(index_size if version else 0)
            offset = base + integer(offset_size)
            extents.append((offset, integer(length_size)))
        yield item, is_in_idat, extents


def _samples(data: Data, boxes: list[Box]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield for each track a number that no item has, and the range of its first sample."""
    offset = length = None
    for box in boxes:
        if box.name == b"trak":
            offset = length = None
        elif box.name in (b"stco", b"co64") and box.end - box.start >= 12:
            (offset,) = struct.unpack_from(">I" if box.name == b"stco" else ">Q", data, box.start + 8)
        elif box.name == b"stsz" and box.end - box.start >= 12:
            (length,) = struct.unpack_from(">I", data, box.start + 4)
            if length == 0 and box.end - box.start >= 16:
                (length,) = struct.unpack_from(">I", data, box.start + 12)
        else:
            continue
        if offset is not None and length is not None:
            yield -box.start, [(offset, offset + length)]


def _obus(stream: Data) -> Iterator[tuple[int, Data]]:
    """Yield the type and the body of each OBU."""
    view, at = memoryview(stream), 0
    while at < len(view):
        header = view[at]
        at += 2 if header & 4 else 1
        length = len(view) - at
        if header & 2:
            length = shift = 0
            for _ in range(8):
                if at >= len(view):
                    raise EOFError("an OBU is cut off")
                byte = view[at]
                at += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if at + length > len(view):
            raise EOFError("an OBU is cut off")
        yield header >> 3 & 15, view[at : at + length]
        at += length


class _Bits:
    """Reader of the bits of a header, the highest bit first."""

    def __init__(self, body: Data) -> None:
        header = bytes(body[:_HEADER_BYTES])
        self._value, self._left = int.from_bytes(header, "big"), 8 * len(header)

    def __call__(self, n_bits: int) -> int:
        self._left -= n_bits
        if self._left < 0:
            raise EOFError("a header is cut off")
        return self._value >> self._left & ((1 << n_bits) - 1)

    def skip_uvlc(self) -> None:
        """Skip a number of variable length."""
        n_zeros = 0
        while not self(1):
            n_zeros += 1
        self(n_zeros if n_zeros < 32 else 0)


class _Sequence:
    """Sizes of frames in a sequence header (AV1 specification, section 5.5)."""

    def __init__(self, read: _Bits) -> None:
        read(4)
        self._is_reduced = read(1)
        self._time_bits = self._id_bits = 0
        self._screen_content = self._integer_mv = _SELECT
        if self._is_reduced:
            read(5)
        else:
            self._read_operating_points(read)
        width_bits, height_bits = read(4) + 1, read(4) + 1
        self._largest = 1 << width_bits, 1 << height_bits
        self._size = read(width_bits) + 1, read(height_bits) + 1
        if self._is_reduced:
            return
        if read(1):
            self._id_bits = read(4) + 2 + read(3) + 1
        read(3 + 4)
        if read(1):
            read(2)
        self._screen_content = _SELECT if read(1) else read(1)
        if self._screen_content:
            self._integer_mv = _SELECT if read(1) else read(1)

    def _read_operating_points(self, read: _Bits) -> None:
        delay_bits = 0
        is_equal = has_model = 0
        if read(1):  # timing
            read(64)
            is_equal = read(1)
            if is_equal:
                read.skip_uvlc()
            has_model = read(1)
            if has_model:
                delay_bits = read(5) + 1
                read(32 + 5)
                self._time_bits = 0 if is_equal else read(5) + 1
                if is_equal:
                    read(5)
        has_delay = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if has_model and read(1):
                read(2 * delay_bits + 1)
            if has_delay and read(1):
                read(4)

    def frame_size(self, read: _Bits) -> tuple[int, int]:
        """Return the width and height of a frame, or the largest possible size if it has its own (section 5.9)."""
        if self._is_reduced:
            return self._size
        if read(1):  # shows a frame that is decoded already
            return 0, 0
        kind, is_shown = read(2), read(1)
        if not is_shown:
            read(1)
        elif self._time_bits:
            read(self._time_bits)
        if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and is_shown):
            read(1)
        read(1)
        if (read(1) if self._screen_content == _SELECT else self._screen_content) and self._integer_mv == _SELECT:
            read(1)
        read(self._id_bits)
        return self._largest if kind == _SWITCH_FRAME or read(1) else self._size
