"""Clusters of copies, from the pairs of images that have enough votes."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import U8, U16, U32
from imgmatch_df.columns import TURNS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching.conditions import FAR, Conditions, Nodes, link_nodes, pairs_of_nodes
from imgmatch_df.matching.copies import self_copies
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.linkages import Linkage
from imgmatch_df.matching.placement import Copies, verify_pairs
from imgmatch_df.matching.points import Points
from imgmatch_df.matching.shared_points import KeptPoints

__all__ = ["MAX_LINKS", "NO_CONDITIONS", "link_copies"]

Rows = npt.NDArray[Any]

MAX_LINKS: Final = 100_000_000  # pairs of copies, 2.6 GB
NO_CONDITIONS: Final = Conditions()
_MOST: Final = np.uint16(255)  # votes; fewer cost more


def link_copies(
    points: Points,
    equal: U32,
    min_votes: int,
    linkage: Linkage,
    order: U32,
    *,
    turns: bool,
    conditions: Conditions = NO_CONDITIONS,
    kept_points: KeptPoints | None = None,
    progress: Progress | None = None,
) -> tuple[U32, U16, U16]:
    """Return the representative of each image, the votes for the placement in it, and those with which it joins it.

    Both numbers of votes are 0 for a representative.

    Parameters
    ----------
    points
        Of all images.
    equal
        (n,) uint32: the first image with the same points. Such images are joined once, whatever their number.
    min_votes
        Minimum number of votes of two copies.
    linkage
        Finds the representatives of pairs.
    order
        (n,) uint32: the images in the order of preference as representatives.
    turns
        Whether to compare all turns.
    conditions
        Which pairs of images count.
    kept_points
        As `self_copies` takes them.
    progress
        Called with (done, total).

    Raises
    ------
    ArgumentError
        If there are more than `MAX_LINKS` pairs of different images.

    Notes
    -----
    Votes are those of `self_copies`; of two images of one cluster that are no pair of it, those of the best turn. An
    image joins with the largest number of votes at which it is in the cluster of its representative; with a linkage
    that does not chain, with the votes for the placement.
    """
    assert linkage.of_pairs is not None
    rows = np.arange(len(equal), dtype=np.uint32)
    own = np.zeros(len(equal), np.uint8)  # votes of an image and its equals
    repeated = np.flatnonzero(np.bincount(equal, minlength=len(equal)) > 1).astype(np.uint32)
    own[repeated] = _votes(points, repeated, repeated, n_turns=1)
    # An image with fewer than `min_votes` points is no copy of its equals.
    images, number = np.unique(np.where(own[equal] >= min_votes, equal, rows), return_inverse=True)
    distinct = _taken(points, images)
    try:
        pairs = self_copies(
            distinct, min_votes, turns=turns, max_pairs=MAX_LINKS, kept_points=kept_points, progress=progress
        )
    except ArgumentError as error:
        raise _too_many_links(min_votes, "different images") from error
    own = own[images]
    nodes = Nodes.of(rows.astype(np.int64), number, order, conditions)
    left, right, votes = pairs.left, pairs.right, pairs.votes
    if not conditions.hold_always:
        copied = np.flatnonzero(own >= min_votes)
        some = pairs_of_nodes(nodes, number[nodes.best], left, right, copied, MAX_LINKS)
        if some is None:
            raise _too_many_links(min_votes, "images with different values")
        left, right, of_pair = some
        votes = np.concatenate([votes, own[copied]])[of_pair]
    n, chains = len(nodes.best), linkage.grows == "chains"
    if chains:
        root, joined, nearest = link_nodes(n, left, right, _MOST - votes, nodes.order)
    else:
        root = linkage.of_pairs(n, left, right, nodes.order)
        joined, nearest = np.zeros(n, np.uint16), np.full(n, FAR, np.uint16)
    own_cost = _MOST - own[number[nodes.best]]
    representative, cost = nodes.spread_out(root, joined, nearest, own_cost, len(rows), chains=chains)
    joins = np.flatnonzero(representative != rows)
    ends = number[joins], number[representative[joins]]
    lower, upper = np.minimum(*ends), np.maximum(*ends)
    found, is_pair = _look_up(pairs, lower, upper)
    is_equal = lower == upper
    found[is_equal] = own[lower[is_equal]]
    rest = ~is_pair & ~is_equal
    found[rest] = _votes(distinct, lower[rest], upper[rest], n_turns=len(TURNS) if turns else 1)
    measured = np.zeros(len(rows), np.uint16)
    measured[joins] = found
    joined_with = measured.copy()
    if chains:
        joined_with[joins] = _MOST - cost[joins]
    return representative, measured, joined_with


def _too_many_links(min_votes: int, of: str) -> ArgumentError:
    return ArgumentError(
        f"more than {MAX_LINKS:,} pairs of {of} have min_votes={min_votes} votes\nHint: raise min_votes."
    )


def _taken(points: Points, images: U32) -> Points:
    """Return the points of some images, ascending."""
    if len(images) == points.n_images:
        return points
    sizes = np.diff(points.starts)
    is_taken = np.zeros(points.n_images, np.bool_)
    is_taken[images] = True
    chosen = np.repeat(is_taken, sizes)
    starts = np.concatenate([[0], np.cumsum(sizes[images])]).astype(np.int64)
    return Points(points.hashes[chosen], points.places[chosen], starts, points.boxes[images])


def _votes(points: Points, left: Rows, right: Rows, *, n_turns: int) -> U8:
    """Return the votes of pairs of images in the best of the first turns."""
    turn = np.tile(np.arange(n_turns, dtype=np.uint8), len(left))
    found = verify_pairs(points, points, np.repeat(left, n_turns), np.repeat(right, n_turns), turn, 1)
    return _look_up(found, left, right)[0]


def _look_up(pairs: Copies, left: Rows, right: Rows) -> tuple[U8, npt.NDArray[np.bool_]]:
    """Return the votes of some pairs of images among pairs sorted by left, then right, and whether they are there."""
    keys, wanted = (
        rows.astype(np.uint64) << np.uint64(32) | others.astype(np.uint64)
        for rows, others in ((pairs.left, pairs.right), (left, right))
    )
    at = np.searchsorted(keys, wanted)
    is_there = at < len(keys)
    is_there[is_there] = keys[at[is_there]] == wanted[is_there]
    votes = np.zeros(len(wanted), np.uint8)
    votes[is_there] = pairs.votes[at[is_there]]
    return votes, is_there
