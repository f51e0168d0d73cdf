"""A store in Parquet: one file, or a folder of parts that any reader of Parquet reads as one table.

Parts are never changed in place: a new part replaces the old one atomically. Therefore a reader sees each row once, and
a killed run leaves only complete parts.
"""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Final

import polars as pl

from imgmatch_df.atomic import NO_ROOM, sync_folder, written_file
from imgmatch_df.errors import StoreError
from imgmatch_df.sources import describe
from imgmatch_df.store.base import HashStore, Location
from imgmatch_df.store.locks import sole_writer
from imgmatch_df.store.manifest import Manifest, check_table_columns, parse_entries
from imgmatch_df.store.parquet_checksums import CHECKSUM_KEY, ChecksumError, Footer, add_checksums

_ABOUT: Final = "imgmatch_store"

# A part is written again for each commit until it is full: 256k rows are 45 MB and take a third of a second.
_PART_ROWS: Final = 1 << 18
_ROW_GROUP: Final = 1 << 16
# Rows stay in memory until the time since the last write is at least ten times the time that the last write took.
_COMMIT_S: Final = 5.0
_COMMIT_SHARE: Final = 10.0
_READ_ROWS: Final = 1 << 17
_OPEN_PARTS: Final = 64


class ParquetStore(HashStore):
    """An open store, for reading, or for its only writer."""

    def __init__(self, path: Location, *, write: bool = False) -> None:
        """Open the store at `path`, which exists.

        Raises
        ------
        StoreError
            If it is not a store, damaged, of a later format, or in use.
        """
        self.path = Path(path)
        with ExitStack() as stack:
            if write:
                stack.enter_context(sole_writer(self.path))
            self._parts, self.manifest = _find_whole(self.path)
            self._close = stack.pop_all().close
        self._new: list[pl.DataFrame] = []
        self._changed: list[pl.DataFrame] = []
        self._flushed = time.monotonic()
        self._wait_s = _COMMIT_S

    def close(self) -> None:
        """Write all committed rows, and release the store."""
        try:
            self.flush()
        finally:
            self._close()

    def count(self) -> int:
        """Return the number of rows."""
        with parquet_errors(self.path):
            return sum(int(rows.select(pl.len()).collect().item()) for rows in self._scans(()))

    def read(
        self, columns: Sequence[str], n_rows: int | None = None, predicate: pl.Expr | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield rows in order, in batches: those of the first `n_rows` for which `predicate` is true."""
        needed = {*columns, *(() if predicate is None else predicate.meta.root_names())}
        for rows in self._scans(needed, n_rows):
            found = rows if n_rows is None else rows.head(n_rows)
            found = found if predicate is None else found.filter(predicate)
            with parquet_errors(self.path):
                yield from found.select(columns).collect_batches(chunk_size=_READ_ROWS, maintain_order=True)
                if n_rows is not None:
                    n_rows -= min(n_rows, rows.select(pl.len()).collect().item())
            if n_rows == 0:
                return

    def stored(self, keys: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Return `columns` of the rows with these keys, in any order."""
        key = self.manifest.key
        wanted = keys.alias(key).to_frame().lazy()
        found = [pl.DataFrame(schema={name: self.manifest.columns[name] for name in columns})]
        for rows in self._scans({key, *columns}):
            with parquet_errors(self.path):
                found.append(rows.join(wanted, on=key, how="semi", maintain_order="left").select(columns).collect())
        return pl.concat(found)

    def commit(self, new: pl.DataFrame, changed: pl.DataFrame) -> None:
        """Keep rows in memory, and write them if the last write was long ago."""
        columns = list(self.manifest.columns)
        self._new.append(new.select(columns))
        self._changed.append(changed.select(columns))
        if time.monotonic() - self._flushed >= self._wait_s:
            self.flush()

    def flush(self) -> None:
        """Write the rows in memory; each part is written atomically."""
        started = time.monotonic()
        columns = self.manifest.columns
        new, changed = (pl.concat([pl.DataFrame(schema=columns), *rows]) for rows in (self._new, self._changed))
        # Dropped first, so that no row is written twice after an error: the next run hashes the missing ones.
        self._new, self._changed = [], []
        if not changed.is_empty():
            self._change(changed)
        if not new.is_empty():
            self._append(new)
        self._flushed = time.monotonic()
        self._wait_s = max(_COMMIT_S, _COMMIT_SHARE * (self._flushed - started))

    def prune(self, keys: pl.Series) -> int:
        """Delete the rows whose key is not in `keys`, and return how many."""
        self.flush()
        wanted, n_pruned = keys.alias(self.manifest.key).to_frame(), 0
        for part in list(self._parts):
            rows = self._read_part(part)
            left = rows.join(wanted, on=self.manifest.key, how="semi", maintain_order="left")
            n_pruned += rows.height - left.height
            if left.is_empty() and len(self._parts) > 1:
                part.unlink()
                sync_folder(part.parent)
                self._parts.remove(part)
            elif left.height < rows.height:
                self._write_part(left, part)
        return n_pruned

    def _append(self, rows: pl.DataFrame) -> None:
        last = self._parts[-1]
        is_file = last == self.path
        with self._opened([last], ()) as (files, _):
            n_last = pl.scan_parquet(files, glob=False).select(pl.len()).collect().item()
        if is_file or n_last < _PART_ROWS:
            taken = rows if is_file else rows.head(_PART_ROWS - n_last)
            self._write_part(pl.concat([self._read_part(last), taken]), last)
            rows = rows[taken.height :]
        for part_rows in rows.iter_slices(_PART_ROWS):
            if part_rows.is_empty():
                continue
            part = _part(self.path, int(self._parts[-1].stem.removeprefix("part-")) + 1)
            _write(part_rows, part, self.path, self.manifest, like=self._parts[-1])
            self._parts.append(part)

    def _change(self, changed: pl.DataFrame) -> None:
        key = self.manifest.key
        for part in self._parts:
            with self._opened([part], {key}) as (files, _):
                keys = pl.scan_parquet(files, glob=False).select(key)
                found = keys.join(changed.lazy().select(key), on=key, how="semi").head(1).collect()
            if found.is_empty():
                continue
            rows = self._read_part(part).with_row_index("__imgmatch_row")
            same = rows.join(changed, on=key, how="anti")
            places = rows.select(key, "__imgmatch_row").join(changed, on=key, how="inner")
            merged = pl.concat([same, places.select(same.columns)]).sort("__imgmatch_row").drop("__imgmatch_row")
            self._write_part(merged, part)

    def _write_part(self, rows: pl.DataFrame, part: Path) -> None:
        _write(rows, part, self.path, self.manifest, like=part)

    def _read_part(self, part: Path) -> pl.DataFrame:
        columns = list(self.manifest.columns)
        with self._opened([part], columns) as (files, _):
            return pl.scan_parquet(files, glob=False).select(columns).collect()

    def _scans(self, columns: Collection[str], n_rows: int | None = None) -> Iterator[pl.LazyFrame]:
        """Yield the rows of groups of parts, in order; only `columns` and the first `n_rows` are checked and read."""
        for first in range(0, len(self._parts), _OPEN_PARTS):
            with self._opened(self._parts[first : first + _OPEN_PARTS], columns, n_rows) as (parts, n_rows_left):
                if parts:
                    yield pl.scan_parquet(parts, glob=False).select(list(self.manifest.columns))
            n_rows = n_rows_left

    @contextmanager
    def _opened(
        self, parts: Sequence[Path], columns: Collection[str], n_rows: int | None = None
    ) -> Iterator[tuple[list[IO[bytes]], int | None]]:
        """Yield open parts, after checking the first `n_rows` of `columns`, and the number of rows still to read.

        Polars would open a path more than once, and apply the metadata of the old part to the part that replaced it.
        """
        with parquet_errors(self.path), ExitStack() as stack:
            files: list[IO[bytes]] = []
            for part in parts:
                with suppress(FileNotFoundError) if part != self.path else nullcontext():  # pruned meanwhile
                    file = stack.enter_context(part.open("rb"))
                    footer = Footer.read(file)
                    footer.check(file, columns, n_rows)
                    n_rows = None if n_rows is None else max(0, n_rows - footer.n_rows)
                    files.append(file)
            yield files, n_rows


def create_file(path: Location, manifest: Manifest) -> None:
    """Create an empty store in one file, unless something of that name exists."""
    path = Path(path)
    with sole_writer(path):
        if not path.exists():
            _write(pl.DataFrame(schema=manifest.columns), path, path, manifest)


def create_folder(path: Location, manifest: Manifest) -> None:
    """Create a folder with one empty part, unless a file or a folder with content of that name exists."""
    path = Path(path)
    with sole_writer(path):
        path.mkdir(exist_ok=True)
        if not any(path.iterdir()):
            _write(pl.DataFrame(schema=manifest.columns), _part(path, 0), path, manifest)


def is_store_file(path: Path) -> bool:
    """Return whether `path` is a Parquet file whose metadata has the manifest of a store."""
    try:
        with path.open("rb") as file:
            return _ABOUT in Footer.read(file).metadata
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ChecksumError, OSError):
        return False


