"""Tables that are folders of Parquet files, as every program reads them.

A file without rows has the manifest in its footer: readers of the folder see no file of another kind. A file appears
whole, but the files of a commit appear one after another; whoever reads between sees some of the new rows, each once.
"""

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.spark.table_base import TableFolder, read_files
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.store.manifest import Manifest, parse_entries

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_MANIFEST_FILE: Final = "imgmatch-manifest.parquet"
_ABOUT: Final = b"imgmatch_table"


class ParquetTable:
    """A folder of Parquet files."""

    def __init__(self, target: str) -> None:
        self.label = repr(target)
        self._folder = TableFolder(target)
        self.manifest = self._read_manifest()
        self.refresh()

    @classmethod
    def exists(cls, target: str, catalog: Any) -> bool:  # noqa: ARG003  # as all formats
        """Return whether there is a folder with Parquet files."""
        return bool(TableFolder(target).parquet_files())

    @classmethod
    def open(cls, target: str, catalog: Any, version: int | None = None) -> "ParquetTable":  # noqa: ARG003
        """Return the table as it is now."""
        if version is not None:
            raise ArgumentError(
                f"version is for Delta and Iceberg tables, and {target!r} is a folder of Parquet files\n"
                "Hint: leave it out."
            )
        return cls(target)

    @classmethod
    def create(cls, target: str, catalog: Any, manifest: Manifest, schema: "StructType") -> None:  # noqa: ARG003
        """Write the manifest into a new folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyspark.sql.pandas.types import to_arrow_schema

        folder = TableFolder(target)
        if not folder.is_empty():
            raise StoreError(
                f"{target!r} is a folder with other files, not a table of hashes\nHint: choose another target."
            )
        out = pa.BufferOutputStream()
        about = {_ABOUT: json.dumps(manifest.entries).encode()}
        pq.write_table(to_arrow_schema(schema).with_metadata(about).empty_table(), out)
        folder.write(_MANIFEST_FILE, out.getvalue())

    def _read_manifest(self) -> Manifest | None:
        if not self._folder.exists(_MANIFEST_FILE):
            return None
        about = (self._folder.footer(_MANIFEST_FILE).metadata or {}).get(_ABOUT)
        if about is None:
            return None
        return Manifest.parse(parse_entries(about.decode(), self.label), self.label)

    def schema(self) -> "StructType":
        """Return the columns of its manifest, or those of its first file."""
        from pyspark.sql.pandas.types import from_arrow_schema

        name = _MANIFEST_FILE if self._folder.exists(_MANIFEST_FILE) else posixpath.basename(self._files[0])
        return from_arrow_schema(self._folder.footer(name).schema.to_arrow_schema().remove_metadata())

    def files(self) -> list[str]:
        """Return the files, as Spark reads them."""
        return self._files

    def read(self, spark: "SparkSession", files: Sequence[str] | None = None) -> "DataFrame":
        """Return the rows of all files, or of some of them."""
        if files is None and self.manifest is None:
            return spark.read.parquet(self._folder.uri_of(""))  # with the partitions that other programs make
        return read_files(spark, self.schema(), self._files if files is None else files)

    def data_folder(self, run: str) -> WorkFolder:
        """Return a folder beside the table, from which `commit` moves the files."""
        return self.work_folder(run).folder("data")

    def work_folder(self, run: str) -> WorkFolder:
        """Return a folder beside the table, since every file in a folder of Parquet files counts."""
        parent, name = posixpath.split(self._folder.uri)
        return WorkFolder(f"{parent}/.{name}.imgmatch").folder(run)

    def clean(self) -> None:
        """Delete all work folders: there is one writer at a time."""
        TableFolder.at(self.work_folder("any")).parent().delete()

    def commit(self, added: Sequence[WorkFolder], replaced: Mapping[str, WorkFolder]) -> None:
        """Move files into the folder, one after another."""
        for folder in map(TableFolder.at, added):
            for name, _, _ in folder.parquet_files():
                folder.move(name, self._folder, name)
        for old, other in replaced.items():
            folder = TableFolder.at(other)
            for name, _, _ in folder.parquet_files():
                folder.move(name, self._folder, posixpath.basename(old))
        self.refresh()

    def refresh(self) -> None:
        """List the files again."""
        names = (name for name, _, _ in self._folder.parquet_files())
        self._files = [self._folder.uri_of(name) for name in names if name != _MANIFEST_FILE]
