"""The orientation in an EXIF block, as OpenCV reads it."""

from imgmatch_df.images.kernels import codecs


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, that an EXIF block asks for, 1 where it asks for nonsense, None where for none.

    Parameters
    ----------
    exif
        The block, from its byte order mark on.
    """
    return codecs.exif_orientation(codecs.as_bytes(exif), 0, len(exif)) or None if exif else None
