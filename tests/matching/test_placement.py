"""Votes for one placement of an image in another equal a slow, obvious count; turns of points are those of images."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df.matching.kernels.placement import place_pairs
from imgmatch_df.matching.placement import turned_points, verify_pairs
from imgmatch_df.matching.points import Points
from imgmatch_df.turns import COMPOSED, INVERSE


def make_points(images, boxes=None):
    """Return `Points` of images given as [(hash, x, y, level), ...] each."""
    points = [point for image in images for point in image]
    starts = np.cumsum([0, *map(len, images)])
    if boxes is None:
        boxes = [(0, 0, 65535, 65535, 192, 144)] * len(images)
    return Points(
        np.array([point[0] for point in points], np.uint64),
        np.array([point[1:] for point in points], np.uint8).reshape(-1, 3),
        starts.astype(np.int64),
        np.array(boxes, np.uint16).reshape(-1, 6),
    )


def place(left, right, turn=0):
    """Return votes, placement and coverage of image 0 of both sides."""
    votes, placements, coverage = np.empty(1, np.uint8), np.empty((1, 4)), np.empty(1)
    first = np.zeros(1, np.int64)
    place_pairs(first, first, np.array([turn], np.uint8), left, right, votes, placements, coverage)
    return int(votes[0]), placements[0], float(coverage[0])


def image_of(points, image):
    rows = range(points.starts[image], points.starts[image + 1])
    return [(int(points.hashes[row]), *map(int, points.places[row])) for row in rows]


def random_pair(seed):
    """Return an image and a copy of it, of few and similar hashes, so that matches are many and ties are common."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, 6, dtype=np.uint64) & ~np.uint64(1)
    n = int(rng.integers(0, 65))
    scale, turn = rng.choice([0.5, 1, 1.25, 2]), rng.uniform(-0.3, 0.3)
    left, right = [], []
    for _ in range(n):
        word = int(rng.choice(words)) if rng.random() < 0.5 else int(rng.integers(0, 2**63)) * 2
        x, y, level = (int(rng.integers(0, side)) for side in (193, 145, 5))
        left.append((word, x, y, level))
        for _ in range(rng.integers(0, 4)):
            word ^= 1 << int(rng.integers(1, 64))
        there = scale * np.exp(1j * turn) * complex(x, y) + complex(*rng.normal(0, 2, 2))
        if rng.random() < 0.8 and 0 <= there.real <= 192 and 0 <= there.imag <= 144:
            moved = level + round(4 * np.log2(scale))
            right.append((word, int(there.real), int(there.imag), int(np.clip(moved, 0, 4))))
    rng.shuffle(right)
    return make_points([left]), make_points([right])


@pytest.mark.parametrize("seed", range(40))
def test_the_votes_equal_a_slow_count(seed):
    left, right = random_pair(seed)
    votes, placement, _ = place(left, right)
    expected = reference.votes(image_of(left, 0), image_of(right, 0))
    if reference.content(left) > reference.content(right):
        expected = reference.votes(image_of(right, 0), image_of(left, 0))
    assert votes == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), turn=st.integers(0, 7), both=st.integers(0, 7))
def test_votes_stay_when_sides_are_swapped_or_both_are_turned(seed, turn, both):
    left, right = random_pair(seed)
    left = turned_points(left, INVERSE[turn])
    votes, placement, coverage = place(left, right, turn)
    swapped_votes, _, swapped_coverage = place(right, left, INVERSE[turn])
    assert (votes, coverage) == (swapped_votes, pytest.approx(swapped_coverage))
    turned_votes, _, turned_coverage = place(turned_points(left, COMPOSED[turn][both]), turned_points(right, both))
    if len(left.hashes) and image_of(turned_points(left, turn), 0) != image_of(right, 0):
        assert turned_votes == pytest.approx(votes, abs=64)
