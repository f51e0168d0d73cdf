"""What each minimum number of votes finds in a frame of local hashes, as `frames.advice` for radii.

Pairs of unrelated images have few votes, and each further vote leaves a fixed share of them. Copies have many. So the
pairs with 4 to 7 votes of the frame itself show how many of those with more votes are of unrelated images.
"""

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.columns import (
    FEWEST_VOTES,
    N_CLUSTERS,
    N_LARGEST,
    N_PAIRS,
    N_REMOVED,
    N_UNRELATED,
    ROW_DTYPE,
    UNRELATED_SHARE,
    VOTES_DTYPE,
)
from imgmatch_df.frames.suggestions import MOST_VOTES
from imgmatch_df.frames.votes import ByVotes
from imgmatch_df.hashes.kinds import HashKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.frames.checks import JoinSide

LEAST_SHOWN: Final = 5  # votes, by default
VOTE_FIELDS: Final[dict[str, Any]] = {
    FEWEST_VOTES: VOTES_DTYPE,
    N_PAIRS: pl.UInt64(),
    N_CLUSTERS: ROW_DTYPE,
    N_REMOVED: ROW_DTYPE,
    N_LARGEST: ROW_DTYPE,
    N_UNRELATED: pl.Float64(),
    UNRELATED_SHARE: pl.Float64(),
}
_FEW: Final = 4  # votes from which the estimate starts
# The share of the pairs of unrelated images that one more vote leaves: 0.36 of clothes laid flat, 0.7 of drawn shapes.
_TYPICAL: Final = 0.4
_MOST_PER_VOTE: Final = 0.7
_WEIGHT: Final = 25  # pairs that the typical share counts as


def profile_votes(side: "JoinSide", kind: HashKind, least: int, max_pairs: int, step: Any) -> pl.DataFrame:
    """Return what each minimum number of votes from 64 to `least` finds: the columns `VOTE_FIELDS`."""
    import numpy as np

    from imgmatch_df.matching.clusters import star_of_pairs

    pairs = ByVotes(kind, min(least, _FEW), turns=True).self_pairs(side.words, max_pairs, step)
    n_rows = len(side.words)
    counts = np.bincount(pairs.votes, minlength=MOST_VOTES + 1)
    n_pairs = np.cumsum(counts[::-1])[::-1]
    order = np.arange(n_rows, dtype=np.uint32)
    clusters = np.array([0, 0, min(1, n_rows)])
    rows = []
    for votes in range(MOST_VOTES, least - 1, -1):
        if counts[votes]:
            holds = pairs.votes >= votes
            sizes = np.bincount(star_of_pairs(n_rows, pairs.left[holds], pairs.right[holds], order))
            shared = sizes[sizes > 1]
            clusters = np.array([len(shared), shared.sum() - len(shared), sizes.max()])
        rows.append((votes, n_pairs[votes], *clusters))
    columns = np.array(rows, np.int64).T
    n_unrelated = np.minimum(_expected_unrelated(counts)[columns[0]], columns[1])
    values = [*columns, n_unrelated, n_unrelated / np.maximum(columns[1], 1)]
    return pl.DataFrame(dict(zip(VOTE_FIELDS, values, strict=True)), schema_overrides=VOTE_FIELDS)


def _expected_unrelated(counts: "NDArray[Any]") -> "NDArray[Any]":
    """Return the expected pairs of unrelated images with at least 0, 1, ... votes: (65,) float64.

    Parameters
    ----------
    counts
        (65,): pairs with exactly so many votes; those with 4 to 7 are used.
    """
    import numpy as np

    few, more = counts[_FEW : _FEW + 2].sum(), counts[_FEW + 2 : _FEW + 4].sum()
    # Copies with few votes make the share larger, and the estimate too: both bounds hold it.
    per_vote = np.clip(np.sqrt((more + _TYPICAL**2 * _WEIGHT) / (few + _WEIGHT)), _TYPICAL, _MOST_PER_VOTE)
    # Half a pair more: none of few pairs may be some of many.
    at_few = (few + 0.5) / (1 - per_vote**2)
    return np.asarray(at_few * per_vote ** (np.arange(MOST_VOTES + 1.0) - _FEW))
