"""Hashes into tables of a lake and out of them: only keys that a table does not have are hashed.

The work is divided by the hash of the key into steps, each of which is one commit. A killed driver loses its step; the
next run finds the keys that are not in the table, and hashes these.
"""

import posixpath
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack
from uuid import uuid4

from imgmatch_df.columns import OK, STATUS
from imgmatch_df.errors import ArgumentError, ColumnError, StoreError
from imgmatch_df.frames.expressions import HashTypes
from imgmatch_df.frames.stored_columns import IMAGE
from imgmatch_df.frames.writing import WriteSummary
from imgmatch_df.options import SourceOptions, check_flag, shown
from imgmatch_df.spark.delta_tables import DeltaTable
from imgmatch_df.spark.hashing import visual_hash
from imgmatch_df.spark.iceberg_tables import IcebergTable
from imgmatch_df.spark.nodes import column
from imgmatch_df.spark.parquet_tables import ParquetTable
from imgmatch_df.spark.sessions import check_frame, import_spark
from imgmatch_df.spark.table_base import (
    ConflictError,
    Table,
    TableFolder,
    TableFormat,
    TableTarget,
    check_table,
    find_format,
    read_files,
    register_table_format,
    widened,
)
from imgmatch_df.spark.table_rows import TableRows, table_schema
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.spark.workers import numbers_of_tasks
from imgmatch_df.store.locks import sole_writer

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

register_table_format("parquet", TableFormat(ParquetTable))
register_table_format("delta", TableFormat(DeltaTable))
register_table_format("iceberg", TableFormat(IcebergTable, in_catalog=True))

ROWS_PER_COMMIT: Final = 1 << 18  # one file of 45 to 400 MB; a few minutes of 16 cores
_ROWS_PER_FILE: Final = 1 << 18
# A task hashes for a second to a minute, so that no core waits long for the last one.
_ROWS_PER_TASK: Final = 1 << 10
_MAX_TASKS: Final = 1 << 12
_ATTEMPTS: Final = 20  # of a commit, while other writers commit

_PAUSE_S: Final = (0.0, 0.5)

_STEP: Final = "__imgmatch_step"
_FILE: Final = "imgmatch_file"  # the name of a folder, which must not be hidden
_TASK: Final = "__imgmatch_task"
_KNOWN: Final = "__imgmatch_known"


