"""Reader of plain TIFF, of which most files are: one image, grey or RGB, of 8 bits, not compressed or PackBits.

It returns what `tiff.decode` returns, or None for all other and all damaged files, which that one must read: there
each tag is read in Python, with the GIL, so that two threads read 1.07 times as many files as one.
"""

from functools import cache
from typing import Any, Final

import numpy as np

from imgmatch_df.errors import Failure
from imgmatch_df.images import pixel_budget, tiff
from imgmatch_df.images.guard import Data, DecodedImage, Pixels, admit_bytes, decoded
from imgmatch_df.images.pixels import SCRATCH
from imgmatch_df.options import Options

_MAX_UNPACKED_BYTES: Final = 8 << 20  # in one piece


def decode_plain(data: Data, options: Options) -> DecodedImage | Failure | None:
    """Return the image of a plain TIFF, or why it takes too much memory; None if the file is not plain."""
    plain = _kernels()
    file = np.frombuffer(data, np.uint8)
    found = np.empty(plain.N_FOUND, np.int64)
    if not plain.find_plain(file, found):
        return None
    width, height, compression, _, n_samples, orientation, block_width, block_height = found[:8].tolist()
    if n_samples == 4 and options.alpha != "drop":
        return None
    n_blocks = -(-width // block_width) * -(-height // block_height)
    n_padded = n_blocks * block_width * block_height
    n_pixels, limit = width * height, options.max_pixels
    if n_pixels > limit or block_width * block_height > limit or n_padded > tiff.MAX_PADDING * limit:
        return None
    is_packed = compression == plain.PACKBITS
    if is_packed and n_padded * n_samples > _MAX_UNPACKED_BYTES:
        return None
    if 16 * n_padded + len(file) > pixel_budget.SMALL:
        grid = tiff.Grid(height, width * n_samples, block_height, block_width * n_samples, 0)
        n_bytes = tiff.bytes_needed(compression, width, height, grid, 1, len(file))
        if (refused := admit_bytes("TIFF", width, height, n_bytes, options)) is not None:
            return refused
    shape = (height, width) if n_samples == 1 else (height, width, 4)
    try:
        blocks = _unpacked(file, found, n_blocks, block_width * block_height * n_samples) if is_packed else file
        out = SCRATCH.take(n_pixels if n_samples == 1 else 4 * n_pixels)
    except MemoryError:  # `tiff.decode` may need less, and its error has a detail
        return None
    if blocks is None or not plain.copy_blocks(blocks, found, out):
        return None
    return decoded(out.reshape(shape), orientation, width, height)


def _unpacked(file: Pixels, found: Any, n_blocks: int, n_bytes: int) -> Pixels | None:
    """Return the decompressed blocks of a file, one after the other, each of `n_bytes`, and note that in `found`."""
    from imgmatch_df.images.kernels.plain_packbits import unpack_blocks

    plain = _kernels()
    blocks = np.empty(n_blocks * n_bytes, np.uint8)
    if not unpack_blocks(file, found, n_blocks, blocks):
        return None
    found[plain.OFFSETS], found[plain.OFFSET_BYTES] = n_bytes, 0
    return blocks


@cache
def _kernels() -> Any:
    """Import the kernels at the first TIFF: compiling them takes a second."""
    from imgmatch_df.images.kernels import plain_tiff

    return plain_tiff
