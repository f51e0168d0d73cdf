"""Work folders: the files that the tasks of one call write, so that no finished task runs again.

A file is written whole or not at all, and two attempts of a task write the same bytes to the same name. So killed
executors, speculative attempts and a driver that starts again do no harm.
"""

import atexit
import os
import posixpath
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import shown
from imgmatch_df.spark.sessions import is_connect, is_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    import pyarrow.fs as pa_fs
    from pyspark.sql import SparkSession

_PATTERN = frozenset("*?[]{}\\")  # Spark reads a path with one of these as a pattern of names
_N_LOOKS = 8  # tasks that look for the folder where the session does not say how many executors it has
_reached: set[tuple[str, str]] = set()  # sessions and the folders that their executors reach


@dataclass(frozen=True)
class WorkFolder:
    """A folder that the driver and all executors read and write.

    Parameters
    ----------
    uri
        Absolute path, or a URI that both Spark and pyarrow understand: ``hdfs:``, ``s3:`` or ``s3a:``, ``gs:``,
        ``abfs:`` or ``abfss:``, its path as Spark reads it, without ``%`` codes. Tasks find credentials, and the
        endpoint of another S3 service (``AWS_ENDPOINT_URL``), in the environment of the executors
        (``spark.executorEnv.AWS_ENDPOINT_URL``).
    """

    uri: str

    @classmethod
    def of(cls, work_dir: object, spark: "SparkSession") -> "WorkFolder":
        """Return the folder that a call names, or without one a temporary one if all executors are on this machine.

        The driver and tasks of the session write to the folder and read from it, which takes one job.

        Raises
        ------
        ArgumentError
            If the driver or an executor cannot write to the folder, or an executor has another folder under its name.
        """
        if work_dir is None:
            if not is_local(spark):
                raise ArgumentError(
                    "work_dir is missing: a folder that all executors can read and write\n"
                    "Hint: such as work_dir='s3a://bucket/work', or a path of a file system that all machines mount."
                )
            found = cls(_temporary_folder())
        else:
            found = cls(_checked(work_dir))
        if work_dir is not None or is_connect(spark):  # the executors of a classic local session see its files
            found._check_reach(spark)
        return found

    def folder(self, name: str) -> "WorkFolder":
        """Return a folder in it."""
        return WorkFolder(f"{self.uri}/{name}")

    def uri_of(self, name: str) -> str:
        """Return the URI of a file or folder, for Spark."""
        uri = f"{self.uri}/{name}"
        return f"file://{uri}" if self.is_path else uri

    @property
    def is_path(self) -> bool:
        """Whether it is a folder of the operating system's file system."""
        return self.uri.startswith("/")

    @cached_property
    def _opened(self) -> "tuple[pa_fs.FileSystem, str]":
        import pyarrow.fs as pa_fs

        if self.is_path:
            return pa_fs.LocalFileSystem(), self.uri
        scheme, _, path = self.uri.partition("://")
        if scheme in ("s3", "s3a"):
            return _open_s3(path.partition("/")[0]), path
        system, path = pa_fs.FileSystem.from_uri(f"{scheme}://{quote(path, safe='/@:')}")
        return system, path

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the whole files in a folder, sorted; none where there is no folder.

        Names that begin with ``.`` or ``_`` are left out, as Spark leaves them out: files that are not whole yet,
        checksums, ``_SUCCESS``.
        """
        import pyarrow.fs as pa_fs

        system, root = self._opened
        selector = pa_fs.FileSelector(posixpath.join(root, folder), allow_not_found=True)
        found = (one.base_name for one in system.get_file_info(selector) if one.is_file)
        return sorted(name for name in found if not name.startswith((".", "_")))

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""
        import pyarrow.fs as pa_fs

        system, root = self._opened
        return bool(system.get_file_info(posixpath.join(root, name)).type == pa_fs.FileType.File)

    def is_finished(self, stage: str) -> bool:
        """Return whether Spark has written a folder of Parquet files whole."""
        return self.exists(f"{stage}/_SUCCESS")

    def write(self, name: str, data: "bytes | pa.Buffer") -> None:
        """Write a file, whole or not at all. A file that is there is replaced."""
        system, root = self._opened
        path = posixpath.join(root, name)
        if self.is_path:
            _write_path(path, data)
        elif system.type_name == "hdfs":
            _write_hdfs(system, path, data)
        else:  # object stores show an object only when it is whole, and have no folders
            with system.open_output_stream(path) as out:
                out.write(data)

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

    def _check_reach(self, spark: "SparkSession") -> None:
        """Raise `ArgumentError` unless the driver and the executors find each other's files in the folder."""
        from imgmatch_df.spark.workers import map_batches

        reached = (str(spark.conf.get("spark.app.id", "")), self.uri)
        if reached in _reached:
            return
        token = uuid4().hex
        probes = self.folder(f"_reach-{token}")
        try:
            try:
                probes.write("driver", token.encode())
            except Exception as error:  # pyarrow and Python have several classes for it
                raise ArgumentError(
                    f"work_dir {shown(self.uri)} cannot be written: {_reason(error)}\n"
                    "Hint: name a folder that the driver and all executors can write to."
                ) from error

            def look(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
                yield from _look(probes, token, batches)

            n_tasks = _n_looks(spark)
            tasks = spark.range(0, n_tasks, 1, n_tasks)
            looked = map_batches(tasks, look, "task string, host string, problem string").collect()
            written = set(probes.names())
            for task, host, problem in looked:
                if not problem and task not in written:
                    problem = "the driver does not find the file that the executor wrote"
                if problem:
                    raise ArgumentError(
                        f"work_dir {shown(self.uri)} is not one folder for all machines: on {host}, {problem}\n"
                        "Hint: name a folder of a file system that the driver and all executors share, such as s3a:."
                    )
            _reached.add(reached)
        finally:
            with suppress(OSError):
                probes._delete()

    def _delete(self) -> None:
        system, root = self._opened
        system.delete_dir(root)


def _checked(work_dir: object) -> str:
    """Return the path or URI of a work folder; `file:` URIs become paths."""
    text = os.fspath(work_dir) if isinstance(work_dir, os.PathLike) else work_dir
    if isinstance(text, str) and text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    if not isinstance(text, str) or not (text.startswith("/") or "://" in text):
        raise ArgumentError(
            f"work_dir must be an absolute path or a URI, got {shown(work_dir)}\n"
            "Hint: all executors must find the same folder under it."
        )
    if pattern := sorted(_PATTERN.intersection(text)):
        raise ArgumentError(
            f"work_dir must have none of the characters * ? [ ] {{ }} \\, got {pattern[0]} in {shown(work_dir)}\n"
            "Hint: Spark reads such a path as a pattern of names; rename the folder."
        )
    folder = text.rstrip("/")
    if folder in ("", text.partition("://")[0] + ":"):
        raise ArgumentError(f"work_dir must name a folder, got {shown(work_dir)}\nHint: such as work_dir='/data/work'.")
    try:
        WorkFolder(folder)._opened  # noqa: B018  # opens the file system
    except Exception as error:  # pyarrow has several classes for it
        raise ArgumentError(
            f"work_dir {shown(work_dir)} cannot be opened: {_reason(error)}\n"
            "Hint: an absolute path, or a URI with hdfs:, s3:, s3a:, gs:, abfs: or abfss:."
        ) from error
    return folder


def _temporary_folder() -> str:
    """Return a new folder that is deleted when this process ends."""
    folder, process = tempfile.mkdtemp(prefix="imgmatch-spark-"), os.getpid()

    def delete() -> None:
        if os.getpid() == process:  # a forked process has the same exit functions
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(delete)
    return folder


def _open_s3(bucket: str) -> "pa_fs.FileSystem":
    """Return the file system of a bucket, at the endpoint and in the region that the environment names."""
    import pyarrow.fs as pa_fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else pa_fs.resolve_s3_region(bucket)
    return pa_fs.S3FileSystem(endpoint_override=endpoint, region=region)


def _n_looks(spark: "SparkSession") -> int:
    """Return how many tasks look for a folder: two for each executor where the session says their number."""
    n_executors = str(spark.conf.get("spark.executor.instances", ""))
    return min(max(2 * int(n_executors), _N_LOOKS), 512) if n_executors.isdigit() else _N_LOOKS


def _look(probes: WorkFolder, token: str, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Read the driver's file and write one for each task: its name, the host, and what is wrong."""
    import socket

    import pyarrow as pa

    rows: list[tuple[str, str, str]] = []
    for batch in batches:
        for number in batch["id"].to_pylist():
            problem = ""
            try:
                if probes.read("driver") != token.encode():
                    problem = "the file of the driver has other content"
                else:
                    probes.write(f"task-{number}", token.encode())
            except Exception as error:  # noqa: BLE001  # it becomes the message of the driver's error
                problem = _reason(error)
            rows.append((f"task-{number}", socket.gethostname(), problem))
    yield pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        if rows
        else [pa.array([], pa.string())] * 3,
        names=["task", "host", "problem"],
    )


def _reason(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _write_path(path: str, data: "bytes | pa.Buffer") -> None:
    """Write a file of the operating system under another name, and give it its own when it is on the disk."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    written = final.with_name(f".{uuid4().hex}.tmp")
    try:
        with written.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        written.replace(final)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _write_hdfs(system: "pa_fs.FileSystem", path: str, data: "bytes | pa.Buffer") -> None:
    """Write a file of HDFS under another name, and rename it when it is whole."""
    import pyarrow.fs as pa_fs

    folder = posixpath.dirname(path)
    system.create_dir(folder, recursive=True)
    written = posixpath.join(folder, f".{uuid4().hex}.tmp")
    with system.open_output_stream(written) as out:
        out.write(data)
    try:
        system.move(written, path)
    except OSError:  # HDFS does not rename to a name that exists: another attempt was first, with the same bytes
        if system.get_file_info(path).type != pa_fs.FileType.File:
            raise
        system.delete_file(written)
