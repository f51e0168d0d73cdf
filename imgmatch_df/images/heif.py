"""Decoder of HEIC and HEIF with the package pillow-heif, the extra ``heif``."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgmatch_df.errors import Failure
from imgmatch_df.images.alpha import BACKGROUNDS, composite
from imgmatch_df.images.guard import Data, DecodedImage, admit, decoded
from imgmatch_df.images.heif_items import check_items
from imgmatch_df.images.pixels import stored_samples
from imgmatch_df.options import Options

_DTYPES: Final = {"I;16": np.dtype("<u2")}  # grey of 10 and 12 bits; pillow-heif cuts colours to 8 bits itself
_MAX_MISSING_BYTES: Final = 1 << 20
_BANDS: Final = {"L": 1, "I;16": 1, "RGB": 3, "RGBA": 4}


def decode_heif(data: Data, options: Options) -> DecodedImage | Failure:
    """Return the primary image of a HEIF file.

    libheif puts the tiles of a grid together, and applies rotation, mirroring and crop (`irot`, `imir`, `clap`). The
    EXIF orientation is ignored, as the format demands: phones write both.

    Raises
    ------
    EOFError
        If the file ends early.
    ValueError
        If it is damaged, has far more pixels in its tiles than as a whole, or is coded with a codec that the libheif
        of pillow-heif lacks.
    """
    import pillow_heif

    # pillow-heif fails where EXIF is cut off.
    n_missing = min(max(0, check_items(data) - len(data)), _MAX_MISSING_BYTES)
    try:
        file = pillow_heif.open_heif(bytes(data) + bytes(n_missing), convert_hdr_to_8bit=True)
        width, height = file.size
        if (refused := admit("HEIC", data, width, height, options)) is not None:
            return refused
        # libheif refuses frames that are larger than the size in the container.
        samples = file.data
    except (RuntimeError, SyntaxError, ValueError) as error:
        raise (EOFError if "end of file" in str(error).lower() else ValueError)(str(error)) from error
    (width, height), mode, stride = file.size, file.mode, file.stride
    if mode == "RGBa":  # multiplied by alpha
        image = Image.frombuffer(mode, (width, height), samples, "raw", mode, stride, 1).convert("RGBA")
        samples, mode, stride = image.tobytes(), "RGBA", 4 * width
    if mode not in _BANDS:
        raise ValueError(f"unknown mode {mode}")
    dtype = _DTYPES.get(mode, np.dtype(np.uint8))
    sample_strides = (_BANDS[mode] * dtype.itemsize, dtype.itemsize)
    array: npt.NDArray[Any] = np.ndarray(
        (height, width, _BANDS[mode]), dtype, samples, strides=(stride, *sample_strides)
    )
    pixels = stored_samples(array, 8 * dtype.itemsize)
    background = BACKGROUNDS[options.alpha]
    if background is not None and mode == "RGBA":
        composite(pixels, pixels[..., 3], background)
    return decoded(pixels, 1, width, height)
