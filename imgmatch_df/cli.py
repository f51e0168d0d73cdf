"""The command `imgmatch`: parse, make one call, show."""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn

import polars as pl
import typer

from imgmatch_df import files, pipeline
from imgmatch_df.documented import ping_response, to_json
from imgmatch_df.errors import ImgMatchError, RowError
from imgmatch_df.files import SourceTable, interruptible
from imgmatch_df.options import MAX_BYTES, MAX_PIXELS, SourceOptions
from imgmatch_df.progress import METER
from imgmatch_df.schema import BMH1, DETAIL, HASH_KINDS, HEIGHT, OK, PHASH, STATUS, STATUS_DTYPE, WIDTH
from imgmatch_df.sources import describe

ALL_OK: Final = 0
SOME_FAILED: Final = 1
WRONG_CALL: Final = 2

_ROWS_SHOWN: Final = 20
_SIGPIPE: Final = 13  # `signal` has no such name on Windows

app = typer.Typer(
    name="imgmatch",
    help="Find duplicate and near-duplicate images, in folders, Parquet, CSV and JSON.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: the entry point of `imgmatch`."""
    signal.signal(signal.SIGTERM, _raise_signal)
    app()


@app.callback()
def _imgmatch(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda wanted: _show_version(wanted), help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command("visual-hash")
def visual_hash(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Folder, picture or glob; .parquet, .csv, .ndjson; documented request .json.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="OUT", show_default=False, help=".parquet, .csv, .ndjson or .json; else the screen."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", show_default=False, help="Column of a table that holds the images."),
    ] = None,
    hash_types: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", show_default="bmh1,phash", help="Hashes to compute.")
    ] = None,
    decode: Annotated[
        str, typer.Option(metavar="full|scaled", help="full is exact, scaled is faster on large JPEGs.")
    ] = "full",
    max_pixels: Annotated[int, typer.Option(metavar="N", help="Largest width x height to decode.")] = MAX_PIXELS,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Largest file to read, in bytes.")] = MAX_BYTES,
    base_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", show_default="working directory", help="Where relative paths of a table start."),
    ] = None,
    on_error: Annotated[
        str, typer.Option(metavar="null|raise", help="Keep failed rows without hashes, or stop at the first.")
    ] = "null",
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", show_default="on a terminal", help="Show a bar.")
    ] = None,
) -> None:
    """Hash pictures: bmh1 and phash, width, height, and why a picture failed.

    Example: imgmatch visual-hash photos -o hashes.parquet

    Exit code 0: all hashed; 1: some failed, the output says why; 2: wrong call.
    """
    with _reported():
        if out is not None:
            files.check_target(out)
        options = SourceOptions(
            decode=decode,  # type: ignore[typeddict-item]  # checked by `make_options`, with a hint
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            base_dir=base_dir,
            on_error=on_error,  # type: ignore[typeddict-item]
            progress=sys.stderr.isatty() if progress is None else progress,
        )
        table = interruptible(lambda: files.open_sources(sources, source, base_dir=base_dir))
        kinds = _split(hash_types) or table.hash_types or tuple(HASH_KINDS)
        tally = _Tally()
        hashed = tally.count(pipeline.visual_hash(table.frame, table.source, hash_types=kinds, **options))
        with _bar(table.frame, shown=options["progress"]), pl.Config(streaming_chunk_size=files.BATCH_ROWS):
            left_out, answer = _write(hashed, table, kinds, out)
        if answer is not None:
            _show(answer, kinds)
        if left_out:
            typer.echo(f"left out, because {_format(out)} cannot hold it: {', '.join(left_out)}", err=True)
        if tally.n_failed:
            typer.echo(tally.summary(), err=True)
            raise typer.Exit(SOME_FAILED)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where to put the pictures.")] = Path("imgmatch-demo"),
) -> None:
    """Draw pictures and edited copies of them, hash them, and show what was found.

    Example: imgmatch demo
    """
    with _reported():
        from rich.console import Console

        from imgmatch_df.demo import run_demo

        run_demo(folder, Console())


@app.command()
def ping() -> None:
    """Print the documented answer of the service, to see that the command works.

    Example: imgmatch ping
    """
    typer.echo(to_json(ping_response()))


