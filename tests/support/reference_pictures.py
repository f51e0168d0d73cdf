"""The truth about hashes: OpenCV's img_hash on the picture as it is seen."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

# What a viewer does with the stored picture, by EXIF orientation.
SEEN_BY_ORIENTATION = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


@contextmanager
def open_source_opencv() -> Iterator[None]:
    """Turn Intel's closed IPP off: its cosine transform rounds differently from processor to processor."""
    was_on = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(was_on)


def opencv_hashes(pixels: np.ndarray, orientation: int = 1) -> tuple[bytes, int]:
    """Return bmh1 and phash of a stored picture, RGBX or grey."""
    seen = SEEN_BY_ORIENTATION[orientation](pixels)
    bgr = seen[..., 2::-1] if seen.ndim == 3 else np.stack([seen] * 3, axis=2)
    bgr = np.ascontiguousarray(bgr)
    bmh1 = cv2.img_hash.BlockMeanHash_create(1).compute(bgr)
    phash = cv2.img_hash.PHash_create().compute(bgr)
    return bmh1.tobytes(), int.from_bytes(phash.tobytes(), "big")
