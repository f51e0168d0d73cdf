"""The chunks of a WebP that count for its pixels, apart from all others, which may be damaged."""

import struct

import numpy as np

from imgmatch_df.images.kernels import codecs

Data = bytes | memoryview


def only_pixels(data: Data) -> bytes:
    """Return a WebP of the chunks that make its pixels, and of its EXIF block.

    Raises
    ------
    EOFError
        If the file ends within a chunk that counts.
    """
    kept = np.empty(len(data) + 1, np.uint8)
    n_bytes, is_cut = codecs.keep_webp_chunks(codecs.as_bytes(data), kept)
    if is_cut:
        raise EOFError("a chunk ends behind the end of the file")
    return b"".join([b"RIFF", struct.pack("<I", 4 + n_bytes), b"WEBP", kept[:n_bytes].data])
