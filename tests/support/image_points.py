"""Points of images that nothing was drawn for: unrelated ones, copies, and images that share a logo."""

import numpy as np

from imgmatch_df.matching.placement import turned_points
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


def logos(seed):
    """Return images of which many share one logo or another, some have it alone, and some are there several times."""
    base = random_images(30, seed)
    alone = with_logo(random_images(9, seed + 1, 6), seed)
    return join_points(
        [
            base,
            edited(base, seed + 2),
            with_logo(random_images(40, seed + 3), seed + 4),
            with_logo(random_images(20, seed + 5), seed + 6, 12),
            alone,
            take(alone, [0, 0, 1]),
            take(base, [3, 3, 4]),
        ]
    )


def pack(points):
    """Return images as values of local hashes, of which each has at most 64 points."""
    records = np.zeros((points.n_images, 65, 11), np.uint8)
    records[:, 0, :8] = points.boxes[:, :4].astype(">u2").view(np.uint8)
    records[:, 0, 8:10] = points.boxes[:, 4:]
    records[:, 0, 10] = np.diff(points.starts)
    owners = np.repeat(np.arange(points.n_images), np.diff(points.starts))
    places = 1 + np.arange(len(owners)) - points.starts[owners]
    records[owners, places, :8] = points.hashes.astype(">u8").view(np.uint8).reshape(-1, 8)
    records[owners, places, 8:] = points.places
    return [row.tobytes() for row in records.reshape(points.n_images, -1)]
