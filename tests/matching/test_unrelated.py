"""The estimate of unrelated pairs: known curves, copies that hide the valley, and even distances."""

import numpy as np
import pytest

from imgmatch_df.matching.unrelated import expected_unrelated

SEED = 3


def tail(n_bits, mean, deviation, n_pairs):
    """Return the expected counts of a normal curve of distances."""
    distance = np.arange(n_bits + 1)
    density = np.exp(-0.5 * ((distance - mean) / deviation) ** 2)
    return n_pairs * density / density.sum()


def estimated(counts, radius):
    """Return the estimate within the radius, of all pairs counted."""
    found = expected_unrelated(counts, np.ones(len(counts)), len(counts) - 1)
    return found[: radius + 1].sum()


@pytest.mark.parametrize(
    ("n_bits", "mean", "deviation", "radius"), [(961, 480, 90, 100), (256, 128, 16, 60), (64, 32, 6, 8)]
)
@pytest.mark.parametrize("n_pairs", [3e5, 1e8])
def test_a_normal_curve(n_bits, mean, deviation, radius, n_pairs):
    expected = tail(n_bits, mean, deviation, n_pairs)
    true = expected[: radius + 1].sum()
    found = [estimated(np.random.default_rng(SEED + n).poisson(expected).astype(np.float64), radius) for n in range(9)]
    assert true / 3 <= np.median(found) <= 3 * true


@pytest.mark.parametrize(
    ("n_bits", "mean", "deviation", "radius"), [(961, 480, 90, 100), (256, 128, 16, 60), (64, 32, 6, 8)]
)
def test_copies_raise_the_estimate_little(n_bits, mean, deviation, radius):
    expected = tail(n_bits, mean, deviation, 1e7)
    copies = np.zeros(n_bits + 1)
    copies[: radius // 2] = 40 * 0.8 ** np.arange(radius // 2)
    counts = np.random.default_rng(SEED).poisson(expected + copies).astype(np.float64)
    assert estimated(counts, radius) <= 4 * expected[: radius + 1].sum() + 1


def test_copies_of_all_degrees_are_a_flat_part():
    """Copies with large edits reach into the tail of unrelated images."""
    expected = tail(961, 480, 90, 2e7)
    copies = np.full(962, 4.0)
    copies[300:] = 0
    counts = np.random.default_rng(SEED).poisson(expected + copies).astype(np.float64)
    for radius in (48, 100):
        assert estimated(counts, radius) <= 3 * expected[: radius + 1].sum() + 0.1 * counts[: radius + 1].sum()


def test_even_distances():
    expected = tail(256, 128, 16, 1e8)
    expected[1::2] = 0
    counts = np.random.default_rng(SEED).poisson(expected).astype(np.float64)
    found = expected_unrelated(counts, np.ones(257), 256)
    assert not found[1::2].any()
    assert expected[:61].sum() / 3 <= found[:61].sum() <= 3 * expected[:61].sum()


def test_a_sample_of_the_pairs():
    expected = tail(256, 128, 16, 1e9)
    exposure = np.full(257, 0.01)
    exposure[:50] = 1
    counts = np.random.default_rng(SEED).poisson(expected * exposure).astype(np.float64)
    found = expected_unrelated(counts, exposure, 60).sum()
    assert expected[:61].sum() / 3 <= found <= 3 * expected[:61].sum()


def test_few_pairs_have_no_estimate():
    assert expected_unrelated(np.array([0.0, 400.0, 500.0, 0.0]), np.ones(4), 3) is None
