"""PDQ as its reference computes it, one float32 operation after the other."""

import math

import numpy as np
from numpy.typing import NDArray

ZERO = np.float32(0)


def pdq(rgb: NDArray[np.uint8]) -> tuple[bytes, int]:
    """Return the hash and the quality of uint8 (h, w, 3)."""
    height, width = rgb.shape[:2]
    if min(height, width) < 5:
        return bytes(32), 0
    red, green, blue = np.moveaxis(rgb.astype(np.float64), 2, 0)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).astype(np.float32)
    for _ in range(2 if (height, width) != (64, 64) else 0):
        luma = box(luma.T, (width + 127) // 128).T
        luma = box(luma, (height + 127) // 128)
    rows, columns = ([int((i + 0.5) * n / 64) for i in range(64)] for n in (height, width))
    means = luma[np.ix_(rows, columns)]
    scale = float(np.float32(math.sqrt(2 / 64)))
    cosines = np.array(
        [[scale * math.cos((math.pi / 2 / 64) * i * (2 * j + 1)) for j in range(64)] for i in range(1, 17)]
    ).astype(np.float32)
    half = np.zeros((16, 64), np.float32)
    for k in range(64):
        half += cosines[:, k, None] * means[None, k]
    values = np.zeros((16, 16), np.float32)
    for k in range(64):
        values += half[:, k, None] * cosines[None, :, k]
    median = np.sort(values.ravel())[127]
    bits = np.packbits((values.ravel() > median)[::-1]).tobytes()
    steps = [np.trunc((means[:-1] - means[1:]) * np.float32(100) / np.float32(255))]
    steps.append(np.trunc((means[:, :-1] - means[:, 1:]) * np.float32(100) / np.float32(255)))
    return bits, min(int(sum(np.abs(step).sum() for step in steps)) // 90, 100)


def box(lines: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Average `window` rows by a running sum, fewer at both ends."""
    ahead = window // 2
    total = np.zeros(lines.shape[1], np.float32)
    out = np.empty_like(lines)
    for new in range(len(lines) + ahead):
        old = new - window
        if new < len(lines):
            total = total + lines[new]
        if old >= 0:
            total = total - lines[old]
        if new >= ahead:
            out[new - ahead] = total / np.float32(min(new, len(lines) - 1) - max(old, -1))
    return out
