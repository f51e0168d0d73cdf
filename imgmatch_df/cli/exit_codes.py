"""How a command ends: what failed, what went wrong, and the exit code for each."""

import errno
import heapq
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TextIO

import polars as pl
import typer

from imgmatch_df.cli.interrupts import keeping
from imgmatch_df.columns import DETAIL, OK, SOURCE, STATUS, STATUS_DTYPE, STATUSES, HashKind
from imgmatch_df.errors import ArgumentError, ImgMatchError, ImgMatchWarning, RowError
from imgmatch_df.naming import ROW, row_name, source_text
from imgmatch_df.sources import describe
from imgmatch_df.store.base import Target
from imgmatch_df.store.open import manifest_of, scan_hashes

SOME_FAILED: Final = 1
WRONG_CALL: Final = 2

_SIGPIPE: Final = 13  # `signal` has no such name on Windows
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NAMES_SHOWN: Final = 10
_MAX_CHARS: Final = 200


class FailedRow(NamedTuple):
    """A row that has no hash, by row number, and why."""

    row: int
    source: str | None
    status: str
    detail: str | None

    def __str__(self) -> str:
        detail = f": {describe(self.detail, _MAX_CHARS)}" * bool(self.detail)
        return f"{row_name(self.source, self.row)}: {self.status}{detail}"


