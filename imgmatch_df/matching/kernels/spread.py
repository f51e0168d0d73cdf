"""Clusters of rows of which not all near pairs count, and the radius at which each row joins its cluster."""

from imgmatch_df._kernels.arrays import BOOL, I64, U16, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import int64, uint64
from imgmatch_df.matching.kernels.probes import distance_within

_FAR = 65535  # above every distance


@kernel
def spread(
    versions: U64,
    starts: I64,
    radius: int,
    chains: bool,
    across: U32,
    excluded_starts: I64,
    excluded: U32,
    root: U32,
    joined: U16,
    nearest: U16,
    stamp: U32,
    pool: U32,
    key: U16,
    queue: U32,
    cursor: I64,
    budget: int,
) -> None:
    """Write the root of each row's cluster, and the radius at which the row joins it.

    The first member of a component that is in no cluster yet is the root of one. With `chains`, a cluster takes the row
    nearest to one of its rows, until none is within the radius: the rows that it takes at one level are those that
    some path with steps of at most this level connects to the root. Without, it takes the rows within the radius of
    the root.

    versions (n_versions * n, n_words) uint64: the hashes by component, the best first, then the same in each further
    turn; starts: where components begin, and the last one ends. across (n,): only pairs with different values count;
    empty for no such condition. excluded: rows with which row i is no pair, from excluded_starts[i]; empty for none.
    root, joined (n,) are the result. nearest (n,): of each root, the smallest distance to a row with which it is a
    pair, 65535 before. stamp (n,), zeros, and pool, key, queue (longest component,) are work buffers. cursor (6,)
    int64: next component, rows in its pool (-1 before it is begun), front and back of the queue, level, root. Call
    again while ``cursor[0] < starts.size - 1``.
    """
    n = root.size
    n_versions = versions.shape[0] // max(n, 1)
    spent = 0
    component, n_pool, front, back, level, top = cursor
    while component < starts.size - 1:
        if n_pool < 0:
            n_pool = starts[component + 1] - starts[component]
            front = back = level = 0
            for position in range(n_pool):
                pool[position] = starts[component] + position
                key[position] = _FAR
            spent += 1 + n_pool
        while front < back or n_pool > 0:
            left = 0
            if front < back:
                row = int64(queue[front])
                front += 1
                mark = row + 1
                if excluded.size:
                    for at in range(excluded_starts[row], excluded_starts[row + 1]):
                        stamp[excluded[at]] = mark
                for position in range(n_pool):
                    other = int64(pool[position])
                    near = int64(key[position])
                    if (across.size == 0 or across[row] != across[other]) and (
                        excluded.size == 0 or stamp[other] != mark
                    ):
                        # Only distances below `best` matter.
                        best = min(near, radius + 1)
                        for version in range(n_versions):
                            if best == 0:
                                break
                            distance = int64(
                                distance_within(versions, version * n + row, versions, other, uint64(best - 1))
                            )
                            best = min(best, distance)
                        if best <= radius:
                            near = best
                    if near <= level or (near <= radius and not chains):
                        queue[back] = other
                        back += 1
                        root[other] = top
                        joined[other] = level if chains else near
                        nearest[top] = min(nearest[top], joined[other])
                    else:
                        pool[left] = other
                        key[left] = near
                        left += 1
                spent += 1 + n_pool * n_versions
                if not chains:
                    front = back
            else:
                lowest = _FAR
                for position in range(n_pool):
                    lowest = min(lowest, int64(key[position]))
                if lowest == _FAR:  # the cluster is complete: the best of the others is the next root
                    top = int64(pool[0])
                    root[top] = top
                    joined[top] = 0
                    queue[0] = top
                    front, back, level = 0, 1, 0
                    for position in range(1, n_pool):
                        pool[position - 1] = pool[position]
                    left = n_pool - 1
                else:
                    level = lowest
                    for position in range(n_pool):
                        if key[position] == level:
                            queue[back] = pool[position]
                            back += 1
                            root[pool[position]] = top
                            joined[pool[position]] = level
                            nearest[top] = min(nearest[top], level)
                        else:
                            pool[left] = pool[position]
                            key[left] = key[position]
                            left += 1
                spent += 1 + n_pool
            n_pool = left
            if spent > budget:
                cursor[:] = component, n_pool, front, back, level, top
                return
        n_pool = -1
        component += 1
    cursor[0] = component


@kernel
def spread_links(
    starts: I64, others: U32, cost: U16, order: U32, reached: BOOL, root: U32, joined: U16, nearest: U16, queue: U32
) -> None:
    """Write what `spread` does with `chains`, from the links of a minimum spanning forest.

    starts (n + 1,): where the links of each row begin in others and cost (2 * n_links,), which have each link twice.
    order (n,): the best row first. reached (n,), all false, and queue (n,) are work buffers.
    """
    for top in order:
        if reached[top]:
            continue
        front, back = 0, 1
        queue[0] = top
        reached[top] = True
        root[top], joined[top] = top, 0
        while front < back:
            row = int64(queue[front])
            front += 1
            for link in range(starts[row], starts[row + 1]):
                other = int64(others[link])
                if not reached[other]:
                    reached[other] = True
                    root[other] = top
                    joined[other] = max(joined[row], cost[link])
                    nearest[top] = min(nearest[top], joined[other])
                    queue[back] = other
                    back += 1
