"""Points of images as those of the turned images."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imgmatch_df._kernels.arrays import U8, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import uint64
from imgmatch_df.turns import EVERY_TURN

if TYPE_CHECKING:
    from imgmatch_df.matching.points import Points

TURN_STEPS: Final = np.array(EVERY_TURN, np.bool_)
"""What each turn does: swap rows and columns, reverse rows, reverse columns."""
_ODD_COLUMNS: Final = np.uint64(sum(1 << (8 * k + m) for k in range(8) for m in range(1, 8, 2)))
_ODD_ROWS: Final = np.uint64(sum(1 << (8 * k + m) for k in range(1, 8, 2) for m in range(8)))


@kernel(inline="always")
def _swap_bits(word: int, shift: int, mask: int) -> int:
    swap = ((word >> shift) ^ word) & mask
    swapped: int = word ^ swap ^ (swap << shift)
    return swapped


@kernel
def turn_hash(word: Any, swaps: bool, reverses_rows: bool, reverses_columns: bool) -> Any:
    """Return the hash (uint64) of a patch as that of the turned patch; coefficient 0 is not compared and stays 0."""
    if swaps:
        word = _swap_bits(word, uint64(7), uint64(0x00AA00AA00AA00AA))
        word = _swap_bits(word, uint64(14), uint64(0x0000CCCC0000CCCC))
        word = _swap_bits(word, uint64(28), uint64(0x00000000F0F0F0F0))
    if reverses_rows:
        word ^= _ODD_ROWS
    if reverses_columns:
        word ^= _ODD_COLUMNS
    return word


@kernel
def turn_points(points: "Points", turn: int, hashes: U64, places: U8) -> None:
    """Write the hashes (n_points,) uint64 and places (n_points, 3) uint8 of points as those of the turned images."""
    swaps, reverses_rows, reverses_columns = TURN_STEPS[turn]
    for image in range(points.starts.size - 1):
        width, height = points.boxes[image, 4], points.boxes[image, 5]
        if swaps:
            width, height = height, width
        for point in range(points.starts[image], points.starts[image + 1]):
            hashes[point] = turn_hash(points.hashes[point], swaps, reverses_rows, reverses_columns)
            x, y = points.places[point, 0], points.places[point, 1]
            if swaps:
                x, y = y, x
            places[point, 0] = width - x if reverses_columns else x
            places[point, 1] = height - y if reverses_rows else y
            places[point, 2] = points.places[point, 2]
