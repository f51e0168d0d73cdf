"""quality: how much there is to see in an image, 0 to 100, as PDQ measures it.

PDQ measures it on its 64 x 64 means. Here these are means of 4 x 4 pixels of the square that bmh1 reads, so it costs
little. It is the same for all flips and quarter turns.

Source: ThreatExchange pdq/cpp/hashing/pdqhashing.cpp, pdqImageDomainQualityMetric.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.hashes.kernels.stack import stack_array
from imgmatch_df.hashes.squares import HashInput

Array = np.ndarray[Any, Any]

_SIDE: Final = 256
_N_MEANS: Final = 64  # in a row
_BLOCK: Final = _SIDE // _N_MEANS
_WHITE: Final = 255 * _BLOCK**2  # sum of a block
# For each step, step * _PERCENT >> _SHIFT is step * 100 // _WHITE: without a division, the loops become vectors.
_SHIFT: Final = 20
_PERCENT: Final = (100 << _SHIFT) // _WHITE + 1

_sums: Final = stack_array(types.int32, 2 * _N_MEANS)  # of the last even and the last odd row
_column_sums: Final = stack_array(types.int32, _SIDE)


def measure_image(image: HashInput, out: Array) -> None:
    """Write the quality of an image: out uint8[1]."""
    _measure_square(image.square_and_axes(_SIDE)[0], out)


# With the GIL, as bmh1.
@kernel(signatures=["void(uint8[:, ::1], uint8[::1])"], nogil=False, error_model="numpy")
def _measure_square(square: Array, out: Array) -> None:
    """Add the steps between neighbouring blocks, in whole percent of white; 90 make one, 100 at most: out uint8[1]."""
    sums, column_sums = _sums(), _column_sums()
    total = 0
    for i in range(_N_MEANS):
        for x in range(_SIDE):
            y = _BLOCK * i
            column_sums[x] = np.int32(square[y, x]) + square[y + 1, x] + square[y + 2, x] + square[y + 3, x]
        first = _N_MEANS * (i & 1)
        for j in range(_N_MEANS):
            x = _BLOCK * j
            sums[first + j] = column_sums[x] + column_sums[x + 1] + column_sums[x + 2] + column_sums[x + 3]
        for j in range(1, _N_MEANS):
            total += abs(sums[first + j] - sums[first + j - 1]) * _PERCENT >> _SHIFT
        if i:
            for j in range(_N_MEANS):
                total += abs(sums[j] - sums[_N_MEANS + j]) * _PERCENT >> _SHIFT
    total //= 90
    out[0] = 100 if total > 100 else total
