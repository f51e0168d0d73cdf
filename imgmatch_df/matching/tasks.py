"""Tasks of a planned join for the thread pool; each call returns within some tens of milliseconds."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice, pairwise
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U32, U64
from imgmatch_df._kernels.popcount import LANES
from imgmatch_df.matching.kernels import forest
from imgmatch_df.matching.kernels.bands import (
    Ordered,
    count_parts,
    distribute_rows,
    halve_words,
    order_band,
    permute_bits,
    pick_together,
    sort_parts,
)
from imgmatch_df.matching.kernels.forest import Links, Search
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.matching.kernels.probes import Verdict, probe_gathered, probe_runs
from imgmatch_df.matching.plan import Band, Distinct, Plan, flips, is_gathered
from imgmatch_df.threads import Once, Task

# Blocks that a kernel compares in one call: 20 ms, so that Ctrl-C and progress are prompt.
_BLOCKS_PER_CALL: Final = 10_000_000
_EXTRA_MARK_BITS: Final = 4  # beyond the bits of the row number: at most 6 % of the unique rows are picked by chance
_BUFFER: Final = 1 << 16  # pairs that a kernel finds in one call
# Radius in bits up to which half words are compared first: of unrelated hashes one in 4,000 passes, within 9 bits one
# in 1,000.
_HALVES_WITHIN: Final = 8
# Rows of one word that are sorted in two steps. With 1,000,000 rows one step is as fast, because they fit the cache.
_MANY_ROWS: Final = 1 << 21
_PART_ROWS: Final = 1 << 16  # rows of a part, on average: 768 KiB
_MAX_PART_BITS: Final = 11  # more parts would not stay in the cache while rows are distributed
_ROWS_PER_CALL: Final = 1 << 20  # rows that are distributed, or sorted, by one call: 10 ms
_ROWS_PERMUTED: Final = 1 << 13  # rows whose bits are permuted by one call: 0.7 ms for bmh1


def _sorts_in_parts(side: Distinct, band: Band, *, together: bool) -> bool:
    """Return whether rows are sorted by a band in two steps."""
    # With more buckets than rows, most rows are the only one in their bucket and may be left out.
    leaves_out = together and band.radius == 0 and 1 << band.n_bits >= len(side.rows)
    return side.hashes.shape[1] == 1 and len(side.rows) >= _MANY_ROWS and band.n_key_bits > 0 and not leaves_out


def sorts_in_parts(side: Distinct, plan: Plan) -> bool:
    """Return whether all bands of a self-join are sorted in two steps, on all threads, one band after the other."""
    return all(_sorts_in_parts(side, band, together=True) for band in plan.bands)


class JoinColumns:
    """One side of a join as columns of permuted words, and the buffers for `n_slots` bands at a time."""

    def __init__(self, side: Distinct, plan: Plan, order: I64, n_slots: int) -> None:
        self.side, self._order = side, order
        n, n_words = len(side.rows), side.hashes.shape[1]
        n_starts = 2 + (1 << max(band.n_key_bits for band in plan.bands))
        self._slots = [
            Ordered(
                side.hashes,
                np.empty(n_starts, np.uint32),
                np.empty(n, np.uint32),
                np.empty((plan.n_words, n + LANES), np.uint64),
            )
            for _ in range(n_slots)
        ]
        self._columns, self._picks = np.empty((n_words, 0), np.uint64), []
        if sorts_in_parts(side, plan):
            return
        # The bits of a single word are not permuted.
        if n_words == 1 and n == len(side.hashes):
            self._columns = side.hashes.T
        else:
            self._columns = np.empty((n_words, n), np.uint64)
            if n_words == 1:
                # Rows are in range: with another mode numpy makes a copy first.
                np.take(side.hashes[:, 0], side.rows, out=self._columns[0], mode="clip")
        n_marks = max(1, (1 << max(self._n_mark_bits(band) for band in plan.bands)) >> 5)
        self._picks = [(np.empty(n_marks, np.uint64), np.empty(n, np.uint32)) for _ in range(n_slots)]

    def moves(self) -> list[Once]:
        """Return the tasks that fill the columns."""
        n = len(self.side.rows) if self.side.hashes.shape[1] > 1 else 0
        return [
            Once(permute_bits, *self.side, self._order, at, min(at + _ROWS_PERMUTED, n), self._columns)
            for at in range(0, n, _ROWS_PERMUTED)
        ]

    def order(self, band: Band, slot: int, *, together: bool) -> Ordered:
        """Return the rows in the order of a band; valid until the next call for the same slot.

        `together`: rows that are the only one in their bucket may be left out.
        """
        hashes, starts, rows, words = self._slots[slot]
        if _sorts_in_parts(self.side, band, together=together):
            for stage in self.order_in_parts(band, slot):
                for task in stage:
                    task()
            return self.ordered(band, slot)
        picked, n_key_bits = None, band.n_key_bits
        if together and 1 << band.n_bits >= len(rows):
            marks, picks = self._picks[slot]
            picked = picks[: pick_together(self._columns, *band.slice, self._n_mark_bits(band), marks, picks)]
            n_key_bits = min(n_key_bits, len(picked).bit_length() + 1)
            rows = rows[: len(picked)]
        starts = starts[: 2 + (1 << n_key_bits)]
        # If possible a word without bits of the band: these are equal within a bucket.
        first_word = ((band.low + band.n_bits - 1) // 64 + 1) % len(self._columns) if band.n_key_bits else 0
        order_band(self._columns, self.side.rows, picked, *band.slice, n_key_bits, first_word, starts, rows, words)
        return Ordered(hashes, starts[:-1], rows, words)

    def ordered(self, band: Band, slot: int) -> Ordered:
        """Return the rows in the order of a band that `order_in_parts` wrote."""
        hashes, starts, rows, words = self._slots[slot]
        return Ordered(hashes, starts[: 1 + (1 << band.n_key_bits)], rows, words)

    def order_in_parts(self, band: Band, slot: int) -> Iterator[list[Once]]:
        """Yield stages of tasks that sort the rows by a band; all of a stage must be finished before the next."""
        _, starts, rows, words = self._slots[slot]
        shape, n = (*band.slice, band.n_key_bits), len(rows)
        n_part_bits = min(band.n_key_bits, _MAX_PART_BITS, (n // _PART_ROWS).bit_length())
        spans = [slice(at, min(at + _ROWS_PER_CALL, n)) for at in range(0, n, _ROWS_PER_CALL)]
        counts = np.zeros((len(spans), 1 << n_part_bits), np.int64)  # of rows by part
        hashes, given = self.side
        yield [Once(count_parts, hashes, given[span], *shape, counts[i]) for i, span in enumerate(spans)]
        bounds = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
        places = bounds[:-1] + np.cumsum(counts, axis=0) - counts
        yield [
            Once(distribute_rows, hashes, given[span], *shape, places[i], words[0], rows)
            for i, span in enumerate(spans)
        ]
        cuts = np.searchsorted(bounds, np.arange(0, n, _ROWS_PER_CALL))
        cuts = np.unique(np.append(np.minimum(cuts, len(bounds) - 1), [0, len(bounds) - 1])).tolist()
        yield [
            Once(sort_parts, bounds[a : b + 1], a, *shape, n_part_bits, starts, words[0], rows)
            for a, b in pairwise(cuts)
        ]

    def _n_mark_bits(self, band: Band) -> int:
        """Return the number of hash bits by which `pick_together` compares slices."""
        return min(band.n_bits, len(self.side.rows).bit_length() + _EXTRA_MARK_BITS)


def _halves(ordered: Ordered, band: Band) -> U32:
    """Return 32 bits of each row's word, none of them bits of the band: (1, n + LANES) uint32."""
    halves = np.empty(ordered.words.shape, np.uint32)
    halve_words(ordered.words[0], band.low + band.n_bits, halves[0])
    return halves


