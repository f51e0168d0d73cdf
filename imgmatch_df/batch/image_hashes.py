"""One encoded image to its hashes: decode, then hash, in the calling thread."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imgmatch_df.errors import Failure
from imgmatch_df.images import pixel_budget
from imgmatch_df.options import Options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ImageHashes(NamedTuple):
    """What an image gives beside its bmh1.

    Parameters
    ----------
    width, height
        Its size as seen, in pixels.
    phash
        64 bits.
    """

    width: int
    height: int
    phash: int


def hash_image(data: Any, options: Options, bmh1_out: "NDArray[np.uint8]") -> ImageHashes | Failure:
    """Return the hashes of an encoded image, or why it has none.

    Parameters
    ----------
    data
        The file, whole, with the buffer protocol.
    options
        How to decode.
    bmh1_out
        uint8[121], gets the bmh1.
    """
    from imgmatch_df.hashes.kernels.opencv import hash_picture
    from imgmatch_df.images.decode import decode_image

    with pixel_budget.PIXELS:
        try:
            image = decode_image(data, options)
        except MemoryError:
            return Failure("decode_failed", "not enough memory to decode it")
        if isinstance(image, Failure):
            return image
        phash = hash_picture(image.pixels, image.orientation, bmh1_out)
        return ImageHashes(image.width, image.height, int(phash))


def sample_images() -> list[bytes]:
    """Return one small image of each kind: hashing them compiles and loads all that decoding needs."""
    from io import BytesIO

    from PIL import Image

    grey = Image.linear_gradient("L").resize((300, 280))
    images = []
    for file_format, modes in _SAMPLES.items():
        for mode in modes:
            stream = BytesIO()
            grey.convert(mode).save(stream, file_format)
            images.append(stream.getvalue())
    return images


_SAMPLES: Final = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "P", "RGBA"),
    "TIFF": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB",),
    "GIF": ("P",),
    "BMP": ("RGB", "P"),
    "PPM": ("L",),
}
