"""Expressions that write and read hashes of 64 bits as signed numbers, for formats that have no unsigned ones."""

import polars as pl

from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.expressions import column_expr, map_column
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import is_whole


def to_int64(hashes: pl.Expr | str) -> pl.Expr:
    """Return hashes of 64 bits as signed numbers with the same bits, for Delta, Iceberg, Spark and Postgres.

    Parameters
    ----------
    hashes
        Column of `UInt64` hashes, such as ``phash``, or of `Int64` ones, by name or expression.

    Returns
    -------
    Expr
        `Int64` under the column's own name, null where the hash is null. A hash of at least 2**63 is negative.

    Raises
    ------
    ColumnError
        When the query runs, if the column has another dtype.

    Notes
    -----
    All verbs take such columns as they are.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.to_int64(pl.lit(2**64 - 1, dtype=pl.UInt64))).item()
    -1
    """
    return map_column(column_expr(hashes), _signed, pl.Int64())


def from_int64(numbers: pl.Expr | str) -> pl.Expr:
    """Return the hashes of 64 bits that whole numbers, signed or unsigned, stand for.

    Parameters
    ----------
    numbers
        Column of `Int64`, `UInt64`, `Int128` or `Decimal` numbers without a fraction, by name or expression.

    Returns
    -------
    Expr
        `UInt64` under the column's own name, null where the number is null.

    Raises
    ------
    ColumnError
        When the query runs, if the column has another dtype, or a number does not fit into 64 bits.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.from_int64(pl.lit(-1))).item() == 2**64 - 1
    True
    """
    return map_column(column_expr(numbers), _unsigned, pl.UInt64())


def _signed(hashes: pl.Series) -> pl.Series:
    if hashes.dtype not in (pl.UInt64, pl.Int64, pl.Null):
        raise ColumnError(
            f"column {hashes.name!r} has dtype {hashes.dtype}, a hash of 64 bits is UInt64\n"
            "Hint: Binary hashes need no conversion."
        )
    return hashes.cast(pl.Int64) if hashes.dtype == pl.Null else hashes.reinterpret(signed=True)


def _unsigned(numbers: pl.Series) -> pl.Series:
    if numbers.dtype != pl.Null and not is_whole(numbers.dtype):
        hint = "a Float has lost bits of the hash." if numbers.dtype.is_float() else "from_hex and from_bits read text."
        raise ColumnError(f"column {numbers.name!r} has dtype {numbers.dtype}, not whole numbers\nHint: {hint}")
    return codec.unsigned(numbers).cast(pl.UInt64)
