"""sha256: the digest of the encoded bytes, equal for identical files and only for these.

Source: FIPS 180-4, by hashlib.
"""

from hashlib import sha256
from typing import Any

import numpy as np

from imgmatch_df.hashes.squares import HashInput

Array = np.ndarray[Any, Any]


def hash_image(image: HashInput, out: Array) -> None:
    """Write the SHA-256 of the encoded image: out uint8[32]."""
    out[:] = np.frombuffer(sha256(image.encoded).digest(), np.uint8)
