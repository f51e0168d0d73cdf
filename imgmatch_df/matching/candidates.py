"""Candidates for copies: pairs of images with at least two hits, which are pairs of near points, in one turn.

Points that very many images share are set aside first (`shared_points`), so that the number of hits is bounded.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from imgmatch_df import threads
from imgmatch_df._kernels.arrays import I64, U8, U32, U64
from imgmatch_df.errors import ArgumentError
from imgmatch_df.matching import plan as plans
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.kernels import hits
from imgmatch_df.matching.kernels.bands import Ordered
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.matching.plan import Band, Distinct, Plan
from imgmatch_df.matching.points import Points
from imgmatch_df.matching.tasks import Bands, JoinColumns
from imgmatch_df.threads import Once, finish_tasks, run_tasks
from imgmatch_df.turns import EVERY_TURN

__all__ = [
    "HIT_RADIUS",
    "DistinctImages",
    "Index",
    "Steps",
    "collapse_images",
    "find_candidates",
    "mixed_bits",
    "turned_hashes",
]

HIT_RADIUS: Final = 6
"""Largest distance of the hashes of two points that are a hit, in bits; inclusive."""

_N_BITS: Final = 63  # bit 0 of a hash is always 0

_ROWS_PER_BLOCK: Final = 1 << 25  # left rows of one join, all turns together: 1.3 GB
_TASK_S: Final = 5e-3
_KEYS_PER_PART: Final = 1 << 16  # so that a table of them fits the cache
_CANDIDATES_PER_CALL: Final = 1 << 19  # verified at a time, and by all threads
_POINTS_TURNED: Final = 1 << 16


class DistinctImages(NamedTuple):
    """Images of one side in the order of their content, so that no result depends on the order of rows.

    Parameters
    ----------
    hashes, owners
        Hash and image of each point, (n_points,), of the images that have points, equal ones once.
    starts
        The points of image i are ``starts[i]:starts[i + 1]``, (n_images + 1,).
    mixed
        Mixed bits of each image, (n_images,) uint64, ascending.
    row_starts, rows
        The rows that have image i are ``rows[row_starts[i]:row_starts[i + 1]]``, ascending.
    """

    hashes: U64
    owners: U32
    starts: I64
    mixed: U64
    row_starts: I64
    rows: I64

    @property
    def n_images(self) -> int:
        """Number of distinct images with points."""
        return len(self.starts) - 1


def collapse_images(points: Points) -> DistinctImages:
    """Return the distinct images with points in the order of their mixed bits."""
    hashes, places = np.ascontiguousarray(points.hashes), np.ascontiguousarray(points.places)
    starts, boxes = np.ascontiguousarray(points.starts), np.ascontiguousarray(points.boxes)
    if len(hashes) >= 1 << 31:
        raise ArgumentError(
            f"at most {(1 << 31) - 1:,} points can be compared, got {len(hashes):,}\nHint: compare in parts."
        )
    mixed = mixed_bits(points)
    order = np.argsort(mixed, kind="stable")
    order = order[starts[order] < starts[order + 1]]
    is_distinct = np.empty(len(order), np.uint8)
    hits.mark_distinct(hashes, places, starts, boxes, order, is_distinct)
    firsts = np.flatnonzero(is_distinct)
    chosen = order[firsts]
    new_starts = np.concatenate([[0], np.cumsum(starts[chosen + 1] - starts[chosen])])
    n = int(new_starts[-1])
    taken, owners = np.empty(n, np.uint64), np.empty(n, np.uint32)
    hits.take_points(hashes, starts, chosen, new_starts, taken, owners)
    return DistinctImages(taken, owners, new_starts, mixed[chosen], np.append(firsts, len(order)), order)


def mixed_bits(points: Points) -> U64:
    """Return 64 mixed bits of the points and the box of each image: (n_images,) uint64."""
    mixed = np.empty(points.n_images, np.uint64)
    hits.mix_images(*(np.ascontiguousarray(column) for column in points), mixed)
    return mixed


def turned_hashes(hashes: U64, points: U32, turn: int, n_threads: int | None) -> U64:
    """Return the hashes of points in the turn of a number, without bit 0: (m,) uint64 of 63 bits."""
    out = np.empty(len(points), np.uint64)
    spans = [slice(at, at + _POINTS_TURNED) for at in range(0, len(points), _POINTS_TURNED)]
    finish_tasks(
        [Once(hits.turn_hashes, hashes, points[span], *EVERY_TURN[turn], out[span]) for span in spans], n_threads
    )
    return out


class _KeptColumns(JoinColumns):
    """The right side of several joins: the order of each band is computed once."""

    def __init__(self, side: Distinct, plan: Plan, order: I64) -> None:
        super().__init__(side, plan, order, len(plan.bands))
        self._numbers = {band: number for number, band in enumerate(plan.bands)}
        self._kept: dict[Band, Ordered] = {}

    def order(self, band: Band, slot: int, *, together: bool) -> Ordered:  # noqa: ARG002
        """Return the rows in the order of a band."""
        if band not in self._kept:
            self._kept[band] = super().order(band, self._numbers[band], together=together)
        return self._kept[band]


class Index:
    """Points that others are compared with, (n,) uint64 of 63 bits."""

    def __init__(self, hashes: U64, n_threads: int | None) -> None:
        self._side = _distinct(hashes)
        self._n_threads = n_threads
        self._plan: Plan | None = None

    def near(self, hashes: U64, progress: Callable[[float], None]) -> Iterator[Pairs]:
        """Yield blocks of the pairs of a given hash and a hash of the index within `HIT_RADIUS` bits."""
        if not len(hashes) or not len(self._side.rows):
            return
        left = _distinct(hashes)
        if self._plan is None:
            self._plan, self._order = plans.choose_plan(left, self._side, HIT_RADIUS, _N_BITS)
            self._columns = _KeptColumns(self._side, self._plan, self._order)
        plan = self._plan
        n_bands = len(plan.bands)
        n_slots = min(self._n_threads or threads.n_threads(), n_bands, 4)
        lefts = JoinColumns(left, plan, self._order, n_slots)
        seconds = plan.seconds * len(left.rows) / max(plan.n_left, 1)
        n_probes = int(np.clip(seconds / n_bands / _TASK_S, n_slots, 1024))
        bands = Bands(lefts, self._columns, plan, self._order, n_probes)
        done, n_tasks = 0, sum(bands.n_probes_of(band) for band in plan.bands)
        builds = [build for slot in range(n_slots) for build in bands.next(slot)]
        for task, block in run_tasks(builds, self._n_threads):
            if block is None:
                continue
            yield block
            if task.finished:
                done += 1
                progress(done / n_tasks)


def _distinct(hashes: U64) -> Distinct:
    return Distinct(hashes[:, None], np.arange(len(hashes), dtype=np.uint32))


class Steps:
    """The progress of several stages, as whole thousandths."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._last = progress, 0

    def within(self, start: float, stop: float) -> Callable[[float], None]:
        """Return a function that reports a share of a stage, which takes the work from `start` to `stop`."""
        return lambda share: self.report(start + (stop - start) * share)

    def report(self, share: float) -> None:
        """Report a share of all work."""
        done = int(1000 * share)
        if self._progress is not None and done > self._last:
            self._last = done
            self._progress(done, 1000)


