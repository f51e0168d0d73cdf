"""Clusters of a report at each value of its slider, and their counts."""

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from imgmatch_df.columns import EXACT, N_CLUSTERS, N_LARGEST, N_PAIRS, N_REMOVED, N_UNRELATED, VOTES
from imgmatch_df.frames.advice import PROFILE_FIELDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.report.graph import Graph

    Array = NDArray[Any]


class Grouping(NamedTuple):
    """How nodes are put into clusters; nodes are rows that are in a pair or match a reference row.

    Parameters
    ----------
    graph
        Pairs of nodes.
    order
        (n,) uint32: the nodes in the order of preference as representatives.
    linkage
        Name of a linkage.
    measure
        ``"distance"`` or ``"votes"``.
    reference
        (n,) measures to the nearest reference row, -1 where there is none; None without a reference.
    is_protected
        (n,) bool: nodes that are kept in any cluster.
    group
        (n,) codes: a node is kept where its representative has the same one; None where no pairs have equal codes.
    """

    graph: "Graph"
    order: "Array"
    linkage: str
    measure: str
    reference: "Array | None"
    is_protected: "Array"
    group: "Array | None"

    def is_within(self, measures: "Array", value: int) -> "Array":
        """Return which measures are of near-duplicates at a value."""
        found: Array = measures >= value if self.measure == VOTES else measures <= value
        return found

    def known(self, value: int) -> "Array":
        """Return which nodes match a reference row at a value."""
        import numpy as np

        if self.reference is None:
            return np.zeros(len(self.order), np.bool_)
        found: Array = self.is_within(self.reference, value) & (self.reference >= 0)
        return found

    def representatives(self, value: int) -> "Array":
        """Return the representative of each node at a value, (n,) uint32; a node that matches a reference its own."""
        from imgmatch_df.matching.linkages import LINKAGES

        graph, known = self.graph, self.known(value)
        is_pair = self.is_within(graph.measure, value) & ~known[graph.left] & ~known[graph.right]
        ends = (column[is_pair].astype("u4") for column in (graph.left, graph.right))
        of_pairs = LINKAGES[self.linkage].of_pairs
        if of_pairs is None:
            raise TypeError(f"linkage {self.linkage} is not of pairs")
        found: Array = of_pairs(len(self.order), *ends, self.order)
        return found

    def kept(self, representative: "Array", value: int) -> "Array":
        """Return which nodes are kept."""
        import numpy as np

        kept = (representative == np.arange(len(representative))) | self.is_protected
        if self.group is not None:
            kept |= self.group == self.group[representative]
        found: Array = kept & ~self.known(value)
        return found

    def profile(self, values: "list[int]") -> pl.DataFrame:
        """Return the counts at each value; the pairs of unrelated images are not estimated."""
        import numpy as np

        rows = []
        for value in values:
            representative = self.representatives(value)
            sizes = np.bincount(representative, minlength=1)
            n_removed = int((~self.kept(representative, value)).sum())
            n_pairs = int(self.is_within(self.graph.measure, value).sum())
            rows.append((value, n_pairs, int((sizes > 1).sum()), n_removed, max(1, int(sizes.max(initial=1)))))
        first = "min_votes" if self.measure == VOTES else "radius"
        counted = pl.DataFrame(
            rows, schema=[first, N_PAIRS, N_CLUSTERS, N_REMOVED, N_LARGEST], orient="row"
        ).with_columns(pl.lit(None, pl.Float64).alias(N_UNRELATED), pl.lit(value=True).alias(EXACT))
        dtypes = {name: dtype for name, dtype in PROFILE_FIELDS.items() if name in counted.columns}
        return counted.cast({**dtypes, first: pl.UInt16()})
