"""Star clusters and diameters of components."""

from imgmatch_df._kernels.arrays import I64, U16, U32, U64
from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.popcount import LANES, int64, lowest_one, near_mask, popcount, uint64
from imgmatch_df.matching.kernels.probes import distance_within


@kernel
def join_stars(
    hashes: U64,
    members: U32,
    starts: I64,
    radius: int,
    center: U32,
    pool: U32,
    columns: U64,
    cursor: I64,
    budget: int,
) -> None:
    """Write the center of each row's star: in order, a row joins the first center within the radius, or becomes one.

    hashes (n, n_words) uint64; members (n,) uint32: rows by component, in order of preference; starts
    (n_components + 1,) int64; center (n,) uint32: n for rows without a center yet. pool (longest,) uint32 and columns
    (n_columns, longest + LANES) uint64 are work buffers; columns holds the first words, which exclude most rows.
    cursor (4,) int64: next component, rows in its pool (-1 before it is begun), next row of the pool, and number of
    pool rows that have a center. Call again while ``cursor[0] < starts.size - 1``.
    """
    limit = uint64(radius)
    n_columns = columns.shape[0]
    spent = 0
    component, n_pool, front, settled = cursor
    while component < starts.size - 1:
        if n_pool < 0:
            n_pool = starts[component + 1] - starts[component]
            front = settled = 0
            for position in range(n_pool):
                pool[position] = members[starts[component] + position]
                for word in range(n_columns):
                    columns[word, position] = hashes[pool[position], word]
            spent += 1 + n_pool
        while front < n_pool:
            row = int64(pool[front])
            if center[row] == hashes.shape[0]:
                center[row] = row
                for at in range(front + 1, n_pool, LANES):
                    near = near_mask(columns, at, columns, front, n_columns, limit)
                    if n_pool - at < LANES:
                        near &= (uint64(1) << uint64(n_pool - at)) - uint64(1)
                    while near:
                        lane = int64(lowest_one(near))
                        near &= near - uint64(1)
                        other = int64(pool[at + lane])
                        if center[other] == hashes.shape[0] and (
                            distance_within(hashes, row, hashes, other, limit) <= limit
                        ):
                            center[other] = row
                            settled += 1
                spent += 1 + (n_pool - front) // LANES
                settled += 1
            front += 1
            # Rows that have a center are removed, so that the cost of a dense component is linear in its rows.
            if 2 * settled > n_pool and n_pool > LANES:
                kept = 0
                for position in range(front, n_pool):
                    if center[pool[position]] == hashes.shape[0]:
                        pool[kept] = pool[position]
                        for word in range(n_columns):
                            columns[word, kept] = columns[word, position]
                        kept += 1
                n_pool, front, settled = kept, 0, 0
            if spent > budget:
                cursor[0], cursor[1], cursor[2], cursor[3] = component, n_pool, front, settled
                return
        n_pool = -1
        component += 1
    cursor[0] = component


@kernel
def measure_diameters(
    hashes: U64, starts: I64, distance: U16, order: U32, diameter: U16, cursor: I64, budget: int
) -> None:
    """Write the largest distance between two members of each component into diameter (n_components,) uint16.

    distance (n,) uint16: from each row to one row of its component; order (n,) uint32: rows by component, farthest
    first. By the triangle inequality the distance of a pair is at most the sum of its two distances, so the search
    ends when the sum of the next and the largest is at most the best found. cursor (2,) int64: next component, next
    row of it. Call again while ``cursor[0] < starts.size - 1``.
    """
    spent = 0
    component, position = cursor
    while component < starts.size - 1:
        best = int64(diameter[component])
        stop = starts[component + 1]
        position = max(position, starts[component])
        while position < stop:
            row = int64(order[position])
            reach = int64(distance[row])
            if reach + int64(distance[order[starts[component]]]) <= best:
                break
            for at in range(starts[component], position):
                other = int64(order[at])
                if reach + int64(distance[other]) <= best:
                    break
                total = uint64(0)
                for word in range(hashes.shape[1]):
                    total += popcount(hashes[row, word] ^ hashes[other, word])
                best = max(best, int64(total))
                spent += 1
            best = max(best, reach)
            position += 1
            if spent > budget:
                diameter[component] = best
                cursor[0], cursor[1] = component, position
                return
        diameter[component] = best
        component += 1
    cursor[0] = component
