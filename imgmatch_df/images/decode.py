"""Decoder of images: the pixels that OpenCV's ``imdecode(data, IMREAD_COLOR)`` returns.

Nearly all images are JPEGs. libjpeg-turbo decodes them directly, into a buffer that is kept per thread; a JPEG that it
refuses is passed to Pillow. `formats` has the decoders of the other formats.
"""

from typing import Final

import simplejpeg

from imgmatch_df.errors import Failure
from imgmatch_df.images import extra_formats, foreign, jpeg, tiff, tiff_plain
from imgmatch_df.images.decode_budget import jpeg2000_budget, jpeg_budget
from imgmatch_df.images.formats import JPEG, NOT_DECODED, PILLOW_FORMATS, READERS
from imgmatch_df.images.guard import Data, DecodedImage, admit, decoded, guarded
from imgmatch_df.images.pixels import SCRATCH, ink_to_rgb
from imgmatch_df.options import Options

_FORMAT_NAMES: Final = {"PPM": "pnm", "HEIC": "heif", "JPEG XL": "jxl"}
_COLOURS: Final = {1: "Gray", 3: "YCbCr"}  # of as many components, or RGB
_SCALED_SIDE: Final = 256  # the larger one of the sizes that the hashes shrink an image to


def decode_image(data: Data, options: Options) -> DecodedImage | Failure:
    """Return the first image in `data`, or why it cannot be decoded.

    Parameters
    ----------
    data
        A complete encoded image.
    options
        `decode`, `max_pixels`, `formats` and `alpha` apply.

    Returns
    -------
    DecodedImage or Failure
        The pixels are valid until this thread decodes again. The failure is `too_many_pixels`, determined from the
        header before any pixel is decoded, or `decode_failed`.

    Notes
    -----
    Formats: JPEG, MPO, PNG, APNG, WebP, GIF, TIFF, BMP, AVIF, PBM, PGM, PPM, JPEG 2000; with extras HEIC, JPEG XL and
    the previews of RAW. The other plugins of Pillow are not used: one runs programs (EPS), some have no signature and
    accept any data (TGA), one takes 4 us per pixel (QOI: minutes for a small file), most formats are very rare.
    """
    header = bytes(data[:32])
    if header.startswith(b"\xff\xd8\xff"):
        return _refused("JPEG", None, options) or _decode_any_jpeg(data, options)
    if header.startswith(tiff.SIGNATURES):
        if _refused("TIFF", None, options) is None and (plain := tiff_plain.decode_plain(data, options)) is not None:
            return plain
        if name := foreign.raw_tiff(data):
            return _decode_raw(name, data, options)
    for name, accept, decode in READERS:
        if accept(header):
            result = _refused(name, None, options) or guarded(name, decode, data, options)
            is_broken = isinstance(result, Failure) and result.status == "decode_failed"
            camera = foreign.camera_raw(data) if is_broken else ""
            return _decode_raw(camera, data, options) if camera else result
    for format_ in PILLOW_FORMATS:
        if foreign.is_avif(data) if format_.name == "AVIF" else format_.accept(header) is True:
            budget = jpeg2000_budget(data) if format_.name == "JPEG2000" else None
            return _refused(format_.name, budget, options) or format_.decode(data, options)
    if name := foreign.raw_name(data):
        return _decode_raw(name, data, options)
    for extra_format in extra_formats.EXTRA_FORMATS:
        if extra_format.accept(data):
            return _refused(extra_format.name, None, options) or extra_format.decode(data, options, _decode_any_jpeg)
    return Failure("decode_failed", foreign.describe_unsupported(data))


def decode_preview(data: Data, options: Options, side: int) -> DecodedImage | Failure:
    """Return the image in `data` as `decode_image`; a JPEG in fewer pixels, at least `side` wide and high if it was.

    For images that are shown small: a large JPEG takes a third of the time.
    """
    if bytes(data[:3]) == b"\xff\xd8\xff":
        segments = jpeg.read_segments(data)
        if (refused := _refused("JPEG", jpeg_budget(data, segments), options)) is not None:
            return refused
        if (small := _decode_jpeg(data, options, segments.orientation, preview_side=side)) is not None:
            return small
    return decode_image(data, options)


