"""The local hash of an image, slow and obvious: whole numbers of Python, matrices and double loops."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imgmatch_df.hashes.kernels.borders import find_borders

QUOTAS = (14, 12, 10, 9, 8, 6, 5)
SCALES = (65536, 55109, 46341, 38968, 32768, 27554, 23170)
COSINES = np.array(
    [
        [64, 64, 64, 64, 64, 64, 64, 64],
        [89, 75, 50, 18, -18, -50, -75, -89],
        [83, 36, -36, -83, -83, -36, 36, 83],
        [75, -18, -89, -50, 50, 89, 18, -75],
        [64, -64, -64, 64, 64, -64, -64, 64],
        [50, -89, 18, 75, -75, -18, 89, -50],
        [36, -83, 83, -36, -36, 83, -83, 36],
        [18, -50, 75, -89, 89, -75, 50, -18],
    ]
)


def local_hash(pixels):
    """Return the 715 bytes of an upright image, uint8 (h, w) or (h, w, 3 or more)."""
    grey = luma(sampled(pixels))
    height, width = grey.shape
    top, bottom, left, right = find_borders(grey)
    inside = grey[top:bottom, left:right]
    base = resized(inside, *base_shape(*inside.shape))
    points = points_of(base)
    out = b"".join(
        rounded(65535 * place, side).to_bytes(2, "big")
        for place, side in ((left, width), (top, height), (right, width), (bottom, height))
    )
    out += bytes((base.shape[1], base.shape[0], len(points)))
    out += b"".join(bits.to_bytes(8, "big") + bytes((x, y, level)) for bits, x, y, level in points)
    return out.ljust(715, b"\0")


def rounded(numerator, denominator):
    return (2 * numerator + denominator) // (2 * denominator)


def sampled(pixels):
    step = max(1, max(pixels.shape[:2]) // 448)
    top, left = ((side - 1) % step // 2 for side in pixels.shape[:2])
    return pixels[top::step, left::step]


def luma(pixels):
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[:, :, i].astype(np.int64) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def base_shape(height, width):
    return tuple(max(48, rounded(224 * side, max(height, width))) for side in (height, width))


def weights(n_from, n_to):
    """Return what each of n_from pixels weighs in each of n_to: whole numbers, (n_to, n_from)."""
    matrix = np.zeros((n_to, n_from), np.int64)
    for i in range(n_to):
        if n_to > n_from:
            first, part = divmod((2 * i + 1) * n_from - n_to, 2 * n_to)
            for j, weight in ((first, 2 * n_to - part), (first + 1, part)):
                matrix[i, min(max(j, 0), n_from - 1)] += weight
        else:
            for j in range(n_from):
                matrix[i, j] = max(0, min((i + 1) * n_from, (j + 1) * n_to) - max(i * n_from, j * n_to))
    return matrix


def resized(grey, height, width):
    rows, columns = weights(grey.shape[0], height), weights(grey.shape[1], width)
    sums = rows @ grey.astype(np.int64) @ columns.T
    return rounded(sums, rows[0].sum() * columns[0].sum()).astype(np.uint8)


def smoothed(grey):
    padded = np.pad(grey.astype(np.int64), 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4


def responses(grey):
    """Return twice the smaller eigenvalue at each vertex that is 16 pixels or more from the edge, else 0."""
    height, width = grey.shape
    right, down = np.zeros_like(grey), np.zeros_like(grey)
    right[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    down[1:-1] = grey[2:] - grey[:-2]
    found = np.zeros((height + 1, width + 1), np.int64)
    xx, yy, xy = (
        sliding_window_view(products, (8, 8)).sum((2, 3))[12 : height - 19, 12 : width - 19]
        for products in (right**2, down**2, right * down)
    )
    squares = (xx - yy) ** 2 + (2 * xy) ** 2
    roots = np.array([math.isqrt(square) for square in squares.ravel().tolist()]).reshape(squares.shape)
    found[16 : height - 15, 16 : width - 15] = xx + yy - roots
    return found


def corners(grey):
    """Return the vertices (y, x) of highest response within 4 vertices, the highest first."""
    height, width = grey.shape
    response = responses(grey)

    def order(y, x):
        return -response[y, x], (2 * y - height) ** 2 + (2 * x - width) ** 2, y, x

    found = [
        (y, x)
        for y in range(20, height - 19)
        for x in range(20, width - 19)
        if response[y, x] > 522
        and response[y, x] == response[y - 4 : y + 5, x - 4 : x + 5].max()
        and order(y, x) == min(order(i, j) for i in range(y - 4, y + 5) for j in range(x - 4, x + 5))
    ]
    return sorted(found, key=lambda place: order(*place))


def points_of(base):
    """Return the points (hash, x, y, level) of a base image."""
    points = []
    for level, (quota, scale) in enumerate(zip(QUOTAS, SCALES, strict=True)):
        height, width = ((side * scale + 32768) >> 16 for side in base.shape)
        if min(height, width) < 40:
            break
        grey = smoothed(resized(base, height, width))
        found = corners(grey)
        in_cell = {}
        ranks = []
        for y, x in found:
            cell = 5 * y // height, 5 * x // width
            ranks.append(in_cell.get(cell, 0))
            in_cell[cell] = ranks[-1] + 1
        chosen = sorted(range(len(found)), key=lambda i: (ranks[i], i))[:quota]
        for y, x in (found[i] for i in chosen):
            place = rounded(x * base.shape[1], width), rounded(y * base.shape[0], height)
            points.append((patch_hash(grey, y, x), *place, level))
    return points


def patch_hash(grey, y, x):
    patch = grey[y - 20 : y + 20, x - 20 : x + 20]
    cells = patch.reshape(8, 5, 8, 5).sum((1, 3))
    coefficients = COSINES @ cells @ COSINES.T
    return sum(1 << (8 * k + m) for k in range(8) for m in range(8) if k + m > 0 and coefficients[k, m] > 0)
