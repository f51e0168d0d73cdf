"""One Chromium for all tests, and a function that opens pages in it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from album import draw_album
from browsing import opened
from report_page import ReportPage

import imgmatch_df

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import polars as pl
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The Chromium of the system, or that of `playwright install chromium`."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=200_000)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`browsing.opened`: a function that opens a file, without network; requests and errors fail the test."""
    with opened(chromium) as open_:
        yield open_


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The hashed frame of a drawn album."""
    folder = draw_album(tmp_path_factory.mktemp("album"))
    kinds = ("bmh1", "phash", "local", "sha256")
    return imgmatch_df.scan_images(folder).imgmatch.visual_hash("path", hash_types=kinds).collect()


@pytest.fixture
def show(open_page: Callable[..., Page], tmp_path: Path) -> Callable[..., ReportPage]:
    """A function that writes a report and opens it."""

    def show_report(report: imgmatch_df.Report, **options: Any) -> ReportPage:
        path = tmp_path / f"report{len(list(tmp_path.glob('report*.html')))}.html"
        report.write_html(path)
        return ReportPage(open_page(path, **options))

    return show_report
