"""A frame in chunks of rows, of which none is large: a frame that is there, or one that is streamed."""

import os
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Final

import polars as pl

from imgmatch_df.frames.checks import Frame

# Rows looked up in the store at a time: the keys of all that is stored are read once for each. Images may be in the
# frame, and a column of text may hold them in base64: so they are counted in bytes too.
CHUNK_ROWS: Final = 1 << 20
CHUNK_ROWS_OF_HASHES: Final = 1 << 18
_CHUNK_BYTES: Final = 1 << 28
_STREAM_ROWS: Final = 1 << 12
# How long rows are gathered, so that a slow stream is stored as it comes.
_GATHER_S: Final = 5.0
# What `pl.Config.set_streaming_chunk_size` sets, in Polars 1 and 2.
_MORSEL_VARIABLES: Final = ("POLARS_STREAMING_CHUNK_SIZE", "POLARS_IDEAL_MORSEL_SIZE")
_morsel_lock = threading.Lock()


def chunks_of(frame: Frame, *, hashes: bool) -> Iterator[pl.DataFrame]:
    """Yield the rows in chunks; of a stream, what came within some seconds.

    Parameters
    ----------
    frame
        A frame.
    hashes
        Whether it has hashes, so that a query makes them now; else it has what is to be hashed.
    """
    chunk_rows = CHUNK_ROWS_OF_HASHES if hashes else CHUNK_ROWS
    if isinstance(frame, pl.DataFrame):
        yield from _slices(frame, chunk_rows)
        return
    waiting: list[pl.DataFrame] = []
    n_rows, n_bytes, since = 0, 0, monotonic()
    for part in _streamed(frame, hashes=hashes):
        waiting.append(part)
        n_rows, n_bytes = n_rows + part.height, n_bytes + int(part.estimated_size())
        if n_rows >= chunk_rows or n_bytes >= _CHUNK_BYTES or monotonic() - since >= _GATHER_S:
            yield from _slices(pl.concat(waiting), chunk_rows)
            waiting, n_rows, n_bytes, since = [], 0, 0, monotonic()
    if waiting:
        yield from _slices(pl.concat(waiting), chunk_rows)


def _slices(frame: pl.DataFrame, n_rows: int) -> Iterator[pl.DataFrame]:
    """Yield the rows, at most `n_rows` at a time, and fewer where they are large."""
    row_bytes = max(1, int(frame.estimated_size()) // max(1, frame.height))
    yield from frame.iter_slices(max(1, min(n_rows, _CHUNK_BYTES // row_bytes)))


def _streamed(frame: pl.LazyFrame, *, hashes: bool) -> Iterator[pl.DataFrame]:
    """Yield the rows as they come. A query that `hashes` does so some thousand rows at a time.

    Polars would take 100,000 rows at a time, which are lost when the run is killed. Only a setting of the process
    changes that, which is read when a query starts: it is made until then, and only where the caller has not made it.
    """
    if not hashes or any(name in os.environ for name in _MORSEL_VARIABLES):
        yield from frame.collect_batches(chunk_size=_STREAM_ROWS, maintain_order=True)
        return
    with _morsel_lock:
        pl.Config.set_streaming_chunk_size(_STREAM_ROWS)
        try:
            parts = iter(frame.collect_batches(chunk_size=_STREAM_ROWS, maintain_order=True))
            first = next(parts, None)
        finally:
            if str(_STREAM_ROWS) in (os.environ.get(name) for name in _MORSEL_VARIABLES):  # else another has set it
                pl.Config.set_streaming_chunk_size(None)
    if first is not None:
        yield first
        yield from parts
