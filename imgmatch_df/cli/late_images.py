"""Encoded images of a table, which are read again when the result is written, so that not all are in memory."""

from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.cli.formats import Format, byte_columns
from imgmatch_df.cli.outputs import PARQUET
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.frames.layout import arranged, without_bytes

# Column of row numbers in `LateImages.rows`. No output has it.
NUMBER: Final = "__imgmatch_late"


class LateImages(NamedTuple):
    """The rows of a table without its images, and the images.

    Parameters
    ----------
    rows
        The hashed rows, with their numbers as the column `NUMBER`. Structs have no bytes.
    images
        The columns with images, and `NUMBER`.
    schema
        Schema of the hashed rows with the images.
    """

    rows: pl.LazyFrame
    images: pl.LazyFrame
    schema: pl.Schema

    def restore(self, result: pl.DataFrame) -> pl.LazyFrame:
        """Return some rows with new columns, in the order of the table, with their images."""
        late = [name for name in self.images.collect_schema() if name != NUMBER]
        new = [name for name in result.columns if name not in self.schema and name != NUMBER]
        wanted = result[NUMBER].implode()
        order = arranged(new, {name: self.schema[name] for name in self.schema if name in (*result.columns, *late)})
        images = self.images.filter(pl.col(NUMBER).is_in(wanted))
        rows = result.drop(late, strict=False).lazy()
        return images.join(rows, on=NUMBER, how="inner", maintain_order="left").select(order)


def set_images_aside(
    hashed: pl.LazyFrame, table: SourceTable, output: Format | None, within: str | None
) -> LateImages | None:
    """Return the rows of a table without the columns of images that a Parquet output has; None if there are none.

    Parameters
    ----------
    hashed
        The hashed rows.
    table
        The table of the rows.
    output
        Format of the output, None for the screen.
    within
        A column that is compared, or None.
    """
    schema = hashed.collect_schema()
    own = table.frame.collect_schema()
    late = [name for name in byte_columns(schema) if name in own and name != within]
    if output is not PARQUET or not late:
        return None
    rows = hashed.with_row_index(NUMBER)
    for name in late:
        left = without_bytes(pl.col(name), schema[name])
        rows = rows.drop(name) if left is None else rows.with_columns(left[0].alias(name))
    return LateImages(rows, table.frame.select(late).with_row_index(NUMBER), schema)
