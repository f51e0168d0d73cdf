"""Edited copies of the images of a frame, made in memory, to see how many of them each radius finds."""

import io
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.batch.run import hash_batch
from imgmatch_df.errors import Failure
from imgmatch_df.fetching.read import read_source
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.image_columns import image_sources
from imgmatch_df.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from imgmatch_df._kernels.arrays import I64, U64

_MAX_SIDE: Final = 512  # of an image before it is edited, in pixels: the hashes look at less
_QUALITY: Final = 90  # of the JPEG of an edited image


def edited_distances(sources: pl.Series, words: "U64", kind: HashKind, options: Options) -> "I64":
    """Return the distances between images and their edited copies: counts by distance, (n_bits + 1,) int64.

    Parameters
    ----------
    sources
        Images. Those that cannot be read now are left out.
    words
        Their hashes, (n, n_words) uint64.
    kind
        Kind of the hashes.
    options
        How to read and decode.
    """
    import numpy as np

    from imgmatch_df.matching.kernels import hamming
    from imgmatch_df.threads import Once, finish_tasks

    tasks = [Once(_edited, source, options) for source in image_sources(sources)]
    finish_tasks(tasks, None)
    copies = pl.Series([copy for task in tasks for copy in task.result], dtype=pl.Binary)
    originals = np.repeat(np.arange(len(tasks)), [len(task.result) for task in tasks])
    hashed = hash_batch(copies, Options(), (kind.name,)).struct.field(kind.name)
    rows = hashed.is_not_null().arg_true().to_numpy()
    copied = codec.hash_words(hashed.drop_nulls(), kind)
    distance = np.empty(len(rows), np.uint16)
    pairs = originals[rows].astype(np.uint32), np.arange(len(rows), dtype=np.uint32)
    hamming.hamming_pairs(words, copied, *pairs, distance)
    return np.bincount(distance, minlength=kind.n_bits + 1).astype(np.int64)


def _edited(source: Any, options: Options) -> list[bytes]:
    """Return the edited copies of an image, encoded; none where it cannot be read."""
    from PIL import Image

    from imgmatch_df.hashes.squares import upright
    from imgmatch_df.images.decode import decode_image

    data = read_source(source, options)
    found = data if isinstance(data, Failure) else decode_image(data, options)
    if isinstance(found, Failure):
        return []
    pixels = found.pixels[..., :3] if found.pixels.ndim == 3 else found.pixels
    image = Image.fromarray(upright(pixels, found.orientation)).convert("RGB")
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    copies = []
    for edit in EDITS.values():
        file = io.BytesIO()
        edited, quality = edit(image)
        edited.save(file, "JPEG", quality=quality)
        copies.append(file.getvalue())
    return copies


def _compressed(image: "Image") -> "tuple[Image, int]":
    return image, 40


def _halved(image: "Image") -> "tuple[Image, int]":
    return image.resize((max(1, image.width // 2), max(1, image.height // 2))), _QUALITY


def _grey(image: "Image") -> "tuple[Image, int]":
    return image.convert("L"), _QUALITY


def _enhanced(name: str, factor: float) -> "Callable[[Image], tuple[Image, int]]":
    def edit(image: "Image") -> "tuple[Image, int]":
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(factor), _QUALITY

    return edit


def _blurred(image: "Image") -> "tuple[Image, int]":
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(1)), _QUALITY


def _cropped(image: "Image") -> "tuple[Image, int]":
    """Cut 2 % from each side."""
    x, y = round(0.02 * image.width), round(0.02 * image.height)
    return image.crop((x, y, image.width - x, image.height - y)), _QUALITY


EDITS: Final[dict[str, "Callable[[Image], tuple[Image, int]]"]] = {
    "JPEG quality 40": _compressed,
    "half size": _halved,
    "black and white": _grey,
    "20 % brighter": _enhanced("Brightness", 1.2),
    "20 % darker": _enhanced("Brightness", 0.8),
    "30 % more contrast": _enhanced("Contrast", 1.3),
    "50 % more saturation": _enhanced("Color", 1.5),
    "blurred": _blurred,
    "2 % cropped from each side": _cropped,
}
