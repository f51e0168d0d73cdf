"""Decoders of the formats: Pillow with its plugins for most, own readers for PNG, BMP, PNM and TIFF."""

import io
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImagePalette,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from imgmatch_df.errors import Failure
from imgmatch_df.images import avif, bmp, gif, jp2, jpeg, pixel_budget, png, png_pixels, pnm, tiff, webp
from imgmatch_df.images.alpha import BACKGROUNDS, composite
from imgmatch_df.images.guard import Data, DecodedImage, Pixels, admit, admit_bytes, decoded, guarded, too_many_pixels
from imgmatch_df.images.kernels import codecs
from imgmatch_df.images.orientation import exif_orientation, orientation_of
from imgmatch_df.images.pixels import SCRATCH, ink_to_rgb, stored, strips
from imgmatch_df.images.rows import row_slices
from imgmatch_df.options import Options

_JPEG_BYTES_PER_PIXEL: Final = 10  # of Pillow; simplejpeg takes 4
NOT_DECODED: Final = 0xA5  # value of a row before it is decoded, to detect that it is missing


class ImageFormat(NamedTuple):
    """A format that a plugin of Pillow reads.

    Parameters
    ----------
    name
        Name of the format in Pillow.
    plugin
        Its class.
    load
        Returns the pixels of an opened image.
    reduce
        Returns the file without the parts that do not affect the pixels, which may be damaged or large.
    always
        Whether to reduce each file, not only after a failure.
    largest
        Returns the largest size that is decoded, if that is not the size of the image.
    """

    name: str
    plugin: type[ImageFile.ImageFile]
    load: Callable[[Any, Data], Pixels]
    reduce: Callable[[Data], Data] | None = None
    always: bool = False
    largest: Callable[[Data], tuple[int, int]] | None = None

    def accept(self, header: bytes) -> bool | str:
        """Return whether a file may begin with `header`."""
        _, accept = Image.OPEN.get(self.name, (None, None))
        return accept is not None and accept(header)

    def decode(self, data: Data, options: Options) -> DecodedImage | Failure:
        """Return the image in `data`."""
        if not self.always:
            result = decode_with_pillow(data, self, options)
            if self.reduce is None or not isinstance(result, Failure) or result.status != "decode_failed":
                return result
        return guarded(self.name, self.open_reduced, data, options)

    def open(self, data: Data, options: Options) -> DecodedImage | Failure:
        """Return the image in `data`; exceptions of Pillow are raised."""
        return _open_with_pillow(data, self, options)

    def open_reduced(self, data: Data, options: Options) -> DecodedImage | Failure:
        """Return the image in the reduced `data`; exceptions of Pillow are raised."""
        return self.open(self.reduce(data) if self.reduce else data, options)


def decode_with_pillow(data: Data, format_: ImageFormat, options: Options) -> DecodedImage | Failure:
    """Return the image in `data`, or why it cannot be decoded, from the complete file."""
    return guarded(format_.name, format_.open, data, options)


def _open_with_pillow(data: Data, format_: ImageFormat, options: Options) -> DecodedImage | Failure:
    # The plugin itself, not `Image.open`: the limit of that is a global of the process, and it issues warnings.
    if format_.largest is not None:
        width, height = format_.largest(data)
        if (refused := admit(format_.name, data, width, height, options)) is not None:
            return refused
    with format_.plugin(io.BytesIO(data)) as image:
        width, height = image.size
        if (refused := admit(format_.name, data, width, height, options)) is not None:
            return refused
        pixels = format_.load(image, data)
        if options.alpha != "drop":
            _put_over_background(pixels, _alpha(image, pixels), options)
        return decoded(pixels, orientation_of(image, data), width, height)


def _alpha(image: ImageFile.ImageFile, pixels: Pixels) -> Pixels | None:
    """Return the alpha channel of a loaded image, None if all pixels are opaque."""
    if pixels.ndim == 3 and (image.mode == "RGBA" or image.format == "GIF"):
        return pixels[..., 3]
    return np.asarray(image.getchannel(1)) if image.mode == "LA" else None


def _put_over_background(pixels: Pixels, alpha: Pixels | None, options: Options) -> None:
    background = BACKGROUNDS[options.alpha]
    if background is not None and alpha is not None:
        composite(pixels, alpha, background)


def _load(image: Any, _: Data) -> Pixels:
    image.load()
    image._decoder = None  # of AVIF: it occupies up to 8 bytes per pixel
    return stored(image)


