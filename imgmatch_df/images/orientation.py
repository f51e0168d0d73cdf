"""Orientation of an image by its EXIF block, as OpenCV reads it."""

from PIL import ImageFile

from imgmatch_df.images import jpeg
from imgmatch_df.images.kernels import codecs


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in an EXIF block, 1 to 8; 1 if it is invalid, None if there is none.

    Parameters
    ----------
    exif
        The block, from its byte order mark on.
    """
    return codecs.parse_orientation(codecs.as_bytes(exif), 0, len(exif)) or None if exif else None


def orientation_of(image: ImageFile.ImageFile, data: bytes | memoryview) -> int:
    """Return the orientation that is still to be applied to an image that Pillow has loaded from `data`."""
    if image.format == "JPEG":
        return jpeg.read_segments(data).orientation
    return exif_orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")) or 1
