"""Checksums of all bytes of a Parquet file, because Polars checks none and reads changed bits as other values.

They are between the last page and the footer, where readers ignore them, and the footer has a key for them. Each column
of a row group, the page index, the checksums themselves and the footer have a checksum. It is CRC-32, which zlib
computes without the GIL at 1.6 GB/s per thread.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self
from zlib import crc32

import polars as pl

from imgmatch_df.threads import Once, finish_tasks

# Key of the footer of a file with checksums; files of earlier releases do not have it.
CHECKSUM_KEY: Final[dict[str, str]] = {"imgmatch_checksums": "crc32"}

_MAGIC: Final = b"PAR1"
_MARK: Final = b"IMGMATCH-CRC32\r\n"
_NUMBER_BYTES: Final = 4
_TAIL_BYTES: Final = _NUMBER_BYTES + len(_MAGIC)
_MARK_BYTES: Final = 2 * _NUMBER_BYTES + len(_MARK)
_BLOCK_BYTES: Final = 1 << 20
_BYTES_FOR_THREADS: Final = 1 << 22

_seeking = threading.Lock()


class ChecksumError(ValueError):
    """A Parquet file has changed since it was written."""


class Chunk(NamedTuple):
    """A range of bytes in a file, and its checksum.

    Parameters
    ----------
    column, row_group
        Column and row group of the bytes; empty and -1 for the bytes around the columns.
    start, n_bytes
        Offset and length, in bytes.
    checksum
        CRC-32.
    """

    column: str
    row_group: int
    start: int
    n_bytes: int
    checksum: int


class _State(NamedTuple):
    """State of a file, which differs after each change."""

    device: int
    inode: int
    n_bytes: int
    modified_ns: int
    changed_ns: int


# Offsets of the checked chunks, by the state of the file, so that each is checked once. A file that was changed less
# than a tick of the kernel's clock ago may change again and keep its times.
_checked: Final[dict[_State, frozenset[int]]] = {}
_MAX_CHECKED: Final = 1024
_TICK_NS: Final = 20_000_000


class Footer(NamedTuple):
    """The footer of a Parquet file, checked if the file has checksums.

    Parameters
    ----------
    metadata
        Keys and values.
    schema
        Names and dtypes of the columns.
    chunks
        All bytes before the checksums, in order; empty without checksums.
    group_rows
        Number of rows of each row group; empty without checksums.
    """

    metadata: dict[str, str]
    schema: pl.Schema
    chunks: tuple[Chunk, ...]
    group_rows: tuple[int, ...]

    @classmethod
    def read(cls, file: BinaryIO) -> Self:
        """Read the footer of a file.

        Raises
        ------
        ChecksumError
            If it has changed since it was written.
        PolarsError
            If the file is not a Parquet file.
        """
        start, footer = _read_footer(file)
        parsed = BytesIO(_MAGIC + footer)
        sums = _read_checksums(file, start)
        if sums is not None and sums.footer != crc32(footer):
            raise ChecksumError("the footer has the wrong checksum")
        metadata, schema = pl.read_parquet_metadata(parsed), pl.Schema(pl.read_parquet_schema(parsed))
        if sums is None:
            if CHECKSUM_KEY.keys() & metadata.keys():
                raise ChecksumError("the checksums are missing")
            return cls(metadata, schema, (), ())
        return cls(metadata, schema, sums.chunks, sums.group_rows)

    def check(self, file: BinaryIO, columns: Iterable[str], n_rows: int | None = None) -> None:
        """Check the bytes that a query reads.

        Parameters
        ----------
        file
            The file of the footer.
        columns
            Columns that the query reads.
        n_rows
            Number of rows that the query reads, from the first; None for all.

        Raises
        ------
        ChecksumError
            If a byte has changed since it was written.
        """
        wanted, n_groups = {"", *columns}, self._n_groups(n_rows)
        started_ns, state = time.time_ns(), _state_of(file)
        known = _checked.get(state, frozenset())
        chunks = [
            chunk
            for chunk in self.chunks
            if chunk.column in wanted and chunk.row_group < n_groups and chunk.start not in known
        ]
        found = _checksums(file, [(chunk.start, chunk.n_bytes) for chunk in chunks])
        for chunk, checksum in zip(chunks, found, strict=True):
            if checksum != chunk.checksum:
                what = f"the column {chunk.column!r}" if chunk.column else "the bytes between the columns"
                raise ChecksumError(f"{what} has the wrong checksum")
        if chunks and started_ns - state.changed_ns > _TICK_NS:
            if len(_checked) >= _MAX_CHECKED:
                _checked.clear()
            _checked[state] = known.union(chunk.start for chunk in chunks)

    @property
    def n_rows(self) -> int:
        """Number of rows; 0 without checksums."""
        return sum(self.group_rows)

    def _n_groups(self, n_rows: int | None) -> int:
        n_groups, n_read = 0, 0
        for n_of_group in self.group_rows:
            if n_rows is not None and n_read >= n_rows:
                break
            n_groups, n_read = n_groups + 1, n_read + n_of_group
        return n_groups


class _Checksums(NamedTuple):
    """The checksums, as they are written before the footer."""

    chunks: tuple[Chunk, ...]
    group_rows: tuple[int, ...]
    footer: int

    @classmethod
    def parse(cls, text: bytes, end: int) -> Self:
        """Return the checksums in `text`, which cover the first `end` bytes of a file."""
        try:
            parts = json.loads(text)
            found = cls(tuple(Chunk(*chunk) for chunk in parts["chunks"]), tuple(parts["group_rows"]), parts["footer"])
            at = 0
            for chunk in found.chunks:
                if chunk.start != at or chunk.n_bytes < 0:
                    raise ValueError(chunk)
                at += chunk.n_bytes
            if at != end or any(n_rows < 0 for n_rows in found.group_rows):
                raise ValueError(at)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ChecksumError("the checksums have changed") from error
        return found


def add_checksums(file: BinaryIO) -> None:
    """Add checksums to a new Parquet file, whose metadata has `CHECKSUM_KEY`."""
    from pyarrow import BufferReader
    from pyarrow.parquet import read_metadata

    start, footer = _read_footer(file)
    about = read_metadata(BufferReader(_MAGIC + footer))
    columns = [
        (group, about.row_group(group).column(place))
        for group in range(about.num_row_groups)
        for place in range(about.num_columns)
    ]
    # A chunk ends where the next one begins, so that no byte is left out; the page index follows the last column.
    parts = [("", -1, 0)]
    parts += [
        (column.path_in_schema, group, min(filter(None, (column.dictionary_page_offset, column.data_page_offset))))
        for group, column in columns
    ]
    if columns:
        parts.append(("", -1, parts[-1][2] + columns[-1][1].total_compressed_size))
    ends = [at for _, _, at in parts[1:]] + [start]
    ranges = [(at, end - at) for (_, _, at), end in zip(parts, ends, strict=True)]
    chunks = [
        Chunk(name, group, at, n_bytes, checksum)
        for (name, group, _), (at, n_bytes), checksum in zip(parts, ranges, _checksums(file, ranges), strict=True)
    ]
    group_rows = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    text = json.dumps(_Checksums(tuple(chunks), tuple(group_rows), crc32(footer))._asdict()).encode()
    file.seek(start)
    file.write(text + _number(crc32(text)) + _number(len(text)) + _MARK + footer)
    file.flush()


def has_checksums(path: str) -> bool:
    """Return whether a file has checksums, valid or not."""
    try:
        with Path(path).open("rb") as file:
            return _read_mark(file, _read_footer(file)[0]).endswith(_MARK)
    except (ChecksumError, OSError):
        return False


def _read_footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return the offset of the footer, and its bytes to the end of the file."""
    n_bytes = os.fstat(file.fileno()).st_size  # the position stays, because Polars reads from it
    tail = _read_at(file, max(n_bytes - _TAIL_BYTES, 0), _TAIL_BYTES)
    start = n_bytes - _TAIL_BYTES - int.from_bytes(tail[:_NUMBER_BYTES], "little")
    if len(tail) < _TAIL_BYTES or not tail.endswith(_MAGIC) or start < len(_MAGIC):
        raise ChecksumError("it does not end like a Parquet file")
    return start, _read_at(file, start, n_bytes - start)


