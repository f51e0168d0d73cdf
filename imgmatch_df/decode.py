"""Encoded images to pixels, the pixels that OpenCV's ``imdecode(data, IMREAD_COLOR)`` gives.

Pillow reads every format and decides what is a picture. A plain JPEG, which is nearly every picture there is, goes to
libjpeg-turbo directly, into a buffer that the thread keeps; whatever is unusual about it sends it back to Pillow.
"""

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from imgmatch_df import tiff
from imgmatch_df.errors import Failure
from imgmatch_df.options import Options

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview

_ORIENTATION: Final = 0x0112  # the tag of EXIF
_SCALED_SIDE: Final = 256  # the larger of the two sizes that the hashes shrink a picture to
_MAX_KEPT_BYTES: Final = 64 << 20  # of the buffer that a thread keeps: a picture of 16 megapixels


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
        `decode` and `max_pixels` count here.

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
        picture = _decode_jpeg(data, options)
        if picture is not None:
            return picture
    if head.startswith(tiff.SIGNATURES):
        return _decode_tiff(data, options)
    for format_ in _FORMATS:
        if format_.accept(head) is True:
            return _decode_with_pillow(data, format_, options)
    return Failure("decode_failed", _no_image(head))


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, that an EXIF block asks for, 1 where it asks for nonsense, None where for none.

    Parameters
    ----------
    exif
        The block, from its byte order mark on.
    """
    order = "<" if exif.startswith(b"II") else ">"  # as OpenCV, which takes any other mark for big endian
    try:
        mark, start = struct.unpack_from(order + "HI", exif, 2)
        (n_entries,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * n_entries if mark == 42 else 0, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return None


# --- JPEG, the fast path ---------------------------------------------------------------------------------------------


def _decode_jpeg(data: Data, options: Options) -> Picture | Failure | None:
    """Return the picture of a plain and sound JPEG; None where Pillow has to decide."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if width * height > options.max_pixels:
            return _too_many_pixels(width, height, options)
        if colours not in ("YCbCr", "RGB", "Gray"):
            return None
        scaled = options.decode == "scaled"
        grey = scaled or colours == "Gray"
        side = _SCALED_SIDE if scaled else 0
        pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if grey else "RGBX",
            min_height=side,
            min_width=side,
            buffer=_SCRATCH.take(width * height * (1 if grey else 4)),
        )
    except (ValueError, MemoryError):
        return None
    return _picture(pixels[..., 0] if grey else pixels, _jpeg_orientation(data), width, height)


def _jpeg_orientation(data: Data) -> int:
    """Return the orientation of the first Exif segment that has one."""
    at, end = 2, len(data) - 4
    while at < end and data[at] == 0xFF and (marker := data[at + 1]) != 0xDA:
        if marker == 0xFF:  # padding
            at += 1
            continue
        after = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = exif_orientation(bytes(data[at + 10 : after]))
            if orientation is not None:
                return orientation
        at = after
    return 1


class _Scratch(threading.local):
    """The buffer that a thread decodes into: fresh memory costs a page fault for every 4 KiB of every picture."""

    buffer: Pixels = np.empty(0, np.uint8)

    def take(self, n_bytes: int) -> Pixels:
        if n_bytes > _MAX_KEPT_BYTES:
            return np.empty(n_bytes, np.uint8)
        if n_bytes > self.buffer.size:
            self.buffer = np.empty(n_bytes, np.uint8)
        return self.buffer[:n_bytes]


_SCRATCH: Final = _Scratch()


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

    def accept(self, head: bytes) -> bool | str:
        """Return whether a file may begin with `head`."""
        _, accept = Image.OPEN.get(self.name, (None, None))
        return accept is not None and accept(head)


