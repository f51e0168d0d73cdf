"""Local hashes as arrays: the points of many images one after the other, as the join and the verification take them."""

from typing import NamedTuple

from imgmatch_df._kernels.arrays import I64, U8, U16, U64

__all__ = ["Points"]


class Points(NamedTuple):
    """The points of images, image by image.

    Parameters
    ----------
    hashes
        Hash of the patch around each point, (n_points,) uint64: bit ``8 * k + l`` is the sign of DCT coefficient
        (k, l), with vertical frequency k; bit 0 is 0.
    places
        x, y in base pixels, and level, (n_points, 3) uint8.
    starts
        The points of image i are ``starts[i]:starts[i + 1]``, (n_images + 1,) int64.
    boxes
        The part of each image inside trimmed borders, (n_images, 6) uint16: left, top, right, bottom in 1/65535 of its
        width or height, then base width, base height.
    """

    hashes: U64
    places: U8
    starts: I64
    boxes: U16

    @property
    def n_images(self) -> int:
        """Number of images, with those that have no points."""
        return len(self.starts) - 1
