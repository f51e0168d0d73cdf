"""Signal handlers: they remove unfinished files and end the process with the exit code of the signal.

The process ends in the handler, because Polars and Click turn an exception of a handler into other exceptions and exit
codes.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_SHOW_CURSOR: Final = b"\r\x1b[K\x1b[?25h"  # after a progress bar, which hides the cursor

_half_written: Final[set[Path]] = set()
_kept = "nothing was written"


def end_on_signals() -> None:
    """Let signals end this process, except those that were ignored when it started (``nohup``, ``&``)."""
    pid = os.getpid()

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        if os.getpid() == pid:  # a forked process must not remove files of its parent
            _clean_up()
        os._exit(128 + number)

    for name in _SIGNALS:
        if (number := getattr(signal, name, None)) is not None:
            is_ignored = signal.getsignal(number) is signal.SIG_IGN
            # Set ignored signals again, because Polars replaces handlers that Python has not set.
            signal.signal(number, signal.SIG_IGN if is_ignored else end)


@contextmanager
def half_written(*paths: Path) -> Iterator[None]:
    """Remove `paths` if a signal ends the process within the block."""
    _half_written.update(paths)
    try:
        yield
    finally:
        _half_written.difference_update(paths)


@contextmanager
def keeping(kept: str) -> Iterator[None]:
    """Let the message of a signal say `kept`, the result of an interrupted run."""
    global _kept
    before, _kept = _kept, kept
    try:
        yield
    finally:
        _kept = before


def _clean_up() -> None:
    for path in list(_half_written):
        with suppress(OSError):
            path.unlink()
    # Not with `sys.stderr`, whose buffer may be in use. A terminal may be closed.
    with suppress(OSError, ValueError):
        error = sys.stderr.fileno()
        os.write(error, (_SHOW_CURSOR if os.isatty(error) else b"") + f"interrupted, {_kept}\n".encode())
