"""phash: the 64-bit hash of low cosine coefficients, bit for bit OpenCV's `PHash`.

Sources: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010); OpenCV
modules/core/src/dxt.cpp and sum.simd.hpp; opencv_contrib modules/img_hash/src/phash.cpp.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel

if TYPE_CHECKING:
    from imgmatch_df.hashes.squares import HashInput

Array = np.ndarray[Any, Any]

_SIDE: Final = 32

# Called from compiled code alone, so without the wrappers for Python.
_inner: Final = kernel(no_cpython_wrapper=True, no_cfunc_wrapper=True)


def hash_image(image: "HashInput", out: Array) -> None:
    """Write the phash of an image: out uint64[1]."""
    _hash_square(*image.square_and_axes(_SIDE), out)


def _rotations(step: complex, n: int, scale: float) -> Array:
    """Return scale * step**k for k < n as complex64[n], by OpenCV's recurrence in doubles."""
    table = np.empty(n, np.complex64)
    rotation = complex(scale)
    for k in range(n):
        table[k] = rotation
        rotation *= step
    return table


_DFT_WAVE: Final = _rotations(complex(0.98078528040323043, -0.19509032201612825), 16, 1.0)  # exp(-i * pi / 16)
_DFT_WAVE_18: Final = np.complex64(_DFT_WAVE[14].conjugate())  # OpenCV mirrors the second half of its table
_DCT_WAVE: Final = _rotations(complex(0.99879545620517241, -0.04906767432741802), 8, 0.125)  # exp(-i * pi / 64) / 8
_DC: Final = np.float32(0.70710678118654752440) / np.float32(4)


@_inner
def _butterfly(points: Array, a: int, b: int, c: int, d: int) -> None:
    """Transform four points in place, in the order of OpenCV's radix 4."""
    sum_ab, difference_ab = points[a] + points[b], points[a] - points[b]
    sum_cd, difference_cd = points[c] + points[d], points[c] - points[d]
    turned = complex(difference_cd.imag, -difference_cd.real)
    points[a] = sum_ab + sum_cd
    points[b] = difference_ab + turned
    points[c] = sum_ab - sum_cd
    points[d] = difference_ab - turned


@_inner
def _transform_cosine(signal: Array, points: Array, spectrum: Array) -> None:
    """Take the first 8 cosine coefficients of float32[32], by the very float32 operations of OpenCV's dxt.cpp.

    points complex64[16] is scratch, spectrum float32[8]. Rounding decides where coefficients tie, as they do in drawn
    and symmetric images. Against OpenCV with its IPP off, a transform in doubles changed the phash of 468 of 5,716
    such images and of 120 of 200,036 crops of photos; this one of none. With IPP on, Intel's transform decides, which
    is closed and rounds by processor: 45 of the 5,716 differ, all of them images that become their own negative when
    transposed, and none of the crops.
    """
    # Even samples forwards, then odd ones backwards; two by two they are complex numbers, put in bit-reversed order.
    for i in range(16):
        j = ((i & 1) << 3) | ((i & 2) << 1) | ((i & 4) >> 1) | (i >> 3)
        points[i] = (
            complex(signal[4 * j], signal[4 * j + 2]) if j < 8 else complex(signal[63 - 4 * j], signal[61 - 4 * j])
        )
    for i in range(0, 16, 4):
        _butterfly(points, i, i + 1, i + 2, i + 3)
    for i in range(4):
        points[i + 4] *= _DFT_WAVE[4 * i]
        points[i + 8] *= _DFT_WAVE[2 * i]
        points[i + 12] *= _DFT_WAVE[6 * i] if i < 3 else _DFT_WAVE_18
        _butterfly(points, i, i + 4, i + 8, i + 12)
    # From 16 complex numbers to the spectrum of 32 real ones (twice it), and on to cosines.
    spectrum[0] = (points[0].real + points[0].imag) * _DC
    for k in range(1, 8):
        mirrored = points[16 - k].conjugate()
        even, odd = points[k] + mirrored, points[k] - mirrored
        doubled = even + complex(odd.imag, -odd.real) * _DFT_WAVE[k]
        spectrum[k] = doubled.real * _DCT_WAVE[k].real - doubled.imag * _DCT_WAVE[k].imag


@_inner
def _mean_64(values: Array) -> Any:
    """Average float32[8, 8] as cv::mean does where it has AVX2: six rows as doubles, two in fours of floats."""
    total = 0.0
    for j in range(4):
        low = high = 0.0
        for i in range(0, 6, 2):
            low += np.float64(values[i, j]) + np.float64(values[i + 1, j])
            high += np.float64(values[i, j + 4]) + np.float64(values[i + 1, j + 4])
        total += low + high
    for i in range(6, 8):
        for j in range(0, 8, 4):
            total += np.float64(values[i, j] + values[i, j + 1] + values[i, j + 2] + values[i, j + 3])
    return np.float32(total / 64)


# With the GIL: to let go of it and wait for it again costs more than these 4 microseconds.
@kernel(signatures=["void(uint8[:, ::1], boolean, uint64[::1])"], nogil=False)
def _hash_square(square: Array, is_transposed: bool, out: Array) -> None:
    """Compare 64 low cosine coefficients of a 32 x 32 square, transposed if needed, with their mean: out uint64[1]."""
    points = np.empty(16, np.complex64)
    signal = np.empty(_SIDE, np.float32)
    spectrum = np.empty(8, np.float32)
    rows = np.empty((8, _SIDE), np.float32)
    for y in range(_SIDE):
        for x in range(_SIDE):
            signal[x] = square[x, y] if is_transposed else square[y, x]
        _transform_cosine(signal, points, spectrum)
        for k in range(8):
            rows[k, y] = spectrum[k]
    values = np.empty((8, 8), np.float32)
    for k in range(8):
        _transform_cosine(rows[k], points, spectrum)
        for m in range(8):
            values[m, k] = spectrum[m]
    values[0, 0] = 0
    mean = _mean_64(values)
    bits = np.uint64(0)
    for i in range(8):
        for j in range(8):
            # The first byte is the most significant; in it, the first column is the least significant bit.
            bits |= np.uint64(values[i, j] > mean) << np.uint64(8 * (7 - i) + j)
    out[0] = bits
