"""Pieces of a planned join for a pool of threads: calls that come back within some tens of milliseconds."""

from collections.abc import Callable
from functools import partial
from itertools import count, islice, pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from imgmatch_df._kernels.popcount import LANES
from imgmatch_df._kernels.scratch import empty
from imgmatch_df.matching.kernels import forest
from imgmatch_df.matching.kernels.bands import (
    I64,
    U16,
    U32,
    U64,
    halve_words,
    order_band,
    part_columns,
    permute_bits,
    pick_together,
)
from imgmatch_df.matching.kernels.probes import probe_gathered, probe_runs
from imgmatch_df.matching.plan import Band, Distinct, Plan, flips, is_gathered
from imgmatch_df.threads import Task

_BUDGET: Final = (
    10_000_000  # blocks a kernel compares before it comes back: 20 ms, so that Ctrl-C and progress are prompt
)
_MARKS: Final = 4  # bits of a mark beyond those of the rows: by chance at most 6 % of the rows that are alone pass
_BUFFER: Final = 1 << 16  # pairs a kernel finds before it comes back
_HALVES_WITHIN: Final = 8  # bits; of strangers one in 4,000 passes a half then, within 9 bits one in 1,000
_MANY_ROWS: Final = (
    1 << 21  # rows of one word that are sorted in two steps: 1,000,000 are as fast in one, what they go to is cached
)
_ROWS: Final = 1 << 13  # rows whose bits are moved by one call: 0.7 ms of a bmh1


class Pairs(NamedTuple):
    """Verified pairs of rows.

    Parameters
    ----------
    left, right
        Rows, (m,) uint32. In a self-join `left` is the row that comes first.
    distance
        Hamming distance in bits, (m,) uint16.
    """

    left: U32
    right: U32
    distance: U16


class Links(NamedTuple):
    """Some pairs of rows within the radius, (m,) uint32 each: enough of them to connect what all pairs connect."""

    left: U32
    right: U32


class Ordered(NamedTuple):
    """One side of a band: rows in bucket order beside copies of the words that are compared first; see `order_band`."""

    hashes: U64
    starts: U32
    rows: U32
    words: U64


class Columns:
    """One side of a join as columns of permuted words, and the scratch of `n_slots` bands at a time."""

    def __init__(self, side: Distinct, plan: Plan, order: I64, n_slots: int) -> None:
        self.side, self._order = side, order
        n, n_words = len(side.rows), side.hashes.shape[1]
        # The bits of a single word stay where they are.
        if n_words == 1 and n == len(side.hashes):
            self._columns = side.hashes.T
        else:
            self._columns = empty((n_words, n), np.uint64)
            if n_words == 1:
                np.take(side.hashes[:, 0], side.rows, out=self._columns[0], mode="clip")  # which needs no copy
        n_starts = 2 + (1 << max(band.n_key_bits for band in plan.bands))
        n_marks = max(1, (1 << max(self._n_mark_bits(band) for band in plan.bands)) >> 5)
        self._picks = [(empty(n_marks, np.uint64), empty(n, np.uint32)) for _ in range(n_slots)]
        self._slots = [
            Ordered(
                side.hashes,
                empty(n_starts, np.uint32),
                empty(n, np.uint32),
                empty((plan.n_words, n + LANES), np.uint64),
            )
            for _ in range(n_slots)
        ]

    def moves(self) -> list["Once"]:
        """Return the tasks that fill the columns."""
        n = len(self.side.rows) if self.side.hashes.shape[1] > 1 else 0
        return [
            Once(permute_bits, *self.side, self._order, at, min(at + _ROWS, n), self._columns)
            for at in range(0, n, _ROWS)
        ]

    def order(self, band: Band, slot: int, *, together: bool) -> Ordered:
        """Return the rows in the order of a band; valid until the next of a slot.

        `together`: many of those that are alone in their bucket may be left out.
        """
        hashes, starts, rows, words = self._slots[slot]
        picked, n_key_bits = None, band.n_key_bits
        if together and 1 << band.n_bits >= len(rows):
            marks, picks = self._picks[slot]
            picked = picks[: pick_together(self._columns, *band.slice, self._n_mark_bits(band), marks, picks)]
            n_key_bits = min(n_key_bits, len(picked).bit_length() + 1)
            rows = rows[: len(picked)]
        starts = starts[: 2 + (1 << n_key_bits)]
        columns, names = self._columns, self.side.rows
        if len(columns) == 1 and picked is None and band.n_key_bits and len(names) >= _MANY_ROWS:
            columns, names = np.empty_like(columns), np.empty_like(names)
            part_columns(self._columns, self.side.rows, *band.slice, band.n_key_bits, columns, names)
        # A word that holds none of the band's bits, where there is one: within a bucket those are equal.
        first_word = ((band.low + band.n_bits - 1) // 64 + 1) % len(self._columns) if band.n_key_bits else 0
        order_band(columns, names, picked, *band.slice, n_key_bits, first_word, starts, rows, words)
        return Ordered(hashes, starts[:-1], rows, words)

    def _n_mark_bits(self, band: Band) -> int:
        """Return the bits of the hash by which `pick_together` knows a slice."""
        return min(band.n_bits, len(self.side.rows).bit_length() + _MARKS)


def _halves(ordered: Ordered, band: Band) -> U32:
    """Return 32 bits of each row's word, none of which are the band's: (1, n + LANES) uint32."""
    halves: U32 = empty(ordered.words.shape, np.uint32)
    halve_words(ordered.words[0], band.low + band.n_bits, halves[0])
    return halves


class Once:
    """A call of a kernel that needs no second."""

    def __init__(self, kernel: Callable[..., object], *arguments: object) -> None:
        self._kernel, self._arguments = kernel, arguments
        self.finished = False
        self.result: Any = None

    def __call__(self) -> None:
        """Do it."""
        self.result = self._kernel(*self._arguments)
        self.finished = True

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


class Verdict:
    """What verifies a candidate of a plan: the radius, and which bits belong to which band."""

    def __init__(self, plan: Plan, order: I64) -> None:
        self.radius = plan.radius
        self.radii = np.array([band.radius for band in plan.bands], np.int64)
        bits = np.zeros((len(plan.bands), order.size), np.bool_)
        for of_band, band in zip(bits, plan.bands, strict=True):
            low, n_bits = band.slice
            of_band[order[low : low + n_bits]] = True
        self.masks = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)


