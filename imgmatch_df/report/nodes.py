"""The columns that a report has of its rows: names, links, facts of the files, and thumbnails."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import polars as pl

from imgmatch_df.archives.paths import split_path
from imgmatch_df.columns import DETAIL, HEIGHT, MODIFIED, OK, PATH, ROW_DTYPE, SIZE, SOURCE, STATUS, WIDTH
from imgmatch_df.frames.checks import Frame
from imgmatch_df.frames.layout import free_name
from imgmatch_df.image_columns import holds_bytes, image_sources, text_of
from imgmatch_df.local_files import join_base
from imgmatch_df.naming import row_name, source_texts
from imgmatch_df.sources import Source, parse_source, path_from_text, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

_FOUND: Final = (SOURCE, PATH, "url")  # columns that name images
_LINKED: Final = ("http", "https")
_IMAGES_AT_A_TIME: Final = 64  # copies of encoded images in memory
_NAMES_AT_A_TIME: Final = 512
MAX_LISTED: Final = 10_000  # failed or flat rows


def find_source(schema: pl.Schema) -> str | None:
    """Return the column that names the images of a frame, None where there is none."""
    return next((name for name in _FOUND if schema.get(name) in (pl.String, pl.Categorical)), None)


def find_label(schema: pl.Schema, source: str | None) -> str | None:
    """Return the column that has the paths or URLs of a column of images, None if there is none."""
    dtype = None if source is None else schema.get(source)
    if source is None or dtype is None or text_of(pl.col(source), dtype) is None:
        return find_source(schema)
    return source


def images_of(images: Frame | None, source: str | None, chosen: "Array") -> "Iterator[tuple[Array, Sequence[Any]]]":
    """Yield the images of some rows, few at a time: their positions among `chosen`, and text, bytes or None.

    Parameters
    ----------
    images
        Has the column `source`. A `LazyFrame` is read once, and never held.
    source
        Column of images; None if there is none.
    chosen
        Row numbers, each once.
    """
    import numpy as np

    if source is None or images is None:
        return
    if isinstance(images, pl.DataFrame):
        column = images[source]
        at_a_time = _IMAGES_AT_A_TIME if holds_bytes(column.dtype) else _NAMES_AT_A_TIME
        for start in range(0, len(chosen), at_a_time):
            positions = np.arange(start, min(start + at_a_time, len(chosen)))
            yield positions, image_sources(column.gather(chosen[positions]))
        return
    number = free_name({source: None})
    wanted = pl.Series(np.sort(chosen), dtype=ROW_DTYPE)
    position_of = np.argsort(chosen)
    numbered = images.select(source).with_row_index(number).filter(pl.col(number).is_in(wanted.implode()))
    for batch in numbered.collect_batches(chunk_size=_IMAGES_AT_A_TIME, maintain_order=True):
        for part in batch.iter_slices(_IMAGES_AT_A_TIME):
            yield position_of[wanted.search_sorted(part[number]).to_numpy()], image_sources(part[source])


class Names:
    """What names the rows of a frame.

    Parameters
    ----------
    rows
        The frame.
    label
        Column of paths or URLs, None if there is none.
    id_column
        Column of ids; None names rows by number.
    base_dir
        Start of relative paths.
    """

    def __init__(self, rows: pl.DataFrame, label: str | None, id_column: str | None, base_dir: str | None) -> None:
        self._texts = source_texts(rows, label)
        if len(self._texts) != rows.height:  # a literal null of a frame without names
            self._texts = self._texts.new_from_index(0, rows.height)
        self._ids = None if id_column is None else rows[id_column].cast(pl.String, strict=False)
        self._base_dir = base_dir

    def ids(self, chosen: "Array") -> list[str]:
        """Return the ids of some rows as text: their numbers where there is no id."""
        if self._ids is None:
            return [str(row) for row in chosen.tolist()]
        return [
            str(row) if one is None else one for row, one in zip(chosen.tolist(), self._ids.gather(chosen), strict=True)
        ]

    def labels(self, chosen: "Array") -> list[str]:
        """Return the id of some rows, else the path or URL, else a line with the number."""
        if self._ids is not None:
            return self.ids(chosen)
        texts = self._texts.gather(chosen)
        return [
            path_and_link(text, self._base_dir)[0] or row_name(text, row)
            for row, text in zip(chosen.tolist(), texts, strict=True)
        ]

    def paths(self, chosen: "Array") -> tuple[list[str | None], list[str | None]]:
        """Return the paths or URLs of some rows as text, and what a page links to; None where a row has neither."""
        found = [path_and_link(text, self._base_dir) for text in self._texts.gather(chosen)]
        return [path for path, _ in found], [link for _, link in found]


def path_and_link(text: str | None, base_dir: str | None = None) -> tuple[str | None, str | None]:
    """Return a path or URL without credentials, and the URL of a link to it; None for both where text is the image.

    Parameters
    ----------
    text
        One source.
    base_dir
        Start of relative paths; None for the working directory.
    """
    found = None if text is None else parse_source(text)
    if not isinstance(found, Source) or found.kind not in ("path", "url"):
        return None, None
    shown, value = redact(str(text)), str(found.value)
    if found.kind == "url":
        return shown, value if found.scheme in _LINKED and redact(value) == value else None
    if split_path(join_base(value, base_dir)) is not None:
        return shown, None  # a browser does not open members of archives
    path = Path(os.fsdecode(path_from_text(os.path.abspath(join_base(value, base_dir)))))  # noqa: PTH100  # of text
    uri = path.as_uri() if os.name == "nt" else f"file://{quote(os.fsencode(path))}"
    return shown, uri


def facts_of(rows: pl.DataFrame, chosen: "Array") -> dict[str, list[Any]]:
    """Return width, height, bytes and time in seconds since 1970 of some rows; None for what is not known."""
    some = rows[chosen]
    times: list[float | None] = [None] * len(chosen)
    if isinstance(some.schema.get(MODIFIED), pl.Datetime):
        times = (some[MODIFIED].dt.epoch("us") / 1_000_000).to_list()
    numbers = {name: _whole(some, name) for name in (WIDTH, HEIGHT, SIZE)}
    return {**numbers, MODIFIED: times}


def _whole(rows: pl.DataFrame, name: str) -> list[int | None]:
    """Return a column of whole numbers; a column of the user's of that name may have others."""
    if name not in rows.columns or not rows.schema[name].is_numeric():
        return [None] * rows.height
    return rows[name].cast(pl.Int64, strict=False).to_list()


def failed_rows(rows: pl.DataFrame, failed: "Array", names: Names) -> list[dict[str, str | None]]:
    """Return the first of the rows without a hash, each with the reason."""
    chosen = failed[:MAX_LISTED]
    part = rows[chosen]
    is_text = part.schema.get(STATUS) in (pl.String, pl.Categorical) or isinstance(part.schema.get(STATUS), pl.Enum)
    statuses: Iterable[str | None] = part[STATUS].cast(pl.String) if is_text else [None] * len(chosen)
    details: Iterable[str | None] = part[DETAIL] if part.schema.get(DETAIL) == pl.String else [None] * len(chosen)
    return [
        {"id": label, "status": "no_hash" if status in (None, OK) else status, "detail": detail}
        for label, status, detail in zip(names.labels(chosen), statuses, details, strict=True)
    ]
