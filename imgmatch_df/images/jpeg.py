"""Segments of a JPEG: the orientation in its EXIF block, and the segments that affect its pixels."""

from typing import NamedTuple

import numpy as np

from imgmatch_df.images.kernels import codecs

Data = bytes | memoryview


class Segments(NamedTuple):
    """Content of the segments before the first scan.

    Parameters
    ----------
    end
        Offset of the first scan, or the size of the file if there is none.
    n_segments
        Number of segments that affect the pixels, so without comments, profiles and EXIF blocks.
    n_components
        Number of components in the last frame header, 0 if there is none.
    is_progressive
        Whether a frame is progressive.
    orientation
        Orientation in the first EXIF block that has one, 1 to 8; 1 if none has.
    height, width
        Size in the last frame header, in pixels; 0 if there is none.
    """

    end: int
    n_segments: int
    n_components: int
    is_progressive: bool
    orientation: int
    height: int
    width: int


def read_segments(data: Data, orientation: int = 1) -> Segments:
    """Return the content of the segments of a JPEG; `orientation` is that of an image whose EXIF has none."""
    end, n_segments, n_components, is_progressive, found, *size = codecs.read_jpeg_segments(codecs.as_bytes(data))
    return Segments(end, n_segments, n_components, is_progressive, found or orientation, *size)


def only_pixels(data: Data) -> bytes:
    """Return a JPEG without comments, profiles, further EXIF blocks, and bytes between its segments.

    Raises
    ------
    EOFError
        If the file ends before its first scan.
    """
    kept = np.empty(len(data), np.uint8)
    n_bytes, scan = codecs.keep_jpeg_segments(codecs.as_bytes(data), kept)
    if scan + 4 > len(data):
        raise EOFError("no scan")
    return b"".join([kept[:n_bytes].data, memoryview(data)[scan:]])
