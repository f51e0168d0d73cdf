"""Tags of the first image of a TIFF, with the types, defaults and repairs of libtiff's tif_dirread.c.

OpenCV reads TIFF with libtiff, so its interpretation of a file is the reference.
"""

import struct
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Data = bytes | memoryview

_KINDS: Final = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    5: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    10: "i4",
    11: "f4",
    12: "f8",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}  # types of values by their number in TIFF; 5 and 10 are fractions of two integers
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}  # with their letters in struct
_ONE: Final = {(order, kind): struct.Struct(order + letter) for order in "<>" for kind, letter in _INTEGERS.items()}
_MAX_INTEGER: Final = np.iinfo(np.int64).max
_MAX_TAGS: Final = 4096  # limit of libtiff for BigTIFF

# Maximum number of colour samples by photometric interpretation. Further samples are extra samples.
_COLOURS: Final = {0: 1, 1: 1, 2: 3, 3: 1, 4: 4, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32845: 3}


class UnsupportedTiffError(ValueError):
    """The file may be valid, but its kind is not supported."""


class Tags:
    """Tags of the first image.

    Parameters
    ----------
    data
        A file with the signature of TIFF: classic TIFF or BigTIFF, both byte orders.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        big = 43 in (data[2], data[3])
        place, count, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
        if big and struct.unpack_from(self.order + "HH", data, 4) != (8, 0):
            raise ValueError("offsets of a BigTIFF have 8 bytes")
        (at,) = struct.unpack_from(self.order + place, data, 8 if big else 4)
        (n_tags,) = self._unpack(count, at)
        if n_tags > _MAX_TAGS:
            raise ValueError(f"{n_tags:,} tags announced, at most {_MAX_TAGS:,} are read")
        if n_tags == 0:
            raise ValueError("no tags")
        at += struct.calcsize("<" + count)
        size = struct.calcsize("<" + entry)
        if at + n_tags * size > len(data):
            raise EOFError(f"{n_tags} tags announced at byte {at:,}, the file ends at byte {len(data):,}")
        inline = 8 if big else 4
        self._entries: dict[int, tuple[int, int, int]] = {}
        for start in range(at, at + n_tags * size, size):
            tag, kind, n_values, value = struct.unpack_from(self.order + entry, data, start)
            if tag in self._entries:  # the first one counts
                continue
            n_bytes = n_values * np.dtype(_KINDS.get(kind, "u1")).itemsize * (2 if kind in (5, 10) else 1)
            where = start + size - inline if n_bytes <= inline else struct.unpack(self.order + place, value)[0]
            self._entries[tag] = (kind, n_values, where)

    def _unpack(self, kind: str, at: int) -> tuple[int, ...]:
        if at + struct.calcsize("<" + kind) > len(self.data):
            raise EOFError(f"the tags begin after the end of the file at byte {len(self.data):,}")
        return struct.unpack_from(self.order + kind, self.data, at)

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def raw(self, tag: int) -> bytes:
        """Return the values of a tag as stored bytes; no bytes if the tag is missing."""
        kind, n_values, at = self._entries.get(tag, (1, 0, 0))
        n_bytes = n_values * np.dtype(_KINDS.get(kind, "u1")).itemsize
        if at + n_bytes > len(self.data):
            raise EOFError(f"tag {tag} ends at byte {at + n_bytes:,}, the file at byte {len(self.data):,}")
        return bytes(self.data[at : at + n_bytes])

    def integers(self, tag: int, limit: int) -> npt.NDArray[np.int64]:
        """Return the first values of a tag, at most `limit`; none if it is missing."""
        kind, n_values, at = self._entries.get(tag, (1, 0, 0))
        if kind not in _INTEGERS:
            raise ValueError(f"tag {tag} has values of type {kind}, which is not a type of integers")
        values = self._values(tag, kind, min(n_values, limit), at)
        if values.dtype.itemsize == 8:  # an offset of more than 63 bits is after the end of any file
            values = np.minimum(values, np.array(_MAX_INTEGER, values.dtype))
        return values.astype(np.int64)

    def integer(self, tag: int, default: int, low: int = 0, high: int = 0xFFFF) -> int:
        """Return the first value of a required tag; raise if it is out of range."""
        kind, n_values, at = self._entries.get(tag, (1, 0, 0))
        if kind not in _INTEGERS:
            raise ValueError(f"tag {tag} has values of type {kind}, which is not a type of integers")
        value = min(self._first(tag, kind, at), _MAX_INTEGER) if n_values else default
        if not low <= value <= high:
            raise ValueError(f"tag {tag} is {value:,}, not {low:,} to {high:,}")
        return value

    def hint(self, tag: int, default: int, low: int = 0, high: int = 0xFFFF) -> int:
        """Return the value of a tag, or `default` if it is missing or invalid, as libtiff does."""
        kind, n_values, at = self._entries.get(tag, (0, 0, 0))
        if kind not in _INTEGERS or n_values != 1 or at >= len(self.data):
            return default
        value = self._first(tag, kind, at)
        return value if low <= value <= high else default

    def hints(self, tag: int, n_values: int) -> list[int]:
        """Return the values of a tag; none unless they are `n_values` integers, as libtiff does."""
        kind, found, at = self._entries.get(tag, (0, 0, 0))
        return self._values(tag, kind, found, at).tolist() if kind in _INTEGERS and found == n_values else []

    def floats(self, tag: int, default: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        """Return the values of a tag, or `default` if their number is not that of `default`."""
        kind, n_values, at = self._entries.get(tag, (0, 0, 0))
        if n_values != len(default) or kind not in _KINDS:
            return np.array(default, np.float32)
        values = self._values(tag, kind, n_values * (2 if kind in (5, 10) else 1), at).astype(np.float64)
        if kind in (5, 10):
            values = np.divide(values[0::2], values[1::2], out=np.zeros(n_values), where=values[1::2] != 0)
        return values.astype(np.float32)

    def same(self, tag: int, default: int, n_samples: int) -> int:
        """Return the value of a tag that has one value, or an equal one per sample."""
        values: list[int] = self.integers(tag, n_samples).tolist() if tag in self else []
        if len(set(values)) > 1:
            raise UnsupportedTiffError(f"samples of different kinds ({', '.join(map(str, values))} in tag {tag})")
        return values[0] if values else default

    def _first(self, tag: int, kind: int, at: int) -> int:
        value = _ONE[self.order, kind]  # numpy takes three times as long
        self._check_end(tag, at + value.size)
        return int(value.unpack_from(self.data, at)[0])

    def _values(self, tag: int, kind: int, n_values: int, at: int) -> npt.NDArray[Any]:
        dtype = np.dtype(self.order + _KINDS[kind])
        self._check_end(tag, at + n_values * dtype.itemsize)
        return np.frombuffer(self.data, dtype, n_values, at)

    def _check_end(self, tag: int, end: int) -> None:
        if end > len(self.data):
            raise EOFError(f"tag {tag} ends at byte {end:,}, the file at {len(self.data):,}")


class Layout(NamedTuple):
    """Layout of the pixels of a TIFF. Sizes are in pixels, offsets and counts in bytes."""

    order: str
    width: int
    height: int
    bits: int
    n_samples: int
    sample_format: int  # 1 unsigned, 2 signed, 3 float, 4 undefined
    photometric: int
    planes: bool
    compression: int
    predictor: int
    reversed_bits: bool
    extra: tuple[int, ...]
    alpha: int  # 0 none, 1 associated, 2 unassociated
    orientation: int
    subsampling: tuple[int, ...]  # columns and rows of YCbCr with a common colour
    tiled: bool
    block_width: int
    block_height: int

    @property
    def across(self) -> int:
        """Number of blocks (strips or tiles) per row of blocks."""
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        """Number of rows of blocks."""
        return -(-self.height // self.block_height)


def layout_of(tags: Tags) -> Layout:
    """Return the layout of the pixels, by the tags only."""
    width, height = tags.integer(256, 0, 1, 0x7FFFFFFF), tags.integer(257, 0, 1, 0x7FFFFFFF)
    tiled = 322 in tags or 323 in tags
    if tiled:
        block_width, block_height = tags.integer(322, 0, 1, 0x7FFFFFFF), tags.integer(323, 0, 1, 0x7FFFFFFF)
    else:
        block_width, block_height = width, min(height, tags.integer(278, height, 1, 0xFFFFFFFF))
    compression = tags.integer(259, 1)
    old_jpeg = compression == 6
    photometric = tags.hint(262, -1)
    if old_jpeg and photometric in (-1, 2):
        photometric = 6
    n_samples = tags.integer(277, 3 if old_jpeg and photometric == 6 else 1, 1)
    bits = tags.same(258, 8 if old_jpeg else 1, n_samples)
    extra = tuple(tags.integers(338, n_samples).tolist()) if 338 in tags else ()
    if photometric == -1:  # OpenCV refuses such files; this is libtiff's guess
        photometric = {1: 0 if compression in (2, 3, 4, 32771) else 1, 3: 2}.get(n_samples - len(extra), -1)
    colours = _COLOURS.get(photometric, 0)
    if colours and n_samples - len(extra) > colours:
        extra += (0,) * (n_samples - colours - len(extra))
    alpha = extra[0] if extra else 0
    alpha = {0: 1 if extra and n_samples > 3 else 0, 1: 1, 2: 2, 999: 2}.get(alpha, 0)
    if photometric == 3 and 8 <= bits <= 16 and not tags.hints(320, 3 << bits):
        photometric = 2 if n_samples == 3 else 1
    return Layout(
        order=tags.order,
        width=width,
        height=height,
        bits=bits,
        n_samples=n_samples,
        sample_format=tags.same(339, 1, n_samples),
        photometric=photometric,
        planes=tags.integer(284, 1, 1, 2) == 2 and n_samples > 1,
        compression=compression,
        predictor=tags.hint(317, 1) if compression in (5, 8, 32946, 34925, 50000) else 1,
        reversed_bits=tags.hint(266, 1) == 2,
        extra=extra,
        alpha=alpha,
        orientation=tags.hint(274, 1, 1, 8),
        subsampling=tuple(tags.hints(530, 2) or (2, 2)),
        tiled=tiled,
        block_width=block_width,
        block_height=block_height,
    )


def blocks_of(tags: Tags, layout: Layout, n_bytes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the offsets and byte counts of all blocks, plane by plane, checked against the size of the file.

    Parameters
    ----------
    tags, layout
        Tags and layout of the file.
    n_bytes
        Estimate of libtiff for the bytes of a full block without compression.
    """
    n_blocks = layout.across * layout.down * (layout.n_samples if layout.planes else 1)
    name = "tiles" if layout.tiled else "strips"
    offsets = tags.integers(324 if 324 in tags else 273, n_blocks)
    counts = tags.integers(325 if 325 in tags else 279, n_blocks)
    if offsets.size < n_blocks:
        raise ValueError(f"{n_blocks:,} {name} announced, offsets of {offsets.size:,} found")
    plain, end = layout.compression == 1, len(tags.data)
    alone = n_blocks == 1 and not layout.tiled
    missing = counts.size == 0 and (n_blocks == 1 or (plain and layout.planes and n_blocks == layout.n_samples))
    bad = alone and (not counts.any() or (plain and not n_bytes <= counts[0] <= end - offsets[0]))
    wrong = plain and not layout.planes and n_blocks > 2 and len({*counts[:2].tolist()} - {0}) == 2
    if missing or bad or wrong:  # as libtiff repairs them
        estimate = n_bytes
        if wrong and not layout.tiled:
            estimate = n_bytes // layout.block_height * (layout.height // n_blocks)
        counts = np.full(n_blocks, estimate) if plain else np.maximum(end - offsets, 0)
    if counts.size < n_blocks:
        raise ValueError(f"{n_blocks:,} {name} announced, byte counts of {counts.size:,} found")
    if (offsets < 0).any() or (counts <= 0).any():
        raise ValueError(f"an offset or byte count of its {name} is not positive")
    ends = np.minimum(offsets, end) + np.minimum(counts, end + 1)  # avoids an overflow
    last = int(np.argmax(ends))
    if ends[last] > end:
        where = int(offsets[last]) + int(counts[last])
        raise EOFError(f"{name[:-1]} {last} ends at byte {where:,}, the file at byte {end:,}")
    return offsets, counts
