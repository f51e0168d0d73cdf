"""Estimate of the pairs of unrelated images at each distance, from the distances of all pairs.

Copies are near each other, unrelated images far: the counts of pairs by distance have a valley between them. Above the
valley nearly all pairs are unrelated. Two curves are fitted to the counts there, and continued below it:

- a normal curve, exp(a + b d + c d^2): right where the bits of a hash are nearly independent, too high otherwise;
- a gamma curve, exp(a + b d + c log d): right where bits are strongly correlated, too low otherwise.

The estimate is their geometric mean with weights of 2 and 1. Over sets with known truth, the pairs of unrelated images
at the suggested radius were 0.2 to 2.4 times as many as estimated (docs/guide/choosing-a-radius.md).
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
    n_bits = len(counts) - 1
    if counts.sum() < _MIN_PAIRS:
        return None
    rate = counts / exposure
    # Half a pair more, so that no pair of few that were counted is not taken for no pair of all. Different hashes are
    # at least one bit apart.
    smooth = _smoothed(np.log((counts[1:] + 0.5) / exposure[1:]), max(1, n_bits // 128))
    mode = n_bits // 8 + int(np.argmax(smooth[n_bits // 8 :]))
    valley = 1 + int(np.argmin(smooth[: mode + 1]))
    top = max(
        valley + ceil(_MIN_DEVIATIONS * sqrt(n_bits) / 2),
        valley + int(np.searchsorted(np.cumsum(counts[valley:]), _MIN_FITTED)),
    )
    shares = np.cumsum(rate[valley:]) / rate[valley:].sum()
    enough = max(_MAX_SHARE, min(0.5, 100 / rate[valley:].sum()))
    top = min(top, valley + int(np.searchsorted(shares, enough)))
    top = min(n_bits, max(top, valley + 4))
    start = valley + (top - valley) // 4
    fitted = slice(start, top + 1)
    distances = np.arange(max_radius + 1, dtype=np.float64)
    logs = np.zeros(max_radius + 1)
    for weight, terms in zip(_WEIGHTS, (_normal_terms, _gamma_terms), strict=True):
        scaled = _scaled(terms, float(top), float(top - start))
        of_fit = scaled(np.arange(start, top + 1, dtype=np.float64))
        logs += weight * (scaled(distances) @ _fit_poisson(of_fit, counts[fitted], exposure[fitted]))
    expected: _F64 = np.exp(np.clip(logs, -700.0, 700.0))
    # Above the tail that was fitted the curve says nothing, and all pairs count as unrelated.
    expected[top + 1 :] = rate[top + 1 : max_radius + 1]
    return expected


def _smoothed(values: _F64, reach: int) -> _F64:
    """Return the mean of the values within `reach` of each."""
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


_Terms = Callable[[_F64, float], _F64]


def _normal_terms(distance: _F64, top: float) -> _F64:
    return (distance - top) ** 2


def _gamma_terms(distance: _F64, top: float) -> _F64:
    return np.log((distance + 0.5) / (top + 0.5))


def _scaled(terms: _Terms, top: float, width: float) -> Callable[[_F64], _F64]:
    """Return a function that gives the columns 1, the distance, and `terms` of some distances, near 1 in size."""

    def columns(distance: _F64) -> _F64:
        scale = np.abs(terms(np.array([top - width]), top))[0]
        return np.stack([np.ones_like(distance), (distance - top) / width, terms(distance, top) / scale], axis=1)

    return columns


def _fit_poisson(columns: _F64, counts: _F64, exposure: _F64) -> _F64:
    """Return the coefficients of the logarithm of the expected counts, by Poisson regression (Newton's method)."""
    weight = np.sqrt(counts + 0.5)[:, None]
    start = np.log((counts + 0.5) / exposure)[:, None] * weight
    found: _F64 = np.linalg.lstsq(columns * weight, start, rcond=None)[0][:, 0]
    for _ in range(_STEPS):
        expected = exposure * np.exp(np.clip(columns @ found, -700.0, 100.0))
        curvature = (columns * expected[:, None]).T @ columns + 1e-6 * np.eye(3)
        step = np.clip(np.linalg.solve(curvature, columns.T @ (counts - expected)), -1.0, 1.0)
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    return found
