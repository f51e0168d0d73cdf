"""Which points are set aside is the same for images in one piece and in blocks, in any order."""

import numpy as np
import pytest
from image_points import logos, random_images, scene, take

from imgmatch_df.matching import shared_points
from imgmatch_df.matching.candidates import collapse_images, mixed_bits
from imgmatch_df.matching.copies import match_copies, self_copies
from imgmatch_df.matching.copy_clusters import link_copies
from imgmatch_df.matching.linkages import LINKAGES
from imgmatch_df.matching.points import Points
from imgmatch_df.matching.shared_points import KeptPoints, Limits, Sharing, count_shared, unshared_points

pytestmark = pytest.mark.long


def in_blocks(points, n_blocks, seed):
    """Return images in blocks, those with equal points in one, some with none: the rows of each."""
    block = mixed_bits(points) * np.uint64(2 * seed + 1) % np.uint64(n_blocks + seed % 2)
    rows = [np.flatnonzero(block == number) for number in range(n_blocks + seed % 2)]
    rng = np.random.default_rng(seed)
    return [rng.permutation(rows[number]) for number in rng.permutation(len(rows))]


def decide_in_blocks(points, n_blocks, seed, references=None):
    """Return the kept points of images in blocks, as a decision that never holds more than a block and the sample."""
    same, limits = references is None, shared_points.LIMITS
    sides = [collapse_images(take(points, rows)) for rows in in_blocks(points, n_blocks, seed)]
    others = sides if same else [collapse_images(take(references, r)) for r in in_blocks(references, n_blocks, seed)]
    n_right = sum(side.n_images for side in others)
    sharing = Sharing.of(
        sum(side.n_images for side in sides), sum(len(side.owners) for side in sides), n_right, limits, same=same
    )
    right = collapse_images(points if same else references)
    size = min(max(sharing.sizes, default=0), right.n_images)
    every = points if same else references
    sample = collapse_images(take(every, np.flatnonzero(np.isin(mixed_bits(every), right.mixed[:size]))))
    assert sample.n_images == size
    kept_of = [np.arange(len(side.owners), dtype=np.uint32) for side in sides]
    kept = np.arange(len(sample.owners), dtype=np.uint32)
    for step, n in enumerate(sharing.sizes):
        among = kept[kept < sample.starts[n]]
        counts = [count_shared(side, some, sample, among, same=same) for side, some in zip(sides, kept_of, strict=True)]
        found = [np.bincount(one) for one in counts]
        total = np.zeros(max(map(len, found)), np.int64)
        for one in found:
            total[: len(one)] += one
        limit = sharing.find_limit(step, total)
        kept_of = [some[one <= limit] for some, one in zip(kept_of, counts, strict=True)]
        if same:
            kept = kept[count_shared(sample, kept, sample, among, same=True) <= limit]
    parts = [KeptPoints.of(side, some) for side, some in zip(sides, kept_of, strict=True)]
    return KeptPoints.of_masks(*(np.concatenate(column) for column in zip(*parts, strict=True)))


