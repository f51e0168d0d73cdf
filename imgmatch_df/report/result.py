"""A report that was made: its counts, its tables, and the HTML that shows it."""

import html
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import polars as pl

from imgmatch_df.atomic import real_path, written_file
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.suggestions import RadiusSuggestion, VotesSuggestion
from imgmatch_df.options import shown
from imgmatch_df.report.page import write_page

_HEIGHT_PX = 720  # in a notebook


@dataclass(frozen=True)
class Counts:
    """The numbers of a report, at the radius or the votes that it begins with.

    Parameters
    ----------
    images
        Rows of the frame.
    failed
        Rows without a hash.
    clusters
        Clusters of two rows or more.
    copies
        Rows of clusters that are not kept.
    n_bytes
        Bytes of their files, as far as they are known.
    in_reference
        Rows that match a reference row; they are in no cluster.
    thumbnails
        Images that are shown.
    """

    images: int
    failed: int
    clusters: int
    copies: int
    n_bytes: int
    in_reference: int
    thumbnails: int


@dataclass(frozen=True, eq=False)
class Report:
    """A report on the near-duplicates of a frame, from `report`. A notebook shows it; `write_html` makes a file of it.

    Parameters
    ----------
    title
        Title of the page.
    hash_type
        What was compared.
    radius
        The radius that the page begins with, in bits; None for ``"local"``.
    min_votes
        The votes that the page begins with; None for the kinds that have a radius.
    suggestion
        Where the call named no radius: what `suggest_radius` returns.
    profile
        What each radius finds, as `profile_radii`, up to the largest one that the page can show.
    counts
        Its numbers.
    """

    title: str
    hash_type: str
    radius: int | None
    min_votes: int | None
    suggestion: RadiusSuggestion | VotesSuggestion | None
    profile: pl.DataFrame
    counts: Counts
    _about: dict[str, Any] = field(repr=False)
    _packed: dict[str, str] = field(repr=False)
    _thumbnails: list[bytes] = field(repr=False)
    _find_clusters: Callable[[], pl.DataFrame] = field(repr=False)

    @cached_property
    def clusters(self) -> pl.DataFrame:
        """Every row with its cluster at the radius of the report, as `cluster` returns them."""
        return self._find_clusters()

    def write_html(self, target: str | os.PathLike[str] | IO[bytes]) -> int:
        """Write the report as one HTML file that loads nothing; return its size in bytes.

        Parameters
        ----------
        target
            Path of the file, which appears complete or not at all and replaces an older one; or an open binary file.

        Raises
        ------
        ArgumentError
            If the target is neither, a folder, or in a folder that does not exist.
        OSError
            If the file cannot be written.
        """
        if isinstance(target, str | os.PathLike):
            final = real_path(Path(target))
            if final.is_dir() or not final.parent.is_dir():
                problem = "is a folder" if final.is_dir() else f"is in {str(final.parent)!r}, which is not a folder"
                raise ArgumentError(f"target {str(target)!r} {problem}\nHint: name a file in a folder that exists.")
            with written_file(final, final.with_name(f".{final.name}.partial"), like=final) as file:
                return self._write(file)
        if not hasattr(target, "write"):
            raise ArgumentError(f"target must be a path or a file, got {shown(target)}\nHint: 'report.html'.")
        return self._write(target)

    def _write(self, file: IO[bytes]) -> int:
        n_bytes = 0
        for part in self._parts():
            n_bytes += file.write(part.encode("utf-8"))
        return n_bytes

    def _parts(self) -> Iterator[str]:
        return write_page(self.title, self._about, self._packed, self._thumbnails)

    def summary(self) -> str:
        """Return the numbers of the report in one line."""
        counts = self.counts
        within = f"within {self.radius} bits" if self.radius is not None else f"at {self.min_votes} votes"
        clusters, copies = "cluster" + "s" * (counts.clusters != 1), "copy" if counts.copies == 1 else "copies"
        freed = f" ({counts.n_bytes / 1e6:,.1f} MB)" if counts.n_bytes else ""
        known = f", {counts.in_reference:,} in the reference" if counts.in_reference else ""
        failed = f", {counts.failed:,} failed" if counts.failed else ""
        return (
            f"{counts.images:,} images, {counts.clusters:,} {clusters} {within}, {counts.copies:,} {copies}{freed}"
            f"{known}{failed}; {counts.thumbnails:,} thumbnails"
        )

    def _repr_html_(self) -> str:
        """Return the page in a frame that shares nothing with the notebook."""
        page = html.escape("".join(self._parts()))
        return (
            f'<iframe title="{html.escape(self.title)}" sandbox="allow-scripts allow-downloads" srcdoc="{page}" '
            f'style="width: 100%; height: {_HEIGHT_PX}px; border: 1px solid #8886;"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<Report {self.title!r}: {self.summary()}>"


def to_bytes(report: Report) -> bytes:
    """Return the HTML of a report."""
    file = io.BytesIO()
    report.write_html(file)
    return file.getvalue()
