"""Short names of rows for messages: a path or a URL in one line, never the image itself."""

from typing import Final

import polars as pl

from imgmatch_df.columns import SOURCE
from imgmatch_df.image_columns import text_of
from imgmatch_df.sources import Source, describe, parse_source

# The column of row numbers next to the names of rows; frames of users have no column of this name.
ROW: Final = "imgmatch row"

_MAX_TEXT: Final = 4200
_MAX_CHARS: Final = 200


def source_text(schema: pl.Schema, source: str | None) -> pl.Expr:
    """Return the text that names each row, as the column ``source``; null if the row number is the only name.

    Parameters
    ----------
    schema
        Schema of the frame with the rows.
    source
        The column of sources; None, or a column that is not in `schema`, if there is none.
    """
    text = None if source is None or source not in schema else text_of(pl.col(source), schema[source])
    if text is None and source is not None and source in schema and not schema[source].is_nested():
        text = None if schema[source] in (pl.Binary, pl.Null) else pl.col(source).cast(pl.String)
    if text is None:
        return pl.lit(None, pl.String).alias(SOURCE)
    # Longer text is not a path, and this prefix is enough to detect base64.
    return text.str.slice(0, _MAX_TEXT).alias(SOURCE)


def source_texts(rows: pl.DataFrame, source: str | None) -> pl.Series:
    """Return the text that names each row, as `source_text`, also where every text is null."""
    return rows.with_columns(source_text(rows.schema, source))[SOURCE]


def row_name(text: str | None, row: int) -> str:
    """Return one line that names a row: its shortened path or URL, or its number if the text is the image itself.

    Control characters are replaced and credentials removed.

    Parameters
    ----------
    text
        The value of `source_text`.
    row
        Row number, from 0.
    """
    start = "" if text is None else text.strip()
    if text is None or not start:
        return f"row {row:,}"
    if start[:5].lower() == "data:":
        return f"row {row:,} (a data: URI)"
    found = parse_source(text)
    if isinstance(found, Source) and found.kind == "base64":
        return f"row {row:,} (base64)"
    return describe(text, _MAX_CHARS)
