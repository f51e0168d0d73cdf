"""Clusters of near hashes: which rows belong together, which row stands for them, and how wide they are.

A clustering is one label a row. Rows without a hash take no part: leave them out, and put them back as clusters of
their own.
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.popcount import LANES
from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching.kernels import forest, hamming, stars
from imgmatch_df.matching.kernels.bands import I64, U16, U32, U64

__all__ = ["Keep", "connected", "diameters", "distances", "first_rows", "preference", "representatives", "star"]

Keep = Literal["first", "last", "largest"]

_BUDGET: Final = 10_000_000  # comparisons before a kernel comes back, so that Ctrl-C is prompt


def connected(n_rows: int, left: U32, right: U32) -> U32:
    """Return the first row of each row's component in the graph of the pairs.

    Parameters
    ----------
    n_rows
        Rows there are.
    left, right
        Pairs of rows, uint32, in any order. Any set that connects the same rows gives the same labels.

    Returns
    -------
    numpy.ndarray
        (n_rows,) uint32.
    """
    parent = np.arange(n_rows, dtype=np.uint32)
    forest.unite(parent, np.ascontiguousarray(left, np.uint32), np.ascontiguousarray(right, np.uint32))
    forest.flatten(parent)
    return parent


def star(hashes: U64, radius: int, components: U32, order: U32 | None = None) -> U32:
    """Return the center of each row's star: in order, a row joins the first center within the radius, or becomes one.

    No row is farther than the radius from its center. Exact.

    Parameters
    ----------
    hashes
        (n, n_words) uint64.
    radius
        Largest distance to the center, in bits; inclusive.
    components
        (n,) uint32: any labels that rows within the radius of each other share, best those of `connected`.
    order
        (n,) uint32: the rows in the order in which they are asked, from `preference`; row order by default.

    Notes
    -----
    Rows are compared with centers of their component only: the time is the sum over components of centers x rows, the
    memory that of the rows, and pairs are never made.
    """
    hashes = _two_dimensional(hashes)
    n, n_words = hashes.shape
    center = np.full(n, n, np.uint32)
    members, starts = _members(components, order)
    longest = int(np.diff(starts).max(initial=0))
    scratch = np.empty(longest, np.uint32), np.zeros((min(3, n_words), longest + LANES), np.uint64)
    cursor = np.array([0, -1, 0, 0], np.int64)
    while cursor[0] < len(starts) - 1:
        stars.join_stars(hashes, members, starts, radius, center, *scratch, cursor, _BUDGET)
    return center


def preference(n_rows: int, keep: Keep = "first", sizes: Sequence[npt.NDArray[np.generic]] = ()) -> U32:
    """Return the rows in the order in which they may stand for a cluster, the best first.

    Parameters
    ----------
    n_rows
        Rows there are.
    keep
        ``"first"`` or ``"last"`` in row order, or ``"largest"`` of `sizes`, then first.
    sizes
        For ``"largest"``: (n_rows,) numbers each, the most important first, such as pixels and bytes; unknown is
        below every known.

    Raises
    ------
    ArgumentError
        If `keep` is not one of these, or is ``"largest"`` without sizes.
    """
    if keep not in get_args(Keep):
        raise ArgumentError(
            f"keep must be one of {', '.join(map(repr, get_args(Keep)))}, got {keep!r}\n"
            "Hint: 'largest' keeps the picture with the most pixels."
        )
    if keep == "largest":
        if not sizes:
            raise ArgumentError(
                "keep='largest' needs the sizes of the rows, got none\nHint: keep width and height columns."
            )
        ascending = [-np.asarray(size, np.float64) for size in sizes]
        return np.lexsort([np.nan_to_num(size, nan=np.inf) for size in reversed(ascending)]).astype(np.uint32)
    rows = np.arange(n_rows, dtype=np.uint32)
    return rows if keep == "first" else rows[::-1].copy()


def representatives(labels: U32, order: U32) -> U32:
    """Return the row that stands for each row's cluster: the first of it in `order`, from `preference`. (n,) uint32."""
    chosen = np.empty(len(labels), np.uint32)
    chosen[labels[order[::-1]]] = order[::-1]
    return chosen[labels]


def first_rows(labels: U32) -> U32:
    """Return labels for the same clusters that are the first row of each. (n,) uint32."""
    return representatives(labels, preference(len(labels)))


def distances(hashes: U64, representative: U32) -> U16:
    """Return the distance of each row to its representative, in bits. (n,) uint16."""
    hashes = _two_dimensional(hashes)
    out = np.empty(len(hashes), np.uint16)
    hamming.hamming_pairs(hashes, hashes, np.arange(len(hashes), dtype=np.uint32), representative, out)
    return out


def diameters(hashes: U64, labels: U32, equal: U32 | None = None) -> U16:
    """Return the largest distance between two members of each row's cluster, in bits, (n,) uint16. Exact.

    A cluster much wider than the radius is a chain.

    Parameters
    ----------
    hashes
        (n, n_words) uint64.
    labels
        (n,) uint32: a row of each row's cluster, as `connected` and `star` give.
    equal
        (n,) uint32: the first row with the hash of each row, from `join.first_equal`: it alone is compared. Rows with
        equal hashes are in one cluster, whatever the linkage.

    Notes
    -----
    Members are compared from the farthest to the label's row inwards, until no pair can be wider: quick for round
    clusters, quadratic in the different outer members at worst.
    """
    hashes = _two_dimensional(hashes)
    if equal is not None:
        rows, number = np.unique(equal, return_inverse=True)
        if len(rows) < len(hashes):
            return diameters(hashes[rows], number[labels[rows]].astype(np.uint32))[number]
    distance = distances(hashes, labels)
    members, starts = _members(labels, np.argsort(distance, kind="stable")[::-1].astype(np.uint32))
    widest = np.zeros(len(starts) - 1, np.uint16)
    cursor = np.zeros(2, np.int64)
    while cursor[0] < len(widest):
        stars.measure_diameters(hashes, starts, distance, members, widest, cursor, _BUDGET)
    out = np.empty(len(hashes), np.uint16)
    out[members] = np.repeat(widest, np.diff(starts))
    return out


def _members(labels: U32, order: U32 | None) -> tuple[U32, I64]:
    """Return the rows cluster by cluster, each in `order`, and where each cluster begins."""
    rows = np.arange(len(labels), dtype=np.uint32) if order is None else order
    members = rows[np.argsort(labels[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(labels[members])) + 1
    return members, np.concatenate([[0], edges, [len(labels)]] if len(labels) else [[0]]).astype(np.int64)


def _two_dimensional(hashes: U64) -> U64:
    return np.ascontiguousarray(hashes.reshape(len(hashes), -1) if hashes.size else hashes.reshape(len(hashes), 1))
