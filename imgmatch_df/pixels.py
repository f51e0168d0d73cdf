"""The pixels of images that Pillow has loaded, as the hashes read them, and the buffer that a thread keeps for them."""

import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

Pixels = npt.NDArray[np.uint8]

MAX_KEPT_BYTES: Final = 64 << 20  # of the buffer that a thread keeps: an image of 16 megapixels


class _Scratch(threading.local):
    """The buffer that a thread decodes into: fresh memory costs a page fault for every 4 KiB of every image."""

    buffer: Pixels = np.empty(0, np.uint8)

    def take(self, n_bytes: int) -> Pixels:
        if n_bytes > MAX_KEPT_BYTES:
            return np.empty(n_bytes, np.uint8)
        if n_bytes > self.buffer.size:
            self.buffer = np.empty(n_bytes, np.uint8)
        return self.buffer[:n_bytes]


SCRATCH: Final = _Scratch()


def stored(image: Image.Image) -> Pixels:
    """Return the pixels of a loaded image of any mode, in the thread's buffer or their own.

    Returns
    -------
    ndarray
        uint8, (rows, columns) grey, or (rows, columns, 4): of mode RGBA the fourth channel is alpha.
    """
    match image.mode:
        case "RGB" | "RGBA" | "RGBX" | "CMYK" | "YCbCr" | "L":
            shape = (image.height, image.width) if image.mode == "L" else (image.height, image.width, 4)
            return _copy_out(image, shape)
        case "1":
            return np.array(image.convert("L"))
        case "LA" | "La":
            return stored(image.getchannel(0))
        case "I" | "F":
            return _stretched(np.asarray(image))
        case mode if mode.startswith("I;16"):
            return (np.asarray(image) >> 8).astype(np.uint8)
    image.info.pop("transparency", None)
    return stored(image.convert("RGB"))


def unpack(
    data: bytes | memoryview, offset: int, size: tuple[int, int], rawmode: str, pitch: int = 0, *, top_down: bool = True
) -> Pixels:
    """Return the pixels of 24 or 32 bits in `data` from `offset` on; `rawmode` names their layout in Pillow."""
    mode = "RGBA" if rawmode.endswith("A") else "RGB"
    rows = memoryview(data)[offset:]
    image = Image.frombuffer(mode, size, rows, "raw", rawmode, pitch, 1 if top_down else -1)  # type: ignore[arg-type]
    return stored(image)


def _copy_out(image: Image.Image, shape: tuple[int, ...]) -> Pixels:
    # Arrow sees Pillow's memory as it is: 14 us for 0.1 megapixels, where `tobytes` takes 40 to 400. Only images
    # above 16 MiB, which Pillow keeps in several blocks, cannot be seen so.
    values: Pixels
    try:
        values = np.frombuffer(pa.array(image).buffers()[-1], np.uint8)
    except ValueError:
        values = np.frombuffer(image.tobytes("raw", "RGBX" if image.mode == "RGB" else image.mode), np.uint8)
    out = SCRATCH.take(values.size).reshape(shape)
    out[...] = values.reshape(shape)
    return out


def _stretched(values: npt.NDArray[Any]) -> Pixels:
    """Return 32-bit integers or floats as grey, from the least at 0 to the largest at 255: they have no white."""
    values = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = values.min(), values.max()
    grey: Pixels = np.rint((values - low) * (255 / max(high - low, np.finfo(float).tiny))).astype(np.uint8)
    return grey
