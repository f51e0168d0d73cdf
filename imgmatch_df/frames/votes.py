"""Comparison of local hashes by votes: how many points of two images agree on one placement."""

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.columns import COVERAGE, SCALE, SHIFT_X, SHIFT_Y, TURN, TURN_DTYPE, VOTES, VOTES_DTYPE
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.checks import turn_series
from imgmatch_df.frames.comparison import Comparison, Linked
from imgmatch_df.frames.large_clusters import warn_of_voted
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.matching.linkages import LINKAGES

if TYPE_CHECKING:
    from imgmatch_df._kernels.arrays import I64, U16, U32, U64
    from imgmatch_df.matching.conditions import Conditions
    from imgmatch_df.matching.join import Progress
    from imgmatch_df.matching.placement import Copies
    from imgmatch_df.matching.points import Points
    from imgmatch_df.matching.shared_points import KeptPoints

MIN_VOTES: Final = 8


class ByVotes(Comparison):
    """Near-duplicates have a minimum number of votes.

    Parameters
    ----------
    kind
        What is compared.
    min_votes
        Minimum number of votes.
    turns
        Whether to compare all turns.
    kept_points
        Which points make candidates, as decided over more images than those that are compared; None decides over these.
    """

    measure = VOTES
    measures_itself = False
    has_diameters = False
    default_linkage = "star"  # a collage is a copy of each image in it, and "connected" would join these

    def __init__(self, kind: HashKind, min_votes: int, *, turns: bool, kept_points: "KeptPoints | None" = None) -> None:
        super().__init__(kind)
        self.min_votes, self.turns, self.kept_points = min_votes, turns, kept_points

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The columns of a pair."""
        numbers = dict.fromkeys((SCALE, SHIFT_X, SHIFT_Y, COVERAGE), pl.Float32())
        return {VOTES: VOTES_DTYPE, TURN: TURN_DTYPE, **numbers}

    @property
    def equal_only(self) -> bool:
        """Copies are never equal only."""
        return False

    @property
    def directed(self) -> bool:
        """Pairs have a placement, that of the left image in the right one."""
        return True

    def with_kept_points(self, kept_points: "KeptPoints | None") -> "ByVotes":
        """Return the same comparison with other points that make candidates."""
        return ByVotes(self.kind, self.min_votes, turns=self.turns, kept_points=kept_points)

    def self_pairs(self, words: "U64", max_pairs: int, progress: "Progress | None") -> "Copies":
        """Return the pairs with enough votes."""
        from imgmatch_df.matching import copies

        return copies.self_copies(
            points_of_words(words, self.kind),
            self.min_votes,
            turns=self.turns,
            max_pairs=max_pairs,
            kept_points=self.kept_points,
            progress=progress,
        )

    def cross_pairs(self, queries: "U64", references: "U64", max_pairs: int, progress: "Progress | None") -> "Copies":
        """Return the pairs of both sides with enough votes."""
        from imgmatch_df.matching import copies

        return copies.match_copies(
            points_of_words(queries, self.kind),
            points_of_words(references, self.kind),
            self.min_votes,
            turns=self.turns,
            max_pairs=max_pairs,
            kept_points=self.kept_points,
            progress=progress,
        )

    def explain(self, words: "U64") -> str:
        """Return the numbers of images, points and candidates, as text."""
        from imgmatch_df.matching import copies

        found = copies.explain_copies(points_of_words(words, self.kind), turns=self.turns)
        return (
            f"votes; min_votes {self.min_votes}; {found.n_images:,} different images with {found.n_points:,} points, "
            f"{found.n_set_aside:,} set aside because many images share them; {found.n_candidates:,} candidates"
        )

    def measures(self, pairs: Any) -> dict[str, pl.Series]:
        """Return the votes and the placement."""
        dtypes = self.dtypes
        columns = {name: pl.Series(getattr(pairs, name), dtype=dtypes[name]) for name in dtypes if name != TURN}
        return {name: turn_series(pairs.turn) if name == TURN else columns[name] for name in dtypes}

    def rank(self, query: int | bytes, column: pl.Series, k: int | None) -> "tuple[U32, dict[str, pl.Series]]":
        """Return the images with the most votes, those with enough."""
        import numpy as np

        one = codec.hash_words(pl.Series([query], dtype=self.kind.dtype), self.kind)
        found = self.cross_pairs(one, codec.hash_words(column, self.kind), max(1, len(column)), None)
        order = np.argsort(-found.votes.astype(np.int16), kind="stable")[:k]
        return found.right[order], {name: column.gather(order) for name, column in self.measures(found).items()}

    def nearest(self, queries: "U64", references: "U64", progress: "Progress | None") -> "tuple[I64, U16]":
        """Return the reference with the most votes for each query, and the votes."""
        import numpy as np

        from imgmatch_df.matching.copy_clusters import MAX_LINKS

        found = self.cross_pairs(queries, references, MAX_LINKS, progress)
        order = np.lexsort((found.right, -found.votes.astype(np.int16), found.left))
        best = order[np.flatnonzero(np.diff(found.left[order].astype(np.int64), prepend=-1))]
        rows, votes = np.full(len(queries), -1, np.int64), np.zeros(len(queries), np.uint16)
        rows[found.left[best]], votes[found.left[best]] = found.right[best], found.votes[best]
        return rows, votes

    def nearest_of_each(self, *_: object) -> None:
        """Return None: votes are counted by a join."""

    def components(self, words: "U64", progress: "Progress | None") -> "U32":
        """Return the components of the graph of all pairs with enough votes."""
        from imgmatch_df.matching.clusters import connected
        from imgmatch_df.matching.copy_clusters import MAX_LINKS

        pairs = self.self_pairs(words, MAX_LINKS, progress)
        return connected(len(words), pairs.left, pairs.right)

    def link(
        self,
        words: "U64",
        linkage: str,
        order: "U32",
        conditions: "Conditions | None",
        progress: "Progress | None",
        *,
        with_joined: bool,  # noqa: ARG002  # costs nothing
    ) -> Linked:
        """Return the representatives, the votes for the placement in them, and those with which they are joined."""
        from imgmatch_df.matching import copy_clusters, join

        return Linked(
            *copy_clusters.link_copies(
                points_of_words(words, self.kind),
                join.first_equal(words),
                self.min_votes,
                LINKAGES[linkage],
                order,
                turns=self.turns,
                kept_points=self.kept_points,
                conditions=copy_clusters.NO_CONDITIONS if conditions is None else conditions,
                progress=progress,
            )
        )

    def check_linkage(self, linkage: str) -> None:
        """Raise `ArgumentError` where the linkage needs distances."""
        if LINKAGES[linkage].of_pairs is None:
            raise ArgumentError(
                f"linkage={linkage!r} needs distances, and {self.kind.name} is compared by votes\n"
                f"Hint: linkage={self.default_linkage!r}."
            )

    def warn_of_large(self, linked: Linked, linkage: str) -> None:
        """Warn of a large cluster, with its smallest number of votes."""
        warn_of_voted(linked.representative, linked.measure, self.min_votes, linkage)


def points_of_words(words: "U64", kind: HashKind) -> "Points":
    """Return the points of hashes, from their words (n, n_words)."""
    from imgmatch_df.hashes.local import unpack
    from imgmatch_df.matching.points import Points

    return Points(*unpack(words.view("u1")[:, : kind.n_bytes]))
