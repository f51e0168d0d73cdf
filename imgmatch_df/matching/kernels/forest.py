"""Components of near hashes, without their pairs: union-find, and the links that each band adds.

Ten thousand hashes within the radius of each other form one component, but fifty million pairs. Rows of one component
are therefore not compared again, and within a bucket each row is removed from the search as soon as it is reached.
"""

from typing import NamedTuple

from imgmatch_df._kernels.arrays import BOOL, I64, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import LANES, int64, lowest_one, near_mask, uint64
from imgmatch_df.matching.kernels.bands import Ordered
from imgmatch_df.matching.kernels.probes import distance_within


class Links(NamedTuple):
    """Pairs of rows within the radius, (m,) uint32 each: enough of them to connect what all pairs connect."""

    left: U32
    right: U32


class Search(NamedTuple):
    """Work buffers of a breadth-first search in one bucket, which is continued by the next call.

    Parameters
    ----------
    pool, queue
        Rows that are not reached yet, and rows that are: (longest bucket,) uint32 each.
    pool_words, queue_words
        Their words, (n_words, longest bucket + LANES) uint64 each.
    """

    pool: U32
    pool_words: U64
    queue: U32
    queue_words: U64


@kernel
def _find_root(parent: U32, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int64(parent[row])
    return row


@kernel
def unite(parent: U32, left: U32, right: U32) -> None:
    """Unite the components of each pair; the smaller root remains. parent (n,), left and right (m,) uint32."""
    for pair in range(left.size):
        a, b = _find_root(parent, int64(left[pair])), _find_root(parent, int64(right[pair]))
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@kernel
def flatten(parent: U32) -> None:
    """Replace the parent of every row by its root, the first row of its component."""
    for row in range(parent.size):  # one step is enough, because a root comes before its rows
        parent[row] = parent[parent[row]]


@kernel
def bucket_roots(root: U32, starts: U32, rows: U32, out: I64) -> None:
    """Write the root that all rows of a bucket share, or -1, into out (n_buckets,) int64."""
    for bucket in range(out.size):
        shared = int64(-1)
        for position in range(starts[bucket], starts[bucket + 1]):
            own = int64(root[rows[position]])
            if position > starts[bucket] and own != shared:
                shared = -1
                break
            shared = own
        out[bucket] = shared


@kernel
def link_buckets(
    radius: int, root: U32, roots: I64, ordered: Ordered, search: Search, cursor: I64, budget: int, out: Links
) -> int:
    """Write links that connect the rows of each bucket as their pairs would, and return their number.

    Each bucket is searched breadth first. A row that is reached is removed from the pool, so the cost of a bucket of
    near hashes is linear in its rows. roots: from `bucket_roots`; buckets with a shared root are skipped. cursor (6,)
    int64: next bucket, last bucket (exclusive), rows in the pool (-1 before a bucket is begun), next and last row of
    the queue, block of the pool. Call again while ``cursor[0] < cursor[1]``.
    """
    hashes, starts, rows, words = ordered.hashes, ordered.starts, ordered.rows, ordered.words
    pool, pool_words, queue, queue_words = search.pool, search.pool_words, search.queue, search.queue_words
    left_out, right_out = out.left, out.right
    limit = uint64(radius)
    n_words = words.shape[0]
    room = left_out.size - LANES
    found = 0
    spent = 0
    bucket, stop, n_pool, front, back, at = cursor
    while bucket < stop:
        if n_pool < 0:
            n_pool = 0
            front = back = at = 0
            if roots[bucket] < 0:
                first = int64(starts[bucket])
                n_pool = int64(starts[bucket + 1]) - first
                # Slices would take numba 1.5 s longer to compile: their error message compiles its functions of text.
                for position in range(n_pool):
                    pool[position] = rows[first + position]
                for word in range(n_words):
                    for position in range(n_pool):
                        pool_words[word, position] = words[word, first + position]
            spent += 1 + n_pool // LANES
        while n_pool > 0:
            if front == back:  # the next component of the bucket
                n_pool -= 1
                queue[back] = pool[n_pool]
                for word in range(n_words):
                    queue_words[word, back] = pool_words[word, n_pool]
                back += 1
                at = 0
            row = int64(queue[front])
            while at < n_pool:
                spent += 1
                near = near_mask(pool_words, at, queue_words, front, n_words, limit)
                if n_pool - at < LANES:
                    near &= (uint64(1) << uint64(n_pool - at)) - uint64(1)
                reached = 0
                lane = LANES
                while near:  # backwards: the row that fills a gap was compared already or is in a later block
                    lane -= 1
                    if near >> uint64(lane) & uint64(1):
                        near ^= uint64(1) << uint64(lane)
                        position = at + lane
                        other = int64(pool[position])
                        if distance_within(hashes, row, hashes, other, limit) <= limit:
                            if root[row] != root[other]:
                                left_out[found] = row
                                right_out[found] = other
                                found += 1
                            queue[back] = other
                            n_pool -= 1
                            pool[position] = pool[n_pool]
                            for word in range(n_words):
                                queue_words[word, back] = pool_words[word, position]
                                pool_words[word, position] = pool_words[word, n_pool]
                            back += 1
                            reached += 1
                if reached == 0:
                    at += LANES
                if found > room or spent > budget:
                    cursor[0], cursor[2], cursor[3], cursor[4], cursor[5] = bucket, n_pool, front, back, at
                    return found
            front += 1
            at = 0
        bucket += 1
        n_pool = -1
        if spent > budget:
            break
    cursor[0], cursor[2] = bucket, n_pool
    return found


@kernel
def link_flips(
    flips: U32, radius: int, parent: U32, roots: I64, ordered: Ordered, cursor: I64, budget: int, out: Links
) -> int:
    """Write links between buckets whose keys differ by a flip, and return their number; call after `link_buckets`.

    parent (n,) uint32: a private forest, to which the links are added. cursor (4,) int64: next bucket, last bucket
    (exclusive), flip, row. Call again while ``cursor[0] < cursor[1]``.
    """
    hashes, starts, rows, words = ordered.hashes, ordered.starts, ordered.rows, ordered.words
    left_out, right_out = out.left, out.right
    limit = uint64(radius)
    n_words = words.shape[0]
    room = left_out.size - LANES
    found = 0
    spent = 0
    bucket, stop, flip, row = cursor
    while bucket < stop:
        first, last = int64(starts[bucket]), int64(starts[bucket + 1])
        while flip < flips.size and first < last:
            other = int64(uint64(bucket) ^ uint64(flips[flip]))
            spent += 1
            run_start, run_stop = int64(starts[other]), int64(starts[other + 1])
            if other > bucket and run_start < run_stop:
                # If each of two buckets has one root, one link connects them, and none once they are united.
                whole = roots[bucket] >= 0 and roots[other] >= 0
                if whole and _find_root(parent, roots[bucket]) == _find_root(parent, roots[other]):
                    run_stop = run_start
                row = max(row, first)
                while row < last and run_start < run_stop:
                    i = int64(rows[row])
                    at = run_start
                    while at < run_stop:
                        near = near_mask(words, at, words, row, n_words, limit)
                        if run_stop - at < LANES:
                            near &= (uint64(1) << uint64(run_stop - at)) - uint64(1)
                        while near:
                            lane = int64(lowest_one(near))
                            near &= near - uint64(1)
                            j = int64(rows[at + lane])
                            a, b = _find_root(parent, i), _find_root(parent, j)
                            if a != b and distance_within(hashes, i, hashes, j, limit) <= limit:
                                parent[max(a, b)] = min(a, b)
                                left_out[found] = i
                                right_out[found] = j
                                found += 1
                                if whole:
                                    near = uint64(0)
                                    run_stop = run_start
                        at += LANES
                        spent += 1
                        if found > room:
                            # The next call repeats this row; the rows that it has linked are united by then.
                            cursor[0], cursor[2], cursor[3] = bucket, flip, row
                            return found
                    row += 1
                    if spent > budget and row < last:
                        cursor[0], cursor[2], cursor[3] = bucket, flip, row
                        return found
            row = 0
            flip += 1
        flip = 0
        bucket += 1
        if spent > budget:
            break
    cursor[0], cursor[2], cursor[3] = bucket, 0, 0
    return found


@kernel
def span(parent: U32, left: U32, right: U32, is_link: BOOL) -> None:
    """Write which pairs connect rows that those before them do not: pairs, is_link (m,). parent (n,) is updated."""
    for pair in range(left.size):
        a, b = _find_root(parent, int64(left[pair])), _find_root(parent, int64(right[pair]))
        is_link[pair] = a != b
        parent[max(a, b)] = min(a, b)


@kernel
def grow(parent: U32, sizes: I64, left: U32, right: U32, totals: I64) -> None:
    """Unite the components of the links of a forest, and count rows.

    parent, sizes (n,): forest, and rows of the component of each root. left, right (m,): links, each between two
    components. totals (3,): components of two rows or more, rows beyond the first of each, rows of the largest.
    """
    for link in range(left.size):
        a, b = _find_root(parent, int64(left[link])), _find_root(parent, int64(right[link]))
        a, b = min(a, b), max(a, b)
        totals[0] += 1 - (sizes[a] > 1) - (sizes[b] > 1)
        totals[1] += 1
        parent[b] = a
        sizes[a] += sizes[b]
        totals[2] = max(totals[2], sizes[a])
