"""TIFF, by the rules of libtiff, which OpenCV reads it with."""

import io
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

Pixels = npt.NDArray[np.uint8]
Data = bytes | memoryview
Stored = Callable[[Image.Image], Pixels]


def tile_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Return the columns and rows of the tiles of a TIFF, 0 where there are none."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0, 0
    # A TIFF of ten pixels may have a tile of a thousand million, and its decoder makes room for the whole tile.
    return image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0), image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0)


def load(image: TiffImagePlugin.TiffImageFile, data: Data, stored: Stored) -> Pixels:
    """Return the pixels of a TIFF as OpenCV gives them; `stored` gives those of a loaded image of any mode."""
    # OpenCV reads TIFF through libtiff's RGBA interface; these are the rules of its tif_getimage.c.
    tags = image.tag_v2
    count, entry = (8, 20) if data[2] == 43 or data[3] == 43 else (2, 12)  # BigTIFF or not
    at = tags.offset + count
    n_entries = int.from_bytes(data[tags.offset : at], "little" if tags.prefix == b"II" else "big")
    if at + n_entries * entry > len(data):  # Pillow makes do with the tags that are left
        raise EOFError(f"{n_entries} tags announced")
    bits, extra = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)), tags.get(TiffImagePlugin.EXTRASAMPLES, ())
    if bits[0] == 16 and image.mode in ("RGB", "RGBA"):
        pixels = _load_deep(image, data, stored)
    else:
        _set_rawmode(image, _rawmode(image).replace("RGBa", "RGBA"))  # alpha is dropped: no dividing by it
        image.load()
        if image.mode == "I" and bits == (16,):
            return (np.asarray(image) >> 8 & 0xFF).astype(np.uint8)
        pixels = stored(image)
    if image.mode == "I;16" and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero
        np.subtract(255, pixels, out=pixels)
    elif image.mode == "CMYK":
        paper = 255 - pixels.astype(np.uint16)
        pixels[..., :3] = paper[..., 3:] * paper[..., :3] // 255
    elif image.mode == "YCbCr":
        y, cb, cr = np.moveaxis(pixels[..., :3].astype(np.int32) - np.array([0, 128, 128], np.int32), -1, 0)
        sums = (91881 * cr, -22553 * cb - 46802 * cr, 116130 * cb)  # 1.402, 0.344, 0.714 and 1.772 times 65,536
        for channel, chroma in enumerate(sums):
            pixels[..., channel] = np.clip(y + (chroma + 32768 >> 16), 0, 255)
    elif image.mode == "RGBA" and extra[:1] == (2,):  # unassociated alpha
        pixels[..., :3] = (pixels[..., :3].astype(np.uint16) * pixels[..., 3:] + 127) // 255
    return pixels


def _load_deep(image: TiffImagePlugin.TiffImageFile, data: Data, stored: Stored) -> Pixels:
    """Return 16 bits a channel rounded to 8. Pillow reads the high bytes only, so the low ones are a second reading."""
    rawmode = _rawmode(image).replace("RGBa", "RGBA")
    _set_rawmode(image, rawmode)
    native = "L" if sys.byteorder == "little" else "B"
    swapped = rawmode[:-1] + {"L": "B", "B": "L"}[rawmode[-1].replace("N", native)]
    with TiffImagePlugin.TiffImageFile(io.BytesIO(data)) as again:
        _set_rawmode(again, swapped)
        again.load()
        low = stored(again).astype(np.uint32)
    image.load()
    high = stored(image)
    np.floor_divide(high * np.uint32(256) + low + 128, 257, out=high, casting="unsafe")
    return high


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Return how the first tile of an image not loaded yet lays out its samples."""
    args = image.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    if _rawmode(image) != rawmode:
        image.tile = [tile._replace(args=(rawmode, *(tile.args or ())[1:])) for tile in image.tile]
