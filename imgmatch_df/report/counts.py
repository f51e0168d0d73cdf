"""Clusters of a report at each value of its slider, and their counts."""

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from imgmatch_df.columns import (
    EXACT,
    FEWEST_VOTES,
    N_CLUSTERS,
    N_LARGEST,
    N_PAIRS,
    N_REMOVED,
    N_UNRELATED,
    RADIUS_BITS,
    RECALL,
    UNRELATED_SHARE,
    VOTES,
)
from imgmatch_df.frames.advice import PROFILE_FIELDS
from imgmatch_df.frames.vote_advice import VOTE_FIELDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.frames.keeping import RuledRows
    from imgmatch_df.report.graph import Graph

    Array = NDArray[Any]


class NodeClusters(NamedTuple):
    """How nodes are put into clusters; nodes are rows that are in a pair or match a reference row.

    Parameters
    ----------
    graph
        Pairs of nodes.
    ruled
        What the keep rule says about the nodes.
    linkage
        Name of a linkage.
    measure
        ``"distance"`` or ``"votes"``.
    reference
        (n,) measures to the nearest reference row, -1 where there is none; None without a reference.
    """

    graph: "Graph"
    ruled: "RuledRows"
    linkage: str
    measure: str
    reference: "Array | None"

    @property
    def has_votes(self) -> bool:
        """Whether larger measures are nearer."""
        return self.measure == VOTES

    def is_within(self, measures: "Array", value: int) -> "Array":
        """Return which measures are of near-duplicates at a value."""
        found: Array = measures >= value if self.has_votes else measures <= value
        return found

    def known(self, value: int) -> "Array":
        """Return which nodes match a reference row at a value."""
        import numpy as np

        if self.reference is None:
            return np.zeros(len(self.ruled.order), np.bool_)
        found: Array = self.is_within(self.reference, value) & (self.reference >= 0)
        return found

    def representatives(self, value: int) -> "Array":
        """Return the representative of each node at a value, (n,) uint32; a node that matches a reference its own."""
        from imgmatch_df.matching.linkages import LINKAGES

        graph, known = self.graph, self.known(value)
        is_pair = self.is_within(graph.measure, value) & ~known[graph.left] & ~known[graph.right]
        left, right = (column[is_pair].astype("u4") for column in (graph.left, graph.right))
        of_pairs = LINKAGES[self.linkage].of_pairs
        if of_pairs is None:
            raise TypeError(f"linkage {self.linkage} is not of pairs")
        found: Array = of_pairs(len(self.ruled.order), left, right, self.ruled.order)
        return found

    def removed(self, representative: "Array", value: int) -> "Array":
        """Return which nodes are removed from their clusters; those that match a reference row are in none."""
        import numpy as np

        kept = (representative == np.arange(len(representative))) | self.ruled.protected
        for beside in self.ruled.kept_beside(representative):
            kept |= beside
        found: Array = ~kept & ~self.known(value)
        return found

    def profile(self, values: "range", measures: "Array | None") -> pl.DataFrame:
        """Return the counts at each value, without an estimate of unrelated images.

        Parameters
        ----------
        values
            From the smallest one.
        measures
            Of all pairs; None where the graph has them all.
        """
        import numpy as np

        rows = []
        for value in values:
            representative = self.representatives(value)
            sizes = np.bincount(representative, minlength=1)
            removed = self.removed(representative, value)
            n_pairs = int(self.is_within(self.graph.measure if measures is None else measures, value).sum())
            rows.append((value, n_pairs, int((sizes > 1).sum()), int(removed.sum()), max(1, int(sizes.max(initial=1)))))
        first = FEWEST_VOTES if self.has_votes else RADIUS_BITS
        counted = pl.DataFrame(rows, schema=[first, N_PAIRS, N_CLUSTERS, N_REMOVED, N_LARGEST], orient="row")
        unknown = {name: pl.lit(None) for name in (N_UNRELATED, UNRELATED_SHARE, RECALL)}
        fields = VOTE_FIELDS if self.has_votes else PROFILE_FIELDS
        return (
            counted.with_columns(**unknown, **{EXACT: pl.lit(value=True)}).select(list(fields)).cast(pl.Schema(fields))
        )
