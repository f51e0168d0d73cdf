"""Tables of the guide "From a million to a billion": sizes and plans of the package, and measured tiles.

    python benchmarks/to_a_billion.py

Measures nothing: `spark_tiles.py` keeps its figures in spark_tiles.json. See benchmarks/README.md.
"""

import json
from pathlib import Path
from typing import Any, Final

from harness import markdown_table, replace_between

from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.spark import sizes
from imgmatch_df.spark.plans import (
    SparkPlan,
    chance_pairs,
    explain_near_duplicates,
    shown_bytes,
    shown_count,
    shown_hours,
)

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "guide" / "to-a-billion.md"
FIGURES: Final = Path(__file__).with_name("spark_tiles.json")
BILLION: Final = 10**9
ROWS: Final = (10**6, 10**7, 10**8, BILLION)
LIMITS: Final[dict[str, int | None]] = {"phash": 4, "pdq": 31, "local": None}
RADII: Final = (0, 1, 2, 4, 6, 7, 8)
BLOCKS: Final = (20, 50, 100)


def read_figures() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return figures


def tile_s(figures: dict[str, Any], kind: str, mode: str, *, same: bool) -> float:
    """Return the seconds of a tile of a billion rows: the measured ones, continued linearly to its number of rows."""
    (found,) = (tile for tile in figures["tiles"] if (tile["kind"], tile["mode"], tile["same"]) == (kind, mode, same))
    n_blocks = sizes.default_blocks(BILLION, hash_kind(kind))
    n_rows = BILLION / n_blocks * (1 if same else 2)
    return float(found["read_s"] + found["compare_s"]) * n_rows / found["n_rows"]


def measuredshown_hours(figures: dict[str, Any], kind: str, mode: str) -> float:
    """Return the core-hours of all tiles of a billion rows, each as long as a measured one."""
    n_blocks = sizes.default_blocks(BILLION, hash_kind(kind))
    n_off = sizes.n_tiles(n_blocks) - n_blocks
    seconds = n_blocks * tile_s(figures, kind, mode, same=True) + n_off * tile_s(figures, kind, mode, same=False)
    return seconds / 3600


def image_s(figures: dict[str, Any]) -> tuple[float, float]:
    """Return seconds of a tile of local hashes, as so many a tile and so many an image: through the largest two."""
    tiles = sorted((tile for tile in figures["tiles"] if tile["kind"] == "local"), key=lambda tile: tile["n_rows"])
    (n, s), (n_more, s_more) = ((tile["n_rows"], tile["read_s"] + tile["compare_s"]) for tile in tiles[-2:])
    slope = max(s_more - s, 0) / (n_more - n)
    return max(0.0, s_more - slope * n_more), slope


def localshown_hours(figures: dict[str, Any], n_rows: int) -> float:
    """Return the core-hours of local hashes, with blocks whose tasks have the memory that they may have."""
    n_blocks = local_blocks(n_rows)
    fixed, slope = image_s(figures)
    return sizes.n_tiles(n_blocks) * (fixed + slope * sizes.rows_per_task(n_rows, n_blocks)) / 3600


