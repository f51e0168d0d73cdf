"""The hashes of the Python package ImageHash 4.3, bit for bit, with the resize of Pillow 13.

Source: ImageHash imagehash/__init__.py.
"""

from typing import Any

import numpy as np

from imgmatch_df.hashes.kernels.cosine import low_coefficients
from imgmatch_df.hashes.kernels.lanczos import resize, write_grey
from imgmatch_df.hashes.squares import HashInput, upright

Array = np.ndarray[Any, Any]


def write_phash(image: HashInput, out: Array) -> None:
    """Write `str(imagehash.phash(image))` as a number: out uint64[1]."""
    out[0] = _packed(_phash_bits(image, 8)).view(">u8")[0]


def write_phash16(image: HashInput, out: Array) -> None:
    """Write the bytes of `str(imagehash.phash(image, hash_size=16))`: out uint8[32]."""
    out[:] = _packed(_phash_bits(image, 16))


def write_dhash(image: HashInput, out: Array) -> None:
    """Write `str(imagehash.dhash(image))` as a number: out uint64[1]."""
    out[0] = _packed(_dhash_bits(image, 8)).view(">u8")[0]


def write_dhash16(image: HashInput, out: Array) -> None:
    """Write the bytes of `str(imagehash.dhash(image, hash_size=16))`: out uint8[32]."""
    out[:] = _packed(_dhash_bits(image, 16))


def write_ahash(image: HashInput, out: Array) -> None:
    """Write `str(imagehash.average_hash(image))` as a number: out uint64[1]."""
    pixels = _resized(image, 8, 8)
    out[0] = _packed(pixels > pixels.mean()).view(">u8")[0]


def _phash_bits(image: HashInput, side: int) -> Array:
    """Compare the side x side lowest cosine coefficients with their median: bool (side, side)."""
    coefficients = low_coefficients(_resized(image, 4 * side, 4 * side), side)
    low, high = np.sort(coefficients, axis=None)[side * side // 2 - 1 :][:2]
    return coefficients > (low + high) / 2


def _dhash_bits(image: HashInput, side: int) -> Array:
    """Return whether each pixel is lighter than the one on its left: bool (side, side)."""
    pixels = _resized(image, side + 1, side)
    return pixels[:, 1:] > pixels[:, :-1]


def _resized(image: HashInput, width: int, height: int) -> Array:
    """Return the image as Pillow's `convert("L").resize((width, height), LANCZOS)`: uint8 (height, width)."""
    grey: Array | None = image.memo.get("imagehash")
    if grey is None:
        grey = image.pixels
        if grey.ndim == 3:
            grey = np.empty(grey.shape[:2], np.uint8)
            write_grey(image.pixels.reshape(-1).view(np.uint32), grey.reshape(-1))
        grey = image.memo["imagehash"] = upright(grey, image.orientation)
    return resize(grey, width, height)


def _packed(bits: Array) -> Array:
    """Return bits as bytes, row by row and most significant bit first, as ImageHash prints them."""
    return np.packbits(bits)
