"""Pixels of images that Pillow has loaded, in the layout of the hashes, and the buffer per thread for them.

Large images are converted a few rows at a time, so that only the result has the size of the image.
"""

import threading
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from imgmatch_df.images.rows import row_slices

Pixels = npt.NDArray[np.uint8]

MAX_KEPT_BYTES: Final = 100 << 20  # of the buffer per thread: an image of 26 megapixels
_ALIGNED: Final = 32  # bytes of a vector in libjpeg-turbo
_PIXEL: Final = 4  # bytes
_STRIP_BYTES: Final = 4 << 20  # bytes of Pillow's memory that are converted at a time
_WHOLE_BYTES: Final = 16 << 20  # Pillow allocates up to this size as one block; it is converted as a whole


class _Scratch(threading.local):
    """Decoding buffer of a thread: new memory costs a page fault per 4 KiB of each image."""

    buffer: Pixels = np.empty(0, np.uint8)

    def take(self, n_bytes: int) -> Pixels:
        if n_bytes > MAX_KEPT_BYTES:
            return _empty_unaligned(n_bytes)
        if n_bytes > self.buffer.size:
            self.buffer = _empty_unaligned(n_bytes)
        return self.buffer[:n_bytes]


def _empty_unaligned(n_bytes: int) -> Pixels:
    """Return an array of which hardly a row of 32-bit pixels begins at a multiple of 32 bytes.

    Where one does, libjpeg-turbo writes the row past the caches, and the hashes read it from memory: decoding and
    hashing a photo of 0.2 megapixels took a twelfth longer, a thumbnail a seventh.
    """
    memory = np.empty(n_bytes + _ALIGNED + _PIXEL, np.uint8)
    first = -memory.ctypes.data % _ALIGNED + _PIXEL
    return memory[first : first + n_bytes]


SCRATCH: Final = _Scratch()


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield slices of rows of a loaded image, each with these rows as an image of a few MB; a small image whole."""
    row_bytes = 4 * image.width  # at most
    if row_bytes * image.height <= _WHOLE_BYTES:
        yield slice(0, image.height), image
        return
    step = max(1, _STRIP_BYTES // row_bytes)
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def memory(image: Image.Image) -> Pixels:
    """Return the bytes of a loaded image in Pillow's layout, read-only; pixels of mode RGB have 4 bytes."""
    # Arrow reads Pillow's memory without a copy: 14 us for 0.1 megapixels; `tobytes` takes 40 to 400. It cannot for
    # images above 16 MiB, which Pillow allocates as several blocks.
    try:
        return np.frombuffer(pa.array(image).buffers()[-1], np.uint8)
    except ValueError:
        return np.frombuffer(image.tobytes("raw", "RGBX" if image.mode == "RGB" else image.mode), np.uint8)


def stored(image: Image.Image) -> Pixels:
    """Return the pixels of a loaded image of any mode, in the buffer of the thread.

    Returns
    -------
    ndarray
        uint8, (rows, columns) grey, or (rows, columns, 4); the fourth channel is alpha for mode RGBA.
    """
    if image.mode in ("I", "F"):
        return _stretched(image)
    if is_grey := image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16"):
        shape: tuple[int, ...] = image.height, image.width
    else:
        shape = image.height, image.width, 4
    out = SCRATCH.take(int(np.prod(shape))).reshape(shape)
    for rows, strip in strips(image):
        out[rows] = _grey(strip) if is_grey else _colours(strip)
    return out


def stored_samples(samples: npt.NDArray[Any], bits: int = 8) -> Pixels:
    """Return the samples that a decoder gives as `stored` does; without their alpha if they are grey.

    Parameters
    ----------
    samples
        ``(rows, columns)`` or ``(rows, columns, 1 to 4)``: unsigned integers, or floats from 0 to 1.
    bits
        Bits of the integers: the high 8 of them are kept, fewer are stretched to 8.
    """
    if samples.ndim == 3 and samples.shape[2] < 3:
        samples = samples[..., 0]
    shape = samples.shape if samples.ndim == 2 else (*samples.shape[:2], 4)
    out = SCRATCH.take(int(np.prod(shape))).reshape(shape)
    for rows in row_slices(*shape[:2]):
        part = out[rows] if samples.ndim == 2 else out[rows][..., : samples.shape[2]]
        part[...] = eight_bits(samples[rows], bits)
    return out