class Tally:
    """Counts the rows of each status, and knows the first ones that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_rows: Counter[str] = Counter()
        self._failed: list[FailedRow] = []

    @classmethod
    def of(cls, rows: pl.DataFrame, kind: HashKind, source: str | None) -> "Tally":
        """Count rows that are there, by the status of their hash; `source` is the column that names them."""
        # A table may have a status of its own, of any dtype, that says nothing of hashes.
        is_text = rows.schema.get(STATUS) in (pl.String, pl.Categorical, pl.Enum)
        said = (pl.col(STATUS) if is_text else pl.lit(None)).cast(pl.String)
        reason = pl.when(said.is_in(STATUSES) & (said != OK)).then(said).otherwise(pl.lit("no_hash"))
        detail = pl.col(DETAIL) if rows.schema.get(DETAIL) == pl.String else pl.lit(None, pl.String)
        columns = (reason.alias(STATUS), pl.when(reason != "no_hash").then(detail).alias(DETAIL))
        failed = rows.lazy().with_row_index(ROW).filter(pl.col(kind.name).is_null())
        counts = failed.group_by(columns[0]).len().collect()
        named = failed.head(_NAMES_SHOWN).select(ROW, source_text(rows.schema, source), *columns)
        tally = cls()
        tally._n_rows.update(dict(counts.iter_rows()))
        tally._n_rows[OK] = rows.height - tally._n_rows.total()
        tally._failed = [FailedRow(*values) for values in named.collect().iter_rows()]
        return tally

    def count(self, frame: pl.LazyFrame, source: str | None) -> pl.LazyFrame:
        """Return `frame`, each row of which is counted when the query runs, whatever it is written to."""
        seen = pl.struct(pl.col(ROW), source_text(frame.collect_schema(), source), pl.col(STATUS), pl.col(DETAIL))
        counted = seen.map_batches(self._see, return_dtype=STATUS_DTYPE, is_elementwise=True).alias(STATUS)
        return frame.with_row_index(ROW).with_columns(counted).drop(ROW)

    def _see(self, rows: pl.Series) -> pl.Series:
        statuses = rows.struct.field(STATUS)
        # Batches come in any order: the first rows are those of the lowest numbers.
        failed = rows.filter(statuses != OK).head(_NAMES_SHOWN).struct.unnest()
        found = [FailedRow(*values) for values in failed.select(ROW, SOURCE, STATUS, DETAIL).iter_rows()]
        with self._lock:
            self._n_rows.update(dict(statuses.value_counts().iter_rows()))
            self._failed = heapq.nsmallest(_NAMES_SHOWN, [*self._failed, *found], key=lambda one: one.row)
        return statuses

    @property
    def n_failed(self) -> int:
        """The rows that have no hash."""
        return self._n_rows.total() - self._n_rows[OK]

    def finish(self, *, is_whole: bool) -> None:
        """Say how many rows failed, by status, the most frequent first, name some, and end with the exit code for that.

        Parameters
        ----------
        is_whole
            Whether there are rows for all sources; what is missing was said.
        """
        if self.n_failed:
            failed = sorted((-n_rows, status) for status, n_rows in self._n_rows.items() if status != OK)
            reasons = ", ".join(f"{status} {-n_rows:,}" for n_rows, status in failed)
            say(f"{self.n_failed:,} of {self._n_rows.total():,} failed: {reasons}")
            say_failed(self._failed, self.n_failed)
        if self.n_failed or not is_whole:
            raise typer.Exit(SOME_FAILED)


def say(text: str, *, err: bool = True, indent: int = 0) -> None:
    """Print one line of prose, which on a terminal wraps between words.

    Parameters
    ----------
    text
        What a terminal would not print is replaced: names and messages of files may hold anything.
    err
        Whether to print it on standard error.
    indent
        Spaces before each line.
    """
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    lines = [text]
    if (sys.stderr if err else sys.stdout).isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=err)
        wrapped = Text(text).wrap(console, max(console.width - indent, 1))
        lines = [line.plain.rstrip() for line in wrapped]
    for line in lines:
        typer.echo(" " * indent + line, err=err)


def failed_in_store(target: Target, frame: pl.LazyFrame, source: str | None) -> list[FailedRow]:
    """Return the first rows of a frame that have no hash in the store `target`, by the order of their keys.

    Parameters
    ----------
    target
        A store that holds the rows.
    frame
        The rows.
    source
        Their column of sources, which is the key where the store has no other.
    """
    stored = scan_hashes(target)
    manifest = manifest_of(target)
    key = SOURCE if manifest is None else manifest.key
    column = source if key == SOURCE and source is not None else key
    keys = frame.select(pl.col(column).cast(stored.collect_schema()[key]).alias(key))
    text = pl.col(SOURCE) if manifest is not None and manifest.has_source else pl.lit(None, pl.String)
    name = pl.coalesce(text, pl.format(f"{key} {{}}", pl.col(key)))
    # Collected before the join: Polars 1.40 panics on a semi-join of a scan that ends in a head.
    failed = stored.filter(pl.col(STATUS) != OK).collect().join(keys.collect(), on=key, how="semi")
    rows = failed.sort(key).head(_NAMES_SHOWN).select(name, STATUS, DETAIL)
    return [FailedRow(0, *values) for values in rows.iter_rows()]


def say_failed(failed: Iterable[FailedRow], n_failed: int) -> None:
    """Print the first rows that failed, one per line, and the number of the others."""
    shown = list(failed)[:_NAMES_SHOWN]
    for row in shown:
        say(str(row), indent=2)
    if n_failed > len(shown):
        say(f"and {n_failed - len(shown):,} more", indent=2)


def say_lines(start: str, lines: Sequence[str]) -> None:
    """Print the first lines, each behind `start`, and the number of the others."""
    for line in lines[:_NAMES_SHOWN]:
        say(f"{start}{line}")
    if len(lines) > _NAMES_SHOWN:
        say(f"{start}{len(lines) - _NAMES_SHOWN:,} more")


@contextmanager
def _warnings_said() -> Iterator[None]:
    """Print each warning of ours once, as a message to a user; others stay as they are."""
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, ImgMatchWarning):
            before(message, category, filename, lineno, file, line)
        elif str(message) not in seen:
            seen.add(str(message))
            for part in f"warning: {message}".split("\n"):
                say(part)

    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.showwarning = show
        warnings.simplefilter("always", ImgMatchWarning)
        yield


@contextmanager
def reported(kept: str = "nothing was written") -> Iterator[None]:
    """Turn what the user can mend into a message and an exit code; a bug keeps its traceback.

    Parameters
    ----------
    kept
        What an interrupted run leaves.
    """
    try:
        with _warnings_said(), keeping(kept):
            yield
    except RowError as error:
        _fail(error, SOME_FAILED)
    except (ImgMatchError, pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and "Broken pipe" in str(error):  # Polars gives no errno
            _leave(128 + _SIGPIPE)  # the reader has seen enough, as `head` does
        _fail(error, WRONG_CALL)
    except pl.exceptions.PanicException as error:  # not an `Exception`
        _fail(error, WRONG_CALL)
    except RecursionError:
        _fail(
            ArgumentError("the input is nested too deeply\nHint: take out the columns that are not needed."), WRONG_CALL
        )
    except KeyboardInterrupt:  # where nobody has called `end_on_signals`
        say(f"interrupted, {kept}")
        _leave(128 + signal.SIGINT)


def _fail(error: BaseException, code: int) -> NoReturn:
    # Polars tells in which expression an error occurred; it is ours, and says nothing to the user.
    message = str(error).split("\n\nThis error occurred", 1)[0]
    if "Hint:" not in message:
        message += f"\nHint: {_hint(error, message)}"
    for line in f"imgmatch: {message}".split("\n"):
        say(line)
    _drop_unwritable()
    raise typer.Exit(code) from None


def _drop_unwritable() -> None:
    """Drop what standard output does not take: Python would try again at its end, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _hint(error: BaseException, message: str) -> str:
    if (isinstance(error, OSError) and error.errno in _FULL) or "No space left" in message:
        return "the disk is full, or a quota is used up; free some space, or choose another target."
    if isinstance(error, pl.exceptions.PanicException):
        return "Polars failed on this input; is the file whole, and of the kind that its ending says?"
    if "utf-8" in message.lower():
        return "save the file as UTF-8."
    return "is the file whole, and of the kind that its ending says?"


def _leave(code: int) -> NoReturn:
    """End the process now: an ordinary exit would wait for the threads, which finish their batch."""
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).show_cursor()  # a bar that was under way had hidden it
    sys.stderr.flush()
    os._exit(code)


def check_streams() -> None:
    """Refuse to run where standard output is closed (``>&-``): the next file that is opened would take its place."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # for the whole of the run
    if sys.stdout is None:
        sys.stderr.write("imgmatch: standard output is closed\nHint: >/dev/null drops what is printed.\n")
        sys.exit(WRONG_CALL)
