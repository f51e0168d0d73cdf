"""Rows between Polars and DuckDB: their types, and whether the table has positions."""

from typing import TYPE_CHECKING

import polars as pl

from imgmatch_df.columns import MODIFIED, STATUS

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection


def has_row_ids(connection: "DuckDBPyConnection", table: str) -> bool:
    """Return whether ``rowid`` is the position of a row in `table`, and not a column of that name."""
    sql = "SELECT count(*) FROM pragma_table_info(?) WHERE lower(name) = 'rowid'"
    return connection.execute(sql, [table]).fetchall() == [(0,)]


def as_typed(batch: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return rows of DuckDB with the types of a store."""
    zoned = [pl.col(MODIFIED).dt.replace_time_zone("UTC")] if MODIFIED in schema else []
    return batch.with_columns(zoned).cast(schema, strict=False)  # type: ignore[arg-type]


def as_stored(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows as DuckDB stores them."""
    return frame.with_columns(
        *([pl.col(STATUS).cast(pl.String)] if STATUS in frame.columns else []),
        *([pl.col(MODIFIED).dt.replace_time_zone(None)] if MODIFIED in frame.columns else []),
    )


def as_views(frame: pl.DataFrame) -> "pa.Table":
    """Return rows as DuckDB stores them, without a copy of their strings."""
    return as_stored(frame).rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
