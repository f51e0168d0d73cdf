"""pdq: Facebook's 256-bit hash of low cosine coefficients, bit for bit that of PyPI's `pdqhash`.

Source: ThreatExchange, The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm (2019), and pdq/cpp.
"""

from typing import Any

import numpy as np

from imgmatch_df.hashes.kernels.pdq import hash_pixels
from imgmatch_df.hashes.squares import HashInput, upright

Array = np.ndarray[Any, Any]


def hash_image(image: HashInput, out: Array) -> None:
    """Write the PDQ hash of an image: out uint8[32], in the order in which pdqhash prints it."""
    out[:] = _computed(image)[0]


def write_quality(image: HashInput, out: Array) -> None:
    """Write the quality of an image that pdqhash returns beside the hash: out uint8[1]."""
    out[0] = _computed(image)[1]


def _computed(image: HashInput) -> tuple[Array, int]:
    found: tuple[Array, int] | None = image.memo.get("pdq")
    if found is None:  # of the upright image: running sums round by the direction they run in
        bits = np.empty(32, np.uint8)
        found = image.memo["pdq"] = bits, hash_pixels(upright(image.pixels, image.orientation), bits)
    return found
