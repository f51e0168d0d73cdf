"""Rows of an image in pieces, so that what arithmetic needs beside the image stays small."""

from collections.abc import Iterator
from typing import Final

_PIXELS_AT_ONCE: Final = 1 << 16  # temporary arrays of so many pixels stay in the processor's cache


def row_slices(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield slices of rows, in order, of some 65,000 pixels each."""
    step = max(1, _PIXELS_AT_ONCE // max(1, n_columns))
    for top in range(0, n_rows, step):
        yield slice(top, min(top + step, n_rows))


def block_slices(n_rows: int, n_columns: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of rows and of columns, as `row_slices`, where one row may be as long as the image.

    A slice of columns begins at a multiple of 8.
    """
    step = max(8, _PIXELS_AT_ONCE // 8 * 8)
    for rows in row_slices(n_rows, n_columns):
        for left in range(0, n_columns, step):
            yield rows, slice(left, min(left + step, n_columns))
