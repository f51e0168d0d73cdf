"""Functions that open, create, scan and read the store at a path or URI, of any registered kind."""

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.atomic import real_path
from imgmatch_df.errors import StoreError
from imgmatch_df.store.base import (
    FOLDER,
    HashStore,
    Location,
    MissingStoreError,
    RepairableError,
    StoreKind,
    Target,
    kind_of,
    locate,
    register_store,
)
from imgmatch_df.store.duckdb import DuckDBStore
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.parquet import ParquetStore, create_file, create_folder, is_store_file, is_store_folder

register_store(".duckdb", StoreKind(DuckDBStore, DuckDBStore.create))
register_store(".parquet", StoreKind(ParquetStore, create_file, is_store_file))
register_store(FOLDER, StoreKind(ParquetStore, create_folder, is_store_folder))


def scan_hashes(target: Target) -> pl.LazyFrame:
    """Return stored hashes as a lazy frame. Only the columns that a query needs are read.

    Parameters
    ----------
    target
        A store, see `write_hashes`: a ``.duckdb`` file, a ``.parquet`` file, or a folder of Parquet files.

    Returns
    -------
    LazyFrame
        One row per key, in the order in which the keys were first stored: the key (``source: String`` by default),
        ``source`` beside another key, ``width: UInt32``, ``height: UInt32``, the hashes, ``status: Enum``,
        ``detail: String``, and the columns that show whether a source has changed: ``size: UInt64`` (bytes),
        ``modified: Datetime("us", "UTC")``, ``etag: String``.

    Raises
    ------
    StoreError
        If there is no store, it is damaged or of a later format, or another program writes it.

    Notes
    -----
    The store is opened when the query runs, and closed when the query ends. It is not changed, and `write_hashes` may
    run at the same time: the query sees the rows that were stored when it began. While another program has a DuckDB
    file open for writing, the query waits for 5 seconds before it raises.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"source": ["a.jpg"], "phash": [7]}, schema_overrides={"phash": pl.UInt64})
    >>> imgmatch_df.write_hashes(frame, "some.duckdb").n_new
    1
    >>> imgmatch_df.scan_hashes("some.duckdb").select("source", "phash").collect().rows()
    [('a.jpg', 7)]
    """
    with open_store(target) as store:
        columns = store.manifest.columns

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = [name for name in columns if with_columns is None or name in with_columns]
        with open_store(target) as opened:
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


def open_store(target: Target, *, write: bool = False) -> HashStore:
    """Open an existing store; with `write`, as its only writer.

    Raises
    ------
    MissingStoreError
        If there is no store.
    StoreError
        If it cannot be used.
    """
    location = locate(target)
    if isinstance(location, str):
        return kind_of(location).open(location, write=write)
    try:
        kind, real = kind_of(location), real_path(location)
        if not real.exists():
            raise MissingStoreError(
                f"no such store: {str(location)!r}{_link_text(location)}\nHint: write_hashes creates one."
            )
        if not (real.is_file() or real.is_dir()):
            raise StoreError(
                f"{str(location)!r} is neither a file nor a folder\nHint: choose another name for the store."
            )
        return kind.open(real, write=write)
    except OSError as error:
        raise _not_opened(location, error) from error


def make_store(target: Target, manifest: Manifest) -> None:
    """Create an empty store, unless something of that name exists.

    Raises
    ------
    StoreError
        If it cannot be created.
    """
    location = locate(target)
    try:
        kind = kind_of(location)
        kind.create(location if isinstance(location, str) else real_path(location), manifest)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"cannot create {str(location)!r}{_link_text(location)}: {error.strerror}\n"
            "Hint: check that its folder exists, and that you may write there."
        ) from error


def manifest_of(target: Target, *, write: bool = False) -> Manifest | None:
    """Return the manifest of a store; None if there is no store yet.

    Parameters
    ----------
    target
        The store.
    write
        Whether to repair a store that a killed writer has damaged.
    """
    location = locate(target)
    try:
        kind_of(location)
        if isinstance(location, Path) and location.is_dir() and not any(location.iterdir()):
            return None
    except OSError as error:
        raise _not_opened(location, error) from error
    try:
        with open_store(target) as store:
            return store.manifest
    except MissingStoreError:
        return None
    except RepairableError:
        if not write:
            raise
    with open_store(target, write=True) as store:
        return store.manifest


def _not_opened(location: Location, error: OSError) -> StoreError:
    return StoreError(
        f"{str(location)!r:.300} cannot be opened: {error.strerror}\nHint: check the permissions of its folder."
    )


def _link_text(location: Location) -> str:
    is_link = isinstance(location, Path) and location.is_symlink()
    return f", a link to {os.path.realpath(location)!r}" if is_link else ""
