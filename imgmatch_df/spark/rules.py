"""Keep rules on Spark: columns, names of rules and Spark Columns as what the verbs of one machine take.

A Column is computed by Spark, as a hidden column. The rows of a bucket carry nothing of the user's but the columns that
the rule reads, under names of their own.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import polars as pl

from imgmatch_df.columns import HEIGHT, LEFT_ID, MODIFIED, RIGHT_ID, SIZE, WIDTH
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.layout import free_name
from imgmatch_df.matching.linkages import Keep
from imgmatch_df.options import shown
from imgmatch_df.spark.nodes import ID, column
from imgmatch_df.spark.sessions import check_frame

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PROTECT: Final = "protect"
EXCLUDED: Final = "not_duplicates"
_KEEP: Final = "keep"
_SIZES: Final = {"largest": (WIDTH, HEIGHT, SIZE), "smallest": (WIDTH, HEIGHT, SIZE)}
_TIMES: Final = {"newest": (MODIFIED,), "oldest": (MODIFIED,)}


class RuleColumns(NamedTuple):
    """The arguments `keep`, `protect`, `across`, `within` and `not_duplicates` of a verb on Spark.

    Parameters
    ----------
    df
        The rows, with the Columns of the arguments as hidden columns.
    checked
        The arguments for the verb of one machine and a frame with the columns of `df`.
    arguments
        The arguments for the rows of a bucket.
    columns
        What the rows of a bucket have, by its name there: columns of `df`.
    not_duplicates
        Pairs of rows that do not count.
    """

    df: "DataFrame"
    checked: dict[str, Any]
    arguments: dict[str, Any]
    columns: dict[str, str]
    not_duplicates: "DataFrame | None"

    @classmethod
    def of(
        cls,
        df: "DataFrame",
        keep: Any,
        *,
        protect: "str | Column | None" = None,
        across: "str | Column | None" = None,
        within: "str | Column | None" = None,
        not_duplicates: "DataFrame | None" = None,
        sizes: Mapping[str, str] | None = None,
    ) -> "RuleColumns":
        """Return the rules of a call; the verb of one machine checks what they name.

        Parameters
        ----------
        df
            The rows.
        keep, protect, across, within, not_duplicates
            As `cluster` takes them.
        sizes
            Names of the columns of sizes in `df`, by their plain names, where they have others.
        """
        made: dict[str, Column] = {}
        checked: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        columns: dict[str, str] = {}
        base = free_name(dict.fromkeys(df.columns))

        def add(argument: str, value: object, label: str) -> pl.Expr:
            if isinstance(value, str):
                columns[label] = value
            else:
                columns[label] = f"{base}_{label}"
                made[columns[label]] = _checked_column(df, argument, value)
            return pl.col(columns[label])

        if isinstance(keep, str):
            checked[_KEEP] = arguments[_KEEP] = keep
            if keep in get_args(Keep):
                for name in (*_SIZES.get(keep, ()), *_TIMES.get(keep, ())):
                    own = (sizes or {}).get(name, name)
                    if own in df.columns:
                        columns[name] = own
        else:
            keys = list(keep) if isinstance(keep, Iterable) and not _is_column(keep) else [keep]
            if not keys or not all(isinstance(one, str) or _is_column(one) for one in keys):
                raise ArgumentError(
                    f"keep must be one of {', '.join(map(repr, get_args(Keep)))}, or Spark Columns, got {shown(keep)}\n"
                    "Hint: F.col('priority') keeps the row with the smallest."
                )
            checked[_KEEP] = [add(_KEEP, one, f"{_KEEP}_{place}") for place, one in enumerate(keys)]
            arguments[_KEEP] = [pl.col(f"{_KEEP}_{place}") for place in range(len(keys))]
        for name, value in ((PROTECT, protect), ("across", across), ("within", within)):
            if value is not None:
                checked[name] = add(name, value, name)
                arguments[name] = name
        if not_duplicates is not None:
            not_duplicates = check_frame(not_duplicates, EXCLUDED)
        given = df.select("*", *(value.alias(name) for name, value in made.items())) if made else df
        return cls(given, checked, arguments, columns, not_duplicates)

    def add_excluded(self, rows: "DataFrame") -> "DataFrame":
        """Return rows, named by the column `ID`, each with those that are declared not to be duplicates of it."""
        from pyspark.sql import functions as F  # noqa: N812

        if self.not_duplicates is None:
            return rows
        dtype = rows.schema[ID].dataType
        pairs = self.not_duplicates.select(
            column(LEFT_ID).cast(dtype).alias(ID), column(RIGHT_ID).cast(dtype).alias(EXCLUDED)
        ).dropna()
        return rows.join(pairs.groupBy(ID).agg(F.collect_set(EXCLUDED).alias(EXCLUDED)), ID, "left")

    def check_excluded(self, id: str) -> None:
        """Refuse pairs that are named by text where rows are named by numbers."""
        from pyspark.sql.types import IntegralType

        if self.not_duplicates is None:
            return
        for name in (LEFT_ID, RIGHT_ID):
            dtype, own = self.not_duplicates.schema[name].dataType, self.df.schema[id].dataType
            if isinstance(own, IntegralType) and not isinstance(dtype, IntegralType):
                raise ColumnError(
                    f"not_duplicates names rows by {dtype.simpleString()}, the values of {id!r} are "
                    f"{own.simpleString()}\nHint: id= names the column with the same values."
                )


def excluded_pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of rows of a bucket that do not count: the columns left_id and right_id."""
    return (
        rows.select(pl.col(ID).alias(LEFT_ID), pl.col(EXCLUDED).alias(RIGHT_ID)).explode(RIGHT_ID).drop_nulls(RIGHT_ID)
    )


def _is_column(value: object) -> bool:
    from pyspark.sql import Column

    return isinstance(value, Column)


def _checked_column(df: "DataFrame", argument: str, value: Any) -> "Column":
    from pyspark.errors import PySparkException

    if not _is_column(value):
        raise ArgumentError(
            f"{argument} must be the name of a column or a Spark Column, got {shown(value)}\n"
            f"Hint: such as {argument}='folder' or F.col('path')."
        )
    try:
        df.select(value).schema  # noqa: B018  # a Connect session finds errors here
    except PySparkException as error:
        raise ColumnError(
            f"{argument} cannot be read from the frame: {str(error).splitlines()[0][:200]}\n"
            "Hint: use columns of the frame."
        ) from error
    found: Column = value
    return found
