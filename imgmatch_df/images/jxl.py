"""Decoder of JPEG XL with the package imagecodecs, the extra ``jxl``."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from imgmatch_df.errors import Failure
from imgmatch_df.images.alpha import BACKGROUNDS, composite
from imgmatch_df.images.guard import Data, DecodedImage, admit_bytes, decoded, too_many_pixels
from imgmatch_df.images.jxl_header import Header, read_header
from imgmatch_df.images.pixels import eight_bits, stored_samples
from imgmatch_df.options import Options

_BYTES_PER_PIXEL: Final = 12  # beside the samples: measured are 5 for libjxl, and 4 for the result
_JPEG_BYTES_PER_PIXEL: Final = 16  # of a packed JPEG: its coefficients, twice
_MAX_EXTRA_CHANNELS: Final = 3
_CUT: Final = "NEED_MORE_INPUT"


def decode_jxl(
    data: Data, options: Options, decode_jpeg: Callable[[Data, Options, int], DecodedImage | Failure]
) -> DecodedImage | Failure:
    """Return the first frame of a JPEG XL; of a JPEG that was packed without loss, the pixels of that JPEG.

    Parameters
    ----------
    data, options
        As `decode_image`.
    decode_jpeg
        Decodes a JPEG.

    Raises
    ------
    EOFError
        If the file ends early.
    ValueError
        If it is damaged.
    """
    import imagecodecs

    header = read_header(data)
    if (refused := _admit(header, options)) is not None:
        return refused
    file = bytes(data)
    if header.is_jpeg:
        with suppress(imagecodecs.JpegxlError, ValueError):  # such as a grey one: decoded below
            return decode_jpeg(bytes(imagecodecs.jpegxl_decode_jpeg(file, numthreads=1)), options, 1)
    try:
        samples = imagecodecs.jpegxl_decode(file, index=0, numthreads=1)
    except imagecodecs.JpegxlError as error:
        raise (EOFError if _CUT in str(error) else ValueError)(str(error)) from error
    colours, alpha = _channels(samples, header)
    pixels = stored_samples(colours, header.bits)
    if (background := BACKGROUNDS[options.alpha]) is not None and alpha is not None:
        composite(pixels, eight_bits(alpha, header.bits).astype(np.uint8), background)
    height, width = colours.shape[:2]
    return decoded(pixels, 1, width, height)


def _admit(header: Header, options: Options) -> Failure | None:
    width, height = header.width, header.height
    if width * height > options.max_pixels:
        return too_many_pixels(width, height, options)
    if header.n_extra > _MAX_EXTRA_CHANNELS:
        return Failure(
            "decode_failed", f"JPEG XL of {header.n_extra:,} channels beside its colours, at most 3 are read"
        )
    n_bytes = _BYTES_PER_PIXEL + (3 + header.n_extra) * (-(-header.bits // 8))
    n_bytes = max(n_bytes, _JPEG_BYTES_PER_PIXEL if header.is_jpeg else 0)
    return admit_bytes("JPEG XL", width, height, n_bytes * width * height, options)


def _channels(samples: npt.NDArray[Any], header: Header) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return the colours, ``(rows, columns)`` or ``(rows, columns, 3)``, and the alpha channel if there is one."""
    sizes = {(header.height, header.width), (header.width, header.height)}  # libjxl has turned it upright
    if samples.ndim == 3 and samples.shape[:2] not in sizes and samples.shape[1:] in sizes:
        return samples[0], None  # planes of a grey image and of channels that are not transparency
    if samples.shape[:2] not in sizes or samples.shape[2:] not in ((), (1,), (2,), (3,), (4,)):
        raise ValueError(f"an array of {' x '.join(map(str, samples.shape))}")
    match samples.shape[2:]:
        case (1,) | (2,) as n_channels:
            return samples[..., 0], samples[..., 1] if n_channels == (2,) else None
        case (4,):
            return samples[..., :3], samples[..., 3]
    return samples, None
