"""Copies equal a comparison of all points of all pairs of images, in any order of rows and on any number of threads."""

import threading

import numpy as np
import pytest
from image_points import N_POINTS, edited, join_points, random_images, scene, take, with_logo

from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching import candidates as module
from imgmatch_df.matching import shared_points
from imgmatch_df.matching.copies import explain_copies, match_copies, self_copies
from imgmatch_df.matching.placement import turned_points, verify_pairs
from imgmatch_df.matching.points import Points

pytestmark = pytest.mark.long


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
@pytest.mark.parametrize("seed", range(0, 7, 2))
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
    monkeypatch.setattr(shared_points, "LIMITS", shared_points.Limits(1, 100, (8, 32, 64)))
    rows = np.arange(points.n_images)
    expected = by_row(self_copies(points, 2), rows)
    n_set_aside = explain_copies(points).n_set_aside
    assert n_set_aside
    for seed in range(4):
        rows = np.random.default_rng(seed).permutation(points.n_images)
        assert by_row(self_copies(take(points, rows), 2), rows) == expected
        assert explain_copies(take(points, rows)).n_set_aside == n_set_aside


def brute_unshared(left, right, same, max_hits, samples, few):
    """Return which points are kept, each counted with the points of a sample of images; the images are distinct."""
    left_order, right_order = (module.collapse_images(side).rows for side in (left, right))
    ordered, others = take(left, left_order), take(right, right_order)
    is_kept = np.ones(len(ordered.hashes), np.bool_)
    owners, other_owners = (np.repeat(np.arange(side.n_images), np.diff(side.starts)) for side in (ordered, others))
    sizes = [size for size in samples if size < others.n_images]
    sizes += [others.n_images] if others.n_images <= samples[-1] else []
    for size in sizes:
        near = np.bitwise_count((ordered.hashes[:, None] ^ others.hashes) & ~np.uint64(1)) <= 6
        near &= other_owners < size
        if same:
            near &= is_kept & (owners[:, None] != other_owners)
        counts = near.sum(axis=1)
        limit = max(
            t for t in range(-1, 10000) if counts[is_kept & (counts <= t)].sum() * others.n_images / size <= max_hits
        )
        if size < sizes[-1]:
            limit = max(limit, few)
        is_kept &= counts <= limit
    back = np.concatenate([np.arange(ordered.starts[i], ordered.starts[i + 1]) for i in np.argsort(left_order)])
    return is_kept[back]


@pytest.mark.parametrize("max_hits", [10, 300, 2000])
@pytest.mark.parametrize("samples", [(8, 64), (8, 32), (1000,)], ids=str)
def test_points_are_set_aside_by_their_hits(monkeypatch, max_hits, samples):
    few = 3
    monkeypatch.setattr(shared_points, "LIMITS", shared_points.Limits(1, max_hits, samples, few))
    base = random_images(30, 5)
    points = join_points([base, edited(base, 6), with_logo(random_images(30, 7), 8)])
    max_hits = max(max_hits, points.n_images)
    is_kept = brute_unshared(points, points, True, 2 * max_hits, samples, few)
    assert 0 < is_kept.sum() < len(is_kept)
    assert explain_copies(points).n_set_aside == (~is_kept).sum()
    assert_same(self_copies(points, 2), brute_force(points, points, 2, True, True, is_kept, is_kept))
    queries = take(points, range(40))
    is_kept = brute_unshared(queries, points, False, max(max_hits, 40), samples, few)
    found = match_copies(queries, points, 2)
    assert_same(found, brute_force(queries, points, 2, True, False, is_kept))


def test_a_logo_makes_no_candidates(monkeypatch):
    """Two thousand images with one logo: few but the edited copies among them are candidates, once hits are few."""
    monkeypatch.setattr(shared_points, "LIMITS", shared_points.Limits(8, 1 << 16))
    originals = with_logo(random_images(1800, 1), 2)
    copies = with_logo(edited(take(originals, range(200)), 3, n_replaced=6), 4)
    points = join_points([originals, copies])
    explained = explain_copies(points)
    assert (explained.n_images, explained.n_points) == (2000, 2000 * N_POINTS)
    assert 0.98 * 2000 * 6 < explained.n_set_aside <= 2000 * 6
    assert 200 <= explained.n_candidates < 400  # of 1,999,000 pairs
    found = self_copies(points)
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == [(i, 1800 + i) for i in range(200)]
    assert (found.votes >= 20).all()  # the points that are set aside vote