def local_blocks(n_rows: int) -> int:
    most = sizes.max_rows_per_task(hash_kind("local"))
    return 1 if n_rows <= most else -(-2 * n_rows // most)


def plan_of(n_rows: int, kind: str, n_blocks: int | None = None) -> SparkPlan:
    return explain_near_duplicates(n_rows, LIMITS[kind], kind, n_blocks=n_blocks)


def billion_table(figures: dict[str, Any]) -> str:
    """Return the arithmetic of a billion rows of each kind."""
    plans = {kind: plan_of(BILLION, kind) for kind in ("phash", "pdq")}
    rows = [
        ("bytes of a hash", *(f"{hash_kind(kind).n_bytes}" for kind in plans)),
        ("all hashes", *(shown_bytes(BILLION * hash_kind(kind).n_bytes) for kind in plans)),
        ("work folder, and the shuffle into blocks", *(shown_bytes(plan.work_bytes) for plan in plans.values())),
        ("blocks", *(f"{plan.n_blocks:,}" for plan in plans.values())),
        ("hashes in a block", *(f"{plan.rows_per_block:,}" for plan in plans.values())),
        ("tasks", *(f"{plan.n_tasks:,}" for plan in plans.values())),
        ("read by all tasks", *(shown_bytes(plan.bytes_read) for plan in plans.values())),
        ("memory of a task", *(shown_bytes(plan.task_bytes) for plan in plans.values())),
        (
            "core-hours of pairs, from the measured tasks",
            *(shown_hours(measuredshown_hours(figures, kind, "pairs")) for kind in plans),
        ),
        (
            "core-hours of links, for clusters",
            *(shown_hours(measuredshown_hours(figures, kind, "links")) for kind in plans),
        ),
        (
            "core-hours that `explain_near_duplicates` expects",
            *(shown_hours(plan.core_hours) for plan in plans.values()),
        ),
        ("pairs of unrelated images by chance", *(shown_count(plan.chance_pairs or 0.0) for plan in plans.values())),
    ]
    header = ["a billion rows", *(f"{kind}, within {LIMITS[kind]} bits" for kind in plans)]
    return markdown_table(header, rows)


def local_table(figures: dict[str, Any]) -> str:
    """Return the arithmetic of local hashes, for several numbers of rows."""
    kind = hash_kind("local")
    rows = []
    for n in ROWS:
        n_blocks = local_blocks(n)
        rows.append(
            (
                f"{n:,}",
                shown_bytes(n * kind.n_bytes),
                f"{n_blocks:,}",
                f"{sizes.n_tiles(n_blocks):,}",
                shown_bytes(sizes.bytes_read(n, kind, n_blocks)),
                shown_bytes(sizes.task_bytes(n, kind, n_blocks)),
                shown_hours(localshown_hours(figures, n)),
            )
        )
    header = ["images", "all hashes", "blocks", "tasks", "read by all tasks", "memory of a task", "core-hours"]
    return markdown_table(header, rows)


def blocks_table() -> str:
    """Return what other numbers of blocks cost for a billion phashes, as the planner expects it."""
    default = sizes.default_blocks(BILLION, hash_kind("phash"))
    rows = []
    for n_blocks in (*BLOCKS, default, 2 * default):
        plan = plan_of(BILLION, "phash", n_blocks)
        name = f"{n_blocks:,}{' (default)' if n_blocks == default else ''}"
        rows.append(
            (
                name,
                f"{plan.n_tasks:,}",
                shown_bytes(plan.task_bytes),
                shown_bytes(plan.bytes_read),
                shown_hours(plan.core_hours),
            )
        )
    return markdown_table(
        ["`n_blocks`", "tasks", "memory of a task", "read by all tasks", "core-hours, expected"], rows
    )


def chance_table() -> str:
    """Return the pairs by chance among hashes of 64 independent bits."""
    rows = [(f"{n:,}", *(shown_count(chance_pairs(n, 64, radius)) for radius in RADII)) for n in ROWS]
    return markdown_table(["rows", *(f"within {radius}" for radius in RADII)], rows)


def tiles_table(figures: dict[str, Any]) -> str:
    """Return what the tasks took."""
    rows = [
        (
            f"{tile['kind']}, {tile['mode']}, {'one block' if tile['same'] else 'two blocks'}",
            f"{tile['n_tiles']:,}",
            f"{tile['n_rows']:,}",
            f"{tile['read_s']:.2f} s",
            f"{tile['compare_s']:.2f} s",
            f"{tile['expected_s']:.2f} s" if tile["expected_s"] else "",
            shown_bytes(tile["peak_bytes"]),
        )
        for tile in figures["tiles"]
    ]
    header = ["tile", "measured", "hashes", "reading", "comparing and writing", "planner", "memory at most"]
    note = "Medians, in processor seconds of processes of one thread."
    return f"{markdown_table(header, rows)}\n\n{note} {figures['machine']}"


def simulation_text(figures: dict[str, Any]) -> str:
    """Return the simulation beside one join of the same rows."""
    rows = [
        (
            f"{figures['n_blocks']} blocks, {figures['n_tiles']} tasks",
            f"{figures['core_seconds']:,.0f} s",
            shown_bytes(max(tile["peak_bytes"] for tile in figures["tiles"] if tile["kind"] == "phash")),
            f"{figures['n_pairs']:,}",
        ),
        (
            "one join, one process",
            f"{figures['one_join_core_s']:,.0f} s",
            shown_bytes(figures["one_join_bytes"]),
            f"{figures['n_pairs']:,}",
        ),
    ]
    header = [f"{figures['rows']:,} phashes within 4 bits", "processor time", "memory of a process", "pairs"]
    return markdown_table(header, rows)


def hashing_table(figures: dict[str, Any]) -> str:
    """Return the core-hours of hashing a billion images."""
    rows = [
        (f"`{name}`", f"{speed:,.0f}", shown_hours(BILLION / speed / 3600))
        for name, speed in figures["images_a_second_a_core"].items()
    ]
    table = markdown_table(["hash kinds", "images a second a core", "core-hours of a billion"], rows)
    return f"{table}\n\n{figures['images']}"


def texts() -> dict[str, str]:
    """Return the text between each pair of markers of the page."""
    figures = read_figures()
    return {
        "billion": billion_table(figures),
        "billion-local": local_table(figures),
        "billion-blocks": blocks_table(),
        "billion-chance": chance_table(),
        "billion-simulation": simulation_text(figures),
        "billion-tiles": tiles_table(figures),
        "billion-hashing": hashing_table(figures),
    }


def main() -> None:
    """Write the tables into the page."""
    for marker, text in texts().items():
        replace_between(PAGE, marker, text)


if __name__ == "__main__":
    main()
