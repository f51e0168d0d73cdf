"""The interface of tables of hashes and the registry of their formats, so that another format is one entry.

Spark reads and writes the Parquet files of a table. What makes files a table is done by the driver: a list of files in
a log or a catalog, changed in one commit.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

from imgmatch_df.columns import STATUS
from imgmatch_df.errors import ArgumentError, MissingExtraError, StoreError
from imgmatch_df.options import shown
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.store.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

TableTarget: TypeAlias = str | PathLike[str]
"""A table: the path or URI of its folder, or its name in a catalog."""

# Before the entries of a manifest in the properties of a table.
_PREFIX: Final = "imgmatch."
# Age at which work folders are those of killed runs, where other writers may be at work.
LEFT_AFTER_S: Final = 7 * 86_400.0
_WILDCARD: Final = re.compile(r"([\\*?\[\]{}])")


class ConflictError(StoreError):
    """Another writer has changed a table since it was opened; nothing was committed."""


class Table(Protocol):
    """An open table, with the files of one version."""

    @property
    def label(self) -> str:
        """Its name in messages."""
        ...

    @property
    def manifest(self) -> Manifest | None:
        """How its hashes were made; None where the table is not one of hashes."""
        ...

    @classmethod
    def exists(cls, target: str, catalog: Any) -> bool:
        """Return whether there is such a table."""
        ...

    @classmethod
    def open(cls, target: str, catalog: Any, version: int | None = None) -> Self:
        """Return the table as it is now, or as of a version."""
        ...

    @classmethod
    def create(cls, target: str, catalog: Any, manifest: Manifest, schema: "StructType") -> None:
        """Make an empty table, unless there is one now."""
        ...

    def schema(self) -> "StructType":
        """Return its columns."""
        ...

    def files(self) -> Sequence[str]:
        """Return the files of this version, as Spark reads them."""
        ...

    def read(self, spark: "SparkSession", files: Sequence[str] | None = None) -> "DataFrame":
        """Return the rows of all files, or of some of them."""
        ...

    def data_folder(self, run: str) -> WorkFolder:
        """Return the folder to which a run writes files that become part of the table."""
        ...

    def work_folder(self, run: str) -> WorkFolder:
        """Return the folder for other files of a run."""
        ...

    def commit(self, added: Sequence[WorkFolder], replaced: Mapping[str, WorkFolder]) -> None:
        """Make Parquet files part of the table, in one step, and refresh it.

        Parameters
        ----------
        added
            Folders of new files.
        replaced
            Folders with the file that replaces a file of the table, by the URI of that.

        Raises
        ------
        ConflictError
            If another writer of hashes has committed since the table was opened.
        """
        ...

    def refresh(self) -> None:
        """Take the newest version."""
        ...

    def clean(self) -> None:
        """Delete the work folders that killed runs have left."""
        ...


@dataclass(frozen=True, slots=True)
class TableFormat:
    """A format of tables.

    Parameters
    ----------
    kind
        The class of its tables.
    in_catalog
        Whether a table is named in a catalog, and has no path.
    """

    kind: type[Table]
    in_catalog: bool = False


_formats: Final[dict[str, TableFormat]] = {}


def register_table_format(name: str, table_format: TableFormat) -> None:
    """Let `write_hashes` and `read_hashes` use tables of a format."""
    _formats[name] = table_format


def find_format(format_: str | None, target: str, catalog: Any) -> tuple[str, type[Table]]:
    """Return the format of a table by its name, or without one that of the table that exists, Parquet for a new one.

    Raises
    ------
    ArgumentError
        If there is no such format, or there is a table of another one.
    """
    if format_ is not None and (not isinstance(format_, str) or format_ not in _formats):
        raise ArgumentError(
            f"format must be {', '.join(map(repr, _formats))} or None, got {shown(format_)}\n"
            "Hint: leave it out; a catalog= is one of Iceberg tables, and other tables are found by their files."
        )
    possible = {name: one for name, one in _formats.items() if one.in_catalog == (catalog is not None)}
    if format_ is not None and format_ not in possible:
        needed = "needs catalog=, the name or the properties of one" if catalog is None else "takes no catalog="
        raise ArgumentError(
            f"format {format_!r} {needed}, got {shown(catalog)}\n"
            "Hint: such as catalog={'type': 'sql', 'uri': 'sqlite:////data/catalog.db'} and target='images.hashes'."
        )
    found = next((name for name, one in possible.items() if one.kind.exists(target, catalog)), None)
    if found is not None and format_ not in (None, found):
        raise ArgumentError(
            f"format is {format_!r}, and {target!r} is a table of format {found!r}\n"
            "Hint: leave format= out, or choose another target."
        )
    name = format_ or found or next(iter(possible))
    return name, possible[name].kind


def check_table(target: object, catalog: object) -> str:
    """Return a table as text: an absolute path, a URI, or a name in a catalog."""
    text = os.fspath(target) if isinstance(target, str | PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(
            f"target must be a path, a URI or the name of a table, got {shown(target)}\n"
            "Hint: such as '/data/hashes', or 'images.hashes' with catalog=."
        )
    if catalog is not None:
        return text
    if text.startswith("file:"):
        text = "/" + text.removeprefix("file:").lstrip("/")
    if "://" in text:
        return text.rstrip("/")
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111  # the text of a path, on any system


def manifest_properties(manifest: Manifest) -> dict[str, str]:
    """Return a manifest as properties of a table."""
    return {f"{_PREFIX}{name}": value for name, value in manifest.entries.items()}


def manifest_in(properties: Mapping[str, Any], where: str) -> Manifest | None:
    """Return the manifest in the properties of a table; None where there is none."""
    entries = {name.removeprefix(_PREFIX): value for name, value in properties.items() if name.startswith(_PREFIX)}
    return Manifest.parse(entries, where) if entries else None


def missing_package(error: ImportError, what: str) -> MissingExtraError:
    """Return the error for a package that is not installed."""
    return MissingExtraError(
        f"{what} needs the package {error.name}, which is not installed\n"
        "Hint: pip install 'imgmatch-df[lakes]' installs it."
    )


def read_files(spark: "SparkSession", schema: "StructType", files: Sequence[str]) -> "DataFrame":
    """Return the rows of Parquet files, null where a file has no column of a name."""
    if not files:
        return spark.createDataFrame([], schema)
    # Spark takes these names for patterns.
    return spark.read.schema(schema).parquet(*(_WILDCARD.sub(r"\\\1", file) for file in files))


def widened(dtype: "DataType") -> "DataType":
    """Return a type of Spark with numbers of at least 32 bits: Iceberg has no smaller ones."""
    from pyspark.sql import types

    if isinstance(dtype, types.ByteType | types.ShortType):
        return types.IntegerType()
    if isinstance(dtype, types.ArrayType):
        return types.ArrayType(widened(dtype.elementType), dtype.containsNull)
    if isinstance(dtype, types.StructType):
        return types.StructType(
            [types.StructField(one.name, widened(one.dataType), one.nullable) for one in dtype.fields]
        )
    return dtype


class TableFolder(WorkFolder):
    """A folder of a table, whose files the driver lists, moves and deletes."""

    def parquet_files(self) -> list[tuple[str, int, int]]:
        """Return name, bytes and time of modification (ms) of each Parquet file in it, and not of its folders."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        found = system.get_file_info(pa_fs.FileSelector(root, allow_not_found=True))
        return sorted(
            (one.base_name, one.size, int((one.mtime_ns or 0) // 1_000_000))
            for one in found
            if one.is_file and one.base_name.endswith(".parquet") and not one.base_name.startswith((".", "_"))
        )

    def is_empty(self) -> bool:
        """Return whether there is nothing in it, or no such folder."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        return not system.get_file_info(pa_fs.FileSelector(root, allow_not_found=True))

    def footer(self, name: str) -> "pq.FileMetaData":
        """Return the footer of a Parquet file."""
        import pyarrow.parquet as pq

        system, root = self._opened
        with system.open_input_file(f"{root}/{name}") as file:
            return pq.read_metadata(file)

    def count_rows(self) -> int:
        """Return the number of rows of its Parquet files."""
        return sum(self.footer(name).num_rows for name, _, _ in self.parquet_files())

    def count_statuses(self) -> Counter[str]:
        """Return how many rows of its Parquet files have each status."""
        statuses = Counter[str]()
        for name, _, _ in self.parquet_files():
            column = self.read_tables(name, columns=[STATUS]).column(STATUS)
            statuses.update({one["values"] or "no_hash": one["counts"] for one in column.value_counts().to_pylist()})
        return statuses

    def move(self, name: str, other: WorkFolder, new_name: str) -> None:
        """Move a file into another folder, in the place of a file of that name."""
        system, root = self._opened
        folder = other._opened[1]  # of the same file system
        system.create_dir(folder, recursive=True)
        system.move(f"{root}/{name}", f"{folder}/{new_name}")

    def delete(self) -> None:
        """Delete the folder, if there is one."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        if system.get_file_info(root).type == pa_fs.FileType.Directory:
            system.delete_dir(root)

    def delete_older(self, age_s: float) -> None:
        """Delete the folders in it in which nothing has changed for some seconds."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        limit = time.time() - age_s
        for one in system.get_file_info(pa_fs.FileSelector(root, allow_not_found=True)):
            if one.type == pa_fs.FileType.Directory:
                inside = system.get_file_info(pa_fs.FileSelector(one.path, recursive=True))
                if all((file.mtime_ns or 0) < limit * 1e9 for file in [one, *inside]):
                    system.delete_dir(one.path)

    def parent(self) -> "TableFolder":
        """Return the folder that it is in."""
        return TableFolder(self.uri.rpartition("/")[0])

    @classmethod
    def at(cls, folder: WorkFolder) -> "TableFolder":
        """Return a folder as one of a table."""
        return cls(folder.uri)
