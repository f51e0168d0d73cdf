"""Delta tables, whose log the driver reads and writes with the package deltalake; Spark needs no connector.

Each commit of hashes has a number of its own (an "application transaction" of Delta). Two writers cannot commit the
same number, so that a key that both have hashed is not stored twice. Other appends, and compactions, do not conflict.
"""

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from imgmatch_df.errors import StoreError
from imgmatch_df.spark.table_base import (
    LEFT_AFTER_S,
    ConflictError,
    TableFolder,
    manifest_of,
    manifest_properties,
    missing_package,
    read_files,
)
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.store.manifest import Manifest

if TYPE_CHECKING:
    from deltalake import DeltaTable as OpenTable
    from deltalake.transaction import AddAction
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_APPLICATION: Final = "imgmatch-df"
_FILE: Final = "__imgmatch_file"


class DeltaTable:
    """A folder with a log of its files."""

    def __init__(self, target: str, version: int | None = None) -> None:
        self.label = repr(target)
        self._folder = TableFolder(target)
        self._version = version
        self.refresh()
        self.manifest = manifest_of(self._table.metadata().configuration, self.label)

    @classmethod
    def exists(cls, target: str, catalog: Any) -> bool:  # noqa: ARG003  # as all formats
        """Return whether there is a log."""
        return not TableFolder(f"{target}/_delta_log").is_empty()

    @classmethod
    def open(cls, target: str, catalog: Any, version: int | None = None) -> "DeltaTable":  # noqa: ARG003
        """Return the table as it is now, or as of a version."""
        return cls(target, version)

    @classmethod
    def create(cls, target: str, catalog: Any, manifest: Manifest, schema: "StructType") -> None:  # noqa: ARG003
        """Write the first commit of a log, without files."""
        deltalake = _import_deltalake(repr(target))
        folder = TableFolder(target)
        if not folder.is_empty() and not cls.exists(target, None):
            raise StoreError(f"{target!r} is a folder with other files, not a table\nHint: choose another target.")
        try:
            deltalake.DeltaTable.create(
                target,
                deltalake.Schema.from_json(schema.json()),
                mode="ignore",
                configuration=manifest_properties(manifest),
                raise_if_key_not_exists=False,
            )
        except deltalake.exceptions.CommitFailedError:
            return  # another writer has just made it

    def refresh(self) -> None:
        """Read the newest part of the log."""
        deltalake = _import_deltalake(self.label)
        try:
            self._table: OpenTable = deltalake.DeltaTable(self._folder.uri, version=self._version)
        except (deltalake.exceptions.DeltaError, OSError) as error:
            raise StoreError(
                f"cannot open the Delta table {self.label}: {' '.join(str(error).split())[:300]}\n"
                "Hint: is the path right, and the version one of the table?"
            ) from error
        self._check_readable()

    def _check_readable(self) -> None:
        configuration = self._table.metadata().configuration
        if configuration.get("delta.columnMapping.mode", "none") != "none":
            raise StoreError(
                f"the Delta table {self.label} maps its columns to other names in its files, which is not supported\n"
                "Hint: read it with the Delta connector of Spark, spark.read.format('delta')."
            )
        vectors = getattr(self._table, "deletion_vectors", None)
        if vectors is not None and any(batch.num_rows for batch in vectors()):
            raise StoreError(
                f"the Delta table {self.label} has deletion vectors, which are not supported\n"
                "Hint: REORG TABLE … APPLY (PURGE) removes them; or read it with the Delta connector of Spark."
            )

    def schema(self) -> "StructType":
        """Return the columns, those of partitions included."""
        from pyspark.sql.types import StructType

        return StructType.fromJson(json.loads(self._table.schema().to_json()))

    def files(self) -> list[str]:
        """Return the files, as Spark reads them."""
        return [file for file, _ in self._actions()]

    def _actions(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the files and the values of their partitions."""
        import pyarrow as pa

        found = pa.table(self._table.get_add_actions()).select(["path"]).column(0).to_pylist()
        values: list[dict[str, Any]] = [{}] * len(found)
        if self._table.metadata().partition_columns:
            values = pa.table(self._table.get_add_actions()).column("partition").to_pylist()
        return [(self._uri(path), value) for path, value in zip(found, values, strict=True)]

    def _uri(self, path: str) -> str:
        return path if "://" in path else self._folder.uri_of(unquote(path))

    def read(self, spark: "SparkSession", files: Sequence[str] | None = None) -> "DataFrame":
        """Return the rows of all files, or of some of them, with the columns of partitions."""
        from pyspark.sql import functions as F  # noqa: N812  # its name in every program
        from pyspark.sql.types import StringType, StructField, StructType

        schema = self.schema()
        partitions = list(self._table.metadata().partition_columns)
        actions = self._actions()
        names = [posixpath.basename(file) for file, _ in actions]
        inside = StructType([one for one in schema.fields if one.name not in partitions])
        rows = read_files(spark, inside, [file for file, _ in actions] if files is None else files)
        if not partitions:
            return rows
        if not actions:
            return spark.createDataFrame([], schema)
        if len(set(names)) < len(names):
            raise StoreError(
                f"the Delta table {self.label} has several files of one name, which is not supported for tables with "
                "partitions\nHint: read it with the Delta connector of Spark."
            )
        texts = StructType([StructField(one, StringType()) for one in (_FILE, *partitions)])
        named = [
            (name, *(None if value[one] is None else _as_text(value[one]) for one in partitions))
            for name, (_, value) in zip(names, actions, strict=True)
        ]
        values = spark.createDataFrame(named, texts)
        values = values.select(_FILE, *(F.col(f"`{one}`").cast(schema[one].dataType).alias(one) for one in partitions))
        # A column of the frame may be called _metadata; then Spark calls its own differently.
        joined = rows.withColumn(_FILE, rows.metadataColumn("_metadata").getField("file_name"))
        return joined.join(F.broadcast(values), _FILE).select(*(F.col(f"`{one}`") for one in schema.names))

    def data_folder(self, run: str) -> WorkFolder:
        """Return a folder in the table: files are not visible before the log names them."""
        return self._folder.folder("imgmatch").folder(run)

    def work_folder(self, run: str) -> WorkFolder:
        """Return a hidden folder in the table, which readers and vacuum leave out."""
        return self._folder.folder("_imgmatch").folder(run)

    def clean(self) -> None:
        """Delete old work folders; other writers may use newer ones."""
        TableFolder.at(self.work_folder("any")).parent().delete_older(LEFT_AFTER_S)

    def commit(self, added: Sequence[WorkFolder], replaced: Mapping[str, WorkFolder]) -> None:
        """Write one commit, which adds and removes files."""
        import deltalake
        from deltalake import transaction

        if self._table.metadata().partition_columns:
            raise StoreError(
                f"cannot add to {self.label}: it has partitions, tables of hashes have none\n"
                "Hint: choose another target; nothing was changed."
            )
        actions: list[Any] = [action for folder in added for action in self._add_actions(folder)]
        for old, folder in replaced.items():
            actions += self._add_actions(folder)
            actions.append(self._remove_action(old))
        number = (self._table.transaction_version(_APPLICATION) or 0) + 1
        properties = deltalake.CommitProperties(
            app_transactions=[transaction.Transaction(_APPLICATION, number)],
            custom_metadata={"userMetadata": "imgmatch-df write_hashes"},
        )
        try:
            self._table.create_write_transaction(actions, "append", self._table.schema(), commit_properties=properties)
        except deltalake.exceptions.CommitFailedError as error:
            raise ConflictError(
                f"another program has changed {self.label} at the same time: {str(error)[:200]}\n"
                "Hint: call write_hashes again; nothing was changed."
            ) from error
        self.refresh()

    def _add_actions(self, folder: WorkFolder) -> list["AddAction"]:
        from deltalake.transaction import AddAction

        listed = TableFolder.at(folder)
        inside = folder.uri.removeprefix(f"{self._folder.uri}/")
        return [
            AddAction(
                path=f"{inside}/{name}",
                size=size,
                partition_values={},
                modification_time=modified,
                data_change=True,
                stats=_statistics(listed.footer(name)),
            )
            for name, size, modified in listed.parquet_files()
        ]

    def _remove_action(self, old: str) -> Any:
        import time

        from deltalake import transaction

        make = getattr(transaction, "RemoveAction", None)
        if make is None:
            import deltalake

            raise StoreError(
                f"retry_failed on a Delta table needs a later deltalake than {deltalake.__version__}\n"
                "Hint: pip install -U deltalake; nothing was changed."
            )
        inside = next(path for path, _ in self._raw_actions() if self._uri(path) == old)
        return make(inside, True, int(time.time() * 1000))

    def _raw_actions(self) -> list[tuple[str, None]]:
        import pyarrow as pa

        return [(path, None) for path in pa.table(self._table.get_add_actions()).column("path").to_pylist()]


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _statistics(footer: Any) -> str:
    """Return the statistics of a file for the log: rows, nulls, smallest and largest whole numbers."""
    nulls: dict[str, int] = {}
    smallest: dict[str, int] = {}
    largest: dict[str, int] = {}
    for group in range(footer.num_row_groups):
        for column in range(footer.num_columns):
            chunk = footer.row_group(group).column(column)
            name, found = chunk.path_in_schema, chunk.statistics
            if "." in name or found is None or not found.has_null_count:
                continue
            nulls[name] = nulls.get(name, 0) + found.null_count
            if chunk.physical_type == "INT64" and found.has_min_max:
                smallest[name] = min(smallest.get(name, found.min), found.min)
                largest[name] = max(largest.get(name, found.max), found.max)
    return json.dumps({"numRecords": footer.num_rows, "minValues": smallest, "maxValues": largest, "nullCount": nulls})


def _import_deltalake(what: str) -> Any:
    try:
        import deltalake
    except ImportError as error:
        raise missing_package(error, f"the Delta table {what}") from error
    return deltalake
