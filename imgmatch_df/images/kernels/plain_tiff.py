"""Tags and pixels of plain TIFF: one image, grey or RGB, of 8 bits. All else is left to `images.tiff`.

In Python the tags of a file take 35 us, with the GIL: two threads read hardly more files than one. Here they take 1 us.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.images.kernels.lanes import copy_bytes, pixel_at, widen_four
from imgmatch_df.images.kernels.loads import either_16, either_32

Array = np.ndarray[Any, Any]

# Items of `found`. The first ones are values of tags.
WIDTH, HEIGHT, COMPRESSION, _PHOTOMETRIC, N_SAMPLES, ORIENTATION, BLOCK_WIDTH, BLOCK_HEIGHT, _ROWS = range(9)
_ALPHA, _BIT_ORDER, _PLANES, IS_TILED, OFFSETS, OFFSET_BYTES, _COUNTS, _COUNT_BYTES, _ENTRIES = range(9, 18)
_TAGS: Final = 256, 257, 259, 262, 277, 274, 322, 323, 278, 338, 266, 284
_ABSENT: Final = -2
_DEFAULTS: Final = _ABSENT, _ABSENT, 1, _ABSENT, 1, 1, _ABSENT, _ABSENT, _ABSENT, _ABSENT, 1, 1

_FIRST, _LAST = 256, 339  # tags whose entries are kept, behind `_ENTRIES`
N_FOUND: Final = _ENTRIES + _LAST + 1 - _FIRST
_BITS, _STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 258, 273, 279, 324, 325, 339
_SUB_IFDS, _DEPTH, _TILE_DEPTH, _DNG = 330, 32997, 32998, 50706
_NOT_OF_TILES: Final = _STRIP_OFFSETS, _STRIP_COUNTS, _SUB_IFDS
_NOT_OF_STRIPS: Final = _TILE_OFFSETS, _TILE_COUNTS, _SUB_IFDS
_MAX_TAGS: Final = 64
_MAX_SIDE: Final = 1 << 20
_MAX_BLOCKS: Final = 1 << 16
_SHORT, _LONG = 3, 4  # types of values, without others between
_PLAIN, PACKBITS = 1, 32773  # compressions
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # photometric interpretations
_UNASSOCIATED: Final = 2  # alpha

# Called from compiled code only: without the wrapper for Python they compile faster.
_inner = kernel(no_cpython_wrapper=True)
_FILE: Final = types.Array(types.uint8, 1, "C", readonly=True)  # writable arrays are accepted, too


@_inner
def _integer(data: Array, at: int, n_bytes: int, is_little: bool) -> Any:
    """Return the integer of 2 or 4 bytes at a place."""
    return either_16(data, at, is_little) if n_bytes == 2 else either_32(data, at, is_little)


@_inner
def _value(data: Array, entry: int, default: int, is_little: bool) -> Any:
    """Return the value of a tag, `default` if it is missing, -1 if it is not one integer of 16 or 32 bits."""
    if entry == 0:
        return default
    kind = either_16(data, entry + 2, is_little)
    if not _SHORT <= kind <= _LONG or either_32(data, entry + 4, is_little) != 1:
        return np.intp(-1)
    return _integer(data, entry + 8, 2 if kind == _SHORT else 4, is_little)


@_inner
def _values(data: Array, entry: int, is_little: bool) -> tuple[Any, Any, Any]:
    """Return the number of values of a tag, their place and the bytes of each; no value if it is missing or invalid."""
    kind, count = either_16(data, entry + 2, is_little), either_32(data, entry + 4, is_little)
    size = np.intp(2 if kind == _SHORT else 4)
    place = entry + 8 if count * size <= 4 else either_32(data, entry + 8, is_little)
    is_valid = entry > 0 and _SHORT <= kind <= _LONG and place + count * size <= len(data)
    return count if is_valid else np.intp(0), place, size


@_inner
def _each_is(data: Array, entry: int, n_samples: int, value: int, is_little: bool) -> bool:
    """Return whether a tag has one 16-bit value, or one for each sample, and all equal `value`."""
    n_values, place, size = _values(data, entry, is_little)
    is_equal = size == 2 and (n_values == 1 or n_values == n_samples)
    if is_equal:
        for i in range(n_values):
            is_equal &= either_16(data, place + 2 * i, is_little) == value
    return is_equal


# With the GIL: to let go of it and wait for it again costs more than this microsecond.
@kernel(signatures=[types.boolean(_FILE, types.int64[::1])], nogil=False)
def find_plain(data: Array, found: Array) -> bool:
    """Read the tags of a TIFF, and return whether it is plain.

    data uint8[n]; found int64[N_FOUND], complete only if the file is plain. Its blocks are not checked yet.
    """
    n = len(data)
    if n < 16 or data[0] != data[1] or (data[0] != 0x49 and data[0] != 0x4D):
        return False
    is_little = data[0] == 0x49
    at = either_32(data, np.intp(4), is_little)
    is_cr2 = data[8] == 0x43 and data[9] == 0x52
    if either_16(data, np.intp(2), is_little) != 42 or is_cr2 or at < 8 or at + 2 > n:
        return False
    n_tags = either_16(data, at, is_little)
    end = at + 2 + 12 * n_tags
    if n_tags > _MAX_TAGS or end + 4 > n or either_32(data, end, is_little) != 0:  # no further image
        return False
    entries = found[_ENTRIES:]
    for i in range(len(entries)):
        entries[i] = 0
    before = np.intp(0)
    for entry in range(at + 2, end, 12):
        tag = either_16(data, entry, is_little)
        # Each tag once and in order. No slices of a volume, no RAW file.
        if tag <= before or _DEPTH <= tag <= _TILE_DEPTH or tag == _DNG:
            return False
        if _FIRST <= tag <= _LAST:
            entries[tag - _FIRST] = entry
        before = tag
    for i in range(len(_TAGS)):
        found[i] = _value(data, entries[_TAGS[i] - _FIRST], _DEFAULTS[i], is_little)
    is_tiled = found[BLOCK_WIDTH] != _ABSENT or found[BLOCK_HEIGHT] != _ABSENT
    if not is_tiled:
        found[BLOCK_WIDTH] = found[WIDTH]
        found[BLOCK_HEIGHT] = found[HEIGHT] if found[_ROWS] == _ABSENT else min(found[HEIGHT], found[_ROWS])
    found[IS_TILED] = is_tiled
    width, height, block_width, block_height = found[WIDTH], found[HEIGHT], found[BLOCK_WIDTH], found[BLOCK_HEIGHT]
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        return False
    if not (0 < block_width <= _MAX_SIDE and 0 < block_height <= _MAX_SIDE):
        return False
    n_blocks = ((width + block_width - 1) // block_width) * ((height + block_height - 1) // block_height)
    for i in range(3):
        if entries[(_NOT_OF_TILES if is_tiled else _NOT_OF_STRIPS)[i] - _FIRST] > 0:
            return False
    offsets = entries[(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS) - _FIRST]
    counts = entries[(_TILE_COUNTS if is_tiled else _STRIP_COUNTS) - _FIRST]
    n_offsets, found[OFFSETS], found[OFFSET_BYTES] = _values(data, offsets, is_little)
    n_counts, found[_COUNTS], found[_COUNT_BYTES] = _values(data, counts, is_little)
    if n_blocks != n_offsets or n_blocks != n_counts or n_blocks > _MAX_BLOCKS:
        return False
    n_samples, photometric, alpha = found[N_SAMPLES], found[_PHOTOMETRIC], found[_ALPHA]
    if n_samples == 1:
        is_plain = alpha == _ABSENT and _WHITE_IS_ZERO <= photometric <= _BLACK_IS_ZERO
    elif n_samples == 3:
        is_plain = alpha == _ABSENT and photometric == _RGB
    else:
        is_plain = n_samples == 4 and photometric == _RGB and (alpha == _ABSENT or 0 <= alpha <= _UNASSOCIATED)
    is_plain &= found[COMPRESSION] == _PLAIN or found[COMPRESSION] == PACKBITS
    is_plain &= found[_BIT_ORDER] == 1 and found[_PLANES] == 1 and 1 <= found[ORIENTATION] <= 8
    if not is_plain or not _each_is(data, entries[_BITS - _FIRST], n_samples, np.intp(8), is_little):
        return False
    formats = entries[_FORMAT - _FIRST]
    return bool(formats == 0 or _each_is(data, formats, n_samples, np.intp(1), is_little))


@_inner
def block_of(data: Array, found: Array, i: int) -> tuple[Any, Any]:
    """Return the offset and the byte count of a block; no byte if it ends after the file."""
    size = found[OFFSET_BYTES]
    if size == 0:  # decompressed blocks, one after the other
        return i * found[OFFSETS], found[OFFSETS]
    is_little = data[0] == 0x49
    offset = _integer(data, found[OFFSETS] + i * size, size, is_little)
    count = _integer(data, found[_COUNTS] + i * found[_COUNT_BYTES], found[_COUNT_BYTES], is_little)
    return offset, count if offset + count <= len(data) else np.intp(0)


@_inner
def _copy(data: Array, at: int, n_pixels: int, found: Array, out: Array, first: int) -> None:
    """Write stored pixels from a place on as pixels from `first` on."""
    n_samples = found[N_SAMPLES]
    if n_samples == 1:
        copy_bytes(data, at, out, first, n_pixels)
        if found[_PHOTOMETRIC] == _WHITE_IS_ZERO:
            for i in range(np.uintp(first), np.uintp(first + n_pixels)):
                out[i] = ~out[i]
        return
    if n_samples == 3:
        done = 0
        while done + 4 <= n_pixels and at + 3 * done + 16 <= len(data):  # 16 bytes are read
            widen_four(data, at + 3 * done, out, 4 * (first + done))
            done += 4
        for i in range(done, n_pixels):
            for channel in range(3):
                out[4 * (first + i) + channel] = data[at + 3 * i + channel]
        return
    copy_bytes(data, at, out, 4 * first, 4 * n_pixels)
    if found[_ALPHA] == _UNASSOCIATED:
        opaque = np.uint32(255)
        for i in range(n_pixels):
            opaque &= pixel_at(data, at + 4 * i) >> np.uint32(24)
        if opaque != 255:
            for i in range(n_pixels):
                alpha = np.uint32(data[at + 4 * i + 3])
                for channel in range(3):
                    out[4 * (first + i) + channel] = (data[at + 4 * i + channel] * alpha + 127) // 255


@kernel(signatures=[types.boolean(_FILE, types.int64[::1], types.uint8[::1])])
def copy_blocks(data: Array, found: Array, out: Array) -> bool:
    """Write the pixels of a plain file, and return whether its blocks are valid.

    data uint8[n]: the file, or its decompressed blocks; found int64[N_FOUND]; out uint8[pixels] for grey, else uint8[4
    * pixels].
    """
    width, height = found[WIDTH], found[HEIGHT]
    block_width, block_height = found[BLOCK_WIDTH], found[BLOCK_HEIGHT]
    size = block_width * found[N_SAMPLES]  # of a row of a block
    across = (width + block_width - 1) // block_width
    n_blocks = across * ((height + block_height - 1) // block_height)
    if n_blocks > 2 and block_of(data, found, np.intp(0))[1] != block_of(data, found, np.intp(1))[1]:
        return False  # libtiff may take the counts for wrong
    for i in range(n_blocks):
        offset, count = block_of(data, found, i)
        top, left = i // across * block_height, i % across * block_width
        n_rows, n_columns = min(block_height, height - top), min(block_width, width - left)
        if count < (block_height if found[IS_TILED] else n_rows) * size:
            return False
        if block_width == width:  # all rows at once
            _copy(data, offset, n_rows * width, found, out, top * width)
            continue
        for row in range(n_rows):
            _copy(data, offset + row * size, n_columns, found, out, (top + row) * width + left)
    return True