class _Tally:
    """Counts the rows of each status while they stream past, whatever they are written to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_rows: Counter[str] = Counter()

    def count(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return `frame`, each row of which is counted when the query runs."""
        counted = pl.col(STATUS).map_batches(self._see, return_dtype=STATUS_DTYPE, is_elementwise=True)
        return frame.with_columns(counted)

    def _see(self, statuses: pl.Series) -> pl.Series:
        with self._lock:
            self._n_rows.update(dict(statuses.value_counts().iter_rows()))
        return statuses

    @property
    def n_failed(self) -> int:
        return self._n_rows.total() - self._n_rows[OK]

    def summary(self) -> str:
        """Return how many rows failed, by status, the most frequent first."""
        failed = [(status, n_rows) for status, n_rows in self._n_rows.most_common() if status != OK]
        reasons = ", ".join(f"{status} {n_rows:,}" for status, n_rows in failed)
        return f"{self.n_failed:,} of {self._n_rows.total():,} failed: {reasons}"


def _write(
    hashed: pl.LazyFrame, table: SourceTable, kinds: tuple[str, ...], out: Path | None
) -> tuple[list[str], pl.DataFrame | None]:
    """Run the query; return the columns left out, and for the screen what to show."""
    kept = hashed.drop(table.made)
    if out is not None:
        # The documented JSON is made of the column of sources itself, wherever that came from.
        frame = hashed if out.suffix.lower() == ".json" else kept
        return files.write_hashes(frame, out, source=table.source, hash_types=kinds), None
    if not sys.stdout.isatty():
        return _write_to_pipe(kept), None
    columns = _columns_shown(hashed, table.source, kinds)
    return [], interruptible(lambda: hashed.select(columns).collect(engine="streaming"))


def _write_to_pipe(frame: pl.LazyFrame) -> list[str]:
    try:
        return files.write_csv(frame, sys.stdout.buffer)
    except OSError as error:
        if "Broken pipe" in str(error):  # the reader has seen enough, as `head` does; Polars gives no errno
            _leave(128 + _SIGPIPE)
        raise


def _columns_shown(hashed: pl.LazyFrame, source: str, kinds: tuple[str, ...]) -> list[pl.Expr]:
    # Short texts instead of the sources, so that a million rows on the screen are not a million pictures in memory.
    is_binary = hashed.collect_schema()[source] == pl.Binary
    shown = pl.format("<{} bytes>", pl.col(source).bin.size()) if is_binary else pl.col(source).cast(pl.String)
    return [
        shown.str.slice(0, 4096).alias("source"),
        *(pl.col(name) for name in (WIDTH, HEIGHT, *kinds, STATUS, DETAIL) if name != source),
    ]


def _show(answer: pl.DataFrame, kinds: tuple[str, ...]) -> None:
    """Print a table of the first and the last rows."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    kind = PHASH.name if PHASH.name in kinds else BMH1.name
    n_hidden = answer.height - _ROWS_SHOWN
    shown = answer if n_hidden <= 1 else pl.concat([answer.head(_ROWS_SHOWN // 2), answer.tail(_ROWS_SHOWN // 2)])
    grid = Table(
        Column("source", overflow="fold"),
        Column("size", justify="right", no_wrap=True),
        Column(kind, no_wrap=True),
        Column(STATUS, overflow="fold"),
        box=None,
        pad_edge=False,
    )
    for row, values in enumerate(shown.iter_rows(named=True)):
        if n_hidden > 1 and row == _ROWS_SHOWN // 2:
            grid.add_row("…")
        failed = values[STATUS] != OK
        grid.add_row(
            Text(describe(values["source"], max_chars=200)),
            "" if failed else f"{values[WIDTH]} x {values[HEIGHT]}",
            "" if failed else _hex(values[kind]),
            Text(f"{values[STATUS]}: {values[DETAIL]}", "red") if failed else Text(OK, "green"),
        )
    console = Console()
    console.print(grid)
    if n_hidden > 1:
        console.print(f"{n_hidden:,} more rows; -o hashes.parquet keeps them all", style="dim", highlight=False)


def _hex(value: int | bytes) -> str:
    return f"{value:016x}" if isinstance(value, int) else value[:8].hex() + "…"


@contextmanager
def _bar(frame: pl.LazyFrame, *, shown: bool) -> Iterator[None]:
    """Show a bar that knows how many rows there are."""
    with METER.run(interruptible(lambda: frame.select(pl.len()).collect()).item()) if shown else nullcontext():
        yield


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what the user can mend into a message and an exit code; a bug keeps its traceback."""
    try:
        yield
    except RowError as error:
        _fail(error, SOME_FAILED)
    except (ImgMatchError, pl.exceptions.PolarsError, OSError) as error:
        _fail(error, WRONG_CALL)
    except KeyboardInterrupt as interrupt:
        typer.echo("interrupted, nothing was written", err=True)
        _leave(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))


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


def _raise_signal(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


def _split(names: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for part in names or () for name in part.split(","))


def _format(out: Path | None) -> str:
    return ".csv" if out is None else out.suffix.lower()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgmatch {version('imgmatch-df')}")
        raise typer.Exit
