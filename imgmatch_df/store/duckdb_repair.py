"""Repair of DuckDB files whose writer was killed within a block: by an earlier release, or without hard links.

DuckDB overwrites blocks of metadata that have free space, and afterwards the header that refers to the new entries
(`MetadataManager::Flush` and `SingleFileBlockManager::WriteHeader` of DuckDB 1.5 and 2.0). A process that is killed in
between leaves a block whose beginning is new and whose end is old. The entries that the header refers to are the same
in both. Only the checksum, at the beginning, is that of the new block, so DuckDB does not open the file.

Nothing in the block proves that it is torn rather than damaged. Therefore its checksum is replaced only in a copy, the
content of the copy is checked, and its table is written again from rows whose own blocks have the right checksums.
The statistics and pointers of the block are not kept.
"""

import warnings
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.columns import OK, STATUS, STATUSES
from imgmatch_df.errors import ImgMatchWarning, StoreError
from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.store.duckdb_files import ATTACHED, MAX_COMMIT_ROWS, Draft, attach, torn_block
from imgmatch_df.store.duckdb_rows import has_row_ids
from imgmatch_df.store.manifest import Manifest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ANEW: Final = f"{ATTACHED}.main.imgmatch_anew"
_CHECKED_ROWS: Final = 1 << 16
_FIRST_BLOCK: Final = 3 * 4096  # after the headers


def repair(path: Path, table: str, about: str) -> None:
    """Replace a DuckDB file that has torn blocks by a new file with its rows, and warn about it.

    Parameters
    ----------
    path
        The file; the caller is its only writer. Its torn blocks are kept in files beside it.
    table, about
        Qualified names of the tables of hashes, and of the manifest.

    Raises
    ------
    StoreError
        If it is damaged in another way. Then nothing is changed.
    """
    blocks: dict[int, bytes] = {}
    draft = Draft(path, mend=lambda copy: blocks.update(_mend(path, copy, table, about)))
    try:
        n_rows = _make_anew(draft, table)
        saved = [_save(path, location, block) for location, block in blocks.items()]
        draft.publish()
    except BaseException:
        draft.discard()
        raise
    warnings.warn(
        f"{str(path)!r} had {len(blocks)} torn blocks of a killed writer, and was replaced by a new file with its "
        f"{n_rows:,} rows\nHint: the blocks are kept in {', '.join(saved)}; remove them if no row is missing.",
        ImgMatchWarning,
        stacklevel=2,
    )