def _load_webp(image: Any, data: Data) -> Pixels:
    # As `load` of the plugin, without Pillow's copy of the pixels: 12 bytes per pixel instead of 16.
    if not hasattr(image, "_get_next"):  # a private method
        return _load(image, data)
    frame, *_ = image._get_next()
    image._decoder = None
    pixels = SCRATCH.take(len(frame)).reshape(image.height, image.width, 4)
    pixels[...] = np.frombuffer(frame, np.uint8).reshape(pixels.shape)
    return pixels


def _load_jpeg(image: JpegImagePlugin.JpegImageFile, data: Data) -> Pixels:
    pixel_budget.PIXELS.take(_JPEG_BYTES_PER_PIXEL * image.width * image.height)
    pixels = _load(image, data)
    if image.mode == "CMYK":
        np.subtract(255, pixels, out=pixels)  # Pillow has inverted the values, which Adobe stores inverted
        ink_to_rgb(pixels)
    return pixels


def _decode_png(data: Data, options: Options) -> DecodedImage | Failure:
    chunks = png.read_chunks(data)
    if (refused := admit("PNG", data, chunks.width, chunks.height, options)) is not None:
        return refused
    if (common := png_pixels.read_pixels(chunks, has_alpha=options.alpha != "drop")) is not None:
        _put_over_background(common.pixels, common.alpha, options)
        return decoded(common.pixels, exif_orientation(chunks.exif) or 1, chunks.width, chunks.height)
    with PngImagePlugin.PngImageFile(io.BytesIO(chunks.data)) as image:
        ImageFile.ImageFile.load_prepare(image)
        row = chunks.last_row()
        n_bands = len(image.getbands())
        image.im.paste(NOT_DECODED if n_bands == 1 else (NOT_DECODED,) * n_bands, (0, row, image.width, row + 1))
        image.load()
        if _is_not_decoded(image, row) and not chunks.pixels_are_complete():
            raise EOFError("rows of pixels are missing")
        alpha = None
        if options.alpha != "drop" and chunks.transparency:
            alpha = _transparency(image, chunks)
        pixels = stored(image)
        if options.alpha != "drop":
            _put_over_background(pixels, _alpha(image, pixels) if alpha is None else alpha, options)
    return decoded(pixels, exif_orientation(chunks.exif) or 1, chunks.width, chunks.height)


def _is_not_decoded(image: Image.Image, row: int) -> bool:
    first: Any = image.im.getpixel((0, row))  # decides nearly always
    if NOT_DECODED not in (first if isinstance(first, tuple) else (first & 0xFF,)):
        return False
    last = np.array(image.crop((0, row, image.width, row + 1)))
    return bool(last.all() if image.mode == "1" else (last.view(np.uint8) == NOT_DECODED).all())


def _transparency(image: Image.Image, chunks: png.Png) -> Pixels | None:
    """Return the alpha channel of a loaded PNG by its chunk `tRNS`, None if all pixels are opaque."""
    low = None
    if chunks.bits == 16 and image.mode == "RGB":  # Pillow reads the high bytes, so the low bytes are read again
        with PngImagePlugin.PngImageFile(io.BytesIO(chunks.data)) as low:
            low.tile = [tile._replace(args=_low_bytes(tile.args)) for tile in low.tile]
            low.load()
    alpha = np.empty((image.height, image.width), np.uint8)
    for rows, strip in strips(image):
        samples: npt.NDArray[Any] = np.asarray(strip.convert("L") if strip.mode == "1" else strip)
        if low is not None:
            low_bytes = np.asarray(low.crop((0, rows.start, image.width, rows.stop)))
            samples = samples.astype(np.uint16) * np.uint16(256) + low_bytes
        part = png.transparent(chunks, samples)
        if part is None:
            return None
        alpha[rows] = part
    return alpha


def _low_bytes(args: Any) -> Any:
    return "RGB;16L" if isinstance(args, str) else ("RGB;16L", *args[1:])


def _decode_bmp(data: Data, options: Options) -> DecodedImage | Failure:
    header = bmp.read_header(data)
    if (refused := admit("BMP", data, header.width, header.height, options)) is not None:
        return refused
    pixels, alpha = bmp.read_pixels(data, header, SCRATCH.take)
    _put_over_background(pixels, alpha, options)
    return decoded(pixels, 1, header.width, header.height)


def _decode_pnm(data: Data, options: Options) -> DecodedImage | Failure:
    header = pnm.read_header(data)
    if (refused := admit("PNM", data, header.width, header.height, options)) is not None:
        return refused
    return decoded(pnm.read_pixels(data, header), 1, header.width, header.height)


