"""Exact Hamming joins that compare all eight turns of an image, from the bits of the hashes alone.

The distance of a turned hash to another is that of the hash to the other one turned back. So a few turns of each side
make all eight: one join of four times the rows in place of eight joins.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import I64, U8, U16, U32, U64
from imgmatch_df._kernels.views import Views
from imgmatch_df.columns import TURNS
from imgmatch_df.matching import join, ranking
from imgmatch_df.matching.clusters import connected, star_of_pairs
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.kernels import hamming
from imgmatch_df.matching.kernels.bands import permute_bits
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.threads import Once, finish_tasks
from imgmatch_df.turns import COMPOSED, INVERSE, TurnedBits

_ROWS_PER_CALL: Final = 1 << 13  # rows that are turned by one call: 0.7 ms for bmh1


def _numbers(*names: str) -> tuple[int, ...]:
    return tuple(TURNS.index(name) for name in names)


_EVERY: Final = tuple(range(len(TURNS)))
# To do one of these and then undo another is each turn but "none", or what undoes it. Three of them make six turns.
_AMONG: Final = _numbers("none", "rotated_90", "mirrored", "flipped")
# Turns of the left and of the right side: to do one of the left and then undo one of the right is each turn once.
_BETWEEN: Final = (
    (_EVERY, _numbers("none")),
    (_numbers("none", "rotated_90", "rotated_180", "rotated_270"), _numbers("none", "mirrored")),
    (_numbers("none", "rotated_90"), _numbers("none", "rotated_180", "mirrored", "flipped")),
    (_numbers("none"), _EVERY),
)


class TurnedPairs(NamedTuple):
    """Pairs of rows, with the turn of the left row that is nearest to the right row, the first of several."""

    left: U32
    right: U32
    distance: U16
    turn: U8


def turn_words(hashes: U64, bits: TurnedBits, turn: int, *, n_threads: int | None = None) -> U64:
    """Return hashes (n, n_words) uint64 as those of images turned by the turn of a number."""
    n, n_words = hashes.shape
    if turn == 0:
        return hashes
    columns = np.empty((n_words, n), np.uint64)
    rows = np.arange(n, dtype=np.uint32)
    finish_tasks(
        [
            Once(permute_bits, hashes, rows, bits.orders[turn], at, min(at + _ROWS_PER_CALL, n), columns)
            for at in range(0, n, _ROWS_PER_CALL)
        ],
        n_threads,
    )
    columns ^= bits.inverted[turn][:, None]
    return np.ascontiguousarray(columns.T)


def every_turn(hashes: U64, bits: TurnedBits) -> U64:
    """Return hashes (n, n_words) uint64 in each of the eight turns, one after the other: (8 * n, n_words)."""
    return _versions(hashes, bits, _EVERY, None)


def turned_self_join(
    hashes: U64,
    radius: int,
    bits: TurnedBits,
    *,
    max_pairs: int | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> TurnedPairs:
    """Return all pairs of rows within `radius` bits of each other in some turn, each pair once. Exact.

    Parameters and order as in `join.self_join`, with `hashes` (n, n_words) uint64, and what turns do to their bits.
    """
    n = len(hashes)
    # A pair is found in each of six turns twice, and four times in "none"; a row with its own turns six times.
    max_found = None if max_pairs is None else 16 * max_pairs + 6 * n
    versions = _versions(hashes, bits, _AMONG, n_threads)
    found = join.self_join(
        versions, radius, bits.n_bits, max_pairs=max_pairs, max_found=max_found, n_threads=n_threads, progress=progress
    )
    turn, left, right = _turns_between(found, n, n, _AMONG, _AMONG)
    later = left > right
    left[later], right[later], turn[later] = right[later], left[later], np.array(INVERSE, np.uint8)[turn[later]]
    return _nearest_turns(left, right, found.distance, turn, left != right, max_pairs)


def explain_turned(hashes: U64, radius: int, bits: TurnedBits) -> str:
    """Return the turns and the plan of `turned_self_join`, as text."""
    plan = join.explain(_versions(hashes, bits, _AMONG, None), radius, bits.n_bits)
    return f"{len(_AMONG)} turns of each hash, which make all {len(_EVERY)} between two; {plan}"


def turned_cross_join(
    queries: U64,
    references: U64,
    radius: int,
    bits: TurnedBits,
    *,
    max_pairs: int | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> TurnedPairs:
    """Return all pairs of a query row and a reference row within `radius` bits in some turn of the query row. Exact.

    Parameters and order as in `join.cross_join`; arrays and bits as in `turned_self_join`.
    """
    sizes = len(queries), len(references)
    lefts, rights = min(_BETWEEN, key=lambda split: len(split[0]) * sizes[0] + len(split[1]) * sizes[1])
    found = join.cross_join(
        _versions(queries, bits, lefts, n_threads),
        _versions(references, bits, rights, n_threads),
        radius,
        bits.n_bits,
        max_pairs=max_pairs,
        max_found=None if max_pairs is None else len(_EVERY) * max_pairs,
        n_threads=n_threads,
        progress=progress,
    )
    turn, left, right = _turns_between(found, *sizes, lefts, rights)
    return _nearest_turns(left, right, found.distance, turn, np.ones(len(turn), np.bool_), max_pairs)


def turned_connect(
    hashes: U64,
    radius: int,
    bits: TurnedBits,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> U32:
    """Return the first row of each row's component by the pairs of `turned_self_join`: (n,) uint32. Exact."""
    n = len(hashes)
    versions = _versions(hashes, bits, _AMONG, n_threads)
    labels = join.connect(versions, radius, bits.n_bits, n_threads=n_threads, progress=progress)
    rows = np.arange(len(versions), dtype=np.uint32)
    same = rows % np.uint32(max(n, 1))
    return connected(len(versions), np.concatenate([rows, rows]), np.concatenate([labels, same]))[:n]


