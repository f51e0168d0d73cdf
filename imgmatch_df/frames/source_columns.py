"""The column of images of a call: a column of the frame by its name, or an expression.

Verbs and stores read it here, so that each of them takes any expression, and every dtype of `image_columns`.
"""

from typing import NamedTuple

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.image_columns import dtype_text, holds_sources, is_image_struct, text_of
from imgmatch_df.options import check_name, shown

SourceColumn = str | pl.Expr
"""A column of images: a name, or any expression for one column."""


class CheckedSource(NamedTuple):
    """A column of images, checked.

    Parameters
    ----------
    expr
        Its values.
    name
        Its name: that of the column, or of the result of an expression.
    dtype
        Its dtype.
    column
        The column of the frame that it is; None for the result of any other expression.
    """

    expr: pl.Expr
    name: str
    dtype: pl.DataType
    column: str | None

    @property
    def text(self) -> pl.Expr | None:
        """The text that names the images: paths or URLs; None where the dtype has none."""
        return text_of(self.expr, self.dtype)

    @property
    def text_column(self) -> str | None:
        """The column of the frame that has this text; None where no column does."""
        is_nested = isinstance(self.dtype, pl.List | pl.Array) or is_image_struct(self.dtype)
        return None if is_nested or self.text is None else self.column


def checked_source(frame: pl.DataFrame | pl.LazyFrame, source: SourceColumn, name: str = "source") -> CheckedSource:
    """Return the column of images of a frame.

    Parameters
    ----------
    frame
        A frame.
    source
        A column of it by name, or an expression.
    name
        Name of the parameter, for messages.

    Raises
    ------
    ArgumentError
        If it is neither a name nor an expression for one column.
    ColumnError
        If there is no such column, or its dtype is not one of `image_columns`.
    """
    schema = frame.collect_schema()
    if not isinstance(source, pl.Expr):
        if not isinstance(source, str):
            raise ArgumentError(
                f"{name} must be the name of a column or an expression, got {shown(source)}\n"
                "Hint: such as 'path' or pl.col('path'); with_columns adds values of another place."
            )
        check_name(name, source)
        if source not in schema:
            columns = ", ".join(map(repr, schema.names()[:12]))
            raise ColumnError(
                f"no column {source!r} in the frame, it has {columns}\nHint: source='name of the column'."
            )
        found = CheckedSource(pl.col(source), source, schema[source], source)
    else:
        found = _result(schema, source, name)
    if not holds_sources(found.dtype):
        raise ColumnError(f"column {found.name!r} {dtype_text(found.dtype)}")
    return found


def _result(schema: pl.Schema, expr: pl.Expr, name: str) -> CheckedSource:
    try:
        result = schema.to_frame(eager=False).select(expr).collect_schema()
    except pl.exceptions.PolarsError as error:
        columns = ", ".join(map(repr, schema.names()[:12]))
        raise ColumnError(
            f"{name} is an expression that the frame cannot compute: {str(error).splitlines()[0][:200]}\n"
            f"Hint: the frame has {columns}."
        ) from error
    if len(result) != 1:
        names = ", ".join(map(repr, list(result)[:12])) or "none"
        raise ArgumentError(
            f"{name} must be one column, got an expression for {len(result)}: {names}\n"
            "Hint: pl.concat_list makes one column of several, of which the first is hashed; pl.coalesce takes the "
            "first value that is not null."
        )
    ((column, dtype),) = result.items()
    is_column = expr.meta.is_column() and column in schema
    return CheckedSource(expr, column, dtype, column if is_column else None)
