"""What a person sees on a terminal: tables of hashes, of what was removed, and of the nearest pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from imgmatch_df.schema import (
    BMH1,
    DETAIL,
    DISTANCE,
    HEIGHT,
    OK,
    PHASH,
    RANK,
    REPRESENTATIVE_ID,
    STATUS,
    WIDTH,
)
from imgmatch_df.sources import describe
from imgmatch_df.storing import WriteSummary

if TYPE_CHECKING:
    from rich.table import Column, Table
    from rich.text import Text

SOURCE: Final = "source"
_ROWS_SHOWN: Final = 20
_CLUSTERS_SHOWN: Final = 10
_MAX_CHARS: Final = 200


def source_text(schema: pl.Schema, source: str | None) -> pl.Expr:
    """Return a short text for each source, so a million rows on the screen are not a million pictures in memory."""
    dtype = None if source is None else schema.get(source)
    if source is None or dtype is None:
        return pl.format("row {}", pl.int_range(pl.len())).alias(SOURCE)
    if dtype == pl.Binary:
        return pl.format("<{} bytes>", pl.col(source).bin.size()).alias(SOURCE)
    return pl.col(source).cast(pl.String).str.slice(0, 4096).alias(SOURCE)


def show_hashes(answer: pl.DataFrame, kinds: tuple[str, ...]) -> None:
    """Print the first and the last rows: `source`, the hashes, and the columns that `visual_hash` makes."""
    from rich.table import Column
    from rich.text import Text

    kind = PHASH.name if PHASH.name in kinds else BMH1.name
    n_hidden = answer.height - _ROWS_SHOWN
    shown = answer if n_hidden <= 1 else pl.concat([answer.head(_ROWS_SHOWN // 2), answer.tail(_ROWS_SHOWN // 2)])
    grid = _grid(
        Column(SOURCE, overflow="fold"),
        Column("size", justify="right", no_wrap=True),
        Column(kind, no_wrap=True),
        Column(STATUS, overflow="fold"),
    )
    for row, values in enumerate(shown.iter_rows(named=True)):
        if n_hidden > 1 and row == _ROWS_SHOWN // 2:
            grid.add_row("…")
        failed = values[STATUS] != OK
        grid.add_row(
            _source(values[SOURCE]),
            "" if failed else _size(values[WIDTH], values[HEIGHT]),
            "" if failed else _hex(values[kind]),
            Text(f"{values[STATUS]}: {values[DETAIL]}", "red") if failed else Text(OK, "green"),
        )
    _print(grid, f"{n_hidden:,} more rows; -o hashes.duckdb keeps them all" if n_hidden > 1 else None)


def show_clusters(clustered: pl.DataFrame) -> None:
    """Print the largest clusters of two rows or more: `source` of the representative, how many, and how far.

    Parameters
    ----------
    clustered
        `source`, and the columns of `cluster` with row numbers for representatives.
    """
    from rich.table import Column

    clusters = (
        clustered.filter(pl.col(REPRESENTATIVE_ID).is_not_null())
        .group_by(REPRESENTATIVE_ID, maintain_order=True)
        .agg(pl.len().alias("n_rows"), pl.col(DISTANCE).max())
        .filter(pl.col("n_rows") > 1)
        .sort("n_rows", descending=True, maintain_order=True)
    )
    if clusters.is_empty():
        return
    grid = _grid(
        Column("largest clusters", overflow="fold"),
        Column("rows", justify="right"),
        Column("farthest copy", justify="right"),
    )
    for row, n_rows, distance in clusters.head(_CLUSTERS_SHOWN).iter_rows():
        grid.add_row(_source(clustered[SOURCE][row]), f"{n_rows:,}", _bits(distance))
    n_hidden = clusters.height - _CLUSTERS_SHOWN
    _print(grid, f"{n_hidden:,} more clusters; -o kept.parquet keeps them all" if n_hidden > 0 else None)


def show_ranking(ranked: pl.DataFrame) -> None:
    """Print the nearest rows: `source`, width and height where they are known, and the columns of `rank_images`."""
    from rich.table import Column

    grid = _grid(
        Column(RANK, justify="right"),
        Column(DISTANCE, justify="right", no_wrap=True),
        Column(SOURCE, overflow="fold"),
        Column("size", justify="right", no_wrap=True),
    )
    found = ranked.filter(pl.col(RANK).is_not_null())
    for values in found.head(_ROWS_SHOWN).iter_rows(named=True):
        size = _size(values.get(WIDTH), values.get(HEIGHT))
        grid.add_row(f"{values[RANK]:,}", _bits(values[DISTANCE]), _source(values[SOURCE]), size)
    n_hidden = found.height - _ROWS_SHOWN
    _print(grid, f"{n_hidden:,} more rows; -o ranked.csv keeps them all" if n_hidden > 0 else None)


def counts_text(n_rows: int, n_kept: int, n_matched: int | None, *, n_failed: int) -> str:
    """Return in one line how many rows were kept and removed, and how many of those match a stored row.

    Parameters
    ----------
    n_rows
        Rows before anything was removed.
    n_kept
        Rows that are left.
    n_matched
        Removed rows that match a stored one; None where there are no stored rows.
    n_failed
        Rows without a hash.
    """
    matched = "" if n_matched is None else f", {n_matched:,} of them match a stored row"
    return f"kept {n_kept:,} of {n_rows:,} rows, removed {n_rows - n_kept:,}{matched}; failed {n_failed:,}"


def stored_text(target: Path, done: WriteSummary) -> str:
    """Return in one line what became of the rows that were to be stored; what did not happen is left out."""
    counts = {
        "new": done.n_new,
        "changed": done.n_changed,
        "tried again": done.n_retried,
        "unchanged": done.n_skipped,
        "duplicate": done.n_duplicates,
        "pruned": done.n_pruned,
        "failed": done.n_failed,
    }
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "new")
    return f"{target}: {said}"


def _grid(*columns: "Column") -> "Table":
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False)


def _print(grid: "Table", note: str | None) -> None:
    from rich.console import Console

    console = Console()
    console.print(grid)
    if note is not None:
        console.print(note, style="dim", highlight=False)


def _source(value: str | None) -> "Text":
    from rich.text import Text

    return Text(describe(value, max_chars=_MAX_CHARS))


def _size(width: int | None, height: int | None) -> str:
    return "" if width is None or height is None else f"{width} x {height}"


def _bits(distance: int) -> str:
    return f"{distance} bit{'s' * (distance != 1)}"


def _hex(value: int | bytes) -> str:
    return f"{value:016x}" if isinstance(value, int) else value[:8].hex() + "…"