def _band_masks(plan: Plan, order: I64) -> U64:
    """Return the bits of each band: (n_bands, n_words) uint64."""
    bits = np.zeros((len(plan.bands), order.size), np.bool_)
    for of_band, band in zip(bits, plan.bands, strict=True):
        low, n_bits = band.slice
        of_band[order[low : low + n_bits]] = True
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)


class Bands:
    """The bands of a join as tasks: a task orders one band in a slot, others probe it, then the slot is used again.

    Parameters
    ----------
    n_probes
        Number of tasks that probe a band; if runs are gathered, as many again for each number of flips.
    """

    def __init__(self, lefts: JoinColumns, rights: JoinColumns, plan: Plan, order: I64, n_probes: int) -> None:
        self.lefts, self.rights, self.plan, self.n_probes = lefts, rights, plan, n_probes
        self._radii = np.array([band.radius for band in plan.bands], np.int64)
        self._masks = _band_masks(plan, order)
        self._numbers = iter(range(len(plan.bands)))
        self._in_parts = lefts is rights and sorts_in_parts(lefts.side, plan)

    def verdict(self, number: int) -> Verdict:
        """Return what makes a candidate of a band a pair."""
        return Verdict(number, self.lefts is self.rights, int(self.plan.radius), self._radii, self._masks)

    def n_probes_of(self, band: Band) -> int:
        """Return the number of tasks that probe a band."""
        return self.n_probes * (1 + band.max_flips if is_gathered(band.radius) else 1)

    def next(self, slot: int) -> "Sequence[Task[Pairs | None]]":
        """Return the tasks that order the next band in a slot, if there is one."""
        for number in islice(self._numbers, 1):
            if not self._in_parts:
                return [Build(self, number, slot)]
            stages = self.lefts.order_in_parts(self.plan.bands[number], slot)
            return _in_stages(stages, partial(self._builds, number, slot))
        return ()

    def _builds(self, number: int, slot: int) -> "list[Build]":
        return [Build(self, number, slot, is_ordered=True)]


