"""Linkages: the ways to split a component of near hashes into clusters.

To add one, add an entry to `LINKAGES`; the verbs, the command line and the messages read their choices from it. This
module imports no kernels, so that it can be read without compiling any.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from imgmatch_df._kernels.arrays import U32, U64
    from imgmatch_df.turns import TurnedBits

Keep = Literal["first", "last", "largest", "smallest", "newest", "oldest"]


@dataclass(frozen=True, slots=True)
class Linkage:
    """A way to split components into clusters.

    Parameters
    ----------
    summary
        What it does, as the end of a sentence that begins with its name.
    chains
        Whether near-duplicates of near-duplicates are in one cluster.
    find_representatives
        Called with ``(hashes, radius, components, order, bits)``: hashes (n, n_words) uint64; the maximum distance in
        bits; components (n,) uint32, from `join.connect`; order (n,) uint32, the best row first; bits, what
        turns do to the hashes, None to compare them unturned. Returns the row that represents each row's cluster,
        (n,) uint32. Rows with equal hashes must be in one cluster.
    of_pairs
        The same for kinds that are compared by votes, called with ``(n_rows, left, right, order)``: left and right,
        the pairs that are copies, each once, (m,) uint32. None if the linkage does not apply to them.
    grows
        How `conditions.link_rows` makes its clusters where some pairs do not count: ``"chains"`` or ``"stars"``. None
        if all pairs must count.
    """

    summary: str
    chains: bool
    find_representatives: "Callable[[U64, int, U32, U32, TurnedBits | None], U32]"
    of_pairs: "Callable[[int, U32, U32, U32], U32] | None" = None
    grows: Literal["chains", "stars"] | None = None


def _connected(
    hashes: "U64",  # noqa: ARG001  # as all
    radius: int,  # noqa: ARG001  # as all
    components: "U32",
    order: "U32",
    bits: "TurnedBits | None",  # noqa: ARG001  # as all
) -> "U32":
    from imgmatch_df.matching import clusters

    return clusters.representatives(components, order)


def _star(hashes: "U64", radius: int, components: "U32", order: "U32", bits: "TurnedBits | None") -> "U32":
    from imgmatch_df.matching import clusters, turned

    if bits is not None:
        return turned.turned_star(hashes, radius, bits, order)
    return clusters.star(hashes, radius, components, order)


def _connected_of_pairs(n_rows: int, left: "U32", right: "U32", order: "U32") -> "U32":
    from imgmatch_df.matching import clusters

    return clusters.representatives(clusters.connected(n_rows, left, right), order)


def _star_of_pairs(n_rows: int, left: "U32", right: "U32", order: "U32") -> "U32":
    from imgmatch_df.matching import clusters

    return clusters.star_of_pairs(n_rows, left, right, order)


LINKAGES: Final[dict[str, Linkage]] = {
    "connected": Linkage("chains near-duplicates", True, _connected, _connected_of_pairs, "chains"),
    "star": Linkage("does not chain them", False, _star, _star_of_pairs, "stars"),
}