def _decode_with_pillow(data: Data, format_: _Format, options: Options) -> Picture | Failure:
    try:
        # The plugin itself, not `Image.open`, whose own limit is a global of the process and warns.
        with _no_warnings(), format_.plugin(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > options.max_pixels:
                return _too_many_pixels(width, height, options)
            pixels = format_.load(image, data)
            return _picture(pixels, _orientation(image, data), width, height)
    except Image.DecompressionBombError as error:
        return Failure("too_many_pixels", f"{error} raise PIL.Image.MAX_IMAGE_PIXELS to allow it")
    except _PILLOW_ERRORS as error:
        return Failure("decode_failed", _broken(format_.name, error))


def _decode_tiff(data: Data, options: Options) -> Picture | Failure:
    try:
        with _no_warnings():
            return _picture(*tiff.decode(data, options.max_pixels, _SCRATCH.take))
    except tiff.TooManyPixelsError as error:
        return _too_many_pixels(*error.size, options)
    except tiff.UnreadTiffError as error:
        return Failure("decode_failed", f"TIFF of a kind that is not read: {error}")
    except _PILLOW_ERRORS as error:
        return Failure("decode_failed", _broken("TIFF", error))


def _orientation(image: ImageFile.ImageFile, data: Data) -> int:
    """Return the orientation that is still to be applied to a loaded image."""
    if image.format == "JPEG":
        return _jpeg_orientation(data)
    return exif_orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")) or 1


def _picture(pixels: Pixels, orientation: int, width: int, height: int) -> Picture:
    return Picture(pixels, orientation, *((height, width) if orientation > 4 else (width, height)))


def _load(image: ImageFile.ImageFile, _: Data) -> Pixels:
    image.load()
    return _stored(image)


def _stored(image: Image.Image) -> Pixels:
    """Return the pixels of a loaded image of any mode, alpha dropped, in the thread's buffer or their own."""
    match image.mode:
        case "RGB" | "RGBA" | "RGBX" | "CMYK" | "YCbCr" | "L":
            shape = (image.height, image.width) if image.mode == "L" else (image.height, image.width, 4)
            return _copy_out(image, shape)
        case "1":
            return np.array(image.convert("L"))
        case "LA" | "La":
            return _stored(image.getchannel(0))
        case "I" | "F":
            return _stretched(np.asarray(image))
        case mode if mode.startswith("I;16"):
            return _high_byte(np.asarray(image))
    image.info.pop("transparency", None)
    return _stored(image.convert("RGB"))


def _copy_out(image: Image.Image, shape: tuple[int, ...]) -> Pixels:
    # Arrow sees Pillow's memory as it is: 14 us for 0.1 megapixels, where `tobytes` takes 40 to 400. Only pictures
    # above 16 MiB, which Pillow keeps in several blocks, cannot be seen so.
    stored: Pixels
    try:
        stored = np.frombuffer(pa.array(image).buffers()[-1], np.uint8)
    except ValueError:
        stored = np.frombuffer(image.tobytes("raw", "RGBX" if image.mode == "RGB" else image.mode), np.uint8)
    out = _SCRATCH.take(stored.size).reshape(shape)
    out[...] = stored.reshape(shape)
    return out


def _stretched(values: npt.NDArray[Any]) -> Pixels:
    """Return 32-bit integers or floats as grey, from the least at 0 to the largest at 255: they have no white."""
    values = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = values.min(), values.max()
    grey: Pixels = np.rint((values - low) * (255 / max(high - low, np.finfo(float).tiny))).astype(np.uint8)
    return grey


def _load_jpeg(image: JpegImagePlugin.JpegImageFile, data: Data) -> Pixels:
    pixels = _load(image, data)
    if image.mode != "CMYK":
        return pixels
    # OpenCV's `icvCvt_CMYK2BGR`; Pillow has turned the inverted values that Adobe writes, so they are turned back.
    ink = 255 - pixels.astype(np.int32)
    key = ink[..., 3:]
    pixels[..., :3] = key - ((255 - ink[..., :3]) * key >> 8)
    return pixels


def _load_gif(image: GifImagePlugin.GifImageFile, _: Data) -> Pixels:
    left, top, right, bottom = image.tile[0].extents or (0, 0, 0, 0)
    background, palette = image.info.get("background"), image.global_palette
    transparent = image.info.get("transparency")
    image.load()
    if image.mode not in ("P", "L"):  # the user has set Pillow's `GifImagePlugin.LOADING_STRATEGY`
        return _stored(image)
    # Where the first frame is transparent, or does not reach, OpenCV shows the background colour.
    colours = np.zeros((256, 4), np.uint8)
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 3)  # Pillow keeps no palette that is this one
    own = ramp if image.mode == "L" else np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    shared = ramp if palette is None else np.frombuffer(bytes(palette.palette), np.uint8).reshape(-1, 3)
    behind = np.zeros(4, np.uint8)
    behind[:3] = 0 if background is None or background >= len(shared) else shared[background]
    colours[: len(own), :3] = own
    if transparent is not None:
        colours[transparent] = behind
    pixels = np.full((image.height, image.width), behind.view(np.uint32))
    pixels[top:bottom, left:right] = colours.view(np.uint32)[:, 0][np.asarray(image)[top:bottom, left:right]]
    return pixels.view(np.uint8).reshape(*pixels.shape, 4)


def _load_bmp(image: BmpImagePlugin.BmpImageFile, data: Data) -> Pixels:
    rawmode = _rawmode(image)
    pixels = _load(image, data)
    # OpenCV fills five and six bits up with zeros, Pillow spreads them over 0 to 255: the leading bits are the same.
    if rawmode == "BGR;15":
        pixels &= np.uint8(0xF8)
    elif rawmode == "BGR;16":
        pixels &= np.array([0xF8, 0xFC, 0xF8, 0], np.uint8)
    return pixels


