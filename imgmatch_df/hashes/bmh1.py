"""bmh1: the 961-bit block mean hash, bit for bit OpenCV's `BlockMeanHash` mode 1.

Sources: Yang, Gu, Niu, Block Mean Value Based Image Perceptual Hashing (2006); opencv_contrib
modules/img_hash/src/block_mean_hash.cpp.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel

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


@kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _sum_tiles(square: Array, is_transposed: bool) -> Array:
    """Sum the 8 x 8 tiles of a square, transposed if `is_transposed`: int32[32, 32]."""
    tiles = np.empty((_N_TILES, _N_TILES), np.int32)
    column_sums = np.empty(_SIDE, np.uint16)
    fours = column_sums.view(np.uint64)
    for i in range(_N_TILES):
        for x in range(_SIDE):
            column_sums[x] = square[8 * i, x]
        for row in range(8 * i + 1, 8 * i + 8):
            for x in range(_SIDE):
                column_sums[x] += square[row, x]
        for j in range(_N_TILES):
            # Four sums of 16 bits at a time: the product has their total in its highest 16 bits.
            total = np.int32((fours[2 * j] + fours[2 * j + 1]) * _EACH >> np.uint64(48))
            if is_transposed:
                tiles[j, i] = total
            else:
                tiles[i, j] = total
    return tiles


# With the GIL: to let go of it and wait for it again costs more than these 4 microseconds.
@kernel(signatures=["void(uint8[:, ::1], boolean, uint8[::1])"], nogil=False)
def _hash_square(square: Array, is_transposed: bool, out: Array) -> None:
    """Compare the mean of each of the 31 x 31 blocks with that of the square, transposed if needed: out uint8[121]."""
    tiles = _sum_tiles(square, is_transposed)
    # Means of 256 and of 65,536 pixels, compared as whole numbers: OpenCV's doubles are exact here too.
    total = 0
    for i in range(_N_TILES):
        for j in range(_N_TILES):
            total += tiles[i, j]
    least = (total + 255) // 256  # of a block that is not below the mean
    bits = np.zeros(8 * len(out), np.uint8)
    for i in range(_N_BLOCKS):
        for j in range(_N_BLOCKS):
            block = tiles[i, j] + tiles[i, j + 1] + tiles[i + 1, j] + tiles[i + 1, j + 1]
            bits[_N_BLOCKS * i + j] = block >= least
    eights = bits.view(np.uint64)
    for i in range(len(out)):
        out[i] = np.uint8(eights[i] * _BITS_OF_BYTES >> np.uint64(56))
