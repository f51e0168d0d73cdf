"""Counts of groups of bits: joins and nearest rows by them equal brute force, and bounds hold."""

import numpy as np
import pytest
import reference

from imgmatch_df._kernels.gaps import BOXES, MAX_GAP
from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching import counts, join, neighbours, ranking
from imgmatch_df.matching.kernels import counts as kernels

N_BITS, N_WORDS = 961, 16


def drawn(n, seed=0, n_waves=12):
    """Return hashes whose bits are alike in groups, a tenth of them near others: thresholds of a few waves."""
    rng = np.random.default_rng(seed)
    at = np.arange(N_BITS) / N_BITS
    waves = np.sin(2 * np.pi * np.outer(np.arange(1, n_waves + 1), at) + rng.uniform(0, 7, (n_waves, 1)))
    mixed = rng.standard_normal((n, n_waves)).astype(np.float32)
    near = rng.choice(n, n // 10, replace=False)
    mixed[near] = mixed[rng.integers(0, n, len(near))] + 0.05 * rng.standard_normal((len(near), n_waves))
    return words_of(mixed @ waves.astype(np.float32) > 0)


def words_of(bits):
    rows = np.zeros((len(bits), 8 * N_WORDS), np.uint8)
    rows[:, : -(-bits.shape[1] // 8)] = np.packbits(bits, axis=1, bitorder="little")
    return rows.view(np.uint64)


def uniform(n, seed=0):
    return words_of(np.random.default_rng(seed).integers(0, 2, (n, N_BITS)).astype(bool))


def split(n, seed=0):
    """Return hashes of one run of ones each: all bits of a group are equal in nearly all of them."""
    ends = np.random.default_rng(seed).integers(0, N_BITS + 1, (n, 1))
    return words_of(np.arange(N_BITS) < ends)


def constant(n, seed=0):
    """Return hashes that differ in their last bits alone: most groups have constant counts."""
    bits = np.ones((n, N_BITS), bool)
    bits[:, -12:] = np.random.default_rng(seed).integers(0, 2, (n, 12))
    return words_of(bits)


SETS = {"drawn": drawn, "uniform": uniform, "split": split, "constant": constant}


def pairs_within(left, right, radius, *, same):
    distances = reference.distance_matrix(left, right)
    i, j = np.nonzero(np.triu(distances <= radius, 1) if same else distances <= radius)
    return i, j, distances[i, j]


def assert_pairs(found, expected):
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
def test_join_by_counts_equals_brute_force(make):
    for n, m in ((300, 170), (65, 64), (1, 3)):
        hashes, others = make(n), make(m, seed=1)
        for radius in (0, 1, 24, 96, 254, 255, 300, 501, 502, 961, 1024):
            found = join.self_join(hashes, radius, N_BITS, plan="counts")
            assert_pairs(found, pairs_within(hashes, hashes, radius, same=True))
            found = join.cross_join(hashes, others, radius, N_BITS, plan="counts")
            assert_pairs(found, pairs_within(hashes, others, radius, same=False))


def test_threads_and_small_buffers_change_nothing(monkeypatch):
    hashes, others = drawn(700), drawn(400, seed=1)
    expected = pairs_within(hashes, hashes, 200, same=True), pairs_within(hashes, others, 200, same=False)
    for n_threads, buffer, steps in ((1, 1 << 16, 3_000_000), (2, BOXES + 1, 5), (3, 2 * BOXES, 0)):
        monkeypatch.setattr(counts, "_BUFFER", buffer)
        monkeypatch.setattr(counts, "_STEPS_PER_CALL", steps)
        assert_pairs(join.self_join(hashes, 200, N_BITS, plan="counts", n_threads=n_threads), expected[0])
        assert_pairs(join.cross_join(hashes, others, 200, N_BITS, plan="counts", n_threads=n_threads), expected[1])


def test_order_in_many_calls_is_that_of_one(monkeypatch):
    hashes = drawn(3000)
    groups = counts.choose_groups(hashes, N_BITS, 96)
    rows = np.arange(len(hashes), dtype=np.uint32)
    once = counts.make_blocks(hashes, rows, groups)
    monkeypatch.setattr(counts, "_ROWS_PER_CALL", 4 * BOXES)
    for got, want in zip(counts.make_blocks(hashes, rows, groups), once, strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.sort(once.rows), rows)
    np.testing.assert_array_equal(once.hashes, hashes[once.rows])


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
@pytest.mark.parametrize("radius", [0, 24, 254, 255, 501, 961, 4000])
def test_counts_of_pairs_within_the_radius_differ_by_at_most_the_limit(make, radius):
    hashes = make(400)
    groups = counts.choose_groups(hashes, N_BITS, radius)
    assert groups.limit <= MAX_GAP
    found = np.empty((len(hashes), counts.N_GROUPS), np.uint8)
    rows = np.arange(len(hashes), dtype=np.uint32)
    kernels.count_groups(hashes, rows, groups.inverted, groups.masks, groups.shift, 0, len(hashes), found)
    masks = np.unpackbits(groups.masks.view(np.uint8), axis=1)
    assert masks.sum(axis=0).max() <= 1  # no bit is in two groups
    assert masks.sum(axis=1).max() <= 255
    bits = np.unpackbits((hashes ^ groups.inverted).view(np.uint8), axis=1).astype(np.int64)
    np.testing.assert_array_equal(found, (bits @ masks.T.astype(np.int64)) >> groups.shift)
    gaps = np.abs(found[:, None].astype(np.int64) - found[None]).sum(axis=2)
    is_pair = reference.distance_matrix(hashes, hashes) <= radius
    assert gaps[is_pair].max() <= groups.limit


def test_counts_are_chosen_where_bits_are_alike():
    chosen = [join.explain(make(20_000), 96, N_BITS) for make in (drawn, uniform)]
    assert [one.choice for one in chosen] == ["counts", "bands"]
    assert str(chosen[0]).startswith("counts of ones in groups of bits; radius 96")
    short = np.random.default_rng(0).integers(0, 2**63, (20_000, 4)).astype(np.uint64)
    assert join.explain(short, 60, 256).choice != "counts"


def test_progress_ends_at_the_total():
    seen = []
    join.self_join(drawn(500), 96, N_BITS, plan="counts", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
@pytest.mark.parametrize("k", [1, 3, 70, 500])
def test_nearest_rows_are_those_of_a_ranking(make, k):
    references, queries = make(333), np.concatenate([make(40, seed=1), make(333)[:30]])
    for radius in (0, 100, 254, 600, 1024):
        found = neighbours.nearest_k(queries, references, k, radius, N_BITS, n_threads=2)
        ranked = [ranking.top_k(query, references, k) for query in queries]
        rows = [rows[distances <= radius] for rows, distances in ranked]
        np.testing.assert_array_equal(found.left, np.repeat(np.arange(len(queries)), [len(some) for some in rows]))
        np.testing.assert_array_equal(found.right, np.concatenate(rows))
        np.testing.assert_array_equal(found.distance, np.concatenate([d[d <= radius] for _, d in ranked]))


@pytest.mark.parametrize("n_words", [1, 5, 8, 17])
def test_nearest_rows_of_any_width(n_words):
    rng = np.random.default_rng(n_words)
    references = rng.integers(0, 2**63, (200, n_words)).astype(np.uint64)
    references[100:] = references[:100]  # ties go to the first row
    queries = references[::7] ^ np.uint64(5)
    found = neighbours.nearest_k(queries, references, 5, 64 * n_words, 64 * n_words)
    expected = np.stack([ranking.top_k(query, references, 5)[0] for query in queries])
    np.testing.assert_array_equal(found.right.reshape(-1, 5), expected)


@pytest.mark.parametrize("n", [11, 12, 13, 63, 64, 65, 75, 76, 77, 140])
def test_nearest_rows_where_few_or_many_of_a_block_are_near(n):
    references = uniform(n)
    references[n // 2 :] = references[: n - n // 2]  # ties go to the first row
    queries = np.concatenate([uniform(70, seed=1), references[:3]])
    for k in (1, 5):
        found = neighbours.nearest_k(queries, references, k, 961, N_BITS, n_threads=1)
        ranked = [ranking.top_k(query, references, k) for query in queries]
        np.testing.assert_array_equal(found.right, np.concatenate([rows for rows, _ in ranked]))
        np.testing.assert_array_equal(found.distance, np.concatenate([distances for _, distances in ranked]))


def test_nearest_rows_of_nothing():
    none = np.zeros((0, N_WORDS), np.uint64)
    for queries, references in ((none, drawn(5)), (drawn(5), none), (none, none)):
        assert [len(column) for column in neighbours.nearest_k(queries, references, 3, 961, N_BITS)] == [0, 0, 0]
        assert not neighbours.is_faster(queries, references, 961, N_BITS)


def test_nearest_rows_are_sought_where_pairs_are_many():
    references = drawn(30_000)
    assert neighbours.is_faster(references[:1000], references, 961, N_BITS)
    assert not neighbours.is_faster(references[:1000], references, 8, N_BITS)
    assert not neighbours.is_faster(references[:1000, :1].copy(), references[:, :1].copy(), 64, 64)


def test_a_plan_by_counts_of_a_wrong_radius_is_refused():
    with pytest.raises(ArgumentError, match="radius must be"):
        join.self_join(drawn(3), -1, N_BITS, plan="counts")