def _load_pnm(image: PpmImagePlugin.PpmImageFile, data: Data) -> Pixels:
    codec, _, offset, args = image.tile[0]
    if codec != "ppm" or not isinstance(args, tuple):
        image.load()
        return _high_byte(np.asarray(image)) if image.mode == "I" else _stored(image)
    # The largest value is neither 255 nor 65535. Pillow scales it to white; OpenCV takes the values as they are.
    channels = 3 if image.mode == "RGB" else 1
    stored = np.dtype("u1" if args[1] < 256 else ">u2")
    n_values = image.width * image.height * channels
    if len(data) - offset < n_values * stored.itemsize:
        raise EOFError(f"{n_values * stored.itemsize:,} bytes of pixels announced, {len(data) - offset:,} found")
    values: npt.NDArray[Any] = np.frombuffer(data, stored, n_values, offset)
    pixels = np.empty((image.height, image.width, 4), np.uint8)
    pixels[..., :3] = (values if args[1] < 256 else values >> 8).reshape(image.height, image.width, channels)
    return pixels


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Return how the first tile of an image not loaded yet lays out its samples."""
    args = image.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _high_byte(values: npt.NDArray[Any]) -> Pixels:
    return (values >> 8 & 0xFF).astype(np.uint8)


_FORMATS: Final = (
    _Format("JPEG", JpegImagePlugin.JpegImageFile, _load_jpeg),
    _Format("PNG", PngImagePlugin.PngImageFile, _load),
    _Format("WEBP", WebPImagePlugin.WebPImageFile, _load),
    _Format("GIF", GifImagePlugin.GifImageFile, _load_gif),
    _Format("BMP", BmpImagePlugin.BmpImageFile, _load_bmp),
    _Format("AVIF", AvifImagePlugin.AvifImageFile, _load),
    _Format("PPM", PpmImagePlugin.PpmImageFile, _load_pnm),
    _Format("JPEG2000", Jpeg2KImagePlugin.Jpeg2KImageFile, _load),
)


# --- warnings --------------------------------------------------------------------------------------------------------


class _Here(threading.local):
    decoding = False


_HERE: Final = _Here()


class _WhileDecoding(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return _HERE.decoding


class _PillowWarning(Warning, metaclass=_WhileDecoding):
    """Every warning of a thread that decodes just now, and none of any other.

    `warnings.catch_warnings` swaps the filters of the whole process: with several threads they come back in the wrong
    order, or not at all, and the user's own warnings are lost meanwhile. One filter that asks for the thread is safe.
    """


_FILTER: Final = ("ignore", None, _PillowWarning, None, 0)


@contextmanager
def _no_warnings() -> Iterator[None]:
    if warnings.filters[:1] != [_FILTER]:  # someone has put filters in front, or taken ours away
        warnings.simplefilter("ignore", _PillowWarning)
    _HERE.decoding = True
    try:
        yield
    finally:
        _HERE.decoding = False


# --- what went wrong -------------------------------------------------------------------------------------------------

_OTHER_FORMATS: Final = (
    ("HEIC", re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL)),
    ("a film", re.compile(rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI", re.DOTALL)),
    ("SVG", re.compile(rb"\s*<svg", re.IGNORECASE)),
    ("a web page or XML", re.compile(rb"(\xef\xbb\xbf)?\s*<")),
    ("JPEG XL", re.compile(rb"\xff\n|\0\0\0\x0cJXL ")),
    ("PDF or PostScript", re.compile(rb"%PDF|%!PS")),
    ("Photoshop", re.compile(rb"8BPS")),
    ("an icon", re.compile(rb"\0\0[\x01\x02]\0")),
    ("an archive", re.compile(rb"PK\x03\x04|\x1f\x8b")),
    ("JSON", re.compile(rb"\s*[{\[]")),
)

_CUT: Final = re.compile("truncated|only got|not enough|EOF|missing dimensions", re.IGNORECASE)


def _no_image(head: bytes) -> str:
    name = next((f"{name}, which is not read: " for name, magic in _OTHER_FORMATS if magic.match(head)), "")
    return f"not an image: {name}starts with {head[:16]!r}"


def _too_many_pixels(width: int, height: int, options: Options) -> Failure:
    return Failure(
        "too_many_pixels",
        f"{width}x{height} = {width * height:,} pixels, more than max_pixels={options.max_pixels:,}; "
        "raise max_pixels to allow it",
    )


def _broken(name: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:160]
    if isinstance(error, EOFError | struct.error) or _CUT.search(reason):
        return f"truncated {name}: {reason}"
    if isinstance(error, OSError | SyntaxError | ValueError):
        return f"broken {name}: {reason}"
    return f"broken {name}: {type(error).__name__}: {reason}"
