"""How a verb compares rows, by distances or by votes, and the clusters that it finds.

A verb does the same for each hash kind: it hands the hashes of its rows to a comparison, and shows the measures of the
pairs that it gets.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from imgmatch_df.columns import ROW_DTYPE
from imgmatch_df.hashes.kinds import HashKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df._kernels.arrays import I64, U16, U32, U64
    from imgmatch_df.matching.join import Progress


class Linked(NamedTuple):
    """The representative of each hash, and what is measured between the two: (n,) uint32 and uint16."""

    representative: "U32"
    measure: "U16"


class Comparison(ABC):
    """A kind of hash, and when two images count as near-duplicates.

    Parameters
    ----------
    kind
        What is compared. Hashes are words (n, n_words) uint64, from `codec.hash_words`.
    """

    measure: str
    """Name of the column that `Linked` and `nearest` measure."""
    measures_itself: bool
    """Whether a row has this measure to itself."""
    has_diameters: bool
    default_linkage: str

    def __init__(self, kind: HashKind) -> None:
        self.kind = kind

    @property
    @abstractmethod
    def dtypes(self) -> dict[str, pl.DataType]:
        """The columns that a result has beside the names of the rows."""

    @property
    @abstractmethod
    def equal_only(self) -> bool:
        """Whether only equal hashes are near-duplicates."""

    @property
    def measure_dtype(self) -> pl.DataType:
        """Dtype of the column `measure`."""
        return self.dtypes[self.measure]

    @abstractmethod
    def self_pairs(self, words: "U64", max_pairs: int, progress: "Progress | None") -> Any:
        """Return the pairs of near-duplicates: a named tuple of arrays, first the left and right positions."""

    @abstractmethod
    def cross_pairs(self, queries: "U64", references: "U64", max_pairs: int, progress: "Progress | None") -> Any:
        """Return the pairs of a query and a reference, as `self_pairs`."""

    @abstractmethod
    def measures(self, pairs: Any) -> dict[str, pl.Series]:
        """Return the columns of pairs beside the names of the rows."""

    @abstractmethod
    def nearest(self, queries: "U64", references: "U64", progress: "Progress | None") -> "tuple[I64, U16]":
        """Return the nearest reference of each query, -1 if there is none, and the measure; ties go to the first."""

    @abstractmethod
    def link(self, words: "U64", linkage: str, order: "U32", progress: "Progress | None") -> Linked:
        """Return the representative of each hash, its own position if it is one.

        Parameters
        ----------
        words
            Hashes, (n, n_words).
        linkage
            Name of a linkage.
        order
            The positions in the order of preference as representatives, from `clusters.preference`.
        progress
            Called with (done, total).
        """

    @abstractmethod
    def rank(self, query: int | bytes, column: pl.Series, k: int | None) -> "tuple[U32, dict[str, pl.Series]]":
        """Return the positions of the hashes of a column that are nearest to one, nearest first, and their measures.

        Parameters
        ----------
        query
            One hash.
        column
            Hashes without nulls.
        k
            Maximum number of rows; None for all.
        """

    @abstractmethod
    def explain(self, words: "U64") -> str:
        """Return a text about how the pairs of a frame are found."""

    @abstractmethod
    def warn_of_large(self, linked: Linked, linkage: str) -> None:
        """Warn where one cluster is so large that it is probably a mistake."""

    def diameters(self, words: "U64", representative: "U32") -> "U16":
        """Return the largest distance in the cluster of each hash, in bits, where the comparison `has_diameters`."""
        raise NotImplementedError(self.kind.name)


class Clusters(NamedTuple):
    """Clusters as arrays, one value a row: uint32 numbers and rows, uint16 measures, and whether there are such.

    A row that matches a reference row is not new: `reference` names that row, `measure` is that to it, and the other
    values have no meaning.
    """

    cluster: "NDArray[np.uint32]"
    representative: "NDArray[np.uint32]"
    measure: "NDArray[np.uint16]"
    diameter: "NDArray[np.uint16]"
    has_hash: "NDArray[np.bool_]"
    has_measure: "NDArray[np.bool_]"
    is_new: "NDArray[np.bool_]"
    reference: pl.Series | None = None

    @property
    def kept(self) -> pl.Series:
        """Whether the row is the representative of its cluster."""
        rows = pl.Series(self.representative)
        return (rows == pl.int_range(len(rows), dtype=ROW_DTYPE, eager=True)) & pl.Series(self.is_new)