def eight_bits(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return samples as 0 to 255, as `stored_samples` does."""
    out: npt.NDArray[Any] = samples
    if samples.dtype.kind == "f":
        out = np.rint(np.clip(np.nan_to_num(samples.astype(np.float32)), 0, 1) * np.float32(255))
    elif bits < 8:
        out = np.minimum(samples, (1 << bits) - 1).astype(np.uint16) * 255 // ((1 << bits) - 1)
    elif bits > 8:
        out = samples >> bits - 8
    return out


def unpack(
    data: bytes | memoryview, offset: int, size: tuple[int, int], rawmode: str, pitch: int = 0, *, top_down: bool = True
) -> Pixels:
    """Return pixels of 24 or 32 bits that start at `offset` of `data`; `rawmode` is Pillow's name of their layout."""
    mode = "RGBA" if rawmode.endswith("A") else "RGB"
    rows = memoryview(data)[offset:]
    image = Image.frombuffer(mode, size, rows, "raw", rawmode, pitch, 1 if top_down else -1)  # type: ignore[arg-type]
    return stored(image)


def widen(rows: Pixels, out: Pixels) -> None:
    """Write pixels of three bytes, C-contiguous, as four of which the fourth is any; out (rows, columns, 4)."""
    packed, pixels = rows.reshape(-1), out.reshape(-1, 4)
    # Numbers of four bytes that overlap: a third of the time of a copy per channel. The last one would end too late.
    pixels[:-1].view(np.uint32)[:, 0] = np.ndarray((len(pixels) - 1,), np.uint32, packed, 0, (3,))
    pixels[-1, :3] = packed[-3:]


def ink_to_rgb(pixels: Pixels) -> None:
    """Convert inverted CMYK (255 is no ink), (rows, columns, 4), to RGB in place, as `icvCvt_CMYK2BGR` of OpenCV."""
    for rows in row_slices(*pixels.shape[:2]):
        ink = pixels[rows].astype(np.uint16)
        key = ink[..., 3:]
        pixels[rows, :, :3] = key - ((255 - ink[..., :3]) * key >> 8)


def _grey(image: Image.Image) -> npt.NDArray[Any]:
    match image.mode:
        case "L":
            return memory(image).reshape(image.height, image.width)
        case "1":
            return np.asarray(image.convert("L"))
        case "LA" | "La":
            return memory(image).reshape(image.height, image.width, 4)[..., 0]
    high: npt.NDArray[Any] = np.asarray(image) >> 8
    return high


def _colours(image: Image.Image) -> Pixels:
    if image.mode not in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        image.info.pop("transparency", None)
        image = image.convert("RGB")
    return memory(image).reshape(image.height, image.width, 4)


def _stretched(image: Image.Image) -> Pixels:
    """Return 32-bit integers or floats as grey: the smallest is 0, the largest 255, since they define no white."""
    low, high = np.inf, -np.inf
    for _, strip in strips(image):
        values = _finite(strip)
        low, high = min(low, values.min()), max(high, values.max())
    scale = 255 / max(high - low, 1e-300)  # avoids a division by zero
    grey = SCRATCH.take(image.height * image.width).reshape(image.height, image.width)
    for rows, strip in strips(image):
        grey[rows] = np.rint((_finite(strip) - low) * scale)
    return grey


def _finite(image: Image.Image) -> npt.NDArray[np.float64]:
    values = np.asarray(image)
    return np.where(np.isfinite(values), values, 0).astype(np.float64)
