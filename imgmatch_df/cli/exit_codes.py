"""Messages about failed rows and errors, and the exit codes."""

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
from typing import Any, Final, NamedTuple, NoReturn, TextIO

import polars as pl
import typer
from typer.core import TyperGroup

from imgmatch_df.cli import runs
from imgmatch_df.cli.interrupts import keeping
from imgmatch_df.columns import DETAIL, OK, SOURCE, STATUS, STATUS_DTYPE, STATUSES
from imgmatch_df.errors import ArgumentError, ImgMatchError, ImgMatchWarning, RowError
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.naming import ROW, row_name, source_text
from imgmatch_df.sources import describe
from imgmatch_df.store.base import Target
from imgmatch_df.store.open import manifest_of, scan_hashes

SOME_FAILED: Final = 1
WRONG_CALL: Final = 2
FOUND: Final = 3  # what was looked for

_SIGPIPE: Final = 13  # `signal` has no such name on Windows
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NAMES_SHOWN: Final = 10
_MAX_CHARS: Final = 200
# Depending on its version, Typer raises click's usage errors or those of its own copy of click.
_UsageError: Final[Any] = typer.BadParameter.__base__


class FailedRow(NamedTuple):
    """A row without a hash, and the reason."""

    row: int
    source: str | None
    status: str
    detail: str | None

    def __str__(self) -> str:
        detail = f": {describe(self.detail, _MAX_CHARS)}" * bool(self.detail)
        return f"{row_name(self.source, self.row)}: {self.status}{detail}"


