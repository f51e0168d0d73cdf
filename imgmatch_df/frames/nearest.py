"""The nearest reference rows of each row, found in parts where there are too many pairs to hold at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from imgmatch_df.columns import DISTANCE
from imgmatch_df.errors import TooManyPairsError
from imgmatch_df.frames.flat import with_identical

if TYPE_CHECKING:
    from imgmatch_df.frames.checks import JoinSide
    from imgmatch_df.frames.comparison import Comparison
    from imgmatch_df.matching.join import Progress


def nearest_pairs(
    comparison: "Comparison",
    queries: "JoinSide",
    references: "JoinSide",
    k: int,
    max_pairs: int,
    progress: "Progress | None",
    counted: Callable[[Any], Any],
) -> Any:
    """Return the pairs of each query row with its `k` nearest reference rows, nearest first, ties in row order.

    Parameters
    ----------
    comparison
        How rows are compared.
    queries, references
        Both sides.
    k
        Maximum number of pairs of a query row.
    max_pairs
        Maximum number of pairs that are held at once. Query rows that have more are compared in parts.
    progress
        Called with (done, total) for each part.
    counted
        Returns those of some pairs of rows that count.

    Raises
    ------
    TooManyPairsError
        If one query row has more than `max_pairs` pairs.
    """
    import numpy as np

    if queries.flat.rows.size:
        queries.flat.warn_of_unknown()
    parts, found = [(0, queries.n_rows)], []
    while parts:
        first, end = parts.pop()
        try:
            pairs = _pairs_of_part(comparison, queries, references, first, end, max_pairs, progress)
        except TooManyPairsError:
            if end - first < 2:
                raise
            middle = (first + end) // 2
            parts += [(middle, end), (first, middle)]
            continue
        found.append(_first_of_each(comparison, counted(pairs), k))
    return type(found[0])(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _pairs_of_part(
    comparison: "Comparison",
    queries: "JoinSide",
    references: "JoinSide",
    first: int,
    end: int,
    max_pairs: int,
    progress: "Progress | None",
) -> Any:
    """Return the pairs of the query rows from `first` to before `end`."""
    import numpy as np

    start, stop = np.searchsorted(queries.rows, (first, end))
    pairs = comparison.cross_pairs(queries.words[start:stop], references.words, max_pairs, progress)
    pairs = pairs._replace(
        left=queries.rows_of(pairs.left.astype(np.int64) + start), right=references.rows_of(pairs.right)
    )
    if not queries.flat.rows.size:
        return pairs
    is_here = np.zeros(queries.n_rows, np.bool_)
    is_here[first:end] = True
    return with_identical(pairs, queries.flat.among(is_here).pairs_with(references.flat, max_pairs))


def _first_of_each(comparison: "Comparison", pairs: Any, k: int) -> Any:
    """Return the `k` nearest pairs of each left row, sorted by left, then nearest first, then right."""
    import numpy as np

    if comparison.measure == DISTANCE:
        far = pairs.distance
    else:  # identical files have no votes, and are nearest
        far = np.where(pairs.votes == 0, 0, 256 - pairs.votes.astype(np.int64))
    order = np.lexsort((pairs.right, far, pairs.left))
    left = pairs.left[order]
    is_start = np.ones(len(left), np.bool_)
    is_start[1:] = left[1:] != left[:-1]
    starts = np.flatnonzero(is_start)
    place = np.arange(len(left)) - np.repeat(starts, np.diff(np.append(starts, len(left))))
    kept = order[place < k]
    return type(pairs)(*(column[kept] for column in pairs))
