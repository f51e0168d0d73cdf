"""pdq: Facebook's 256-bit hash of low cosine coefficients, bit for bit that of PyPI's `pdqhash`.

With `pdq_variant="512"` large images are first reduced to 512 x 512 pixels, as ThreatExchange's C++ program does.

Source: ThreatExchange, The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm (2019), and pdq/cpp.
The reduction is in pdq/cpp/io/pdqio.cpp.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df.hashes.kernels.pdq import hash_pixels
from imgmatch_df.hashes.squares import HashInput, upright, upright_view

Array = np.ndarray[Any, Any]

_SAMPLED_SIDE: Final = 512


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
        pixels = image.pixels
        if image.pdq_variant == "512" and max(pixels.shape[:2]) > _SAMPLED_SIDE:
            pixels = _sampled(pixels, image.orientation)
        else:
            pixels = upright(pixels, image.orientation)
        found = image.memo["pdq"] = bits, hash_pixels(pixels, bits)
    return found


def _sampled(pixels: Array, orientation: int) -> Array:
    """Return 512 x 512 pixels of an image as it is seen, of rows and columns in equal steps, as CImg's `resize`."""
    seen = upright_view(pixels, orientation)
    rows, columns = (np.arange(_SAMPLED_SIDE) * n // _SAMPLED_SIDE for n in seen.shape[:2])
    sampled: Array = seen[np.ix_(rows, columns)]
    return sampled
