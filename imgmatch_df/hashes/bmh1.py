"""bmh1: the 961-bit block mean hash, bit for bit OpenCV's `BlockMeanHash` mode 1.

Sources: Yang, Gu, Niu, Block Mean Value Based Image Perceptual Hashing (2006); opencv_contrib
modules/img_hash/src/block_mean_hash.cpp.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.hashes.kernels.stack import stack_array, word_of

if TYPE_CHECKING:
    from imgmatch_df.hashes.squares import HashInput

Array = np.ndarray[Any, Any]

_SIDE: Final = 256
_N_TILES: Final = 32  # a block is 2 x 2 tiles of 8 x 8 pixels, and the next block is one tile on
_N_BLOCKS: Final = _N_TILES - 1
_EACH: Final = np.uint64(0x0001000100010001)
_BITS_OF_BYTES: Final = np.uint64(0x0102040810204080)  # moves the lowest bit of byte i to bit 56 + i


def hash_image(image: "HashInput", out: Array) -> None:
    """Write the bmh1 of an image: out uint8[121]."""
    _hash_square(*image.square_and_axes(_SIDE), out)


_column_sums: Final = stack_array(types.uint16, _SIDE)
_tiles: Final = stack_array(types.int32, _N_TILES**2)
_bits: Final = stack_array(types.uint8, 8 * 121)


@kernel(no_cpython_wrapper=True)
def _sum_tiles(square: Array, is_transposed: bool, tiles: Array) -> Any:
    """Sum the 8 x 8 tiles of a square, transposed if `is_transposed`: tiles int32[32 * 32]; return the sum of all."""
    column_sums = _column_sums()
    whole = np.int32(0)
    for i in range(_N_TILES):
        for x in range(_SIDE):
            column_sums[x] = square[8 * i, x]
        for row in range(8 * i + 1, 8 * i + 8):
            for x in range(_SIDE):
                column_sums[x] += square[row, x]
        for j in range(_N_TILES):
            # Four sums of 16 bits at a time: the product has their total in its highest 16 bits.
            total = np.int32((word_of(column_sums, 2 * j) + word_of(column_sums, 2 * j + 1)) * _EACH >> np.uint64(48))
            whole += total
            tiles[_N_TILES * j + i if is_transposed else _N_TILES * i + j] = total
    return whole


# With the GIL: to let go of it and wait for it again costs more than these 4 microseconds.
@kernel(signatures=["void(uint8[:, ::1], boolean, uint8[::1])"], nogil=False)
def _hash_square(square: Array, is_transposed: bool, out: Array) -> None:
    """Compare the mean of each of the 31 x 31 blocks with that of the square, transposed if needed: out uint8[121]."""
    tiles, bits = _tiles(), _bits()
    # Means of 256 and of 65,536 pixels, compared as whole numbers: OpenCV's doubles are exact here too.
    total = _sum_tiles(square, is_transposed, tiles)
    least = (total + 255) >> 8  # of a block that is not below the mean
    for i in range(_N_BLOCKS**2, len(bits)):
        bits[i] = 0
    for i in range(_N_BLOCKS):
        for j in range(_N_BLOCKS):
            at = _N_TILES * i + j
            block = tiles[at] + tiles[at + 1] + tiles[at + _N_TILES] + tiles[at + _N_TILES + 1]
            bits[_N_BLOCKS * i + j] = block >= least
    for i in range(len(out)):
        out[i] = np.uint8(word_of(bits, i) * _BITS_OF_BYTES >> np.uint64(56))