def _refused(name: str, budget: str | None, options: Options) -> Failure | None:
    """Return why an image of a format is not decoded, None if it is."""
    if options.formats is not None and _FORMAT_NAMES.get(name, name.lower()) not in options.formats:
        return Failure("decode_failed", f"{name} is not among formats={', '.join(sorted(options.formats))}")
    return None if budget is None else Failure("decode_failed", f"{name} over a limit of decoding: {budget}")


def _decode_raw(name: str, data: Data, options: Options) -> DecodedImage | Failure:
    """Return the preview in a RAW file of the kind `name`."""
    return _refused("RAW", None, options) or extra_formats.decode_preview_of_raw(name, data, options, _decode_any_jpeg)


# --- JPEG, the fast path ---------------------------------------------------------------------------------------------


def _decode_any_jpeg(data: Data, options: Options, orientation: int = 1) -> DecodedImage | Failure:
    """Return the image of a JPEG; `orientation` holds if its EXIF has none."""
    segments = jpeg.read_segments(data, orientation)
    if (over := jpeg_budget(data, segments)) is not None:
        return Failure("decode_failed", f"JPEG over a limit of decoding: {over}")
    return _decode_jpeg(data, options, segments.orientation, segments) or _decode_odd_jpeg(
        data, options, segments.orientation
    )


def _decode_jpeg(
    data: Data,
    options: Options,
    orientation: int,
    segments: jpeg.Segments | None = None,
    *,
    damaged: bool = False,
    preview_side: int = 0,
) -> DecodedImage | Failure | None:
    """Return the image of a valid JPEG; with `damaged`, of any JPEG whose rows are all decoded; else None.

    With `preview_side` in colour, of at least that width and height, if the image has as much. With `segments`, the
    header is not read again.
    """
    try:
        if segments is None or options.decode == "scaled" or segments.n_components not in _COLOURS:
            segments = None
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=not damaged)
        else:
            height, width, colours = segments.height, segments.width, _COLOURS[segments.n_components]
        if (refused := admit("JPEG", data, width, height, options)) is not None:
            return refused if segments is None else _decode_jpeg(data, options, orientation)
        if colours not in ("YCbCr", "RGB", "Gray", "CMYK", "YCCK"):
            return None
        ink = colours in ("CMYK", "YCCK")
        scaled = options.decode == "scaled" and not ink and not preview_side
        grey = scaled or colours == "Gray"
        side = preview_side or (_SCALED_SIDE if scaled else 0)
        buffer = SCRATCH.take(width * height * (1 if grey else 4))
        if damaged:
            buffer[...] = NOT_DECODED
        pixels = simplejpeg.decode_jpeg(
            data,
            "CMYK" if ink else "GRAY" if grey else "RGBX",
            min_height=side,
            min_width=side,
            buffer=buffer,
            strict=not damaged,
        )
    except (ValueError, LookupError, MemoryError):
        return None
    if segments is not None and pixels.shape[:2] != (height, width):  # libjpeg has found another frame header
        return _decode_jpeg(data, options, orientation)
    if damaged and (pixels[-1] == NOT_DECODED).all():  # not all rows are decoded
        return None
    if ink:
        ink_to_rgb(pixels)
    return decoded(pixels[..., 0] if grey else pixels, orientation, width, height)


def _decode_odd_jpeg(data: Data, options: Options, orientation: int) -> DecodedImage | Failure:
    result = JPEG.decode(data, options)
    if isinstance(result, Failure) and result.status == "decode_failed" and not result.detail.startswith("truncated"):
        # All rows are decoded and only the end of the file is damaged: OpenCV accepts it.
        return _decode_jpeg(data, options, orientation, damaged=True) or result
    return result
