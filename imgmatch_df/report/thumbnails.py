"""Thumbnails of the images of a report: small WebP files, read with the safety and the limits of hashing."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.options import Options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
    from imgmatch_df.errors import Failure
    from imgmatch_df.hashes.squares import HashInput

SIDE: Final = 160  # pixels
_QUALITIES: Final = (50, 20, 1)  # the first is 2.4 kB for a photo; the others are for noise that does not fit
_LENGTH_BYTES: Final = 4
_MAX_BYTES: Final = 16_384  # of a thumbnail with its length
# Not registered: no verb, store or command knows it. The decoder processes of ``isolate=True`` do.
_THUMBNAIL: Final = HashKind(
    "thumbnail",
    n_bits=8 * _MAX_BYTES,
    n_bytes=_MAX_BYTES,
    dtype=pl.Binary(),
    version=f"webp-{SIDE}",
    kernel="imgmatch_df.report.thumbnails:write_thumbnail",
    near_radius=0,
    is_perceptual=False,
)


def make_thumbnails(
    batches: "Iterable[tuple[NDArray[Any], Sequence[Any]]]",
    count: int,
    options: Options,
    progress: Callable[[int, int], None] | None = None,
) -> list[bytes]:
    """Return a WebP of at most 160 x 160 pixels for each image, empty where it cannot be read now.

    Parameters
    ----------
    batches
        Images, some at a time: their positions in the result, and text, bytes or None.
    count
        Length of the result.
    options
        How to read and decode.
    progress
        Called with (done, total).
    """
    from imgmatch_df.batch.run import read_images

    made, done = [b""] * count, 0
    options = replace(options, on_error="null", progress=False)
    make = None if options.isolate else _read_preview
    for positions, sources in batches:
        rows = read_images(sources, options, (_THUMBNAIL,), make)
        for position, row, is_made in zip(positions, rows.hashes[_THUMBNAIL], rows.valid.tolist(), strict=True):
            made[position] = _read(row) if is_made else b""
        done += len(sources)
        if progress is not None:
            progress(done, count)
    return made


def write_thumbnail(image: "HashInput", row: "NDArray[Any]") -> None:
    """Write the thumbnail of a decoded image, with its length before it: the kernel for the decoder processes."""
    _write(image.whole, image.orientation, row)


def _read_preview(data: Any, options: Options, out: "HashBuffers") -> "ImageSize | Failure":
    """Write the thumbnail of an encoded image; return the size of the image, or why there is no thumbnail."""
    from imgmatch_df.batch.image_hashes import ImageSize
    from imgmatch_df.errors import Failure
    from imgmatch_df.images import pixel_budget
    from imgmatch_df.images.decode import decode_preview

    with pixel_budget.PIXELS:
        try:
            image = decode_preview(data, options, SIDE)
            if isinstance(image, Failure):
                return image
            (row,) = out.values()
            _write(image.pixels, image.orientation, row)
        except MemoryError:
            return Failure("decode_failed", "not enough memory to decode it")
    return ImageSize(image.width, image.height)


def _write(pixels: "NDArray[Any]", orientation: int, row: "NDArray[Any]") -> None:
    """Write a thumbnail behind its length into a row, or the length 0 where it does not fit."""
    import numpy as np
    from PIL import Image

    from imgmatch_df.hashes.squares import upright_view

    if pixels.ndim == 3:
        # Pillow takes four bytes a pixel as they are; three would be a copy of the whole image.
        stored = Image.frombuffer("RGBX", (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels))
    else:
        stored = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(1.0, SIDE / max(stored.size))
    size = max(1, round(stored.width * scale)), max(1, round(stored.height * scale))
    small = np.asarray(stored.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    upright = Image.fromarray(
        np.ascontiguousarray(upright_view(small[..., :3] if small.ndim == 3 else small, orientation))
    )
    for quality in _QUALITIES:
        file = io.BytesIO()
        upright.convert("RGB").save(file, "WEBP", quality=quality, method=2)
        data = file.getvalue()
        if len(data) <= _MAX_BYTES - _LENGTH_BYTES:
            row[:_LENGTH_BYTES] = np.frombuffer(len(data).to_bytes(_LENGTH_BYTES, "little"), np.uint8)
            row[_LENGTH_BYTES : _LENGTH_BYTES + len(data)] = np.frombuffer(data, np.uint8)
            return


def _read(row: "NDArray[Any]") -> bytes:
    n_bytes = int.from_bytes(row[:_LENGTH_BYTES].tobytes(), "little")
    return row[_LENGTH_BYTES : _LENGTH_BYTES + n_bytes].tobytes()
