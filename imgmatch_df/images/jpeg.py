"""The segments of a JPEG: the orientation in its EXIF block, and what counts for its pixels."""

from typing import NamedTuple

import numpy as np

from imgmatch_df.images.kernels import codecs

Data = bytes | memoryview


class Segments(NamedTuple):
    """What the segments before the first scan say.

    Parameters
    ----------
    end
        Where they end: at the first scan, or at the end of the file.
    n_segments
        Of those that count for the pixels: no comments, profiles, EXIF blocks.
    n_components
        Of the last frame header, 0 where there is none.
    is_progressive
        Whether a frame is.
    orientation
        Of the first EXIF block that has one, 1 to 8; 1 where none has.
    """

    end: int
    n_segments: int
    n_components: int
    is_progressive: bool
    orientation: int


def read_segments(data: Data) -> Segments:
    """Return what the segments of a JPEG say."""
    found = Segments(*codecs.read_jpeg_segments(codecs.as_bytes(data)))
    return found._replace(orientation=found.orientation or 1)


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
