"""Joins by the counts of ones in groups of alike bits, and the choice of the groups from a sample of the hashes."""

from itertools import pairwise
from math import log
from typing import Final, NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import U8, U32, U64
from imgmatch_df._kernels.gaps import BOXES, MAX_GAP
from imgmatch_df.matching.kernels import counts as kernels
from imgmatch_df.matching.kernels.counts import RowBlocks
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.threads import Once, finish_tasks

N_GROUPS: Final = 8
_MAX_GROUP: Final = 255  # bits whose count fits a byte
_N_SAMPLED: Final = 512  # hashes from which the groups are chosen
_N_ROUNDS: Final = 6  # more rounds change few bits
_ROWS_PER_CALL: Final = 1 << 16  # rows that are counted, copied or put in order by one call, about 10 ms
_STEPS_PER_CALL: Final = 3_000_000  # comparisons of one call, about 20 ms, so that Ctrl-C and progress are prompt
_BUFFER: Final = 1 << 16  # pairs that a kernel finds in one call


class Groups(NamedTuple):
    """Groups of bits, and the radius up to which their counts are compared.

    Parameters
    ----------
    inverted
        Bits that are inverted first, (1, n_words) uint64.
    masks
        Bits of each group, (n_groups, n_words) uint64.
    shift, limit
        Counts are divided by ``2**shift`` and rounded down. Those of a pair within the radius then differ in sum by at
        most `limit`.
    """

    inverted: U64
    masks: U64
    shift: int
    limit: int


