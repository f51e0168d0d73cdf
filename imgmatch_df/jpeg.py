"""The segments of a JPEG: the orientation in its EXIF block, and what counts for its pixels."""

from typing import Final

from imgmatch_df.exif import exif_orientation

Data = bytes | memoryview

_SCAN: Final = 0xDA
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a body
_COMMENT: Final = 0xFE
_EXIF: Final = b"Exif\0\0"
_COUNTING: Final = {0xE0: b"JFIF\0", 0xE1: b"Exif\0", 0xEE: b"Adobe"}  # they tell the colours and the orientation


def jpeg_orientation(data: Data) -> int:
    """Return the orientation of the first Exif segment that has one."""
    at, end = 2, len(data) - 4
    while at < end and data[at] == 0xFF and (marker := data[at + 1]) != _SCAN:
        if marker == 0xFF:  # padding
            at += 1
            continue
        after = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if marker == 0xE1 and data[at + 4 : at + 10] == _EXIF:
            orientation = exif_orientation(bytes(data[at + 10 : after]))
            if orientation is not None:
                return orientation
        at = after
    return 1


def only_pixels(data: Data) -> bytes:
    """Return a JPEG without comments, profiles, and bytes between its segments.

    Raises
    ------
    EOFError
        If the file ends before its first scan.
    """
    view, at = memoryview(data), 2
    kept = [view[:2]]
    while True:
        while at + 4 <= len(view) and not (view[at] == 0xFF and view[at + 1] not in (0, 0xFF)):
            at += 1
        if at + 4 > len(view):
            raise EOFError("no scan")
        marker = view[at + 1]
        if marker == _SCAN:
            return b"".join([*kept, view[at:]])
        end = at + 2 + (0 if marker in _STANDALONE else view[at + 2] << 8 | view[at + 3])
        body = view[at + 4 : end]
        if 0xE0 <= marker <= 0xEF:
            counts = len(body) >= 12 and bytes(body[:5]) == _COUNTING.get(marker)
        else:
            counts = marker != _COMMENT and marker not in _STANDALONE
        if counts:
            kept.append(view[at:end])
        at = max(end, at + 2)