class _OfStage:
    """A task of a stage; the last one to finish returns the tasks of the next stage."""

    def __init__(
        self, work: Once, done: "count[int]", n_tasks: int, after: "Callable[[], Sequence[Task[Any]]]"
    ) -> None:
        self._work, self._done, self._n_tasks, self._after = work, done, n_tasks, after

    @property
    def finished(self) -> bool:
        """Whether the work is done."""
        return self._work.finished

    def __call__(self) -> None:
        """Do the work."""
        self._work()

    def then(self) -> "Sequence[Task[Any]]":
        """Return the tasks of the next stage, if this was the last task of this one."""
        return self._after() if next(self._done) == self._n_tasks else ()


def _in_stages(stages: Iterator[list[Once]], after: "Callable[[], Sequence[Task[Any]]]") -> "Sequence[Task[Any]]":
    """Return the tasks of the first stage; the last one returns those of the next, and of the last stage `after()`."""
    for works in stages:
        done = count(1)
        return [_OfStage(work, done, len(works), lambda: _in_stages(stages, after)) for work in works]
    return after()


class Build:
    """The task that orders both sides of a band, if they are not in order."""

    def __init__(self, bands: Bands, number: int, slot: int, *, is_ordered: bool = False) -> None:
        self._bands, self._number, self._slot, self._is_ordered = bands, number, slot, is_ordered
        self._probes: list[Task[Pairs | None]] = []
        self.finished = False

    def __call__(self) -> None:
        """Order both sides."""
        bands = self._bands
        band = bands.plan.bands[self._number]
        same = bands.rights is bands.lefts
        # Without flips, a row that is the only one in its bucket has no candidates: more than half of 50,000 crops.
        together = same and band.radius == 0 and band.n_key_bits > 0
        if self._is_ordered:
            left = bands.lefts.ordered(band, self._slot)
        else:
            left = bands.lefts.order(band, self._slot, together=together)
        right = left if same else bands.rights.order(band, self._slot, together=False)
        cuts = np.linspace(0, len(left.rows), bands.n_probes + 1).astype(int).tolist()
        done = count(1)
        none = np.zeros(1, np.uint32)
        if is_gathered(band.radius):
            seen: tuple[U32 | U64, ...] = left.words, right.words
            if left.hashes.shape[1] == 1 and bands.plan.radius <= _HALVES_WITHIN:
                halves = _halves(left, band)
                seen = halves, halves if same else _halves(right, band)
            searches = [partial(probe_runs, none), *(partial(probe_gathered, level, *seen) for level in flips(band))]
        else:
            searches = [partial(probe_runs, np.concatenate([none, *flips(band)]))]
        for search in searches:
            self._probes.extend(
                Probe(search, bands, self._number, self._slot, left, right, span, done) for span in pairwise(cuts)
            )
        self.finished = True

    def then(self) -> "list[Task[Pairs | None]]":
        """Return the tasks that compare the two sides."""
        return self._probes


