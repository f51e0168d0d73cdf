"""How the turns of an image move the bits of its perceptual hash, so that no image is decoded again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import shown
from imgmatch_df.turns import EVERY_TURN, Turn, TurnedBits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df.hashes.kinds import HashKind

BitOrder = Literal["first", "last", "lowest"]


@dataclass(frozen=True, slots=True)
class TurnGrid:
    """How the bits of a hash lie in a square, so that a turn of the image moves them.

    Parameters
    ----------
    side
        Rows and columns of the square. Bits beyond ``side * side`` are padding, which no turn moves.
    bit_order
        Where the bits stand, row by row, in the documented 0/1 string: ``"first"``, from its first character on;
        ``"last"``, from its last one back; ``"lowest"``, in each byte from the lowest bit up.
    lowest_frequency
        None if a bit belongs to a place of the image. For cosine coefficients the frequency of the first row and
        column, 0 or 1: to reverse the columns changes the sign of those with an odd frequency, and so inverts the bit.
    """

    side: int
    bit_order: BitOrder = "first"
    lowest_frequency: int | None = None

    def fits(self, n_bits: int) -> bool:
        """Return whether the values are allowed for a hash of `n_bits`."""
        return (
            0 < self.side**2 <= n_bits
            and self.bit_order in get_args(BitOrder)
            and self.lowest_frequency in (None, 0, 1)
        )

    def sources(self, turn: Turn, n_chars: int) -> "tuple[NDArray[np.int64], NDArray[np.bool_]]":
        """Return how a turn makes a 0/1 string: the character that each one is read from, and whether it is inverted.

        (n_chars,) int64 and (n_chars,) bool.
        """
        import numpy as np

        grid = np.arange(self.side**2).reshape(self.side, self.side)
        inverted = np.zeros(grid.shape, np.bool_)
        if turn.swaps:
            grid = grid.T
        if self.lowest_frequency is None:
            grid = grid[:: -1 if turn.reverses_rows else 1, :: -1 if turn.reverses_columns else 1]
        else:
            odd = (np.arange(self.side) + self.lowest_frequency) % 2 == 1
            inverted = (odd[:, None] & turn.reverses_rows) ^ (odd & turn.reverses_columns)
        characters = self.characters(n_chars)
        places = characters[: self.side**2]
        moved, flips = np.arange(n_chars), np.zeros(n_chars, np.bool_)
        moved[places], flips[places] = places[grid.ravel()], inverted.ravel()
        return moved, flips

    def characters(self, n_chars: int) -> "NDArray[np.int64]":
        """Return the character of the 0/1 string at which each bit stands, padding last: (n_chars,) int64."""
        import numpy as np

        bits = np.arange(n_chars)
        return {"first": bits, "last": bits[::-1], "lowest": bits ^ 7}[self.bit_order]


def turn_grid(kind: "HashKind") -> TurnGrid:
    """Return how the bits of a kind lie.

    Raises
    ------
    ArgumentError
        If the hash of a turned image does not follow from its bits.
    """
    from imgmatch_df.hashes.kinds import KINDS

    if kind.turn_grid is None:
        able = ", ".join(repr(other.name) for other in KINDS.values() if other.turn_grid is not None)
        raise ArgumentError(
            f"the bits of {kind.name} do not give the hash of a turned image, as turns=True needs\n"
            f"Hint: hash_type= one of {able}."
        )
    return kind.turn_grid


def check_turns(turns: object, kind: "HashKind") -> bool:
    """Return the option `turns`, checked: it is True only for kinds that can be turned. None is the kind's default."""
    if turns is None:
        return kind.by_votes
    if not isinstance(turns, bool):
        raise ArgumentError(
            f"turns must be True or False, got {shown(turns)}\nHint: True also finds mirrored and turned copies."
        )
    if turns and not kind.by_votes:
        turn_grid(kind)
    return turns


def turned_bits(kind: "HashKind") -> TurnedBits:
    """Return what the turns do to the words of a kind; raise as `turn_grid`."""
    import numpy as np

    grid = turn_grid(kind)
    n_bits = 64 * -(-kind.n_bytes // 8)
    orders = np.tile(np.arange(n_bits), (len(EVERY_TURN), 1))
    flips = np.zeros(orders.shape, np.bool_)
    bits = np.arange(kind.n_chars) ^ 7  # a character is the highest bit of its byte first, a word's bit the lowest
    for number, turn in enumerate(EVERY_TURN):
        moved, inverted = grid.sources(turn, kind.n_chars)
        orders[number, bits], flips[number, bits] = bits[moved], inverted
    return TurnedBits(kind.n_bits, orders, np.packbits(flips, axis=1, bitorder="little").view(np.uint64))
