"""The pairs of rows that a report shows: those that connect the clusters of every radius up to a limit."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imgmatch_df.columns import TURNS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.advice import SideProfile
from imgmatch_df.frames.checks import JoinSide
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.pairs import pairs_of_rows
from imgmatch_df.frames.votes import ByVotes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df.matching.join import Progress

    Array = NDArray[Any]

PAIRS_PER_ROW: Final = 20  # of a page
MIN_PAIRS: Final = 1_000_000  # that a page may have whatever the number of its rows
_PLACEMENT: Final = ("turn", "scale", "shift_x", "shift_y")


class Graph(NamedTuple):
    """Pairs of rows, the best first; ties by left, then right. Rows are numbers in the frame, left below right.

    Parameters
    ----------
    left, right
        (m,) int64.
    measure
        (m,) uint16: distances in bits, or votes.
    placement
        Further columns of pairs by name, such as the turn of the left image: (m,) each.
    """

    left: "NDArray[np.int64]"
    right: "NDArray[np.int64]"
    measure: "NDArray[np.uint16]"
    placement: "dict[str, Array]"

    def take(self, chosen: "Array") -> "Graph":
        """Return some of the pairs, by their positions or by a mask."""
        columns = {name: column[chosen] for name, column in self.placement.items()}
        return Graph(self.left[chosen], self.right[chosen], self.measure[chosen], columns)


def spanning_graph(side: JoinSide, found: SideProfile) -> Graph:
    """Return the pairs that connect what all pairs connect at each radius, at most one less than rows.

    Parameters
    ----------
    side
        The rows.
    found
        Their profile, which has joined them: pairs were never kept, whatever their number.
    """
    import numpy as np

    from imgmatch_df.matching import join

    links, flat = found.links, side.flat
    rows = found.distinct.rows
    first = join.first_equal(side.words).astype(np.int64)
    copies = np.flatnonzero(first != np.arange(len(first)))
    ends = (rows[links.left], rows[links.right]), (first[copies], copies)
    left, right = (side.rows_of(np.concatenate(column)).astype(np.int64) for column in zip(*ends, strict=True))
    if flat.rows.size:
        firsts = flat.representatives(np.arange(len(flat.rows), dtype=np.uint32))
        others = np.flatnonzero(firsts != flat.rows)
        left, right = np.concatenate([left, firsts[others]]), np.concatenate([right, flat.rows[others]])
    measure = np.zeros(len(left), np.uint16)
    measure[: len(links.distance)] = links.distance
    return _sorted(left, right, measure, {}, descending=False)


def whole_graph(comparison: Comparison, side: JoinSide, max_pairs: int, progress: "Progress | None") -> Graph:
    """Return all pairs; raise `ArgumentError` where there are more than `max_pairs`."""
    import numpy as np

    found = pairs_of_rows(comparison, side, None, max_pairs, progress)
    placement = {name: getattr(found, name) for name in _PLACEMENT if hasattr(found, name)}
    if "turn" in placement:
        placement["turn"] = np.array(TURNS)[placement["turn"]]
    measure = getattr(found, comparison.measure).astype(np.uint16)
    by_votes = isinstance(comparison, ByVotes)
    return _sorted(found.left.astype(np.int64), found.right.astype(np.int64), measure, placement, descending=by_votes)


def spanning_part(graph: Graph, n_rows: int) -> Graph:
    """Return the pairs of a graph that connect what all of its pairs connect at each value of the measure."""
    import numpy as np

    from imgmatch_df.matching.kernels import forest

    is_link = np.empty(len(graph.left), np.bool_)
    parent = np.arange(n_rows, dtype=np.uint32)
    forest.span(parent, graph.left.astype(np.uint32), graph.right.astype(np.uint32), is_link)
    return graph.take(is_link)


def most_pairs(n_rows: int) -> int:
    """Return the maximum number of pairs of a page."""
    return max(PAIRS_PER_ROW * n_rows, MIN_PAIRS)


def too_many(comparison: Comparison, value: int, max_pairs: int) -> ArgumentError:
    """Return the error of a graph that has more pairs at the value that was chosen than a page holds."""
    by_votes = isinstance(comparison, ByVotes)
    what, change = ("min_votes", "raise") if by_votes else ("radius", "lower")
    return ArgumentError(
        f"more than {max_pairs:,} pairs at {what}={value}, which is the maximum of a report\n"
        f"Hint: {change} {what}; linkage='connected' without a reference and without turns needs fewer pairs."
    )


def _sorted(
    left: "Array", right: "Array", measure: "Array", placement: "dict[str, Array]", *, descending: bool
) -> Graph:
    import numpy as np

    left, right = (left, right) if placement else (np.minimum(left, right), np.maximum(left, right))
    key = -measure.astype(np.int64) if descending else measure.astype(np.int64)
    return Graph(left, right, measure, placement).take(np.lexsort((right, left, key)))
