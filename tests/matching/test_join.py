"""The joins equal the double loop, whatever the plan, the threads and the data."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df import threads
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes import codec
from imgmatch_df.matching import clusters, join, ranking, tasks
from imgmatch_df.matching import plan as plans
from imgmatch_df.matching.kernels import probes
from imgmatch_df.matching.kernels.bands import pick_together

KINDS = ("random", "planted", "clustered", "all equal", "all zero", "one bit apart", "correlated")
PLANS = ("bands", "counts", "scan", None)


def make(kind, n, n_bytes, seed=0):
    """Return (n, n_words) hashes of `n_bytes` bytes, padded with zeros."""
    rng = np.random.default_rng([seed, n, n_bytes, KINDS.index(kind)])
    bits = rng.integers(0, 2, (n, 8 * n_bytes), dtype=np.uint8)
    if kind == "planted":  # each hash of the second half is 0 to 40 bits away from one of the first
        for row in range(n // 2, n):
            bits[row] = bits[row - n // 2]
            bits[row, rng.choice(8 * n_bytes, min(8 * n_bytes, int(rng.integers(0, 41))), replace=False)] ^= 1
    elif kind == "clustered":
        centers = bits[: max(1, n // 50)]
        bits = centers[rng.integers(0, len(centers), n)] ^ (rng.random(bits.shape) < 3 / (8 * n_bytes)) if n else bits
    elif kind == "all equal":
        bits[:] = bits[:1]
    elif kind == "all zero":
        bits[:] = 0
    elif kind == "one bit apart":
        bits[:] = bits[:1]
        bits[np.arange(n), np.arange(n) % (8 * n_bytes)] ^= 1
    elif kind == "correlated":  # runs of equal bits, as in a picture of light over dark
        steps = rng.random(bits.shape) < 0.02
        bits = np.cumsum(steps, axis=1, dtype=np.int64).astype(np.uint8) & 1
    packed = np.zeros((n, -(-n_bytes // 8) * 8), np.uint8)
    packed[:, :n_bytes] = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
    return packed.view(np.uint64).reshape(n, packed.shape[1] // 8)


def places_within(distances, radius, same=True):
    """Return the rows and columns of the matrix of all distances that are within a radius."""
    near = distances <= radius
    return np.nonzero(np.triu(near, 1) if same else near)


def assert_pairs(pairs, distances, radius, same=True, places=None):
    """Compare with the matrix of all distances, or with `places_within` where many pairs are compared with it."""
    left, right = places_within(distances, radius, same) if places is None else places
    assert pairs.left.dtype == pairs.right.dtype == np.uint32
    assert pairs.distance.dtype == np.uint16
    np.testing.assert_array_equal(pairs.left, left)
    np.testing.assert_array_equal(pairs.right, right)
    np.testing.assert_array_equal(pairs.distance, distances[left, right])


def test_the_truth_of_the_other_tests_is_the_double_loop():
    hashes = make("planted", 60, 16)
    distances = reference.distance_matrix(hashes, hashes)
    for radius in (0, 5, 40, 128):
        left, right = np.nonzero(np.triu(distances <= radius, 1))
        expected = reference.self_pairs(hashes, radius)
        assert list(zip(left.tolist(), right.tolist(), distances[left, right].tolist(), strict=True)) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_bytes", [8, 16, 121, 512])
def test_self_join_equals_brute_force(kind, n_bytes):
    hashes = make(kind, 400 if n_bytes < 512 else 250, n_bytes)
    distances = reference.distance_matrix(hashes, hashes)
    radii = range(13) if n_bytes == 8 or kind == "planted" else (0, 1, 2, 5, 12)
    for radius in (*radii, 24, 31, 64):
        places = places_within(distances, radius)
        for plan in PLANS:
            assert_pairs(join.self_join(hashes, radius, 8 * n_bytes, plan=plan), distances, radius, places=places)
    for radius in (200, 480, 961):
        assert_pairs(join.self_join(hashes, radius, 8 * n_bytes), distances, radius)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_bytes", [8, 121])
def test_self_join_of_more_rows_at_every_radius(kind, n_bytes):
    hashes = make(kind, 1500, n_bytes)
    distances = reference.distance_matrix(hashes, hashes)
    for radius in (*range(13), 24, 31, 96, 200, 961):
        places = places_within(distances, radius)
        for plan in PLANS if radius <= 200 else ("counts", "scan", None):
            assert_pairs(join.self_join(hashes, radius, 8 * n_bytes, plan=plan), distances, radius, places=places)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("room", "budget", "n"), [(6, 1 << 20, 500), (76, 9, 60)])
def test_kernels_go_on_where_they_stopped(monkeypatch, kind, room, budget, n):
    """With little room for pairs, and a look around after nine steps."""
    monkeypatch.setattr(tasks, "_BUFFER", probes._PENDING + probes._GATHERED + room)
    monkeypatch.setattr(tasks, "_BLOCKS_PER_CALL", budget)
    hashes, others = make(kind, n, 8), make(kind, n // 2, 8, seed=1)
    distances, across = reference.distance_matrix(hashes, hashes), reference.distance_matrix(hashes, others)
    for radius in (0, 4, 8, 12, 20):
        for plan in PLANS:
            assert_pairs(join.self_join(hashes, radius, 64, plan=plan), distances, radius)
            assert_pairs(join.cross_join(hashes, others, radius, 64, plan=plan), across, radius, same=False)


# As (first bit, bits, radius): all bands within 2, one that ends with the word, some that leave bits out.
LAYOUTS = {
    8: [[(0, 20, 2), (20, 20, 2), (40, 24, 2)], [(0, 3, 2), (30, 4, 2), (50, 12, 2)], [(0, 10, 4), (54, 10, 3)]],
    7: [[(0, 6, 2), (10, 6, 2), (58, 6, 1)]],
    9: [[(0, 11, 2), (11, 11, 2), (40, 12, 3)]],
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_is_lost_by_a_half(kind, monkeypatch):
    """Within 8 bits half of a word decides who is looked at, within 9 the whole."""
    hashes, others = make(kind, 700, 8), make(kind, 400, 8, seed=1)
    others[:50] = hashes[:50] ^ np.uint64(1 << 63 | 7)
    distances, across = reference.distance_matrix(hashes, hashes), reference.distance_matrix(hashes, others)
    choose_plan = plans.choose_plan
    for radius, layouts in LAYOUTS.items():
        for layout in layouts:
            bands = tuple(plans.Band(low, n_bits, n_bits, within) for low, n_bits, within in layout)
            assert sum(band.radius + 1 for band in bands) >= radius + 1

            def choose(*arguments, bands=bands, **options):
                plan, order = choose_plan(*arguments, **options)
                return replace(plan, choice="bands", bands=bands), order

            monkeypatch.setattr(plans, "choose_plan", choose)
            assert_pairs(join.self_join(hashes, radius, 64), distances, radius)
            assert_pairs(join.cross_join(hashes, others, radius, 64), across, radius, same=False)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_sorted_in_two_steps_change_nothing(kind, monkeypatch):
    monkeypatch.setattr(tasks, "_MANY_ROWS", 0)
    hashes, others = make(kind, 600, 8), make(kind, 350, 8, seed=1)
    distances, across = reference.distance_matrix(hashes, hashes), reference.distance_matrix(hashes, others)
    for radius in (0, 1, 4, 8, 12, 20, 40):
        for plan in PLANS:
            assert_pairs(join.self_join(hashes, radius, 64, plan=plan), distances, radius)
            assert_pairs(join.cross_join(hashes, others, radius, 64, plan=plan), across, radius, same=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_rows_sorted_in_many_small_parts_change_nothing(kind, n_threads, monkeypatch):
    """Some rows equal others, spans end within a part, and parts are empty, or have all rows."""
    monkeypatch.setattr(tasks, "_MANY_ROWS", 0)
    monkeypatch.setattr(tasks, "_PART_ROWS", 5)
    monkeypatch.setattr(tasks, "_ROWS_PER_CALL", 37)
    hashes = make(kind, 500, 8)
    hashes[3::7] = hashes[:-3:7]
    distances = reference.distance_matrix(hashes, hashes)
    for radius in (0, 1, 4, 8, 12, 20):
        for plan in ("bands", "scan"):
            pairs = join.self_join(hashes, radius, 64, plan=plan, n_threads=n_threads)
            assert_pairs(pairs, distances, radius)
            seen = join.connect(hashes, radius, 64, plan=plan, n_threads=n_threads)
            assert_pairs(
                join.cross_join(hashes, hashes[::3], radius, 64, plan=plan), distances[:, ::3], radius, same=False
            )
            np.testing.assert_array_equal(seen, join.connect(hashes, radius, 64, plan="scan"))


def test_parts_are_in_the_order_of_one_sort(monkeypatch):
    hashes = make("clustered", 3000, 8)
    hashes[:700] = hashes[0]
    rows = np.arange(3000, dtype=np.uint32)[::2].copy()
    for low, n_bits, n_key_bits, within in (
        (0, 12, 12, 1),
        (5, 40, 9, 0),
        (44, 20, 20, 2),
        (63, 1, 1, 0),
        (0, 64, 7, 0),
    ):
        band = plans.Band(low, n_bits, n_key_bits, within)
        plan = plans.Plan("bands", (band,), 1, 8, 1500, 1500, 0.0, 0.0, 0.0)
        orders = []
        for many in (1 << 30, 0):
            monkeypatch.setattr(tasks, "_MANY_ROWS", many)
            monkeypatch.setattr(tasks, "_PART_ROWS", 3)
            monkeypatch.setattr(tasks, "_ROWS_PER_CALL", 100)
            columns = tasks.JoinColumns(plans.Distinct(hashes, rows), plan, np.arange(64), 1)
            ordered = columns.order(band, 0, together=False)
            orders.append((ordered.starts, ordered.rows, ordered.words[0, :1500]))
        for one, parts in zip(*orders, strict=True):
            np.testing.assert_array_equal(one, parts)


@pytest.mark.parametrize(("low", "n_bits"), [(0, 64), (3, 12), (40, 38), (60, 9), (101, 27)])
def test_rows_that_share_a_slice_are_picked(low, n_bits):
    """And of those that do not, few more than share a mark by chance."""
    columns = make("clustered", 5000, 16).T.copy()
    columns[0, ::97] = 0
    bits = np.unpackbits(columns.T.copy().view(np.uint8), axis=1, bitorder="little")[:, low : low + n_bits]
    _, inverse, counts = np.unique(bits, axis=0, return_inverse=True, return_counts=True)
    shared = counts[inverse.ravel()] > 1
    for n_mark_bits in (min(n_bits, 5), min(n_bits, 17)):
        marks, picked = np.full(4096, 2**64 - 1, np.uint64), np.empty(5000, np.uint32)
        picked = picked[: pick_together(columns, low, n_bits, n_mark_bits, marks, picked)]
        assert (np.diff(picked.astype(np.int64)) > 0).all()
        assert np.isin(np.flatnonzero(shared), picked).all()
    assert np.count_nonzero(~shared[picked]) <= 2 * 5000 * 5000 / 2 ** min(n_bits, 17)


def test_bands_of_single_bits():
    hashes = make("planted", 60, 121)
    distances = reference.distance_matrix(hashes, hashes)
    for radius in (480, 960, 967, 968):
        assert_pairs(join.self_join(hashes, radius, 968, plan="bands"), distances, radius)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 17, 63, 64, 65])
@pytest.mark.parametrize("n_bytes", [1, 8, 121])
def test_self_join_of_few_rows(n, n_bytes):
    for kind in KINDS:
        hashes = make(kind, n, n_bytes)
        distances = reference.distance_matrix(hashes, hashes)
        for radius in (0, 1, 4, 8 * n_bytes - 1, 8 * n_bytes, 5000):
            for plan in PLANS if radius < 64 else ("counts", "scan", None):
                assert_pairs(join.self_join(hashes, radius, 8 * n_bytes, plan=plan), distances, radius)


@pytest.mark.parametrize("kind", KINDS)
def test_cross_join_equals_brute_force(kind):
    for n_bytes, n, m in ((8, 500, 900), (8, 1, 900), (121, 200, 150), (121, 0, 5), (16, 700, 3)):
        hashes = make(kind, n + m, n_bytes)
        queries, references = hashes[:n], hashes[n:]
        distances = reference.distance_matrix(queries, references)
        for radius in (0, 1, 5, 12, 40, 8 * n_bytes):
            for plan in PLANS if radius < 64 else ("counts", "scan", None):
                pairs = join.cross_join(queries, references, radius, 8 * n_bytes, plan=plan)
                assert_pairs(pairs, distances, radius, same=False)


def test_bits_beyond_n_bits_count():
    hashes = make("planted", 400, 128)  # 1,024 bits, of which 961 are said to matter
    distances = reference.distance_matrix(hashes, hashes)
    for radius in (3, 24, 40):
        for plan in PLANS:
            assert_pairs(join.self_join(hashes, radius, 961, plan=plan), distances, radius)


@pytest.mark.parametrize("n_bytes", [8, 121])
def test_threads_change_nothing(n_bytes):
    hashes = make("clustered", 2000, n_bytes)
    one = join.self_join(hashes, 10, 8 * n_bytes, n_threads=1)
    for n_threads in (2, 5):
        for a, b in zip(one, join.self_join(hashes, 10, 8 * n_bytes, n_threads=n_threads), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(
            join.connect(hashes, 10, 8 * n_bytes, n_threads=1),
            join.connect(hashes, 10, 8 * n_bytes, n_threads=n_threads),
        )


@pytest.mark.parametrize("n_bytes", [8, 121])
@pytest.mark.parametrize("kind", ["clustered", "all equal", "random"])
def test_equal_hashes_found_in_parts_change_nothing(n_bytes, kind, monkeypatch):
    hashes = make(kind, 700, n_bytes)
    hashes[1::3] = hashes[:-1:3]
    distances = reference.distance_matrix(hashes, hashes)
    others = hashes[::-1][::2].copy()
    monkeypatch.setattr(join, "_ROWS_PER_CALL", 16)
    for part_rows, n_threads in ((1, None), (9, 1), (100, 2), (9, 3), (9, 5)):
        monkeypatch.setattr(join, "_ROWS_PER_PART", part_rows)
        assert_pairs(join.self_join(hashes, 0, 8 * n_bytes, n_threads=n_threads), distances, 0)
        assert_pairs(join.self_join(hashes, 6, 8 * n_bytes, n_threads=n_threads), distances, 6)
        for radius in (0, 6):
            pairs = join.cross_join(hashes, others, radius, 8 * n_bytes, n_threads=n_threads)
            assert_pairs(pairs, distances[:, ::-1][:, ::2], radius, same=False)


def test_a_join_that_is_given_up_leaves_the_threads_to_others():
    hashes = make("one bit apart", 3000, 512)
    errors = []
    for _ in range(4):
        with pytest.raises(ArgumentError) as caught:
            join.self_join(hashes, 2, 4096, max_pairs=1000, plan="scan")
        errors.append(caught)  # and with it the frames that were left
    tasks = [threads.pool().submit(int) for _ in range(threads.n_threads())]
    assert [task.result(timeout=200) for task in tasks] == [0] * len(tasks)


def test_joins_from_many_threads_at_once():
    hashes = make("clustered", 2000, 8)
    expected = join.self_join(hashes, 6, 64)
    results = []
    callers = [threading.Thread(target=lambda: results.append(join.self_join(hashes, 6, 64))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 8
    for pairs in results:
        for a, b in zip(pairs, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_many_more_pairs_than_a_buffer_holds():
    hashes = np.arange(1200, dtype=np.uint64)[:, None]
    distances = reference.distance_matrix(hashes, hashes)
    for plan in PLANS:
        assert_pairs(join.self_join(hashes, 10, 64, plan=plan), distances, 10)  # 719,000 pairs


few_hashes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=40)


@settings(max_examples=60, deadline=None)
@given(few_hashes, st.integers(0, 64), st.sampled_from(PLANS))
def test_law_join_is_the_double_loop(values, radius, plan):
    hashes = np.array(values, np.uint64)
    pairs = join.self_join(hashes, radius, 64, plan=plan)
    found = list(zip(*(column.tolist() for column in pairs), strict=True))
    assert found == reference.self_pairs(hashes[:, None], radius)


@settings(max_examples=40, deadline=None)
@given(few_hashes, few_hashes, st.integers(0, 64))
def test_law_cross_join_is_symmetric(left, right, radius):
    a, b = np.array(left, np.uint64), np.array(right, np.uint64)
    there, back = join.cross_join(a, b, radius, 64), join.cross_join(b, a, radius, 64)
    assert sorted(zip(there.left, there.right, there.distance, strict=True)) == sorted(
        zip(back.right, back.left, back.distance, strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(few_hashes, st.integers(0, 64), st.randoms(use_true_random=False))
def test_law_permuted_rows_make_permuted_pairs(values, radius, random):
    hashes = np.array(values, np.uint64)
    order = list(range(len(values)))
    random.shuffle(order)
    pairs, permuted = join.self_join(hashes, radius, 64), join.self_join(hashes[order], radius, 64)
    expected = {(min(i, j), max(i, j), d) for i, j, d in zip(*(c.tolist() for c in pairs), strict=True)}
    found = {(order[i], order[j], d) for i, j, d in zip(*(c.tolist() for c in permuted), strict=True)}
    assert {(min(i, j), max(i, j), d) for i, j, d in found} == expected


@settings(max_examples=40, deadline=None)
@given(few_hashes, st.integers(0, 63))
def test_law_a_smaller_radius_finds_a_subset(values, radius):
    hashes = np.array(values, np.uint64)
    small, large = (
        set(zip(*(c.tolist() for c in join.self_join(hashes, r, 64)), strict=True)) for r in (radius, radius + 1)
    )
    assert small == {pair for pair in large if pair[2] <= radius}


@pytest.mark.parametrize("n_bytes", [1, 3, 7, 8, 9, 12, 13, 16, 63, 64, 65, 121, 128, 512])
def test_top_k_ranks_as_a_stable_sort(n_bytes):
    rng = np.random.default_rng(n_bytes)
    data = rng.integers(0, 256, (700, n_bytes), dtype=np.uint8)
    data[300:400] = data[0]
    column = pl.Series([row.tobytes() for row in data])
    (query,) = codec.hash_words(column[5:6])
    distances = np.bitwise_count(data ^ data[5]).sum(axis=1, dtype=np.int64)
    order = np.argsort(distances, kind="stable")
    in_pieces = pl.concat([column[:1], column[1:90], column[90:]], rechunk=False)
    for hashes in (codec.hash_words(column), codec.hash_views(column), codec.hash_views(in_pieces)):
        for k in (None, 0, 1, 20, 150, 700, 9999):
            rows, found = ranking.top_k(query, hashes, k)
            np.testing.assert_array_equal(rows, order[:k])
            np.testing.assert_array_equal(found, distances[order[:k]])


@pytest.mark.parametrize("nearest_first", [True, False])
def test_top_k_whatever_the_first_rows_are(nearest_first, monkeypatch):
    """They bound the distances that are looked at again."""
    monkeypatch.setattr(ranking, "_ROWS_PER_CALL", 16)
    hashes = make("random", 3000, 16)
    distances = reference.distance_matrix(hashes[:1], hashes)[0]
    order = np.argsort(distances if nearest_first else -distances, kind="stable")
    for k in (0, 1, 7, 300, 2999):
        rows, found = ranking.top_k(hashes[0], hashes[order], k)
        np.testing.assert_array_equal(rows, np.argsort(distances[order], kind="stable")[:k])
        np.testing.assert_array_equal(found, np.sort(distances)[:k])


def test_top_k_of_unlike_widths_says_so():
    column = pl.Series([bytes(121), bytes(121), bytes(120)])
    with pytest.raises(ColumnError, match="must have one width"):
        ranking.top_k(np.zeros(16, np.uint64), codec.hash_views(column))


def test_top_k_of_words_and_of_no_rows():
    hashes = make("planted", 100, 121)
    rows, distances = ranking.top_k(hashes[3], hashes, 5)
    truth = reference.distance_matrix(hashes[3:4], hashes)[0]
    np.testing.assert_array_equal(rows, np.argsort(truth, kind="stable")[:5])
    np.testing.assert_array_equal(distances, np.sort(truth)[:5])
    assert [len(part) for part in ranking.top_k(hashes[3], hashes[:0], 5)] == [0, 0]


def test_explain_says_the_plan():
    hashes = make("random", 3000, 8)
    small, large = join.explain(hashes, 2, 64), join.explain(hashes, 40, 64)
    assert small.choice == "bands"
    assert sum(band.radius + 1 for band in small.bands) == 3
    assert large.choice == "scan"
    assert large.candidates == 3000 * 2999 / 2
    assert "bands" in str(small)
    assert "radius 40" in str(large)
    assert join.explain(hashes[:9], 2, 64, references=hashes).n_right == 3000


def test_max_pairs_names_the_hash_and_the_way_out():
    hashes = make("random", 1000, 8)
    hashes[100:300] = 0xABCD
    n_pairs = len(join.self_join(hashes, 3, 64, max_pairs=19_900).left)
    assert n_pairs == 19_900
    for call in (join.self_join, lambda *a, **k: join.cross_join(hashes, *a, **k)):
        with pytest.raises(ArgumentError, match=r"cdab0{12}.* shared by 200 of 1,000 rows\nHint: cluster"):
            call(hashes, 3, 64, max_pairs=n_pairs - 1)


def test_max_pairs_names_the_side_that_has_it():
    queries, references = np.zeros(1000, np.uint64), np.arange(8, dtype=np.uint64)
    for sides in ((queries, references), (references, queries)):
        with pytest.raises(ArgumentError, match=r"hash, 0{16}, is shared by 1,000 of 1,000 rows"):
            join.cross_join(*sides, 3, 64, max_pairs=7999)
    with pytest.raises(ArgumentError, match=r"more than max_pairs=3 pairs are within the radius\nHint"):
        join.self_join(references, 3, 64, max_pairs=3)


def test_pairs_sorted_piece_by_piece_are_in_order(monkeypatch):
    monkeypatch.setattr(join, "_PAIRS_SORTED", 100)
    hashes = make("clustered", 700, 8)
    assert_pairs(join.self_join(hashes, 20, 64), reference.distance_matrix(hashes, hashes), 20)


@pytest.mark.parametrize("crowd", [0, 8])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_bytes", [8, 121])
def test_nearest_equals_brute_force(kind, n_bytes, crowd, monkeypatch):
    """Also where it is looked for in steps: with a crowd of none, wherever there is a pair."""
    monkeypatch.setattr(join, "_CROWD", crowd)
    queries, references = make(kind, 300, n_bytes), make(kind, 400, n_bytes)  # other seeds
    references[::7] = queries[:58]
    distances = reference.distance_matrix(queries, references)
    for radius in (0, 1, 3, 9, 24, 8 * n_bytes):
        for plan in PLANS:
            rows, bits = join.nearest(queries, references, radius, 8 * n_bytes, plan=plan)
            nearest = distances.min(axis=1)
            near = nearest <= radius
            np.testing.assert_array_equal(rows, np.where(near, distances.argmin(axis=1), -1))
            np.testing.assert_array_equal(bits, np.where(near, nearest, 0))


def test_nearest_in_a_crowd_makes_few_of_its_pairs(monkeypatch):
    rng = np.random.default_rng(5)
    crowd = np.zeros(20_000, np.uint64)
    for _ in range(4):
        crowd ^= np.uint64(1) << rng.integers(0, 64, len(crowd)).astype(np.uint64)
    made = []
    near_pairs = join._near_pairs

    def counted(*arguments):
        for block in near_pairs(*arguments):
            made.append(len(block.left))
            yield block

    monkeypatch.setattr(join, "_near_pairs", counted)
    rows, bits = join.nearest(crowd[:10_000], crowd[10_000:], 8, 64)
    assert (rows >= 0).all()
    assert sum(made) < 100 * len(crowd)  # of 100 million within the radius
    some = reference.distance_matrix(crowd[:200, None], crowd[10_000:, None])
    np.testing.assert_array_equal(bits[:200], some.min(axis=1))
    np.testing.assert_array_equal(rows[:200], some.argmin(axis=1))


def test_max_pairs_of_pairs_that_are_not_equal():
    hashes = make("one bit apart", 1000, 512)
    with pytest.raises(ArgumentError, match=r"more than max_pairs=1,000 pairs"):
        join.self_join(hashes, 2, 4096, max_pairs=1000)


@pytest.mark.parametrize("radius", [-1, 1.5, "8", None, True])
def test_radius_is_whole_bits(radius):
    with pytest.raises(ArgumentError, match="radius must be a whole number of bits"):
        join.self_join(make("random", 5, 8), radius, 64)


def test_hashes_are_words():
    with pytest.raises(ArgumentError, match="hashes must be a uint64 array"):
        join.self_join(np.zeros((5, 8), np.uint8), 3, 64)
    with pytest.raises(ArgumentError, match="hashes of one kind"):
        join.cross_join(make("random", 5, 8), make("random", 5, 121), 3, 64)


def test_progress_reaches_its_total():
    for join_or_connect in (join.self_join, join.connect):
        calls = []
        join_or_connect(make("random", 3000, 8), 6, 64, progress=lambda done, total, to=calls: to.append((done, total)))
        assert calls == [(i + 1, calls[-1][1]) for i in range(calls[-1][1])]


def test_other_threads_keep_their_rhythm():
    hashes = make("random", 40_000, 8)
    join.self_join(hashes[:100], 30, 64, plan="scan")
    beats, stop = [], threading.Event()

    def beat():
        while not stop.wait(0.005):
            beats.append(time.process_time())  # on a busy machine, other programs do not count

    thread = threading.Thread(target=beat)
    thread.start()
    start = time.process_time()
    join.self_join(hashes, 10, 64, plan="scan")
    stop.set()
    thread.join()
    took = time.process_time() - start
    # A kernel that held the GIL would leave one gap as long as itself.
    assert max(np.diff([start, *beats])) < max(0.2, took / 2)


def million(kind):
    rng = np.random.default_rng(7)
    if kind == "all equal":
        return np.full((1_000_000, 16), 0x5555, np.uint64)
    if kind == "half blank":
        hashes = rng.integers(0, 2**64, (1_000_000, 16), dtype=np.uint64)
        hashes[rng.permutation(1_000_000)[:500_000]] = 0
        return hashes
    hashes = rng.integers(0, 2**64, (100, 16), dtype=np.uint64)[np.repeat(np.arange(100), 10_000)]
    hashes[:, 0] ^= rng.integers(0, 2**11, len(hashes), dtype=np.uint64)
    hashes[:, 1] ^= np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64)
    return hashes


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n_clusters"), [("all equal", 1), ("half blank", 500_001), ("100 of 10,000", 100)])
def test_a_million_degenerate_rows_cluster_in_seconds(kind, n_clusters):
    hashes = million(kind)
    join.connect(hashes[:1000], 24, 961)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    labels = join.connect(hashes, 24, 961)
    assert len(np.unique(labels)) == n_clusters
    centers = clusters.star(hashes, 24, labels)
    assert clusters.representative_distances(hashes, centers).max() <= 24
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < 4 * hashes.nbytes
    with pytest.raises(ArgumentError, match="rows\nHint: cluster"):
        join.self_join(hashes, 24, 961, max_pairs=1_000_000)


@pytest.mark.slow
def test_ctrl_c_stops_a_join():
    code = (
        "import numpy as np; from imgmatch_df.matching import join\n"
        "h = np.random.default_rng(0).integers(0, 2**64, (1_000_000, 16), dtype=np.uint64)\n"
        "join.self_join(h[:1000], 200, 961, plan='scan'); print('go', flush=True)\n"
        "join.self_join(h, 200, 961, plan='scan')\n"
    )
    few = {**os.environ, "IMGMATCH_MAX_THREADS": "2"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=few
    ) as process:
        assert process.stdout.readline() == b"go\n"
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)  # the join takes minutes
        assert b"KeyboardInterrupt" in errors


@pytest.mark.slow
@pytest.mark.skipif("IMGMATCH_CROPS" not in os.environ, reason="IMGMATCH_CROPS names a Parquet file with a bmh1 column")
@pytest.mark.parametrize("radius", [0, 8, 16, 24])
def test_real_hashes_equal_a_plain_scan(radius):
    import polars as pl

    column = pl.read_parquet(os.environ["IMGMATCH_CROPS"], columns=["bmh1"])["bmh1"]
    hashes = np.zeros((len(column), 128), np.uint8)
    hashes[:, :121] = np.frombuffer(b"".join(column), np.uint8).reshape(-1, 121)
    words = hashes.view(np.uint64)
    for a, b in zip(
        *(join.self_join(words, radius, 961, plan=plan) for plan in ("bands", "counts", "scan")), strict=True
    ):
        np.testing.assert_array_equal(a, b)
