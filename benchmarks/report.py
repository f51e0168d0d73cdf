"""Report pages: the time to make one beside hashing, its size, and how fast a browser shows it.

    python benchmarks/report.py [--rows N] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from harness import describe_machine, markdown_table, package_version, replace_between
from hash_sets import drawn_bmh1
from PIL import Image

import imgmatch_df

ROOT: Final = Path(__file__).parents[1]
ROWS: Final = (1_000, 10_000, 100_000)
RADIUS: Final = 48  # of the page, at which a tenth of the rows are copies
SLIDER: Final = (0, 8, 16, 24, 32, 40, 48)
N_FILES: Final = 500  # different images, which the rows share
SIZE: Final = (1024, 768)
PACKAGES: Final = ("imgmatch-df", "polars", "pillow", "simplejpeg", "jinja2", "playwright")
CHROMIUM: Final = Path("/usr/bin/chromium")
# Milliseconds from a move of the slider to the next frame.
MOVE: Final = """async value => {
    const slider = document.querySelector("#radius"), started = performance.now();
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - started;
}"""


class Shown(NamedTuple):
    """What a browser takes for a page, in milliseconds: until it is ready, and the median and the slowest move."""

    ready: float
    median_move: float
    slowest_move: float


def draw_files(folder: Path) -> list[str]:
    """Return the paths of JPEGs of photo size."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(N_FILES):
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        path = folder / f"IMG_{number:04}.jpg"
        Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def rows_of(n: int, paths: list[str]) -> pl.DataFrame:
    """Return hashed rows, a tenth of them copies of others, with files."""
    rng = np.random.default_rng(1)
    hashes = drawn_bmh1(n)
    return pl.DataFrame(
        {
            "path": [paths[row % len(paths)] for row in range(n)],
            "size": rng.integers(100_000, 5_000_000, n),
            "width": rng.integers(1_000, 6_000, n),
            "height": rng.integers(1_000, 6_000, n),
            "bmh1": pl.Series([row.tobytes()[:121] for row in hashes], dtype=pl.Binary),
        }
    )


def show(path: Path) -> Shown | None:
    """Return the times of Chromium without a network, None where playwright or Chromium are not installed."""
    if package_version("playwright") is None or not CHROMIUM.exists():
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        ready = 1e3 * (time.perf_counter() - start)
        moves = [page.evaluate(MOVE, value) for value in SLIDER * 3]
        browser.close()
    return Shown(ready, statistics.median(moves), max(moves))


def measure(n: int, paths: list[str], folder: Path) -> tuple[str, ...]:
    """Return a row of the table."""
    rows = rows_of(n, paths)
    start = time.perf_counter()
    report = rows.imgmatch.report(RADIUS, title="Benchmark")  # type: ignore[attr-defined]
    target = folder / "report.html"
    n_bytes = report.write_html(target)
    seconds = time.perf_counter() - start
    shown = show(target)
    browser = ("–",) * 3 if shown is None else tuple(f"{value:,.0f} ms" for value in shown)
    counts = report.counts
    return (
        f"{n:,}",
        f"{counts.copies:,}",
        f"{counts.thumbnails:,}",
        f"{seconds:.1f} s",
        f"{n_bytes / 1e6:.1f} MB",
        *browser,
    )


def main() -> None:
    """Measure, print the table, and with --update-docs write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append", help="rows of a report; several times")
    parser.add_argument("--update-docs", action="store_true", help="write the table into the documentation")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", imgmatch_df.ImgMatchWarning)
    header = ("rows", "copies", "thumbnails", "made in", "size", "ready", "slider, median", "slider, slowest")
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw_files(folder)
        rows_of(200, paths).imgmatch.report(RADIUS)  # type: ignore[attr-defined]  # compiles
        for n in arguments.rows or ROWS:
            found.append(measure(n, paths, folder))
            print(found[-1], file=sys.stderr)
    text = f"{markdown_table(header, found)}\n\n{describe_machine(os.cpu_count() or 1, PACKAGES)}"
    print(text)
    if arguments.update_docs:
        replace_between(ROOT / "benchmarks" / "README.md", "report", text)


if __name__ == "__main__":
    main()
