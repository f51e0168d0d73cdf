"""A store in one DuckDB file, which any DuckDB shell can query.

The rows are in the table `hashes`, the manifest in the table `imgmatch_store`.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.atomic import publish
from imgmatch_df.columns import MODIFIED_DTYPE, SOURCE, STATUS_DTYPE
from imgmatch_df.errors import ArgumentError, ImgMatchWarning, StoreError
from imgmatch_df.store.base import HashStore, Location, RepairableError
from imgmatch_df.store.duckdb_bulk import ROW_GROUP_ROWS, append_row_groups
from imgmatch_df.store.duckdb_files import (
    ATTACHED,
    MAX_COMMIT_ROWS,
    Draft,
    InPlace,
    attach,
    clear,
    duckdb_errors,
    has_links,
    log_of,
    new_folder,
    reading,
)
from imgmatch_df.store.duckdb_repair import repair
from imgmatch_df.store.duckdb_rows import as_stored, as_typed, as_views, has_row_ids
from imgmatch_df.store.locks import sole_writer
from imgmatch_df.store.macros import digest, install
from imgmatch_df.store.manifest import Manifest, check_table_columns, made_by

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE: Final = f"{ATTACHED}.main.hashes"
_ABOUT: Final = f"{ATTACHED}.main.imgmatch_store"
_MACROS: Final = "macros"
_BATCH: Final = "__imgmatch_batch"

# The log is merged into the file above this size, because DuckDB also keeps its content in memory. For a larger file it
# is the size of the file, up to the maximum, so that copies of the file cost less than writing the rows.
_MIN_LOG_BYTES: Final = 1 << 28
_MAX_LOG_BYTES: Final = 1 << 30
_SQL_TYPES: Final[dict[pl.DataType, str]] = {
    pl.String(): "VARCHAR",
    pl.Int64(): "BIGINT",
    pl.UInt8(): "UTINYINT",
    pl.UInt32(): "UINTEGER",
    pl.UInt64(): "UBIGINT",
    pl.Binary(): "BLOB",
    STATUS_DTYPE: "VARCHAR",
    MODIFIED_DTYPE: "TIMESTAMP",  # in UTC: DuckDB would show a TIMESTAMPTZ in the time zone of the reader
}
# The compression that DuckDB would choose, DICT_FSST, takes 1.6 times the time and 1.2 times the bytes.
_COMPRESSION: Final = " USING COMPRESSION zstd"
_OF_BYTES: Final = (pl.String(), pl.Binary())
_READ_ROWS: Final = ROW_GROUP_ROWS
# Rows stay in a private copy until the time since it was last published is at least ten times what that took.
_PUBLISH_S: Final = 5.0
_PUBLISH_SHARE: Final = 10.0
_MAX_ENTRIES: Final = 1_000
_OF_TABLE: Final = "concat_ws('.', database_name, schema_name, table_name) = ?"


class DuckDBStore(HashStore):
    """An open store, for reading, or for its only writer."""

    def __init__(self, path: Location, *, write: bool = False) -> None:
        """Open the store at `path`, which exists.

        Raises
        ------
        StoreError
            If it is not a store, damaged, of a later format, or in use.
        """
        self.path = _checked(path)
        self._is_writer = write
        self._draft: Draft | InPlace | None = None
        self._n_followed = 0
        self._kept: pl.DataFrame | None = None
        self._published = time.monotonic()
        self._begin_s, self._wait_s = 0.0, _PUBLISH_S
        self._connection: DuckDBPyConnection
        with ExitStack() as stack:
            if write:
                stack.enter_context(sole_writer(self.path))
                clear(self.path)
            self._reader = stack.enter_context(ExitStack())
            stack.callback(self._discard)
            try:
                self.manifest, macros = self._open()
            except RepairableError:
                if not write:
                    raise
                repair(self.path, TABLE, _ABOUT)
                self.manifest, macros = self._open()
            if write:
                self._check_writable()
            if write and macros != _macros():
                self._execute(self._renew_macros)
            self._held = stack.pop_all()

    @classmethod
    def create(cls, path: Location, manifest: Manifest) -> None:
        """Create an empty store atomically; do nothing if the file exists."""
        path = _checked(path)
        columns = [
            f"{_quoted(name)} {_SQL_TYPES[dtype]}{' NOT NULL' * (name == manifest.key)}"
            f"{_COMPRESSION * (name in (manifest.key, SOURCE, *manifest.hash_types) and dtype in _OF_BYTES)}"
            for name, dtype in manifest.columns.items()
        ]
        with sole_writer(path), ExitStack() as stack:
            if path.exists():
                return
            clear(path)
            stack.callback(clear, path)
            with duckdb_errors(path):
                temporary = new_folder(path) / path.name
            with duckdb_errors(path), closing(attach(temporary, write=True)) as connection:
                connection.execute(f"CREATE TABLE {TABLE} ({', '.join(columns)})")
                connection.execute(f"CREATE TABLE {_ABOUT} (name VARCHAR, value VARCHAR)")
                about = {**manifest.entries, _MACROS: _macros()}
                connection.executemany(f"INSERT INTO {_ABOUT} VALUES (?, ?)", list(about.items()))  # noqa: S608
                _install(connection, manifest.key)
                _comment_columns(connection, manifest)
                connection.execute(f"CHECKPOINT {ATTACHED}")
            # DuckDB would apply the log of a deleted store to the new file.
            with duckdb_errors(path):
                log_of(path).unlink(missing_ok=True)
            publish(temporary, path, replace=False)

    def __exit__(self, *error: object) -> None:
        self._finish(failed=error[0] is not None)

    def close(self) -> None:
        """Close the file; a writer first merges the log into it."""
        self._finish(failed=False)

    def count(self) -> int:
        """Return the number of rows."""
        with duckdb_errors(self.path):
            found = self._connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall()  # noqa: S608
        return int(found[0][0])

    def read(
        self, columns: Sequence[str], n_rows: int | None = None, predicate: pl.Expr | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield rows in order, in batches: those of the first `n_rows` for which `predicate` is true."""
        limit = "" if n_rows is None else f" LIMIT {n_rows:d}"
        needed = set(columns).union(() if predicate is None else predicate.meta.root_names())
        read = [name for name in self.manifest.columns if name in needed] or [self.manifest.key]
        for batch in self._query(f"SELECT {_listed(read)} FROM {TABLE}{limit}", read):  # noqa: S608
            yield (batch if predicate is None else batch.filter(predicate)).select(columns)

    def stored(self, keys: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Return `columns` of the rows with these keys, in any order.

        Most runs look up the keys in the order in which they are stored, so the rows behind those of the last call are
        compared first. A join takes three times as long, and reads the whole table.
        """
        found = [pl.DataFrame(schema=self._schema(columns))]
        if following := self._find_following(keys, columns):
            found += following
            keys = keys[sum(rows.height for rows in following) :]
        if not keys.is_empty():
            key = _quoted(self.manifest.key)
            with duckdb_errors(self.path), self._batch(keys.alias(self.manifest.key).to_frame()):
                sql = f"SELECT {_listed(columns)} FROM {TABLE} SEMI JOIN {_BATCH} USING ({key})"  # noqa: S608
                found += self._query(sql, columns)
        return pl.concat(found)

    def _find_following(self, keys: pl.Series, columns: Sequence[str]) -> list[pl.DataFrame]:
        """Return the rows behind those of the last call, if their keys are the first of `keys`; else no rows."""
        key, first = self.manifest.key, self._n_followed
        n_rows = min(len(keys), self.count() - first)
        if n_rows <= 0 or not self._has_row_ids:
            return []
        within = f"FROM {TABLE} WHERE rowid"
        ends = [first] if n_rows == 1 else [first, first + n_rows - 1]
        with duckdb_errors(self.path):
            sql = f"SELECT {_quoted(key)} {within} IN ({', '.join(map(str, ends))}) ORDER BY rowid"
            if [found for (found,) in self._connection.execute(sql).fetchall()] != [keys[row - first] for row in ends]:
                return []
        read = list(dict.fromkeys([key, *columns]))
        rows = list(self._query(f"SELECT {_listed(read)} {within} >= {first} AND rowid < {first + n_rows}", read))
        n_found = 0
        for batch in rows:
            if not batch[key].equals(keys[n_found : n_found + batch.height]):
                return []
            n_found += batch.height
        if n_found != n_rows:
            return []
        self._n_followed += n_rows
        return [batch.select(columns) for batch in rows]

    def commit(self, new: pl.DataFrame, changed: pl.DataFrame) -> None:
        """Store rows. Changed rows keep their positions.

        Few rows are on the disk, and seen by readers, when this returns. From a whole row group on, rows are stored in
        a private copy of the file until `flush`, which is called here if the last one was long ago.
        """
        if self._is_bulk or (new.height >= ROW_GROUP_ROWS and self._begin_bulk()):
            self._append(new)
        else:
            self._insert_all(new)
        for rows in changed.iter_slices(MAX_COMMIT_ROWS):
            self._execute(self._update, rows)
        if self._is_bulk and time.monotonic() - self._published >= self._wait_s:
            self.flush()

    def flush(self) -> None:
        """Write all committed rows to the disk; replace the file if they are in a private copy."""
        if self._is_bulk:
            started = time.monotonic()
            self._insert_kept()
            self._publish()
            self._connection = self._reader.enter_context(reading(self.path))
            self._published = time.monotonic()
            self._wait_s = max(_PUBLISH_S, _PUBLISH_SHARE * (self._begin_s + self._published - started))

    def prune(self, keys: pl.Series) -> int:
        """Delete the rows whose key is not in `keys`, and return how many."""
        self.flush()
        n_dropped = self.count() - self.stored(keys, [self.manifest.key]).height
        if n_dropped:  # otherwise the file need not be copied
            self._execute(self._delete_others, keys.alias(self.manifest.key).to_frame())
        return n_dropped

    @property
    def _is_bulk(self) -> bool:
        return self._draft is not None and not self._draft.shares_log

    def _begin_bulk(self) -> bool:
        """Switch to a private copy of the file, and return whether there is one."""
        started = time.monotonic()
        if isinstance(self._draft, InPlace):
            return False
        if self._draft is not None or log_of(self.path).exists():
            self._publish()
            self._connection = self._reader.enter_context(reading(self.path))
        if not has_links(self.path):  # the file is written in place
            return False
        self._draft = Draft(self.path, shares_log=False)
        self._begin_s = time.monotonic() - started
        self._connection = self._draft.connection
        return True

    def _append(self, new: pl.DataFrame) -> None:
        """Insert whole row groups, and keep the other rows in memory."""
        columns = list(self.manifest.columns)
        rows = new.select(columns) if self._kept is None else pl.concat([self._kept, new.select(columns)])
        self._kept = None  # so that no row is stored behind a missing one after an error
        n_whole = rows.height // ROW_GROUP_ROWS * ROW_GROUP_ROWS
        with duckdb_errors(self.path):
            groups = (as_views(group) for group in rows[:n_whole].iter_slices(ROW_GROUP_ROWS) if n_whole)
            append_row_groups(self._connection, groups, _BATCH, self._insertion)
        self._kept = rows[n_whole:]

    def _insert_kept(self) -> None:
        rows, self._kept = self._kept, None
        if rows is not None:
            self._insert_all(rows)

    def _insert_all(self, new: pl.DataFrame) -> None:
        """Insert rows through the log, up to `MAX_COMMIT_ROWS` in a transaction."""
        for rows in new.iter_slices(MAX_COMMIT_ROWS):
            self._execute(self._insert, rows)

    @property
    def _insertion(self) -> str:
        names = _listed(self.manifest.columns)
        return f"INSERT INTO {TABLE} ({names}) SELECT {names} FROM {_BATCH}"  # noqa: S608

    def _insert(self) -> None:
        self._connection.execute(self._insertion)

    def _update(self) -> None:
        key, *others = map(_quoted, self.manifest.columns)
        values = ", ".join(f"{name} = {_BATCH}.{name}" for name in others)
        self._connection.execute(
            f"UPDATE {TABLE} AS stored SET {values} FROM {_BATCH} WHERE stored.{key} = {_BATCH}.{key}"  # noqa: S608
        )

    def _delete_others(self) -> None:
        key = _quoted(self.manifest.key)
        self._connection.execute(f"DELETE FROM {TABLE} WHERE {key} NOT IN (SELECT {key} FROM {_BATCH})")  # noqa: S608

    def _execute(self, change: Callable[[], None], rows: pl.DataFrame | None = None) -> None:
        """Run `change` in a transaction, in which SQL sees `rows` as the table `_BATCH`."""
        draft = self._draft or self._begin()
        with duckdb_errors(self.path), nullcontext() if rows is None else self._batch(rows):
            self._connection.execute("BEGIN")
            try:
                change()
            except BaseException:
                with suppress(StoreError), duckdb_errors(self.path):
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        draft.committed()
        if draft.log_bytes() > max(_MIN_LOG_BYTES, min(self.path.stat().st_size, _MAX_LOG_BYTES)):
            self._publish()
            self._connection = self._reader.enter_context(reading(self.path))

    def _begin(self) -> Draft | InPlace:
        """Switch from reading to writing."""
        if has_links(self.path):
            self._draft = Draft(self.path)
        else:
            self._reader.close()
            self._draft = InPlace(self.path)
        self._connection = self._draft.connection
        return self._draft

    def _publish(self) -> None:
        """Switch from writing to reading: merge the committed rows into the file."""
        draft, self._draft = self._draft or self._begin(), None
        if os.name == "nt":  # an open file cannot be replaced
            self._reader.close()
        draft.publish()
        self._reader.close()

    def _discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()

    def _finish(self, *, failed: bool) -> None:
        is_writer, self._is_writer = self._is_writer, False
        with self._held:
            if is_writer and (self._draft is not None or log_of(self.path).exists()):
                is_bulk = self._is_bulk
                try:
                    self._insert_kept()
                    self._publish()
                except StoreError as error:
                    if is_bulk and not failed:
                        raise
                    if not failed:  # otherwise another error is being raised
                        warnings.warn(_left_in_log(self.path, error), ImgMatchWarning, stacklevel=3)

    def _query(self, sql: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        schema = self._schema(columns)
        with duckdb_errors(self.path):
            reader: Any = self._connection.sql(sql).to_arrow_reader(_READ_ROWS)
            try:
                for batch in reader:
                    yield as_typed(pl.DataFrame(batch), schema)
            finally:
                reader.close()

    def _schema(self, columns: Sequence[str]) -> dict[str, pl.DataType]:
        return {name: self.manifest.columns[name] for name in columns}

    @contextmanager
    def _batch(self, frame: pl.DataFrame) -> Iterator[None]:
        """Register `frame` as the table `_BATCH` within the block."""
        # DuckDB filters a table that it joins, which old PyArrow cannot do with views of strings.
        self._connection.register(_BATCH, as_stored(frame).to_arrow())
        try:
            yield
        except BaseException:
            with suppress(StoreError), duckdb_errors(self.path):  # the first error is the one to raise
                self._connection.unregister(_BATCH)
            raise
        self._connection.unregister(_BATCH)

    def _renew_macros(self) -> None:
        """Replace the macros of another version by those of this one."""
        _install(self._connection, self.manifest.key)
        _comment_columns(self._connection, self.manifest)
        self._connection.execute(f"DELETE FROM {_ABOUT} WHERE name = ?", [_MACROS])  # noqa: S608
        self._connection.execute(f"INSERT INTO {_ABOUT} VALUES (?, ?)", [_MACROS, _macros()])  # noqa: S608

    def _open(self) -> tuple[Manifest, str | None]:
        """Open the file for reading; return its manifest, and the version of its macros."""
        self._reader.close()
        self._connection = self._reader.enter_context(reading(self.path))
        shown = repr(str(self.path))
        with duckdb_errors(self.path, opening=True):
            if log_of(self.path).exists():
                # A writer may have been killed: read all metadata now, not in the first query.
                self._connection.execute("SELECT count(*) FROM pragma_storage_info(?)", [TABLE]).fetchall()
            is_table = f"SELECT count(*) FROM duckdb_tables() WHERE {_OF_TABLE}"  # noqa: S608
            # A view would run a query that the author of the file wrote.
            if any(self._connection.execute(is_table, [name]).fetchall() != [(1,)] for name in (TABLE, _ABOUT)):
                raise StoreError(
                    f"{shown} is a DuckDB file, but not a store of hashes\n"
                    "Hint: choose another name for the store; nothing was changed."
                )
            check_table_columns(self._columns(_ABOUT), {"name": "VARCHAR", "value": "VARCHAR"}, shown)
            about = self._connection.execute(f"SELECT name, value FROM {_ABOUT} LIMIT {_MAX_ENTRIES}").fetchall()  # noqa: S608
            entries = dict(about)
            manifest = Manifest.parse(entries, shown)
            found, wanted = self._columns(TABLE), {name: _SQL_TYPES[dtype] for name, dtype in manifest.columns.items()}
            check_table_columns({name: dtype for name, dtype in found.items() if name in wanted}, wanted, shown)
            self._has_row_ids = has_row_ids(self._connection, TABLE)
        return manifest, entries.get(_MACROS)

    def _columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table that are not computed, and their SQL types."""
        found = self._connection.execute("SELECT name, type, dflt_value FROM pragma_table_info(?)", [table]).fetchall()
        return {name: dtype for name, dtype, computed in found if computed is None}

    def _check_writable(self) -> None:
        """Raise `StoreError` if the table has code that a writer would run."""
        code = {
            "a computed column": "pragma_table_info(?) WHERE dflt_value IS NOT NULL",
            "a CHECK constraint": f"duckdb_constraints() WHERE {_OF_TABLE} AND constraint_type = 'CHECK'",
            "an index of expressions": f"duckdb_indexes() WHERE {_OF_TABLE} AND contains(expressions::VARCHAR, '(')",
        }
        if self._connection.execute("SELECT version() >= 'v2'").fetchall() == [(True,)]:
            code["a trigger"] = f"duckdb_triggers() WHERE {_OF_TABLE}"
        for what, rows in code.items():
            with duckdb_errors(self.path):
                if self._connection.execute(f"SELECT count(*) FROM {rows}", [TABLE]).fetchall() != [(0,)]:  # noqa: S608
                    raise StoreError(
                        f"the table of hashes in {str(self.path)!r} has {what}, which a writer would run\n"
                        "Hint: drop it in the duckdb shell; nothing was changed."
                    )


def _checked(path: Location) -> Path:
    if "?" in os.path.realpath(path):
        raise ArgumentError(
            f"the path of a .duckdb must not contain '?', where DuckDB would end it, got {os.path.realpath(path)!r}\n"
            "Hint: rename the file or its folder, or choose a .parquet."
        )
    return Path(path)


def _install(connection: "DuckDBPyConnection", key: str) -> None:
    """Install the macros in the attached file."""
    connection.execute(f"USE {ATTACHED}")
    install(connection, key=key)
    connection.execute("USE memory")


def _comment_columns(connection: "DuckDBPyConnection", manifest: Manifest) -> None:
    """Say in the file what its table and its columns of hashes hold."""
    connection.execute(f"COMMENT ON TABLE {TABLE} IS 'One row for each image; FROM imgmatch_help lists the macros'")
    for name in manifest.hash_types:
        kind = name.replace("'", "''")
        about = f"the {kind} hash, NULL where status is not ok"
        connection.execute(f"COMMENT ON COLUMN {TABLE}.{_quoted(name)} IS '{about}'")


def _macros() -> str:
    """Return the version of the macros of this package, as a store keeps it."""
    return f"{made_by()}, sql {digest()}"


def _left_in_log(path: Path, error: StoreError) -> str:
    return (
        f"the rows are stored in {log_of(path).name!r}, which could not be merged into {path.name!r}: "
        f"{str(error).splitlines()[0]}\n"
        "Hint: keep both files together; the next write_hashes merges them."
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[str] | dict[str, pl.DataType]) -> str:
    return ", ".join(map(_quoted, names))
