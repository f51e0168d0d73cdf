"""How the rows of a grouping are compared, as they are or in the eight turns of an image, and the clusters found."""

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from imgmatch_df.columns import ROW_DTYPE
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.hashes.turns import check_turns, turned_bits
from imgmatch_df.turns import TurnedBits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df._kernels.arrays import U16, U32, U64
    from imgmatch_df.matching.join import Progress


class Comparison(NamedTuple):
    """A kind of hash, a radius in bits, and what turns do to the hashes, None to compare them unturned."""

    kind: HashKind
    radius: int
    bits: TurnedBits | None

    @classmethod
    def of(cls, kind: HashKind, radius: int, *, turns: bool) -> "Comparison":
        """Return a comparison; raise `ArgumentError` where the kind has no turns."""
        return cls(kind, radius, turned_bits(kind) if check_turns(turns, kind) else None)

    def connect(self, words: "U64", progress: "Progress | None") -> "U32":
        """Return the first row of each row's component."""
        from imgmatch_df.matching import join, turned

        if self.bits is None:
            return join.connect(words, self.radius, self.kind.n_bits, progress=progress)
        return turned.turned_connect(words, self.radius, self.bits, progress=progress)

    def distances(self, words: "U64", representative: "U32") -> "U16":
        """Return the distance of each row to its representative, in bits."""
        from imgmatch_df.matching import clusters, turned

        if self.bits is None:
            return clusters.representative_distances(words, representative)
        return turned.turned_representative_distances(words, representative, self.bits)

    def diameters(self, words: "U64", labels: "U32") -> "U16":
        """Return the largest distance in each row's cluster, in bits."""
        from imgmatch_df.matching import clusters, join, turned

        if self.bits is None:
            return clusters.diameters(words, labels, join.first_equal(words))
        return turned.turned_diameters(words, labels, self.bits)


class Clusters(NamedTuple):
    """Clusters as arrays, one value a row: uint32 numbers and rows, uint16 bits, and whether there is a hash at all.

    A row that matches a reference row is not new: `reference` names that row, `distance` is the distance to it, and the
    other values have no meaning.
    """

    cluster: "NDArray[np.uint32]"
    representative: "NDArray[np.uint32]"
    distance: "NDArray[np.uint16]"
    diameter: "NDArray[np.uint16]"
    has_hash: "NDArray[np.bool_]"
    is_new: "NDArray[np.bool_]"
    reference: pl.Series | None = None

    @property
    def kept(self) -> pl.Series:
        """Whether the row is the representative of its cluster."""
        rows = pl.Series(self.representative)
        return (rows == pl.int_range(len(rows), dtype=ROW_DTYPE, eager=True)) & pl.Series(self.is_new)
