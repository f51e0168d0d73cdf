"""The cosine transform of ImageHash's phash, by the very operations of pocketfft.

Rounding decides where coefficients tie, as they do in symmetric images. SciPy makes a cosine transform of a real
Fourier transform, in passes of radix 2 and 4, between two steps of arithmetic. NumPy has pocketfft too, but not its
cosine transform, and two dozen calls of NumPy took longer than the resize.

Source: SciPy scipy.fftpack.dct and its library pocketfft, pocketfft_hdronly.h.
"""

import math
from typing import Any, Final

import numpy as np

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import types

Array = np.ndarray[Any, Any]

_SQRT_2: Final = math.sqrt(2)
_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")


@_inner
def _pass_2(n: int, n_done: int, values: Array, out: Array, factors: Array) -> None:
    for k in range(n_done):
        low, high = 2 * n * k, n * (2 * k + 1)
        first, second = n * k, n * (k + n_done)
        out[first] = values[low] + values[high + n - 1]
        out[second] = values[low] - values[high + n - 1]
        out[first + n - 1] = 2 * values[low + n - 1]
        out[second + n - 1] = -2 * values[high]
        for i in range(2, n, 2):
            j = n - i
            real = values[low + i - 1] - values[high + j - 1]
            imaginary = values[low + i] + values[high + j]
            out[first + i - 1] = values[low + i - 1] + values[high + j - 1]
            out[first + i] = values[low + i] - values[high + j]
            cosine, sine = factors[i - 2], factors[i - 1]
            out[second + i] = cosine * imaginary + sine * real
            out[second + i - 1] = cosine * real - sine * imaginary


@_inner
def _pass_4(n: int, n_done: int, values: Array, out: Array, factors: Array) -> None:
    for k in range(n_done):
        a, b, c, d = (4 * k) * n, (4 * k + 1) * n, (4 * k + 2) * n, (4 * k + 3) * n
        first, second, third, fourth = k * n, (k + n_done) * n, (k + 2 * n_done) * n, (k + 3 * n_done) * n
        last = n - 1
        total, difference = values[a] + values[d + last], values[a] - values[d + last]
        out[first], out[third] = total + 2 * values[b + last], total - 2 * values[b + last]
        out[fourth], out[second] = difference + 2 * values[c], difference - 2 * values[c]
        if n % 2 == 0:
            total, difference = values[a + last] + values[c + last], values[a + last] - values[c + last]
            total_i, difference_i = values[d] + values[b], values[d] - values[b]
            out[first + last] = total + total
            out[second + last] = _SQRT_2 * (difference - total_i)
            out[third + last] = difference_i + difference_i
            out[fourth + last] = -_SQRT_2 * (difference + total_i)
        for i in range(2, n, 2):
            j = n - i
            r1, r2 = values[a + i - 1] - values[d + j - 1], values[a + i - 1] + values[d + j - 1]
            i1, i2 = values[a + i] + values[d + j], values[a + i] - values[d + j]
            r3, r4 = values[c + i - 1] + values[b + j - 1], values[c + i] + values[b + j]
            i3, i4 = values[c + i] - values[b + j], values[c + i - 1] - values[b + j - 1]
            out[first + i - 1] = r2 + r3
            out[first + i] = i2 + i3
            _multiply(factors, i - 2, i1 + i4, r1 - r4, out, second + i)
            _multiply(factors, i - 2 + last, i2 - i3, r2 - r3, out, third + i)
            _multiply(factors, i - 2 + 2 * last, i1 - i4, r1 + r4, out, fourth + i)


@_inner
def _multiply(factors: Array, at: int, imaginary: float, real: float, out: Array, target: int) -> None:
    cosine, sine = factors[at], factors[at + 1]
    out[target] = cosine * imaginary + sine * real
    out[target - 1] = cosine * real - sine * imaginary


