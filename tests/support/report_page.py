"""A report in a browser, as a person sees it: tiles, clusters, keys and downloads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

_CLUSTERS = """
() => [...document.querySelectorAll('#list .more')].forEach((button) => button.textContent && button.click())
  ?? [...document.querySelectorAll('#list .cluster')].map((cluster) => [...cluster.querySelectorAll('.card')].map(
  (card) => ({
    path: card.querySelector('.path').textContent,
    kept: card.classList.contains('kept'),
    said: card.querySelector('.state').textContent,
    reason: card.querySelector('.reason').textContent,
    has_image: card.querySelector('img') !== null,
  })))
"""


@dataclass
class ReportPage:
    """An open report.

    Parameters
    ----------
    page
        The page, loaded.
    """

    page: Page

    def __post_init__(self) -> None:
        self.page.wait_for_selector("body[data-ready=true]")

    def tile(self, name: str) -> str:
        """Return the text of a tile, such as that of ``clusters``."""
        name_of = """(name) => [...document.querySelectorAll("#tiles dt")]
            .find((term) => term.textContent === name).nextElementSibling.textContent"""
        return self.page.evaluate(name_of, name)

    def count(self, name: str) -> int:
        """Return the number in a tile."""
        return int(self.tile(name).replace(",", ""))

    def counts(self) -> dict[str, int]:
        """Return the clusters, and the images that would be removed."""
        return {"clusters": self.count("clusters"), "removed": self.count("would be removed")}

    def move_slider(self, value: int) -> None:
        """Move the slider to a value, as a drag that ends there."""
        self.page.locator("#radius").fill(str(value))
        self.page.wait_for_function(
            "(value) => document.getElementById('radius-value').textContent.split(' ')[0] === value", arg=str(value)
        )

    def listed(self) -> list[list[dict[str, Any]]]:
        """Return the images of each cluster that is listed, of all pages."""
        page, found = self.page, []
        if page.locator("#pages").is_visible():
            while page.locator("#previous").is_enabled():
                page.locator("#previous").click()
        found += page.evaluate(_CLUSTERS)
        while page.locator("#pages").is_visible() and page.locator("#next").is_enabled():
            page.locator("#next").click()
            found += page.evaluate(_CLUSTERS)
        return found

    def clusters(self) -> set[tuple[frozenset[str], frozenset[str]]]:
        """Return the kept and the removed paths of each cluster."""
        return {
            tuple(frozenset(image["path"] for image in images if image["kept"] is kept) for kept in (True, False))
            for images in self.listed()
        }

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def current(self) -> Locator:
        """Return the image that keys act on."""
        return self.page.locator("#list .card.current")

    def save(self, name: str, folder: Path) -> Path:
        """Download ``decisions.csv``, ``decisions.json`` or ``not_duplicates.csv``, and return the file."""
        with self.page.expect_download() as found:
            self.page.locator("button", has_text=name).click()
        path = folder / found.value.suggested_filename
        assert path.name == name
        found.value.save_as(path)
        return path

    def decisions(self, folder: Path) -> pl.DataFrame:
        """Return what the page downloads as CSV, which the JSON equals."""
        table = pl.read_csv(self.save("decisions.csv", folder), infer_schema_length=None)
        rows = json.loads(self.save("decisions.json", folder).read_text(encoding="utf-8"))
        assert [list(row) for row in rows] == [table.columns] * table.height
        texts = [{name: None if value is None else str(value).lower() for name, value in row.items()} for row in rows]
        assert texts == [
            {name: None if value is None else str(value).lower() for name, value in row.items()}
            for row in table.iter_rows(named=True)
        ]
        return table


def clusters_of(frame: pl.DataFrame, column: str = "path") -> set[tuple[frozenset[str], frozenset[str]]]:
    """Return the kept and the removed paths of each cluster of at least two rows that `cluster` found."""
    found = (
        frame.filter(pl.col("cluster_id").is_not_null())
        .group_by("cluster_id")
        .agg(pl.col(column).filter("kept").alias("kept"), pl.col(column).filter(~pl.col("kept")).alias("removed"))
        .filter(pl.col("kept").list.len() + pl.col("removed").list.len() > 1)
    )
    return {(frozenset(kept), frozenset(removed)) for kept, removed in found.select("kept", "removed").iter_rows()}


def counts_of(frame: pl.DataFrame, column: str = "path") -> dict[str, int]:
    """Return what the tiles show of a frame that `cluster` gave."""
    found = clusters_of(frame, column)
    return {"clusters": len(found), "removed": sum(len(removed) for _, removed in found)}
