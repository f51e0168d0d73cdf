"""Points that very many images share: which points of all images are set aside before hits are counted.

The decision depends on all images, and is the same for images that lie in blocks on several machines: each block counts
the hits of its own points, and the counts of all blocks together give the limit.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import I64, U32, U64
from imgmatch_df.matching.candidates import DistinctImages, Index, turned_hashes
from imgmatch_df.matching.kernels import hits
from imgmatch_df.matching.kernels.placement import MAX_POINTS

__all__ = [
    "LIMITS",
    "KeptPoints",
    "Limits",
    "Sharing",
    "count_shared",
    "first_points",
    "unshared_points",
]

BOOL = npt.NDArray[np.bool_]

_POINTS_PER_BLOCK: Final = 1 << 25  # of one join
_ALL: Final = np.uint64((1 << 64) - 1)


class Limits(NamedTuple):
    """When points are set aside.

    Parameters
    ----------
    hits_per_image, min_hits
        Hits that are kept for each image, and in all at least: more are too many to count.
    samples
        Images with whose points all points are compared, step by step, until the numbers of hits are known.
    few
        Hits with a sample that say little.
    """

    hits_per_image: int = 256
    min_hits: int = 1 << 25
    samples: tuple[int, ...] = (1 << 6, 1 << 9, 1 << 12, 1 << 15)
    few: int = 8


LIMITS = Limits()


class Sharing(NamedTuple):
    """The steps that set points of the left side aside.

    In each step the points of the left side are compared with those of a sample of the right side: the images with the
    least mixed bits. The points with the most hits are set aside, until the others have no more than `max_hits`,
    extrapolated to all images. Images that have few points in common never reach that number, and all their points are
    kept.

    Parameters
    ----------
    sizes
        Number of images in the sample of each step; none where nothing can be set aside. The last step is the first
        that takes all images.
    n_right
        Number of different images of the right side that have points.
    max_hits
        Number of hits that the points that are kept may have, in all.
    few
        Hits with the sample of a step before the last that no limit is below.
    """

    sizes: tuple[int, ...]
    n_right: int
    max_hits: int
    few: int

    @classmethod
    def of(cls, n_left: int, n_points: int, n_right: int, limits: Limits, *, same: bool) -> Self:
        """Return the steps for `n_left` different images that have points, `n_points` in all.

        `same`: whether both sides are the same images.
        """
        max_hits = max(limits.min_hits, limits.hits_per_image * n_left) * (2 if same else 1)
        sizes: tuple[int, ...] = ()
        # So many hits there are at most, if an image repeats none of its points.
        if n_points * n_right > max_hits:
            sizes = tuple(size for size in limits.samples if size < n_right)
            sizes += (n_right,) if n_right <= limits.samples[-1] else ()
        return cls(sizes, n_right, max_hits, limits.few)

    @classmethod
    def is_needless(cls, n_left: int, n_right: int, limits: Limits, *, same: bool) -> bool:
        """Return whether nothing can be set aside, whatever the points of at most so many images are."""
        factor = 2 if same else 1
        per_image = MAX_POINTS * n_right <= factor * limits.hits_per_image
        return per_image or MAX_POINTS * n_left * n_right <= factor * limits.min_hits

    def find_limit(self, step: int, found: I64) -> int:
        """Return the maximum number of hits of a point that is kept in a step; -1 keeps none.

        found: number of points with each number of hits with the sample, from 0 on.
        """
        size = self.sizes[step]
        total = np.cumsum(found * np.arange(len(found))) * (self.n_right / size)
        limit = int(np.searchsorted(total, self.max_hits, side="right")) - 1
        return limit if size == self.sizes[-1] else max(limit, self.few)


class KeptPoints(NamedTuple):
    """The points that are kept of the images that do not keep all of theirs.

    Parameters
    ----------
    mixed
        Mixed bits of these images, (n,) uint64, ascending. All points of other images are kept.
    masks
        (n,) uint64: bit k is set if point k of the image is kept.
    """

    mixed: U64
    masks: U64

    @classmethod
    def of(cls, side: DistinctImages, kept: U32) -> Self:
        """Return them for distinct images, of which the points `kept` are kept, ascending."""
        masks = np.zeros(side.n_images, np.uint64)
        owners = side.owners[kept]
        places = kept - side.starts[owners]
        np.bitwise_or.at(masks, owners, np.uint64(1) << places.astype(np.uint64))
        some = np.flatnonzero(np.bincount(owners, minlength=side.n_images) < np.diff(side.starts))
        return cls(side.mixed[some], masks[some])

    @classmethod
    def all(cls) -> Self:
        """Return them where every image keeps all of its points."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))

    @classmethod
    def of_masks(cls, mixed: U64, masks: U64) -> Self:
        """Return them for masks in any order, of which some may be there several times."""
        found, first = np.unique(mixed, return_index=True)
        return cls(found, masks[first])

    def points_of(self, side: DistinctImages) -> U32:
        """Return the points of distinct images that are kept, ascending."""
        if not len(self.mixed):
            return np.arange(len(side.owners), dtype=np.uint32)
        at = np.minimum(np.searchsorted(self.mixed, side.mixed), len(self.mixed) - 1)
        masks = np.where(self.mixed[at] == side.mixed, self.masks[at], _ALL)
        places = np.arange(len(side.owners)) - side.starts[side.owners]
        is_kept = masks[side.owners] >> places.astype(np.uint64) & np.uint64(1)
        return np.flatnonzero(is_kept).astype(np.uint32)


