"""The hashes of the Python package ImageHash 4.3, bit for bit, with the resize of Pillow 13.

Sources: ImageHash imagehash/__init__.py; SciPy scipy.fftpack.dct and its library pocketfft, pocketfft_hdronly.h.
"""

import math
from typing import Any, Final

import numpy as np

from imgmatch_df.hashes.kernels.lanczos import resize, write_grey
from imgmatch_df.hashes.squares import HashInput, upright

Array = np.ndarray[Any, Any]


def write_phash(image: HashInput, out: Array) -> None:
    """Write `str(imagehash.phash(image))` as a number: out uint64[1]."""
    out[0] = _packed(_phash_bits(image, 8)).view(">u8")[0]


def write_phash16(image: HashInput, out: Array) -> None:
    """Write the bytes of `str(imagehash.phash(image, hash_size=16))`: out uint8[32]."""
    out[:] = _packed(_phash_bits(image, 16))


def write_dhash(image: HashInput, out: Array) -> None:
    """Write `str(imagehash.dhash(image))` as a number: out uint64[1]."""
    out[0] = _packed(_dhash_bits(image, 8)).view(">u8")[0]


def write_dhash16(image: HashInput, out: Array) -> None:
    """Write the bytes of `str(imagehash.dhash(image, hash_size=16))`: out uint8[32]."""
    out[:] = _packed(_dhash_bits(image, 16))


def write_ahash(image: HashInput, out: Array) -> None:
    """Write `str(imagehash.average_hash(image))` as a number: out uint64[1]."""
    pixels = _resized(image, 8, 8)
    out[0] = _packed(pixels > pixels.mean()).view(">u8")[0]


def _phash_bits(image: HashInput, side: int) -> Array:
    """Compare the side x side lowest cosine coefficients with their median: bool (side, side)."""
    pixels = _resized(image, 4 * side, 4 * side).astype(np.float64)
    coefficients = _transform_cosine(_transform_cosine(pixels.T, side).T, side)
    low, high = np.sort(coefficients, axis=None)[side * side // 2 - 1 :][:2]
    return coefficients > (low + high) / 2


def _dhash_bits(image: HashInput, side: int) -> Array:
    """Return whether each pixel is lighter than the one on its left: bool (side, side)."""
    pixels = _resized(image, side + 1, side)
    return pixels[:, 1:] > pixels[:, :-1]


def _resized(image: HashInput, width: int, height: int) -> Array:
    """Return the image as Pillow's `convert("L").resize((width, height), LANCZOS)`: uint8 (height, width)."""
    grey: Array | None = image.memo.get("imagehash")
    if grey is None:
        grey = image.pixels
        if grey.ndim == 3:
            grey = np.empty(grey.shape[:2], np.uint8)
            write_grey(image.pixels.reshape(-1).view(np.uint32), grey.reshape(-1))
        grey = image.memo["imagehash"] = upright(grey, image.orientation)
    return resize(grey, width, height)


def _packed(bits: Array) -> Array:
    """Return bits as bytes, row by row and most significant bit first, as ImageHash prints them."""
    return np.packbits(bits)


def _transform_cosine(signals: Array, n_coefficients: int) -> Array:
    """Take the first cosine coefficients of each row by the operations of pocketfft: float64 (rows, n_coefficients).

    Rounding decides where coefficients tie, as they do in symmetric images. NumPy has pocketfft too, but not its cosine
    transform, which is a real Fourier transform between two steps of arithmetic.
    """
    n = signals.shape[1]
    halves = np.zeros((len(signals), n // 2 + 1), np.complex128)
    halves[:, 0] = 2 * signals[:, 0]
    halves[:, -1] = 2 * signals[:, -1]
    odd, even = signals[:, 1:-1:2], signals[:, 2:-1:2]
    halves.real[:, 1:-1] = even + odd
    halves.imag[:, 1:-1] = even - odd
    points = np.fft.irfft(halves, n, norm="forward")
    first, last = points[:, 1:n_coefficients], points[:, : n - n_coefficients : -1]
    cosines, sines = _COSINES[n][1:n_coefficients], _COSINES[n][: n - n_coefficients : -1]
    coefficients = np.empty((len(signals), n_coefficients))
    coefficients[:, 0] = points[:, 0]
    coefficients[:, 1:] = 0.5 * ((cosines * last + sines * first) + (cosines * first - sines * last))
    return coefficients


def _cosines(n: int) -> Array:
    """Return cos(pi * k / 2n) for k < n as pocketfft rounds them: products of a coarse and a fine table."""

    def cosine_and_sine(k: int) -> tuple[float, float]:
        step = math.pi / (2 * n)
        if 2 * k < n:
            return math.cos(k * step), math.sin(k * step)
        return math.sin((n - k) * step), math.cos((n - k) * step)

    table = np.empty(n)
    for k in range(n):
        (fine_cosine, fine_sine), (cosine, sine) = cosine_and_sine(k % 16), cosine_and_sine(k - k % 16)
        table[k] = fine_cosine * cosine - fine_sine * sine
    return table


_COSINES: Final = {n: _cosines(n) for n in (32, 64)}