def test_one_image_a_thousand_times():
    points = join_points([take(random_images(3), [0] * 1000), random_images(5, 9)])
    found = self_copies(points)
    assert len(found.left) == 999 * 1000 // 2
    assert explain_copies(points).n_images == 6
    left, right = np.triu_indices(1000, 1)
    np.testing.assert_array_equal(found.left, left)
    np.testing.assert_array_equal(found.right, right)
    assert (found.votes == found.votes[0]).all()
    assert found.votes[0] > 16
    assert (found.scale == 1).all()


def test_one_image_edited_a_thousand_times():
    points = edited(take(random_images(1, n_points=10), [0] * 1000), 1, 1, 0)
    explained = explain_copies(points, turns=False)
    assert explained.n_set_aside == 0
    assert explained.n_candidates == 999 * 1000 // 2
    some = take(points, range(100))
    assert len(self_copies(some, turns=False).left) == 99 * 100 // 2


def test_equal_images_match_though_all_of_their_points_are_set_aside(monkeypatch):
    monkeypatch.setattr(shared_points, "LIMITS", shared_points.Limits(0, 0))
    base = random_images(4)
    points = join_points([base, base, edited(base, 1, 1)])
    found = self_copies(points)
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == [(i, i + 4) for i in range(4)]
    found = match_copies(base, points)
    assert found.left.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.right.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_images_without_points_match_nothing():
    none = Points(np.zeros(0, np.uint64), np.zeros((0, 3), np.uint8), np.zeros(4, np.int64), random_images(3).boxes)
    some = random_images(5)
    for points in (none, take(none, [])):
        assert len(self_copies(points).left) == 0
        assert len(match_copies(points, some).left) == len(match_copies(some, points).left) == 0
        assert explain_copies(points) == (0, 0, 0, 0)
    assert_same(self_copies(join_points([none, some, some])), self_copies(join_points([none, some, some])))
    assert self_copies(join_points([none, some, some])).left.tolist() == [3, 4, 5, 6, 7]


def test_too_many_pairs_are_an_error():
    points = take(random_images(1), [0] * 20)
    assert len(self_copies(points, max_pairs=190).left) == 190
    with pytest.raises(ArgumentError, match=r"more than max_pairs=189 pairs"):
        self_copies(points, max_pairs=189)
    with pytest.raises(ArgumentError, match=r"more than max_pairs=399 pairs"):
        match_copies(points, points, max_pairs=399)


@pytest.mark.parametrize("min_votes", [1, 0, -1, 65, True, 8.0, "8", None])
def test_min_votes_must_be_a_number_of_points(min_votes):
    with pytest.raises(ArgumentError, match="min_votes must be a whole number of 2 to 64"):
        self_copies(random_images(2), min_votes)


def test_progress_grows_to_the_end(monkeypatch):
    monkeypatch.setattr(module, "_ROWS_PER_BLOCK", 8 * 100)
    monkeypatch.setattr(shared_points, "LIMITS", shared_points.Limits(1, 100))
    reports = []
    self_copies(scene(1), progress=lambda *report: reports.append((threading.get_ident(), report)))
    assert {thread for thread, _ in reports} == {threading.get_ident()}
    done = [report[0] for _, report in reports]
    assert done == sorted(set(done))
    assert len(done) > 10
    assert reports[-1][1] == (1000, 1000)


def test_ctrl_c_in_a_report_stops_the_join():
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_copies(scene(2), progress=interrupt)
    assert len(self_copies(scene(2)).left) > 20


def test_explain_reports_no_progress_unless_wanted(monkeypatch):
    monkeypatch.setattr(shared_points, "LIMITS", shared_points.Limits(1, 10))
    points = scene(1)
    side = module.collapse_images(points)
    reports = []
    kept = shared_points.unshared_points(side, side)
    np.testing.assert_array_equal(kept, shared_points.unshared_points(side, side, progress=reports.append))
    assert reports == sorted(reports)
    assert reports[-1] == 1
    assert len(kept) < len(points.hashes)
