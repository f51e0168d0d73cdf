"""Encoded images to pixels, the pixels that OpenCV's ``imdecode(data, IMREAD_COLOR)`` gives.

A JPEG, which nearly every image is, goes to libjpeg-turbo directly, into a buffer that the thread keeps; a damaged one
goes to Pillow first. BMP, PNM and TIFF have readers of their own. Pillow reads every other format.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from imgmatch_df.errors import Failure
from imgmatch_df.images import avif, bmp, decode_costs, foreign, gif, jp2, jpeg, pixel_budget, png, pnm, tiff, webp
from imgmatch_df.images.alpha import BACKGROUNDS, composite
from imgmatch_df.images.decode_budget import jpeg2000_budget, jpeg_budget
from imgmatch_df.images.exif import exif_orientation
from imgmatch_df.images.pixels import SCRATCH as _SCRATCH
from imgmatch_df.images.pixels import ink_to_rgb, strips
from imgmatch_df.images.pixels import stored as _stored
from imgmatch_df.images.quiet import no_warnings
from imgmatch_df.options import Options
from imgmatch_df.sources import describe

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_SCALED_SIDE: Final = 256  # the larger of the two sizes that the hashes shrink a picture to
_MOST_BYTES_A_PIXEL: Final = 24  # that decoding takes
_BYTES_OF_JPEG_BY_PILLOW: Final = 10  # a pixel; simplejpeg takes 4
_UNTOUCHED: Final = 0xA5  # what a line holds before it is decoded, where it may be missing


class Picture(NamedTuple):
    """A decoded picture.

    Parameters
    ----------
    pixels
        uint8, C-contiguous, as stored: ``(rows, columns, 4)`` with red, green, blue and a byte without meaning, or
        ``(rows, columns)`` grey. They lie in a buffer of this thread: valid until the thread decodes again.
    orientation
        EXIF orientation, 1 to 8, still to be applied to `pixels`.
    width, height
        Size of the whole picture as seen, in pixels: after the orientation, before any scaling.
    """

    pixels: Pixels
    orientation: int
    width: int
    height: int


def decode_picture(data: Data, options: Options) -> Picture | Failure:
    """Return the first picture in `data`, or why there is none.

    Parameters
    ----------
    data
        An encoded image, whole.
    options
        `decode`, `max_pixels`, `formats` and `alpha` count here.

    Returns
    -------
    Picture or Failure
        The picture's pixels are valid until this thread decodes again. The failure is `too_many_pixels`, told from the
        header before any pixel is decoded, or `decode_failed`.

    Notes
    -----
    Formats: JPEG, MPO, PNG, APNG, WebP, GIF, TIFF, BMP, AVIF, PBM, PGM, PPM, JPEG 2000. The other plugins of
    Pillow stay shut: one runs programs (EPS), some have no signature and take anything (TGA), one needs 4 us a pixel
    (QOI: minutes for a small file), most are never met.
    """
    head = bytes(data[:32])
    if head.startswith(b"\xff\xd8\xff"):
        segments = jpeg.read_segments(data)
        if (refused := _refused("JPEG", jpeg_budget(data, segments), options)) is not None:
            return refused
        orientation = segments.orientation
        return _decode_jpeg(data, options, orientation) or _decode_odd_jpeg(data, options, orientation)
    for name, accept, decode in _READERS:
        if accept(head):
            return _refused(name, None, options) or _named(_guarded(name, decode, data, options), data)
    for format_ in _FORMATS:
        if foreign.is_avif(data) if format_.name == "AVIF" else format_.accept(head) is True:
            budget = jpeg2000_budget(data) if format_.name == "JPEG2000" else None
            return _refused(format_.name, budget, options) or format_.decode(data, options)
    return Failure("decode_failed", foreign.describe(data))


def _refused(name: str, budget: str | None, options: Options) -> Failure | None:
    """Return why an image of a format is not decoded, None where it is."""
    if options.formats is not None and {"PPM": "pnm"}.get(name, name.lower()) not in options.formats:
        return Failure("decode_failed", f"{name} is not among formats={', '.join(sorted(options.formats))}")
    return None if budget is None else Failure("decode_failed", f"{name} that asks for too much: {budget}")


def _admit(name: str, data: Data, width: int, height: int, options: Options) -> Failure | None:
    """Return why an image of that size is not decoded; wait until there is room for one that is."""
    n_pixels = width * height
    if n_pixels > options.max_pixels:
        return _too_many_pixels(width, height, options)
    if n_pixels * _MOST_BYTES_A_PIXEL <= pixel_budget.SMALL:  # nearly every image
        return None
    return _admit_bytes(name, width, height, decode_costs.n_bytes(name, data, width, height), options)


def _admit_bytes(name: str, width: int, height: int, n_bytes: int, options: Options) -> Failure | None:
    limit = decode_costs.max_bytes(options.max_pixels)
    if n_bytes > limit:
        return Failure(
            "too_many_pixels",
            f"{name} of {width}x{height} pixels takes {n_bytes / 1e9:.2f} GB to decode, more than the "
            f"{limit / 1e9:.2f} GB of max_pixels={options.max_pixels:,}; raise max_pixels to allow it",
        )
    pixel_budget.PIXELS.take(n_bytes)
    return None


def _named(result: Picture | Failure, data: Data) -> Picture | Failure:
    """Return `result`; where it is a failure, with the name of the camera's format that `data` has."""
    name = foreign.camera_raw(data) if isinstance(result, Failure) and result.status == "decode_failed" else ""
    return Failure("decode_failed", f"{name}, which is not read: {result[1]}") if name else result