def write_hashes(
    df: "DataFrame",
    target: TableTarget,
    *,
    source: "str | Column | None" = "url",
    key: str | None = None,
    hash_types: HashTypes | None = None,
    retry_failed: bool = False,
    format: str | None = None,  # noqa: A002  # as pandas and Spark call it
    catalog: Any = None,
    rows_per_commit: int = ROWS_PER_COMMIT,
    **options: Unpack[SourceOptions],
) -> WriteSummary:
    """Hash the images of a DataFrame whose keys a table does not have, and add them to the table.

    Call it again, with the same DataFrame or a longer one, and it does what is left. The work is committed in steps, so
    a driver that is killed loses one step at most, and no file that was committed is written again.

    Parameters
    ----------
    df
        DataFrame of a classic or a Connect session.
    target
        Path or URI of the folder of a table, which is made where there is none; with `catalog`, the name of the table.
        The driver and all executors reach it under this name.
    source
        Column of images, as for `visual_hash`; None where `df` has the hashes, as `visual_hash` gives them.
    key
        Column whose values identify rows, text or whole numbers, and its name in the table. None takes that of the
        table; in a new one it is ``source``, which holds `source`.
    hash_types
        Names of hash kinds; None takes those of the table, in a new one bmh1, phash and sha256.
    retry_failed
        Whether to hash rows again that failed before. Each file that has such rows is replaced by one with their new
        hashes.
    format
        ``"parquet"``, ``"delta"`` or ``"iceberg"``. None takes that of the table, and Parquet for a new folder.
    catalog
        Catalog of an Iceberg table: its name in the configuration of pyiceberg, a dict of its properties, or the
        catalog itself.
    rows_per_commit
        About as many rows are hashed and committed at a time.
    **options
        See `Options`. With hashes in the frame, only ``decode``, ``alpha``, ``trim`` and ``pdq_variant``, to say how
        they were made.

    Returns
    -------
    WriteSummary
        How many rows are new, skipped, tried again, failed … Rows whose image has changed are not looked for.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, a column absent or of a type that is not allowed, or a key null.
    StoreError
        If the table cannot be used, or holds hashes that were made in another way: then nothing is changed.
    MissingExtraError
        If the package of a format is not installed; the extra ``lakes`` has them.

    Notes
    -----
    Of several rows with one key, that with the smallest source counts: rows of Spark have no order. Two writers of one
    Delta or Iceberg table do no harm: a commit that conflicts is made again without the keys that the other has stored.
    A folder of Parquet files has one writer at a time; on a file system of this machine a second one is refused.
    """
    import_spark()
    df = check_frame(df)
    check_flag("retry_failed", retry_failed, "True hashes again what failed.")
    if not isinstance(rows_per_commit, int) or isinstance(rows_per_commit, bool) or rows_per_commit < 1:
        raise ArgumentError(
            f"rows_per_commit must be a whole number of at least 1, got {shown(rows_per_commit)}\n"
            f"Hint: leave it out for {ROWS_PER_COMMIT:,}."
        )
    place = check_table(target, catalog)
    name, kind = find_format(format, place, catalog)
    with _writer_of(name, place):
        table = kind.open(place, catalog) if kind.exists(place, catalog) else None
        if table is not None and table.manifest is None:
            raise StoreError(
                f"{table.label} is a table without a record of how its hashes are made, so none can be added\n"
                "Hint: choose another target; source=None writes hashes that you have to a new table."
            )
        stored = None if table is None else table.manifest
        rows = TableRows.of(df, stored, repr(place), source, key, hash_types, dict(options))
        rows, n_duplicates = _without_duplicates(rows)
        if table is None:
            kind.create(place, catalog, rows.manifest, table_schema(rows.manifest))
            table = kind.open(place, catalog)
            if table.manifest is None:
                raise StoreError(f"another program has made {table.label}\nHint: choose another target.")
            table.manifest.check_same(rows.manifest, table.label)
        _check_columns(table, rows)
        run = _TableRun(df.sparkSession, table, rows, dict(options), rows_per_commit)
        return WriteSummary(n_duplicates=n_duplicates) + run.run(retry_failed=retry_failed)


def read_hashes(
    spark: "SparkSession",
    target: TableTarget,
    *,
    format: str | None = None,  # noqa: A002  # as pandas and Spark call it
    catalog: Any = None,
    version: int | None = None,
) -> "DataFrame":
    """Return a table as a DataFrame: one of hashes, or any other Parquet, Delta or Iceberg table.

    The driver finds the files of the table, and Spark reads them when it needs them.

    Parameters
    ----------
    spark
        A classic or a Connect session.
    target, format, catalog
        As `write_hashes`.
    version
        Version of a Delta table or number of a snapshot of an Iceberg table; None takes the newest.

    Returns
    -------
    DataFrame
        The columns of the table; for a table of hashes the key, ``source`` beside another key, ``width``, ``height``,
        the hashes, ``status`` and ``detail``.

    Raises
    ------
    ArgumentError
        If an argument is not allowed.
    StoreError
        If there is no such table, or it has what is not supported: deletion vectors and mapped columns of Delta, delete
        files and renamed columns of Iceberg.
    MissingExtraError
        If the package of the format is not installed; the extra ``lakes`` has them.
    """
    import_spark()
    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 0):
        raise ArgumentError(
            f"version must be a whole number of at least 0, got {shown(version)}\n"
            "Hint: leave it out for the table as it is now."
        )
    place = check_table(target, catalog)
    _, kind = find_format(format, place, catalog)
    if not kind.exists(place, catalog):
        raise StoreError(f"no such table: {place!r}\nHint: write_hashes makes one; is catalog= missing?")
    return kind.open(place, catalog, version).read(spark)


