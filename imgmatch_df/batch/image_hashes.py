"""Hashing of one encoded image in the calling thread."""

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from imgmatch_df.errors import Failure, ImgMatchError
from imgmatch_df.hashes.kinds import ImageColumn, load_kernel
from imgmatch_df.images import pixel_budget
from imgmatch_df.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# The hash kinds and measures to compute, each with a row of its `empty_rows` to write to.
HashBuffers: TypeAlias = "Mapping[ImageColumn, NDArray[Any]]"


class ImageSize(NamedTuple):
    """The size of an image as seen, in pixels, and what was hashed if it is not the image of the file itself."""

    width: int
    height: int
    detail: str | None = None


def hash_image(data: Any, options: Options, out: HashBuffers) -> ImageSize | Failure:
    """Write the hashes of an encoded image; return its size, or why it has no hashes.

    Parameters
    ----------
    data
        The whole file, an object with the buffer protocol.
    options
        How to decode and hash.
    out
        Buffers for the hashes. Only these kinds are computed.

    Raises
    ------
    ArgumentError
        If the kernel of a kind cannot be imported.
    ImgMatchError
        If a kernel raises an exception.
    """
    decode, squares = _modules()
    with pixel_budget.PIXELS:
        try:
            image = decode.decode_image(data, options)
        except MemoryError:
            return Failure("decode_failed", "not enough memory to decode it")
        if isinstance(image, Failure):
            return image
        hash_input = squares.HashInput(image.pixels, image.orientation, data, options)
        for kind, row in out.items():
            kernel = load_kernel(kind)
            try:
                kernel(hash_input, row)
            except MemoryError:
                raise
            except Exception as error:
                raise ImgMatchError(
                    f"the kernel {kind.kernel!r} of the hash kind {kind.name!r} failed: {type(error).__name__}: {error}"
                    "\nHint: mend the kernel; it must hash every image that is decoded."
                ) from error
        return ImageSize(image.width, image.height, image.detail)


@cache
def _modules() -> tuple[Any, Any]:
    """Import what decodes and hashes, once: a statement in a function takes a microsecond each time."""
    from imgmatch_df.hashes import squares
    from imgmatch_df.images import decode

    return decode, squares


def sample_images() -> list[bytes]:
    """Return one small image of each format and mode; hashing them compiles and loads everything for decoding."""
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