class Tally:
    """Counts rows by status, and keeps the first ones that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_rows: Counter[str] = Counter()
        runs.current().statuses = self._n_rows
        self._failed: list[FailedRow] = []

    @classmethod
    def of(cls, rows: pl.DataFrame, kind: HashKind, source: str | None) -> "Tally":
        """Count rows by the status of their hash; `source` is the column that names them."""
        # A table may have another column with the name of the status.
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
        """Return a query that counts the rows of `frame` when it runs."""
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
        """Number of rows without a hash."""
        return self._n_rows.total() - self._n_rows[OK]

    def finish(self, *, is_whole: bool, is_found: bool = False) -> None:
        """Print the number of failed rows by status and the first of them; exit with 1 above the limit of --max-failed.

        Parameters
        ----------
        is_whole
            Whether there are rows for all sources; otherwise exit with 1, too.
        is_found
            Whether what was looked for was found: exit with 3, also where rows failed, so that no failed row hides it.
        """
        if self.n_failed:
            failed = sorted((-n_rows, status) for status, n_rows in self._n_rows.items() if status != OK)
            reasons = ", ".join(f"{status} {-n_rows:,}" for n_rows, status in failed)
            say(f"{self.n_failed:,} of {self._n_rows.total():,} failed: {reasons}")
            say_failed(self._failed, self.n_failed)
        end_with(self.n_failed, self._n_rows.total(), is_whole=is_whole, is_found=is_found)


def end_with(n_failed: int, n_rows: int, *, is_whole: bool, is_found: bool = False) -> None:
    """Exit with 3 if `is_found`; with 1 if more rows failed than --max-failed allows, or some sources have no rows."""
    run = runs.current()
    is_within = run.limit.allows(n_failed, n_rows)
    if n_failed and is_within:
        say(f"these are within --max-failed {run.limit.text}")
    if is_found:
        raise typer.Exit(FOUND)
    if not is_within or not is_whole:
        raise typer.Exit(SOME_FAILED)


def say(text: str, *, err: bool = True, indent: int = 0, level: str = "info") -> None:
    """Print one line of text, which on a terminal is wrapped between words; to the log, where there is one.

    Parameters
    ----------
    text
        Unprintable characters are replaced, because names of files may contain any.
    err
        Whether to print it on standard error.
    indent
        Number of spaces before each line.
    level
        Level in the log.
    """
    run = runs.current()
    err = err or run.summary == runs.STDOUT
    if err and run.log is not None:
        run.log.message(level, text)
        return
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
    # Collected before the join: Polars 1.40 panics on a semi-join of a scan that ends in `head`.
    failed = stored.filter(pl.col(STATUS) != OK).collect().join(keys.collect(), on=key, how="semi")
    rows = failed.sort(key).head(_NAMES_SHOWN).select(name, STATUS, DETAIL)
    return [FailedRow(0, *values) for values in rows.iter_rows()]


def say_failed(failed: Iterable[FailedRow], n_failed: int) -> None:
    """Print the first rows that failed, one per line, and the number of the others."""
    shown = list(failed)[:_NAMES_SHOWN]
    log = runs.current().log
    for row in shown:
        if log is None:
            say(str(row), indent=2)
        else:
            log.emit("warning", "row_failed", str(row), **row._asdict())
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
    """Print each `ImgMatchWarning` once, as a message; other warnings are unchanged."""
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
            if (log := runs.current().log) is not None:
                log.message("warning", str(message))
                return
            for part in f"warning: {message}".split("\n"):
                say(part)

    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.showwarning = show
        warnings.simplefilter("always", ImgMatchWarning)
        yield


@contextmanager
def reported(kept: str = "nothing was written") -> Iterator[None]:
    """Turn errors of the user or the system into a message and an exit code; a bug keeps its traceback.

    Parameters
    ----------
    kept
        Text for the message of an interrupted run: the state that it leaves.
    """
    try:
        with _warnings_said(), keeping(kept):
            yield
    except RowError as error:
        _fail(error, SOME_FAILED)
    except (ImgMatchError, pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and "Broken pipe" in str(error):  # Polars gives no errno
            _leave(128 + _SIGPIPE)  # the reader has closed the pipe, as `head` does
        _fail(error, WRONG_CALL)
    except pl.exceptions.PanicException as error:  # not an `Exception`
        _fail(error, WRONG_CALL)
    except RecursionError:
        _fail(
            ArgumentError("the input is nested too deeply\nHint: take out the columns that are not needed."), WRONG_CALL
        )
    except KeyboardInterrupt:  # without `end_on_signals`
        say(f"interrupted, {kept}")
        _leave(128 + signal.SIGINT)


def _fail(error: BaseException, code: int) -> NoReturn:
    # Without the expression of Polars, which is internal.
    message = str(error).split("\n\nThis error occurred", 1)[0]
    if "Hint:" not in message:
        message += f"\nHint: {_hint(error, message)}"
    run = runs.current()
    run.error = message
    if run.log is not None:
        run.log.message("error", message)
    else:
        for line in f"imgmatch: {message}".split("\n"):
            say(line)
    _drop_unwritable()
    raise typer.Exit(code) from None


class CommandGroup(TyperGroup):
    """A group of commands whose usage errors, such as an unknown option, are reported as other errors are."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Parse the options before the command."""
        wanted = bool(args)  # parsing empties the list
        try:
            return super().make_context(info_name, args, *rest, **extra)
        except _UsageError as error:
            if not wanted:  # Typer shows the help
                raise
            _fail_usage(error, info_name)

    def invoke(self, ctx: Any) -> Any:
        """Parse the arguments of the command, and run it."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            _fail_usage(error, ctx.command_path, ctx.invoked_subcommand)


def _fail_usage(error: Any, *command: str | None) -> NoReturn:
    shown = " ".join(filter(None, command))
    _fail(ArgumentError(f"{error.format_message()}\nHint: run {shown} --help."), WRONG_CALL)


def _drop_unwritable() -> None:
    """Discard unwritten standard output: Python would write it again at exit, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _hint(error: BaseException, message: str) -> str:
    if (isinstance(error, OSError) and error.errno in _FULL) or "No space left" in message:
        return "free some space, or choose another target."
    if isinstance(error, pl.exceptions.PanicException):
        return "check that the file is complete, and of the format of its suffix."
    if "utf-8" in message.lower():
        return "save the file as UTF-8."
    return "check that the file is complete, and of the format of its suffix."


def _leave(code: int) -> NoReturn:
    """End the process now: a normal exit would wait for threads to finish their batch."""
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).show_cursor()  # a progress bar had hidden it
    sys.stderr.flush()
    os._exit(code)


def check_streams() -> None:
    """Exit if standard output is closed (``>&-``): the next opened file would get its descriptor."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # open until the end
    if sys.stdout is None:
        sys.stderr.write("imgmatch: standard output is closed\nHint: >/dev/null discards the output.\n")
        sys.exit(WRONG_CALL)
