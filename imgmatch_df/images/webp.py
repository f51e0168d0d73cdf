"""Chunks of a WebP for its pixels, without all others, which may be damaged."""

import struct

import numpy as np

from imgmatch_df.images.kernels import codecs

Data = bytes | memoryview


def only_pixels(data: Data) -> bytes:
    """Return a WebP with the chunks for its pixels and its EXIF block only.

    Raises
    ------
    EOFError
        If the file ends within one of these chunks.
    """
    kept = np.empty(len(data) + 1, np.uint8)
    n_bytes, is_cut = codecs.keep_webp_chunks(codecs.as_bytes(data), kept)
    if is_cut:
        raise EOFError("a chunk ends after the end of the file")
    return b"".join([b"RIFF", struct.pack("<I", 4 + n_bytes), b"WEBP", kept[:n_bytes].data])
