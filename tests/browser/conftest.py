"""One Chromium for all tests, and a function that opens pages in it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from browsing import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The Chromium of the system, or that of `playwright install chromium`."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`browsing.opened`: a function that opens a file, without network; requests and errors fail the test."""
    with opened(chromium) as open_:
        yield open_
