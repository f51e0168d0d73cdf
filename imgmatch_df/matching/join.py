"""Exact Hamming joins: all pairs within a radius, of one set of hashes or of two, and nearest neighbours.

Equal hashes are collapsed first, `plan` chooses bands or a scan, and serial kernels compare parts of it in the thread
pool.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from math import inf
from typing import Final, Literal

import numpy as np

from imgmatch_df import threads
from imgmatch_df._kernels.arrays import I64, U16, U32, U64
from imgmatch_df.errors import ArgumentError, TooManyPairsError
from imgmatch_df.matching import counts
from imgmatch_df.matching import plan as plans
from imgmatch_df.matching.kernels import forest, hamming
from imgmatch_df.matching.kernels.forest import Links
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.matching.plan import Choice, Distinct, Plan
from imgmatch_df.matching.tasks import Bands, BucketSearch, FlipSearch, JoinColumns, link_tasks, sorts_in_parts
from imgmatch_df.threads import Once, Task, finish_tasks, run_tasks

__all__ = [
    *("Pairs", "Plan", "connect", "cross_join", "explain", "first_equal", "near_blocks", "nearest", "self_join"),
    *("stable_order", "too_many_pairs"),
]

Progress = Callable[[int, int], None]

# Positions of pairs are 32-bit numbers; so many pairs would take 40 GB.
_MAX_PAIRS: Final = (1 << 32) - 1
# Expected seconds of a task: short, so that all threads finish together, and long compared with the 50 microseconds of
# handing it to a thread.
_TASK_S: Final = 5e-3

_CROWD: Final = 8  # pairs per row of both sides, above which `nearest` increases the radius in steps
_ROWS_PER_PART: Final = 1 << 14  # rows among which `find_first` finds equal ones, on average: a table of 256 KiB
_MAX_PART_BITS: Final = 12  # more parts would not stay in the cache while rows are distributed
_PAIRS_SORTED: Final = 1 << 22  # pairs sorted by one call, about 50 ms, so that Ctrl-C is prompt
_ROWS_PER_CALL: Final = 1 << 16  # rows that are ranked, or mixed, by one call


def self_join(
    hashes: U64,
    radius: int,
    n_bits: int,
    *,
    max_pairs: int | None = None,
    max_found: int | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
    plan: Choice | None = None,
) -> Pairs:
    """Return all pairs of rows whose hashes are within `radius` bits of each other. Exact.

    Parameters
    ----------
    hashes
        (n, n_words) uint64, or (n,) for 64-bit hashes.
    radius
        Largest distance kept, in bits; inclusive.
    n_bits
        Bits that carry information. Further bits may be set and count as distance, but bands do not use them.
    max_pairs
        Maximum number of pairs; more raise an error.
    max_found
        Maximum number of pairs to find, where the caller drops some; by default `max_pairs`.
    n_threads
        Number of threads; by default all usable processors. The result does not depend on it.
    progress
        Called with (done, total) from the calling thread.
    plan
        Use the best plan of this kind instead of the best of all.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or if there are more than `max_pairs` pairs.

    Notes
    -----
    For a small radius the time is nearly linear in rows, for a large one quadratic with a small constant; see
    `explain`.
    """
    _check_radius(radius)
    side = _collapse(hashes, n_threads)
    limit = _Limit(max_pairs, max_found, side, side)
    if side.first is not None:
        limit.add(side.n_equal_pairs)
    blocks = _near_pairs(side, side, radius, n_bits, n_threads, progress, plan)
    return _assemble(limit.watch(blocks, side, side), side, side, limit)


def near_blocks(
    distinct: U64,
    radius: int,
    n_bits: int,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Pairs]:
    """Yield the pairs of `self_join` in blocks, each pair once, in any order, of hashes of which no two are equal.

    Memory is linear in rows, whatever the number of pairs. Parameters as in `self_join`.
    """
    rows = np.arange(len(distinct), dtype=np.uint32)
    side = _Side(Distinct(distinct, rows))
    return _near_pairs(side, side, radius, n_bits, n_threads, progress, None)


def cross_join(
    queries: U64,
    references: U64,
    radius: int,
    n_bits: int,
    *,
    max_pairs: int | None = None,
    max_found: int | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
    plan: Choice | None = None,
) -> Pairs:
    """Return all pairs of a query row (left) and a reference row (right) within `radius` bits. Exact.

    Parameters, limits and cost as in `self_join`.
    """
    _check_radius(radius)
    left, right = _collapse_both(queries, references, n_threads)
    limit = _Limit(max_pairs, max_found, left, right)
    blocks = _near_pairs(left, right, radius, n_bits, n_threads, progress, plan)
    return _assemble(limit.watch(blocks, left, right), left, right, limit)


def connect(
    hashes: U64,
    radius: int,
    n_bits: int,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
    plan: Literal["bands", "scan"] | None = None,
) -> U32:
    """Return the first row of each row's component in the graph of all pairs within `radius` bits: (n,) uint32. Exact.

    The components are those of the pairs of `self_join`, which are not computed: memory is linear in rows, whatever
    the number of pairs. Parameters as in `self_join`.
    """
    _check_radius(radius)
    side = _collapse(hashes, n_threads)
    parent = np.arange(side.n_rows, dtype=np.uint32)
    if len(side.distinct.rows) > 1 and radius > 0:
        chosen, order = plans.choose_plan(side.distinct, side.distinct, radius, n_bits, choice=plan, pairs=False)
        for links in _links(chosen, order, side.distinct, parent, n_threads, progress):
            forest.unite(parent, *links)
    forest.flatten(parent)
    return parent if side.first is None else parent[side.first]


def first_equal(hashes: U64, *, n_threads: int | None = None) -> U32:
    """Return the first row that has the hash of each row: (n,) uint32. `hashes` as in `self_join`."""
    side = _collapse(hashes, n_threads)
    return side.distinct.rows if side.first is None else side.first


def nearest(
    queries: U64,
    references: U64,
    radius: int,
    n_bits: int,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
    plan: Choice | None = None,
) -> tuple[I64, U16]:
    """Return the nearest reference row of each query row within `radius` bits, and its distance. Exact.

    Ties go to the first row; the row is -1 if there is none. Memory is linear in rows, whatever the number of pairs.
    Parameters as in `self_join`.

    Notes
    -----
    If most rows have many others within the radius, the radius is increased in steps, and rows matched in one step are
    left out of the next: 80,000 rows in four clusters against as many took 66 s in one step.
    """
    _check_radius(radius)
    left, right = _collapse_both(queries, references, n_threads)
    none = np.iinfo(np.int64).max
    best = np.full(left.n_rows, none, np.int64)
    max_found = _CROWD * (len(left.distinct.rows) + len(right.distinct.rows))

    def find_within(within: int, max_pairs: float = inf) -> bool:
        """Find the nearest reference within some bits for rows without one; return False at too many pairs."""
        hashes, rows = left.distinct
        seeking = _Side(Distinct(hashes, rows[best[rows] == none]))
        for block in _near_pairs(seeking, right, within, n_bits, n_threads, progress, plan):
            # Distance in the high bits, row in the low ones: the minimum is the nearest, and of ties the first.
            found = block.distance.astype(np.int64) << 32 | block.right
            np.minimum.at(best, block.left, found)
            max_pairs -= len(found)
            if max_pairs < 0:
                return False
        return True

    if not find_within(radius, max_found):
        best[:] = none
        for within in (0, *(1 << step for step in range(radius.bit_length()) if 1 << step < radius), radius):
            find_within(within)
    of_rows = best if left.first is None else best[left.first]
    matched = of_rows != none
    rows = np.where(matched, of_rows & 0xFFFFFFFF, -1)
    return rows, np.where(matched, of_rows >> 32, 0).astype(np.uint16)


def explain(hashes: U64, radius: int, n_bits: int, *, references: U64 | None = None) -> Plan:
    """Return the plan of `self_join`, or with `references` of `cross_join`, with its expected cost."""
    _check_radius(radius)
    left = right = _collapse(hashes)
    if references is not None:
        left, right = _collapse_both(hashes, references, None)
    return plans.choose_plan(left.distinct, right.distinct, radius, n_bits)[0]


@dataclass(frozen=True)
class _Side:
    """One side of a join: its distinct hashes, and which rows have each of them."""

    distinct: Distinct
    first: U32 | None = None  # the first row with the hash of each row; None if all rows differ
    later: U32 | None = None  # the next row with the hash of each row; 0 for the last
    _sizes: U32 | None = None

    @property
    def n_rows(self) -> int:
        return len(self.distinct.hashes)

    @property
    def n_words(self) -> int:
        return int(self.distinct.hashes.shape[1])

    @cached_property
    def sizes(self) -> U32:
        """Number of rows with the hash of each first row."""
        return np.ones(self.n_rows, np.uint32) if self._sizes is None else self._sizes

    @property
    def n_equal_pairs(self) -> int:
        shared = self.sizes[self.sizes > 1].astype(np.int64)
        return int(shared @ (shared - 1)) // 2


def _collapse(hashes: U64, n_threads: int | None = None) -> _Side:
    if not isinstance(hashes, np.ndarray) or hashes.dtype != np.uint64 or hashes.ndim not in (1, 2):
        got = f"{hashes.dtype} with shape {hashes.shape}" if isinstance(hashes, np.ndarray) else repr(type(hashes))
        raise ArgumentError(
            f"hashes must be a uint64 array of one or two dimensions, got {got}\n"
            "Hint: pad each hash to a multiple of eight bytes."
        )
    hashes = np.ascontiguousarray(hashes[:, None] if hashes.ndim == 1 else hashes)
    n = len(hashes)
    if n >= 1 << 31:
        raise ArgumentError(f"a join takes at most {(1 << 31) - 1:,} rows, got {n:,}\nHint: join in parts.")
    first, n_distinct = _find_first(hashes, n_threads)
    if n_distinct == n:
        return _Side(Distinct(hashes, first))
    rows, later, sizes = np.empty(n_distinct, np.uint32), np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    hamming.link_equal(first, rows, later, sizes)
    return _Side(Distinct(hashes, rows), first, later, sizes)


def _find_first(hashes: U64, n_threads: int | None) -> tuple[U32, int]:
    """Return the first row with the hash of each row, and the number of distinct hashes.

    Rows are partitioned by some mixed bits of their hashes, so that the hash table of a part fits the second-level
    cache: one table for all rows took five times as long for 10,000,000 rows.
    """
    n = len(hashes)
    n_part_bits = min(_MAX_PART_BITS, (n // _ROWS_PER_PART).bit_length())
    mixed, first, tagged = np.empty(n, np.uint32), np.empty(n, np.uint32), np.empty(n, np.uint64)
    spans = [slice(start, min(start + _ROWS_PER_CALL, n)) for start in range(0, n, _ROWS_PER_CALL)]
    counts = np.zeros((len(spans), 1 << n_part_bits), np.int64)  # of rows by part
    finish_tasks(
        [Once(hamming.mix_words, hashes[span], mixed[span], counts[i]) for i, span in enumerate(spans)], n_threads
    )
    bounds = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    places = bounds[:-1] + np.cumsum(counts, axis=0) - counts  # rows keep their order within a part
    finish_tasks(
        [
            Once(hamming.part_rows, mixed[span], span.start, places[i], tagged, first[span])
            for i, span in enumerate(spans)
        ],
        n_threads,
    )
    cuts = np.unique(np.linspace(0, 1 << n_part_bits, 1 + 4 * (n_threads or threads.n_threads())).astype(int)).tolist()
    searches = [
        Once(hamming.find_first, hashes, tagged, bounds[a : b + 1], n_part_bits, first) for a, b in pairwise(cuts)
    ]
    finish_tasks(searches, n_threads)
    return first, n - sum(search.result for search in searches)


def _collapse_both(left: U64, right: U64, n_threads: int | None) -> tuple[_Side, _Side]:
    sides = _collapse(left, n_threads), _collapse(right, n_threads)
    n_words = [side.n_words for side in sides]
    if n_words[0] != n_words[1]:
        raise ArgumentError(
            f"queries and references must be hashes of one kind, got {n_words[0]} and {n_words[1]} words\n"
            "Hint: join phash with phash and bmh1 with bmh1."
        )
    return sides


def _check_radius(radius: int) -> None:
    if not isinstance(radius, (int, np.integer)) or isinstance(radius, bool) or radius < 0:
        raise ArgumentError(
            f"radius must be a whole number of bits of at least 0, got {radius!r}\nHint: 0 finds equal hashes only."
        )


def too_many_pairs(max_pairs: int, detail: str = "") -> TooManyPairsError:
    """Return the error of a join with too many pairs."""
    return TooManyPairsError(
        f"more than max_pairs={max_pairs:,} pairs are within the radius{detail}\n"
        "Hint: cluster() groups them without making pairs; or lower the radius, or raise max_pairs."
    )


class _Limit:
    """Counter of pairs of rows, which raises an error above the maximum."""

    def __init__(self, max_pairs: int | None, max_found: int | None, left: _Side, right: _Side) -> None:
        self._max_pairs = _MAX_PAIRS if max_pairs is None else min(max_pairs, _MAX_PAIRS)
        self._max_found = self._max_pairs if max_found is None else min(max_found, _MAX_PAIRS)
        self._sides = left, right
        self.n_pairs = 0

    def watch(self, blocks: Iterable[Pairs], left: _Side, right: _Side) -> Iterator[Pairs]:
        """Yield the blocks of pairs of distinct hashes, and count the pairs of rows that they represent."""
        collapsed = left.first is not None or right.first is not None
        for block in blocks:
            i, j = block.left, block.right
            self.add(int(left.sizes[i].astype(np.int64) @ right.sizes[j]) if collapsed else len(i))
            yield block

    def add(self, n_pairs: int) -> None:
        self.n_pairs += n_pairs
        if self.n_pairs <= self._max_found:
            return
        side = max(self._sides, key=lambda side: int(side.sizes.max()))
        n_equal, row = int(side.sizes.max()), int(np.argmax(side.sizes))
        name = side.distinct.hashes[row].tobytes().hex()
        name = name if len(name) <= 32 else f"{name[:32]}…"
        shared = f"; the most frequent hash, {name}, is shared by {n_equal:,} of {side.n_rows:,} rows"
        raise too_many_pairs(self._max_pairs, shared if n_equal > 1 else "")


def _assemble(found: Iterable[Pairs], left: _Side, right: _Side, limit: _Limit) -> Pairs:
    """Return the pairs of rows that the pairs of distinct hashes represent, sorted by left, then right."""
    same = left is right
    blocks = list(found)
    n_pairs = limit.n_pairs
    pairs = Pairs(np.empty(n_pairs, np.uint32), np.empty(n_pairs, np.uint32), np.zeros(n_pairs, np.uint16))
    if left.first is None and right.first is None:
        at = 0
        for block in blocks:
            stop = at + len(block.left)
            pairs.left[at:stop], pairs.right[at:stop], pairs.distance[at:stop] = block
            at = stop
    else:
        none = np.zeros(0, np.uint32)
        nexts = [none if side.later is None else side.later for side in (left, right)]
        at = 0
        if same and left.first is not None and left.later is not None:
            at = hamming.expand_equal(left.first, left.later, pairs.left, pairs.right)
        for block in blocks:
            at = hamming.expand_pairs(block, *nexts, same, at, pairs)
    blocks.clear()
    if 8 * n_pairs < left.n_rows + right.n_rows:
        # One key of 64 bits: four times as fast as `lexsort` of two columns.
        order = np.argsort(pairs.left.astype(np.uint64) << np.uint64(32) | pairs.right).astype(np.uint32)
    else:  # two counting passes take 15 ns per pair each, a comparison sort 100
        order = stable_order(pairs.right, np.arange(n_pairs, dtype=np.uint32), right.n_rows)
        order = stable_order(pairs.left, order, left.n_rows)
    return Pairs(pairs.left[order], pairs.right[order], pairs.distance[order])


def stable_order(key: U32, order: U32, n_keys: int) -> U32:
    """Return rows, given in an order, sorted by their keys below `n_keys`; rows with equal keys keep that order."""
    starts, sorted_order = np.zeros(n_keys, np.int64), np.empty(len(order), np.uint32)
    hamming.count_keys(key, starts)
    for at in range(0, len(order), _PAIRS_SORTED):
        hamming.place_by_key(key, starts, order[at : at + _PAIRS_SORTED], sorted_order)
    return sorted_order


def _near_pairs(
    left: _Side,
    right: _Side,
    radius: int,
    n_bits: int,
    n_threads: int | None,
    progress: Progress | None,
    choice: Choice | None,
) -> Iterator[Pairs]:
    """Yield blocks of the pairs of first rows within the radius, each pair once, in any order.

    The same side given twice is a self-join.
    """
    same = left is right
    if min(len(left.distinct.rows), len(right.distinct.rows)) < 1 + same or (same and radius == 0):
        return  # the distinct hashes of one side differ from each other
    plan, order = plans.choose_plan(left.distinct, right.distinct, radius, n_bits, choice=choice)
    if plan.choice == "counts":
        yield from _pairs_by_counts(left.distinct, right.distinct, plan, n_bits, n_threads, progress)
        return
    n_bands = len(plan.bands)
    # The number of bands at a time is small, because each takes memory.
    n_slots = min(n_threads or threads.n_threads(), n_bands, 4)
    if same and sorts_in_parts(left.distinct, plan):
        n_slots = 1
    lefts = JoinColumns(left.distinct, plan, order, n_slots)
    rights = lefts if same else JoinColumns(right.distinct, plan, order, n_slots)
    finish_tasks(lefts.moves() if same else lefts.moves() + rights.moves(), n_threads)
    # With many bands per thread, no band needs to be split.
    n_probes = int(np.clip(plan.seconds / n_bands / _TASK_S, 1 if n_bands > 4 * n_slots else n_slots, 1024))
    bands = Bands(lefts, rights, plan, order, n_probes)
    done, n_tasks = 0, sum(bands.n_probes_of(band) for band in plan.bands)
    for task, block in run_tasks([build for slot in range(n_slots) for build in bands.next(slot)], n_threads):
        if block is None:
            continue
        yield block
        if task.finished:
            done += 1
            if progress is not None:
                progress(done, n_tasks)


def _pairs_by_counts(
    left: Distinct, right: Distinct, plan: Plan, n_bits: int, n_threads: int | None, progress: Progress | None
) -> Iterator[Pairs]:
    groups = counts.choose_groups(plans.sample_hashes(left, right), n_bits, plan.radius)
    lefts = counts.make_blocks(*left, groups, n_threads)
    rights = lefts if left is right else counts.make_blocks(*right, groups, n_threads)
    n_tasks = int(np.clip(plan.seconds / _TASK_S, 4 * (n_threads or threads.n_threads()), 1024))
    tasks = counts.search_tasks(lefts, rights, plan.radius, groups.limit, n_tasks)
    done = 0
    for task, block in run_tasks(tasks, n_threads):
        yield block
        if task.finished:
            done += 1
            if progress is not None:
                progress(done, len(tasks))


def _links(
    plan: Plan, order: I64, side: Distinct, parent: U32, n_threads: int | None, progress: Progress | None
) -> Iterator[Links]:
    """Yield links that connect the same rows as the pairs of the plan.

    The caller adds each of them to `parent`, (n,) uint32, before it takes the next.
    """
    columns = JoinColumns(side, plan, order, 1)
    finish_tasks(columns.moves(), n_threads)
    n_tasks = 4 * (n_threads or threads.n_threads())
    for number, band in enumerate(plan.bands):
        ordered = columns.order(band, 0, together=band.radius == 0 and band.n_key_bits > 0)
        searches: list[Callable[..., Task[Links]]] = [BucketSearch]
        if band.radius and band.n_key_bits:
            searches.append(partial(FlipSearch, band))
        for search in searches:
            for _, links in run_tasks(link_tasks(search, plan, ordered, parent, n_tasks), n_threads):
                yield links
        if progress is not None:
            progress(number + 1, len(plan.bands))
