"""Slow, obvious truths that the fast code has to equal."""

import numpy as np


def hamming(left, right):
    """Return the number of bits in which two hashes of uint64 words differ."""
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(left, right, strict=True))


def distance_matrix(left, right):
    """Return all distances, (n, m): every hash against every hash, a word at a time."""
    total = np.zeros((len(left), len(right)), np.int64)
    for word in range(left.shape[1] if len(left) else 0):
        total += np.bitwise_count(left[:, word][:, None] ^ right[:, word][None, :])
    return total


def self_pairs(hashes, radius):
    """Return [(left, right, distance)] of all pairs within the radius by a double loop."""
    return [
        (i, j, d)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (d := hamming(hashes[i], hashes[j])) <= radius
    ]


def components(n, pairs):
    """Return the first row of each row's component."""
    root = list(range(n))

    def find(row):
        while root[row] != row:
            row = root[row]
        return row

    for left, right in pairs:
        a, b = find(left), find(right)
        root[max(a, b)] = min(a, b)
    return [find(row) for row in range(n)]


def stars(hashes, radius, order=None):
    """Return the center of each row: in order, a row joins the first center within the radius, or becomes one."""
    centers = []
    result = [0] * len(hashes)
    for row in range(len(hashes)) if order is None else order:
        for center in centers:
            if hamming(hashes[row], hashes[center]) <= radius:
                result[row] = center
                break
        else:
            centers.append(row)
            result[row] = row
    return result


def diameters(hashes, labels):
    """Return the largest distance between two members of each row's cluster."""
    return [
        max(
            hamming(hashes[i], hashes[j])
            for i in range(len(hashes))
            for j in range(len(hashes))
            if labels[i] == labels[j] == label
        )
        for label in labels
    ]


def ruled_clusters(costs, order, chains, across=None, within=None, excluded=()):
    """Return the representative of each row, and the smallest cost at which the row is in its cluster.

    costs: what each near pair (left, right) of rows costs. order: the best row first. across, within: the values of
    the rows. excluded: pairs that do not count.
    """
    n = len(order)
    excluded = {frozenset(pair) for pair in excluded}
    counted = {
        (i, j): cost
        for (i, j), cost in costs.items()
        if (across is None or across[i] != across[j])
        and (within is None or (within[i] is not None and within[i] == within[j]))
        and frozenset((i, j)) not in excluded
    }
    joined = [0] * n
    if chains:
        label = components(n, counted)
        representative = [next(row for row in order if label[row] == label[i]) for i in range(n)]
        for cost in sorted(set(counted.values()), reverse=True):
            label = components(n, [pair for pair in counted if counted[pair] <= cost])
            for i in range(n):
                if i != representative[i] and label[i] == label[representative[i]]:
                    joined[i] = cost
        return representative, joined
    representative = [None] * n
    for center in order:
        if representative[center] is None:
            representative[center] = center
            for i in range(n):
                pair = (min(i, center), max(i, center))
                if representative[i] is None and pair in counted:
                    representative[i], joined[i] = center, counted[pair]
    return representative, joined


def kept_rows(representative, protected, across=None, excluded=()):
    """Return which rows are kept."""
    excluded = {frozenset(pair) for pair in excluded}
    return [
        i == best
        or protected[i]
        or (across is not None and across[i] == across[best])
        or frozenset((i, best)) in excluded
        for i, best in enumerate(representative)
    ]


def turned_distances(turned, right):
    """Return the smallest distance and its first turn, (n, m) each: turned has the left hashes in each turn."""
    every = np.stack([distance_matrix(left, right) for left in turned])
    return every.min(axis=0), every.argmin(axis=0)


def turned_self_pairs(turned, radius):
    """Return [(left, right, distance, turn)] of all pairs within the radius in some turn of the left hash."""
    distance, turn = turned_distances(turned, turned[0])
    return [
        (i, j, int(distance[i, j]), int(turn[i, j]))
        for i in range(len(distance))
        for j in range(i + 1, len(distance))
        if distance[i, j] <= radius
    ]


def _border_lines(grey):
    """Return how many rows at the top of a grey image are a border that ends at a straight edge."""
    n_lines, n = grey.shape
    rows = [sorted(map(int, row)) for row in grey]
    medians = [row[(n - 1) // 2] for row in rows]
    n_uniform = 0
    for row, median in zip(rows, medians, strict=True):
        if abs(median - medians[0]) > 8 or sum(abs(level - median) for level in row) > 3 * n:
            break
        n_uniform += 1
    if not 0.02 <= n_uniform / n_lines < 0.45:
        return 0
    for i in range(n_uniform, min(n_lines, n_uniform + max(8, n_lines // 100))):
        if 2 * sum(abs(level - medians[0]) > 16 for level in rows[i]) >= n:
            return i
    return 0


def inside_of_borders(grey):
    """Return (top, bottom, left, right) of a grey image without its borders."""
    top, bottom, left, right = 0, grey.shape[0], 0, grey.shape[1]
    while min(bottom - top, right - left) >= 16:
        here = grey[top:bottom, left:right]
        found = [_border_lines(side) for side in (here, here[::-1], here.T, here.T[::-1])]
        inside = top + found[0], bottom - found[1], left + found[2], right - found[3]
        if not any(found) or min(inside[1] - inside[0], inside[3] - inside[2]) < 16:
            break
        top, bottom, left, right = inside
    return top, bottom, left, right
