"""Result of decoding an image, and what the decoders of all formats share: limits, error handling, messages."""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgmatch_df.errors import Failure
from imgmatch_df.images import decode_costs, pixel_budget
from imgmatch_df.images.quiet import no_warnings
from imgmatch_df.options import Options
from imgmatch_df.sources import describe

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_MAX_BYTES_PER_PIXEL: Final = 24  # of decoding, for any format
_QUOTED: Final = re.compile("b?(?:'[^']*'?|\"[^\"]*\"?)")  # Pillow quotes what it has read
_CUT: Final = re.compile("truncated|only got|not enough|EOF|missing dimensions", re.IGNORECASE)

# Exceptions of Pillow's plugins for broken input. 110,000 mutated files raised OSError, SyntaxError, ValueError,
# RuntimeError, TypeError and EOFError; `ImageFile` handles some of the others, and arithmetic with the values of a
# hostile header can raise the rest. Warning: a filter of the user can precede ours at any moment.
_PILLOW_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)


class DecodedImage(NamedTuple):
    """A decoded image.

    Parameters
    ----------
    pixels
        uint8, C-contiguous, as stored: ``(rows, columns, 4)`` with red, green, blue and an unused byte, or
        ``(rows, columns)`` grey. Part of a buffer of this thread: valid until the thread decodes again.
    orientation
        EXIF orientation, 1 to 8, not applied to `pixels` yet.
    width, height
        Size of the image as displayed, in pixels: after the orientation, before any scaling.
    detail
        What the pixels are, if they are not the image of the file itself: the preview of a RAW.
    """

    pixels: Pixels
    orientation: int
    width: int
    height: int
    detail: str | None = None


def decoded(pixels: Pixels, orientation: int, width: int, height: int) -> DecodedImage:
    """Return the result for pixels as stored; `width` and `height` are those before the orientation."""
    return DecodedImage(pixels, orientation, *((height, width) if orientation > 4 else (width, height)))


def admit(name: str, data: Data, width: int, height: int, options: Options) -> Failure | None:
    """Return why an image of this size is not decoded; otherwise wait for the pixel budget and return None."""
    n_pixels = width * height
    if n_pixels > options.max_pixels:
        return too_many_pixels(width, height, options)
    if n_pixels * _MAX_BYTES_PER_PIXEL <= pixel_budget.SMALL:  # nearly every image
        return None
    return admit_bytes(name, width, height, decode_costs.n_bytes(name, data, width, height), options)


def admit_bytes(name: str, width: int, height: int, n_bytes: int, options: Options) -> Failure | None:
    """Return why an image that takes `n_bytes` to decode is not decoded; otherwise wait and return None."""
    limit = decode_costs.max_bytes(options.max_pixels)
    if n_bytes > limit:
        return Failure(
            "too_many_pixels",
            f"{name} of {width}x{height} pixels takes {n_bytes / 1e9:.2f} GB to decode, more than the "
            f"{limit / 1e9:.2f} GB of max_pixels={options.max_pixels:,}; raise max_pixels to allow it",
        )
    pixel_budget.PIXELS.take(n_bytes)
    return None


def guarded(
    name: str, decode: Callable[[Data, Options], DecodedImage | Failure], data: Data, options: Options
) -> DecodedImage | Failure:
    """Call a decoder, without warnings; return a failure for the exceptions that broken images cause."""
    try:
        with no_warnings():
            return decode(data, options)
    except Image.DecompressionBombError as error:
        return Failure("too_many_pixels", f"{error} raise PIL.Image.MAX_IMAGE_PIXELS to allow it")
    except _PILLOW_ERRORS as error:
        return Failure("decode_failed", _broken(name, error))


def too_many_pixels(width: int, height: int, options: Options) -> Failure:
    """Return the failure of an image that is larger than `max_pixels`."""
    return Failure(
        "too_many_pixels",
        f"{width}x{height} = {width * height:,} pixels, more than max_pixels={options.max_pixels:,}; "
        "raise max_pixels to allow it",
    )


def _broken(name: str, error: BaseException) -> str:
    reason = describe(_QUOTED.sub("…", " ".join(str(error).split())), 160)
    if isinstance(error, EOFError | struct.error) or _CUT.search(reason):
        return f"truncated {name}: {reason}"
    if isinstance(error, OSError | SyntaxError | ValueError):
        return f"broken {name}: {reason}"
    return f"broken {name}: {type(error).__name__}: {reason}"
