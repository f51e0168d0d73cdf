"""Boxes of a JPEG 2000 for its pixels, without all others, which may be damaged or large."""

from typing import Final

Data = bytes | memoryview

_KEPT: Final = (b"jP  ", b"ftyp", b"jp2h")
_PIXELS: Final = b"jp2c"


def only_pixels(data: Data) -> bytes:
    """Return a JPEG 2000 with its header and its pixels only.

    Raises
    ------
    EOFError
        If there are no pixels.
    """
    view, at = memoryview(data), 0
    kept: list[memoryview] = []
    while at + 8 <= len(view):
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        if length == 1:
            length = int.from_bytes(view[at + 8 : at + 16], "big")
        if name == _PIXELS:
            return b"".join([*kept, view[at : at + length if length else len(view)]])
        if length < 8:
            break
        if name in _KEPT:
            kept.append(view[at : at + length])
        at += length
    raise EOFError("no pixels")
