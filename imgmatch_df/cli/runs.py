"""One run of a command: its limit of failed rows, its summary as JSON, and its log for other programs."""

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

import typer

from imgmatch_df.atomic import real_path, written_file
from imgmatch_df.columns import OK
from imgmatch_df.errors import ArgumentError
from imgmatch_df.progress import METER
from imgmatch_df.store.base import is_same_file

LOG_FORMATS: Final = ("text", "json")
STDOUT: Final = "-"

_LOG_EVERY_S: Final = 10.0
_MAX_SUMMARY_BYTES: Final = 1 << 20
_OWN_KEYS: Final = {"command", "version", "exit_code"}  # of every summary


class FailureLimit(NamedTuple):
    """Maximum number of rows without a hash in a run that succeeds."""

    text: str
    value: float
    is_percentage: bool

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """Return the limit that ``N`` or ``P%`` stands for.

        Raises
        ------
        ArgumentError
            If it is neither a whole number of at least 0 nor a percentage from 0 to 100.
        """
        number, is_percentage = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            value = float(number) if is_percentage else int(number)
        except ValueError:
            value = -1
        if not 0 <= value <= (100 if is_percentage else sys.maxsize):
            raise ArgumentError(
                f"--max-failed must be a number of rows or a percentage from 0% to 100%, got {text!r:.80}\n"
                "Hint: --max-failed 20 or --max-failed 0.5%."
            )
        return cls(text.strip(), value, is_percentage)

    def allows(self, n_failed: int, n_rows: int) -> bool:
        """Return whether `n_failed` of `n_rows` are at most the limit."""
        return n_failed * 100 <= self.value * n_rows if self.is_percentage else n_failed <= self.value


