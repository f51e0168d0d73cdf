"""New rows against known ones: clusters of what is new, and which known row each of the others matches."""

from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.grouping import Keep, Linkage, cluster
from imgmatch_df.pairing import match
from imgmatch_df.schema import (
    CLUSTER_ID,
    DISTANCE,
    HASH_KINDS,
    KEPT,
    QUERY_ID,
    REFERENCE_ID,
    REPRESENTATIVE_ID,
)

_ROW: Final = "__imgmatch_row"


class Stored(NamedTuple):
    """Known rows: a frame that has hashes, the column that names its rows (None: their numbers), that of sources."""

    frame: pl.DataFrame
    id: str | None
    source: str | None = None

    @property
    def sources(self) -> pl.Series | None:
        """The sources, where they are known."""
        return self.frame[self.source] if self.source in self.frame.columns else None


def cluster_new(
    frame: pl.DataFrame,
    stored: Stored | None,
    radius: int,
    hash_type: str,
    *,
    linkage: Linkage,
    keep: Keep,
    id: str | None = None,
    progress: bool = False,
) -> pl.DataFrame:
    """Return every row with its cluster, or with the stored row that it matches.

    A row that is within the radius of a stored row is not kept, and takes no part in clusters; the others are clustered
    among themselves.

    Parameters
    ----------
    frame, radius, hash_type, linkage, keep, id
        As `cluster`.
    stored
        The known rows; None for `cluster` alone.
    progress
        Whether to show a bar on a terminal.

    Returns
    -------
    DataFrame
        The rows in order, and the columns of `cluster`. With `stored`, also ``reference_id``, null but for a row that
        matches: there it names the nearest stored row (the first of several), ``distance`` is the one to that, ``kept``
        is false, and the other columns are null.
    """
    if stored is None:
        return cluster(frame, radius, hash_type, linkage=linkage, keep=keep, id=id, progress=progress)
    made = [CLUSTER_ID, REPRESENTATIVE_ID, DISTANCE, KEPT, REFERENCE_ID]
    numbered = frame.drop([name for name in made if name != id], strict=False).with_row_index(_ROW)
    nearest = _nearest_stored(frame, stored, radius, hash_type, progress=progress)
    matched = numbered.join(nearest, on=hash_type, how="inner").with_columns(pl.lit(value=False).alias(KEPT))
    unmatched = numbered.join(nearest, on=hash_type, how="anti").sort(_ROW)
    clustered = cluster(
        unmatched, radius, hash_type, linkage=linkage, keep=keep, id=_ROW if id is None else id, progress=progress
    )
    return pl.concat([clustered, matched], how="diagonal").sort(_ROW).drop(_ROW)


def _nearest_stored(
    frame: pl.DataFrame, stored: Stored, radius: int, hash_type: str, *, progress: bool
) -> pl.DataFrame:
    """Return each hash that matches with the nearest stored row and its distance."""
    # Equal hashes once on either side: a thousand blank pictures against a million would be a billion pairs.
    dtype = HASH_KINDS[hash_type].dtype
    asked = frame.select(pl.col(hash_type).cast(dtype)).drop_nulls().unique(maintain_order=True)
    known = stored.frame.with_row_index(_ROW).drop_nulls(hash_type).unique(hash_type, keep="first", maintain_order=True)
    pairs = match(asked, known, radius, hash_type, id=hash_type, stored_id=stored.id or _ROW, progress=progress)
    # Pairs come in the order of the stored rows, so that the first of the nearest is the first stored.
    nearest = pairs.sort(DISTANCE, maintain_order=True).unique(QUERY_ID, keep="first", maintain_order=True)
    return nearest.rename({QUERY_ID: hash_type})