# --- JPEG, the fast path ---------------------------------------------------------------------------------------------


def _decode_jpeg(data: Data, options: Options, orientation: int, *, damaged: bool = False) -> Picture | Failure | None:
    """Return the image of a sound JPEG, or of a `damaged` one as far as it goes; None where that is not enough."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=not damaged)
        if (refused := _admit("JPEG", data, width, height, options)) is not None:
            return refused
        if colours not in ("YCbCr", "RGB", "Gray", "CMYK", "YCCK"):
            return None
        ink = colours in ("CMYK", "YCCK")
        scaled = options.decode == "scaled" and not ink
        grey = scaled or colours == "Gray"
        side = _SCALED_SIDE if scaled else 0
        buffer = _SCRATCH.take(width * height * (1 if grey else 4))
        if damaged:
            buffer[...] = _UNTOUCHED
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
    if damaged and (pixels[-1] == _UNTOUCHED).all():  # not all lines are decoded
        return None
    if ink:
        ink_to_rgb(pixels)
    return _picture(pixels[..., 0] if grey else pixels, orientation, width, height)


def _decode_odd_jpeg(data: Data, options: Options, orientation: int) -> Picture | Failure:
    result = _FORMATS[0].decode(data, options)
    if isinstance(result, Failure) and result.status == "decode_failed" and not result.detail.startswith("truncated"):
        # All lines are decoded, then the end of the file is not as it should be: OpenCV does not mind.
        return _decode_jpeg(data, options, orientation, damaged=True) or result
    return result


# --- everything else, through Pillow ---------------------------------------------------------------------------------

# What Pillow's plugins may raise on broken input. 110,000 mutated files raised OSError, SyntaxError, ValueError,
# RuntimeError, TypeError and EOFError; the rest are what `ImageFile` itself takes for a broken file, and what sums over
# a hostile header can give. Warning: the user's own filters can come in front of ours at any moment.
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


class _Format(NamedTuple):
    name: str
    plugin: type[ImageFile.ImageFile]
    load: Callable[[Any, Data], Pixels]
    reduce: Callable[[Data], Data] | None = None  # leaves out what does not count for the pixels
    always: bool = False  # reduce every file, not only one that fails
    largest: Callable[[Data], tuple[int, int]] | None = None  # what is decoded where that is not the image's size

    def accept(self, head: bytes) -> bool | str:
        """Return whether a file may begin with `head`."""
        _, accept = Image.OPEN.get(self.name, (None, None))
        return accept is not None and accept(head)

    def decode(self, data: Data, options: Options) -> Picture | Failure:
        """Return the image in `data`."""
        if not self.always:
            result = _decode_with_pillow(data, self, options)
            if self.reduce is None or not isinstance(result, Failure) or result.status != "decode_failed":
                return result
        return _guarded(self.name, self.open_reduced, data, options)

    def open(self, data: Data, options: Options) -> Picture | Failure:
        """Return the image in `data`, or raise what Pillow raises."""
        return _open_with_pillow(data, self, options)

    def open_reduced(self, data: Data, options: Options) -> Picture | Failure:
        """Return the image in what counts of `data`, or raise what Pillow raises."""
        return self.open(self.reduce(data) if self.reduce else data, options)


def _guarded(
    name: str, decode: Callable[[Data, Options], Picture | Failure], data: Data, options: Options
) -> Picture | Failure:
    try:
        with no_warnings():
            return decode(data, options)
    except Image.DecompressionBombError as error:
        return Failure("too_many_pixels", f"{error} raise PIL.Image.MAX_IMAGE_PIXELS to allow it")
    except _PILLOW_ERRORS as error:
        return Failure("decode_failed", _broken(name, error))


def _decode_with_pillow(data: Data, format_: _Format, options: Options) -> Picture | Failure:
    return _guarded(format_.name, format_.open, data, options)


def _open_with_pillow(data: Data, format_: _Format, options: Options) -> Picture | Failure:
    # The plugin itself, not `Image.open`, whose own limit is a global of the process and warns.
    if format_.largest is not None:
        width, height = format_.largest(data)
        if (refused := _admit(format_.name, data, width, height, options)) is not None:
            return refused
    with format_.plugin(io.BytesIO(data)) as image:
        width, height = image.size
        if (refused := _admit(format_.name, data, width, height, options)) is not None:
            return refused
        pixels = format_.load(image, data)
        if options.alpha != "drop":
            _put_over_background(pixels, _alpha(image, pixels), options)
        return _picture(pixels, _orientation(image, data), width, height)


def _alpha(image: ImageFile.ImageFile, pixels: Pixels) -> Pixels | None:
    """Return how opaque the pixels of a loaded image are, None where all are."""
    if pixels.ndim == 3 and (image.mode == "RGBA" or image.format == "GIF"):
        return pixels[..., 3]
    return np.asarray(image.getchannel(1)) if image.mode == "LA" else None


def _put_over_background(pixels: Pixels, alpha: Pixels | None, options: Options) -> None:
    background = BACKGROUNDS[options.alpha]
    if background is not None and alpha is not None:
        composite(pixels, alpha, background)


def _orientation(image: ImageFile.ImageFile, data: Data) -> int:
    """Return the orientation that is still to be applied to a loaded image."""
    if image.format == "JPEG":
        return jpeg.read_segments(data).orientation
    return exif_orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")) or 1


def _picture(pixels: Pixels, orientation: int, width: int, height: int) -> Picture:
    return Picture(pixels, orientation, *((height, width) if orientation > 4 else (width, height)))


def _load(image: Any, _: Data) -> Pixels:
    image.load()
    image._decoder = None  # of AVIF: it holds up to 8 bytes a pixel
    return _stored(image)


def _load_webp(image: Any, data: Data) -> Pixels:
    # What the plugin's own `load` does, without Pillow's copy of the pixels: 12 bytes a pixel, not 16.
    if not hasattr(image, "_get_next"):  # it is not public
        return _load(image, data)
    frame, *_ = image._get_next()
    image._decoder = None
    pixels = _SCRATCH.take(len(frame)).reshape(image.height, image.width, 4)
    pixels[...] = np.frombuffer(frame, np.uint8).reshape(pixels.shape)
    return pixels


def _load_jpeg(image: JpegImagePlugin.JpegImageFile, data: Data) -> Pixels:
    pixel_budget.PIXELS.take(_BYTES_OF_JPEG_BY_PILLOW * image.width * image.height)
    pixels = _load(image, data)
    if image.mode == "CMYK":
        np.subtract(255, pixels, out=pixels)  # Pillow has turned the inverted values that Adobe writes
        ink_to_rgb(pixels)
    return pixels


def _decode_png(data: Data, options: Options) -> Picture | Failure:
    chunks = png.read_chunks(data)
    if (refused := _admit("PNG", data, chunks.width, chunks.height, options)) is not None:
        return refused
    with PngImagePlugin.PngImageFile(io.BytesIO(chunks.data)) as image:
        ImageFile.ImageFile.load_prepare(image)
        row = chunks.last_row()
        n_bands = len(image.getbands())
        image.im.paste(_UNTOUCHED if n_bands == 1 else (_UNTOUCHED,) * n_bands, (0, row, image.width, row + 1))
        image.load()
        if _is_untouched(image, row) and not chunks.pixels_are_whole():
            raise EOFError("rows of pixels are missing")
        alpha = None
        if options.alpha != "drop" and chunks.transparency:
            alpha = _transparency(image, chunks)
        pixels = _stored(image)
        if options.alpha != "drop":
            _put_over_background(pixels, _alpha(image, pixels) if alpha is None else alpha, options)
    return _picture(pixels, exif_orientation(chunks.exif) or 1, chunks.width, chunks.height)


def _is_untouched(image: Image.Image, row: int) -> bool:
    first: Any = image.im.getpixel((0, row))  # nearly always enough
    if _UNTOUCHED not in (first if isinstance(first, tuple) else (first & 0xFF,)):
        return False
    last = np.array(image.crop((0, row, image.width, row + 1)))
    return bool(last.all() if image.mode == "1" else (last.view(np.uint8) == _UNTOUCHED).all())


def _transparency(image: Image.Image, chunks: png.Png) -> Pixels | None:
    """Return how opaque the pixels of a loaded PNG are by its chunk `tRNS`, None where all are."""
    low = None
    if chunks.bits == 16 and image.mode == "RGB":  # Pillow reads the high bytes, so the low ones are a second reading
        with PngImagePlugin.PngImageFile(io.BytesIO(chunks.data)) as low:
            low.tile = [tile._replace(args=_low_bytes(tile.args)) for tile in low.tile]
            low.load()
    alpha = np.empty((image.height, image.width), np.uint8)
    for rows, strip in strips(image):
        samples: npt.NDArray[Any] = np.asarray(strip.convert("L") if strip.mode == "1" else strip)
        if low is not None:
            low_bytes = np.asarray(low.crop((0, rows.start, image.width, rows.stop)))
            samples = samples.astype(np.uint16) * np.uint16(256) + low_bytes
        some = png.transparent(chunks, samples)
        if some is None:
            return None
        alpha[rows] = some
    return alpha


def _low_bytes(args: Any) -> Any:
    return "RGB;16L" if isinstance(args, str) else ("RGB;16L", *args[1:])


def _decode_bmp(data: Data, options: Options) -> Picture | Failure:
    header = bmp.read_header(data)
    if (refused := _admit("BMP", data, header.width, header.height, options)) is not None:
        return refused
    pixels, alpha = bmp.read_pixels(data, header, _SCRATCH.take)
    _put_over_background(pixels, alpha, options)
    return _picture(pixels, 1, header.width, header.height)


def _decode_pnm(data: Data, options: Options) -> Picture | Failure:
    header = pnm.read_header(data)
    if (refused := _admit("PNM", data, header.width, header.height, options)) is not None:
        return refused
    return _picture(pnm.read_pixels(data, header), 1, header.width, header.height)


def _load_gif(image: GifImagePlugin.GifImageFile, data: Data) -> Pixels:
    left, top, right, bottom = image.tile[0].extents or (0, 0, 0, 0)
    background, palette = image.info.get("background"), image.global_palette
    transparent = image.info.get("transparency")
    image.load()
    if image.mode not in ("P", "L"):  # the user has set Pillow's `GifImagePlugin.LOADING_STRATEGY`
        return _stored(image)
    # Where the first frame is transparent, or does not reach, OpenCV shows the background colour.
    colours = np.zeros((256, 4), np.uint8)
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 3)  # Pillow keeps no palette that is this one
    if not gif.has_palette(data):
        ramp[1] = 255  # OpenCV: black, white, and greys
    own = ramp if image.mode == "L" else np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    shared = ramp if palette is None else np.frombuffer(bytes(palette.palette), np.uint8).reshape(-1, 3)
    behind = np.zeros(4, np.uint8)
    behind[:3] = 0 if background is None or background >= len(shared) else shared[background]
    colours[: len(own), :3] = own
    colours[:, 3] = 255  # opaque; what is behind is not
    if transparent is not None:
        colours[transparent] = behind
    pixels = _SCRATCH.take(4 * image.width * image.height).view(np.uint32).reshape(image.height, image.width)
    pixels[...] = behind.view(np.uint32)
    frame = pixels[top:bottom, left:right]
    for rows, strip in strips(image.crop((left, top, right, bottom))):
        frame[rows] = colours.view(np.uint32)[:, 0][np.asarray(strip)]
    return pixels.view(np.uint8).reshape(*pixels.shape, 4)


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def _decode_tiff(data: Data, options: Options) -> Picture | Failure:
    def admit(width: int, height: int, n_bytes: int) -> None:
        if (failure := _admit_bytes("TIFF", width, height, n_bytes, options)) is not None:
            raise _RefusedError(failure)

    try:
        image = tiff.decode(data, options.max_pixels, _SCRATCH.take, BACKGROUNDS[options.alpha], admit=admit)
        return _picture(*image)
    except _RefusedError as error:
        return error.failure
    except tiff.TooManyPixelsError as error:
        return _too_many_pixels(*error.size, options)
    except tiff.UnreadTiffError as error:
        return Failure("decode_failed", f"TIFF of a kind that is not read: {error}")


_FORMATS: Final = (
    _Format("JPEG", JpegImagePlugin.JpegImageFile, _load_jpeg, jpeg.only_pixels, always=True),
    _Format("WEBP", WebPImagePlugin.WebPImageFile, _load_webp, webp.only_pixels),
    _Format("GIF", GifImagePlugin.GifImageFile, _load_gif, gif.first_frame, always=True),
    _Format("AVIF", AvifImagePlugin.AvifImageFile, _load, largest=avif.largest_frame),
    _Format("PPM", PpmImagePlugin.PpmImageFile, _load),
    _Format("JPEG2000", Jpeg2KImagePlugin.Jpeg2KImageFile, _load, jp2.only_pixels),
)
_READERS: Final = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n").match, _decode_png),
    ("BMP", re.compile(rb"BM").match, _decode_bmp),
    ("TIFF", lambda head: head.startswith(tiff.SIGNATURES), _decode_tiff),
    ("PNM", re.compile(rb"P[1-6]\s").match, _decode_pnm),
)


# --- what went wrong -------------------------------------------------------------------------------------------------

_QUOTED: Final = re.compile("b?(?:'[^']*'?|\"[^\"]*\"?)")  # Pillow quotes what it has read
_CUT: Final = re.compile("truncated|only got|not enough|EOF|missing dimensions", re.IGNORECASE)


def _too_many_pixels(width: int, height: int, options: Options) -> Failure:
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
