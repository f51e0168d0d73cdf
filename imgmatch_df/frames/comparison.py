"""How a verb compares rows, by distances or by votes, and the clusters that it finds.

A verb does the same for each hash kind: it hands the hashes of its rows to a comparison, and shows the measures of the
pairs that it gets.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from imgmatch_df.hashes.kinds import HashKind

if TYPE_CHECKING:
    from imgmatch_df._kernels.arrays import I64, U16, U32, U64
    from imgmatch_df.matching.conditions import Conditions
    from imgmatch_df.matching.join import Progress


class Linked(NamedTuple):
    """The representative of each hash, and what is measured between the two.

    Parameters
    ----------
    representative
        (n,) uint32.
    measure
        (n,) uint16.
    joined
        (n,) uint16: the smallest radius, or the largest number of votes, at which both are in one cluster. None where
        it is not needed.
    """

    representative: "U32"
    measure: "U16"
    joined: "U16 | None"


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
    @abstractmethod
    def directed(self) -> bool:
        """Whether the measures of a pair depend on which side is left."""

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
    def nearest_of_each(self, queries: "U64", references: "U64", k: int, progress: "Progress | None") -> Any:
        """Return the pairs of each query with its `k` nearest references, None where a join is as fast."""

    @abstractmethod
    def components(self, words: "U64", progress: "Progress | None") -> "U32":
        """Return the first position of the component of each hash in the graph of all near-duplicates, (n,) uint32."""

    @abstractmethod
    def link(
        self,
        words: "U64",
        linkage: str,
        order: "U32",
        conditions: "Conditions | None",
        progress: "Progress | None",
        *,
        with_joined: bool,
    ) -> Linked:
        """Return the representative of each hash, its own position if it is one.

        Parameters
        ----------
        words
            Hashes, (n, n_words).
        linkage
            Name of a linkage.
        order
            The positions in the order of preference as representatives.
        conditions
            Which near-duplicates count as pairs, by positions; None for all.
        progress
            Called with (done, total).
        with_joined
            Whether to return `Linked.joined`.
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

    def check_linkage(self, linkage: str) -> None:  # noqa: B027  # some comparisons allow all
        """Raise `ArgumentError` where the linkage does not apply."""

    @abstractmethod
    def warn_of_large(self, linked: Linked, linkage: str) -> None:
        """Warn where one cluster is so large that it is probably a mistake."""

    def diameters(self, words: "U64", representative: "U32", *, equal_together: bool) -> "U16":
        """Return the largest distance in the cluster of each hash, in bits, where the comparison `has_diameters`.

        `equal_together`: whether equal hashes are in one cluster.
        """
        raise NotImplementedError(self.kind.name)
