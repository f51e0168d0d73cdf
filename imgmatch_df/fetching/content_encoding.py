"""Incremental decompression of bodies, so that it can be stopped at `max_bytes`.

The decoders of libcurl are not used: it would keep what it has decompressed while the transfer waits for the byte
budget, and it reads one member of a gzip body only.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final

_MAX_PIECE_BYTES: Final = 1 << 18  # bytes decompressed at a time
_MAX_ENCODINGS: Final = 5  # as libcurl
# BGZF has members of 64 KB, so this many are 4 GB. A member costs 1 us even if it is empty.
_MAX_MEMBERS: Final = 1 << 16
_GZIP: Final = b"\x1f\x8b"


class EncodingError(ValueError):
    """The body is not valid in its encoding. Becomes the result of the row."""


class _EncodingDecoder(ABC):
    """Decoder of one encoding of one body.

    Parameters
    ----------
    name
        The encoding, as the server names it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Return what a chunk decompresses to, in pieces of at most 256 KB."""

    @abstractmethod
    def is_complete(self) -> bool:
        """Return whether the body may end here."""

    def error(self, why: object) -> EncodingError:
        """Return the error of a body that is not valid."""
        return EncodingError(f"the body is not valid {self.name}: {why}")


class _ZlibDecoder(_EncodingDecoder):
    """Decoder of gzip with one or more members, and of deflate with or without the header of zlib."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._start = b""  # the first bytes, until there are two of them
        self._stream: Any = None
        self._n_members = 0
        self._is_gzip = False

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Return what a chunk decompresses to; bytes after the last member are ignored, as gzip does."""
        while chunk:
            if self._stream is None:
                chunk = self._start + chunk
                if len(chunk) < 2:
                    self._start = chunk
                    return
                self._start = b""
                if not self._open(chunk[:2]):
                    return
            if self._stream.eof:  # of a body whose end is ignored
                return
            try:
                piece = self._stream.decompress(chunk, _MAX_PIECE_BYTES)
            except zlib.error as error:
                raise self.error(error) from error
            if piece:
                yield piece
            chunk = self._stream.unconsumed_tail
            if self._stream.eof and self._is_gzip:
                chunk, self._stream = self._stream.unused_data, None

    def is_complete(self) -> bool:
        """Return whether the last member is complete."""
        return self._n_members > 0 if self._stream is None else bool(self._stream.eof)

    def _open(self, start: bytes) -> bool:
        """Start a member, and return True; return False for other bytes after the last member."""
        if self._n_members and start != _GZIP:
            self._is_gzip, self._stream = False, _Ended()
            return False
        self._n_members += 1
        if self._n_members > _MAX_MEMBERS:
            raise self.error(f"more than {_MAX_MEMBERS:,} members")
        self._is_gzip = start == _GZIP
        if self._is_gzip:
            self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif start[0] & 15 == 8 and int.from_bytes(start) % 31 == 0:  # RFC 1950; a raw stream has other first bits
            self._stream = zlib.decompressobj()
        elif self.name == "deflate":
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        else:
            raise self.error("incorrect header check")
        return True


class _Ended:
    """A stream after its end."""

    eof = True


class _BrotliDecoder(_EncodingDecoder):
    """Decoder of Brotli."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        import brotli

        self._error = brotli.error
        self._stream = brotli.Decompressor()

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Return what a chunk decompresses to; bytes after the end are ignored."""
        while not self._stream.is_finished():
            try:
                piece = self._stream.process(chunk, output_buffer_limit=_MAX_PIECE_BYTES)
            except self._error as error:
                raise self.error(str(error).removeprefix("brotli: ")) from error
            chunk = b""
            if piece:
                yield piece
            elif self._stream.can_accept_more_data():  # which is also true while it holds output
                return

    def is_complete(self) -> bool:
        """Return whether the last block was decoded."""
        return bool(self._stream.is_finished())


class _ZstdDecoder(_EncodingDecoder):
    """Decoder of Zstandard with one or more frames. A window is at most 8 MiB, as RFC 9659 requires."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        import sys

        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        self._zstd: Any = zstd
        self._stream: Any = None
        self._n_frames = 0

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Return what a chunk decompresses to."""
        data: bytes | None = chunk
        while data is not None:
            if self._stream is None:
                if not data:
                    return
                self._n_frames += 1
                if self._n_frames > _MAX_MEMBERS:
                    raise self.error(f"more than {_MAX_MEMBERS:,} frames")
                options = {self._zstd.DecompressionParameter.window_log_max: 23}
                self._stream = self._zstd.ZstdDecompressor(options=options)
            try:
                piece = self._stream.decompress(data, max_length=_MAX_PIECE_BYTES)
            except self._zstd.ZstdError as error:
                raise self.error(error) from error
            if piece:
                yield piece
            if self._stream.eof:
                data, self._stream = self._stream.unused_data, None
            else:
                data = None if self._stream.needs_input else b""

    def is_complete(self) -> bool:
        """Return whether the last frame is complete."""
        return self._n_frames > 0 and self._stream is None


_DECODERS: Final[dict[str, Callable[[str], _EncodingDecoder]]] = {
    "gzip": _ZlibDecoder,
    "x-gzip": _ZlibDecoder,
    "deflate": _ZlibDecoder,
    "br": _BrotliDecoder,
    "zstd": _ZstdDecoder,
}


class Decompressor:
    """Decompressor of one body, which may have several encodings.

    Parameters
    ----------
    encodings
        In the order in which the server applied them. Each is among those of `unsupported`.
    max_bytes
        Maximum bytes between two encodings; of the last one the caller counts them.
    """

    def __init__(self, encodings: tuple[str, ...], max_bytes: int) -> None:
        self._decoders = [_DECODERS[name](name) for name in reversed(encodings)]
        self._n_between = 0
        self._is_empty = True
        self._max_bytes = max_bytes

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Return what a chunk of the body decompresses to, piece by piece.

        Raises
        ------
        EncodingError
            If the body is not valid.
        """
        self._is_empty = False
        found: Iterator[bytes] = iter((chunk,))
        for at, decoder in enumerate(self._decoders):
            found = self._through(decoder, found if at == 0 else self._counted(decoder, found))
        return found

    def check_end(self) -> None:
        """Raise `EncodingError` if the body ends before the end of an encoding; a body of no bytes does not."""
        for decoder in self._decoders:
            if not self._is_empty and not decoder.is_complete():
                raise decoder.error("it is truncated")

    @staticmethod
    def _through(decoder: _EncodingDecoder, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield from decoder.pieces(chunk)

    def _counted(self, decoder: _EncodingDecoder, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._n_between += len(chunk)
            if self._n_between > self._max_bytes:
                raise decoder.error("it expands to more than max_bytes before it is an image")
            yield chunk


def parse_encodings(text: str) -> tuple[str, ...]:
    """Return the encodings of a Content-Encoding header in lower case, without ``identity``."""
    if not text:  # of nearly all responses
        return ()
    names = (name.strip().lower() for name in text.split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def unsupported(encodings: tuple[str, ...]) -> str | None:
    """Return why a body with these encodings is not read, None if it is."""
    for name in encodings:
        if name not in _DECODERS:
            return f"unsupported Content-Encoding {name[:20]!r}"
    if len(encodings) > _MAX_ENCODINGS:
        return f"{len(encodings)} encodings of the body, more than {_MAX_ENCODINGS}"
    return None
