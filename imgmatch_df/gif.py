"""The blocks of a GIF that make its first frame, apart from all others, which may be damaged or large."""

import re
from typing import Final

Data = bytes | memoryview

_BLOCK: Final = re.compile(rb"[!,;]")  # what may begin here: an extension, a frame, the end
_CONTROL: Final = 0xF9


def first_frame(data: Data) -> Data:
    """Return a GIF of the palette, the first frame, and the last control extension before it.

    Raises
    ------
    EOFError
        If the file ends before its first frame.
    """
    view = memoryview(data)
    if len(view) < 13:
        raise EOFError(f"{len(view)} bytes")
    at = start = 13 + (3 << (view[10] & 7) + 1 if view[10] & 0x80 else 0)
    control = view[:0]
    while True:
        found = _BLOCK.search(view, at)
        if found is None or found[0] == b";":
            raise EOFError("no frame")
        at = found.start()
        if found[0] == b",":
            break
        label, body = bytes(view[at + 1 : at + 2]), at + 2
        end = _after_blocks(view, body)
        if label == bytes([_CONTROL]) and bytes(view[body : body + 1]) == b"\4":
            control = view[at : body + 5]
        at = end
    if at + 10 > len(view):
        raise EOFError("a frame without a size")
    if at - start in (0, 8) and at - start == (len(control) + 1 if control else 0):
        return data
    return b"".join([view[:start], control, b"\0" if control else b"", view[at:]])


def has_palette(data: Data) -> bool:
    """Return whether a GIF of one frame, as `first_frame` returns it, has a palette."""
    control = 8 if data[13] == ord("!") else 0
    return bool(data[10] & 0x80) or bool(data[13 + control + 9] & 0x80)


def _after_blocks(view: memoryview, at: int) -> int:
    while at < len(view) and view[at]:
        at += 1 + view[at]
    return at + 1
