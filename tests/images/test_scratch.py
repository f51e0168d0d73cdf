"""The decoding buffer of a thread."""

import numpy as np
import pytest

from imgmatch_df.images.pixels import MAX_KEPT_BYTES, SCRATCH


@pytest.mark.parametrize("n_bytes", [1, 4, 40_000, 160_000, 700_000, MAX_KEPT_BYTES + 4])
def test_rows_are_not_aligned(n_bytes):
    """libjpeg-turbo writes aligned rows past the caches."""
    buffer = SCRATCH.take(n_bytes)
    assert buffer.nbytes == n_bytes
    assert buffer.ctypes.data % 32 == 4


def test_words_are_aligned():
    words = SCRATCH.take(160_000).view(np.uint32)
    assert words.flags.aligned
    assert words.flags.writeable