class Probe:
    """The task that compares a span of a band's left order with the right order; each call returns `Pairs`."""

    def __init__(
        self,
        search: Callable[..., int],
        bands: Bands,
        number: int,
        slot: int,
        left: Ordered,
        right: Ordered,
        span: tuple[int, int],
        done: "count[int]",
    ) -> None:
        self._search, self._bands, self._slot, self._done = search, bands, slot, done
        self._last = bands.n_probes_of(bands.plan.bands[number])
        self._arguments = bands.verdict(number), left, right
        bucket = max(0, int(np.searchsorted(left.starts, np.uint32(span[0]), side="right")) - 1)
        self._cursor = np.array([*span, bucket, 0, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the whole span was compared."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Pairs:
        """Return the next pairs."""
        pairs = Pairs(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint16))
        n = self._search(*self._arguments, self._cursor, _BLOCKS_PER_CALL, pairs)
        return Pairs(pairs.left[:n].copy(), pairs.right[:n].copy(), pairs.distance[:n].copy())

    def then(self) -> Sequence[Task[Pairs | None]]:
        """Return the tasks that use the slot next, if this was the last task of the band."""
        return self._bands.next(self._slot) if next(self._done) == self._last else ()


class BucketSearch:
    """The task that links the rows within each bucket of a span; each call returns `Links`.

    The forest `root` does not change meanwhile.
    """

    def __init__(self, plan: Plan, ordered: Ordered, root: U32, roots: I64, span: tuple[int, int]) -> None:
        self._arguments = plan.radius, root, roots, ordered
        longest = int(np.diff(ordered.starts[span[0] : span[1] + 1]).max())
        self._shapes = (longest,), (plan.n_words, longest + LANES)
        self._search: Search | None = None
        self._cursor = np.array([*span, -1, 0, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the whole span was searched."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Links:
        """Return the next links."""
        if self._search is None:
            rows, words = self._shapes
            pool, queue = np.empty(rows, np.uint32), np.empty(rows, np.uint32)
            self._search = Search(pool, np.zeros(words, np.uint64), queue, np.zeros(words, np.uint64))
        links = Links(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32))
        n = forest.link_buckets(*self._arguments, self._search, self._cursor, _BLOCKS_PER_CALL, links)
        if self.finished:
            self._search = None
        return Links(*(column[:n].copy() for column in links))

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


class FlipSearch:
    """The task that links the buckets of a span with those a flip away; each call returns `Links`.

    It follows `BucketSearch`.
    """

    def __init__(self, band: Band, plan: Plan, ordered: Ordered, root: U32, roots: I64, span: tuple[int, int]) -> None:
        self._flips, self._radius, self._root, self._roots = np.concatenate(flips(band)), plan.radius, root, roots
        self._ordered = ordered
        self._forest: U32 | None = None
        self._cursor = np.array([*span, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the whole span was searched."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Links:
        """Return the next links."""
        if self._forest is None:
            self._forest = self._root.copy()
        links = Links(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32))
        n = forest.link_flips(
            self._flips,
            self._radius,
            self._forest,
            self._roots,
            self._ordered,
            self._cursor,
            _BLOCKS_PER_CALL,
            links,
        )
        if self.finished:
            self._forest = None
        return Links(*(column[:n].copy() for column in links))

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


def link_tasks(
    search: Callable[..., Task[Links]], plan: Plan, ordered: Ordered, parent: U32, n_tasks: int
) -> list[Task[Links]]:
    """Return one search for each span of buckets, all from the current forest; spans have about equally many rows."""
    n_buckets = len(ordered.starts) - 1
    cuts = np.searchsorted(ordered.starts, np.linspace(0, len(ordered.rows), n_tasks + 1).astype(np.int64))
    cuts[0], cuts[-1] = 0, n_buckets
    roots = np.empty(n_buckets, np.int64)
    root = parent.copy()
    forest.flatten(root)
    forest.bucket_roots(root, ordered.starts, ordered.rows, roots)
    return [search(plan, ordered, root, roots, (int(a), int(b))) for a, b in pairwise(cuts) if a < b]
