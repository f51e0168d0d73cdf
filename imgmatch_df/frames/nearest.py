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
    parts: list[tuple[int, int]] = [(0, queries.n_rows)]
    found: list[Any] = []
    pairs = _pairs_of_each(comparison, queries, references, k, max_pairs, progress)
    if pairs is not None:
        is_full = np.bincount(pairs.left, minlength=queries.n_rows) >= k + 1
        pairs = counted(pairs)
        # Of a query row whose other pairs do not count there may be further ones.
        is_short = is_full & (np.bincount(pairs.left, minlength=queries.n_rows) < k)
        edges = np.flatnonzero(np.diff(is_short, prepend=False, append=False)).tolist()
        parts = list(zip(edges[::2], edges[1::2], strict=True))
        found.append(_first_of_each(comparison, type(pairs)(*(column[~is_short[pairs.left]] for column in pairs)), k))
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
    every = type(found[0])(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    return every if len(found) == 1 else _first_of_each(comparison, every, k)


def _pairs_of_each(
    comparison: "Comparison",
    queries: "JoinSide",
    references: "JoinSide",
    k: int,
    max_pairs: int,
    progress: "Progress | None",
) -> Any:
    """Return the pairs of each query row with its `k` + 1 nearest reference rows, None where a join is as fast."""
    if (k + 1) * len(queries.words) > max_pairs:
        return None
    pairs = comparison.nearest_of_each(queries.words, references.words, k + 1, progress)
    if pairs is None:
        return None
    pairs = pairs._replace(left=queries.rows_of(pairs.left), right=references.rows_of(pairs.right))
    if not queries.flat.rows.size:
        return pairs
    return with_identical(pairs, queries.flat.pairs_with(references.flat, max_pairs))


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
