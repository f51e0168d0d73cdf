"""Votes for one placement of an image in another equal a slow, obvious count; turns of points are those of images."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from PIL import Image, ImageDraw

from imgmatch_df._kernels.popcount import close_places
from imgmatch_df.hashes.local import N_BYTES, hash_image, unpack
from imgmatch_df.hashes.squares import HashInput
from imgmatch_df.matching.kernels import agreement
from imgmatch_df.matching.kernels.placement import place_pairs
from imgmatch_df.matching.placement import turned_points, verify_pairs
from imgmatch_df.matching.points import Points
from imgmatch_df.turns import COMPOSED, EVERY_TURN, INVERSE


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


def scene(seed):
    """Return an RGB image, 640 x 480, of many shapes of many sizes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (640, 480), "grey")
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        x, y, width, height = rng.integers(0, 640), rng.integers(0, 480), *rng.integers(8, 90, 2)
        shape = draw.rectangle if rng.random() < 0.6 else draw.ellipse
        shape((int(x), int(y), int(x + width), int(y + height)), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def turned(image, turn):
    """Return an image after a turn."""
    pixels = np.asarray(image)
    swaps, reverses_rows, reverses_columns = EVERY_TURN[turn]
    pixels = pixels.transpose(1, 0, 2) if swaps else pixels
    pixels = pixels[:: -1 if reverses_rows else 1, :: -1 if reverses_columns else 1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def hash_images(images):
    """Return the points of images."""
    rows = np.zeros((len(images), N_BYTES), np.uint8)
    for image, row in zip(images, rows, strict=True):
        hash_image(HashInput(np.asarray(image.convert("L")), 1), row)
    return Points(*unpack(rows))


def assert_same(points, expected):
    for array, other in zip(points, expected, strict=True):
        np.testing.assert_array_equal(array, other)


def place(left, right, turn=0, min_votes=1):
    """Return votes, placement and coverage of image 0 of both sides."""
    votes, placements, coverage = np.empty(1, np.uint8), np.empty((1, 4)), np.empty(1)
    first = np.zeros(1, np.int64)
    place_pairs(first, first, np.array([turn], np.uint8), left, right, min_votes, votes, placements, coverage)
    return int(votes[0]), placements[0], float(coverage[0])


def image_of(points, image):
    rows = range(points.starts[image], points.starts[image + 1])
    return [(int(points.hashes[row]), *map(int, points.places[row])) for row in rows]


def random_pair(seed):
    """Return an image and a copy of it, of few and similar hashes, so that matches are many and ties are common."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, 6, dtype=np.uint64) & ~np.uint64(1)
    n = int(rng.integers(0, 65))
    scale, turn = rng.choice([0.5, 1, 1.25, 2]), rng.choice([0, rng.uniform(-0.3, 0.3)])
    stretch = rng.choice([1, rng.uniform(0.6, 1)])
    left, right = [], []
    for _ in range(n):
        word = int(rng.choice(words)) if rng.random() < 0.5 else int(rng.integers(0, 2**63)) * 2
        x, y, level = (int(rng.integers(0, side)) for side in (225, 169, 7))
        left.append((word, x, y, level))
        for _ in range(rng.integers(0, 4)):
            word ^= 1 << int(rng.integers(1, 64))
        there = scale * np.exp(1j * turn) * complex(stretch * x, y) + complex(*rng.normal(0, 1.5, 2))
        if rng.random() < 0.8 and 0 <= there.real <= 192 and 0 <= there.imag <= 144:
            moved = level + round(4 * np.log2(scale))
            right.append((word, int(there.real), int(there.imag), int(np.clip(moved, 0, 4))))
    rng.shuffle(right)
    return make_points([left]), make_points([right])


def content(points):
    """Return the key by which one image of a pair comes first: number of points, hashes, places."""
    rows = image_of(points, 0)
    return len(rows), [row[0] for row in rows], [row[1:] for row in rows]


def slow_votes(left, right):
    """Return the votes of two images without a shortcut: each placement of two matches, with each match."""
    if content(left) > content(right):
        left, right = right, left
    here, there = image_of(left, 0), image_of(right, 0)
    matches = sorted(
        ((word ^ other).bit_count(), i, j)
        for i, (word, *_) in enumerate(here)
        for j, (other, *_) in enumerate(there)
        if (word ^ other).bit_count() <= 12
    )[:200]
    best, is_stretched = [], False
    for a, (_, i, j) in enumerate(matches[:40]):
        for _, k, m in matches[:a]:
            if len(best) >= 12 and {(i, j), (k, m)} <= set(best):
                continue
            for two_scales in (False, True):
                step = [there[m][axis] - there[j][axis] for axis in (1, 2)]
                from_step = [here[k][axis] - here[i][axis] for axis in (1, 2)]
                model = (stretched if two_scales else similar)(*from_step, *step)
                if model is None or not all(level_fits(here[x], there[y], model[0]) for x, y in ((i, j), (k, m))):
                    continue
                agreeing = []
                for _, x, y in matches:
                    u = [here[x][axis] - here[i][axis] for axis in (1, 2)]
                    v = [there[y][axis] - there[j][axis] for axis in (1, 2)]
                    is_new = all(x != first and y != second for first, second in agreeing)
                    if is_new and model[1](*u, *v) and level_fits(here[x], there[y], model[0]):
                        agreeing.append((x, y))
                if len(agreeing) > len(best):
                    best, is_stretched = agreeing, two_scales
    if len(best) < 2:
        return 0
    kept = [
        k
        for k, (i, j) in enumerate(best)
        if not any(squared(here[i], here[x]) < 64 and squared(there[j], there[y]) < 64 for x, y in best[:k])
    ]
    expected = min(
        n_expected([(here[i], there[j]) for i, j in best], is_stretched, here, there),
        n_expected([(there[j], here[i]) for i, j in best], is_stretched, there, here),
    )
    return max(v for v in range(64) if v**3 * max(expected, len(kept), 6) <= 40 * len(kept) ** 3)


def similar(ax, ay, bx, by):
    """Return the squared scale of a similarity and what agrees with it; None if it is not allowed."""
    a, b = complex(ax, ay), complex(bx, by)
    if min(squared_length(a), squared_length(b)) < 144 or not 1 / 5.75 <= squared_length(b / a) <= 5.75:
        return None
    cosine = (b / a).real / abs(b / a)
    if cosine <= 0 or cosine**2 < 0.9609375:
        return None
    limit = 9 * max(squared_length(a), squared_length(b))

    def agrees(ux, uy, vx, vy):
        return squared_length(b * complex(ux, uy) - a * complex(vx, vy)) <= limit

    return squared_length(b) / squared_length(a), agrees


def stretched(ax, ay, bx, by):
    """Return the product of two scales and what agrees with them; None if they are not allowed."""
    if ax * bx <= 0 or ay * by <= 0 or min(abs(ax), abs(ay), abs(bx), abs(by)) < 8:
        return None
    if not 1 / 5.75 <= bx / ax * by / ay <= 5.75 or not 1 / 1.625 <= (bx / ax) / (by / ay) <= 1.625:
        return None

    def agrees(ux, uy, vx, vy):
        x, y = Fraction(bx * ux - ax * vx, max(abs(ax), abs(bx))), Fraction(by * uy - ay * vy, max(abs(ay), abs(by)))
        return x * x + y * y <= 9

    return bx / ax * by / ay, agrees


def level_fits(here, there, ratio):
    return abs(there[3] - here[3] - 2 * np.log2(ratio)) <= 1


def squared(point, other):
    return (point[1] - other[1]) ** 2 + (point[2] - other[2]) ** 2


def squared_length(number):
    return number.real**2 + number.imag**2


def n_expected(pairs, is_stretched, here, there):
    """Return how many places of points of one image lie where the other one, a base of 192 x 144, may have points."""
    u, v = (np.array([pair[side][1:3] for pair in pairs], float) for side in (0, 1))
    du, dv = u - u.mean(axis=0), v - v.mean(axis=0)
    if is_stretched:
        scales = np.sqrt((dv**2).sum(axis=0) / (du**2).sum(axis=0))
        matrix, ratio = np.diag(scales), scales.prod()
    else:
        ratio = (dv**2).sum() / (du**2).sum()
        turn = ((dv @ [1, 1j]) * (du @ [1, -1j])).sum()
        turn *= np.sqrt(ratio) / abs(turn)
        matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    found, n_places = [], 0
    for point in here:
        level = point[3] + round(2 * np.log2(ratio))
        x, y = matrix @ (point[1:3] - u.mean(axis=0)) + v.mean(axis=0)
        if not 0 <= level <= 6:
            continue
        margin = round(320 * 2 ** (level / 4)) / 16 - 0.75
        if margin <= x <= 192 - margin and margin <= y <= 144 - margin:
            n_places += not any(squared(point, other) * max(1, ratio) < 64 for other in found)
            found.append(point)
    return n_places


@pytest.mark.parametrize("seed", range(24))
def test_the_votes_equal_a_slow_count(seed):
    left, right = random_pair(seed)
    votes, _, _ = place(left, right)
    assert votes == slow_votes(left, right)


@pytest.mark.parametrize("min_votes", [2, 5, 8, 11, 14, 20, 30, 64])
def test_pairs_with_fewer_votes_have_none_and_others_the_same(min_votes):
    for seed in range(200):
        left, right = random_pair(seed)
        votes, placement, coverage = place(left, right)
        found = place(left, right, min_votes=min_votes)
        if votes < min_votes:
            assert found == (0, pytest.approx([0, 0, 0, 0], abs=0), 0)
        else:
            assert found == (votes, pytest.approx(placement, rel=0), coverage)


def extreme_matches(rng):
    """Return 48 matches, (5, 256), about one seed: of placements at the limits, and off by up to 3 pixels."""
    scale = rng.choice([1 / 2.39, 1 / 1.6, 1, 1.6, 2.39])
    if rng.random() < 0.5:
        matrix = scale * np.exp(1j * rng.choice([-0.198, 0, 0.198])) * np.array([1, 1j])
    else:
        aspect = rng.choice([1 / 1.62, 1, 1.62]) ** 0.5
        matrix = scale * np.array([aspect, 1j / aspect])
    reach = 127 / max(2 * scale, 1) if rng.random() < 0.5 else 20
    left = rng.integers(-reach, reach + 1, (48, 2))
    off = 3 * max(1, scale) * rng.random(48) * np.exp(2j * np.pi * rng.random(48))
    there = left @ matrix + off
    matches = np.zeros((5, 256))
    matches[:2, :48] = left.T
    matches[2, :48], matches[3, :48] = np.round(there.real), np.round(there.imag)
    matches[:, 0] = 0
    matches[4, :48] = np.round(4 * np.log2(scale)) + rng.integers(-1, 2, 48)
    return matches


def test_matches_that_agree_with_a_placement_are_possible_with_both_that_make_it():
    rng = np.random.default_rng(0)
    possible, near = np.zeros((48, 4), np.uint64), np.zeros(4, np.uint64)
    form = np.zeros(11)
    n_placements = n_pairs = 0
    for _ in range(40):
        matches = extreme_matches(rng)
        for a in range(48):
            agreement._find_possible(matches, 48, a, possible[a])
        for a in range(48):
            for b in range(a):
                step = matches[:, b] - matches[:, a]
                for set_form in (_try_similarity, _try_scales):
                    if not set_form(*step[:4], form):
                        continue
                    agreement._find_near(matches, 48, a, form, matches[4].min(), matches[4].min() + 2, near)
                    if not int(near[0]) >> b & 1 or not int(near[0]) >> a & 1:
                        continue
                    n_placements += 1
                    n_pairs += int(near[0]).bit_count()
                    assert int(near[0]) & ~int(possible[a, 0] & possible[b, 0]) == 0
    assert n_placements > 2_000
    assert n_pairs > 10 * n_placements


@njit
def _try_similarity(ax, ay, bx, by, form):
    return agreement._set_similarity(ax, ay, bx, by, form)


@njit
def _try_scales(ax, ay, bx, by, form):
    return agreement._set_scales(ax, ay, bx, by, form)


@njit
def _close(places, x, y, limit):
    return close_places(places, 0, np.uint8(x), np.uint8(y), np.uint8(limit))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.integers(0, 63))
def test_close_places_equal_squared_distances(seed, limit):
    rng = np.random.default_rng(seed)
    x, y = rng.choice([0, 3, 128, 250, 255], 2)
    places = np.clip(rng.integers(-9, 10, (2, 64)) + np.array([[x], [y]]), 0, 255).astype(np.uint8)
    places[:, ::9] = rng.integers(0, 256, places[:, ::9].shape)
    expected = (places[0].astype(int) - x) ** 2 + (places[1].astype(int) - y) ** 2 <= limit
    assert int(_close(places, x, y, limit)) == sum(1 << place for place in np.flatnonzero(expected).tolist())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), turn=st.integers(0, 7))
def test_votes_and_coverage_stay_when_sides_are_swapped(seed, turn):
    left, right = random_pair(seed)
    left = turned_points(left, INVERSE[turn])
    votes, placement, coverage = place(left, right, turn)
    back = place(right, left, INVERSE[turn])
    assert (votes, coverage) == (back[0], pytest.approx(back[2]))
    if votes:
        assert placement[0] * placement[1] * back[1][0] * back[1][1] == pytest.approx(1)


def test_the_random_pairs_have_votes_and_both_kinds_of_placement():
    found = [place(*random_pair(seed)) for seed in range(40)]
    votes = [votes for votes, _, _ in found]
    assert min(votes) == 0
    assert sum(count >= 8 for count in votes) >= 10
    assert any(placement[0] != placement[1] for _, placement, _ in found)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), first=st.integers(0, 7), second=st.integers(0, 7))
def test_turns_of_points_compose(seed, first, second):
    points, _ = random_pair(seed)
    assert_same(turned_points(turned_points(points, first), second), turned_points(points, COMPOSED[first][second]))
    assert_same(turned_points(turned_points(points, first), INVERSE[first]), points)


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_image_has_the_turned_points(turn):
    image = scene(1)
    found, expected = hash_images([turned(image, turn)]), turned_points(hash_images([image]), turn)
    assert found.boxes.tolist() == expected.boxes.tolist()
    there = {tuple(place): int(word) for word, place in zip(expected.hashes, expected.places.tolist(), strict=True)}
    distances = [
        (int(word) ^ there[tuple(place)]).bit_count()
        for word, place in zip(found.hashes, found.places.tolist(), strict=True)
        if tuple(place) in there
    ]
    assert len(distances) >= 50
    assert np.mean(distances) < 1


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize(("scale", "left", "top"), [(1, 0, 0), (0.75, 0.2, 0.1), (0.6, 0.05, 0.35), (1.25, -0.25, 0)])
def test_a_copy_is_found_where_it_was_drawn(turn, scale, left, top):
    image, page = scene(2), scene(3)
    copy = turned(image, turn)
    canvas = turned(page, turn)
    width, height = canvas.size
    copy = copy.resize((round(scale * copy.width), round(scale * copy.height)), Image.Resampling.BICUBIC)
    canvas.paste(copy, (round(left * width), round(top * height)))
    copies = verify_pairs(
        hash_images([image]), hash_images([canvas]), *np.zeros((2, 8), np.int64), np.arange(8, dtype=np.uint8), 8
    )
    assert copies.turn.tolist() == [turn]
    assert copies.scale[0] == pytest.approx(scale, rel=0.02)
    assert [copies.shift_x[0], copies.shift_y[0]] == pytest.approx([left, top], abs=0.02)
    assert 0.1 < copies.coverage[0] <= min(1, 1.2 * scale**2)


def test_placements_are_fractions_of_whole_images_with_their_borders():
    inside = hash_images([scene(4)])
    framed = inside._replace(boxes=np.array([[65535 // 4, 0, 65535 // 2, 65535, *inside.boxes[0, 4:]]], np.uint16))
    one = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    # The frame takes the left quarter and the right half, so that the framed image is 4 times as wide.
    copies = verify_pairs(inside, framed, *one, 8)
    assert (copies.shift_x[0], copies.shift_y[0]) == pytest.approx((0.25, 0), abs=1e-3)
    assert copies.scale[0] == pytest.approx(0.25, abs=1e-3)
    copies = verify_pairs(framed, inside, *one, 8)
    assert (copies.shift_x[0], copies.shift_y[0]) == pytest.approx((-1, 0), abs=1e-3)
    assert copies.scale[0] == pytest.approx(4, rel=1e-3)
    copies = verify_pairs(framed, turned_points(framed, 2), *one[:2], np.array([2], np.uint8), 8)
    assert copies.scale[0] == pytest.approx(1)
    assert (copies.shift_x[0], copies.shift_y[0]) == pytest.approx((0, 0), abs=1e-3)


@pytest.mark.parametrize("stretch", [(0.8, 1), (1, 0.85)])
def test_a_squashed_copy_has_two_scales(stretch):
    image = scene(5)
    copy = image.resize((round(stretch[0] * image.width), round(stretch[1] * image.height)), Image.Resampling.BICUBIC)
    votes, placement, _ = place(hash_images([image]), hash_images([copy]))
    assert votes >= 8
    assert placement[0] / placement[1] == pytest.approx(stretch[0] / stretch[1], rel=0.03)


def test_few_or_equal_points_have_no_votes():
    word = 0x123456789ABCDEE0
    nothing, one = make_points([[]]), make_points([[(word, 50, 50, 0)]])
    piled = make_points([[(word, 50, 50, 0)] * 64])
    for left in (nothing, one, piled):
        for right in (nothing, one, piled):
            assert place(left, right) == (0, pytest.approx([0, 0, 0, 0]), 0)


def test_points_of_several_levels_at_one_place_have_one_vote():
    rng = np.random.default_rng(6)
    spots = [(int(x), int(y)) for x in range(40, 160, 20) for y in range(40, 110, 20)]
    once = [(int(rng.integers(2**63)) << 1, x, y, 1) for x, y in spots]
    again = [(int(rng.integers(2**63)) << 1, x + 3, y - 2, 1) for x, y in spots]
    alone, piled = make_points([once]), make_points([[*once, *again]])
    assert place(alone, alone)[0] == place(piled, piled)[0] > 8


def test_a_pair_is_reported_once_in_the_first_of_its_best_turns():
    image = scene(7)
    symmetric = image.copy()
    symmetric.paste(image.crop((0, 0, 320, 480)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), (320, 0))
    points = hash_images([image, symmetric])
    left, right = np.array([0, 1, 0, 0, 1, 1]), np.array([1, 1, 0, 1, 1, 0])
    turn = np.array([4, 4, 0, 0, 0, 0], np.uint8)
    copies = verify_pairs(points, points, left, right, turn, 6, n_threads=2)
    assert list(zip(copies.left, copies.right, copies.turn, strict=True)) == [
        (0, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (1, 1, 0),
    ]
    swapped = verify_pairs(points, points, right, left, np.array(INVERSE, np.uint8)[turn], 6)
    assert sorted(copies.votes) == sorted(swapped.votes)
    assert len(verify_pairs(points, points, left, right, turn, 64).left) == 0
