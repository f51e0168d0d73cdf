"""The verb `visual_hash` on Spark: each task hashes its batches of rows, a slice at a time."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from imgmatch_df.columns import DETAIL, STATUS
from imgmatch_df.errors import ArgumentError, ColumnError, Failure, row_error
from imgmatch_df.frames.expressions import HashTypes, check_hash_types
from imgmatch_df.frames.expressions import visual_hash as hash_frame
from imgmatch_df.frames.layout import Affixes, free_name
from imgmatch_df.frames.source_columns import checked_source
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, KINDS, HashKind, register_hash_kind
from imgmatch_df.options import SourceOptions, shown
from imgmatch_df.spark.schemas import as_spark, polars_schema, spark_schema
from imgmatch_df.spark.sessions import check_frame
from imgmatch_df.spark.workers import map_batches

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType

# Polars and the decoders need a slice once more beside the batch of Spark, which may hold 10,000 photos.
_MAX_SLICE_BYTES = 1 << 26


def visual_hash(
    df: "DataFrame",
    source: "str | Column" = "url",
    *,
    hash_types: HashTypes = DEFAULT_HASH_TYPES,
    prefix: str = "",
    suffix: str = "",
    **options: Unpack[SourceOptions],
) -> "DataFrame":
    """Return the hashes of each image, its size, and what went wrong where it failed, on Spark.

    The rows are those of `imgmatch_df.visual_hash`. The call is lazy: images are read when Spark needs the rows, and
    again each time that it needs them. Write the result to a table, or use `write_hashes`, before you join it.

    Parameters
    ----------
    df
        DataFrame of a classic or a Connect session.
    source
        Column of images, by name or as a Spark `Column`: paths, URLs, base64 or data URIs (string), encoded images
        (binary), structs of ``bytes`` and ``path``, or arrays of these, of which the first is hashed.
    hash_types
        Names of hash kinds, ``"bmh1"`` and ``"phash"`` unless given. No other kinds are computed.
    prefix, suffix
        Put before and after the names of the new columns.
    **options
        See `Options`. Limits of connections and of bytes in flight count for each Python worker: one for each task that
        runs at a time. ``base_dir`` is a folder on every executor. ``progress`` has no effect.

    Returns
    -------
    DataFrame
        The new columns ``width``, ``height`` (long), ``status``, ``detail`` (string) and ``quality`` (short), then the
        columns of `df`, as they are, then the hashes: ``phash`` is a long with the same 64 bits, the others are binary.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; see `imgmatch_df.visual_hash`.
    ColumnError
        If there is no such column, its type is not one of a source, or a new column has the name of one of `df`; names
        that differ in upper and lower case alone are the same where they are the same to the session.
    PythonException
        When Spark needs the rows, with ``on_error="raise"`` and an image that fails: its message has the `RowError`.

    Notes
    -----
    A task takes as many threads as it has cores (``spark.task.cpus``), and hashes the rows of one partition. Repartition
    a small table of many URLs. A relative path is resolved against the working directory of the driver if an executor
    has a folder of that name, else against that of the executor. Each executor needs this package, in the same version.
    """
    df = check_frame(df)
    _check_distinct(df.columns)
    hash_types = check_hash_types(hash_types)
    given, column, expr = _with_source(df, source)
    name = next(iter(expr.meta.root_names()))
    checked, sent = _options(df, dict(options))
    empty = _empty_frame(given.schema, keep=name)
    result = hash_frame(empty, expr, hash_types=hash_types, prefix=prefix, suffix=suffix, **checked).collect_schema()
    order = [one for one in result if one != column]
    new = {one: dtype for one, dtype in result.items() if one not in given.columns}
    _check_case(df, new)
    hasher = _Hasher(
        order=tuple(given.columns.index(one) if one in given.columns else one for one in order),
        source=given.columns.index(name),
        kinds=tuple(KINDS[one] for one in hash_types),
        affixes=Affixes.make(prefix, suffix),
        options=sent,
        raises=options.get("on_error") == "raise",
        folder=str(Path.cwd()),
    )
    # Spark looks columns up by name in mapInArrow, and reads "a.b" as a field there.
    numbered = given.toDF(*(f"c{n}" for n in range(len(given.columns))))
    return map_batches(numbered, hasher, _result_schema(given.schema, order, new))


@dataclass(frozen=True)
class _Hasher:
    """The function of a task: batches of rows to batches of the same rows with hashes.

    Parameters
    ----------
    order
        Columns of the result: a position in the batch, or the name of a new column.
    source
        Position of the column of images.
    kinds
        Hash kinds, which an executor may have to register.
    affixes, options
        As in the call.
    raises
        Whether the first row that fails is an error.
    folder
        Working directory of the driver.
    """

    order: tuple[int | str, ...]
    source: int
    kinds: tuple[HashKind, ...]
    affixes: Affixes
    options: dict[str, Any]
    raises: bool
    folder: str

    def __call__(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        """Yield each batch with its hashes, in slices."""
        for kind in self.kinds:
            register_hash_kind(kind)
        for batch in batches:
            for piece in _slices(batch, self.source):
                yield self._hashed(piece)

    def _hashed(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        import pyarrow as pa

        frame = pl.DataFrame({"source": pl.Series(pl.from_arrow(batch.column(self.source)))})
        hash_types = [kind.name for kind in self.kinds]
        with _in_folder(self.folder):
            hashed = hash_frame(frame, "source", hash_types=hash_types, **self.options).drop("source")
        if self.raises:
            _raise_first(hashed)
        table = as_spark(hashed).combine_chunks()
        names = map(self.affixes.name_of, hashed.columns)
        new = {name: column.chunk(0) for name, column in zip(names, table.columns, strict=True)}
        arrays = [batch.column(one) if isinstance(one, int) else new[one] for one in self.order]
        return pa.RecordBatch.from_arrays(arrays, list(map(str, self.order)))  # Spark reads them by position


def _with_source(df: "DataFrame", source: Any) -> "tuple[DataFrame, str | None, pl.Expr]":
    """Return the DataFrame with the source as a column, the name of that column if it is hidden, and its expression."""
    from pyspark.errors import PySparkException
    from pyspark.sql import Column

    if isinstance(source, str):
        checked_source(pl.LazyFrame(schema=dict.fromkeys(df.columns, pl.String())), source)  # raises errors of names
        return df, None, pl.col(source)
    if not isinstance(source, Column):
        raise ArgumentError(
            f"source must be the name of a column or a Spark Column, got {shown(source)}\n"
            "Hint: such as 'path' or F.col('image.bytes')."
        )
    hidden = free_name(dict.fromkeys(df.columns))
    try:
        names = df.select(source).columns
        given = df.select("*", source.alias(hidden)) if len(names) == 1 else df
        given.schema  # noqa: B018  # a Connect session finds errors here
    except PySparkException as error:
        raise ColumnError(
            f"source is a Column that Spark cannot compute: {str(error).splitlines()[0][:200]}\n"
            f"Hint: the DataFrame has {_shown_names(df.columns)}."
        ) from error
    if len(names) != 1:
        raise ArgumentError(
            f"source must be one column, got {len(names)}: {_shown_names(names)}\n"
            "Hint: F.coalesce takes the first value that is not null, F.array makes one column of several."
        )
    return given, hidden, pl.col(hidden).alias(names[0])


def _shown_names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, list(names)[:12])) or "no columns"


def _check_distinct(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ColumnError(f"the DataFrame has two columns {repeated[0]!r}\nHint: rename one, as toDF does, or drop it.")


def _check_case(df: "DataFrame", new: Iterable[str]) -> None:
    """Raise `ColumnError` if Spark takes a new name for that of a column, because it ignores upper and lower case."""
    if df.sparkSession.conf.get("spark.sql.caseSensitive", "false") == "true":
        return
    given = {name.lower(): name for name in df.columns}
    taken = [given[name.lower()] for name in new if name.lower() in given]
    if taken:
        raise ColumnError(
            f"the DataFrame already has a column {taken[0]!r}, and this call adds {taken[0].lower()!r}: this session "
            "ignores upper and lower case\nHint: prefix= or suffix= renames the new columns; or rename or drop yours."
        )


def _options(df: "DataFrame", options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options to check here, and those for executors, which must have the folder `base_dir`."""
    checked, sent = dict(options), {**options, "on_error": "null", "progress": False}
    base_dir = options.get("base_dir")
    if base_dir is None:
        return checked, sent
    if type(df).__module__.startswith("pyspark.sql.connect"):
        # The machine of the client need not have it.
        path = os.fspath(base_dir) if isinstance(base_dir, str | os.PathLike) else None
        if not isinstance(path, str) or not path.startswith("/"):
            raise ArgumentError(
                f"base_dir must be an absolute path with a Connect session, got {shown(base_dir)}\n"
                "Hint: a folder of every executor."
            )
        del checked["base_dir"]
        return checked, {**sent, "base_dir": path}
    return checked, sent