def _mend(path: Path, copy: Path, table: str, about: str) -> dict[int, bytes]:
    """Replace the checksums of the torn blocks of a copy; return the old blocks by location.

    Raises
    ------
    StoreError
        If the copy still cannot be read, or its content is not that of a store.
    """
    import duckdb

    blocks: dict[int, bytes] = {}
    try:
        with closing(_opened(copy, table, blocks)) as connection:
            sizes = connection.execute("SELECT database_name, block_size FROM pragma_database_size()").fetchall()
            block_bytes = dict(sizes)[ATTACHED]
            if _are_of_metadata(connection, {(at - _FIRST_BLOCK) // block_bytes for at in blocks}, table):
                wrong = _find_wrong(connection, str(path), table, about)
            else:
                wrong = "a block of rows has the wrong checksum"
    except (duckdb.Error, pl.exceptions.PolarsError, StoreError, UnicodeDecodeError) as error:
        wrong = str(error).splitlines()[0][:200]
    if wrong:
        raise StoreError(
            f"{str(path)!r} is damaged, and not by a killed writer: {wrong}\n"
            "Hint: restore a copy, or hash the images again into a new store; nothing was changed."
        )
    with copy.open("rb") as file:
        for location, checksum in blocks.items():
            file.seek(location + len(checksum))
            blocks[location] = checksum + file.read(block_bytes - len(checksum))
    return blocks


def _opened(copy: Path, table: str, blocks: dict[int, bytes]) -> "DuckDBPyConnection":
    """Open the copy, and replace wrong checksums of its metadata; add the old ones to `blocks`."""
    import duckdb

    while True:
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(closing(attach(copy)))
                connection.execute("SELECT count(*) FROM pragma_storage_info(?)", [table]).fetchall()
            except duckdb.Error as error:
                torn = torn_block(str(error))
                if torn is None or torn.location in blocks:
                    raise
            else:
                stack.pop_all()
                return connection
        with copy.open("rb+") as file:
            file.seek(torn.location)
            blocks[torn.location] = file.read(len(torn.computed))
            file.seek(torn.location)
            file.write(torn.computed)


def _are_of_metadata(connection: "DuckDBPyConnection", blocks: set[int], table: str) -> bool:
    """Return whether blocks have only metadata. DuckDB 1.5 reads some blocks of rows when it lists them."""
    metadata = connection.execute("SELECT block_id FROM pragma_metadata_info(?)", [ATTACHED]).fetchall()
    places = connection.execute("SELECT block_id, additional_block_ids FROM pragma_storage_info(?)", [table]).fetchall()
    of_rows = {block for first, others in places for block in (first, *(others or ()))}
    return blocks <= {block for (block,) in metadata} and not blocks & of_rows


def _find_wrong(connection: "DuckDBPyConnection", shown: str, table: str, about: str) -> str:
    """Read all rows, and return what is wrong with them; an empty text if nothing is wrong."""
    entries = dict(connection.execute(f"SELECT name, value FROM {about}").fetchall())  # noqa: S608
    manifest = Manifest.parse(entries, repr(shown))
    places = connection.execute(
        "SELECT count(*), count(DISTINCT (block_id, block_offset)) FROM pragma_storage_info(?) "
        "WHERE persistent AND block_id >= 0",
        [table],
    ).fetchall()
    if places[0][0] != places[0][1]:
        return "two columns have their values in one place"
    counts = connection.execute(
        "SELECT 1 FROM (SELECT row_group_id, sum(count) AS n FROM pragma_storage_info(?) "
        "GROUP BY row_group_id, column_id, column_path) GROUP BY row_group_id HAVING min(n) <> max(n)",
        [table],
    ).fetchall()
    if counts:
        return "columns differ in their number of rows"
    # Checked in Polars: DuckDB would use the statistics of the blocks for some checks, without reading the rows.
    keys, columns = [], list(manifest.columns)
    reader: Any = connection.sql(f"SELECT * FROM {table}").to_arrow_reader(_CHECKED_ROWS)  # noqa: S608
    for batch in reader:
        rows = pl.DataFrame(batch)
        if rows.columns != columns:
            return f"the columns are {rows.columns}"
        keys.append(rows[manifest.key])
        if wrong := _find_wrong_row(rows, manifest):
            return wrong
    found = pl.concat(keys) if keys else pl.Series([], dtype=pl.String)
    if found.null_count() or found.n_unique() < len(found):
        return "a key is null or occurs twice"
    return ""


def _find_wrong_row(rows: pl.DataFrame, manifest: Manifest) -> str:
    is_ok = pl.col(STATUS) == OK
    checks = {f"a {STATUS} is unknown": pl.col(STATUS).is_in(STATUSES)}
    for name in manifest.hash_types:
        kind = hash_kind(name)
        if kind.dtype == pl.Binary:
            checks[f"a {name} does not have {kind.n_bytes} bytes"] = pl.col(name).bin.size() == kind.n_bytes
        checks[f"a row with status {OK} has no {name}"] = pl.col(name).is_not_null() | ~is_ok
    return next((what for what, right in checks.items() if not rows.select(right.all()).item()), "")


def _make_anew(draft: Draft, table: str) -> int:
    """Write a new table of the same rows, in order, in place of the old one; return the number of rows."""
    connection = draft.connection

    def execute(*statements: str) -> None:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
        draft.committed()

    by_id = has_row_ids(connection, table)
    last_row = "coalesce(max(rowid), -1)" if by_id else "count(*) - 1"
    n_rows, last = connection.execute(f"SELECT count(*), {last_row} FROM {table}").fetchall()[0]  # noqa: S608
    key = connection.execute(f"DESCRIBE {table}").fetchall()[0][0].replace('"', '""')
    execute(f"DROP TABLE IF EXISTS {_ANEW}", f"CREATE TABLE {_ANEW} AS FROM {table} LIMIT 0")
    for first in range(0, last + 1, MAX_COMMIT_ROWS):
        within = f"WHERE rowid >= {first} AND rowid < {first + MAX_COMMIT_ROWS} ORDER BY rowid"
        execute(f"INSERT INTO {_ANEW} FROM {table} {within if by_id else f'LIMIT {MAX_COMMIT_ROWS} OFFSET {first}'}")
    made = connection.execute(f"SELECT count(*) FROM {_ANEW}").fetchall()[0][0]  # noqa: S608
    if made != n_rows:
        raise StoreError(f"the table has {n_rows:,} rows, of which {made:,} can be read\nHint: restore a copy.")
    execute(
        f"DROP TABLE {table}",
        f"ALTER TABLE {_ANEW} RENAME TO {table.rpartition('.')[2]}",
        f'ALTER TABLE {table} ALTER COLUMN "{key}" SET NOT NULL',
    )
    return int(n_rows)


def _save(path: Path, location: int, block: bytes) -> str:
    """Write a block to a new file beside the store; return its name."""
    number = 0
    while True:
        saved = path.with_name(f"{path.name}.block-{location}{f'-{number}' if number else ''}.bak")
        try:
            with saved.open("xb") as file:
                file.write(block)
        except FileExistsError:
            number += 1
        else:
            return saved.name