class Bands:
    """The bands of a join as tasks: one that orders a band in a slot, those that probe it, and again for the next band.

    Parameters
    ----------
    n_probes
        Tasks that a band is probed by; as many again for each number of flips where these are gathered.
    """

    def __init__(self, lefts: Columns, rights: Columns, plan: Plan, order: I64, n_probes: int) -> None:
        self.lefts, self.rights, self.plan, self.n_probes = lefts, rights, plan, n_probes
        self.verdict = Verdict(plan, order)
        self._numbers = iter(range(len(plan.bands)))

    def n_probes_of(self, band: Band) -> int:
        """Return the tasks that probe a band."""
        return self.n_probes * (1 + band.most_flips if is_gathered(band.radius) else 1)

    def next(self, slot: int) -> list["Build"]:
        """Return the task that orders the next band in a slot, if there is one."""
        return [Build(self, number, slot) for number in islice(self._numbers, 1)]


class Build:
    """Both sides of a band in order."""

    def __init__(self, bands: Bands, number: int, slot: int) -> None:
        self._bands, self._number, self._slot = bands, number, slot
        self._probes: list[Task[Pairs | None]] = []
        self.finished = False

    def __call__(self) -> None:
        """Order them."""
        bands = self._bands
        band = bands.plan.bands[self._number]
        same = bands.rights is bands.lefts
        # Without flips, a row that is alone in its bucket meets nobody: of 50,000 real crops more than half.
        together = same and band.radius == 0 and band.n_key_bits > 0
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
        """Return the tasks that compare them."""
        return self._probes


class Probe:
    """A stretch of one band's left order, compared with the right one: gives `Pairs`."""

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
        verdict = bands.verdict
        self._arguments = (
            *(number, left is right),
            *(verdict.radius, verdict.radii, verdict.masks),
            *left,
            *right,
        )
        bucket = max(0, int(np.searchsorted(left.starts, np.uint32(span[0]), side="right")) - 1)
        self._cursor = np.array([*span, bucket, 0, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the stretch is done."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Pairs:
        """Return the next pairs."""
        pairs = Pairs(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint16))
        n = self._search(*self._arguments, self._cursor, _BUDGET, *pairs)
        return Pairs(pairs.left[:n].copy(), pairs.right[:n].copy(), pairs.distance[:n].copy())

    def then(self) -> list[Build]:
        """Return what uses the slot next, for the last one that is done with it."""
        return self._bands.next(self._slot) if next(self._done) == self._last else []


class BucketSearch:
    """The links within each bucket of a span, from a forest that no one changes meanwhile: gives `Links`."""

    def __init__(self, plan: Plan, ordered: Ordered, root: U32, roots: I64, span: tuple[int, int]) -> None:
        self._arguments = plan.radius, root, roots, *ordered
        longest = int(np.diff(ordered.starts[span[0] : span[1] + 1]).max())
        self._shapes = (longest,), (plan.n_words, longest + LANES)
        self._scratch: tuple[U32, U64, U32, U64] | None = None
        self._cursor = np.array([*span, -1, 0, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the span is done."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Links:
        """Return the next links."""
        if self._scratch is None:
            rows, words = self._shapes
            pool, queue = np.empty(rows, np.uint32), np.empty(rows, np.uint32)
            self._scratch = pool, np.zeros(words, np.uint64), queue, np.zeros(words, np.uint64)
        links = Links(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32))
        n = forest.link_buckets(*self._arguments, *self._scratch, self._cursor, _BUDGET, *links)
        if self.finished:
            self._scratch = None
        return Links(*(column[:n].copy() for column in links))

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


class FlipSearch:
    """The links between the buckets of a span and those a flip away, after `BucketSearch`: gives `Links`."""

    def __init__(self, band: Band, plan: Plan, ordered: Ordered, root: U32, roots: I64, span: tuple[int, int]) -> None:
        self._flips, self._radius, self._root, self._roots = np.concatenate(flips(band)), plan.radius, root, roots
        self._ordered = ordered
        self._forest: U32 | None = None
        self._cursor = np.array([*span, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the span is done."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Links:
        """Return the next links."""
        if self._forest is None:
            self._forest = self._root.copy()
        links = Links(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32))
        n = forest.link_flips(
            self._flips, self._radius, self._forest, self._roots, *self._ordered, self._cursor, _BUDGET, *links
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
    """Return searches of spans of buckets that hold about equally many rows, all from the forest as it is now."""
    n_buckets = len(ordered.starts) - 1
    cuts = np.searchsorted(ordered.starts, np.linspace(0, len(ordered.rows), n_tasks + 1).astype(np.int64))
    cuts[0], cuts[-1] = 0, n_buckets
    roots = np.empty(n_buckets, np.int64)
    root = parent.copy()
    forest.flatten(root)
    forest.bucket_roots(root, ordered.starts, ordered.rows, roots)
    return [search(plan, ordered, root, roots, (int(a), int(b))) for a, b in pairwise(cuts) if a < b]