def find_candidates(
    left: DistinctImages,
    right: DistinctImages,
    kept: U32,
    turns: Sequence[int],
    n_threads: int | None,
    steps: Steps,
    start: float,
) -> Iterator[tuple[I64, I64, U8]]:
    """Yield the candidates: left and right image, and turn of the left one; in a self-join with left < right."""
    same = left is right
    others = kept if same else np.arange(len(right.owners), dtype=np.uint32)
    rights = turned_hashes(right.hashes, others, 0, n_threads)
    per_block = max(1, _ROWS_PER_BLOCK // len(turns))
    # Blocks begin at the first kept point of an image.
    images = left.owners[kept]
    cuts = [0]
    while cuts[-1] < len(kept):
        stop = cuts[-1] + per_block
        stop = len(kept) if stop >= len(kept) else int(np.searchsorted(images, images[stop]))
        cuts.append(max(stop, int(np.searchsorted(images, images[cuts[-1]], side="right"))))
    index: Index | None = None
    for at, stop in pairwise(cuts):
        first = int(images[at])
        from_right = at if same else 0
        if index is None or same:
            index = Index(rights[from_right:], n_threads)
        some = kept[at:stop]
        versions = np.concatenate([turned_hashes(left.hashes, some, turn, n_threads) for turn in turns])
        owners = images[at:stop] - np.uint32(first), right.owners[others[from_right:]]
        if same:
            owners = owners[0], owners[1] - np.uint32(first)
        share = start + (1 - start) * at / len(kept), start + (1 - start) * stop / len(kept)
        keys = []
        for pairs in index.near(versions, steps.within(share[0], (share[0] + share[1]) / 2)):
            out = np.empty(len(pairs.left), np.uint64)
            n = hits.pair_images(pairs.left, pairs.right, len(some), *owners, same, np.array(turns, np.uint8), out)
            keys.append(out[:n].copy())
        for found in _repeated(keys, n_threads):
            i, j = np.empty(len(found), np.int64), np.empty(len(found), np.int64)
            turn = np.empty(len(found), np.uint8)
            hits.split_keys(found, i, j, turn)
            yield i + first, j + (first if same else 0), turn
        steps.report(share[1])


def _repeated(blocks: list[U64], n_threads: int | None) -> Iterator[U64]:
    """Yield the distinct numbers that occur at least twice in blocks of them, ascending. Empties the blocks."""
    n = sum(map(len, blocks))
    if not n:
        return
    largest = max(int(block.max()) for block in blocks if len(block))
    n_parts = 1 << max(0, (n // _KEYS_PER_PART).bit_length())
    shift = max(3, largest.bit_length() - n_parts.bit_length() + 1)
    counts = np.zeros((largest >> shift) + 1, np.int64)
    for block in blocks:
        counts += np.bincount((block >> np.uint64(shift)).astype(np.int64), minlength=len(counts))
    ends = np.cumsum(counts)
    places = ends - counts
    keys = np.empty(n, np.uint64)
    for block in blocks:
        hits.part_keys(block, shift, places, keys)
    blocks.clear()

    def sort(start: int, stop: int) -> U64:
        part = keys[start:stop]
        repeated = part[: hits.keep_repeated(part)]
        repeated.sort()
        return repeated

    sorts = [Once(sort, int(stop - size), int(stop)) for stop, size in zip(ends, counts, strict=True) if size > 1]
    finish_tasks(sorts, n_threads)
    ends = np.cumsum([len(task.result) for task in sorts], dtype=np.int64)
    calls = ends // _CANDIDATES_PER_CALL
    for call in np.unique(calls).tolist():
        yield np.concatenate([sorts[part].result for part in np.flatnonzero(calls == call)])
