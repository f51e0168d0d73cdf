"""Lists of sources: a path or a URL on each line of a file or of standard input."""

import os
import shutil
import stat
import sys
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedReader, RawIOBase
from typing import IO, TYPE_CHECKING, Final

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.cli.input_formats import COMPRESSIONS, open_bytes
from imgmatch_df.cli.table_files import check_text
from imgmatch_df.columns import SOURCE
from imgmatch_df.errors import ArgumentError
from imgmatch_df.images.exclusion import Exclusion
from imgmatch_df.images.folders import EXCLUDED_FILE, LeftOut, suffix_of
from imgmatch_df.sources import url_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LIST_SUFFIXES: Final = (".txt", *(f".txt{compression}" for compression in COMPRESSIONS))
STDIN: Final = "-"

_MARK: Final = b"\xef\xbb\xbf"  # byte order mark of UTF-8
_SAMPLED_BYTES: Final = 4096
_READ_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 1 << 28  # an image as base64 has some megabytes
_SCHEMA: Final = {SOURCE: pl.String()}


class SourceList:
    """Sources in files, one on each line.

    Parameters
    ----------
    paths
        Paths of the files, `STDIN` for standard input. A stream, such as a pipe, is copied into a temporary file.
    null
        Whether each source ends with NUL, and not with a line break.
    exclusion
        Patterns of sources that are left out, or None.

    Raises
    ------
    ArgumentError
        If a file is not UTF-8, or its lines do not end as `null` says.
    """

    def __init__(self, paths: Sequence[str], *, null: bool = False, exclusion: Exclusion | None = None) -> None:
        self._paths, self._null, self._exclusion = paths, null, exclusion
        self._copies = {path: _copied(path) for path in dict.fromkeys(paths) if _is_stream(path)}
        for path in paths:
            self._check(path)

    def scan(self, batch_rows: int) -> pl.LazyFrame:
        """Return the sources as the column ``source``, in batches; the lists are read anew by each query.

        A line is a source with all its spaces. Empty lines, the carriage return of CRLF and a byte order mark are
        dropped; no character begins a comment. Names that are not UTF-8 are escaped as `sources.path_as_text` does.
        """

        def batches(
            with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            n_left = n_rows
            for lines in self._parts():
                part = lines if n_left is None else lines.head(n_left)
                for batch in part.to_frame().iter_slices(batch_rows):
                    found = batch if predicate is None else batch.filter(predicate)
                    yield found if with_columns is None else found.select(with_columns)
                if n_left is not None:
                    n_left = max(n_left - part.len(), 0)
                    if n_left == 0:
                        return

        return register_io_source(batches, schema=_SCHEMA, is_pure=True)

    def has_urls(self, n_lines: int) -> bool:
        """Return whether there is a URL in the first lines."""
        first = next(self._parts(), pl.Series(SOURCE, [], pl.String))
        return any(url_of(line) is not None for line in first.head(n_lines))

    def left_out(self) -> Counter[LeftOut]:
        """Return how many sources are excluded, by suffix; this reads the lists."""
        counts: Counter[LeftOut] = Counter()
        if self._exclusion is not None:
            for lines in self._all_lines():
                names = lines.filter(self._is_excluded(lines))
                counts.update((EXCLUDED_FILE, suffix_of(name)) for name in names)
        return counts

    def _parts(self) -> Iterator[pl.Series]:
        for lines in self._all_lines():
            kept = lines if self._exclusion is None else lines.filter(~self._is_excluded(lines))
            if not kept.is_empty():
                yield kept

    def _is_excluded(self, lines: pl.Series) -> pl.Series:
        exclusion = self._exclusion
        return pl.Series([exclusion is not None and exclusion.matches(line) for line in lines], dtype=pl.Boolean)

    def _all_lines(self) -> Iterator[pl.Series]:
        for path in self._paths:
            with self._open(path) as file:
                yield from _split(file, path, null=self._null)

    def _check(self, path: str) -> None:
        shown = shown_list(path)
        with self._open(path) as file:
            start = file.read(_SAMPLED_BYTES)
        check_text(start, shown, "a list", by_zeros=not self._null)
        if b"\0" in start and not self._null:
            raise ArgumentError(
                f"{shown} has NUL characters, and a list has a path or a URL on each line\n"
                "Hint: --null reads the names of find -print0; a table or an image is named as SOURCE."
            )
        if self._null and b"\0" not in start and b"\n" in start:
            raise ArgumentError(f"{shown} has lines, and no NUL characters\nHint: leave --null out.")

    def _open(self, path: str) -> IO[bytes]:
        copy = self._copies.get(path)
        return open_bytes(path) if copy is None else BufferedReader(_Pass(copy))


def shown_list(path: str) -> str:
    """Return the name of a list in messages."""
    return "standard input" if path == STDIN else repr(path)


def _split(file: IO[bytes], path: str, *, null: bool) -> Iterator[pl.Series]:
    """Yield the lines of a file, some megabytes at a time."""
    end = b"\0" if null else b"\n"
    rest, is_first = b"", True
    while data := file.read(_READ_BYTES):
        if is_first:
            data, is_first = data.removeprefix(_MARK), False
        lines = (rest + data).split(end)
        rest = lines.pop()
        if len(rest) > _MAX_LINE_BYTES:
            raise ArgumentError(
                f"{shown_list(path)} has a line of more than {_MAX_LINE_BYTES:,} bytes\n"
                "Hint: a list has a path or a URL on each line."
            )
        yield _as_text(lines, null=null)
    yield _as_text([rest], null=null)


def _as_text(lines: list[bytes], *, null: bool) -> pl.Series:
    text = pl.Series(SOURCE, [line.decode("utf-8", "backslashreplace") for line in lines], pl.String)
    if null:
        return text.filter(text != "")
    text = text.str.strip_suffix("\r")
    return text.filter(text.str.strip_chars() != "")


def _is_stream(path: str) -> bool:
    return path == STDIN or not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116


def _copied(path: str) -> "_Copy":
    if path == STDIN:
        return _Copy(sys.stdin.buffer)
    with open(path, "rb") as stream:  # noqa: PTH123
        return _Copy(stream)


class _Copy:
    """A temporary file with the bytes of a stream, which can be read only once itself."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it is deleted when the process ends, however it ends
        weakref.finalize(self, self._file.close)
        shutil.copyfileobj(stream, self._file, _READ_BYTES)

    def read(self, at: int, n_bytes: int) -> bytes:
        """Return at most `n_bytes` bytes from the position `at`."""
        with self._lock:
            self._file.seek(at)
            return self._file.read(n_bytes)


class _Pass(RawIOBase):
    """One pass over a `_Copy`."""

    def __init__(self, copy: _Copy) -> None:
        self._copy, self._at = copy, 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read the next bytes into `buffer`, and return their number; 0 at the end."""
        view = memoryview(buffer)
        data = self._copy.read(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