def _read_mark(file: BinaryIO, footer: int) -> bytes:
    """Return the bytes before the footer, which begins at `footer`: two numbers and the mark."""
    return _read_at(file, max(footer - _MARK_BYTES, 0), _MARK_BYTES)


def _read_checksums(file: BinaryIO, footer: int) -> _Checksums | None:
    """Return the checksums before the footer, which begins at `footer`; None without checksums."""
    mark = _read_mark(file, footer)
    if not mark.endswith(_MARK):
        return None
    checksum, n_bytes = (int.from_bytes(mark[at : at + _NUMBER_BYTES], "little") for at in (0, _NUMBER_BYTES))
    end = footer - _MARK_BYTES - n_bytes
    text = _read_at(file, end, n_bytes) if end >= 0 else b""
    if end < 0 or crc32(text) != checksum:
        raise ChecksumError("the checksums have changed")
    return _Checksums.parse(text, end)


def _checksums(file: BinaryIO, ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Yield the checksum of each range, a start and a length."""

    def checksum(place: tuple[int, int]) -> int:
        value, (start, n_bytes) = 0, place
        for at in range(start, start + n_bytes, _BLOCK_BYTES):
            value = crc32(_read_at(file, at, min(_BLOCK_BYTES, start + n_bytes - at)), value)
        return value

    if sum(n_bytes for _, n_bytes in ranges) < _BYTES_FOR_THREADS:
        yield from map(checksum, ranges)
        return
    # No deadlock in a thread of the pool: the calling thread runs the tasks that no other thread has begun.
    tasks = [Once(checksum, place) for place in ranges]
    finish_tasks(tasks, None)
    yield from (task.result for task in tasks)


def _state_of(file: BinaryIO) -> _State:
    found = os.fstat(file.fileno())
    return _State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read_at(file: BinaryIO, start: int, n_bytes: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), n_bytes, start)
    with _seeking:
        file.seek(start)
        return file.read(n_bytes)


def _number(value: int) -> bytes:
    return value.to_bytes(_NUMBER_BYTES, "little")