def _writer_of(name: str, place: str) -> AbstractContextManager[None]:
    """Be the only writer of a folder of Parquet files, which has no log, where files can be locked."""
    if name != "parquet" or not place.startswith("/"):
        return nullcontext()
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    return sole_writer(Path(place))


def _without_duplicates(rows: TableRows) -> tuple[TableRows, int]:
    """Return one row of each key, and how many others there were; refuse keys that are null."""
    from pyspark.sql import functions as F  # noqa: N812

    df, name = rows.df, rows.manifest.key
    key = column(name)
    counts = df.agg(F.count(F.lit(1)), F.count(key), F.count_distinct(key)).collect()
    ((n_rows, n_keys, n_distinct),) = counts
    if n_rows != n_keys:
        raise ColumnError(
            f"the key {name!r} is null in {n_rows - n_keys:,} rows\nHint: filter them, or give them a key of their own."
        )
    if n_rows == n_distinct:
        return rows, 0
    others = [one for one in df.columns if one != name]
    smallest = F.min(F.struct(*map(column, others))).alias("row")
    values = (column("row").getField(one).alias(one) for one in others)
    return replace(rows, df=df.groupBy(key).agg(smallest).select(key, *values)), n_rows - n_distinct


def _check_columns(table: Table, rows: TableRows) -> None:
    """Refuse a table whose columns are not those of its manifest; it may have others beside them."""
    found = {one.name: one.dataType for one in table.schema().fields}
    for wanted in table_schema(rows.manifest).fields:
        dtype = found.get(wanted.name)
        if dtype is None or _shape(dtype) != _shape(wanted.dataType):
            raise StoreError(
                f"{table.label} has {'no column' if dtype is None else dtype.simpleString() + ' in the column'} "
                f"{wanted.name!r}, in a table of hashes it is {wanted.dataType.simpleString()}\n"
                "Hint: was it changed by hand?"
            )


def _shape(dtype: "DataType") -> str:
    return str(widened(dtype).simpleString())