def choose_groups(sample: U64, n_bits: int, radius: int) -> Groups:
    """Return groups of bits that are alike in most hashes of a sample, (n, n_words) uint64; some of them inverted."""
    shift = 0
    # Rounding adds less than 1 to the difference of two counts.
    while (limit := (radius + N_GROUPS * ((1 << shift) - 1)) >> shift) > MAX_GAP:
        shift += 1
    n_words = sample.shape[1]
    rows = np.zeros((_N_SAMPLED, 8 * n_words), np.uint8)
    some = sample[:: max(1, len(sample) // _N_SAMPLED)][:_N_SAMPLED]
    rows[: len(some)] = np.ascontiguousarray(some).view(np.uint8)
    bits = np.unpackbits(rows, axis=1, bitorder="little")[:, :n_bits]
    planes = np.ascontiguousarray(np.packbits(bits, axis=0, bitorder="little").T).view(np.uint64)
    group, flipped, alike = np.empty(n_bits, np.int64), np.empty(n_bits, np.uint8), np.empty(n_bits, np.int64)
    kernels.group_bits(planes, np.empty((N_GROUPS, 8), np.uint64), _N_ROUNDS, group, flipped, alike)
    masks, inverted = np.zeros((N_GROUPS, 64 * n_words), np.bool_), np.zeros((1, 64 * n_words), np.bool_)
    for number, mask in enumerate(masks):
        members = np.flatnonzero(group == number)
        mask[members[np.argsort(-alike[members], kind="stable")[:_MAX_GROUP]]] = True
    inverted[0, :n_bits] = flipped
    flips, members_of = (np.packbits(some, axis=1, bitorder="little").view(np.uint64) for some in (inverted, masks))
    return Groups(flips, members_of, shift, limit)


def make_blocks(hashes: U64, rows: U32, groups: Groups, n_threads: int | None = None) -> RowBlocks:
    """Return rows (m,) uint32 of hashes (n, n_words) uint64 in blocks of near counts."""
    n, n_axes = len(rows), len(groups.masks)
    n_blocks = -(-n // BOXES)
    counts, order = np.empty((n, n_axes), np.uint8), np.arange(n, dtype=np.uint32)
    finish_tasks(
        [
            Once(kernels.count_groups, hashes, rows, *groups[:3], at, min(at + _ROWS_PER_CALL, n), counts)
            for at in range(0, n, _ROWS_PER_CALL)
        ],
        n_threads,
    )
    finish_tasks([_Order(counts, order, np.empty(n, np.uint32))], n_threads)
    of_blocks = -(-n_blocks // BOXES), n_axes, BOXES
    blocks = RowBlocks(
        np.empty((n, hashes.shape[1]), np.uint64),
        np.empty(n, np.uint32),
        np.zeros((n_blocks, n_axes, BOXES), np.uint8),
        np.zeros(of_blocks, np.uint8),
        np.zeros(of_blocks, np.uint8),
    )
    step = _ROWS_PER_CALL // BOXES
    finish_tasks(
        [
            Once(kernels.fill_blocks, hashes, rows, counts, order, at, min(at + step, n_blocks), blocks)
            for at in range(0, n_blocks, step)
        ],
        n_threads,
    )
    return blocks


class _Order(Once):
    """The task that puts rows in order: a large part is split in two by one call, a small one is finished."""

    def __init__(self, counts: U8, order: U32, spare: U32) -> None:
        self._parts = counts, order, spare
        n_blocks = -(-len(order) // BOXES)
        self._cut = n_blocks // 2 * BOXES
        self._is_small = len(order) <= _ROWS_PER_CALL
        super().__init__(kernels.order_rows if self._is_small else kernels.split_rows, *self._parts)

    def then(self) -> "tuple[_Order, ...]":  # type: ignore[override]
        """Return the tasks of the two parts."""
        if self._is_small:
            return ()
        counts, order, spare = self._parts
        return tuple(_Order(counts, order[part], spare[part]) for part in (slice(self._cut), slice(self._cut, None)))


class BlockSearch:
    """The task that compares a span of blocks of one side with those of the other; each call returns `Pairs`."""

    def __init__(self, left: RowBlocks, right: RowBlocks, radius: int, limit: int, span: tuple[int, int]) -> None:
        self._arguments = left, right, left is right, radius, limit
        self._cursor = np.array([*span, 0, 0], np.int64)

    @property
    def finished(self) -> bool:
        """Whether the whole span was compared."""
        return bool(self._cursor[0] >= self._cursor[1])

    def __call__(self) -> Pairs:
        """Return the next pairs."""
        pairs = Pairs(np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint32), np.empty(_BUFFER, np.uint16))
        n = kernels.join_blocks(*self._arguments, self._cursor, _STEPS_PER_CALL, pairs)
        return Pairs(pairs.left[:n].copy(), pairs.right[:n].copy(), pairs.distance[:n].copy())

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


def search_tasks(left: RowBlocks, right: RowBlocks, radius: int, limit: int, n_tasks: int) -> list[BlockSearch]:
    """Return the tasks of a join of two sides, or of one given twice, in spans of about equal work."""
    shares = np.linspace(0, 1, n_tasks + 1)
    if left is right:  # a block is compared with those after it
        shares = 1 - np.sqrt(shares[::-1])
    cuts = np.unique((shares * len(left.points)).astype(np.int64)).tolist()
    return [BlockSearch(left, right, radius, limit, span) for span in pairwise(cuts)]


class Shares(NamedTuple):
    """Shares of all pairs of two sides: of blocks, of a row and a block, and of rows, whose counts are near."""

    of_blocks: float
    of_rows: float
    near: float


def estimate_shares(sample: U64, n_bits: int, radius: int, n_blocks: int) -> Shares:
    """Return the expected shares of a join of a number of blocks, from a sample of at most some thousand hashes.

    Blocks of a sample are larger boxes than those of all rows. Their shares fall by about the same power of the number
    of rows everywhere: those of a quarter of the sample give the power.
    """
    groups = choose_groups(sample, n_bits, radius)
    few, many = (_count_shares(some, groups) for some in (sample[::4], sample))
    n_few, n_many = (-(-len(some) // BOXES) for some in (sample[::4], sample))
    steps = max(0.0, log(n_blocks / n_many) / log(n_many / n_few)) if n_many > n_few else 0.0
    of_blocks, of_rows = (
        ours * min(1.0, ours / theirs) ** steps if theirs else 0.0
        for ours, theirs in zip(many[:2], few[:2], strict=True)
    )
    return Shares(max(of_blocks, many.near), max(of_rows, many.near), many.near)


def _count_shares(hashes: U64, groups: Groups) -> Shares:
    n = len(hashes)
    blocks = make_blocks(hashes, np.arange(n, dtype=np.uint32), groups, 1)
    of_blocks, of_rows, near = kernels.count_near(blocks, groups.limit)
    n_blocks = len(blocks.points)
    n_pairs = max(1, n_blocks * (n_blocks + 1) // 2)
    return Shares(of_blocks / n_pairs, of_rows / (n_pairs * BOXES), near / max(1, n * (n - 1) // 2))