def _empty_frame(schema: "StructType", keep: str) -> pl.LazyFrame:
    """Return a query without rows, in which columns of types that Polars does not have are null."""
    from pyspark.sql.types import StructType

    dtypes: dict[str, Any] = {}
    for field in schema.fields:
        try:
            (dtypes[field.name],) = polars_schema(StructType([field])).values()
        except ColumnError as error:
            raise ColumnError(
                f"column {field.name!r} has type {field.dataType.simpleString()}, which Spark does not give to Python\n"
                "Hint: drop the column, or cast it to a string."
            ) from error
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError, NotImplementedError):
            if field.name == keep:
                raise
            dtypes[field.name] = pl.Null()
    return pl.LazyFrame(schema=dtypes)


def _result_schema(schema: "StructType", order: list[str], new: dict[str, Any]) -> "StructType":
    """Return the schema of the result: fields of the DataFrame with nullability and metadata, and new ones."""
    from pyspark.sql.types import StructType

    fields = {field.name: field for field in schema.fields}
    made = {field.name: field for field in spark_schema(pl.Schema(new)).fields}
    return StructType([made[name] if name in made else fields[name] for name in order])


def _slices(batch: "pa.RecordBatch", source: int) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of a batch in parts of at most `_MAX_SLICE_BYTES` of images, or of one row."""
    if batch.num_rows == 0:
        return
    if batch.num_rows == 1 or batch.column(source).nbytes <= _MAX_SLICE_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _slices(batch.slice(0, half), source)
    yield from _slices(batch.slice(half), source)


def _raise_first(hashed: pl.DataFrame) -> None:
    failed = hashed.select(STATUS, DETAIL).filter(pl.col(STATUS).cast(pl.String) != "ok")
    if len(failed):
        status, detail = failed.row(0)
        # The row of the batch says nothing to a user of Spark; the detail names the source.
        error = row_error(Failure(status, detail), 0)
        raise type(error)(str(error).partition(": ")[2])


@contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Make a folder the working directory, if there is one of this name; a Python worker runs one task at a time."""
    before = Path.cwd()
    if not Path(folder).is_dir():
        yield
        return
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