@_inner
def _invert(values: Array, spare: Array, factors: Array) -> Array:
    """Take the inverse real Fourier transform of 32 or 64 values; return which of both arrays it is in."""
    n, n_done, start = len(values), 1, 0
    while n_done < n:
        radix = 2 if n_done == 1 and n == 32 else 4
        length = n // (radix * n_done)
        if radix == 2:
            _pass_2(length, n_done, values, spare, factors[start:])
        else:
            _pass_4(length, n_done, values, spare, factors[start:])
        values, spare = spare, values
        start += (radix - 1) * (length - 1)
        n_done *= radix
    return values


@_inner
def _transform(values: Array, spare: Array, cosines: Array, factors: Array, out: Array) -> None:
    """Take the first cosine coefficients of 32 or 64 values, which are overwritten: out float64[k]."""
    n = len(values)
    values[0] *= 2
    values[n - 1] *= 2
    for i in range(1, n - 1, 2):
        odd, even = values[i], values[i + 1]
        values[i], values[i + 1] = even + odd, even - odd
    points = _invert(values, spare, factors)
    out[0] = points[0]
    for k in range(1, len(out)):
        first, last = points[k], points[n - k]
        cosine, sine = cosines[k], cosines[n - k]
        out[k] = 0.5 * ((cosine * last + sine * first) + (cosine * first - sine * last))


_DOUBLES: Final = types.float64[::1]


@kernel(
    signatures=[types.void(types.Array(types.uint8, 2, "C", readonly=True), _DOUBLES, _DOUBLES, types.float64[:, ::1])],
    error_model="numpy",
)
def _write_low_coefficients(pixels: Array, cosines: Array, factors: Array, out: Array) -> None:
    n, side = len(pixels), len(out)
    values, spare = np.empty(n), np.empty(n)
    by_column, row = np.empty((n, side)), np.empty(side)
    for x in range(n):
        for y in range(n):
            values[y] = pixels[y, x]
        _transform(values, spare, cosines, factors, by_column[x])
    for y in range(side):
        for x in range(n):
            values[x] = by_column[x, y]
        _transform(values, spare, cosines, factors, row)
        for x in range(side):
            out[y, x] = row[x]


def low_coefficients(pixels: Array, side: int) -> Array:
    """Return the side x side lowest cosine coefficients, down then across: pixels uint8 (n, n), n 32 or 64."""
    out = np.empty((side, side))
    _write_low_coefficients(pixels, *_TABLES[len(pixels)], out)
    return out


def _root(k: int, n: int) -> tuple[float, float]:
    """Return cosine and sine of 2 pi k / n as pocketfft rounds them: products of a coarse and a fine table."""
    if 2 * k > n:
        cosine, sine = _root(n - k, n)
        return cosine, -sine
    n_fine = 2
    while n_fine * n_fine < (n + 2) // 2:
        n_fine *= 2
    (fine_cosine, fine_sine), (cosine, sine) = _angle(k % n_fine, n), _angle(k - k % n_fine, n)
    return fine_cosine * cosine - fine_sine * sine, fine_cosine * sine + fine_sine * cosine


def _angle(k: int, n: int) -> tuple[float, float]:
    """Return cosine and sine of 2 pi k / n, for k up to n / 2, from an angle of at most pi / 4."""
    step = 0.25 * math.pi / n
    eighths = 8 * k
    if eighths < n:
        return math.cos(eighths * step), math.sin(eighths * step)
    if eighths < 2 * n:
        return math.sin((2 * n - eighths) * step), math.cos((2 * n - eighths) * step)
    if eighths < 3 * n:
        return -math.sin((eighths - 2 * n) * step), math.cos((eighths - 2 * n) * step)
    return -math.cos((4 * n - eighths) * step), math.sin((4 * n - eighths) * step)


def _factors(n: int) -> Array:
    """Return the cosines and sines that the passes multiply by, one pass after the other."""
    values, n_done = [], 1
    while n_done < n:
        radix = 2 if n_done == 1 and n == 32 else 4
        length = n // (radix * n_done)
        for j in range(1, radix):
            roots = [_root(j * n_done * i, n) for i in range(1, length // 2)]
            values += [part for root in roots for part in root] + [0.0] * (length % 2 == 0)
        n_done *= radix
    return np.array([*values, 0.0])


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


_TABLES: Final = {n: (_cosines(n), _factors(n)) for n in (32, 64)}
