"""Copies among candidate pairs of images: votes for one placement, and where the copy lies, in fractions of images."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import U8, U32
from imgmatch_df.matching.kernels.placement import place_pairs
from imgmatch_df.matching.kernels.turned_points import turn_points
from imgmatch_df.matching.points import Points
from imgmatch_df.threads import Once, finish_tasks
from imgmatch_df.turns import EVERY_TURN

__all__ = ["Copies", "turned_points", "verify_pairs"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_PAIRS_PER_CALL: Final = 1 << 11  # 4 to 20 ms
_WHOLE: Final = 65535  # sides of boxes are fractions of it


class Copies(NamedTuple):
    """Pairs of images with votes for one placement of the turned left image in the right one.

    Parameters
    ----------
    left, right
        Images, sorted by left, then right.
    votes
        Places of both images that agree on the placement, as many as there would be if 40 places could agree.
    turn
        Number of the turn of the left image, in `imgmatch_df.columns.TURNS`: the one with the most votes, the first of
        several.
    scale
        Longest side of the left image, in longest sides of the right one.
    shift_x, shift_y
        Where the top left corner of the turned left image lies in the right one, in fractions of the width and height
        of the right one. Images are whole, with their borders, so that corners may lie outside.
    coverage
        Share of an image that the patches around the agreeing points span, between its trimmed borders; the smaller of
        both images.
    """

    left: U32
    right: U32
    votes: U8
    turn: U8
    scale: F32
    shift_x: F32
    shift_y: F32
    coverage: F32


def turned_points(points: Points, turn: int, *, n_threads: int | None = None) -> Points:
    """Return the points of images as those of the same images after the turn of a number."""
    if turn == 0:
        return points
    hashes, places = np.empty_like(points.hashes), np.empty_like(points.places)
    finish_tasks([Once(turn_points, points, turn, hashes, places)], n_threads)
    return Points(hashes, places, points.starts, _turned_boxes(points.boxes, np.array([turn], np.uint8)))


def verify_pairs(
    left_points: Points,
    right_points: Points,
    left: npt.NDArray[Any],
    right: npt.NDArray[Any],
    turn: U8,
    min_votes: int,
    *,
    n_threads: int | None = None,
) -> Copies:
    """Return the candidate pairs with at least `min_votes` votes, each pair once, in its best turn.

    Parameters
    ----------
    left_points, right_points
        Points of both sides. The same object for pairs of one set of images.
    left, right
        Images of each candidate, whole numbers.
    turn
        Turn of the left image of each candidate. A pair may be a candidate in several turns.
    min_votes
        Minimum number of votes, at least 1. A larger number takes less time.

    Notes
    -----
    The pair with left and right swapped has the same votes and coverage. A candidate takes 1 to 60 us.
    docs/how-it-works/local-matching.md has the definition.
    """
    left, right = left.astype(np.int64, copy=False), right.astype(np.int64, copy=False)
    n = len(left)
    votes, placements, coverage = np.empty(n, np.uint8), np.empty((n, 4)), np.empty(n)
    finish_tasks(
        [
            Once(
                place_pairs,
                left[at : at + _PAIRS_PER_CALL],
                right[at : at + _PAIRS_PER_CALL],
                turn[at : at + _PAIRS_PER_CALL],
                left_points,
                right_points,
                min_votes,
                votes[at : at + _PAIRS_PER_CALL],
                placements[at : at + _PAIRS_PER_CALL],
                coverage[at : at + _PAIRS_PER_CALL],
            )
            for at in range(0, n, _PAIRS_PER_CALL)
        ],
        n_threads,
    )
    chosen = np.flatnonzero(votes >= min_votes)
    order = np.lexsort((turn[chosen], -votes[chosen].astype(np.int64), right[chosen], left[chosen]))
    chosen = chosen[order]
    is_first = np.ones(len(chosen), np.bool_)
    is_first[1:] = (np.diff(left[chosen]) != 0) | (np.diff(right[chosen]) != 0)
    chosen = chosen[is_first]
    left, right, turn = left[chosen], right[chosen], turn[chosen]
    boxes = _turned_boxes(left_points.boxes[left], turn)
    scale, shift_x, shift_y = _in_fractions(placements[chosen], boxes, right_points.boxes[right])
    return Copies(
        left.astype(np.uint32),
        right.astype(np.uint32),
        votes[chosen],
        turn.astype(np.uint8, copy=False),
        scale,
        shift_x,
        shift_y,
        coverage[chosen].astype(np.float32),
    )


def _turned_boxes(boxes: npt.NDArray[np.uint16], turn: U8) -> npt.NDArray[np.uint16]:
    """Return boxes (n, 6) after the turn of each, turn (n,) or (1,) uint8."""
    swaps, reverses_rows, reverses_columns = np.array(EVERY_TURN, np.bool_)[turn].T
    turned = np.where(swaps[:, None], boxes[:, [1, 0, 3, 2, 5, 4]], boxes)
    turned[:, [0, 2]] = np.where(reverses_columns[:, None], _WHOLE - turned[:, [2, 0]], turned[:, [0, 2]])
    turned[:, [1, 3]] = np.where(reverses_rows[:, None], _WHOLE - turned[:, [3, 1]], turned[:, [1, 3]])
    return turned


def _in_fractions(
    placements: F64, left_boxes: npt.NDArray[np.uint16], right_boxes: npt.NDArray[np.uint16]
) -> tuple[F32, F32, F32]:
    """Return scale, shift x and shift y of placements (n, 4) in base pixels, in fractions of the whole images."""
    left_start, left_pixel = _whole_in_pixels(left_boxes)
    right_start, right_pixel = _whole_in_pixels(right_boxes)
    left_sides, right_sides = _WHOLE * left_pixel, _WHOLE * right_pixel
    scale, shift = placements[:, :2], placements[:, 2:]
    longest = np.arange(len(placements)), left_sides.argmax(axis=1)
    corner = shift - scale * left_start * left_pixel + right_start * right_pixel
    fractions = corner / right_sides
    scales = (scale * left_sides)[longest] / right_sides.max(axis=1)
    return scales.astype(np.float32), fractions[:, 0].astype(np.float32), fractions[:, 1].astype(np.float32)


def _whole_in_pixels(boxes: npt.NDArray[np.uint16]) -> tuple[F64, F64]:
    """Return left and top of boxes (n, 6), and the base pixels of 1/65535 of each whole image: (n, 2) each."""
    sides = boxes.astype(np.float64)
    return sides[:, :2], np.maximum(sides[:, 4:], 1) / np.maximum(sides[:, 2:4] - sides[:, :2], 1)
