"""Incremental decoding of LZW and PackBits in a TIFF: libtiff decodes only complete strips or tiles. LZW of a GIF.

Source: libtiff's tif_lzw.c and tif_packbits.c, appendix F of the specification of GIF89a.
"""

from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel

Array = np.ndarray[Any, Any]

N_CODES: Final = 5119  # limit of libtiff: some writers exceed 4096 codes
_CLEAR: Final = 256
_END: Final = 257
_FIRST: Final = 258
_MAX_BITS: Final = 12
SPARE: Final = 4  # bytes after the codes and indices of a GIF
_N_GIF_CODES: Final = 1 << _MAX_BITS


@kernel
def decode_lzw(
    data: Array, state: Array, prefixes: Array, lasts: Array, firsts: Array, lengths: Array, out: Array, n_bytes: int
) -> Any:
    """Write at least `n_bytes` bytes to `out` and return their number; fewer if the codes end, -1 if they are damaged.

    data uint8[n]; state int64[4]: next bit, bits per code, number of codes, and previous code, which is -1 after a
    clear code; initially 0, 9, 0 and 0; prefixes, lasts, firsts and lengths of each code, uint16,
    uint8, uint8 and uint16 of [N_CODES]; out uint8[n_bytes + N_CODES].
    """
    at, n_bits, n_codes, before = state
    n_data_bits = 8 * len(data)
    written = 0
    while written < n_bytes and at + n_bits <= n_data_bits:
        code = 0
        first = at >> 3
        for i in range(first, min(first + 3, len(data))):
            code |= int(data[i]) << (16 - 8 * (i - first))
        code = (code >> (24 - (at & 7) - n_bits)) & ((1 << n_bits) - 1)
        at += n_bits
        if code == _CLEAR:
            n_bits, n_codes, before = 9, _FIRST, -1
            continue
        if code == _END:
            at = n_data_bits
            break
        if n_codes == 0:  # there was no clear code
            return -1
        if before < 0:
            if code > _CLEAR:
                return -1
        else:
            if n_codes >= N_CODES or code > n_codes:
                return -1
            prefixes[n_codes] = before
            firsts[n_codes] = firsts[before]
            lengths[n_codes] = lengths[before] + 1
            lasts[n_codes] = firsts[code] if code < n_codes else firsts[before]
            n_codes += 1
            if n_codes > (1 << n_bits) - 2 and n_bits < _MAX_BITS:
                n_bits += 1
        length = int(lengths[code])
        link = code
        for i in range(written + length - 1, written - 1, -1):
            out[i] = lasts[link]
            link = int(prefixes[link])
        written += length
        before = code
    state[0], state[1], state[2], state[3] = at, n_bits, n_codes, before
    return written


@kernel
def decode_packbits(data: Array, state: Array, out: Array, n_bytes: int) -> Any:
    """Write at least `n_bytes` bytes to `out` and return their number; fewer if the codes end.

    data uint8[n]; state int64[1]: next byte; out uint8[n_bytes + 128].
    """
    at = state[0]
    written = 0
    while written < n_bytes and at < len(data):
        count = int(data[at])
        at += 1
        if count == 128:
            continue
        if count > 128:
            if at >= len(data):
                break
            for i in range(257 - count):
                out[written + i] = data[at]
            written += 257 - count
            at += 1
        else:
            if at + count >= len(data):
                at = len(data)
                break
            for i in range(count + 1):
                out[written + i] = data[at + i]
            written += count + 1
            at += count + 1
    state[0] = at
    return written


@kernel
def join_sub_blocks(data: Array, at: int, out: Array) -> int:
    """Write the bytes of the complete data sub-blocks of a GIF up to their end, and return their number.

    data uint8[n]; at: length of the first sub-block; out uint8[n - at].
    """
    n_bytes = 0
    while at < len(data) and 0 < data[at] < len(data) - at:
        length = int(data[at])
        for i in range(length):
            out[n_bytes + i] = data[at + 1 + i]
        n_bytes += length
        at += 1 + length
    return n_bytes


@kernel
def decode_gif(codes: Array, n_bits: int, out: Array) -> bool:
    """Write the indices of a frame of a GIF, and return whether its codes are valid and complete.

    codes uint8[n + SPARE]; n_bits: of an index, 2 to 8; out uint8[n_pixels + SPARE]. Codes after the last pixel are not
    read.
    """
    starts = np.empty(_N_GIF_CODES, np.int64)  # a string of indices: where `out` has it first, and its length
    lengths = np.empty(_N_GIF_CODES, np.int64)
    clear, n_pixels = 1 << n_bits, len(out) - SPARE
    n_codes, n_code_bits = clear + 2, n_bits + 1
    before, length = -1, 0
    kept, n_kept = np.uint64(0), 0  # bits that are not decoded yet
    n_left = 8 * (len(codes) - SPARE)
    at = written = 0
    while written < n_pixels:
        n_left -= n_code_bits
        if n_left < 0:
            return False
        if n_kept < n_code_bits:
            for i in range(4):
                kept |= np.uint64(codes[at + i]) << np.uint64(n_kept + 8 * i)
            n_kept += 32
            at += 4
        code = int(kept & np.uint64((1 << n_code_bits) - 1))
        kept >>= np.uint64(n_code_bits)
        n_kept -= n_code_bits
        if code == clear:
            n_codes, n_code_bits, before = clear + 2, n_bits + 1, -1
            continue
        if code == clear + 1 or (code > clear if before < 0 else code > n_codes):
            return False
        is_new = before >= 0 and n_codes < _N_GIF_CODES
        if is_new:  # the string before, and the next index
            starts[n_codes] = before
            lengths[n_codes] = length + 1
        before = written
        if code < clear:
            length = 1
            out[written] = code
        else:
            start = starts[code]
            length = lengths[code]
            for i in range(SPARE):  # most strings are as short; a loop of any length costs twice the time
                out[written + i] = out[start + i]
            for i in range(SPARE, min(length, n_pixels - written)):
                out[written + i] = out[start + i]
        written += length
        if is_new:
            if n_codes == (1 << n_code_bits) - 1 and n_code_bits < _MAX_BITS:
                n_code_bits += 1
            n_codes += 1
    return True
