"""Blocks of a GIF for its first frame, without all others, which may be damaged or large, and the pixels of these."""

from typing import Final

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.kernels import codecs

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_PASSES: Final = ((0, 8), (4, 8), (2, 4), (1, 2))  # of interlaced rows: the first one, and the distance to the next


def first_frame(data: Data) -> Data:
    """Return a GIF with the palette, the first frame and the last control extension before it only.

    Raises
    ------
    EOFError
        If the file ends before its first frame.
    """
    view = memoryview(data)
    if len(view) < 13:
        raise EOFError(f"{len(view)} bytes")
    start = 13 + (3 << (view[10] & 7) + 1 if view[10] & 0x80 else 0)
    frame, control = codecs.first_gif_frame(codecs.as_bytes(data), start)
    if frame < 0:
        raise EOFError("no frame")
    if frame + 10 > len(view):
        raise EOFError("a frame without a size")
    if frame == start or (control == start and frame == start + 8):
        return data
    control_extension = b"" if control < 0 else bytes(view[control : control + 7]) + b"\0"
    return b"".join([view[:start], control_extension, view[frame:]])


def has_palette(data: Data) -> bool:
    """Return whether a GIF of one frame, as `first_frame` returns it, has a palette."""
    control = 8 if data[13] == ord("!") else 0
    return bool(data[10] & 0x80) or bool(data[13 + control + 9] & 0x80)


def read_indices(data: Data, at: int, size: tuple[int, int], bits: int, *, interlaced: bool) -> Pixels | None:
    """Return the indices of a complete frame with valid codes, (rows, columns), else None.

    Half the time of Pillow, which decides what is read of all other frames.

    Parameters
    ----------
    data
        The file.
    at
        Start of the blocks of the frame.
    size
        Its width and height.
    bits
        Bits of an index.
    interlaced
        Whether the rows are in four passes.
    """
    width, height = size
    if not (width > 0 and height > 0 and 2 <= bits <= 8):
        return None
    from imgmatch_df.images.kernels import unpacking

    file = codecs.as_bytes(data)
    codes = np.empty(max(0, len(file) - at) + unpacking.SPARE, np.uint8)
    n_bytes = unpacking.join_sub_blocks(file, at, codes)
    indices = np.empty(width * height + unpacking.SPARE, np.uint8)
    if not unpacking.decode_gif(codes[: n_bytes + unpacking.SPARE], bits, indices):
        return None
    rows = indices[: width * height].reshape(height, width)
    if not interlaced:
        return rows
    out = np.empty_like(rows)
    out[[y for first, step in _PASSES for y in range(first, height, step)]] = rows
    return out