def _load_gif(image: GifImagePlugin.GifImageFile, data: Data) -> Pixels:
    _, extents, offset, how = image.tile[0]
    left, top, right, bottom = extents or (0, 0, 0, 0)
    background, palette, own_palette = image.info.get("background"), image.global_palette, image.palette
    transparent = image.info.get("transparency")
    indices = None
    if image.mode in ("P", "L") and isinstance(how, tuple):
        bits, interlaced = how[:2]
        indices = gif.read_indices(data, offset, (right - left, bottom - top), bits, interlaced=bool(interlaced))
    if indices is None:
        image.load()
    if image.mode not in ("P", "L"):  # the user has changed `GifImagePlugin.LOADING_STRATEGY` of Pillow
        return stored(image)
    # Pixels that are transparent in the first frame, or outside of it, have the background colour in OpenCV.
    colours = np.zeros((256, 4), np.uint8)
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 3)  # Pillow drops a palette that equals this one
    if not gif.has_palette(data):
        ramp[1] = 255  # as OpenCV: black, white, then greys
    own = ramp if image.mode == "L" or own_palette is None else _colours_of(own_palette)
    shared = ramp if palette is None else _colours_of(palette)
    behind = np.zeros(4, np.uint8)
    behind[:3] = 0 if background is None or background >= len(shared) else shared[background]
    colours[: len(own), :3] = own
    colours[:, 3] = 255  # opaque, unlike the background
    if transparent is not None:
        colours[transparent] = behind
    table = colours.view(np.uint32)[:, 0]
    pixels = SCRATCH.take(4 * image.width * image.height).view(np.uint32).reshape(image.height, image.width)
    if indices is not None and indices.shape == pixels.shape:
        indices.flags.writeable = False  # one argument type, for which the kernel is compiled once
        codecs.look_up(indices, table, True, pixels)
        return pixels.view(np.uint8).reshape(*pixels.shape, 4)
    pixels[...] = behind.view(np.uint32)
    frame = pixels[top:bottom, left:right]
    if indices is not None:
        for rows in row_slices(*indices.shape):
            frame[rows] = table[indices[rows]]
    else:
        for rows, strip in strips(image.crop((left, top, right, bottom))):
            frame[rows] = table[np.asarray(strip)]
    return pixels.view(np.uint8).reshape(*pixels.shape, 4)


def _colours_of(palette: ImagePalette.ImagePalette) -> Pixels:
    return np.frombuffer(bytes(palette.palette), np.uint8).reshape(-1, 3)


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def _decode_tiff(data: Data, options: Options) -> DecodedImage | Failure:
    def admit(width: int, height: int, n_bytes: int) -> None:
        if (failure := admit_bytes("TIFF", width, height, n_bytes, options)) is not None:
            raise _RefusedError(failure)

    try:
        image = tiff.decode(data, options.max_pixels, SCRATCH.take, BACKGROUNDS[options.alpha], admit=admit)
        return decoded(*image)
    except _RefusedError as error:
        return error.failure
    except tiff.TooManyPixelsError as error:
        return too_many_pixels(*error.size, options)
    except tiff.UnsupportedTiffError as error:
        return Failure("decode_failed", f"unsupported kind of TIFF: {error}")


JPEG: Final = ImageFormat("JPEG", JpegImagePlugin.JpegImageFile, _load_jpeg, jpeg.only_pixels, always=True)
PILLOW_FORMATS: Final = (
    JPEG,
    ImageFormat("WEBP", WebPImagePlugin.WebPImageFile, _load_webp, webp.only_pixels),
    ImageFormat("GIF", GifImagePlugin.GifImageFile, _load_gif, gif.first_frame, always=True),
    ImageFormat("AVIF", AvifImagePlugin.AvifImageFile, _load, largest=avif.largest_frame),
    ImageFormat("PPM", PpmImagePlugin.PpmImageFile, _load),
    ImageFormat("JPEG2000", Jpeg2KImagePlugin.Jpeg2KImageFile, _load, jp2.only_pixels),
)
READERS: Final = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n").match, _decode_png),
    ("BMP", re.compile(rb"BM").match, _decode_bmp),
    ("TIFF", lambda header: header.startswith(tiff.SIGNATURES), _decode_tiff),
    ("PNM", re.compile(rb"P[1-6]\s").match, _decode_pnm),
)
