"""Estimate of the pairs of unrelated images at each distance, from the distances of all pairs.

Copies are near each other, unrelated images far: the counts of pairs by distance have a valley between them. Above the
valley nearly all pairs are unrelated. Two curves are fitted to the counts there, and continued below it:

- a normal curve, exp(a + b d - c d^2): right where the bits of a hash are nearly independent, too high otherwise;
- a gamma curve, exp(a + b d + c log d): right where bits are strongly correlated, too low otherwise.

Both have c >= 0: a tail that falls ever more slowly is one of copies. Where many distances are fitted, copies with
large edits are a flat part below the curves, whose height is fitted too. The estimate is the geometric mean of the
curves with weights of 2 and 1, and 0.7 standard errors more, so that it is rather too high than too low, above all in
small sets. Its accuracy is measured by benchmarks/advice.py.
"""

from collections.abc import Callable
from math import ceil, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

_F64 = npt.NDArray[np.float64]

_MIN_PAIRS: Final = 1_000  # of different hashes; fewer, those of 45 hashes, do not show a tail
# The tail that is fitted: at least so many pairs, at least so many standard deviations of independent bits, and at
# most this share of the pairs above the valley.
_MIN_FITTED: Final = 2_000
_MIN_DEVIATIONS: Final = 3.0
_MAX_SHARE: Final = 0.005
_WEIGHTS: Final = (2 / 3, 1 / 3)  # of the normal and of the gamma curve
_ERRORS: Final = 0.7  # standard errors that are added
_MAX_ERROR: Final = 5.0  # of the logarithm
# A flat part is fitted where there are so many distances: with fewer it looks like the tail.
_MIN_FOR_FLAT: Final = 40
_FLAT_STEPS: Final = 12  # of expectation maximization
_STEPS: Final = 100


def expected_unrelated(counts: _F64, exposure: _F64, max_radius: int) -> _F64 | None:
    """Return the expected number of pairs of unrelated images at each distance: (max_radius + 1,) float64.

    Parameters
    ----------
    counts
        (n_bits + 1,): pairs that were counted at each distance.
    exposure
        (n_bits + 1,): the share of all pairs that was counted at that distance, 1 for all.
    max_radius
        Largest distance, in bits.

    Returns
    -------
    numpy.ndarray or None
        None where there are too few pairs for an estimate.
    """
    if counts.sum() < _MIN_PAIRS:
        return None
    expected = np.zeros(len(counts))
    # Hashes with as many ones as zeros, such as PDQ's, have even distances only.
    step = 1 if counts[1::2].any() else 2
    expected[::step] = _expected(counts[::step], exposure[::step], step, len(counts) - 1)
    return expected[: max_radius + 1]


def _expected(counts: _F64, exposure: _F64, step: int, n_bits: int) -> _F64:
    """Return the expected pairs at every distance that is a multiple of `step` bits."""
    rate, last = counts / exposure, len(counts) - 1
    # Half a pair more, so that no pair of few that were counted is not taken for no pair of all. Different hashes are
    # at least one bit apart.
    smooth = _smoothed(np.log((counts[1:] + 0.5) / exposure[1:]), max(1, last // 128))
    mode = last // 8 + int(np.argmax(smooth[last // 8 :]))
    valley = 1 + int(np.argmin(smooth[: mode + 1]))
    top = max(
        valley + ceil(_MIN_DEVIATIONS * sqrt(n_bits) / 2 / step),
        valley + int(np.searchsorted(np.cumsum(counts[valley:]), _MIN_FITTED)),
    )
    shares = np.cumsum(rate[valley:]) / rate[valley:].sum()
    enough = max(_MAX_SHARE, min(0.5, 100 / rate[valley:].sum()))
    top = min(top, valley + int(np.searchsorted(shares, enough)))
    top = min(last, max(top, valley + 4))
    has_flat = top - valley >= _MIN_FOR_FLAT
    start = valley + (top - valley) // (10 if has_flat else 4)
    fitted = slice(start, top + 1)
    at = np.arange(last + 1, dtype=np.float64)
    logs, variance = np.zeros(last + 1), np.zeros(last + 1)
    for weight, terms in zip(_WEIGHTS, (_normal_terms, _gamma_terms), strict=True):
        columns = _columns(terms, at * step, float(start * step), float(top * step))
        found, covariance = _fit_tail(columns[fitted], counts[fitted], exposure[fitted], has_flat=has_flat)
        used = columns[:, : len(found)]
        logs += weight * (used @ found)
        variance += weight * np.einsum("ij,jk,ik->i", used, covariance, used)
    logs += _ERRORS * np.minimum(np.sqrt(variance), _MAX_ERROR)
    expected: _F64 = np.exp(np.clip(logs, -700.0, 700.0))
    # Above the tail that was fitted the curve says nothing, and all pairs count as unrelated.
    expected[top + 1 :] = rate[top + 1 :]
    return expected


def _smoothed(values: _F64, reach: int) -> _F64:
    """Return the mean of the values within `reach` of each."""
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


_Terms = Callable[[_F64, float], _F64]


def _normal_terms(distance: _F64, top: float) -> _F64:
    return -((distance - top) ** 2)


def _gamma_terms(distance: _F64, top: float) -> _F64:
    return np.log((distance + 0.5) / (top + 0.5))


def _columns(terms: _Terms, distance: _F64, start: float, top: float) -> _F64:
    """Return the columns 1, the distance, and `terms` of the distances, near 1 in size from `start` to `top`."""
    scale = np.abs(terms(np.array([start]), top))[0]
    return np.stack([np.ones_like(distance), (distance - top) / (top - start), terms(distance, top) / scale], axis=1)


def _fit_tail(columns: _F64, counts: _F64, exposure: _F64, *, has_flat: bool) -> tuple[_F64, _F64]:
    """Return the coefficients of the columns and their covariance; the last one is left out where it is negative."""
    below = max(1, len(counts) // 4)
    flat = 0.5 * counts[:below].sum() / exposure[:below].sum() if has_flat else 0.0
    counted = counts
    for _ in range(_FLAT_STEPS + 1 if has_flat else 1):
        used = columns
        found, covariance = _fit_poisson(used, counted, exposure)
        if found[-1] < 0:
            used = columns[:, :-1]
            found, covariance = _fit_poisson(used, counted, exposure)
        expected = exposure * np.exp(np.clip(used @ found, -700.0, 100.0))
        share = expected / np.maximum(expected + flat * exposure, 1e-300)
        counted = counts * share
        flat = (counts - counted).sum() / exposure.sum()
    return found, covariance


def _fit_poisson(columns: _F64, counts: _F64, exposure: _F64) -> tuple[_F64, _F64]:
    """Return the coefficients of the logarithm of the expected counts and their covariance, by Poisson regression."""
    weight = np.sqrt(counts + 0.5)[:, None]
    start = np.log((counts + 0.5) / exposure)[:, None] * weight
    found: _F64 = np.linalg.lstsq(columns * weight, start, rcond=None)[0][:, 0]
    curvature = np.eye(columns.shape[1])
    for _ in range(_STEPS):  # of Newton's method
        expected = exposure * np.exp(np.clip(columns @ found, -700.0, 100.0))
        curvature = (columns * expected[:, None]).T @ columns + 1e-6 * np.eye(columns.shape[1])
        step = np.clip(np.linalg.solve(curvature, columns.T @ (counts - expected)), -1.0, 1.0)
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    covariance = np.linalg.inv(curvature).astype(np.float64)
    return found, covariance
