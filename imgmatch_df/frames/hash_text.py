"""Expressions that write and read hashes as text: 0/1 strings, which are documented, and hexadecimal digits."""

from functools import partial

import polars as pl

from imgmatch_df.frames.expressions import column_expr, map_column
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import hash_kind


def to_bits(hashes: pl.Expr | str) -> pl.Expr:
    """Return hashes as the documented strings of 0 and 1.

    Parameters
    ----------
    hashes
        Hash column, whole numbers (64 characters, of signed ones too) or `Binary` (8 a byte, 968 for bmh1), by name
        or expression.

    Returns
    -------
    Expr
        `String` under the column's own name, null where the hash is null.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.to_bits(pl.lit(2**63, dtype=pl.UInt64))).item()[:8]
    '10000000'
    """
    return map_column(column_expr(hashes), codec.to_bits, pl.String())


def from_bits(bits: pl.Expr | str, hash_type: str) -> pl.Expr:
    """Return the hashes that documented strings of 0 and 1 stand for.

    Parameters
    ----------
    bits
        `String` column of 64 (phash) or 968 (bmh1) characters, by name or expression.
    hash_type
        Name of a hash kind, such as ``"bmh1"`` or ``"phash"``.

    Returns
    -------
    Expr
        The hash column's dtype under the column's own name, null where the string is null.

    Raises
    ------
    ArgumentError
        If there is no such hash type.
    ColumnError
        When the query runs, if a value is no such string.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.from_bits(pl.lit("1" + "0" * 63), "phash")).item() == 2**63
    True
    """
    kind = hash_kind(hash_type)
    return map_column(column_expr(bits), partial(codec.from_bits, kind=kind), kind.dtype)


def to_hex(hashes: pl.Expr | str) -> pl.Expr:
    """Return hashes as hexadecimal digits, as `str(hash)` of the package ImageHash does.

    Parameters
    ----------
    hashes
        Hash column, whole numbers (16 digits, of signed ones too) or `Binary` (2 for each byte), by name or expression.

    Returns
    -------
    Expr
        `String` in lower case under the column's own name, null where the hash is null.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.to_hex(pl.lit(255, dtype=pl.UInt64))).item()
    '00000000000000ff'
    """
    return map_column(column_expr(hashes), codec.to_hex, pl.String())


def from_hex(digits: pl.Expr | str, hash_type: str) -> pl.Expr:
    """Return the hashes that hexadecimal digits stand for.

    Parameters
    ----------
    digits
        `String` column of two digits for each byte of a hash, in any case, perhaps after ``0x``, by name or expression.
    hash_type
        Name of a hash kind, such as ``"imagehash_phash"``.

    Returns
    -------
    Expr
        The hash column's dtype under the column's own name, null where the string is null.

    Raises
    ------
    ArgumentError
        If there is no such hash type.
    ColumnError
        When the query runs, if a value is no such string.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.from_hex(pl.lit("00000000000000ff"), "phash")).item()
    255
    """
    kind = hash_kind(hash_type)
    return map_column(column_expr(digits), partial(codec.from_hex, kind=kind), kind.dtype)
