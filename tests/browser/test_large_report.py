"""A report of 100,000 rows and 5,000 thumbnails: it opens, its slider is exact, and its memory is bounded."""

import numpy as np
import polars as pl
import pytest
from drawing import draw
from PIL import Image
from report_page import counts_of

import imgmatch_df

pytestmark = pytest.mark.browser
N_ROWS = 100_000
MAX_HEAP_BYTES = 500_000_000
MAX_PAGE_BYTES = 30_000_000
HANG_MS = 20_000


def hashes(n_rows: int) -> list[bytes]:
    """Return hashes of bmh1, of which four of ten are up to 30 bits from an earlier one."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 2, (n_rows, 968), np.uint8)
    bits[:, 961:] = 0
    is_copy = rng.random(n_rows) < 0.4
    is_copy[: n_rows // 2] = False
    copies = np.flatnonzero(is_copy)
    bits[copies] = bits[rng.integers(0, n_rows // 2, len(copies))]
    for column in rng.integers(0, 961, (30, len(copies))):
        chosen = rng.random(len(copies)) < 0.5
        bits[copies[chosen], column[chosen]] ^= 1
    return [row.tobytes() for row in np.packbits(bits, axis=1, bitorder="little")]


def test_a_large_report_opens_and_its_slider_works(show, tmp_path):
    for number in range(50):
        Image.fromarray(draw(number, 320, 240)).save(tmp_path / f"{number}.jpg", quality=85)
    rows = pl.DataFrame({"bmh1": hashes(N_ROWS)}).with_row_index("id")
    frame = rows.with_columns(
        path=pl.format(f"{tmp_path}/{{}}.jpg", pl.col("id") % 50),
        name=pl.format("album/{}/IMG_{}.jpg", pl.col("id") // 500, "id"),
    )
    report = imgmatch_df.report(frame, 24, source="path", id="name")
    opened = show(report)
    page = opened.page
    for radius in (24, 12, 30):
        opened.move_slider(radius)
        assert opened.counts() == counts_of(frame.imgmatch.cluster(radius), "name"), radius
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    assert session.send("Runtime.getHeapUsage")["usedSize"] < MAX_HEAP_BYTES
    assert report.write_html(tmp_path / "size.html") < MAX_PAGE_BYTES
    assert page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart") < HANG_MS
    images = page.locator("#list img")
    assert images.count() > 20
    opened.press("n", "j", "ArrowRight", " ")
    assert page.locator("#page").inner_text().startswith("2 of ")
