"""Copies equal a comparison of all points of all pairs of images, in any order of rows and on any number of threads."""

import threading

import numpy as np
import pytest

from imgmatch_df.columns import TURNS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching import copies as module
from imgmatch_df.matching.copies import explain_copies, match_copies, self_copies, unshared_points
from imgmatch_df.matching.placement import turned_points, verify_pairs
from imgmatch_df.matching.points import Points

N_POINTS = 24


def join_points(parts):
    """Return the points of several sets of images as one."""
    starts = [part.starts[1:] + sum(len(other.hashes) for other in parts[:at]) for at, part in enumerate(parts)]
    columns = [np.concatenate([part[k] for part in parts]) for k in (0, 1, 3)]
    return Points(columns[0], columns[1], np.concatenate([[0], *starts]), columns[2])


def take(points, rows):
    """Return the points of some images, in this order."""
    spans = [np.arange(points.starts[row], points.starts[row + 1]) for row in rows]
    chosen = np.concatenate([np.zeros(0, np.int64), *spans]).astype(np.int64)
    starts = np.cumsum([0, *map(len, spans)])
    return Points(points.hashes[chosen], points.places[chosen], starts, points.boxes[np.array(rows, np.int64)])


def random_images(n, seed=0, n_points=N_POINTS):
    """Return unrelated images."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 63, n * n_points, dtype=np.uint64) << np.uint64(1)
    places = rng.integers(20, 120, (n * n_points, 3))
    places[:, 2] %= 3
    boxes = np.tile(np.array([0, 0, 65535, 65535, 192, 144], np.uint16), (n, 1))
    return Points(hashes, places.astype(np.uint8), np.arange(n + 1) * n_points, boxes)


def edited(points, seed, n_bits=3, n_replaced=8):
    """Return copies: up to `n_bits` bits of each hash change, and the first points are others."""
    rng = np.random.default_rng(seed)
    hashes, places = points.hashes.copy(), points.places.copy()
    for _ in range(n_bits):
        hashes ^= np.uint64(1) << rng.integers(1, 64, len(hashes), dtype=np.uint64)
    for start in points.starts[:-1]:
        hashes[start : start + n_replaced] = rng.integers(0, 1 << 63, n_replaced, dtype=np.uint64) << np.uint64(1)
    places[:, :2] += rng.integers(0, 3, (len(places), 2)).astype(np.uint8)
    return Points(hashes, places, points.starts, points.boxes)


def with_logo(points, seed, n_shared=6):
    """Return images whose first points are nearly the same."""
    rng = np.random.default_rng(99)
    logo, where = (
        rng.integers(0, 1 << 63, n_shared, dtype=np.uint64) << np.uint64(1),
        rng.integers(20, 120, (n_shared, 3)),
    )
    rng = np.random.default_rng(seed)
    hashes, places = points.hashes.copy(), points.places.copy()
    for start in points.starts[:-1]:
        hashes[start : start + n_shared] = logo ^ (np.uint64(1) << rng.integers(1, 64, n_shared, dtype=np.uint64))
        places[start : start + n_shared, :2] = where[:, :2]
    return Points(hashes, places, points.starts, points.boxes)


def scene(seed=0, n=24):
    """Return images of which some are copies, turned copies, equal, empty, of one point, or share a logo."""
    base = random_images(n, seed)
    empty = take(random_images(2, seed + 1), [])._replace(starts=np.zeros(3, np.int64), boxes=base.boxes[:2])
    parts = [
        base,
        edited(base, seed + 2),
        edited(turned_points(take(base, range(n // 2)), 1 + seed % 7), seed + 3),
        with_logo(random_images(n // 2, seed + 4), seed),
        random_images(3, seed + 5, 1),
        empty,
        take(base, [0, 0, 1, 2]),
        edited(take(base, [0] * 6), seed + 6, 6, 2),
    ]
    points = join_points(parts)
    return take(points, np.random.default_rng(seed).permutation(points.n_images))


def hits_of(left, right, turn, is_left_kept, is_right_kept):
    """Return the number of hits of each image of one side, in a turn, with each of the other."""
    turned = turned_points(left, turn).hashes
    near = np.bitwise_count((turned[:, None] ^ right.hashes) & ~np.uint64(1)) <= 6
    near &= is_left_kept[:, None] & is_right_kept
    sums = np.zeros((len(near), right.n_images), np.int64)
    for j in range(right.n_images):
        sums[:, j] = near[:, right.starts[j] : right.starts[j + 1]].sum(axis=1)
    return np.array([sums[left.starts[i] : left.starts[i + 1]].sum(axis=0) for i in range(left.n_images)])


def brute_force(left, right, min_votes, turns, same, is_left_kept=None, is_right_kept=None):
    """Return what a comparison of all points gives."""
    is_left_kept = np.ones(len(left.hashes), np.bool_) if is_left_kept is None else is_left_kept
    is_right_kept = np.ones(len(right.hashes), np.bool_) if is_right_kept is None else is_right_kept
    candidates = []
    for turn in range(8 if turns else 1):
        counts = hits_of(left, right, turn, is_left_kept, is_right_kept)
        if turn == 0:
            equal = [[columns(left, i) == columns(right, j) for j in range(right.n_images)] for i in range(len(counts))]
            counts = counts + 2 * np.array(equal, np.int64)
        elif same:
            equal = [[columns(left, i) == columns(right, j) for j in range(right.n_images)] for i in range(len(counts))]
            counts = counts * (1 - np.array(equal, np.int64))
        i, j = np.nonzero(counts >= 2)
        candidates += [(i[k], j[k], turn) for k in range(len(i)) if not same or i[k] < j[k]]
    i, j, turn = np.array(candidates, np.int64).reshape(-1, 3).T
    return verify_pairs(left, right, i, j, turn.astype(np.uint8), min_votes)


def columns(points, image):
    span = slice(points.starts[image], points.starts[image + 1])
    return points.hashes[span].tolist(), points.places[span].tolist(), points.boxes[image].tolist()


def assert_same(found, expected):
    for name, column, other in zip(found._fields, found, expected, strict=True):
        assert column.dtype == other.dtype, name
        np.testing.assert_array_equal(column, other, err_msg=name)


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("seed", range(7))
def test_self_join_equals_brute_force(seed, turns):
    points = scene(seed)
    for min_votes in (2, 8):
        found = self_copies(points, min_votes, turns=turns)
        assert_same(found, brute_force(points, points, min_votes, turns, same=True))
    assert len(found.left) > 20
    assert turns == bool(found.turn.any())


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_match_equals_brute_force(seed, turns):
    points = scene(seed)
    queries, references = take(points, range(0, points.n_images, 3)), take(points, range(points.n_images))
    for left, right in ((queries, references), (references, queries)):
        found = match_copies(left, right, 2, turns=turns)
        assert_same(found, brute_force(left, right, 2, turns, same=False))


@pytest.mark.parametrize("blocks", [97, 500])
def test_blocks_and_threads_change_nothing(monkeypatch, blocks):
    points = scene(3)
    expected = self_copies(points, 2)
    other = match_copies(points, points, 2)
    monkeypatch.setattr(module, "_ROWS_PER_BLOCK", 8 * blocks)
    monkeypatch.setattr(module, "_KEYS_PER_PART", 16)
    for n_threads in (1, 3):
        assert_same(self_copies(points, 2, n_threads=n_threads), expected)
        assert_same(match_copies(points, points, 2, n_threads=n_threads), other)


def by_row(found, rows):
    """Return pairs by their rows before a permutation, in any direction, with their votes."""
    pairs = zip(rows[found.left].tolist(), rows[found.right].tolist(), found.votes.tolist(), strict=True)
    return {(min(i, j), max(i, j)): votes for i, j, votes in pairs}


def test_order_of_rows_changes_nothing(monkeypatch):
    points = scene(4)
    monkeypatch.setattr(module, "_MIN_HITS", 100)
    monkeypatch.setattr(module, "_HITS_PER_IMAGE", 1)
    monkeypatch.setattr(module, "_SAMPLES", (8, 32, 64))
    rows = np.arange(points.n_images)
    expected = by_row(self_copies(points, 2), rows)
    n_set_aside = explain_copies(points).n_set_aside
    assert n_set_aside
    for seed in range(4):
        rows = np.random.default_rng(seed).permutation(points.n_images)
        assert by_row(self_copies(take(points, rows), 2), rows) == expected
        assert explain_copies(take(points, rows)).n_set_aside == n_set_aside
