"""Large compressed blocks of a TIFF, decompressed a piece at a time.

libtiff, as Pillow calls it, needs memory for a whole strip or tile twice. Many writers make one strip of an image.
"""

import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_PIECE: Final = 1 << 20  # bytes of input at a time: what is not used of them is copied
_MAX_DICTIONARY: Final = 200 << 20  # bytes: the highest preset of xz needs 65 MiB

DEFLATE: Final = (8, 32946)
LZMA: Final = 34925
STREAMED: Final = (*DEFLATE, LZMA)


def open_stream(compression: int, data: memoryview, reverse: Pixels | None = None) -> Callable[[int], Pixels]:
    """Return a function that returns the next bytes of a compressed block, as many as it is called with.

    Parameters
    ----------
    compression
        One of `STREAMED`.
    data
        The block.
    reverse
        The table that reverses the bits of each byte, where the file stores them so.

    Raises
    ------
    ValueError
        From the function: the data are damaged or end early.
    """
    return (_Inflate if compression in DEFLATE else _Lzma)(data, reverse).read


class _Stream:
    _stream: Any

    def __init__(self, data: memoryview, reverse: Pixels | None) -> None:
        self._data = data
        self._at = 0
        self._reverse = reverse

    def read(self, n_bytes: int) -> Pixels:
        """Return the next bytes."""
        out = bytearray()
        while len(out) < n_bytes:
            at_end = self._at >= len(self._data)
            try:
                part = self._decompress(n_bytes - len(out))
            except (zlib.error, lzma.LZMAError, EOFError) as error:
                raise ValueError("its compressed data are damaged") from error
            if not part and (at_end or self._stream.eof):
                raise ValueError("its compressed data end early")
            out += part
        return np.frombuffer(out, np.uint8)

    def _decompress(self, n_bytes: int) -> bytes:
        raise NotImplementedError

    def _next_piece(self) -> bytes:
        piece = self._data[self._at : self._at + _PIECE]
        self._at += len(piece)
        return bytes(piece) if self._reverse is None else self._reverse[np.frombuffer(piece, np.uint8)].tobytes()


class _Inflate(_Stream):
    def __init__(self, data: memoryview, reverse: Pixels | None) -> None:
        super().__init__(data, reverse)
        self._stream = zlib.decompressobj()
        self._rest = b""

    def _decompress(self, n_bytes: int) -> bytes:
        out: bytes = self._stream.decompress(self._rest or self._next_piece(), n_bytes)
        self._rest = self._stream.unconsumed_tail
        return out


class _Lzma(_Stream):
    def __init__(self, data: memoryview, reverse: Pixels | None) -> None:
        super().__init__(data, reverse)
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_DICTIONARY)

    def _decompress(self, n_bytes: int) -> bytes:
        out: bytes = self._stream.decompress(self._next_piece() if self._stream.needs_input else b"", n_bytes)
        return out
