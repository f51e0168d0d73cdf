"""Incremental decompression of large blocks of a TIFF.

libtiff, as Pillow calls it, needs memory for two copies of a strip or tile. Many writers store an image as one strip.
"""

import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Pixels = npt.NDArray[np.uint8]

_PIECE: Final = 1 << 20  # bytes of input at a time: unused ones are copied
_MAX_WINDOW: Final = 7  # as of zlib; ISA-L does not check it
_MAX_DICTIONARY: Final = 200 << 20  # bytes: the highest preset of xz needs 65 MiB


def open_stream(compression: int, data: Pixels) -> Callable[[int], Pixels] | None:
    """Return a function that returns the next `n` bytes of a compressed block.

    None for the LZW of before TIFF 5, whose bits are in the reverse order, and for compressions of images.

    Parameters
    ----------
    compression
        Value of tag 259.
    data
        Bytes of the block.

    Raises
    ------
    ValueError
        By the function: the data are damaged or end early.
    """
    match compression:
        case 8 | 32946:
            return _Inflate(data).read
        case 34925:
            return _Lzma(data).read
        case 50000:
            return _Zstandard(data).read
        case 32773:
            return _PackBits(data).read
        case 5 if not (len(data) > 1 and data[0] == 0 and data[1] & 1):
            return _Lzw(data).read
    return None


class UncommonBlockError(Exception):
    """A block is damaged, or it has more than its pixels, or ISA-L is not installed."""


class CheckedInflate:
    """Deflate of ISA-L, twice as fast as zlib, for blocks without damage only.

    Parameters
    ----------
    data
        Bytes of the block.
    n_bytes
        Number of the bytes that it must have when it is decompressed.

    Raises
    ------
    UncommonBlockError
        By this and all methods: zlib, which reads parts of damaged blocks, must decide.
    """

    def __init__(self, data: Pixels, n_bytes: int) -> None:
        try:
            from isal import igzip_lib
        except ImportError as error:  # Windows on Arm has none
            raise UncommonBlockError from error
        if not len(data) or data[0] >> 4 > _MAX_WINDOW:
            raise UncommonBlockError
        self._error: Any = igzip_lib.IsalError  # annotated as an instance
        self._stream = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)
        self._data = data
        self._at = 0
        self._left = n_bytes

    def read(self, n_bytes: int) -> Pixels:
        """Return the next bytes; with the last ones, the checksum is compared."""
        parts, missing = [], n_bytes
        self._left -= n_bytes
        # One byte more than the last one, to reach the checksum.
        while missing if self._left else not self._stream.eof:
            piece: Any = b""
            if self._stream.eof:
                raise UncommonBlockError
            if self._stream.needs_input:
                piece = self._data[self._at : self._at + _PIECE]
                self._at += len(piece)
                if not len(piece):
                    raise UncommonBlockError
            try:
                part = self._stream.decompress(piece, missing if self._left else missing + 1)
            except self._error as error:
                raise UncommonBlockError from error
            if not (part or self._stream.needs_input or self._stream.eof) or len(part) > missing:
                raise UncommonBlockError
            missing -= len(part)
            parts.append(part)
        if missing:
            raise UncommonBlockError
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)

    def check(self) -> None:
        """Read the rest."""
        while self._left:
            self.read(min(_PIECE, self._left))


class _Stream:
    """Base of the streams: `_decompress` returns at most `n_bytes`, and none if it needs more input."""

    def __init__(self, data: Pixels) -> None:
        self._data = data
        self._at = 0

    def read(self, n_bytes: int) -> Pixels:
        out = bytearray()
        while len(out) < n_bytes:
            at_end = self._at >= len(self._data)
            try:
                part = self._decompress(n_bytes - len(out))
            except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
                raise ValueError("its compressed data are damaged") from error
            if not part and at_end:
                raise ValueError("its compressed data end early")
            out += part
        return np.frombuffer(out, np.uint8)

    def _next_piece(self) -> bytes:
        piece = self._data[self._at : self._at + _PIECE]
        self._at += len(piece)
        return piece.tobytes()

    def _decompress(self, n_bytes: int) -> bytes:
        raise NotImplementedError


class _Inflate(_Stream):
    def __init__(self, data: Pixels) -> None:
        super().__init__(data)
        self._stream = zlib.decompressobj()
        self._rest = b""

    def _decompress(self, n_bytes: int) -> bytes:
        if self._stream.eof:
            raise EOFError
        out = self._stream.decompress(self._rest or self._next_piece(), n_bytes)
        self._rest = self._stream.unconsumed_tail
        return out


class _Lzma(_Stream):
    def __init__(self, data: Pixels) -> None:
        super().__init__(data)
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_DICTIONARY)

    def _decompress(self, n_bytes: int) -> bytes:
        return self._stream.decompress(self._next_piece() if self._stream.needs_input else b"", n_bytes)


class _Zstandard(_Stream):
    def __init__(self, data: Pixels) -> None:
        super().__init__(data)
        self._at = len(data)
        self._stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "zstd")

    def _decompress(self, n_bytes: int) -> bytes:
        out: bytes = self._stream.read(n_bytes)
        return out


class _Codes:
    """Base of the decoders whose codes stand for several bytes: excess bytes are kept for the next call."""

    _max_string: int

    def __init__(self, data: Pixels) -> None:
        self._data = data
        self._kept = np.empty(0, np.uint8)

    def read(self, n_bytes: int) -> Pixels:
        n_kept = len(self._kept)
        out = np.empty(max(n_kept, n_bytes + self._max_string), np.uint8)
        out[:n_kept] = self._kept
        n_written = n_kept
        if n_kept < n_bytes:
            found = self._decode(out[n_kept:], n_bytes - n_kept)
            if found < 0:
                raise ValueError("its compressed data are damaged")
            n_written += found
        if n_written < n_bytes:
            raise ValueError("its compressed data end early")
        self._kept = out[n_bytes:n_written].copy()
        return out[:n_bytes]

    def _decode(self, out: Pixels, n_bytes: int) -> int:
        raise NotImplementedError


class _Lzw(_Codes):
    def __init__(self, data: Pixels) -> None:
        from imgmatch_df.images.kernels.unpacking import N_CODES

        super().__init__(data)
        self._max_string = N_CODES
        codes = np.arange(N_CODES)
        lengths = (codes < 256).astype(np.uint16)
        self._state = np.array([0, 9, 0, 0], np.int64)
        self._codes: Any = codes.astype(np.uint16), codes.astype(np.uint8), codes.astype(np.uint8), lengths

    def _decode(self, out: Pixels, n_bytes: int) -> int:
        from imgmatch_df.images.kernels.unpacking import decode_lzw

        return int(decode_lzw(self._data, self._state, *self._codes, out, n_bytes))


class _PackBits(_Codes):
    _max_string = 128

    def __init__(self, data: Pixels) -> None:
        super().__init__(data)
        self._state = np.zeros(1, np.int64)

    def _decode(self, out: Pixels, n_bytes: int) -> int:
        from imgmatch_df.images.kernels.unpacking import decode_packbits

        return int(decode_packbits(self._data, self._state, out, n_bytes))
