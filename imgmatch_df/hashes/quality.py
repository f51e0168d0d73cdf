"""quality: how much there is to see in an image, 0 to 100, as PDQ measures it.

PDQ measures it on its 64 x 64 means. Here these are means of 4 x 4 pixels of the square that bmh1 reads, so it costs
little. It is the same for all flips and quarter turns.

Source: ThreatExchange pdq/cpp/hashing/pdqhashing.cpp, pdqImageDomainQualityMetric.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df.hashes.squares import HashInput

Array = np.ndarray[Any, Any]

_SIDE: Final = 256
_N_MEANS: Final = 64  # in a row
_BLOCK: Final = _SIDE // _N_MEANS
_WHITE: Final = 255 * _BLOCK**2  # sum of a block


def measure_image(image: HashInput, out: Array) -> None:
    """Write the quality of an image: out uint8[1]."""
    _measure_square(image.square_and_axes(_SIDE)[0], out)


# With the GIL, as bmh1.
@kernel(signatures=["void(uint8[:, ::1], uint8[::1])"], nogil=False)
def _measure_square(square: Array, out: Array) -> None:
    """Add the steps between neighbouring blocks, in whole percent of white; 90 make one, 100 at most: out uint8[1]."""
    sums = np.zeros((_N_MEANS, _N_MEANS), np.int32)
    column_sums = np.empty(_SIDE, np.int32)
    total = 0
    for i in range(_N_MEANS):
        for x in range(_SIDE):
            y = _BLOCK * i
            column_sums[x] = np.int32(square[y, x]) + square[y + 1, x] + square[y + 2, x] + square[y + 3, x]
        for j in range(_N_MEANS):
            x = _BLOCK * j
            sums[i, j] = column_sums[x] + column_sums[x + 1] + column_sums[x + 2] + column_sums[x + 3]
            if j:
                total += abs(sums[i, j] - sums[i, j - 1]) * 100 // _WHITE
            if i:
                total += abs(sums[i, j] - sums[i - 1, j]) * 100 // _WHITE
    out[0] = min(total // 90, 100)