def turned_nearest(
    queries: U64,
    references: U64,
    radius: int,
    bits: TurnedBits,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[I64, U16]:
    """Return the nearest reference row of each query row in any turn, and its distance, as `join.nearest`. Exact."""
    versions = _versions(queries, bits, _EVERY, n_threads)
    found = join.nearest(versions, references, radius, bits.n_bits, n_threads=n_threads, progress=progress)
    rows, distance = (values.reshape(len(_EVERY), len(queries)) for values in found)
    order = np.where(rows < 0, np.iinfo(np.int64).max, distance.astype(np.int64) << 32 | rows)
    best = order.argmin(axis=0)[None]
    return np.take_along_axis(rows, best, 0)[0], np.take_along_axis(distance, best, 0)[0]


def turned_top_k(
    query: U64,
    hashes: U64 | Sequence[Views],
    bits: TurnedBits,
    k: int | None = None,
    *,
    n_threads: int | None = None,
) -> tuple[U32, U16, U8]:
    """Return the rows of the `k` hashes that are nearest to a turn of the query, as `ranking.top_k`, and the turns."""
    versions = _versions(query[None], bits, _EVERY, n_threads)
    distance = ranking.measure(versions[0], hashes, n_threads=n_threads)
    turn = np.zeros(len(distance), np.uint8)
    for number in _EVERY[1:]:
        other = ranking.measure(versions[number], hashes, n_threads=n_threads)
        turn[other < distance] = number
        np.minimum(distance, other, out=distance)
    rows, distance = ranking.rank_distances(distance, k, 64 * len(query))
    return rows, distance, turn[rows]


def turned_star(hashes: U64, radius: int, bits: TurnedBits, order: U32) -> U32:
    """Return the center of each row's star, as `clusters.star`, within `radius` bits in some turn. Exact.

    Memory is linear in the pairs of `turned_self_join`.
    """
    pairs = turned_self_join(hashes, radius, bits)
    return star_of_pairs(len(hashes), pairs.left, pairs.right, order)


def turned_representative_distances(hashes: U64, representative: U32, bits: TurnedBits) -> U16:
    """Return the distance of each row to its representative in the nearest turn, in bits, (n,) uint16."""
    rows = np.arange(len(hashes), dtype=np.uint32)
    out = np.full(len(hashes), np.iinfo(np.uint16).max, np.uint16)
    one = np.empty(len(hashes), np.uint16)
    for turn in _EVERY:
        hamming.hamming_pairs(turn_words(hashes, bits, turn), hashes, rows, representative, one)
        np.minimum(out, one, out=out)
    return out


def turned_diameters(hashes: U64, labels: U32, bits: TurnedBits) -> U16:
    """Return the largest distance between two members of each row's cluster, each in the nearest turn. Exact.

    Members are compared in order of decreasing distance from the row of the label, until no pair can be farther apart:
    turns keep distances, so that the triangle inequality holds.
    """
    distance = turned_representative_distances(hashes, labels, bits)
    out = np.zeros(len(hashes), np.uint16)
    order = np.lexsort((-distance.astype(np.int64), labels))
    edges = np.flatnonzero(np.diff(labels[order])) + 1
    for members in np.split(order, edges):
        if len(members) < 2:
            continue
        versions = _versions(hashes[members], bits, _EVERY, 1).reshape(len(_EVERY), len(members), -1)
        far = distance[members].astype(np.int64)
        widest = int(far[0])
        for i in range(len(members) - 1):
            if far[i] + far[i + 1] <= widest:
                break
            unlike = np.bitwise_count(versions[:, i, None] ^ versions[0, i + 1 :]).sum(axis=2, dtype=np.int64)
            widest = max(widest, int(unlike.min(axis=0).max()))
        out[members] = widest
    return out


def _versions(hashes: U64, bits: TurnedBits, numbers: tuple[int, ...], n_threads: int | None) -> U64:
    """Return the hashes in each of some turns, one after the other: (n_turns * n, n_words) uint64."""
    return np.concatenate([turn_words(hashes, bits, number, n_threads=n_threads) for number in numbers])


def _turns_between(
    found: Pairs, n_left: int, n_right: int, lefts: tuple[int, ...], rights: tuple[int, ...]
) -> tuple[U8, U32, U32]:
    """Return the turn of the left row in each pair of two versions, and the two rows."""
    table = np.array([[COMPOSED[left][INVERSE[right]] for right in rights] for left in lefts], np.uint8)
    (first, left), (second, right) = np.divmod(found.left, max(n_left, 1)), np.divmod(found.right, max(n_right, 1))
    return table[first, second], left.astype(np.uint32), right.astype(np.uint32)


def _nearest_turns(
    left: U32, right: U32, distance: U16, turn: U8, is_pair: npt.NDArray[np.bool_], max_pairs: int | None
) -> TurnedPairs:
    """Return each pair once, with its smallest distance and the first turn of it, sorted by left, then right."""
    left, right, distance, turn = left[is_pair], right[is_pair], distance[is_pair], turn[is_pair]
    order = np.lexsort((distance.astype(np.uint32) << 3 | turn, left.astype(np.uint64) << np.uint64(32) | right))
    left, right = left[order], right[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    if max_pairs is not None and int(is_first.sum()) > max_pairs:
        raise join.too_many_pairs(max_pairs)
    order = order[is_first]
    return TurnedPairs(left[is_first], right[is_first], distance[order], turn[order])
