"""Clusters of copies, from the pairs of images that have enough votes."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import U8, U16, U32
from imgmatch_df.columns import TURNS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching.copies import self_copies
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.placement import Copies, verify_pairs
from imgmatch_df.matching.points import Points

__all__ = ["MAX_LINKS", "link_copies"]

Rows = npt.NDArray[Any]

MAX_LINKS: Final = 100_000_000  # pairs of copies, 2.6 GB


def link_copies(
    points: Points,
    equal: U32,
    min_votes: int,
    of_pairs: Callable[[int, U32, U32, U32], U32],
    order: U32,
    *,
    turns: bool,
    progress: Progress | None = None,
) -> tuple[U32, U16]:
    """Return the representative of each image, and the votes for the placement in it, 0 for a representative.

    Parameters
    ----------
    points
        Of all images.
    equal
        (n,) uint32: the first image with the same points. Such images are joined once, whatever their number.
    min_votes
        Minimum number of votes of two copies.
    of_pairs
        Finds the representatives, see `linkages.Linkage`.
    order
        (n,) uint32: the images in the order of preference as representatives.
    turns
        Whether to compare all turns.
    progress
        Called with (done, total).

    Raises
    ------
    ArgumentError
        If there are more than `MAX_LINKS` pairs of different images.

    Notes
    -----
    Votes are those of `self_copies`; of two images of one cluster that are no pair of it, those of the best turn.
    """
    rows = np.arange(len(equal), dtype=np.uint32)
    own = np.zeros(len(equal), np.uint8)  # votes of an image and its equals
    repeated = np.flatnonzero(np.bincount(equal, minlength=len(equal)) > 1).astype(np.uint32)
    own[repeated] = _votes(points, repeated, repeated, n_turns=1)
    # An image with fewer than `min_votes` points is no copy of its equals.
    images, number = np.unique(np.where(own[equal] >= min_votes, equal, rows), return_inverse=True)
    distinct = _taken(points, images)
    try:
        pairs = self_copies(distinct, min_votes, turns=turns, max_pairs=MAX_LINKS, progress=progress)
    except ArgumentError as error:
        raise ArgumentError(
            f"more than {MAX_LINKS:,} pairs of different images have min_votes={min_votes} votes\n"
            "Hint: raise min_votes."
        ) from error
    _, places = np.unique(number[order], return_index=True)
    best = order[places]  # of equal images
    linked = of_pairs(len(images), pairs.left, pairs.right, np.argsort(places).astype(np.uint32))
    votes = own[images]
    joined = np.flatnonzero(linked != np.arange(len(images)))
    ends = np.minimum(joined, linked[joined]), np.maximum(joined, linked[joined])
    found, is_pair = _look_up(pairs, *ends)
    found[~is_pair] = _votes(distinct, ends[0][~is_pair], ends[1][~is_pair], n_turns=len(TURNS) if turns else 1)
    votes[joined] = found
    representative = best[linked[number]]
    return representative, np.where(representative == rows, 0, votes[number]).astype(np.uint16)


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
