"""PackBits of the blocks of a plain TIFF."""

from typing import Any

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types
from imgmatch_df.images.kernels.lanes import copy_bytes
from imgmatch_df.images.kernels.plain_tiff import BLOCK_HEIGHT, BLOCK_WIDTH, HEIGHT, IS_TILED, N_SAMPLES, block_of

Array = np.ndarray[Any, Any]

_NOTHING = 128  # a code without bytes
_FILE = types.Array(types.uint8, 1, "C", readonly=True)  # writable arrays are accepted, too


@kernel(signatures=[types.boolean(_FILE, types.int64[::1], types.intp, types.uint8[::1])])
def unpack_blocks(data: Array, found: Array, n_blocks: int, out: Array) -> bool:
    """Decode the PackBits of all blocks of a plain TIFF, and return whether they are valid and complete.

    data uint8[n]; found as of `find_plain`; out uint8[n_blocks * size], size the bytes of a full block. Bytes after the
    last pixel of a block are not read.
    """
    size = len(out) // n_blocks
    row_bytes = found[BLOCK_WIDTH] * found[N_SAMPLES]
    for i in range(n_blocks):
        at, count = block_of(data, found, i)
        end, written = at + count, i * size
        stop = written + size
        if not found[IS_TILED]:
            stop = written + min(found[BLOCK_HEIGHT], found[HEIGHT] - i * found[BLOCK_HEIGHT]) * row_bytes
        while written < stop:
            if at + 1 >= end:
                return False
            code: Any = np.intp(data[at])
            if code == _NOTHING:
                at += 1
                continue
            length = 257 - code if code > _NOTHING else code + 1
            if written + length > stop:
                return False
            if code > _NOTHING:
                for j in range(np.uintp(written), np.uintp(written + length)):
                    out[j] = data[at + 1]
                at += 2
            else:
                if at + 1 + length > end:
                    return False
                copy_bytes(data, at + 1, out, written, length)
                at += 1 + length
            written += length
    return True
