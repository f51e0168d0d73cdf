"""Pages in Chromium without network, which must make no request and no error."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page


@contextlib.contextmanager
def opened(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Yield a function that opens a file in a context of its own, or in that of an earlier page.

    Raises
    ------
    AssertionError
        At the end, if a page logged an error or a warning, raised one, or requested anything but its own file and what
        starts with one of the URLs `also`.
    """
    contexts, faults = [], []

    def open_page(
        path: Path,
        *,
        like: Page | None = None,
        also: tuple[str, ...] = (),
        width: int = 1280,
        height: int = 900,
        **options: Any,
    ) -> Page:
        url = path.as_uri()
        if like is None:
            context = chromium.new_context(offline=True, viewport={"width": width, "height": height}, **options)
            context.set_default_timeout(200_000)  # a busy machine is slow
            context.on("weberror", lambda error: faults.append(f"{path.name} raises {error.error}"))
            context.on("console", log)
            contexts.append(context)
        else:
            context = like.context
        page = context.new_page()

        def request(made: Any) -> None:
            is_own = made.url.split("#")[0] == url and made.is_navigation_request()
            if not (is_own or made.url.startswith(("blob:", "data:", *also))):
                faults.append(f"{path.name} requests {made.url[:200]}")

        page.on("request", request)
        page.goto(url)
        return page

    def log(message: Any) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"{message.page.url.rpartition('/')[2]} logs {message.text}")

    try:
        yield open_page
    finally:
        for context in contexts:
            context.close()
    if faults:
        raise AssertionError("\n".join(faults))
