"""Tables and summaries on a terminal: hashes, clusters, and the nearest images."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from imgmatch_df.cli import runs
from imgmatch_df.columns import (
    COVERAGE,
    DETAIL,
    DISTANCE,
    EXACT,
    FEWEST_VOTES,
    HEIGHT,
    KEPT,
    LABEL,
    LEAK_ID,
    LEFT_ID,
    N_CLUSTERS,
    N_LABEL_CONFLICTS,
    N_LARGEST,
    N_LEAKED,
    N_PAIRS,
    N_REMOVED,
    N_ROWS,
    N_UNRELATED,
    OK,
    OTHER_ID,
    OTHER_LABEL,
    OTHER_SPLIT,
    QUERY_ID,
    RANK,
    RECALL,
    REFERENCE_ID,
    REPRESENTATIVE_ID,
    RIGHT_ID,
    SHARE,
    SOURCE,
    SPLIT,
    STATUS,
    TURN,
    UNRELATED_SHARE,
    VOTES,
    WIDTH,
)
from imgmatch_df.frames.writing import WriteSummary
from imgmatch_df.hashes.kinds import PHASH
from imgmatch_df.naming import ROW, row_name
from imgmatch_df.sources import describe

if TYPE_CHECKING:
    from rich.table import Column, Table
    from rich.text import Text

_ROWS_SHOWN: Final = 20
_CLUSTERS_SHOWN: Final = 10
_LEAKS_SHOWN: Final = 10
CHAIN_ROWS: Final = 200  # whose 19,900 pairs take some milliseconds
_RADII_SHOWN: Final = 8
_MAX_CHARS: Final = 200
_COLUMNS_SHOWN: Final = 3  # of a list, beside the matches
_LONGEST_SHOWN: Final = 60


def show_hashes(rows: pl.DataFrame, kinds: tuple[str, ...]) -> None:
    """Print the first and the last rows: `source`, the hashes, and the columns that `visual_hash` makes."""
    from rich.table import Column
    from rich.text import Text

    kind = PHASH.name if PHASH.name in kinds else kinds[0]
    n_hidden = rows.height - _ROWS_SHOWN
    shown = rows if n_hidden <= 1 else pl.concat([rows.head(_ROWS_SHOWN // 2), rows.tail(_ROWS_SHOWN // 2)])
    grid = _grid(
        Column(SOURCE, overflow="fold"),
        Column("size", justify="right", no_wrap=True),
        Column(kind, no_wrap=True),
        Column(STATUS, overflow="fold"),
    )
    for row, values in enumerate(shown.iter_rows(named=True)):
        is_tail = n_hidden > 1 and row >= _ROWS_SHOWN // 2
        if is_tail and row == _ROWS_SHOWN // 2:
            grid.add_row("…")
        failed = values[STATUS] != OK
        grid.add_row(
            _name(values[SOURCE], row + n_hidden if is_tail else row),
            "" if failed else _size(values[WIDTH], values[HEIGHT]),
            "" if failed else _hex(values[kind]),
            Text(_status(values[STATUS], values[DETAIL]), "red" if failed else "green"),
        )
    _print(grid, f"{n_hidden:,} more rows; -o hashes.duckdb keeps them all" if n_hidden > 1 else None)


def _status(status: str, detail: str | None) -> str:
    return status if status == OK and detail is None else f"{status}: {describe(detail, _MAX_CHARS)}"


def show_clusters(
    clustered: pl.DataFrame, radius: int | None, is_chained: Callable[[pl.DataFrame], bool] | None = None
) -> None:
    """Print the largest clusters of two rows or more: the kept row, how many rows, the farthest copy and how far it is.

    For copies by votes it is the copy with the fewest.

    Parameters
    ----------
    clustered
        `source`, and the columns of `cluster` with row numbers for representatives.
    radius
        Maximum distance of neighbours in a cluster, in bits; None for copies by votes.
    is_chained
        Returns whether two of the rows of a cluster are farther apart than the radius. It is called for the printed
        clusters of up to `CHAIN_ROWS` rows; of others, and without it, only the distance to the kept row counts.
    """
    from rich.table import Column

    by_votes = VOTES in clustered.columns
    measure = VOTES if by_votes else DISTANCE
    distance = 0 - pl.col(VOTES).cast(pl.Int32) if by_votes else pl.col(DISTANCE)
    clusters = (
        clustered.with_row_index(ROW)
        .filter(pl.col(REPRESENTATIVE_ID).is_not_null())
        .group_by(REPRESENTATIVE_ID, maintain_order=True)
        .agg(
            pl.col(ROW).alias("rows"),
            pl.col(ROW).sort_by(pl.col(KEPT), distance, descending=[False, True], maintain_order=True).first(),
            pl.col(measure).min() if by_votes else pl.col(measure).max(),
        )
        .with_columns(pl.col("rows").list.len().alias("n_rows"))
        .filter(pl.col("n_rows") > 1)
        .sort("n_rows", descending=True, maintain_order=True)
    )
    if clusters.is_empty():
        return
    grid = _grid(
        Column("largest clusters: kept", overflow="fold"),
        Column("rows", justify="right"),
        Column("farthest copy", overflow="fold"),
        Column(measure, justify="right", overflow="fold"),
    )
    for kept, rows, copy, measured, n_rows in clusters.head(_CLUSTERS_SHOWN).iter_rows():
        names = (_name(clustered[SOURCE][row], row) for row in (kept, copy))
        chained = radius is not None and measured > radius
        if not chained and is_chained is not None and 2 < n_rows <= CHAIN_ROWS:
            chained = is_chained(clustered[rows])
        grid.add_row(next(names), f"{n_rows:,}", next(names), _measure(measure, measured) + " (chained)" * chained)
    n_hidden = clusters.height - _CLUSTERS_SHOWN
    _print(grid, f"{n_hidden:,} more clusters; -o kept.parquet keeps them all" if n_hidden > 0 else None)


def show_freed(n_bytes: int) -> None:
    """Print the size of the removed files."""
    _print(f"moving the removed files away frees {bytes_text(n_bytes)}")


def show_ranking(ranked: pl.DataFrame) -> None:
    """Print the nearest rows: `source` and row numbers, width and height if known, and the columns of `rank_images`."""
    from rich.table import Column

    measure = VOTES if VOTES in ranked.columns else DISTANCE
    grid = _grid(
        Column(RANK, justify="right"),
        Column(measure, justify="right", no_wrap=True),
        Column(SOURCE, overflow="fold"),
        Column("size", justify="right", no_wrap=True),
        *([Column(TURN)] if TURN in ranked.columns else []),
    )
    found = ranked.filter(pl.col(RANK).is_not_null())
    for values in found.head(_ROWS_SHOWN).iter_rows(named=True):
        size = _size(values.get(WIDTH), values.get(HEIGHT))
        turn = [values[TURN]] if TURN in values else []
        grid.add_row(
            f"{values[RANK]:,}", _measure(measure, values[measure]), _name(values[SOURCE], values[ROW]), size, *turn
        )
    n_hidden = found.height - _ROWS_SHOWN
    _print(grid, f"{n_hidden:,} more rows; -o ranked.csv keeps them all" if n_hidden > 0 else None)


def show_copies(pairs: pl.DataFrame, names: pl.Series) -> None:
    """Print the first pairs of `find_copies`, of row numbers; `names` are the sources of the rows."""
    from rich.table import Column

    grid = _grid(
        Column("copy", overflow="fold"),
        Column("of", overflow="fold"),
        *(Column(name, justify="right") for name in (VOTES, DISTANCE)),
        Column(TURN),
        Column(COVERAGE, justify="right"),
    )
    for values in pairs.head(_ROWS_SHOWN).iter_rows(named=True):
        rows = [values[LEFT_ID], values[RIGHT_ID]]
        votes, distance, coverage = (values[name] for name in (VOTES, DISTANCE, COVERAGE))
        grid.add_row(
            *(_name(names[row], row) for row in rows),
            "" if votes is None else f"{votes}",
            "" if distance is None else _bits(distance),
            values[TURN],
            "" if coverage is None else f"{coverage:.2f}",
        )
    n_hidden = pairs.height - _ROWS_SHOWN
    if pairs.height:
        _print(grid, f"{n_hidden:,} more pairs; -o copies.csv keeps them all" if n_hidden > 0 else None)


def show_matches(found: pl.DataFrame, names: pl.Series, take: Callable[[pl.Series], pl.DataFrame]) -> None:
    """Print the first pairs of a query row, by its number, and a reference row, with some columns of the latter.

    Parameters
    ----------
    found
        Pairs as of `match`, and the column ``imgmatch row`` with the numbers of the reference rows.
    names
        The sources of the query rows.
    take
        Returns the columns of reference rows, given by their numbers.
    """
    from rich.table import Column
    from rich.text import Text

    if found.is_empty():
        return
    measure = VOTES if VOTES in found.columns else DISTANCE
    shown = found.head(_ROWS_SHOWN)
    further = take(shown[ROW])
    further = further.select([name for name, dtype in further.schema.items() if not dtype.is_nested()])
    texts = {name: further[name].cast(pl.String).fill_null("") for name in further.columns}
    # Hashes are long, and the id is shown already.
    ids = shown[REFERENCE_ID].cast(pl.String)
    texts = {
        name: text
        for name, text in texts.items()
        if not text.eq(ids).all() and not (text.str.len_chars() > _LONGEST_SHOWN).any()
    }
    own = list(texts)[:_COLUMNS_SHOWN]
    grid = _grid(
        Column("image", overflow="fold"),
        Column("matches", overflow="fold"),
        Column(measure, justify="right", no_wrap=True),
        *([Column(TURN)] if TURN in shown.columns else []),
        *(Column(Text(name), overflow="fold") for name in own),
    )
    for place, values in enumerate(shown.iter_rows(named=True)):
        turn = [values[TURN]] if TURN in values else []
        reference = Text(describe(str(values[REFERENCE_ID]), _MAX_CHARS))
        others = (Text(describe(texts[name][place], _MAX_CHARS)) for name in own)
        name = _name(names[values[QUERY_ID]], values[QUERY_ID])
        grid.add_row(name, reference, _measure(measure, values[measure]), *turn, *others)
    n_hidden = found.height - _ROWS_SHOWN
    _print(grid, f"{n_hidden:,} more matches; -o hits.csv keeps them all" if n_hidden > 0 else None)


def show_leak_matrix(counts: pl.DataFrame, failed: Mapping[str, int], *, has_labels: bool) -> None:
    """Print a result of `count_leaks`, a line for each split and a column for each split that it leaks into.

    Parameters
    ----------
    counts
        The counts.
    failed
        Numbers of rows without a hash, by the names of splits.
    has_labels
        Whether there are labels, whose conflicts are shown.
    """
    from rich.table import Column

    columns: list[str | None] = [*failed, None]
    right: Literal["right"] = "right"
    grid = _grid(
        Column("split", overflow="fold"),
        Column("rows", justify=right),
        Column("failed", justify=right),
        *(
            Column(
                "in any other" if name is None else f"in {describe(name, _MAX_CHARS)}", justify=right, overflow="fold"
            )
            for name in columns
        ),
    )
    cells = {(row[SPLIT], row[OTHER_SPLIT]): row for row in counts.iter_rows(named=True)}
    for name, n_failed in failed.items():
        found = [cells.get((name, other)) for other in columns]
        n_rows = cells[name, None][N_ROWS]
        grid.add_row(
            _plain(name), f"{n_rows:,}", f"{n_failed:,}", *(_leaked(cell, has_labels=has_labels) for cell in found)
        )
    _print(grid)


def _leaked(counts: dict[str, Any] | None, *, has_labels: bool) -> str:
    if counts is None:
        return ""
    leaked = f"{counts[N_LEAKED]:,} ({share_text(counts[SHARE])})"
    n_conflicts = counts[N_LABEL_CONFLICTS]
    return f"{leaked}\n{n_conflicts:,} label conflict{'s' * (n_conflicts != 1)}" if has_labels else leaked


def share_text(share: float) -> str:
    """Return a share as a percentage with three digits."""
    return f"{100 * share:.3g} %"


def show_worst_leaks(leaks: pl.DataFrame, names: Mapping[str, pl.Series]) -> None:
    """Print the worst leaks, of row numbers: those with different labels first, then the nearest.

    Parameters
    ----------
    leaks
        A result of `find_leaks`.
    names
        The sources of the rows of each split.
    """
    from rich.table import Column

    leaks = leaks.filter(pl.col(SPLIT) != pl.col(OTHER_SPLIT))
    if leaks.is_empty():
        return
    measure = VOTES if VOTES in leaks.columns else DISTANCE
    far = pl.col(DISTANCE).cast(pl.Int64) if measure == DISTANCE else -pl.col(VOTES).cast(pl.Int64)
    if measure == VOTES:  # identical images with little to see
        far = pl.when(pl.col(VOTES) == 0).then(-256).otherwise(far)
    has_labels = LABEL in leaks.columns
    differ = [(pl.col(LABEL) == pl.col(OTHER_LABEL)).fill_null(value=True)] if has_labels else []
    worst = leaks.sort(*differ, far, maintain_order=True).head(_LEAKS_SHOWN)
    titles = ["label", "other label"] * has_labels
    grid = _grid(
        Column("split"),
        Column("image", overflow="fold"),
        Column("is in"),
        Column("as", overflow="fold"),
        Column(measure, justify="right", no_wrap=True),
        *(Column(title, overflow="fold") for title in titles),
    )
    for values in worst.iter_rows(named=True):
        ends = ((values[SPLIT], values[LEAK_ID]), (values[OTHER_SPLIT], values[OTHER_ID]))
        shown = [cell for split, row in ends for cell in (_plain(split), _name(names[split][row], row))]
        labels = [_plain(f"{values[name]}") for name in (LABEL, OTHER_LABEL)[: len(titles)]]
        grid.add_row(*shown, _measure(measure, values[measure]), *labels)
    n_hidden = leaks.height - worst.height
    _print(grid, f"{n_hidden:,} more pairs; -o leaks.csv keeps them all" if n_hidden > 0 else None)


def _plain(text: str) -> "Text":
    from rich.text import Text

    return Text(describe(text, _MAX_CHARS))


def show_profile(profile: pl.DataFrame, suggested: int) -> None:
    """Print some rows of a result of `profile_radii`, and an arrow at the suggested radius or number of votes."""
    from rich.table import Column

    names = [N_PAIRS, N_CLUSTERS, N_REMOVED, N_LARGEST]
    of = profile.columns[0]
    if of == FEWEST_VOTES:  # none has more votes
        profile = profile.filter((pl.col(N_PAIRS) > 0) | (pl.col(of) == suggested))
    profile = profile.with_columns(pl.lit(None).alias(name) for name in (RECALL, EXACT) if name not in profile.columns)
    has_recall = profile[RECALL].count() > 0
    titles = [of.replace("_", " "), *(name.removeprefix("n_") for name in names), "of unrelated images", "share"]
    right: Literal["right"] = "right"
    grid = _grid(
        Column("", no_wrap=True), *(Column(title, justify=right) for title in [*titles, *["recall"] * has_recall])
    )
    step = max(1, profile.height // _RADII_SHOWN)
    for row in profile.iter_rows(named=True):
        if row[of] % step and row[of] != suggested:
            continue
        about = "about " if row[EXACT] is False else ""
        counts = ["" if row[name] is None else f"{about}{row[name]:,}" for name in names]
        shares = ["" if row[name] is None else f"{100 * row[name]:.1f} %" for name in (UNRELATED_SHARE, RECALL)]
        unrelated = "" if row[N_UNRELATED] is None else f"{row[N_UNRELATED]:,.1f}"
        arrow = "→" if row[of] == suggested else ""
        grid.add_row(arrow, f"{row[of]:,}", *counts, unrelated, shares[0], *shares[1:] * has_recall)
    _print(
        grid,
        None
        if profile[EXACT].cast(pl.Boolean).all()
        else "radii without clusters have too many pairs; their pairs are estimated",
    )


def counts_text(n_rows: int, n_kept: int, n_matched: int | None, *, n_failed: int) -> str:
    """Return in one line how many rows were kept and removed, and how many of those match a reference row.

    Parameters
    ----------
    n_rows
        Rows before anything was removed.
    n_kept
        Rows that are left.
    n_matched
        Removed rows that match a reference row; None without reference rows.
    n_failed
        Rows without a hash.
    """
    matched = "" if n_matched is None else f", {n_matched:,} of them match a reference row"
    return f"kept {n_kept:,} of {n_rows:,} rows, removed {n_rows - n_kept:,}{matched}; failed {n_failed:,}"


def stored_text(target: str, done: WriteSummary) -> str:
    """Return the numbers of a `write_hashes` call in one line, without those that are 0."""
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


def bytes_text(n_bytes: int) -> str:
    """Return a number of bytes with a unit, in powers of 1,000."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes} bytes"


def _grid(*columns: "Column") -> "Table":
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False)


def _print(shown: "Table | str", note: str | None = None) -> None:
    from rich.console import Console

    console = Console(stderr=runs.current().summary == runs.STDOUT)
    for part in (shown, note):
        if part is not None:
            console.print(part, style="dim" if isinstance(part, str) else "", highlight=False, markup=False)


def _name(text: str | None, row: int) -> "Text":
    from rich.text import Text

    return Text(row_name(text, row))


def _size(width: int | None, height: int | None) -> str:
    return "" if width is None or height is None else f"{width} x {height}"


def _measure(name: str, value: int) -> str:
    return f"{value:,}" if name == VOTES else _bits(value)


def _bits(distance: int) -> str:
    return f"{distance} bit{'s' * (distance != 1)}"


def _hex(value: int | bytes) -> str:
    return f"{value:016x}" if isinstance(value, int) else value[:8].hex() + "…"
