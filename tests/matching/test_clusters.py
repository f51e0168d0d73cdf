"""Clusters equal a plain union-find and a plain star pass."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_join import KINDS, make

from imgmatch_df.matching import clusters, join

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_bytes", [8, 121])
def test_components_equal_plain_union_find(kind, n_bytes):
    hashes = make(kind, 500, n_bytes)
    for radius in (0, 1, 4, 9, 14, 24, 100):
        pairs = join.self_join(hashes, radius, 8 * n_bytes)
        expected = reference.components(500, zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
        np.testing.assert_array_equal(clusters.connected(500, pairs.left, pairs.right), expected)
        for plan in ("bands", "scan", None):
            np.testing.assert_array_equal(join.connect(hashes, radius, 8 * n_bytes, plan=plan), expected)


def test_a_chain_is_one_cluster_and_its_diameter_shows_it():
    hashes = np.array([(1 << i) - 1 for i in range(64)], np.uint64)  # each one bit from the next
    labels = join.connect(hashes, 1, 64)
    assert set(labels.tolist()) == {0}
    assert set(clusters.diameters(hashes, labels).tolist()) == {63}
    assert clusters.star(hashes, 1, labels).tolist() == [i - i % 2 for i in range(64)]


few_hashes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255) | st.just(0), max_size=40)


@settings(max_examples=60, deadline=None)
@given(few_hashes, st.integers(0, 40), st.sampled_from([1, -1, 7]))
def test_law_stars_equal_the_plain_pass(values, radius, turn):
    hashes = np.array(values, np.uint64)
    order = np.argsort(turn * np.arange(len(hashes)) % 11, kind="stable").astype(np.uint32)
    labels = join.connect(hashes, radius, 64)
    assert clusters.star(hashes, radius, labels, order).tolist() == reference.stars(
        hashes[:, None], radius, order.tolist()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_stars_of_larger_sets(kind):
    hashes = make(kind, 150, 121)
    for radius in (0, 3, 24, 300):
        centers = clusters.star(hashes, radius, join.connect(hashes, radius, 961))
        assert centers.tolist() == reference.stars(hashes, radius)
        assert clusters.representative_distances(hashes, centers).max(initial=0) <= radius


@settings(max_examples=60, deadline=None)
@given(few_hashes, st.integers(0, 40))
def test_law_diameters_equal_the_double_loop(values, radius):
    hashes = np.array(values, np.uint64)
    labels = join.connect(hashes, radius, 64)
    expected = reference.diameters(hashes[:, None], labels.tolist())
    assert clusters.diameters(hashes, labels).tolist() == expected
    equal = join.first_equal(hashes)
    assert equal.tolist() == [values.index(value) for value in values]
    assert clusters.diameters(hashes, labels, equal).tolist() == expected
    # A label is any row of the cluster, so also one that is not the first with its hash.
    last = clusters.representatives(labels, np.arange(len(hashes), dtype=np.uint32)[::-1])
    assert clusters.diameters(hashes, last, equal).tolist() == expected


def test_representatives_follow_the_preference():
    labels = np.array([0, 1, 0, 0, 1, 5], np.uint32)
    order = np.array([5, 3, 0, 4, 1, 2], np.uint32)
    assert clusters.representatives(labels, order).tolist() == [3, 4, 3, 3, 4, 5]
    assert clusters.first_rows(np.array([5, 3, 5, 3], np.uint32)[[0, 1, 2, 3]] % 4).tolist() == [0, 1, 0, 1]


def test_no_rows():
    none = np.empty(0, np.uint32)
    hashes = np.empty((0, 16), np.uint64)
    assert clusters.connected(0, none, none).tolist() == []
    assert clusters.star(hashes, 3, none).tolist() == []
    assert clusters.diameters(hashes, none).tolist() == []
    assert clusters.representatives(none, none).tolist() == []
