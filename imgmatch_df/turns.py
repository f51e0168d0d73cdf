"""The eight turns of an image: flips and quarter turns, and which two of them make a third."""

from typing import TYPE_CHECKING, Final, NamedTuple

from imgmatch_df.columns import TURNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Turn(NamedTuple):
    """A turn as three steps: swap rows and columns, then reverse the rows, then the columns."""

    swaps: bool = False
    reverses_rows: bool = False
    reverses_columns: bool = False

    def then(self, other: "Turn") -> "Turn":
        """Return the turn that does this one, then the other."""
        rows, columns = self.reverses_rows, self.reverses_columns
        if other.swaps:
            rows, columns = columns, rows
        return Turn(self.swaps ^ other.swaps, rows ^ other.reverses_rows, columns ^ other.reverses_columns)


_STEPS: Final = {
    "none": Turn(),
    "rotated_90": Turn(swaps=True, reverses_columns=True),
    "rotated_180": Turn(reverses_rows=True, reverses_columns=True),
    "rotated_270": Turn(swaps=True, reverses_rows=True),
    "mirrored": Turn(reverses_columns=True),
    "flipped": Turn(reverses_rows=True),
    "transposed": Turn(swaps=True),
    "transversed": Turn(swaps=True, reverses_rows=True, reverses_columns=True),
}
# The turns in the order of `TURNS`.
EVERY_TURN: Final = tuple(_STEPS[name] for name in TURNS)
# COMPOSED[first][second] is the number of the turn that does both, INVERSE[turn] that of the one that undoes it.
COMPOSED: Final = tuple(tuple(EVERY_TURN.index(first.then(second)) for second in EVERY_TURN) for first in EVERY_TURN)
INVERSE: Final = tuple(row.index(0) for row in COMPOSED)


class TurnedBits(NamedTuple):
    """What the eight turns do to hashes as words, in the order of `TURNS`.

    Parameters
    ----------
    n_bits
        Bits that carry information.
    orders
        The bit that each bit is read from, (8, 64 * n_words) int64.
    inverted
        The bits that are inverted, (8, n_words) uint64.
    """

    n_bits: int
    orders: "NDArray[np.int64]"
    inverted: "NDArray[np.uint64]"