def unshared_points(
    left: DistinctImages,
    right: DistinctImages,
    n_threads: int | None = None,
    progress: Callable[[float], None] | None = None,
    kept_points: KeptPoints | None = None,
) -> U32:
    """Return the points of the left side that are not set aside, ascending: (m,) uint32.

    See `Sharing`. `kept_points`: a decision that was made over more images than these, which is then taken.
    """
    if kept_points is not None:
        return kept_points.points_of(left)
    same = left is right
    sharing = Sharing.of(left.n_images, len(left.owners), right.n_images, LIMITS, same=same)
    kept = np.arange(len(left.owners), dtype=np.uint32)
    for step, size in enumerate(sharing.sizes):
        among = kept[: np.searchsorted(kept, right.starts[size])] if same else first_points(right, size)
        shown = step / len(sharing.sizes), (step + 1) / len(sharing.sizes)
        counts = count_shared(left, kept, right, among, n_threads, partial(_report, progress, *shown), same=same)
        kept = kept[counts <= sharing.find_limit(step, np.bincount(counts))]
    return kept


def first_points(side: DistinctImages, n_images: int) -> U32:
    """Return the points of the first images of one side, ascending."""
    return np.arange(side.starts[min(n_images, side.n_images)], dtype=np.uint32)


def count_shared(
    left: DistinctImages,
    kept: U32,
    right: DistinctImages,
    among: U32,
    n_threads: int | None = None,
    progress: Callable[[float], None] | None = None,
    *,
    same: bool,
) -> U32:
    """Return the number of hits of the points `kept` of one side with the points `among` of the other.

    `same`: whether an image of both sides has no hits with itself; the mixed bits say which images are on both.
    """
    index = Index(turned_hashes(right.hashes, among, 0, n_threads), n_threads)
    counts = np.zeros(len(kept), np.uint32)
    numbers, others = _image_numbers(left, right, same=same), right.owners[among]
    n_blocks = -(-len(kept) // _POINTS_PER_BLOCK)
    for block in range(n_blocks):
        span = slice(block * _POINTS_PER_BLOCK, (block + 1) * _POINTS_PER_BLOCK)
        some = kept[span]
        owners = left.owners[some] if numbers is None else numbers[left.owners[some]]
        report = partial(_report, progress, block / n_blocks, (block + 1) / n_blocks)
        for pairs in index.near(turned_hashes(left.hashes, some, 0, n_threads), report):
            hits.count_hits(pairs.left, pairs.right, owners, others, counts[span])
    return counts


def _image_numbers(left: DistinctImages, right: DistinctImages, *, same: bool) -> U32 | None:
    """Return the number on the right side of each image of the left one, None where all have their own number.

    An image that is not on the right side has a number that no image there has. So have all if not `same`.
    """
    if left is right and same:
        return None
    numbers = np.full(left.n_images, right.n_images, np.uint32)
    if same:
        _, here, there = np.intersect1d(left.mixed, right.mixed, return_indices=True)
        numbers[here] = there
    return numbers


def _report(progress: Callable[[float], None] | None, start: float, stop: float, share: float) -> None:
    if progress is not None:
        progress(start + (stop - start) * share)
