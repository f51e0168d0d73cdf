"""Joins in eight turns equal a comparison of every turn of every hash with every other hash."""

import numpy as np
import pytest
import reference

from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.hashes.turns import turned_bits
from imgmatch_df.matching import turned
from imgmatch_df.turns import INVERSE

KINDS = {"bmh1": 24, "pdq": 31, "imagehash_ahash": 4}


def make(kind, n, seed=3):
    """Return hashes of which many are turned, edited or equal copies of others, and some are their own mirrors."""
    rng = np.random.default_rng(seed)
    words = np.zeros((n, -(-kind.n_bytes // 8)), np.uint64)
    raw = words.view(np.uint8)[:, : kind.n_bytes]
    raw[:] = rng.integers(0, 256, raw.shape)
    bits = turned_bits(kind)
    for row in range(n // 3, n):
        copied = words[rng.integers(0, row)][None]
        words[row] = turned.turn_words(copied, bits, int(rng.integers(0, 8)))
        for _ in range(rng.integers(0, KINDS[kind.name] // 2)):
            raw[row, rng.integers(0, kind.n_bytes)] ^= 1 << rng.integers(0, 8)
    for turn in range(min(8, n)):  # equal to their own turn, where the sign of no bit changes
        words[turn] &= turned.turn_words(words[turn : turn + 1], bits, turn)[0]
    words[-1:] = 0
    if kind.n_bits % 8:
        raw[:, -1] &= (1 << kind.n_bits % 8) - 1
    return words


def every_turn(words, kind):
    return [turned.turn_words(words, turned_bits(kind), number) for number in range(8)]


@pytest.fixture(params=KINDS)
def kind(request):
    return hash_kind(request.param)


def radii(kind):
    return [0, 1, KINDS[kind.name], 2 * KINDS[kind.name]]


@pytest.mark.parametrize("n", [0, 1, 2, 9, 150])
def test_self_join_equals_brute_force(kind, n):
    words = make(kind, n) if n > 8 else make(kind, 9)[:n]
    for radius in radii(kind):
        pairs = turned.turned_self_join(words, radius, turned_bits(kind))
        found = list(zip(*(column.tolist() for column in pairs), strict=True))
        assert found == reference.turned_self_pairs(every_turn(words, kind), radius)


def test_pairs_do_not_depend_on_threads_or_on_the_order_of_rows(kind):
    words, bits = make(kind, 120), turned_bits(kind)
    radius = KINDS[kind.name]
    pairs = turned.turned_self_join(words, radius, bits, n_threads=1)
    for column, other in zip(pairs, turned.turned_self_join(words, radius, bits, n_threads=3), strict=True):
        np.testing.assert_array_equal(column, other)
    backwards = turned.turned_self_join(words[::-1].copy(), radius, bits)
    rows = {(i, j): d for i, j, d, _ in zip(*(column.tolist() for column in pairs), strict=True)}
    assert rows == {(119 - j, 119 - i): d for i, j, d, _ in zip(*(c.tolist() for c in backwards), strict=True)}


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (3, 200), (60, 200), (100, 100), (200, 60), (200, 3)], ids=str)
def test_cross_join_equals_brute_force(kind, sizes):
    words, bits = make(kind, sum(sizes)), turned_bits(kind)
    rows = np.random.default_rng(1).permutation(len(words))
    queries, references = words[rows[: sizes[0]]], words[rows[sizes[0] :]]
    distance, turn = reference.turned_distances(every_turn(queries, kind), references)
    for radius in radii(kind):
        pairs = turned.turned_cross_join(queries, references, radius, bits)
        left, right = np.nonzero(distance <= radius)
        np.testing.assert_array_equal(pairs.left, left)
        np.testing.assert_array_equal(pairs.right, right)
        np.testing.assert_array_equal(pairs.distance, distance[left, right])
        np.testing.assert_array_equal(pairs.turn, turn[left, right])
        rows_of, nearest = turned.turned_nearest(queries, references, radius, bits)
        has_one = (distance <= radius).any(axis=1) if sizes[1] else np.zeros(sizes[0], bool)
        expected = [int(each.argmin()) if one else -1 for each, one in zip(distance, has_one, strict=True)]
        np.testing.assert_array_equal(rows_of, expected)
        np.testing.assert_array_equal(nearest[has_one], distance[has_one].min(axis=1) if has_one.any() else [])


@pytest.mark.parametrize("n", [0, 1, 9, 150])
def test_clusters_are_those_of_the_pairs(kind, n):
    words, bits = (make(kind, n) if n > 8 else make(kind, 9)[:n]), turned_bits(kind)
    distance, _ = reference.turned_distances(every_turn(words, kind), words)
    for radius in radii(kind):
        pairs = reference.turned_self_pairs(every_turn(words, kind), radius)
        labels = turned.turned_connect(words, radius, bits)
        assert labels.tolist() == reference.components(n, [pair[:2] for pair in pairs])
        first = np.arange(n, dtype=np.uint32)
        for order in (first, first[::-1].copy()):
            centers = turned.turned_star(words, radius, bits, order)
            assert centers.tolist() == stars(distance, radius, order)
        to_label = turned.turned_representative_distances(words, labels, bits)
        assert to_label.tolist() == [distance[row, label] for row, label in enumerate(labels)]
        widest = [distance[np.ix_(labels == label, labels == label)].max() for label in labels]
        assert turned.turned_diameters(words, labels, bits).tolist() == widest


def stars(distance, radius, order):
    """Return the center of each row's star, by distances: a row joins the first center within the radius."""
    centers, result = [], [0] * len(distance)
    for row in order.tolist():
        near = [center for center in centers if distance[row, center] <= radius]
        if not near:
            centers.append(row)
        result[row] = near[0] if near else row
    return result


def test_top_k_is_a_stable_sort_by_the_nearest_turn(kind):
    words = make(kind, 150)
    bits = turned_bits(kind)
    for row in (0, 5, 149):
        distance, turn = reference.turned_distances(every_turn(words[row : row + 1], kind), words)
        order = np.argsort(distance[0], kind="stable")
        for k in (None, 1, 7):
            rows, found, turns = turned.turned_top_k(words[row], words, bits, k)
            np.testing.assert_array_equal(rows, order[:k])
            np.testing.assert_array_equal(found, distance[0][order[:k]])
            np.testing.assert_array_equal(turns, turn[0][order[:k]])


def test_distance_in_the_nearest_turn_is_that_of_both_sides(kind):
    words = make(kind, 40)
    distance, turn = reference.turned_distances(every_turn(words, kind), words)
    np.testing.assert_array_equal(distance, distance.T)
    every = np.stack([reference.distance_matrix(left, words) for left in every_turn(words, kind)])
    for i, j in np.argwhere(turn != turn.T):
        assert every[INVERSE[turn[i, j]], j, i] == distance[i, j]


def test_too_many_pairs_are_counted_once(kind):
    words, bits = make(kind, 120), turned_bits(kind)
    radius = KINDS[kind.name]
    n = len(turned.turned_self_join(words, radius, bits).left)
    assert len(turned.turned_self_join(words, radius, bits, max_pairs=n).left) == n
    equal = np.zeros((200, words.shape[1]), np.uint64)
    for join, limit in (
        (lambda most: turned.turned_self_join(words, radius, bits, max_pairs=most), n - 1),
        (lambda most: turned.turned_self_join(equal, radius, bits, max_pairs=most), 100),
        (lambda most: turned.turned_cross_join(equal, equal, radius, bits, max_pairs=most), 100),
        (lambda most: turned.turned_cross_join(words, words, radius, bits, max_pairs=most), n),
    ):
        with pytest.raises(ArgumentError, match=f"more than max_pairs={limit:,} pairs are within the radius"):
            join(limit)
