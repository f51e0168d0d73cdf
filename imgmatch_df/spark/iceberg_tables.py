"""Iceberg tables of any catalog, which the driver changes with the package pyiceberg; Spark needs no connector.

A commit names the snapshot that it follows. Where another writer was first, the catalog refuses it, so that a key that
both have hashed is not stored twice.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.options import shown
from imgmatch_df.spark.table_base import (
    LEFT_AFTER_S,
    ConflictError,
    TableFolder,
    manifest_of,
    manifest_properties,
    missing_package,
    read_files,
    widened,
)
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.store.manifest import Manifest

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask
    from pyiceberg.table import Table as OpenTable
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_NAMES: Final = "schema.name-mapping.default"
_RETRIES: Final = "commit.retry.num-retries"


class IcebergTable:
    """A table of a catalog."""

    def __init__(self, target: str, catalog: Any, version: int | None = None) -> None:
        from pyiceberg.exceptions import NoSuchTableError

        self.label = repr(target)
        self._version = version
        try:
            self._table: OpenTable = open_catalog(catalog).load_table(target)
        except NoSuchTableError as error:
            raise StoreError(
                f"no table {self.label} in the catalog\nHint: write_hashes makes one, in a namespace that exists."
            ) from error
        if version is not None and self._table.snapshot_by_id(version) is None:
            known = ", ".join(str(one.snapshot_id) for one in self._table.snapshots()[-5:]) or "none"
            raise ArgumentError(
                f"version must be the number of a snapshot of {self.label}, got {version}; the newest are {known}\n"
                "Hint: leave it out for the table as it is now."
            )
        self.manifest = manifest_of(self._table.properties, self.label)

    @classmethod
    def exists(cls, target: str, catalog: Any) -> bool:
        """Return whether the catalog has such a table."""
        return bool(open_catalog(catalog).table_exists(_identifier(target)))

    @classmethod
    def open(cls, target: str, catalog: Any, version: int | None = None) -> "IcebergTable":
        """Return the table as it is now, or its snapshot of a number."""
        return cls(target, catalog, version)

    @classmethod
    def create(cls, target: str, catalog: Any, manifest: Manifest, schema: "StructType") -> None:
        """Make a table in a namespace that exists."""
        from pyiceberg.exceptions import NoSuchNamespaceError, TableAlreadyExistsError
        from pyspark.sql.pandas.types import to_arrow_schema

        try:
            open_catalog(catalog).create_table(
                _identifier(target),
                schema=to_arrow_schema(widened(schema)),
                properties=manifest_properties(manifest),
            )
        except TableAlreadyExistsError:
            return  # another writer has just made it
        except NoSuchNamespaceError as error:
            raise StoreError(
                f"cannot create {target!r}: the catalog has no such namespace\n"
                f"Hint: catalog.create_namespace({target.rpartition('.')[0]!r}) makes one."
            ) from error

    def refresh(self) -> None:
        """Load the newest metadata."""
        self._table.refresh()

    def schema(self) -> "StructType":
        """Return the columns."""
        from pyspark.sql.pandas.types import from_arrow_schema

        schema = self._table.schema()
        if self._version is not None:
            schema = self._table.scan(snapshot_id=self._version).projection()
        return from_arrow_schema(schema.as_arrow())

    def files(self) -> list[str]:
        """Return the files, as Spark reads them."""
        return [task.file.file_path for task in self._tasks()]

    def read(self, spark: "SparkSession", files: Sequence[str] | None = None) -> "DataFrame":
        """Return the rows of all files, or of some of them."""
        return read_files(spark, self.schema(), self.files() if files is None else files)

    def _tasks(self) -> "list[FileScanTask]":
        """Return the files of the snapshot; refuse those whose rows Spark cannot read by the names of columns."""
        from pyiceberg.manifest import FileFormat

        self._check_names()
        tasks = list(self._table.scan(snapshot_id=self._version).plan_files())
        for task in tasks:
            if task.delete_files:
                raise _unsupported(self.label, "has delete files", "compact it with rewrite_data_files")
            if task.file.file_format != FileFormat.PARQUET:
                raise _unsupported(self.label, "has files that are not Parquet", "rewrite it")
        return tasks

    def _check_names(self) -> None:
        """Refuse tables in which a column of a file may have another name than in the table."""
        fields: dict[int, str] = {}
        numbers: dict[str, int] = {}
        for schema in self._table.schemas().values():
            for number in schema.field_ids:
                name = schema.find_column_name(number) or ""
                if fields.setdefault(number, name) != name or numbers.setdefault(name, number) != number:
                    raise _unsupported(
                        self.label, f"has a column that was renamed or made again, {name!r}", "write it to a new table"
                    )

    def data_folder(self, run: str) -> WorkFolder:
        """Return a folder in the table: files are not visible before a snapshot names them."""
        return self._folder().folder("data").folder(f"imgmatch-{run}")

    def work_folder(self, run: str) -> WorkFolder:
        """Return a folder beside the data of the table."""
        return self._folder().folder("_imgmatch").folder(run)

    def _folder(self) -> TableFolder:
        location = self._table.location().rstrip("/")
        return TableFolder(
            "/" + location.removeprefix("file:").lstrip("/") if location.startswith("file:") else location
        )

    def clean(self) -> None:
        """Delete old work folders; other writers may use newer ones."""
        TableFolder.at(self.work_folder("any")).parent().delete_older(LEFT_AFTER_S)

    def commit(self, added: Sequence[WorkFolder], replaced: Mapping[str, WorkFolder]) -> None:
        """Add a snapshot, which adds and removes files."""
        from pyiceberg.exceptions import CommitFailedException, ValidationException
        from pyiceberg.io.pyarrow import parquet_files_to_data_files

        table = self._table
        if table.spec().fields:
            raise StoreError(
                f"cannot add to {self.label}: it has partitions, tables of hashes have none\n"
                "Hint: choose another target; nothing was changed."
            )
        old = [task.file for task in self._tasks() if task.file.file_path in replaced] if replaced else []
        # pyiceberg would put the commit behind that of another writer, with the keys of both.
        table.metadata.properties[_RETRIES] = "0"
        transaction = table.transaction()
        if table.name_mapping() is None or _NAMES not in table.properties:
            transaction.set_properties({_NAMES: table.schema().name_mapping.model_dump_json()})
        update = transaction.update_snapshot({"imgmatch.written-by": "imgmatch-df write_hashes"})
        names = [self._location(folder, name) for folder in (*added, *replaced.values()) for name in _files(folder)]
        try:
            with update.overwrite() if old else update.fast_append() as snapshot:
                for file in parquet_files_to_data_files(table.io, transaction.table_metadata, iter(names)):
                    snapshot.append_data_file(file)
                for file in old:
                    snapshot.delete_data_file(file)
            transaction.commit_transaction()
        except (CommitFailedException, ValidationException) as error:
            raise ConflictError(
                f"another program has changed {self.label} at the same time: {str(error)[:200]}\n"
                "Hint: call write_hashes again; nothing was changed."
            ) from error
        self.refresh()

    def _location(self, folder: WorkFolder, name: str) -> str:
        inside = folder.uri.removeprefix(self._folder().uri)
        return f"{self._table.location().rstrip('/')}{inside}/{name}"


def _files(folder: WorkFolder) -> list[str]:
    return [name for name, _, _ in TableFolder.at(folder).parquet_files()]


def open_catalog(catalog: Any) -> Any:
    """Return the catalog of a name, of properties, or as it is."""
    try:
        from pyiceberg.catalog import Catalog, load_catalog
    except ImportError as error:
        raise missing_package(error, "an Iceberg table") from error
    if isinstance(catalog, Catalog):
        return catalog
    if isinstance(catalog, str):
        return load_catalog(catalog)
    if isinstance(catalog, Mapping) and all(isinstance(name, str) for name in catalog):
        rest = {name: str(value) for name, value in catalog.items() if name != "name"}
        return load_catalog(str(catalog.get("name", "default")), **rest)
    raise ArgumentError(
        f"catalog must be the name of a catalog, a dict of its properties or a pyiceberg Catalog, got {shown(catalog)}\n"
        "Hint: such as {'type': 'sql', 'uri': 'sqlite:////data/catalog.db', 'warehouse': 'file:///data'}."
    )


def _identifier(target: str) -> str:
    if "." not in target.strip("."):
        raise ArgumentError(
            f"target must be the name of a table in a catalog, got {shown(target)}\nHint: such as 'images.hashes'."
        )
    return target


def _unsupported(label: str, what: str, hint: str) -> StoreError:
    return StoreError(
        f"the Iceberg table {label} {what}, which is not supported\n"
        f"Hint: {hint}; or read it with the Iceberg connector of Spark."
    )
