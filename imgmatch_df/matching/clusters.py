"""Clusters of near hashes, their representatives and their diameters.

A clustering is one label per row. All rows must have a hash; the caller adds rows without one as clusters of one row.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import I64, U16, U32, U64
from imgmatch_df._kernels.popcount import LANES
from imgmatch_df.matching.join import stable_order
from imgmatch_df.matching.kernels import forest, hamming, stars

__all__ = [
    "connected",
    "diameters",
    "first_rows",
    "members_of",
    "representative_distances",
    "representatives",
    "star",
    "star_of_pairs",
]

_STEPS_PER_CALL: Final = 10_000_000  # comparisons of a kernel in one call: few, so that Ctrl-C is prompt


def connected(n_rows: int, left: U32, right: U32) -> U32:
    """Return the first row of each row's component in the graph of the pairs.

    Parameters
    ----------
    n_rows
        Number of rows.
    left, right
        Pairs of rows, uint32, in any order. All sets of pairs that connect the same rows give the same labels.

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

    Every row is within the radius of its center. Exact.

    Parameters
    ----------
    hashes
        (n, n_words) uint64.
    radius
        Maximum distance to the center, in bits; inclusive.
    components
        (n,) uint32: labels that are equal for rows within the radius of each other; those of `connected` are fastest.
    order
        (n,) uint32: the rows in the order in which they are assigned; row order by default.

    Notes
    -----
    A row is compared only with centers of its component: the time is the sum over components of centers x rows, and
    memory is linear in rows.
    """
    hashes = _two_dimensional(hashes)
    n, n_words = hashes.shape
    center = np.full(n, n, np.uint32)
    members, starts = members_of(components, order)
    longest = int(np.diff(starts).max(initial=0))
    buffers = np.empty(longest, np.uint32), np.zeros((min(3, n_words), longest + LANES), np.uint64)
    cursor = np.array([0, -1, 0, 0], np.int64)
    while cursor[0] < len(starts) - 1:
        stars.join_stars(hashes, members, starts, radius, center, *buffers, cursor, _STEPS_PER_CALL)
    return center


def star_of_pairs(n_rows: int, left: U32, right: U32, order: U32) -> U32:
    """Return the center of each row's star, as `star`, in the graph of the pairs.

    Parameters
    ----------
    n_rows
        Number of rows.
    left, right
        Pairs of rows, uint32, each pair once.
    order
        As of `star`.
    """
    rows, others = np.concatenate([left, right]), np.concatenate([right, left])
    by_row = np.argsort(rows, kind="stable")
    rows, others = rows[by_row], others[by_row]
    center = np.arange(n_rows, dtype=np.uint32)
    is_free = np.ones(n_rows, np.bool_)
    has_others = np.zeros(n_rows, np.bool_)
    has_others[rows] = True
    starts = np.searchsorted(rows, np.arange(n_rows + 1))
    for row in order[has_others[order]].tolist():
        if is_free[row]:
            joining = others[starts[row] : starts[row + 1]]
            joining = joining[is_free[joining]]
            center[joining] = row
            is_free[joining] = is_free[row] = False
    return center


def representatives(labels: U32, order: U32) -> U32:
    """Return the representative of each row's cluster, (n,) uint32: its first row in `order`."""
    chosen = np.empty(len(labels), np.uint32)
    chosen[labels[order[::-1]]] = order[::-1]
    return chosen[labels]


def first_rows(labels: U32) -> U32:
    """Return the first row of each row's cluster, (n,) uint32."""
    return representatives(labels, np.arange(len(labels), dtype=np.uint32))


def representative_distances(hashes: U64, representative: U32) -> U16:
    """Return the distance of each row to its representative in bits, (n,) uint16."""
    hashes = _two_dimensional(hashes)
    out = np.empty(len(hashes), np.uint16)
    hamming.hamming_pairs(hashes, hashes, np.arange(len(hashes), dtype=np.uint32), representative, out)
    return out


def diameters(hashes: U64, labels: U32, equal: U32 | None = None) -> U16:
    """Return the largest distance between two members of each row's cluster, in bits, (n,) uint16. Exact.

    A diameter far above the radius shows that near-duplicates were chained.

    Parameters
    ----------
    hashes
        (n, n_words) uint64.
    labels
        (n,) uint32: a row of each row's cluster, from `connected` or `star`.
    equal
        (n,) uint32: the first row with the hash of each row, from `join.first_equal`; then only these rows are
        compared. Rows with equal hashes are in one cluster with every linkage.

    Notes
    -----
    Members are compared in order of decreasing distance from the row of the label, until no pair can be farther apart.
    The worst case is quadratic in the distinct members.
    """
    hashes = _two_dimensional(hashes)
    if equal is not None:
        rows, number = np.unique(equal, return_inverse=True)
        if len(rows) < len(hashes):
            return diameters(hashes[rows], number[labels[rows]].astype(np.uint32))[number]
    distance = representative_distances(hashes, labels)
    members, starts = members_of(labels, np.argsort(distance, kind="stable")[::-1].astype(np.uint32))
    widest = np.zeros(len(starts) - 1, np.uint16)
    cursor = np.zeros(2, np.int64)
    while cursor[0] < len(widest):
        stars.measure_diameters(hashes, starts, distance, members, widest, cursor, _STEPS_PER_CALL)
    out = np.empty(len(hashes), np.uint16)
    out[members] = np.repeat(widest, np.diff(starts))
    return out


def members_of(labels: npt.NDArray[Any], order: U32 | None) -> tuple[U32, I64]:
    """Return the rows cluster by cluster, in `order` within each, and where each cluster begins."""
    rows = np.arange(len(labels), dtype=np.uint32) if order is None else order
    members = stable_order(np.ascontiguousarray(labels, np.uint32), rows, int(labels.max(initial=0)) + 1)
    edges = np.flatnonzero(np.diff(labels[members])) + 1
    return members, np.concatenate([[0], edges, [len(labels)]] if len(labels) else [[0]]).astype(np.int64)


def _two_dimensional(hashes: U64) -> U64:
    return np.ascontiguousarray(hashes.reshape(len(hashes), -1) if hashes.size else hashes.reshape(len(hashes), 1))
