"""The k nearest rows of each of many queries, at any distance, in one pass over blocks of near counts."""

from typing import Final

import numpy as np

from imgmatch_df._kernels.arrays import I64, U64
from imgmatch_df._kernels.gaps import BOXES
from imgmatch_df.matching import counts, plan
from imgmatch_df.matching.join import Progress
from imgmatch_df.matching.kernels import counts as kernels
from imgmatch_df.matching.kernels.hamming import Pairs
from imgmatch_df.matching.plan import Distinct
from imgmatch_df.threads import Once, run_tasks

# Up to this distance counts decide exactly enough, and differences of halved counts still fit a byte. Beyond it all
# rows are compared.
_HALVED_TO: Final = 500

# Nanoseconds on one thread, as those of `plan`.
_NS_PREPARED: Final = 250.0  # one row counted, put in order and copied
_NS_BLOCK: Final = 3.0  # one query against the box of one block
_NS_QUERY: Final = 1e5  # one query against the rows of near blocks


def is_faster(queries: U64, references: U64, radius: int, n_bits: int) -> bool:
    """Return whether `nearest_k` is expected to take less time than a join within the radius."""
    if n_bits < plan.MIN_COUNTED_BITS or not (len(queries) and len(references)):
        return False
    left, right = (Distinct(hashes, np.arange(len(hashes), dtype=np.uint32)) for hashes in (queries, references))
    n_blocks = len(references) / BOXES
    ns = _NS_PREPARED * len(references) + len(queries) * (_NS_BLOCK * n_blocks + _NS_QUERY)
    return plan.choose_plan(left, right, radius, n_bits)[0].seconds > 1e-9 * ns


def nearest_k(
    queries: U64,
    references: U64,
    k: int,
    radius: int,
    n_bits: int,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """Return the `k` nearest reference rows of each query row within `radius` bits. Exact.

    Parameters
    ----------
    queries, references
        (m, n_words) and (n, n_words) uint64.
    k
        Maximum number of rows for each query. Memory grows with ``m * k``.
    radius, n_bits
        As in `join.self_join`.

    Returns
    -------
    Pairs
        Sorted by query, then nearest first, then by reference.
    """
    m, k = len(queries), min(k, len(references))
    if not (m and k):
        return Pairs(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, np.uint16))
    queries, references = np.ascontiguousarray(queries), np.ascontiguousarray(references)
    rows = np.arange(max(m, len(references)), dtype=np.uint32)
    side = Distinct(references, rows[: len(references)])
    sample = plan.sample_hashes(side, side)
    groups = counts.choose_groups(sample, n_bits, min(radius, _HALVED_TO))
    blocks = counts.make_blocks(*side, groups, n_threads)
    # Near queries are compared together, while a block is in the first-level cache.
    queried = counts.make_blocks(queries, rows[:m], groups, n_threads)
    nearest, found = np.empty((m, k), np.uint64), np.zeros(m, np.int64)
    tasks = [
        Once(kernels.search_nearest, queried, blocks, groups.shift, radius, group, nearest, found)
        for group in range(len(queried.points))
    ]
    for done, _ in enumerate(run_tasks(tasks, n_threads), 1):
        if progress is not None:
            progress(done, len(tasks))
    return _sorted_pairs(nearest, found)


def _sorted_pairs(nearest: U64, found: I64) -> Pairs:
    is_found = np.arange(nearest.shape[1]) < found[:, None]
    nearest[~is_found] = np.iinfo(np.uint64).max
    nearest.sort(axis=1)
    keys = nearest[is_found]
    left = np.repeat(np.arange(len(found), dtype=np.uint32), found)
    return Pairs(left, keys.astype(np.uint32), (keys >> np.uint64(32)).astype(np.uint16))
