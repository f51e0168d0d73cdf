"""Progress bar on the terminal or in a notebook. The process has one bar for rows, which its expressions share."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.progress import Progress

# Between two batches of a streaming query no batch is in flight; the bar ends if no batch follows within this time.
_IDLE_S = 1.0
_NOTEBOOK_REFRESH_S = 0.5
_NOTEBOOK_WIDTH = 100  # characters


class RowCounts(NamedTuple):
    """What a process has read since it started."""

    n_rows: int  # whose total was known or whose batch has started
    n_done: int
    n_failed: int
    n_fetched: int
    n_bytes_fetched: int


class Meter:
    """Counter of rows, shown as a bar while a batch is in flight. Thread-safe.

    The bar is shown if standard error is a terminal, and in the cell of a notebook.

    Attributes
    ----------
    shows_bar
        Whether there are bars; rows are counted all the same.
    """

    def __init__(self) -> None:
        self.shows_bar = True
        self._counts = RowCounts(0, 0, 0, 0, 0)
        self._n_announced = 0  # rows of `run` whose batch has not started
        self._lock = threading.RLock()
        self._bar: Progress | None = None
        self._n_open = 0
        self._n_failed = 0
        self._n_total = 0
        self._n_fetched = 0
        self._n_bytes = 0
        self._known_total: int | None = None
        self._generation = 0
        self._cell: object = None

    def counts(self) -> RowCounts:
        """Return what was read so far by batches that count."""
        with self._lock:
            return self._counts

    def _count(self, **added: int) -> None:
        self._counts = self._counts._replace(
            **{name: getattr(self._counts, name) + number for name, number in added.items()}
        )

    @contextmanager
    def batch(self, n_rows: int) -> Iterator[None]:
        """Add a batch of `n_rows`; the first batch shows the bar."""
        self._open(n_rows)
        try:
            yield
        finally:
            self._close(_IDLE_S)

    @contextmanager
    def run(self, n_rows: int) -> Iterator[None]:
        """Set the total to `n_rows`, so that the remaining time is known; the bar ends with the context."""
        self._open(0)
        with self._lock:
            self._known_total = self._n_announced = n_rows
            self._count(n_rows=n_rows)
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], total=n_rows)
        try:
            yield
        finally:
            # Also if a batch is still in flight after an error or Ctrl-C: a bar that was not stopped hides the cursor.
            with self._lock:
                self._n_open -= 1
                self._n_announced = 0
                self._generation += 1
                self._clear()

    def advance(self, *, failed: bool) -> None:
        """Count one finished row."""
        with self._lock:
            self._n_failed += failed
            self._count(n_done=1, n_failed=failed)
            if self._bar is not None:
                total = self._known_total or self._n_total
                self._bar.update(self._bar.task_ids[0], advance=1, total=total, failed=f"{self._n_failed} failed")

    def count_response(self, n_bytes: int) -> None:
        """Count one response body of `n_bytes`."""
        with self._lock:
            self._n_fetched += 1
            self._n_bytes += n_bytes
            self._count(n_fetched=1, n_bytes_fetched=n_bytes)
            if self._bar is not None:
                elapsed_s = max(self._bar.tasks[0].elapsed or 0.0, 0.1)
                speed = f"{self._n_fetched:,} fetched, {self._n_bytes / elapsed_s / 1e6:,.1f} MB/s"
                self._bar.update(self._bar.task_ids[0], fetched=speed)

    def _open(self, n_rows: int) -> None:
        with self._lock:
            if not self._n_open and self._cell != (cell := _notebook_cell()):
                self._clear()  # the bar belongs to an earlier cell, whose batches are finished
                self._cell = cell
            self._n_open += 1
            self._n_total += n_rows
            n_announced = min(n_rows, self._n_announced)
            self._n_announced -= n_announced
            self._count(n_rows=n_rows - n_announced)
            if self._bar is None and self.shows_bar:
                self._bar = _bar("hashing")
                self._bar.start()

    def _close(self, idle_s: float) -> None:
        with self._lock:
            self._n_open -= 1
            self._generation += 1
            if self._n_open:
                return
            if self._bar is not None:
                self._bar.refresh()
            timer = threading.Timer(idle_s, self._stop, [self._generation])
            timer.daemon = True
            timer.start()

    def _stop(self, generation: int) -> None:
        with self._lock:
            if not self._n_open and generation == self._generation:
                self._clear()

    def _clear(self) -> None:
        if self._bar is not None and not self._bar.disable:  # rich before 15 ends a line even if it wrote none
            self._bar.stop()
        self._bar = None
        self._n_failed = self._n_total = self._n_fetched = self._n_bytes = 0
        self._known_total = None


def _bar(label: str) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[fetched]}"),
        TextColumn("{task.fields[failed]}"),
    )
    if _notebook_cell() is not None:
        bar = _notebook_bar(columns)
    else:
        console = Console(stderr=True)
        bar = Progress(*columns, console=console, disable=not console.is_terminal)
    bar.add_task(label, total=None, failed="", fetched="")
    return bar


def _notebook_cell() -> int | None:
    """Return the number of the running cell; None if this process is not the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:  # as in IPython on a terminal
        return None
    return int(shell.execution_count)


def _notebook_bar(columns: tuple[Any, ...]) -> "Progress":
    from io import StringIO

    from IPython.display import display
    from rich.console import Console
    from rich.progress import Progress

    show: Any = display  # `display` has no annotations

    class NotebookBar(Progress):
        """Bar in the output of a cell, which is replaced at each update. That of rich needs ipywidgets."""

        handle: Any = None

        def start(self) -> None:
            self.ended = threading.Event()
            self.handle = show(self.as_text(), raw=True, display_id=True)
            threading.Thread(target=self.keep_fresh, daemon=True, name="imgmatch-progress").start()

        def stop(self) -> None:
            self.ended.set()
            self.refresh()

        def refresh(self) -> None:
            if self.handle is not None:
                self.handle.update(self.as_text(), raw=True)

        def keep_fresh(self) -> None:
            while not self.ended.wait(_NOTEBOOK_REFRESH_S):
                self.refresh()

        def as_text(self) -> dict[str, str]:
            with self.console.capture() as shown:
                self.console.print(self.get_renderable())
            return {"text/plain": shown.get().rstrip()}

    console = Console(file=StringIO(), width=_NOTEBOOK_WIDTH, color_system=None, force_jupyter=False)
    return NotebookBar(*columns, console=console)


METER = Meter()


def _forget_bar_of_parent() -> None:
    METER.__init__()  # type: ignore[misc]  # in place, because other modules have imported METER; its lock may be held


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_bar_of_parent)


@contextmanager
def steps(label: str, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (done, total) that updates a bar named `label`; None if no bar is shown."""
    bar = _bar(label) if shown and METER.shows_bar else None
    if bar is None or bar.disable:
        yield None
        return
    with bar:
        yield lambda done, total: bar.update(bar.task_ids[0], completed=done, total=total)