class _TableRun:
    """A run of `write_hashes`."""

    def __init__(
        self, spark: "SparkSession", table: Table, rows: TableRows, options: dict[str, Any], rows_per_commit: int
    ) -> None:
        self._spark, self._table, self._rows, self._options = spark, table, rows, options
        self._rows_per_commit = rows_per_commit
        self._key = rows.manifest.key
        run = uuid4().hex
        self._data, self._work = table.data_folder(run), table.work_folder(run)
        self._summary = WriteSummary()
        self._columns = [
            column(one.name).cast(table.schema()[one.name].dataType).alias(one.name)
            for one in table_schema(rows.manifest).fields
        ]

    def run(self, *, retry_failed: bool) -> WriteSummary:
        """Hash and commit what is not in the table, and return what became of all rows."""
        self._table.clean()
        rows = self._rows.df
        try:
            n_new = self._count_states(rows, retry_failed=retry_failed)
            for number, (part, n_rows) in enumerate(self._steps(self._unknown(rows), n_new)):
                self._add(f"step-{number:05}", part, n_rows)
            if retry_failed:
                self._retry(rows)
        finally:
            TableFolder.at(self._work).delete()
            self._table.clean()  # a folder of Parquet files keeps nothing beside it
        return self._summary

    def _known(self) -> "DataFrame":
        """Return keys and statuses of the table."""
        return self._table.read(self._spark).select(column(self._key), column(STATUS))

    def _unknown(self, rows: "DataFrame") -> "DataFrame":
        """Return the rows whose key is not in the table."""
        return (
            rows.join(self._known().select(column(self._key)), self._key, "left_anti") if self._table.files() else rows
        )

    def _count_states(self, rows: "DataFrame", *, retry_failed: bool) -> int:
        """Count the rows that the table has; return the number of those that it does not have."""
        from pyspark.sql import functions as F  # noqa: N812

        known = self._known().withColumn(_KNOWN, F.lit(True))
        sides = rows.select(column(self._key)).join(known, self._key, "left")
        n_new, statuses = 0, Counter[str]()
        for found, status, n_rows in sides.groupBy(_KNOWN, column(STATUS)).count().collect():
            if found is None:
                n_new += n_rows
            elif status == OK or not retry_failed:
                statuses[status or "no_hash"] += n_rows
        self._skip(statuses)
        return n_new

    def _skip(self, statuses: "Counter[str]") -> None:
        n_lost = statuses.total() - statuses[OK]
        self._summary += WriteSummary(
            n_skipped=statuses.total(), n_failed=n_lost, n_failed_before=n_lost, status=statuses
        )

    def _steps(self, rows: "DataFrame", n_rows: int) -> "Iterator[tuple[DataFrame, int]]":
        """Yield the rows in steps, which are written down first: nothing is looked up again for each of them."""
        from pyspark.sql import functions as F  # noqa: N812

        n_steps = -(-n_rows // self._rows_per_commit)
        if n_steps <= 1:
            yield from [(rows, n_rows)] * n_steps
            return
        pending = self._work.uri_of("pending")
        numbered = rows.withColumn(_STEP, F.pmod(F.xxhash64(column(self._key)), F.lit(n_steps)))
        numbered.repartition(column(_STEP)).write.partitionBy(_STEP).parquet(pending)
        for step in range(n_steps):
            # Without inference of partitions, where a hidden column would be added.
            part = self._work.folder(f"pending/{_STEP}={step}")
            files = [part.uri_of(name) for name, _, _ in TableFolder.at(part).parquet_files()]
            if files:
                yield read_files(self._spark, rows.schema, files), -(-n_rows // n_steps)

    def _hashed(self, rows: "DataFrame", n_rows: int) -> "DataFrame":
        """Return rows with the columns of the table."""
        if self._rows.has_images:
            n_tasks = min(-(-n_rows // _ROWS_PER_TASK), _MAX_TASKS)
            spread = rows.repartition(max(1, n_tasks), column(self._key))
            rows = visual_hash(spread, IMAGE, hash_types=self._rows.manifest.hash_types, **self._options)
        return rows.select(*self._columns)

    def _write(self, rows: "DataFrame", folder: WorkFolder, n_rows: int) -> None:
        n_files = max(1, -(-n_rows // _ROWS_PER_FILE))
        ordered = rows.repartition(n_files, column(self._key)).sortWithinPartitions(column(self._key))
        ordered.write.option("compression", "zstd").parquet(folder.uri_of("").rstrip("/"))

    def _read(self, folder: WorkFolder) -> "DataFrame":
        schema = self._spark.createDataFrame([], self._table.schema()).select(*self._columns).schema
        return read_files(
            self._spark, schema, [folder.uri_of(one) for one, _, _ in TableFolder.at(folder).parquet_files()]
        )

    def _add(self, name: str, rows: "DataFrame", n_rows: int) -> None:
        """Hash rows and commit them."""
        folder = self._data.folder(name)
        self._write(self._hashed(rows, n_rows), folder, n_rows)
        for attempt in range(_ATTEMPTS):
            statuses = TableFolder.at(folder).count_statuses()
            if not statuses.total():
                return
            try:
                self._table.commit([folder], {})
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                folder = self._without_known(folder, self._data.folder(f"{name}-{attempt}"))
                continue
            self._summary += WriteSummary(
                n_new=statuses.total(), n_failed=statuses.total() - statuses[OK], status=statuses
            )
            return

    def _without_known(self, folder: WorkFolder, other: WorkFolder) -> WorkFolder:
        """Return a folder with the hashed rows whose key no other writer has stored since."""
        time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311  # so that two writers do not meet again
        self._table.refresh()
        rows = self._read(folder)
        known = self._known()
        both = rows.select(column(self._key)).join(known, self._key)
        statuses = Counter({status or "no_hash": n for status, n in both.groupBy(column(STATUS)).count().collect()})
        if not statuses:
            return folder
        self._skip(statuses)
        n_rows = TableFolder.at(folder).count_rows()
        self._write(rows.join(known.select(column(self._key)), self._key, "left_anti"), other, n_rows)
        TableFolder.at(folder).delete()
        return other

    def _retry(self, rows: "DataFrame") -> None:
        """Hash rows again that failed, a few files of the table at a time, and replace these files."""
        failed = self._failed(rows.select(column(self._key)))
        if failed is None:
            return
        counts = sorted((name, n) for name, n in failed.groupBy(column(_FILE)).count().collect())
        files = _by_name(self._table)
        for number, names in enumerate(_packed(counts, self._rows_per_commit)):
            some = self._failed(rows.select(column(self._key)), [files[name] for name, _ in names])
            if some is None:
                continue
            n_rows = sum(n for _, n in names)
            part = rows.join(some.select(column(self._key)), self._key, "left_semi")
            hashed = self._work.folder(f"retry-{number:05}")
            self._write(self._hashed(part, n_rows), hashed, n_rows)
            self._replace(f"retry-{number:05}", hashed)

    def _failed(self, keys: "DataFrame", files: "Sequence[str] | None" = None) -> "DataFrame | None":
        """Return keys and names of files of the rows that failed; None where the table has no files."""
        if not self._table.files():
            return None
        stored = self._table.read(self._spark, files)
        named = stored.withColumn(_FILE, stored.metadataColumn("_metadata").getField("file_name"))
        failed = named.filter(~column(STATUS).eqNullSafe(OK)).select(column(self._key), column(_FILE))
        return failed.join(keys, self._key, "left_semi")

    def _replace(self, name: str, hashed: WorkFolder) -> None:
        """Put rows in the place of those with their keys that failed."""
        from pyspark.sql import functions as F  # noqa: N812

        for attempt in range(_ATTEMPTS):
            failed = self._failed(self._read(hashed).select(column(self._key)))
            names = (
                [] if failed is None else sorted(one for (one,) in failed.select(column(_FILE)).distinct().collect())
            )
            if not names:
                return
            by_name = _by_name(self._table)
            stored = self._table.read(self._spark, [by_name[one] for one in names])
            named = stored.withColumn(_FILE, stored.metadataColumn("_metadata").getField("file_name"))
            new = self._read(hashed)
            again = new.select(column(self._key), F.struct(*map(column, new.columns)).alias(_KNOWN))
            is_new = column(_KNOWN).isNotNull() & ~column(STATUS).eqNullSafe(OK)
            columns = [
                F.when(is_new, column(_KNOWN).getField(one)).otherwise(column(one)).alias(one)
                if one in new.columns
                else column(one)
                for one in stored.columns
            ]
            folder = self._data.folder(f"{name}-{attempt}")
            rewritten = named.join(again, self._key, "left").select(*columns, column(_FILE))
            tasks = self._spark.createDataFrame(
                list(zip(names, numbers_of_tasks(self._spark, len(names)), strict=True)),
                f"{_FILE} string, {_TASK} long",
            )
            rewritten.join(F.broadcast(tasks), _FILE).repartition(len(names), column(_TASK)).drop(
                _TASK
            ).sortWithinPartitions(column(_FILE), column(self._key)).write.option("compression", "zstd").partitionBy(
                _FILE
            ).parquet(folder.uri_of("").rstrip("/"))
            replaced = {by_name[one]: folder.folder(f"{_FILE}={one}") for one in names}
            try:
                self._table.commit([], replaced)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                TableFolder.at(folder).delete()
                time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311
                self._table.refresh()
                continue
            statuses = TableFolder.at(hashed).count_statuses()
            self._summary += WriteSummary(
                n_retried=statuses.total(), n_failed=statuses.total() - statuses[OK], status=statuses
            )
            return


def _by_name(table: Table) -> dict[str, str]:
    """Return the files of a table by the last part of their names, which Spark has for each row."""
    files = {posixpath.basename(file): file for file in table.files()}
    if len(files) < len(table.files()):
        raise StoreError(
            f"{table.label} has several files of one name, so rows that failed cannot be replaced\n"
            "Hint: compact the table, or leave retry_failed out."
        )
    return files


def _packed(counts: Sequence[tuple[str, int]], most: int) -> Iterator[list[tuple[str, int]]]:
    """Yield files in groups of about `most` rows."""
    group: list[tuple[str, int]] = []
    for one in counts:
        if group and sum(n for _, n in group) + one[1] > most:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
