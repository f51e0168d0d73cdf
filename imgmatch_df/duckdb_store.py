"""A store of hashes in one DuckDB file: table `hashes`, and `imgmatch_store` with what the store says about itself."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import polars as pl

from imgmatch_df.atomic import appear, busy, sole_writer
from imgmatch_df.errors import StoreError
from imgmatch_df.macros import install
from imgmatch_df.manifest import Manifest, made_by
from imgmatch_df.schema import MODIFIED, MODIFIED_DTYPE, STATUS, STATUS_DTYPE
from imgmatch_df.torn import mend

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE: Final = "hashes"
_ABOUT: Final = "imgmatch_store"
_MACROS: Final = "macros"
_BATCH: Final = "__imgmatch_batch"

_WRITE: Final[dict[str, Any]] = {
    "storage_compatibility_version": "v1.4.0",  # so that the release of DuckDB before the current one opens the file
    "auto_checkpoint_skip_wal_threshold": (1 << 63) - 1,  # so that no checkpoint is without a log: `torn` goes by it
}
_SQL_TYPES: Final[dict[pl.DataType, str]] = {
    pl.String(): "VARCHAR",
    pl.Int64(): "BIGINT",
    pl.UInt32(): "UINTEGER",
    pl.UInt64(): "UBIGINT",
    pl.Binary(): "BLOB",
    STATUS_DTYPE: "VARCHAR",
    MODIFIED_DTYPE: "TIMESTAMP",  # UTC, without a zone: one with a zone comes out in that of the reader
}
_READ_ROWS: Final = 65_536


class DuckDBStore:
    """An open store: for reading, or for writing by the only one who does."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Open the store at `path`, which exists.

        Raises
        ------
        StoreError
            If it is no store, damaged, of a later format, or in use.
        """
        self.path = path
        with ExitStack() as stack:
            if write:
                stack.enter_context(sole_writer(path))
            mend(path, TABLE)
            self._connection = stack.enter_context(_connected(path, write=write))
            self.manifest, macros = self._read_about()
            if write and macros != made_by():
                self._renew_macros()
            self._close = stack.pop_all().close

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> None:
        """Make an empty store. It appears whole or not at all, and never in the place of another file."""
        temporary = path.with_name(f".{path.name}.partial")
        columns = [f"{_quoted(name)} {_SQL_TYPES[dtype]}" for name, dtype in manifest.columns.items()]
        columns[0] += " NOT NULL"
        with sole_writer(path, path.with_name(f".{path.name}.lock")), ExitStack() as stack:
            if path.exists():
                return
            for leftover in (temporary, temporary.with_name(f"{temporary.name}.wal")):  # of a killed run
                leftover.unlink(missing_ok=True)
                stack.callback(leftover.unlink, missing_ok=True)
            with _connected(temporary, write=True) as connection, _explained(path):
                connection.execute(f"CREATE TABLE {TABLE} ({', '.join(columns)})")
                connection.execute(f"CREATE TABLE {_ABOUT} (name VARCHAR, value VARCHAR)")
                about = {**manifest.entries, _MACROS: made_by()}
                connection.executemany(f"INSERT INTO {_ABOUT} VALUES (?, ?)", list(about.items()))  # noqa: S608
                install(connection, key=manifest.key)
            appear(temporary, path, replace=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._close()

    def count(self) -> int:
        """Return the number of rows."""
        with _explained(self.path):
            found = self._connection.execute(f"SELECT count(*) FROM {TABLE}").fetchone()  # noqa: S608
        return 0 if found is None else int(found[0])

    def read(self, columns: Sequence[str], n_rows: int | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, in batches."""
        limit = "" if n_rows is None else f" LIMIT {n_rows:d}"
        yield from self._query(f"SELECT {_listed(columns)} FROM {TABLE}{limit}", columns)  # noqa: S608

    def stored(self, keys: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Return some columns of what is stored under `keys`, in no order."""
        key = _quoted(self.manifest.key)
        with self._batch(keys.alias(self.manifest.key).to_frame()):
            sql = f"SELECT {_listed(columns)} FROM {TABLE} SEMI JOIN {_BATCH} USING ({key})"  # noqa: S608
            return pl.concat([_empty(self.manifest, columns), *self._query(sql, columns)])

    def commit(self, new: pl.DataFrame, changed: pl.DataFrame) -> None:
        """Store rows: all of them, or none. The changed ones keep their places."""
        columns = list(self.manifest.columns)
        with _explained(self.path):
            self._connection.execute("BEGIN")
            if not new.is_empty():
                with self._batch(new):
                    names = _listed(columns)
                    self._connection.execute(f"INSERT INTO {TABLE} ({names}) SELECT {names} FROM {_BATCH}")  # noqa: S608
            if not changed.is_empty():
                key, *others = map(_quoted, columns)
                values = ", ".join(f"{name} = {_BATCH}.{name}" for name in others)
                with self._batch(changed):
                    self._connection.execute(
                        f"UPDATE {TABLE} SET {values} FROM {_BATCH} WHERE {TABLE}.{key} = {_BATCH}.{key}"  # noqa: S608
                    )
            self._connection.execute("COMMIT")

    def flush(self) -> None:
        """Do nothing: what is committed is on disk."""

    def prune(self, keys: pl.Series) -> int:
        """Drop the rows whose key is not among `keys`, and return how many."""
        key = _quoted(self.manifest.key)
        with self._batch(keys.alias(self.manifest.key).to_frame()), _explained(self.path):
            found = self._connection.execute(
                f"DELETE FROM {TABLE} WHERE {key} NOT IN (SELECT {key} FROM {_BATCH})"  # noqa: S608
            ).fetchone()
        return 0 if found is None else int(found[0])

    def _query(self, sql: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        schema = {name: self.manifest.columns[name] for name in columns}
        with _explained(self.path):
            reader: Any = self._connection.sql(sql).to_arrow_reader(_READ_ROWS)
            try:
                for batch in reader:
                    yield _typed(pl.DataFrame(batch), schema)
            finally:
                reader.close()

    @contextmanager
    def _batch(self, frame: pl.DataFrame) -> Iterator[None]:
        """Let SQL see `frame` as `_BATCH`."""
        plain = frame.with_columns(
            *([pl.col(STATUS).cast(pl.String)] if STATUS in frame.columns else []),
            *([pl.col(MODIFIED).dt.replace_time_zone(None)] if MODIFIED in frame.columns else []),
        )
        self._connection.register(_BATCH, plain.to_arrow())
        try:
            yield
        finally:
            self._connection.unregister(_BATCH)

    def _renew_macros(self) -> None:
        """Put the macros of this version in the place of another's."""
        with _explained(self.path):
            self._connection.execute("BEGIN")
            install(self._connection, key=self.manifest.key)
            self._connection.execute(f"DELETE FROM {_ABOUT} WHERE name = ?", [_MACROS])  # noqa: S608
            self._connection.execute(f"INSERT INTO {_ABOUT} VALUES (?, ?)", [_MACROS, made_by()])  # noqa: S608
            self._connection.execute("COMMIT")

    def _read_about(self) -> tuple[Manifest, str | None]:
        """Return what the store says about itself, and whose macros it has."""
        from duckdb import CatalogException

        shown = repr(str(self.path))
        with _explained(self.path):
            try:
                entries = dict(self._connection.execute(f"SELECT name, value FROM {_ABOUT}").fetchall())  # noqa: S608
                manifest = Manifest.parse(entries, shown)
                self._connection.execute(f"SELECT {_listed(manifest.columns)} FROM {TABLE} LIMIT 0")  # noqa: S608
            except CatalogException as error:
                raise StoreError(
                    f"{shown} is a DuckDB file that holds no hashes of imgmatch-df\n"
                    "Hint: choose another name for the store; nothing was changed."
                ) from error
        return manifest, entries.get(_MACROS)


@contextmanager
def _connected(path: Path, *, write: bool) -> Iterator["DuckDBPyConnection"]:
    """Give a connection to a DuckDB file."""
    import duckdb

    with _explained(path):
        connection = duckdb.connect(str(path), read_only=not write, config=_WRITE if write else {})
    try:
        # In a notebook it writes its bar to standard output, which may be where an export goes. Only where it is on:
        # without ipywidgets it is off there, and to say so again is an error.
        if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
            connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        with _explained(path):
            connection.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what DuckDB says into what a person can do."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise _store_error(path, str(error)) from error


def _store_error(path: Path, said: str) -> StoreError:
    shown, reason = repr(str(path)), said.splitlines()[0][:300] if said else "no reason"
    if "Could not set lock" in said:
        holder = re.search(r"PID (\d+)", said)
        return busy(path, "another process" if holder is None else f"process {holder[1]}")
    if "different configuration" in said or "file handle conflict" in said:
        return busy(path, "another connection of this process")
    if "newer version of DuckDB" in said:
        return StoreError(
            f"{shown} was written by a newer DuckDB: {reason}\nHint: pip install -U duckdb; nothing was changed."
        )
    if "not a valid DuckDB database file" in said:
        return StoreError(f"{shown} is no DuckDB file\nHint: choose another name for the store; nothing was changed.")
    full = ("No space left", "File too large", "Disk quota", "out of disk")
    if any(words in said for words in full):
        return StoreError(
            f"there is no room for {shown}: {reason}\n"
            "Hint: what was committed stays; make room, and the same call goes on where it stopped."
        )
    if any(words in said for words in ("Permission denied", "Read-only file system", "read-only mode")):
        return StoreError(f"{shown} cannot be opened: {reason}\nHint: is the file or its folder read-only?")
    return StoreError(
        f"{shown} cannot be used: {reason}\nHint: is it damaged? A copy, or a new store under another name, helps."
    )


def _typed(batch: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    zoned = [pl.col(MODIFIED).dt.replace_time_zone("UTC")] if MODIFIED in schema else []
    return batch.with_columns(zoned).cast(schema, strict=False)  # type: ignore[arg-type]


def _empty(manifest: Manifest, columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema={name: manifest.columns[name] for name in columns})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[str] | dict[str, pl.DataType]) -> str:
    return ", ".join(map(_quoted, names))
