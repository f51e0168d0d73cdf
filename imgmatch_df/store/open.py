"""Stored hashes by the name of their store: opened, made and read, whatever form they have."""

import os
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.options import shown
from imgmatch_df.store.duckdb import DuckDBStore
from imgmatch_df.store.duckdb_files import TornError
from imgmatch_df.store.locks import real_path
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.parquet import ParquetStore, says_store

Target = str | PathLike[str]
Store = DuckDBStore | ParquetStore

DUCKDB_SUFFIX: Final = ".duckdb"
_PARQUET_SUFFIX: Final = ".parquet"


def scan_hashes(target: Target) -> pl.LazyFrame:
    """Return stored hashes as a lazy frame. Only the columns that a query needs are read.

    Parameters
    ----------
    target
        What `write_hashes` wrote: a ``.duckdb`` file, a ``.parquet`` file, or a folder of Parquet files.

    Returns
    -------
    LazyFrame
        One row a key, in the order in which they were first stored: the key (``source: String``, unless another column
        was named), ``source`` where that is another one, ``width: UInt32``, ``height: UInt32``, the hashes,
        ``status: Enum``, ``detail: String``, and what tells whether a source has changed: ``size: UInt64`` (bytes),
        ``modified: Datetime("us", "UTC")``, ``etag: String``.

    Raises
    ------
    StoreError
        If there is no such store, it is damaged or of a later format, or another program writes it.

    Notes
    -----
    The store is opened when the query runs, and closed when it ends. Nothing in it is changed, and `write_hashes` may
    run meanwhile: the query sees the rows that were stored when it began. While another program has a DuckDB file open
    to write it, the query waits for 5 seconds before it raises.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"source": ["a.jpg"], "phash": [7]}, schema_overrides={"phash": pl.UInt64})
    >>> imgmatch_df.write_hashes(frame, "some.duckdb").n_new
    1
    >>> imgmatch_df.scan_hashes("some.duckdb").select("source", "phash").collect().rows()
    [('a.jpg', 7)]
    """
    path = _path(target)
    with open_store(path) as store:
        columns = store.manifest.columns

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = [name for name in columns if with_columns is None or name in with_columns]
        with open_store(path) as opened:
            if predicate is None:
                yield from opened.read(wanted, n_rows)
            else:
                yield from opened.read(wanted, n_rows, predicate)

    return register_io_source(batches, schema=pl.Schema(columns), is_pure=False)


def read_hashes(target: Target) -> pl.DataFrame:
    """Return stored hashes as a frame.

    Parameters
    ----------
    target
        As `scan_hashes`.

    Returns
    -------
    DataFrame
        As `scan_hashes`.

    Raises
    ------
    StoreError
        As `scan_hashes`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"source": ["a.jpg"], "phash": [7]}, schema_overrides={"phash": pl.UInt64})
    >>> imgmatch_df.write_hashes(frame, "one.parquet").n_new
    1
    >>> imgmatch_df.read_hashes("one.parquet").select("source", "phash", "status").rows()
    [('a.jpg', 7, 'ok')]
    """
    with open_store(target) as store:
        columns = store.manifest.columns
        return pl.concat([pl.DataFrame(schema=columns), *store.read(list(columns))])


def open_store(target: Target, *, write: bool = False) -> Store:
    """Open the store that `target` names, which exists.

    Raises
    ------
    StoreError
        If there is none, or it cannot be used.
    """
    path = _path(target)
    try:
        form, real = _form(path), real_path(path)
        if not real.exists():
            raise StoreError(f"no such store: {str(path)!r}{_leads_to(path)}\nHint: write_hashes makes one.")
        if not (real.is_file() or real.is_dir()):
            raise StoreError(f"{str(path)!r} is neither a file nor a folder\nHint: choose another name for the store.")
        return form(real, write=write)
    except OSError as error:
        raise _not_opened(path, error) from error


def make_store(target: Target, manifest: Manifest) -> None:
    """Make an empty store, unless there is something of that name.

    Raises
    ------
    StoreError
        If it cannot be made.
    """
    path = _path(target)
    try:
        if _form(path) is DuckDBStore:
            DuckDBStore.create(real_path(path), manifest)
        else:
            ParquetStore.create(real_path(path), manifest, is_file=path.suffix.lower() == _PARQUET_SUFFIX)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"cannot make {str(path)!r}{_leads_to(path)}: {error.strerror}\n"
            "Hint: is there such a folder, with permission to write?"
        ) from error


def manifest_of(target: Target, *, write: bool = False) -> Manifest | None:
    """Return what the store at `target` says about itself, None where there is nothing yet.

    With `write`, a store that a killed writer left torn is repaired first.
    """
    path = _path(target)
    try:
        _form(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
    except OSError as error:
        raise _not_opened(path, error) from error
    try:
        with open_store(path) as store:
            return store.manifest
    except TornError:
        if not write:
            raise
    with open_store(path, write=True) as store:
        return store.manifest


def is_store(path: Path) -> bool:
    """Return whether `path` names a store, there or not.

    That is a ``.duckdb`` file; a folder that is empty or has parts; or a Parquet file that says so of itself.
    """
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return any(path.glob("part-*.parquet")) or not (path.suffix or any(path.iterdir()))
        return suffix == DUCKDB_SUFFIX or (suffix == _PARQUET_SUFFIX and path.is_file() and says_store(path))
    except OSError:  # whoever opens it says why
        return suffix == DUCKDB_SUFFIX


def _not_opened(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{str(path)!r:.300} cannot be opened: {error.strerror}\nHint: may its folder be read?")


def _leads_to(path: Path) -> str:
    return f", a link to {os.path.realpath(path)!r}" if path.is_symlink() else ""


def _form(path: Path) -> type[DuckDBStore] | type[ParquetStore]:
    suffix = path.suffix.lower()
    if suffix == DUCKDB_SUFFIX and not path.is_dir():
        if "?" in os.path.realpath(path):
            raise ArgumentError(
                f"a .duckdb must not have a '?' in its path, where DuckDB cuts it off, got {os.path.realpath(path)!r}\n"
                "Hint: rename the file or its folder, or choose a .parquet."
            )
        return DuckDBStore
    if path.is_dir() or suffix in (_PARQUET_SUFFIX, ""):
        return ParquetStore
    raise ArgumentError(
        f"target must end in .duckdb or .parquet, or be a folder, got {str(path)!r}\n"
        "Hint: .duckdb is one file that is also a database."
    )


def _path(target: object) -> Path:
    path = fspath(target) if isinstance(target, str | PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ArgumentError(f"target must be a path, got {shown(target)}\nHint: such as 'hashes.duckdb'.")
    return Path(path)
