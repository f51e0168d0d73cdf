"""Embedded previews of RAW files of cameras, with the package rawpy, the extra ``raw``.

The sensor data are not developed: each program does it in its own way, and it takes seconds. Cameras put a finished
JPEG beside the data, which is what photo managers show.
"""

import io
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.guard import Data

# The EXIF orientation for LibRaw's `flip`: 1 mirrors left and right, 2 top and bottom, 4 swaps rows and columns.
_ORIENTATIONS: Final = (1, 2, 4, 3, 5, 8, 6, 7)

_EXIF_MARKER: Final = b"\xff\xe1"
_COMPARED_BYTES: Final = 64


class Preview(NamedTuple):
    """The largest preview in a RAW file.

    Parameters
    ----------
    jpeg
        The preview as a JPEG; empty if it is stored as pixels.
    pixels
        The pixels, uint8, ``(rows, columns, 3)`` or ``(rows, columns)``; None for a JPEG.
    orientation
        EXIF orientation of the RAW file, 1 to 8, which holds for a preview that has none of its own.
    """

    jpeg: bytes
    pixels: npt.NDArray[np.uint8] | None
    orientation: int


def read_preview(data: Data) -> Preview:
    """Return the largest preview in a RAW file.

    Raises
    ------
    EOFError
        If the file ends early.
    ValueError
        If it has no preview, or is damaged.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            thumbnail = raw.extract_thumb()
            flip = int(raw.sizes.flip)
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, rawpy.NotSupportedError) as error:
        raise ValueError("no embedded preview that can be read") from error
    except NotImplementedError as error:  # another kind of preview
        raise ValueError("no embedded preview that can be read") from error
    except rawpy.LibRawError as error:
        raise (EOFError if isinstance(error, rawpy.LibRawIOError) else ValueError)(_reason(error)) from error
    orientation = _ORIENTATIONS[flip] if 0 <= flip < len(_ORIENTATIONS) else 1
    if thumbnail.format == rawpy.ThumbFormat.JPEG:
        return Preview(_as_stored(bytes(thumbnail.data), bytes(data)), None, orientation)
    if not isinstance(thumbnail.data, np.ndarray) or thumbnail.data.dtype != np.uint8:
        raise ValueError("no embedded preview that can be read")
    return Preview(b"", thumbnail.data, orientation)


def _as_stored(preview: bytes, data: bytes) -> bytes:
    """Return a preview as the file has it: LibRaw puts an EXIF block before one that does not begin with its own.

    Its block would hide an orientation of the preview.
    """
    if preview[2:4] != _EXIF_MARKER:
        return preview
    stored = preview[:2] + preview[4 + int.from_bytes(preview[4:6], "big") :]
    return stored if len(stored) > _COMPARED_BYTES and data.find(stored[:_COMPARED_BYTES]) >= 0 else preview


def _reason(error: Any) -> str:
    reason = error.args[0] if error.args else type(error).__name__
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
