"""The orientation in an EXIF block, as OpenCV reads it."""

import struct
from typing import Final

_ORIENTATION: Final = 0x0112


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, that an EXIF block asks for, 1 where it asks for nonsense, None where for none.

    Parameters
    ----------
    exif
        The block, from its byte order mark on.
    """
    order = "<" if exif.startswith(b"II") else ">"  # as OpenCV, which takes any other mark for big endian
    try:
        mark, start = struct.unpack_from(order + "HI", exif, 2)
        (n_entries,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * n_entries if mark == 42 else 0, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return None
