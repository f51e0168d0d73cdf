"""Work folders: the files that the tasks of one call write, so that no finished task runs again.

A file is written whole or not at all, and two attempts of a task write the same bytes to the same name. So killed
executors, speculative attempts and a driver that starts again do no harm.
"""

import atexit
import posixpath
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import shown
from imgmatch_df.spark.sessions import is_local

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pa_fs
    from pyspark.sql import SparkSession

_MOVES_AT_ONCE = ("local", "hdfs")  # other file systems show a file only when it is whole


@dataclass(frozen=True)
class WorkFolder:
    """A folder that the driver and all executors read and write.

    Parameters
    ----------
    uri
        Absolute path, or a URI that both Spark and pyarrow understand: ``file:``, ``hdfs:``, ``s3:`` or ``s3a:``,
        ``gs:``, ``abfs:``.
    """

    uri: str

    @classmethod
    def of(cls, work_dir: object, spark: "SparkSession") -> "WorkFolder":
        """Return the folder that a call names, or without one a temporary one if all executors are on this machine."""
        if work_dir is None:
            if not is_local(spark):
                raise ArgumentError(
                    "work_dir is missing: a folder that all executors can read and write\n"
                    "Hint: such as work_dir='s3a://bucket/work', or a path of a file system that all machines mount."
                )
            folder = tempfile.mkdtemp(prefix="imgmatch-spark-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return cls(folder)
        if not isinstance(work_dir, str) or not (work_dir.startswith("/") or ":" in work_dir):
            raise ArgumentError(
                f"work_dir must be an absolute path or a URI, got {shown(work_dir)}\n"
                "Hint: all executors must find the same folder under it."
            )
        return cls(work_dir.rstrip("/"))

    def folder(self, name: str) -> "WorkFolder":
        """Return a folder in it."""
        return WorkFolder(f"{self.uri}/{name}")

    def uri_of(self, name: str) -> str:
        """Return the URI of a file or folder, for Spark."""
        uri = f"{self.uri}/{name}"
        return uri if ":" in uri else f"file://{uri}"

    @cached_property
    def _opened(self) -> "tuple[pa_fs.FileSystem, str]":
        import pyarrow.fs as pa_fs

        if self.uri.startswith("/"):
            return pa_fs.LocalFileSystem(), self.uri
        uri = "s3://" + self.uri.partition("://")[2] if self.uri.startswith("s3a://") else self.uri
        system, path = pa_fs.FileSystem.from_uri(uri)
        return system, path

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted; none where there is no folder."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        selector = pa_fs.FileSelector(posixpath.join(root, folder), allow_not_found=True)
        return sorted(one.base_name for one in system.get_file_info(selector) if one.is_file)

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        return bool(system.get_file_info(posixpath.join(root, name)).type == pa_fs.FileType.File)

    def is_finished(self, stage: str) -> bool:
        """Return whether Spark has written a folder of Parquet files whole."""
        return self.exists(f"{stage}/_SUCCESS")

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        system, root = self._opened
        path = posixpath.join(root, name)
        system.create_dir(posixpath.dirname(path), recursive=True)
        at_once = system.type_name in _MOVES_AT_ONCE
        written = posixpath.join(posixpath.dirname(path), f".{uuid4().hex}.tmp") if at_once else path
        with system.open_output_stream(written) as out:
            out.write(data)
        if at_once:
            system.move(written, path)

    def write_table(self, name: str, table: "pa.Table", *, rows_per_group: int | None = None) -> None:
        """Write a table as a Parquet file, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        out = pa.BufferOutputStream()
        pq.write_table(table, out, compression="zstd", row_group_size=rows_per_group)
        self.write(name, out.getvalue())

    def read(self, name: str) -> bytes:
        """Return the bytes of a file."""
        system, root = self._opened
        with system.open_input_file(posixpath.join(root, name)) as file:
            data: bytes = file.read()
        return data

    def read_tables(self, folder: str, columns: list[str] | None = None, filters: Any = None) -> "pa.Table":
        """Return the rows of all Parquet files in a folder, in the order of their names."""
        import pyarrow.parquet as pq

        system, root = self._opened
        return pq.read_table(posixpath.join(root, folder), columns=columns, filters=filters, filesystem=system)
