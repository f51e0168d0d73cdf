"""The chunks of a WebP that count for its pixels, apart from all others, which may be damaged."""

import struct
from typing import Final

Data = bytes | memoryview

_CHUNK: Final = struct.Struct("<4sI")
_PIXELS: Final = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_FLAGS: Final = 0x1A  # alpha, animation, EXIF


def only_pixels(data: Data) -> bytes:
    """Return a WebP of the chunks that make its pixels, and of its EXIF block.

    Raises
    ------
    EOFError
        If the file ends within a chunk that counts.
    """
    view, at = memoryview(data), 12
    kept: list[bytes | memoryview] = []
    is_cut = int.from_bytes(view[4:8], "little") + 8 > len(view)
    while at + 8 <= len(view):
        name, length = _CHUNK.unpack_from(view, at)
        end = at + 8 + length
        # Without its EXIF block a file that is cut may be the image unturned.
        needed = name in _PIXELS or (name == b"EXIF" and is_cut)
        if needed and end > len(view):
            raise EOFError(f"chunk {name!r} of {length:,} bytes announced, {len(view) - at - 8:,} found")
        if name == b"VP8X" and length >= 10:
            kept += [view[at : at + 8], bytes([view[at + 8] & _FLAGS]), view[at + 9 : end], b"\0" * (length % 2)]
        elif name in _PIXELS or (name == b"EXIF" and end <= len(view)):
            kept += [view[at:end], b"\0" * (length % 2)]
        at = end + length % 2
    body = b"".join(kept)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