IMAGES = {"scene": scene, "logos": logos, "unrelated": lambda seed: random_images(50, seed)}
LIMITS = {
    "few": Limits(1, 10, (8, 64), 3),
    "some": Limits(1, 300, (8, 32), 3),
    "all at once": Limits(2, 100, (1000,), 3),
    "none": Limits(0, 0, (8, 1000), 3),
    "default": Limits(),
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("images", IMAGES)
def test_blocks_change_nothing(monkeypatch, images, limits):
    monkeypatch.setattr(shared_points, "LIMITS", LIMITS[limits])
    points = IMAGES[images](5)
    side = collapse_images(points)
    queries = collapse_images(take(points, range(0, points.n_images, 2)))
    expected = unshared_points(side, side), unshared_points(queries, side)
    n_aside = len(side.owners) - len(expected[0])
    if limits in ("few", "none") and images != "unrelated":
        assert 0 < n_aside <= len(side.owners)
    if limits == "default":
        assert n_aside == 0
    for n_blocks in (1, 3, 8):
        for seed in range(2):
            kept = decide_in_blocks(points, n_blocks, seed)
            np.testing.assert_array_equal(unshared_points(side, side, kept_points=kept), expected[0])
            kept = decide_in_blocks(take(points, range(0, points.n_images, 2)), n_blocks, seed, points)
            np.testing.assert_array_equal(unshared_points(queries, side, kept_points=kept), expected[1])


def assert_same(found, expected):
    for column, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(column, other)


def test_copies_take_a_decision_over_more_images(monkeypatch):
    """The pairs of a part of the images are those of all images that lie in the part."""
    monkeypatch.setattr(shared_points, "LIMITS", LIMITS["few"])
    points = logos(1)
    side = collapse_images(points)
    kept = KeptPoints.of(side, unshared_points(side, side))
    assert 20 < len(kept.mixed) < side.n_images
    found = self_copies(points, 4)
    assert_same(self_copies(points, 4, kept_points=kept), found)
    some = np.arange(0, points.n_images, 3)
    is_some = np.isin(found.left, some) & np.isin(found.right, some)
    expected = [column[is_some] for column in found]
    expected[:2] = (np.searchsorted(some, column) for column in expected[:2])
    part = take(points, some)
    assert_same(self_copies(part, 4, kept_points=kept), expected)
    own = self_copies(part, 4)
    assert len(own.left) != len(expected[0])  # another decision

    queries = take(points, range(60))
    matched = match_copies(queries, points, 4)
    decided = collapse_images(queries)
    kept = KeptPoints.of(decided, unshared_points(decided, side))
    assert len(kept.mixed)
    for first in (0, 20, 40):
        found = match_copies(take(queries, range(first, first + 20)), points, 4, kept_points=kept)
        is_some = (matched.left >= first) & (matched.left < first + 20)
        expected = [column[is_some] for column in matched]
        assert_same(found, [expected[0] - first, *expected[1:]])


def test_clusters_take_a_decision_over_more_images(monkeypatch):
    points = logos(2)
    order = np.arange(points.n_images, dtype=np.uint32)
    _, equal = np.unique(mixed_bits(points), return_inverse=True)
    first = np.full(equal.max() + 1, len(equal))
    np.minimum.at(first, equal, np.arange(len(equal)))
    equal = first[equal].astype(np.uint32)
    linked = [link_copies(points, equal, 5, LINKAGES["connected"], order, turns=False)]
    monkeypatch.setattr(shared_points, "LIMITS", LIMITS["few"])
    linked += [link_copies(points, equal, 5, LINKAGES["connected"], order, turns=False)]
    side = collapse_images(points)
    kept = KeptPoints.of(side, unshared_points(side, side))
    monkeypatch.setattr(shared_points, "LIMITS", Limits())
    given = link_copies(points, equal, 5, LINKAGES["connected"], order, turns=False, kept_points=kept)
    assert_same(given, linked[1])
    every = link_copies(points, equal, 5, LINKAGES["connected"], order, turns=False, kept_points=KeptPoints.all())
    assert_same(every, linked[0])
    assert (linked[0][0] != linked[1][0]).any()


def test_needless_decisions_keep_all_points(monkeypatch):
    limits = Limits(2, 30_000, (8, 64), 3)
    monkeypatch.setattr(shared_points, "LIMITS", limits)
    for same in (True, False):
        for n_left, n_right in ((21, 21), (22, 22), (30, 30), (31, 31), (3, 200), (1, 469), (40, 4)):
            if not Sharing.is_needless(n_left, n_right, limits, same=same):
                continue
            most = Sharing.of(n_left, 64 * n_left, n_right, limits, same=same)
            assert most.sizes == ()
            for n in range(1, n_left):
                assert Sharing.of(n, 64 * n, min(n, n_right), limits, same=same).sizes == ()
    assert Sharing.is_needless(21, 21, limits, same=False)
    assert not Sharing.is_needless(22, 22, limits, same=False)


def test_masks_of_64_points():
    points = random_images(3, 1, 64)
    side = collapse_images(points)
    kept = np.array([0, 63, 64, *range(128, 192)], np.uint32)
    found = KeptPoints.of(side, kept)
    assert found.masks.tolist() == [1 | 1 << 63, 1]
    np.testing.assert_array_equal(found.points_of(side), kept)
    np.testing.assert_array_equal(KeptPoints.all().points_of(side), np.arange(192))
    empty = collapse_images(Points(points.hashes[:0], points.places[:0], np.zeros(4, np.int64), points.boxes))
    assert len(found.points_of(empty)) == 0
    assert len(KeptPoints.of(empty, kept[:0]).mixed) == 0
