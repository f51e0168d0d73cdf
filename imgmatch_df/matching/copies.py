"""Copies of images by their points: candidates are verified by votes for one placement, and become pairs of rows."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U8
from imgmatch_df.columns import TURNS
from imgmatch_df.errors import ArgumentError, TooManyPairsError
from imgmatch_df.matching.candidates import (
    DistinctImages,
    Steps,
    collapse_images,
    find_candidates,
)
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.kernels import hits
from imgmatch_df.matching.kernels.placement import MAX_POINTS
from imgmatch_df.matching.placement import Copies, verify_pairs
from imgmatch_df.matching.points import Points
from imgmatch_df.matching.shared_points import KeptPoints, unshared_points
from imgmatch_df.turns import INVERSE

__all__ = ["Copies", "Explained", "explain_copies", "match_copies", "self_copies"]

_MAX_PAIRS: Final = (1 << 32) - 1  # positions of pairs are 32-bit numbers elsewhere


class Explained(NamedTuple):
    """Counts of a join of points: distinct images, their points, those set aside, and candidates in all turns."""

    n_images: int
    n_points: int
    n_set_aside: int
    n_candidates: int


def self_copies(
    points: Points,
    min_votes: int = 8,
    *,
    turns: bool = True,
    max_pairs: int | None = None,
    kept_points: KeptPoints | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Copies:
    """Return all pairs of candidate images with at least `min_votes` votes, each pair once, sorted.

    Parameters
    ----------
    min_votes
        Minimum number of points of both images that agree on one placement, 2 to 64.
    turns
        Whether the images are also compared in the seven other turns.
    max_pairs
        Maximum number of pairs; more raise an error.
    kept_points
        Which points make candidates, as decided over more images than these; None decides over these.
    n_threads
        Number of threads; by default all usable processors. The result does not depend on it.
    progress
        Called with (done, total) from the calling thread.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or if there are more than `max_pairs` pairs.

    Notes
    -----
    A pair is a candidate in a turn if at least two pairs of their points are hits, of the points that `unshared_points`
    keeps; all points vote. Two images with equal points and boxes are candidates in turn "none" alone. Memory is linear
    in the points and in the pairs found.
    """
    side = collapse_images(points)
    return _join(points, points, side, side, min_votes, turns, max_pairs, kept_points, n_threads, progress)


def match_copies(
    queries: Points,
    references: Points,
    min_votes: int = 8,
    *,
    turns: bool = True,
    max_pairs: int | None = None,
    kept_points: KeptPoints | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Copies:
    """Return all candidate pairs of a query (left) and a reference (right) with at least `min_votes` votes, sorted.

    Parameters, errors and candidates as in `self_copies`. Only points of queries are set aside, by their hits with
    those of the references.
    """
    return _join(
        queries,
        references,
        collapse_images(queries),
        collapse_images(references),
        min_votes,
        turns,
        max_pairs,
        kept_points,
        n_threads,
        progress,
    )


def explain_copies(
    points: Points,
    *,
    references: Points | None = None,
    turns: bool = True,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Explained:
    """Return how many points `self_copies` sets aside, or with `references` `match_copies`, and how many candidates."""
    left = right = collapse_images(points)
    if references is not None:
        right = collapse_images(references)
    steps = Steps(progress)
    kept = unshared_points(left, right, n_threads, steps.within(0, 0.1))
    candidates = find_candidates(left, right, kept, _turn_numbers(turns), n_threads, steps, 0.1)
    n_candidates = sum(len(turn) for *_, turn in candidates)
    return Explained(left.n_images, len(left.owners), len(left.owners) - len(kept), n_candidates)


def _turn_numbers(turns: bool) -> Sequence[int]:
    return range(len(TURNS)) if turns else range(1)


def _join(
    left_points: Points,
    right_points: Points,
    left: DistinctImages,
    right: DistinctImages,
    min_votes: int,
    turns: bool,
    max_pairs: int | None,
    kept_points: KeptPoints | None,
    n_threads: int | None,
    progress: Progress | None,
) -> Copies:
    if not isinstance(min_votes, (int, np.integer)) or isinstance(min_votes, bool) or not 2 <= min_votes <= MAX_POINTS:
        raise ArgumentError(
            f"min_votes must be a whole number of 2 to {MAX_POINTS} points, got {min_votes!r}\n"
            "Hint: 8 suits photos, 11 is strict."
        )
    steps = Steps(progress)
    kept = unshared_points(left, right, n_threads, steps.within(0, 0.1), kept_points)
    found = _Verified(left_points, right_points, left, right, min_votes, max_pairs, n_threads)
    found.add(*_equal_images(left, right))
    for candidates in find_candidates(left, right, kept, _turn_numbers(turns), n_threads, steps, 0.1):
        found.add(*candidates)
    return found.copies()


def _equal_images(left: DistinctImages, right: DistinctImages) -> tuple[I64, I64, U8]:
    """Return the candidates that need no hits: images of both sides, or of several rows, with equal points."""
    if left is right:
        i = j = np.flatnonzero(np.diff(left.row_starts) > 1)
    else:
        _, i, j = np.intersect1d(left.mixed, right.mixed, return_indices=True)
    return i, j, np.zeros(len(i), np.uint8)


class _Verified:
    """Candidates that have enough votes, as pairs of rows."""

    def __init__(
        self,
        left_points: Points,
        right_points: Points,
        left: DistinctImages,
        right: DistinctImages,
        min_votes: int,
        max_pairs: int | None,
        n_threads: int | None,
    ) -> None:
        self._points, self._min_votes, self._n_threads = (left_points, right_points), min_votes, n_threads
        self._left, self._right, self._same = left, right, left is right
        self._max_pairs = _MAX_PAIRS if max_pairs is None else max_pairs
        self._n_pairs = 0
        self._blocks: list[Copies] = []  # of images, not of rows
        self.add(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))

    def add(self, i: I64, j: I64, turn: U8) -> None:
        """Verify candidates: images of both sides, and the turn of the left one; all turns of a pair in one call."""
        if self._same:
            # A pair of rows has the smaller row on the left. Images of several rows may need both directions.
            first, last = self._left.rows[self._left.row_starts[:-1]], self._left.rows[self._left.row_starts[1:] - 1]
            ahead, back = first[i] < last[j], (first[j] < last[i]) & (i != j)
            inverse = np.array(INVERSE, np.uint8)[turn[back]]
            i, j = np.concatenate([i[ahead], j[back]]), np.concatenate([j[ahead], i[back]])
            turn = np.concatenate([turn[ahead], inverse])
        rows = self._left.rows[self._left.row_starts[i]], self._right.rows[self._right.row_starts[j]]
        copies = verify_pairs(*self._points, *rows, turn, self._min_votes, n_threads=self._n_threads)
        self._blocks.append(copies)
        self._n_pairs += int(self._counts(copies).sum())
        if self._n_pairs > self._max_pairs:
            raise _too_many_pairs(self._max_pairs)

    def _counts(self, copies: Copies) -> I64:
        counts = np.empty(len(copies.left), np.int64)
        hits.count_rows(*self._images(copies), *self._rows, self._same, counts)
        return counts

    @cached_property
    def _rows(self) -> tuple[I64, I64, I64, I64]:
        return self._left.row_starts, self._left.rows, self._right.row_starts, self._right.rows

    @cached_property
    def _numbers(self) -> tuple[I64, I64]:
        """The image of each row of both sides."""
        numbers = []
        for side, points in zip((self._left, self._right), self._points, strict=True):
            of_row = np.zeros(points.n_images, np.int64)
            of_row[side.rows] = np.repeat(np.arange(side.n_images), np.diff(side.row_starts))
            numbers.append(of_row)
        return numbers[0], numbers[1]

    def _images(self, copies: Copies) -> tuple[I64, I64]:
        return self._numbers[0][copies.left], self._numbers[1][copies.right]

    def copies(self) -> Copies:
        """Return all pairs of rows, sorted by left, then right."""
        found = Copies(*(np.concatenate(column) for column in zip(*self._blocks, strict=True)))
        self._blocks.clear()
        counts = self._counts(found)
        n = int(counts.sum())
        left, right = np.empty(n, np.uint32), np.empty(n, np.uint32)
        hits.write_rows(*self._images(found), *self._rows, self._same, left, right)
        source = np.repeat(np.arange(len(counts)), counts)
        # A query that equals a reference may have been found twice.
        order = np.lexsort((found.turn[source], -found.votes[source].astype(np.int64), right, left))
        is_first = np.ones(n, np.bool_)
        is_first[1:] = (np.diff(left[order]) != 0) | (np.diff(right[order]) != 0)
        order = order[is_first]
        source = source[order]
        return Copies(
            left[order],
            right[order],
            found.votes[source],
            found.turn[source],
            found.scale[source],
            found.shift_x[source],
            found.shift_y[source],
            found.coverage[source],
        )


def _too_many_pairs(max_pairs: int) -> TooManyPairsError:
    return TooManyPairsError(
        f"more than max_pairs={max_pairs:,} pairs have enough votes\n"
        "Hint: cluster() groups them without making pairs; or raise min_votes or max_pairs."
    )
