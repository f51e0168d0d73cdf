"""Comparison by Hamming distances, of hashes as they are or in the eight turns of an image."""

from typing import TYPE_CHECKING, Any

import polars as pl

from imgmatch_df.columns import DISTANCE, DISTANCE_DTYPE, TURN, TURN_DTYPE
from imgmatch_df.frames.checks import turn_series
from imgmatch_df.frames.comparison import Comparison, Linked
from imgmatch_df.frames.large_clusters import warn_of_near
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.hashes.turns import turned_bits
from imgmatch_df.matching.linkages import LINKAGES

if TYPE_CHECKING:
    from imgmatch_df._kernels.arrays import I64, U8, U16, U32, U64
    from imgmatch_df.matching.conditions import Conditions
    from imgmatch_df.matching.join import Progress


class ByDistance(Comparison):
    """Near-duplicates are within a radius.

    Parameters
    ----------
    kind
        What is compared.
    radius
        Maximum distance, in bits; a ranking has none.
    turns
        Whether to compare all turns; raises `ArgumentError` where the bits of the kind do not give them.
    """

    measure = DISTANCE
    measures_itself = True
    has_diameters = True
    default_linkage = "connected"

    def __init__(self, kind: HashKind, radius: int, *, turns: bool) -> None:
        super().__init__(kind)
        self.radius = radius
        self.bits = turned_bits(kind) if turns else None

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The columns of a pair."""
        return {DISTANCE: DISTANCE_DTYPE, **({} if self.bits is None else {TURN: TURN_DTYPE})}

    @property
    def equal_only(self) -> bool:
        """Whether the radius is 0."""
        return self.radius == 0

    @property
    def directed(self) -> bool:
        """Whether pairs have a turn, that of the left side."""
        return self.bits is not None

    def self_pairs(self, words: "U64", max_pairs: int, progress: "Progress | None") -> Any:
        """Return the pairs within the radius."""
        from imgmatch_df.matching import join, turned

        if self.bits is None:
            return join.self_join(words, self.radius, self.kind.n_bits, max_pairs=max_pairs, progress=progress)
        return turned.turned_self_join(words, self.radius, self.bits, max_pairs=max_pairs, progress=progress)

    def cross_pairs(self, queries: "U64", references: "U64", max_pairs: int, progress: "Progress | None") -> Any:
        """Return the pairs of both sides within the radius."""
        from imgmatch_df.matching import join, turned

        sides = queries, references
        if self.bits is None:
            return join.cross_join(*sides, self.radius, self.kind.n_bits, max_pairs=max_pairs, progress=progress)
        return turned.turned_cross_join(*sides, self.radius, self.bits, max_pairs=max_pairs, progress=progress)

    def measures(self, pairs: Any) -> dict[str, pl.Series]:
        """Return the distance, and the turn where turns are compared."""
        return self._columns(pairs.distance, None if self.bits is None else pairs.turn)

    def rank(self, query: int | bytes, column: pl.Series, k: int | None) -> "tuple[U32, dict[str, pl.Series]]":
        """Return the nearest hashes at any distance."""
        from imgmatch_df.matching import ranking, turned

        hashes = codec.hash_words(column) if self.kind.is_number else codec.hash_views(column, self.kind)
        (one,) = codec.hash_words(pl.Series([query], dtype=self.kind.dtype))
        if self.bits is None:
            nearest, distance = ranking.top_k(one, hashes, k)
            return nearest, self._columns(distance, None)
        nearest, distance, turn = turned.turned_top_k(one, hashes, self.bits, k)
        return nearest, self._columns(distance, turn)

    def _columns(self, distance: "U16", turn: "U8 | None") -> dict[str, pl.Series]:
        columns = {DISTANCE: pl.Series(distance, dtype=DISTANCE_DTYPE)}
        return columns if turn is None else {**columns, TURN: turn_series(turn)}

    def nearest(self, queries: "U64", references: "U64", progress: "Progress | None") -> "tuple[I64, U16]":
        """Return the nearest reference of each query within the radius, and the distance."""
        from imgmatch_df.matching import join, turned

        if self.bits is None:
            return join.nearest(queries, references, self.radius, self.kind.n_bits, progress=progress)
        return turned.turned_nearest(queries, references, self.radius, self.bits, progress=progress)

    def nearest_of_each(self, queries: "U64", references: "U64", k: int, progress: "Progress | None") -> Any:
        """Return the pairs of each query with its `k` nearest references, None where a join is as fast."""
        from imgmatch_df.matching import neighbours

        if self.bits is not None or not neighbours.is_faster(queries, references, self.radius, self.kind.n_bits):
            return None
        return neighbours.nearest_k(queries, references, k, self.radius, self.kind.n_bits, progress=progress)

    def components(self, words: "U64", progress: "Progress | None") -> "U32":
        """Return the components of the graph of all pairs within the radius."""
        from imgmatch_df.matching import join, turned

        if self.bits is None:
            return join.connect(words, self.radius, self.kind.n_bits, progress=progress)
        return turned.turned_connect(words, self.radius, self.bits, progress=progress)

    def link(
        self,
        words: "U64",
        linkage: str,
        order: "U32",
        conditions: "Conditions | None",
        progress: "Progress | None",
        *,
        with_joined: bool,
    ) -> Linked:
        """Return the representatives, the distances to them, and the radii at which they are joined."""
        from imgmatch_df.matching import clusters, join, turned
        from imgmatch_df.matching import conditions as matching_conditions

        grows = LINKAGES[linkage].grows
        components = self.components(words, progress)
        joined = None
        if conditions is None:
            found = LINKAGES[linkage].find_representatives(words, self.radius, components, order, self.bits)
        else:
            equal, chains = join.first_equal(words), grows == "chains"
            found, joined = matching_conditions.link_rows(
                words, components, equal, order, self.radius, conditions, chains=chains, bits=self.bits
            )
        if self.bits is None:
            measure = clusters.representative_distances(words, found)
        else:
            measure = turned.turned_representative_distances(words, found, self.bits)
        if joined is None and with_joined:
            joined = measure
            if grows == "chains":
                joined = matching_conditions.chained_radii(
                    words, found, measure, self.radius, self.kind.n_bits, self.bits
                )
        return Linked(found, measure, joined)

    def explain(self, words: "U64") -> str:
        """Return the plan of the join."""
        from imgmatch_df.matching import join, turned

        if self.bits is None:
            return str(join.explain(words, self.radius, self.kind.n_bits))
        return turned.explain_turned(words, self.radius, self.bits)

    def warn_of_large(self, linked: Linked, linkage: str) -> None:
        """Warn of a large cluster, with its largest distance."""
        warn_of_near(linked.representative, linked.measure, self.radius, self.kind, linkage)

    def diameters(self, words: "U64", representative: "U32", *, equal_together: bool) -> "U16":
        """Return the largest distance in the cluster of each hash, in bits."""
        from imgmatch_df.matching import clusters, join, turned

        if self.bits is None:
            return clusters.diameters(words, representative, join.first_equal(words) if equal_together else None)
        return turned.turned_diameters(words, representative, self.bits)