class Log:
    """Log of a run: one line per event on standard error, each a JSON object or text."""

    def __init__(self, log_format: str) -> None:
        self._is_json = log_format == "json"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._before = METER.counts()

    def start(self) -> None:
        """Write the progress every ten seconds, from a thread."""
        threading.Thread(target=self._write_progress, daemon=True, name="imgmatch-log").start()

    def end(self) -> None:
        """Stop writing the progress."""
        self._ended.set()

    def emit(self, level: str, event: str, text: str, **fields: Any) -> None:
        """Write one event.

        Parameters
        ----------
        level
            ``"info"``, ``"warning"`` or ``"error"``.
        event
            Its name, in JSON.
        text
            What the text format shows.
        **fields
            What JSON holds.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._is_json:
            line = json.dumps({"time": time, "level": level, "event": event, **fields}, ensure_ascii=True)
        else:
            line = f"{time} {level} {' '.join(text.splitlines())}"
        with self._lock:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def message(self, level: str, text: str) -> None:
        """Write a message of the command."""
        self.emit(level, "message", text, message=text)

    def _write_progress(self) -> None:
        written, seen_at, seen = self._before, monotonic(), self._before.n_done
        while not self._ended.wait(_LOG_EVERY_S):
            now, at = METER.counts(), monotonic()
            if now == written:
                continue
            rate = (now.n_done - seen) / (at - seen_at)
            written, seen_at, seen = now, at, now.n_done
            counts = {name: value - before for name, value, before in zip(now._fields, now, self._before, strict=True)}
            self.emit(
                "info",
                "progress",
                f"{counts['n_done']:,} of {counts['n_rows']:,} rows, {counts['n_failed']:,} failed, {rate:,.1f} rows/s",
                **counts,
                rows_per_s=round(rate, 1),
            )


class CommandRun:
    """What a run of a command must leave for other programs, and what it has counted so far.

    Parameters
    ----------
    command
        Name of the command.
    max_failed
        Maximum number or percentage of failed rows with which it succeeds.
    strict
        Whether rows that failed in an earlier run, and were not tried again, count as failed.
    summary
        File of the summary, ``-`` for standard output, None for no summary.
    log_format
        ``"text"``, ``"json"``, or None for no log.

    Raises
    ------
    ArgumentError
        If an option has a value that is not allowed.
    """

    def __init__(
        self,
        command: str = "",
        *,
        max_failed: str = "0",
        strict: bool = False,
        summary: str | None = None,
        log_format: str | None = None,
    ) -> None:
        if log_format is not None and log_format not in LOG_FORMATS:
            raise ArgumentError(
                f"--log-format must be one of {', '.join(LOG_FORMATS)}, got {log_format!r:.80}\n"
                "Hint: leave it out to see a bar on a terminal, and nothing elsewhere."
            )
        self.limit = FailureLimit.parse(max_failed)
        self.strict = strict
        self.summary = summary
        self.log = None if log_format is None else Log(log_format)
        self.statuses: Counter[str] = Counter()  # rows by status
        self.counts: dict[str, int] = {}
        self.outputs: list[str] = []
        self.error: str | None = None
        self._command = command
        self._started = datetime.now(UTC)
        self._begun = monotonic()

    def add_output(self, target: str) -> None:
        """Name a file that the run has written."""
        if target not in self.outputs:
            self.outputs.append(target)

    def prepare(self, *others: str | None) -> None:
        """Remove the summary of an earlier run, which a run that is killed would leave; refuse to remove another file.

        Parameters
        ----------
        *others
            Paths that the run reads or writes.

        Raises
        ------
        ArgumentError
            If the summary cannot be written there, or would replace a file that is no summary.
        """
        if self.summary is None or self.summary == STDOUT:
            return
        path = Path(self.summary).expanduser()
        for other in others:
            if other is not None and is_same_file(self.summary, other):
                raise ArgumentError(
                    f"--summary-json names a file that the command uses, {other!r}\nHint: choose another name."
                )
        if not path.parent.is_dir():
            raise ArgumentError(f"no such folder: {str(path.parent)!r}\nHint: make it first.")
        if path.is_dir():
            raise ArgumentError(f"--summary-json {str(path)!r} is a folder\nHint: name a file in it.")
        if path.is_file():
            if not _is_summary(path):
                raise ArgumentError(
                    f"--summary-json {str(path)!r} exists, and is not a summary\nHint: choose another name."
                )
            path.unlink()

    def to_dict(self, exit_code: int) -> dict[str, Any]:
        """Return the summary."""
        seconds = monotonic() - self._begun
        n_rows = self.statuses.total()
        return {
            "command": self._command,
            "version": version("imgmatch-df"),
            "exit_code": exit_code,
            "error": self.error,
            "started": self._started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "seconds": round(seconds, 3),
            "n_rows": n_rows,
            "n_failed": n_rows - self.statuses[OK],
            "status": {OK: self.statuses[OK], **dict(sorted(self.statuses.items()))},
            "rows_per_s": round(n_rows / max(seconds, 1e-3), 1),
            **self.counts,
            "outputs": self.outputs,
        }

    def finish(self, exit_code: int) -> None:
        """Write the summary and the last line of the log."""
        if self.log is None and self.summary is None:
            return
        done = self.to_dict(exit_code)
        if self.log is not None:
            n_failed = f"{done['n_failed']:,} of {done['n_rows']:,} failed"
            text = f"exit code {exit_code} after {done['seconds']} s, {n_failed}"
            self.log.emit("info" if exit_code in (0, 3) else "error", "end", text, **done)
        if self.summary == STDOUT:
            typer.echo(json.dumps(done, indent=2))
        elif self.summary is not None:
            path = Path(self.summary).expanduser()
            text = json.dumps(done, indent=2) + "\n"
            if path.exists() and not path.is_file():  # such as /dev/fd/3
                path.write_text(text, encoding="utf-8")
                return
            path = real_path(path)
            with written_file(path, path.with_name(f".{path.name}.partial")) as file:
                file.write(text.encode())


def _is_summary(path: Path) -> bool:
    if path.stat().st_size > _MAX_SUMMARY_BYTES:
        return False
    try:
        found = json.loads(path.read_bytes() or b"{}")
    except ValueError:
        return False
    return isinstance(found, dict) and (not found or found.keys() >= _OWN_KEYS)


_run = CommandRun()


def current() -> CommandRun:
    """Return the run of the command that this process executes."""
    return _run


@contextmanager
def running(run: CommandRun) -> Iterator[None]:
    """Execute the block as `run`, and write its summary and log at the end."""
    global _run
    before, _run = _run, run
    METER.shows_bar = run.log is None
    if run.log is not None:
        run.log.start()
    exit_code = 0
    try:
        yield
    except typer.Exit as ended:
        exit_code = ended.exit_code
        raise
    except BaseException as error:
        exit_code, run.error = 1, run.error or f"{type(error).__name__}: {error}"
        raise
    finally:
        if run.log is not None:
            run.log.end()
        METER.shows_bar = True
        try:
            run.finish(exit_code)
        finally:
            _run = before
