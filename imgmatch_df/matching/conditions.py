"""Clusters where not every near pair counts, and the radius at which each row joins its cluster.

Rows that are alike in every respect are one node: equal hashes and equal values. A component of all near pairs is then
searched node by node, so that memory is linear in rows.
"""

from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df._kernels.arrays import BOOL, I64, U16, U32, U64
from imgmatch_df.matching import join
from imgmatch_df.matching.clusters import members_of
from imgmatch_df.matching.kernels import forest
from imgmatch_df.matching.kernels.spread import spread, spread_links
from imgmatch_df.matching.turned import every_turn, turned_connect
from imgmatch_df.threads import finish_tasks, n_threads
from imgmatch_df.turns import TurnedBits

__all__ = ["FAR", "Conditions", "Nodes", "chained_radii", "link_nodes", "link_rows", "pairs_of_nodes"]

FAR: Final = 65535
_STEPS_PER_CALL: Final = 5_000_000  # comparisons of a kernel in one call: few, so that Ctrl-C is prompt
# Nodes of a cluster above which it is not searched pair by pair, where all pairs count: 0.1 s for phash, 2 s for bmh1.
_MAX_SEARCHED: Final = 1 << 14


class Conditions(NamedTuple):
    """Which near pairs of rows count.

    Parameters
    ----------
    across
        (n,) uint32: only pairs with different values count. None for no such condition.
    within
        (n,) uint32: only pairs with equal values count. None for no such condition.
    excluded
        Pairs of rows that do not count, each once: (m,) uint32 each. None for none.
    """

    across: U32 | None = None
    within: U32 | None = None
    excluded: tuple[U32, U32] | None = None

    @property
    def hold_always(self) -> bool:
        """Whether all pairs count."""
        return all(one is None for one in self)

    def among(self, rows: npt.NDArray[Any], n_rows: int) -> "Conditions":
        """Return the conditions of some of `n_rows` rows, by their positions among `rows`, which ascend."""
        excluded = self.excluded
        if excluded is not None:
            place = np.full(n_rows, -1, np.int64)
            place[rows] = np.arange(len(rows))
            left, right = (place[side] for side in excluded)
            both = (left >= 0) & (right >= 0)
            excluded = left[both].astype(np.uint32), right[both].astype(np.uint32)
        return Conditions(
            None if self.across is None else self.across[rows],
            None if self.within is None else self.within[rows],
            excluded,
        )

    def hold(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> BOOL:
        """Return which pairs of rows count."""
        counts = np.ones(len(left), np.bool_)
        if self.across is not None:
            counts &= self.across[left] != self.across[right]
        if self.within is not None:
            counts &= self.within[left] == self.within[right]
        if self.excluded is not None:
            pairs, others = _keys(left, right), _keys(*self.excluded)
            counts &= ~np.isin(pairs, others)
        return counts


class Nodes(NamedTuple):
    """Rows that are alike in every respect, as one node.

    Parameters
    ----------
    rows
        The rows that have nodes: (k,) int64, ascending.
    node
        The node of each of these rows, (k,) int64.
    best
        The best row of each node, (m,) int64.
    order
        The nodes by their best rows, the best first, (m,) uint32.
    conditions
        Of the nodes. `within` is met by all pairs with equal labels.
    """

    rows: I64
    node: I64
    best: I64
    order: U32
    conditions: Conditions

    @classmethod
    def of(cls, rows: I64, equal: npt.NDArray[Any], order: U32, conditions: Conditions) -> "Nodes":
        """Return the nodes of some rows.

        Parameters
        ----------
        rows
            Rows, ascending.
        equal
            (n,): a number for each row, the same for equal hashes.
        order
            (n,) uint32: all rows, the best first.
        conditions
            Of all rows.
        """
        n = len(order)
        node = np.unique(equal[rows], return_inverse=True)[1]
        some = conditions.among(rows, n)
        if some.excluded is not None:
            listed = np.zeros(len(rows), np.int64)
            either = np.unique(np.concatenate(some.excluded))
            listed[either] = 1 + np.arange(len(either))
            node = _joint(node, listed)
        for values in (some.within, some.across):
            if values is not None:
                node = _joint(node, values)
        place = np.full(n, -1, np.int64)
        place[rows] = np.arange(len(rows))
        places = place[order]
        places = places[places >= 0]
        _, first = np.unique(node[places], return_index=True)
        best = rows[places[first]]
        of_nodes = conditions._replace(excluded=None).among(best, n)
        if some.excluded is not None:
            left, right = (node[side].astype(np.uint32) for side in some.excluded)
            of_nodes = of_nodes._replace(excluded=(left, right))
        return cls(rows, node, best, np.argsort(first).astype(np.uint32), of_nodes)

    def spread_out(
        self, root: U32, joined: U16, nearest: U16, own: U16, n_rows: int, *, chains: bool
    ) -> tuple[U32, U16]:
        """Return the representative of each row, and where it joins it, from those of the nodes.

        Parameters
        ----------
        root, joined
            Of each node.
        nearest
            Of each root: where the first other node joins it, `FAR` if none does.
        own
            Of each node: where two of its rows join, if these are a pair.
        n_rows
            Number of rows.
        chains
            Whether a row can join the representative through others.
        """
        representative = np.arange(n_rows, dtype=np.uint32)
        at = np.zeros(n_rows, np.uint16)
        top = root[self.node]
        found, joins = self.best[top], joined[self.node]
        beside = np.flatnonzero((top == self.node) & (found != self.rows))
        meets = nearest[top[beside]] if chains else np.full(len(beside), FAR, np.uint16)
        if self.conditions.across is None:
            meets = np.minimum(meets, own[top[beside]])
        # Rows of one node have equal values: they are no pairs, and meet through other nodes or not at all.
        is_alone = meets == FAR
        found[beside[is_alone]] = self.rows[beside[is_alone]]
        joins[beside] = np.where(is_alone, 0, meets)
        representative[self.rows], at[self.rows] = found, joins
        return representative, at


def link_rows(
    hashes: U64,
    components: npt.NDArray[Any],
    equal: npt.NDArray[Any],
    order: U32,
    radius: int,
    conditions: Conditions,
    *,
    chains: bool,
    bits: TurnedBits | None = None,
) -> tuple[U32, U16]:
    """Return the representative of each row, and the smallest radius at which the row is in its cluster. Exact.

    Parameters
    ----------
    hashes
        (n, n_words) uint64.
    components
        (n,): labels that are equal for rows within the radius of each other.
    equal
        (n,): a number for each row, the same for equal hashes, and for no others.
    order
        (n,) uint32: the rows in the order of preference as representatives.
    radius
        Maximum distance of a pair, in bits; inclusive.
    conditions
        Which pairs within the radius count.
    chains
        True: clusters are the components of the pairs that count. False: in order, a row that is in no cluster begins
        one, and all rows that are in none and are a pair with it join.
    bits
        What turns do to the hashes; None to compare them unturned.

    Notes
    -----
    The time is at worst the sum over components of the squared number of nodes; memory is linear in rows.
    """
    n = len(order)
    components = components.astype(np.int64)
    if conditions.within is not None:
        components = _joint(components, conditions.within)
    is_shared = np.bincount(components, minlength=1)[components] > 1
    nodes = Nodes.of(np.flatnonzero(is_shared), equal, order, conditions)
    words, labels = hashes[nodes.best], components[nodes.best]
    found = _spread(words, labels, nodes.order, radius, nodes.conditions, chains, bits)
    return nodes.spread_out(*found, np.zeros(len(words), np.uint16), n, chains=chains)


def chained_radii(
    hashes: U64, representative: U32, distance: U16, radius: int, n_bits: int, bits: TurnedBits | None = None
) -> U16:
    """Return the smallest radius at which each row is in the component of its representative, (n,) uint16. Exact.

    Parameters
    ----------
    hashes
        (n, n_words) uint64.
    representative
        (n,) uint32: a row of each row's component at `radius`.
    distance
        (n,) uint16: of each row to its representative.
    radius, bits
        As `link_rows`.
    n_bits
        Bits that carry information.

    Notes
    -----
    A cluster of many different hashes is not searched pair by pair: there, components are computed at each radius.
    """
    joined = distance.copy()
    # A single other hash joins at its distance.
    others = np.bincount(representative, distance > 0, minlength=len(distance))
    rows = np.flatnonzero((others > 1)[representative])
    if not rows.size:
        return joined
    words = np.ascontiguousarray(hashes[rows])
    number = np.zeros(len(distance), np.int64)
    number[rows] = np.arange(len(rows))
    roots = number[representative[rows]]
    equal = join.first_equal(words)
    first = np.flatnonzero(equal == np.arange(len(equal), dtype=np.uint32))
    number[first] = np.arange(len(first))
    node = number[equal]
    root = node[roots[first]]  # of each node
    found = np.zeros(len(first), np.uint16)
    is_large = (np.bincount(root, minlength=len(first)) > _MAX_SEARCHED)[root]
    small, large = np.flatnonzero(~is_large), np.flatnonzero(is_large)
    if small.size:
        is_root = root[small] == small
        order = np.concatenate([np.flatnonzero(is_root), np.flatnonzero(~is_root)]).astype(np.uint32)
        part = words[first[small]]
        found[small] = _spread(part, root[small], order, radius, Conditions(), True, bits)[1]
    if large.size:
        place = np.zeros(len(first), np.int64)
        place[large] = np.arange(len(large))
        found[large] = _radii_of_large(words[first[large]], place[root[large]], radius, n_bits, bits)
    joined[rows] = found[node]
    return joined


def _radii_of_large(hashes: U64, root: I64, radius: int, n_bits: int, bits: TurnedBits | None) -> U16:
    """Return what `chained_radii` does, from the components at each radius."""
    joined = np.full(len(hashes), radius, np.uint16)
    for within in range(radius - 1, -1, -1):
        labels = join.connect(hashes, within, n_bits) if bits is None else turned_connect(hashes, within, bits)
        is_joined = labels == labels[root]
        joined[is_joined] = within
        if not (is_joined & (root != np.arange(len(root)))).any():
            break
    joined[root] = 0
    return joined


def link_nodes(n_nodes: int, left: U32, right: U32, cost: U16, order: U32) -> tuple[U32, U16, U16]:
    """Return the root of each node in the graph of pairs, where it joins it, and where another joins each root.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    left, right, cost
        Pairs, each once, and what they cost: a node joins where the largest cost on the way is smallest.
    order
        (n_nodes,) uint32: the best node first.
    """
    by_cost = np.argsort(cost, kind="stable")
    left, right, cost = left[by_cost], right[by_cost], cost[by_cost]
    is_link = np.empty(len(left), np.bool_)
    forest.span(np.arange(n_nodes, dtype=np.uint32), left, right, is_link)
    left, right, cost = left[is_link], right[is_link], cost[is_link]
    rows = np.concatenate([left, right])
    by_row = np.argsort(rows, kind="stable")
    others, costs = np.concatenate([right, left])[by_row], np.concatenate([cost, cost])[by_row]
    starts = np.searchsorted(rows[by_row], np.arange(n_nodes + 1)).astype(np.int64)
    root, joined, nearest = _nothing_joined(n_nodes)
    work = np.empty(n_nodes, np.uint32)
    spread_links(starts, others, costs, order, np.zeros(n_nodes, np.bool_), root, joined, nearest, work)
    return root, joined, nearest


def pairs_of_nodes(
    nodes: Nodes, image: npt.NDArray[Any], left: U32, right: U32, own: npt.NDArray[Any], max_pairs: int
) -> tuple[U32, U32, I64] | None:
    """Return the pairs of nodes that count, and the pair of images of each: its number, from len(left) on one image.

    None where there are more than `max_pairs`.

    Parameters
    ----------
    nodes
        Nodes of rows.
    image
        (n_nodes,): the image of each node.
    left, right
        Pairs of images, each once.
    own
        Images of which two nodes are a pair, ascending.
    max_pairs
        Maximum number of pairs of nodes with an equal value of `within`.
    """
    within = nodes.conditions.within
    group_key = image.astype(np.int64) << 32 | (0 if within is None else within.astype(np.int64))
    members = np.argsort(group_key, kind="stable")
    keys, begins, sizes = np.unique(group_key[members], return_index=True, return_counts=True)
    # Pairs of groups: of each pair of images those with equal values of `within`, and each own group with itself.
    firsts, lasts = (np.searchsorted(keys >> 32, left, side=side) for side in ("left", "right"))
    pair, groups = _ranges(firsts, lasts - firsts)
    wanted = right[pair].astype(np.int64) << 32 | (keys[groups] & 0xFFFFFFFF)
    other = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
    is_there = keys[other] == wanted if len(keys) else np.zeros(0, np.bool_)
    pair, groups, other = pair[is_there], groups[is_there], other[is_there]
    alone = np.flatnonzero(np.isin(keys >> 32, own) & (sizes > 1))
    pair = np.concatenate([pair, len(left) + np.searchsorted(own, keys[alone] >> 32)])
    groups, other = np.concatenate([groups, alone]), np.concatenate([other, alone])
    if int((sizes[groups] * sizes[other]).sum()) > max_pairs:
        return None
    at, lefts = _ranges(begins[groups], sizes[groups])
    again, rights = _ranges(begins[other][at], sizes[other][at])
    of_pair, lefts, rights = pair[at[again]], members[lefts[again]], members[rights]
    counts = nodes.conditions.hold(lefts, rights) & ((of_pair < len(left)) | (lefts < rights))
    return lefts[counts].astype(np.uint32), rights[counts].astype(np.uint32), of_pair[counts]


def _ranges(begins: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[I64, I64]:
    """Return the numbers from each begin on, as many as its size, and before them which range each is of."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + begins[number]


def _nothing_joined(n: int) -> tuple[U32, U16, U16]:
    return np.zeros(n, np.uint32), np.zeros(n, np.uint16), np.full(n, FAR, np.uint16)


class _ComponentSearch:
    """The task that searches some components; each call takes some milliseconds."""

    def __init__(self, starts: I64, *arguments: Any) -> None:
        self._starts, self._arguments = starts, arguments
        self._cursor = np.array([0, -1, 0, 0, 0, 0], np.int64)
        longest = int(np.diff(starts).max())
        self._work = np.empty(longest, np.uint32), np.empty(longest, np.uint16), np.empty(longest, np.uint32)

    @property
    def finished(self) -> bool:
        """Whether all components were searched."""
        return bool(self._cursor[0] >= len(self._starts) - 1)

    def __call__(self) -> None:
        """Search a part."""
        versions, *others = self._arguments
        spread(versions, self._starts, *others, *self._work, self._cursor, _STEPS_PER_CALL)

    def then(self) -> tuple[()]:
        """Return no tasks."""
        return ()


def _spread(
    words: U64,
    components: npt.NDArray[Any],
    order: U32,
    radius: int,
    conditions: Conditions,
    chains: bool,
    bits: TurnedBits | None,
) -> tuple[U32, U16, U16]:
    """Return the root of each node, where it joins it, and where the first other node joins each root."""
    n = len(words)
    members, starts = members_of(components, order)
    # Nodes of one component stand together in memory.
    words = np.ascontiguousarray(words[members])
    versions = words if bits is None else every_turn(words, bits)
    across = np.zeros(0, np.uint32) if conditions.across is None else conditions.across[members]
    place = np.empty(n, np.uint32)
    place[members] = np.arange(n, dtype=np.uint32)
    pairs = None if conditions.excluded is None else (place[conditions.excluded[0]], place[conditions.excluded[1]])
    excluded = _neighbours(n, pairs)
    roots, joined, nearest = _nothing_joined(n)
    stamp = np.zeros(n if len(excluded[1]) else 1, np.uint32)
    sizes = np.diff(starts)
    work = np.cumsum(sizes * sizes)
    n_tasks = 1 if not n or work[-1] < _STEPS_PER_CALL // 10 else 8 * n_threads()
    cuts = np.unique(np.searchsorted(work, np.linspace(0, work[-1] if n else 0, n_tasks + 1)[1:-1]))
    spans = pairwise([0, *(cut for cut in cuts.tolist() if 0 < cut < len(sizes)), len(sizes)])
    tasks = [
        _ComponentSearch(starts[a : b + 1], versions, radius, chains, across, *excluded, roots, joined, nearest, stamp)
        for a, b in spans
        if b > a
    ]
    finish_tasks(tasks, None)
    return members[roots][place], joined[place], nearest[place]


def _neighbours(n: int, pairs: tuple[U32, U32] | None) -> tuple[I64, U32]:
    """Return where the others of each row begin, and the others."""
    if pairs is None or not len(pairs[0]):
        return np.zeros(0, np.int64), np.zeros(0, np.uint32)
    rows, others = np.concatenate(pairs), np.concatenate(pairs[::-1])
    by_row = np.argsort(rows, kind="stable")
    return np.searchsorted(rows[by_row], np.arange(n + 1)).astype(np.int64), others[by_row]


def _joint(values: npt.NDArray[Any], others: npt.NDArray[Any]) -> I64:
    """Return a number for each row, the same where both values are equal, ascending with them."""
    number: I64 = np.unique(values.astype(np.int64) << 32 | others.astype(np.int64), return_inverse=True)[1]
    return number


def _keys(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> I64:
    """Return a number for each pair of rows, whatever their order."""
    keys: I64 = np.minimum(left, right).astype(np.int64) << 32 | np.maximum(left, right).astype(np.int64)
    return keys
