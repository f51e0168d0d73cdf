"""Inputs of joins: the arguments of a verb, checked, and the rows that it compares."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import LEFT_ID, QUALITY, RIGHT_ID
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import VerbCall
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.flat import Guard, guard_columns
from imgmatch_df.frames.layout import free_name
from imgmatch_df.hashes.kinds import SHA256
from imgmatch_df.options import shown
from imgmatch_df.spark import nodes
from imgmatch_df.spark.calls import empty_frame
from imgmatch_df.spark.forms import read_forms
from imgmatch_df.spark.sessions import check_frame
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ACROSS: Final = "across"
WITHIN: Final = "within"


class Given(NamedTuple):
    """A DataFrame with the columns that the expressions of a call make.

    Parameters
    ----------
    df
        Has these columns, with names that no column of the user has.
    arguments
        The arguments for the verb of one machine: names of columns.
    """

    df: "DataFrame"
    arguments: dict[str, Any]


def with_expressions(df: "DataFrame", **arguments: object) -> Given:
    """Return a DataFrame with a column for each argument that is a Spark `Column`, see `Given`.

    Parameters
    ----------
    df
        DataFrame of Spark.
    **arguments
        Name of a column, a Spark `Column`, or None.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import Column

    given, names = df, {}
    base = free_name(dict.fromkeys(df.columns))
    for argument, value in arguments.items():
        if not isinstance(value, Column):
            if value is not None and not isinstance(value, str):
                raise ArgumentError(
                    f"{argument} must be the name of a column or a Spark Column, got {shown(value)}\n"
                    f"Hint: such as {argument}='folder'."
                )
            names[argument] = value
            continue
        hidden = f"{base}_{argument}"
        try:
            given = given.withColumn(hidden, value)
            given.schema  # noqa: B018  # a Connect session finds errors here
        except PySparkException as error:
            raise ColumnError(
                f"{argument} is a Column that Spark cannot compute: {str(error).splitlines()[0][:200]}\n"
                "Hint: use columns of the DataFrame."
            ) from error
        names[argument] = hidden
    return Given(given, names)


def pairs_argument(not_duplicates: object) -> pl.LazyFrame | None:
    """Return a query without rows in the place of the DataFrame `not_duplicates`, for the verb of one machine."""
    return None if not_duplicates is None else empty_frame(check_frame(not_duplicates, "not_duplicates"))


def named_pairs(not_duplicates: "DataFrame", left: "DataFrame", right: "DataFrame") -> "DataFrame":
    """Return the pairs of `not_duplicates` that name two rows, in the types of the ids of both sides."""
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql import types

    columns = []
    for name, side in ((LEFT_ID, left), (RIGHT_ID, right)):
        wanted, got = side.schema[nodes.ID].dataType, not_duplicates.schema[name].dataType
        if isinstance(wanted, types.IntegralType) and not isinstance(got, types.IntegralType | types.NullType):
            raise ColumnError(
                f"not_duplicates names rows by {got.simpleString()} in {name!r}, ids are {wanted.simpleString()}\n"
                "Hint: cast the column."
            )
        columns.append(F.col(name).cast("string" if isinstance(wanted, types.StringType) else "long").alias(name))
    return not_duplicates.select(*columns).dropna()


class Compared(NamedTuple):
    """The rows of one side of a join, see `nodes.rows_to_compare`, and what one pass over them finds."""

    rows: "DataFrame"
    survey: nodes.Survey
    further: tuple[str, ...]


def compared(
    df: "DataFrame",
    comparison: Comparison,
    *,
    id: str,
    hash_column: str,
    guard: Guard | None,
    further: Mapping[str, str],
    with_checksum: bool,
    name: str = "id",
) -> Compared:
    """Return the rows of a DataFrame that a join compares; runs one job, and one more for hashes as text or lists.

    Parameters as in `nodes.rows_to_compare` and `nodes.survey`.
    """
    kind = comparison.kind
    df, hash_column = read_forms(df, hash_column, kind, [id, *guard_columns(guard), *further.values()])
    rows = nodes.rows_to_compare(df, kind, id=id, hash_column=hash_column, guard=guard, further=further)
    found = nodes.survey(rows, kind, id=id, with_checksum=with_checksum, name=name)
    return Compared(rows, found, tuple(further))


def guard_of(df: "DataFrame", comparison: Comparison, *, column: str | None, flat: str) -> tuple[str, Guard | None]:
    """Return the column of hashes of a DataFrame, and the columns that show which rows are flat."""
    call = VerbCall.check(empty_frame(df), comparison.kind, None, {}, column=column, flat=flat)
    return call.hash, call.guard


def hashed_guard(comparison: Comparison, flat: str) -> tuple[str, Guard | None]:
    """Return the same for a DataFrame whose images the call hashes."""
    kind = comparison.kind
    return kind.name, Guard(QUALITY, SHA256.name) if flat == "identical" and kind.is_perceptual else None


def hash_into(
    df: "DataFrame",
    work: WorkFolder,
    comparison: Comparison,
    *,
    id: str,
    source: str,
    further: Mapping[str, str],
    options: Mapping[str, Any],
) -> "DataFrame":
    """Return the hashes of the images of a DataFrame, which are first written to a folder in `work`.

    The columns are `id`, those of `hashed_guard` and `further`. The folder is that of the ids, the sources and the
    options: images are not read again where it is finished.
    """
    from imgmatch_df.spark.hashing import visual_hash

    kind = comparison.kind
    columns = {nodes.ID: id, "source": source, **further}
    needed = df.select(*[nodes.column(column).alias(name) for name, column in columns.items()])
    kinds = list(dict.fromkeys([kind.name, SHA256.name]))
    shown_options = {name: value for name, value in options.items() if name != "progress"}
    digest = nodes.fingerprint(kinds, kind.version, shown_options, nodes.checksum_of(needed))
    stage = f"hashes-{kind.name}-{digest}"
    if not work.is_finished(stage):
        hashed = visual_hash(needed, "source", hash_types=kinds, **options)
        measures = [QUALITY] if kind.is_perceptual else []
        written = hashed.select(nodes.ID, *measures, *kinds, *further)
        written.write.mode("overwrite").parquet(work.uri_of(stage))
    return df.sparkSession.read.parquet(work.uri_of(stage))
