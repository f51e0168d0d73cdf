"""Expressions that make local hashes, and that show the points in them."""

from typing import Unpack

import polars as pl

from imgmatch_df.columns import POINTS_DTYPE
from imgmatch_df.frames.expressions import column_expr, map_column, perceptual_hash
from imgmatch_df.hashes.kinds import LOCAL
from imgmatch_df.options import SourceOptions


def local(source: pl.Expr | str, **options: Unpack[SourceOptions]) -> pl.Expr:
    """Return the local hashes of each image: up to 64 points, each with a hash of what is around it.

    For copies that were cropped, framed, captioned or are part of a screenshot, which no hash of the whole image finds.
    An image with nothing to see has no points. A row that fails is null; `visual_hash` reports why.

    Parameters
    ----------
    source
        Column of images, by name or expression, see `phash`.
    **options
        See `Options`.

    Returns
    -------
    Expr
        ``local: Binary``, 715 bytes; `to_points` shows the points. The guide "Local hashes" has the definition.

    Raises
    ------
    ArgumentError
        If an option is unknown or its value is not allowed.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.local(pl.lit("no-such-file.jpg"))).to_series().to_list()
    [None]
    """
    return perceptual_hash(source, LOCAL.name, **options)


def to_points(local: pl.Expr | str) -> pl.Expr:
    """Return the points of local hashes.

    Parameters
    ----------
    local
        Column of local hashes, by name or expression.

    Returns
    -------
    Expr
        ``List(Struct{hash: UInt64, x: UInt8, y: UInt8, level: UInt8})`` under the column's own name, null where the
        hash is null. x and y are pixels of the image without borders, resized to a longest side of 224; `level` is 0
        for a patch of 40 pixels there, 6 for one of 113.

    Raises
    ------
    ColumnError
        When the query runs, if a value is not a local hash.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.to_points(pl.lit(None, dtype=pl.Binary))).item()
    """
    return map_column(column_expr(local), _points, POINTS_DTYPE)


def _points(local: pl.Series) -> pl.Series:
    from imgmatch_df.hashes.local import unpack_points

    return unpack_points(local)
