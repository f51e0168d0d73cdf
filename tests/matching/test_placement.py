"""Votes for one placement of an image in another equal a slow, obvious count; turns of points are those of images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df.matching.kernels.placement import place_pairs
from imgmatch_df.matching.placement import turned_points
from imgmatch_df.matching.points import Points
from imgmatch_df.turns import INVERSE


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


def swapped_rows(points):
    """Return the key by which one image of a pair comes first: number of points, hashes, places."""
    rows = image_of(points, 0)
    return len(rows), [row[0] for row in rows], [row[1:] for row in rows]


def slow_votes(left, right):
    """Return the votes of two images in whole numbers, without a shortcut: every pair of matches, every match."""
    if swapped_rows(left) > swapped_rows(right):
        left, right = right, left
    matches = []
    for i, (word, x, y, level) in enumerate(image_of(left, 0)):
        for j, (other, x_there, y_there, level_there) in enumerate(image_of(right, 0)):
            if (word ^ other).bit_count() <= 10:
                matches.append(((word ^ other).bit_count(), i, j, x + 1j * y, x_there + 1j * y_there, level_there - level))
    matches = sorted(matches, key=lambda match: match[:3])[:200]
    best = 0
    for a, seed in enumerate(matches[:40]):
        for second in matches[:a]:
            here, there = second[3] - seed[3], second[4] - seed[4]
            size_here, size_there = abs2(here), abs2(there)
            turned = there * here.conjugate()
            if min(size_here, size_there) < 144 or not 1 / 5.75 <= size_there / size_here <= 5.75:
                continue
            if turned.real <= 0 or turned.real**2 < 0.96 * size_here * size_there:
                continue
            levels = [d for d in range(-4, 5) if abs(d - 2 * np.log2(size_there / size_here)) <= 1.3]
            if seed[5] not in levels or second[5] not in levels:
                continue
            used_left, used_right, votes = set(), set(), 0
            for _, i, j, place_here, place_there, d in matches:
                off = there * (place_here - seed[3]) - here * (place_there - seed[4])
                near = abs2(off) <= 20 * max(size_here, size_there)
                if near and d in levels and i not in used_left and j not in used_right:
                    used_left.add(i)
                    used_right.add(j)
                    votes += 1
            best = max(best, votes)
    return best


def abs2(number):
    return number.real**2 + number.imag**2


@pytest.mark.parametrize("seed", range(40))
def test_the_votes_equal_a_slow_count(seed):
    left, right = random_pair(seed)
    votes, _, _ = place(left, right)
    assert votes == slow_votes(left, right)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), turn=st.integers(0, 7))
def test_votes_and_coverage_stay_when_sides_are_swapped(seed, turn):
    left, right = random_pair(seed)
    left = turned_points(left, INVERSE[turn])
    votes, placement, coverage = place(left, right, turn)
    back = place(right, left, INVERSE[turn])
    assert (votes, coverage) == (back[0], pytest.approx(back[2]))
    if votes:
        assert placement[0] * back[1][0] == pytest.approx(1)
