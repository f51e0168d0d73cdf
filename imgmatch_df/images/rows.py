"""Slices of an image, so that the temporary arrays of arithmetic stay small."""

from collections.abc import Iterator
from typing import Final

_PIXELS_AT_ONCE: Final = 1 << 16  # temporary arrays of this size fit in the cache of the processor


def row_slices(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield slices of rows in order, of about 65,000 pixels each."""
    step = max(1, _PIXELS_AT_ONCE // max(1, n_columns))
    for top in range(0, n_rows, step):
        yield slice(top, min(top + step, n_rows))


def block_slices(n_rows: int, n_columns: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of rows and of columns as `row_slices` does, for images whose single rows may be large.

    A slice of columns starts at a multiple of 8.
    """
    step = max(8, _PIXELS_AT_ONCE // 8 * 8)
    for rows in row_slices(n_rows, n_columns):
        for left in range(0, n_columns, step):
            yield rows, slice(left, min(left + step, n_columns))
