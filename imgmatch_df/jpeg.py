"""The segments of a JPEG: the orientation in its EXIF block, and what counts for its pixels."""

from typing import Final, NamedTuple

import numpy as np

from imgmatch_df._kernels import codecs

Data = bytes | memoryview

_MAX_SEGMENTS: Final = 10_000  # that count for the pixels; Pillow takes 3 us for each. Photos have up to 20


class Segments(NamedTuple):
    """What the segments before the first scan say.

    Parameters
    ----------
    end
        Where they end: at the first scan, or at the end of the file.
    n_components
        Of the last frame header, 0 where there is none.
    is_progressive
        Whether a frame is.
    orientation
        Of the first EXIF block that has one, 1 to 8; 1 where none has.
    """

    end: int
    n_components: int
    is_progressive: bool
    orientation: int


def read_segments(data: Data) -> Segments:
    """Return what the segments of a JPEG say."""
    end, n_components, is_progressive, orientation = codecs.read_jpeg_segments(codecs.as_bytes(data))
    return Segments(end, n_components, is_progressive, orientation or 1)


def only_pixels(data: Data) -> bytes:
    """Return a JPEG without comments, profiles, further EXIF blocks, and bytes between its segments.

    Raises
    ------
    EOFError
        If the file ends before its first scan.
    ValueError
        If it has too many segments.
    """
    kept = np.empty(len(data), np.uint8)
    n_bytes, n_segments, scan = codecs.keep_jpeg_segments(codecs.as_bytes(data), kept)
    if scan + 4 > len(data):
        raise EOFError("no scan")
    if n_segments > _MAX_SEGMENTS:
        raise ValueError(f"{n_segments:,} segments, at most {_MAX_SEGMENTS:,} are read")
    return b"".join([kept[:n_bytes].data, memoryview(data)[scan:]])