def is_store_folder(path: Path) -> bool:
    """Return whether `path` is a folder of parts, or an empty folder without a suffix."""
    return path.is_dir() and (any(path.glob("part-*.parquet")) or not (path.suffix or any(path.iterdir())))


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.parquet"


def _find_parts(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.iterdir())
    parts = [part for part in found if part.match("part-*.parquet")]
    others = [other.name for other in found if other not in parts or (other.exists() and not other.is_file())]
    if others or not parts:
        raise StoreError(
            f"the folder {str(path)!r} is not a store of hashes{f', it contains {others[0]!r}' if others else ''}\n"
            "Hint: choose a new folder, which write_hashes creates; nothing was changed."
        )
    return parts


def _find_whole(path: Path) -> tuple[list[Path], Manifest]:
    """Return the parts and their common manifest, of a moment at which all parts exist."""
    while True:
        parts = _find_parts(path)
        try:
            return parts, _same_manifest(path, parts)
        except StoreError:
            if all(part.exists() for part in parts):
                raise
            # A writer has pruned a part since they were listed.


def _same_manifest(path: Path, parts: Sequence[Path]) -> Manifest:
    manifests = [_read_manifest(part) for part in parts]
    for part, manifest in zip(parts, manifests, strict=True):
        manifests[0].check_same(manifest, repr(str(parts[0])))
        if manifest.columns != manifests[0].columns:
            raise StoreError(
                f"the parts of {str(path)!r} differ, see {part.name!r}\nHint: remove the parts of other stores."
            )
    return manifests[0]


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn errors of Polars about a file into a `StoreError` with a hint."""
    try:
        yield
    except ChecksumError as error:
        raise StoreError(
            f"{str(path)!r} is damaged, or was changed by another program: {error}\n"
            "Hint: restore a copy, or hash the images again into a new store; nothing was changed."
        ) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise StoreError(
            f"{str(path)!r} is not a complete Parquet file: {describe(str(error).splitlines()[0], 200)}\n"
            "Hint: restore a copy, or choose another name for the store; nothing was changed."
        ) from error


def _read_manifest(part: Path) -> Manifest:
    shown = repr(str(part))
    with parquet_errors(part), part.open("rb") as file:
        footer = Footer.read(file)
    if _ABOUT not in footer.metadata:
        raise StoreError(
            f"{shown} is a Parquet file, but not a store of hashes\n"
            "Hint: read it with pl.scan_parquet, or choose another name for the store; nothing was changed."
        )
    manifest = Manifest.parse(parse_entries(footer.metadata[_ABOUT], shown), shown)
    check_table_columns(footer.schema, manifest.columns, shown)
    return manifest


def _write(rows: pl.DataFrame, part: Path, target: Path, manifest: Manifest, *, like: Path | None = None) -> None:
    """Write a part atomically: replace `like` if it is the part, otherwise copy the permissions of `like`."""
    # Beside a folder, because readers take each file in it for a part. Always the same name, so that the next run
    # removes the file of a killed run.
    temporary = target.with_name(f".{target.name}.partial")
    try:
        with written_file(part, temporary, like=like, replace=like == part) as file:
            rows.write_parquet(
                file,
                row_group_size=_ROW_GROUP,
                metadata={_ABOUT: json.dumps(manifest.entries), **CHECKSUM_KEY},
                compression="zstd",
            )
            add_checksums(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        if like is None and isinstance(error, FileExistsError):
            raise
        reason = str(error).splitlines()[0][:200]
        what = "there is no room for" if any(words in reason for words in NO_ROOM) else "cannot write"
        raise StoreError(
            f"{what} {str(part)!r}: {reason}\n"
            "Hint: check space and permissions. Stored rows are kept, and the same call continues where it stopped."
        ) from error
