"""Two hash kinds that only tests have: what an engineer writes who adds one."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.hashes.squares import HashInput

TOY: Final = HashKind(
    "toy", n_bits=128, n_bytes=16, dtype=pl.Binary(), version="toy-1", kernel="toy_kind:hash_image", near_radius=12
)
TOY64: Final = HashKind(
    "toy64", n_bits=64, n_bytes=8, dtype=pl.UInt64(), version="toy64-1", kernel="toy_kind:hash_image_64", near_radius=6
)
calls: list[str] = []  # which kernels this process has called


def hash_image(image: HashInput, out: NDArray[np.uint8]) -> None:
    """Write whether each pixel of 16 x 16 is lighter than the one on its right: 128 pairs."""
    calls.append("toy")
    square = image.grey_square(16)
    out[:] = np.packbits(square[:, ::2] > square[:, 1::2])


def hash_image_64(image: HashInput, out: NDArray[np.uint64]) -> None:
    """Write whether each of 8 x 8 blocks is lighter than all of them."""
    calls.append("toy64")
    blocks = image.grey_square(32).reshape(8, 4, 8, 4).mean(axis=(1, 3))
    out[0] = np.packbits(blocks > blocks.mean()).view(">u8")[0]


def fail(_image: HashInput, _out: NDArray[np.uint8]) -> None:
    """Raise, as a kernel with a mistake does."""
    raise ZeroDivisionError("a mistake")
