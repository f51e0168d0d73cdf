"""local: hashes of the patches around up to 64 corners of an image, which find copies that were cropped or framed.

The definition is in docs/how-it-works/local-hashes.md.
"""

from typing import Any, Final

import numpy as np
import polars as pl

from imgmatch_df.columns import POINTS_DTYPE
from imgmatch_df.errors import ColumnError
from imgmatch_df.hashes.codec import hash_rows
from imgmatch_df.hashes.kernels.borders import find_borders
from imgmatch_df.hashes.kernels.local import N_POINTS, N_RECORD_BYTES, write_points
from imgmatch_df.hashes.kernels.local_resize import resize_grey, sample_grey
from imgmatch_df.hashes.squares import HashInput, upright

Array = np.ndarray[Any, Any]

N_BYTES: Final = N_RECORD_BYTES * (1 + N_POINTS)
BASE_SIDE: Final = 224
MIN_BASE_SIDE: Final = 48
_MIN_SAMPLES: Final = 448  # along the longest side, where pixels are left out
_WHOLE: Final = 65535


def hash_image(image: HashInput, out: Array) -> None:
    """Write the local hash of an image: out uint8[715]."""
    swaps = image.orientation >= 5
    reverses_rows = image.orientation in (3, 4, 7, 8)
    reverses_columns = image.orientation in (2, 3, 6, 7)
    if swaps:  # `upright` swaps first
        reverses_rows, reverses_columns = reverses_columns, reverses_rows
    grey = _sampled(image.whole, reverses_rows, reverses_columns)
    height, width = grey.shape
    top, bottom, left, right = find_borders(grey)
    base = np.empty(_base_shape(bottom - top, right - left), np.uint8)
    resize_grey(grey, top, left, bottom - top, right - left, base)
    if image.orientation != 1:
        base = upright(base, image.orientation)
        if reverses_rows:
            top, bottom = height - bottom, height - top
        if reverses_columns:
            left, right = width - right, width - left
        if swaps:
            top, bottom, left, right, height, width = left, right, top, bottom, width, height
    for i, (place, side) in enumerate(((left, width), (top, height), (right, width), (bottom, height))):
        share = (2 * _WHOLE * place + side) // (2 * side)
        out[2 * i], out[2 * i + 1] = share >> 8, share & 255
    write_points(base, out)


def _sampled(pixels: Array, reverses_rows: bool, reverses_columns: bool) -> Array:
    """Return grey pixels, fewer than 896 a side: each n-th one, the rest left out evenly at both ends."""
    height, width = pixels.shape[:2]
    step = max(1, max(height, width) // _MIN_SAMPLES)
    (top, n_rows), (left, n_columns) = _samples(height, step, reverses_rows), _samples(width, step, reverses_columns)
    grey = np.empty((n_rows, n_columns), np.uint8)
    n_channels = 1 if pixels.ndim == 2 else 4
    sample_grey(pixels.reshape(-1), width * n_channels, n_channels, top, left, step, grey)
    return grey


def _samples(n: int, step: int, is_reversed: bool) -> tuple[int, int]:
    """Return the first pixel of n that is sampled, and how many are: the same ones from either end."""
    n_samples = (n - 1) // step + 1
    rest = (n - 1) % step
    return (rest + 1) // 2 if is_reversed else rest // 2, n_samples


def _base_shape(height: int, width: int) -> tuple[int, int]:
    longest = max(height, width)
    return (
        max(MIN_BASE_SIDE, (2 * BASE_SIDE * height + longest) // (2 * longest)),
        max(MIN_BASE_SIDE, (2 * BASE_SIDE * width + longest) // (2 * longest)),
    )


def unpack(rows: Array) -> tuple[Array, Array, Array, Array]:
    """Return the points of local hashes, as columns.

    Parameters
    ----------
    rows
        uint8 (n, 715).

    Returns
    -------
    tuple
        The hashes, uint64 (n_points,); their places, uint8 (n_points, 3): x, y and level; where the points of each
        image start, int64 (n + 1,); and the boxes, uint16 (n, 6): left, top, right and bottom of the part inside
        trimmed borders in 1/65535 of the image, then width and height of the base image.
    """
    records = rows.reshape(len(rows), 1 + N_POINTS, N_RECORD_BYTES)
    images = records[:, 0]
    counts = images[:, 10]
    points = records[:, 1:][np.arange(N_POINTS) < counts[:, None]]
    hashes = np.ascontiguousarray(points[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    boxes = np.empty((len(rows), 6), np.uint16)
    boxes[:, :4] = np.ascontiguousarray(images[:, :8]).view(">u2")
    boxes[:, 4:] = images[:, 8:10]
    return hashes, np.ascontiguousarray(points[:, 8:]), starts, boxes


def unpack_points(column: pl.Series) -> pl.Series:
    """Return the points of a column of local hashes: for each row a list of structs of hash, x, y and level.

    Parameters
    ----------
    column
        Binary of 715 bytes; null stays null.

    Returns
    -------
    Series
        ``List(Struct{hash: UInt64, x: UInt8, y: UInt8, level: UInt8})``, of the same name.

    Raises
    ------
    ColumnError
        If a value is not a local hash.
    """
    if column.dtype == pl.Null or column.null_count() == len(column):
        return pl.Series(column.name, [None] * len(column), POINTS_DTYPE)
    rows, valid = hash_rows(column)
    if rows.shape[1] != N_BYTES:
        raise ColumnError(
            f"column {column.name!r} holds values of {rows.shape[1]} bytes, a local hash has {N_BYTES}\n"
            "Hint: pass the column that local() made."
        )
    records = rows.reshape(len(rows), 1 + N_POINTS, N_RECORD_BYTES)
    points = records[:, 1:].reshape(-1, N_RECORD_BYTES)
    hashes = np.ascontiguousarray(points[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
    fields = {"hash": hashes, "x": points[:, 8], "y": points[:, 9], "level": points[:, 10]}
    every = pl.DataFrame(fields).to_struct("points").reshape((len(rows), N_POINTS))
    counts = pl.Series(np.where(valid, records[:, 0, 10], 0))
    listed = pl.DataFrame({"points": every, "n": counts, "valid": valid}).select(
        pl.when("valid").then(pl.col("points").arr.to_list().list.head("n")).alias(column.name)
    )
    return listed.to_series()
