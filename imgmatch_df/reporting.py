"""How a command ends: what failed, what went wrong, and the exit code for each."""

import os
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import polars as pl
import typer

from imgmatch_df.errors import ImgMatchError, ImgMatchWarning, RowError
from imgmatch_df.schema import OK, STATUS, STATUS_DTYPE, STATUSES, HashKind

SOME_FAILED: Final = 1
WRONG_CALL: Final = 2

_SIGPIPE: Final = 13  # `signal` has no such name on Windows


class Tally:
    """Counts the rows of each status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_rows: Counter[str] = Counter()

    @classmethod
    def of(cls, rows: pl.DataFrame, kind: HashKind) -> "Tally":
        """Count rows that are there, by the status of their hash."""
        # A table may have a status of its own, of any dtype, that says nothing of hashes.
        is_text = rows.schema.get(STATUS) in (pl.String, pl.Categorical, pl.Enum)
        said = (pl.col(STATUS) if is_text else pl.lit(None)).cast(pl.String)
        reason = pl.when(said.is_in(STATUSES) & (said != OK)).then(said).otherwise(pl.lit("no_hash"))
        tally = cls()
        tally._see(rows.select(pl.when(pl.col(kind.name).is_null()).then(reason).otherwise(pl.lit(OK))).to_series())
        return tally

    def count(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return `frame`, each row of which is counted when the query runs, whatever it is written to."""
        counted = pl.col(STATUS).map_batches(self._see, return_dtype=STATUS_DTYPE, is_elementwise=True)
        return frame.with_columns(counted)

    def _see(self, statuses: pl.Series) -> pl.Series:
        with self._lock:
            self._n_rows.update(dict(statuses.value_counts().iter_rows()))
        return statuses

    @property
    def n_failed(self) -> int:
        """The rows that have no hash."""
        return self._n_rows.total() - self._n_rows[OK]

    def finish(self, *, is_whole: bool) -> None:
        """Say how many rows failed, by status, the most frequent first, and end with the exit code for that.

        Parameters
        ----------
        is_whole
            Whether there are rows for all sources; what is missing was said.
        """
        if self.n_failed:
            failed = sorted((-n_rows, status) for status, n_rows in self._n_rows.items() if status != OK)
            reasons = ", ".join(f"{status} {-n_rows:,}" for n_rows, status in failed)
            typer.echo(f"{self.n_failed:,} of {self._n_rows.total():,} failed: {reasons}", err=True)
        if self.n_failed or not is_whole:
            raise typer.Exit(SOME_FAILED)


@contextmanager
def reported(kept: str = "nothing was written") -> Iterator[None]:
    """Turn what the user can mend into a message and an exit code; a bug keeps its traceback.

    Parameters
    ----------
    kept
        What an interrupted run leaves.
    """
    try:
        with _warnings_shown():
            yield
    except RowError as error:
        _fail(error, SOME_FAILED)
    except (ImgMatchError, pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and "Broken pipe" in str(error):  # Polars gives no errno
            _leave(128 + _SIGPIPE)  # the reader has seen enough, as `head` does
        _fail(error, WRONG_CALL)
    except KeyboardInterrupt as interrupt:
        typer.echo(f"interrupted, {kept}", err=True)
        _leave(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Print each of our warnings once, as a message without the line of the program that it came from."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, ImgMatchWarning):
            others(message, category, *where, **more)
        elif str(message) not in seen:
            seen.add(str(message))
            typer.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", ImgMatchWarning)
        others = warnings.showwarning
        warnings.showwarning = show
        yield


def _fail(error: Exception, code: int) -> NoReturn:
    # Polars tells in which expression an error occurred; it is ours, and says nothing to the user.
    message = str(error).split("\n\nThis error occurred", 1)[0]
    if "Hint:" not in message:
        message += "\nHint: is the file whole, and of the kind that its ending says?"
    typer.echo(f"imgmatch: {message}", err=True)
    raise typer.Exit(code) from None


def _leave(code: int) -> NoReturn:
    """End the process now: an ordinary exit would wait for the threads, which finish their batch."""
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).show_cursor()  # a bar that was under way had hidden it
    sys.stderr.flush()
    os._exit(code)


def raise_signal(number: int, _frame: FrameType | None) -> NoReturn:
    """End a run as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def check_streams() -> None:
    """Refuse to run where standard output is closed (``>&-``): the next file that is opened would take its place."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # for the whole of the run
    if sys.stdout is None:
        sys.stderr.write("imgmatch: standard output is closed\nHint: >/dev/null drops what is printed.\n")
        sys.exit(WRONG_CALL)
