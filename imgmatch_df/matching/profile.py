"""Counts of pairs and clusters at every radius, from one join at the largest radius and a forest of its pairs.

The forest has for each cluster at each radius the pairs that connect it, at most one pair a row: a minimum spanning
forest by distance. So clusters at all radii cost one join, and memory is linear in rows.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U64
from imgmatch_df.matching import join
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.kernels import forest, hamming
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.threads import Once, finish_tasks, n_threads

MAX_SAMPLE: Final = 20_000  # hashes of which all pairs are counted: 200 million pairs
_MAX_WAITING: Final = 1 << 23  # pairs that wait until the forest takes them, 80 MB
_MAX_PLAN_S: Final = 240.0  # expected time of the join on one thread; a larger radius is not joined
_KEY_BITS: Final = 26  # of a row in a number by which pairs are sorted, six times as fast as by columns
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


class DistinctHashes(NamedTuple):
    """Hashes of which no two are equal, and how many rows have each; their order depends on nothing but their bits.

    Parameters
    ----------
    words
        (m, n_words) uint64.
    sizes
        (m,) int64.
    rows
        The first row with each hash, (m,) int64.
    """

    words: U64
    sizes: I64
    rows: I64

    @classmethod
    def of(cls, hashes: U64) -> "DistinctHashes":
        """Return the distinct hashes of rows, (n, n_words) uint64."""
        first = join.first_equal(hashes)
        rows, sizes = np.unique(first, return_counts=True)
        words = hashes[rows]
        mixed = np.zeros(len(words), np.uint64)
        for column in words.T:
            mixed = (mixed ^ column) * _MIX
            mixed ^= mixed >> np.uint64(29)
        order = np.argsort(mixed, kind="stable")
        if (np.diff(mixed[order]) == 0).any():
            order = np.lexsort([*words.T, mixed])
        return cls(np.ascontiguousarray(words[order]), sizes[order].astype(np.int64), rows[order].astype(np.int64))

    @property
    def n_equal_pairs(self) -> int:
        """Number of pairs of rows with equal hashes."""
        return int(self.sizes @ (self.sizes - 1)) // 2

    @property
    def rows_per_pair(self) -> float:
        """Mean number of pairs of rows that one pair of different hashes stands for."""
        n_rows, n = int(self.sizes.sum()), len(self.sizes)
        return (n_rows * n_rows - int(self.sizes @ self.sizes)) / max(1, n * (n - 1))


class Profile(NamedTuple):
    """Counts at each radius from 0 on, exact: (radius + 1,) int64 each.

    Parameters
    ----------
    n_pairs
        Pairs of rows within the radius.
    n_clusters
        Connected clusters of two rows or more.
    n_removed
        Rows of these beyond the first of each.
    n_largest
        Rows of the largest cluster; 1 where no cluster has two.
    n_distinct_pairs
        Pairs of different hashes at each distance, not added up.
    links
        Minimum spanning forest of the different hashes, see `spanning_forest`.
    """

    n_pairs: I64
    n_clusters: I64
    n_removed: I64
    n_largest: I64
    n_distinct_pairs: I64
    links: Pairs


def sample_distances(distinct: DistinctHashes, n_bits: int) -> tuple[I64, float]:
    """Return the number of pairs of a sample at each distance, (n_bits + 1,) int64, and the share of all pairs in it.

    Pairs are of different hashes. The sample is the first `MAX_SAMPLE` hashes, whose order is as good as random.
    """
    n, n_sample = len(distinct.words), min(len(distinct.words), MAX_SAMPLE)
    sample = distinct.words[:n_sample]
    # Rows in the front have more rows behind them: parts of equal work.
    cuts = (n_sample * (1 - np.sqrt(np.linspace(1, 0, 4 * n_threads() + 1)))).astype(int).tolist()
    counts = np.zeros((len(cuts) - 1, 64 * distinct.words.shape[1] + 1), np.int64)
    tasks = [Once(hamming.count_all_distances, sample, a, b, counts[i]) for i, (a, b) in enumerate(pairwise(cuts))]
    finish_tasks(tasks, None)
    share = n_sample * (n_sample - 1) / max(1, n * (n - 1))
    return counts.sum(axis=0)[: n_bits + 1], share


def largest_radius(
    distinct: DistinctHashes, sampled: I64, share: float, max_radius: int, n_bits: int, max_pairs: int
) -> int:
    """Return the largest radius of at most `max_radius` that a join takes in reasonable time.

    It makes at most `max_pairs` pairs of different hashes, as expected from the sample, and is expected to take some
    minutes at most. The result depends on the hashes alone.
    """
    n_pairs = np.cumsum(sampled[: max_radius + 1]) / share if share else np.zeros(max_radius + 1)
    low, high = 0, int(np.searchsorted(n_pairs, max_pairs, side="right")) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if join.explain(distinct.words, middle, n_bits).seconds <= _MAX_PLAN_S:
            low = middle
        else:
            high = middle - 1
    return max(0, low)


def profile(
    distinct: DistinctHashes, radius: int, n_bits: int, max_pairs: int | None, progress: Progress | None = None
) -> Profile | None:
    """Return the exact counts at each radius up to `radius`, None where more than `max_pairs` pairs are found."""
    n = len(distinct.words)
    n_pairs, n_distinct_pairs = np.zeros(radius + 1, np.int64), np.zeros(radius + 1, np.int64)
    n_found = 0

    def counted() -> Iterator[Pairs]:
        nonlocal n_found, n_pairs, n_distinct_pairs
        for block in join.near_blocks(distinct.words, radius, n_bits, progress=progress):
            n_found += len(block.left)
            if max_pairs is not None and n_found > max_pairs:
                return
            n_distinct_pairs += np.bincount(block.distance, minlength=radius + 1)
            weights = distinct.sizes[block.left] * distinct.sizes[block.right]
            np.add.at(n_pairs, block.distance, weights)
            yield block

    links = spanning_forest(n, counted())
    if max_pairs is not None and n_found > max_pairs:
        return None
    n_pairs[0] += distinct.n_equal_pairs
    parent, sizes = np.arange(n, dtype=np.uint32), distinct.sizes.copy()
    shared = sizes[sizes > 1]
    totals = np.array([len(shared), int(shared.sum()) - len(shared), int(sizes.max(initial=1))], np.int64)
    at_radius = np.empty((radius + 1, 3), np.int64)
    starts = np.searchsorted(links.distance, np.arange(radius + 2))
    for within in range(radius + 1):
        part = slice(starts[within], starts[within + 1])
        forest.grow(parent, sizes, links.left[part], links.right[part], totals)
        at_radius[within] = totals
    n_clusters, n_removed, n_largest = (np.ascontiguousarray(column) for column in at_radius.T)
    return Profile(np.cumsum(n_pairs), n_clusters, n_removed, n_largest, n_distinct_pairs, links)


def spanning_forest(n: int, blocks: Iterable[Pairs]) -> Pairs:
    """Return the minimum spanning forest of pairs: by distance, then by the left and the right row, in this order.

    It connects at each radius what all pairs within the radius connect, whatever the order of the pairs.

    Parameters
    ----------
    n
        Number of rows.
    blocks
        The pairs, in parts. Memory is linear in rows, whatever their number.
    """
    links = Pairs(np.zeros(0, np.uint32), np.zeros(0, np.uint32), np.zeros(0, np.uint16))
    waiting: list[Pairs] = []
    n_waiting = 0
    for block in blocks:
        waiting.append(Pairs(np.minimum(*block[:2]), np.maximum(*block[:2]), block.distance.copy()))
        n_waiting += len(block.left)
        if n_waiting > _MAX_WAITING:
            links, waiting, n_waiting = _least(n, [links, *waiting]), [], 0
    return _least(n, [links, *waiting])


def _least(n: int, blocks: list[Pairs]) -> Pairs:
    left, right, distance = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    if n <= 1 << _KEY_BITS and distance.max(initial=0) < 1 << 64 - 2 * _KEY_BITS:
        key = distance.astype(np.uint64) << np.uint64(2 * _KEY_BITS) | left.astype(np.uint64) << np.uint64(_KEY_BITS)
        order = np.argsort(key | right)
    else:
        order = np.lexsort((right, left, distance))
    left, right, distance = left[order], right[order], distance[order]
    is_link = np.empty(len(left), np.bool_)
    forest.span(np.arange(n, dtype=np.uint32), left, right, is_link)
    return Pairs(left[is_link], right[is_link], distance[is_link])
