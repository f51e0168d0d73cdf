"""Which plan a join takes, and what it expects: pigeonhole bands or a scan, from a sample of the hashes.

Of m bands with radii r_i that sum to ``radius - m + 1``, every pair within the radius is within r_i in some band i:
otherwise it would differ in at least ``sum(r_i + 1) = radius + 1`` bits (Norouzi, Punjani, Fleet, "Fast search in
Hamming space with multi-index hashing", CVPR 2012). A scan is the plan of one band without bits.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import ceil, comb, exp, inf, log2
from typing import Final, Literal, NamedTuple

import numpy as np

from imgmatch_df._kernels.popcount import LANES, STRETCH
from imgmatch_df.matching.kernels.bands import I64, U32, U64, count_agreements, count_prefixes, deal_bits, permute_bits

Choice = Literal["bands", "scan"]

_MAX_FLIPS: Final = 4096
_MAX_KEY_BITS: Final = 24
_MAX_SAMPLE: Final = 2048
_FEW_PAIRS: Final = 1 << 20  # a scan of as many is done before bands are weighed

# Nanoseconds on one thread of a server core with AVX-512. Their ratios pick the plan; another machine shifts all of
# them alike.
_NS_BLOCK: Final = 1.7  # one query against LANES hashes, per word
_NS_RUN: Final = 5.0  # one run of another bucket, chosen and gathered
_NS_GATHER: Final = 0.4  # one word of it
_NS_STRETCH: Final = 1.3  # one query against LANES gathered hashes, per word
_NS_QUERY: Final = 8.0  # one query against what was gathered, beside that
_NS_LOOK: Final = 18.0  # one query's run of another bucket where it lies
_NS_SELF: Final = 3.0  # one row of a self-join against the rest of its own block
_NS_ROW: Final = 8.0  # one row sorted into one band
_NS_COPY: Final = 2.5  # one more word copied beside it
_NS_SLOT: Final = 2.0  # one bucket counted and cleared
_NS_VERIFY: Final = 10.0  # one candidate that the first words let pass
_NS_PAIR: Final = 30.0  # one pair checked for its owner
_NS_UNLIKE: Final = 1.5  # one bit of the radius: the first band in which a pair meets comes later where bands are many


class Distinct(NamedTuple):
    """One side of a join: hashes (n, n_words) uint64, and the first row of each distinct one, (m,) uint32."""

    hashes: U64
    rows: U32


@dataclass(frozen=True, slots=True)
class Band:
    """A slice of the permuted bits and how far its keys may lie apart.

    Parameters
    ----------
    low, n_bits
        The slice ``low..low + n_bits``.
    n_key_bits
        Bits of the bucket number: fewer than `n_bits` only where `radius` is 0, by hashing.
    radius
        Largest distance within the slice, in bits; inclusive.
    """

    low: int
    n_bits: int
    n_key_bits: int
    radius: int

    @property
    def slice(self) -> tuple[int, int]:
        """Where the band's bits begin, and how many they are."""
        return self.low, self.n_bits

    @property
    def most_flips(self) -> int:
        """In how many bits two keys may differ, at most."""
        return min(self.radius, self.n_key_bits)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a join will be done and what it expects; `str` gives it in one line.

    Parameters
    ----------
    choice
        ``"bands"`` or ``"scan"``.
    bands
        The bands, one of no bits for a scan.
    n_words
        Words that are compared at once, before a candidate is verified whole.
    radius
        Largest distance kept, in bits; inclusive.
    n_left, n_right
        Distinct hashes on both sides; equal for a self-join.
    candidates, pairs
        Pairs of distinct hashes that are expected to be compared, and to be found.
    seconds
        Expected time on one thread.
    """

    choice: Choice
    bands: tuple[Band, ...]
    n_words: int
    radius: int
    n_left: int
    n_right: int
    candidates: float
    pairs: float
    seconds: float

    def __str__(self) -> str:
        if self.choice == "scan":
            how = "scan"
        else:
            radii = [band.radius for band in self.bands]
            bits = [band.n_key_bits for band in self.bands]
            how = f"{len(radii)} bands of {min(bits)} to {max(bits)} key bits within {min(radii)} to {max(radii)}"
        return (
            f"{how}; radius {self.radius}; {self.n_left:,} x {self.n_right:,} distinct hashes; "
            f"about {self.candidates:.2g} candidates, {self.pairs:.2g} pairs, {self.seconds:.2g} s on one thread"
        )


def flips(band: Band) -> list[U32]:
    """Return the key differences of 1 bit, of 2 …, within the band's radius: (n_flips,) uint32 each, ascending."""
    bits = [1 << bit for bit in range(band.n_key_bits)]
    levels = range(1, band.most_flips + 1)
    return [np.array(sorted(map(sum, combinations(bits, n_ones))), np.uint32) for n_ones in levels]


def is_gathered(radius: int) -> bool:
    """Return whether the runs around a bucket are gathered before they are compared.

    Within one flip there are too few: 1,000,000 hashes within 4 bits took 1.2 times as long.
    """
    return radius > 1


def choose_plan(
    left: Distinct, right: Distinct, radius: int, n_bits: int, *, choice: Choice | None = None, pairs: bool = True
) -> tuple[Plan, I64]:
    """Return the plan that is expected to be the fastest, and the order of the bits it is for.

    Parameters
    ----------
    left, right
        Both sides; the same object for a self-join.
    radius
        Largest distance kept, in bits.
    n_bits
        Bits that carry information.
    choice
        Take the best plan of this kind, whatever it costs.
    pairs
        Whether pairs are wanted, or only what they connect: then hashes that are alike cost nothing beyond their
        sorting.
    """
    if choice is None and len(left.rows) * len(right.rows) <= _FEW_PAIRS:
        choice = "scan"
    sample = _sample(left, right)
    order = _order_bits(sample, n_bits, 1 if choice == "scan" else radius + 1)
    columns = np.empty((sample.shape[1], len(sample)), np.uint64)
    permute_bits(sample, np.arange(len(sample), dtype=np.uint32), order, 0, len(sample), columns)
    estimate = _Estimate(columns, len(sample), left, right, radius, n_bits, pairs)
    plans = []
    if choice != "bands":
        plans.append(estimate.plan("scan", (Band(0, 1, 0, radius),)))
    if choice != "scan":
        plans.extend(estimate.plan("bands", bands) for bands in _band_layouts(estimate))
    return min(plans, key=lambda plan: plan.seconds), order


def _sample(left: Distinct, right: Distinct) -> U64:
    """Return hashes taken evenly from both sides, few where the join is small: sampling must cost little beside it."""
    n_rows = len(left.rows) + len(right.rows)
    n = int(np.clip(n_rows // (512 if left.hashes.shape[1] == 1 else 256), 256, _MAX_SAMPLE))
    if left is right:
        return left.hashes[left.rows[:: max(1, len(left.rows) // n)][:n]]
    halves = [side.hashes[side.rows[:: max(1, 2 * len(side.rows) // n)][: n // 2]] for side in (left, right)]
    return np.concatenate(halves)


def _order_bits(sample: U64, n_bits: int, n_bands: int) -> I64:
    """Return the order of all bits in which each of `n_bands` equal slices holds bits that differ from each other.

    Neighbouring bits of a perceptual hash say nearly the same, and slices of them make few large buckets: on 200,000
    real crops, bits dealt like this leave 25 candidates a row within 24 bits, bits drawn at random 63.
    """
    n_all = 64 * sample.shape[1]
    order = np.arange(n_all)
    if sample.shape[1] > 1 and n_bands > 1:
        rows = np.zeros((512, 8 * sample.shape[1]), np.uint8)
        rows[: len(sample)] = sample[:512].view(np.uint8)
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, :n_bits]
        planes = np.ascontiguousarray(np.packbits(bits, axis=0).T).view(np.uint64)
        deal_bits(planes, min(n_bands, n_bits), order[:n_bits])
    return order


class _Estimate:
    """Costs of bands, from the sizes of the join and a sample of its hashes."""

    def __init__(
        self, columns: U64, n_sample: int, left: Distinct, right: Distinct, radius: int, n_bits: int, pairs: bool
    ) -> None:
        self.columns, self.n_sample, self.radius, self.n_bits = columns, n_sample, radius, n_bits
        self.n_left, self.n_right, self.same = len(left.rows), len(right.rows), left is right
        self.n_pairs = self.n_left * (self.n_left - 1) / 2 if self.same else float(self.n_left) * self.n_right
        self.wants_pairs = pairs
        few = min(n_sample, 384)
        passed = np.zeros(len(columns), np.int64)
        count_prefixes(columns, few, radius, passed)
        shares = passed / max(1, few * (few - 1) // 2)
        costs = [_NS_BLOCK / LANES * (k + 1) + _NS_VERIFY * share for k, share in enumerate(shares)]
        self.n_words = int(np.argmin(costs)) + 1
        self.passing = float(shares[self.n_words - 1])  # of all pairs, the share that the first words let pass
        self.near = float(shares[-1])
        self._theory: dict[tuple[int, int], float] = {}

    def agreement(self, band: Band) -> tuple[float, float]:
        """Return the shares of all pairs that meet in a band, and that meet and pass the first words."""
        uniform = _uniform_share(band.n_bits, band.radius)
        if self.wants_pairs:
            first_word = ((band.low + band.n_bits - 1) // 64 + 1) % len(self.columns)
            seen, passed = count_agreements(
                self.columns, self.n_sample, *band.slice, band.radius, first_word, self.n_words, self.radius
            )
            n_seen = max(1, self.n_sample * (self.n_sample - 1) // 2)
            expected = uniform * n_seen
            # The sample speaks where it differs from fair coins by more than its own noise.
            share = seen / n_seen if seen > expected + 4 * expected**0.5 + 4 else uniform
            passing = passed / n_seen if passed > 4 else share * self.passing
        else:
            share, passing = uniform, 0.0
        if band.n_key_bits < band.n_bits:
            share += 0.5**band.n_key_bits
            passing += self.passing * 0.5**band.n_key_bits
        return share, passing

    def theory(self, n_bits: int, radius: int) -> float:
        """Return the nanoseconds of one band whose bits are fair coins."""
        kind = n_bits, radius
        if kind not in self._theory:
            share = _uniform_share(n_bits, radius)
            self._theory[kind] = self.band_ns(n_bits, radius, share, share * self.passing)
        return self._theory[kind]

    def band_ns(self, n_key_bits: int, radius: int, share: float, passing: float) -> float:
        """Return the nanoseconds of one band where these shares of all pairs meet, and pass the first words."""
        half = 0.5 if self.same else 1.0
        n_flips = (_n_within(n_key_bits, radius) - 1) * half
        n_buckets = 2.0**n_key_bits
        filled = 1 - exp(-self.n_right / n_buckets)
        n_runs = n_buckets * (1 - exp(-self.n_left / n_buckets)) * n_flips
        own = min(share, 0.5**n_key_bits) if radius else share
        # Every run ends with a block that is half empty.
        blocks = self.n_pairs * own / LANES + 0.5 * self.n_left * filled
        n_sorted = self.n_left if self.same else self.n_left + self.n_right
        ns = (
            blocks * _NS_BLOCK * self.n_words
            + self.n_pairs * passing * _NS_VERIFY
            + self.same * self.n_left * _NS_SELF
            + n_sorted * (_NS_ROW + _NS_COPY * (self.n_words - 1))
            + n_buckets * _NS_SLOT
        )
        others = self.n_pairs * (share - own) / LANES
        if not self.wants_pairs or not is_gathered(radius):
            others += 0.5 * self.n_left * n_flips * filled
            return ns + n_runs * filled * _NS_LOOK + others * _NS_BLOCK * self.n_words
        n_gathered = n_runs * self.n_right / n_buckets
        n_queries = self.n_left * min(1.0, n_flips)
        others += n_queries * STRETCH / LANES / 2
        return (
            ns
            + n_runs * _NS_RUN
            + n_gathered * self.n_words * _NS_GATHER
            + n_queries * _NS_QUERY
            + others * _NS_STRETCH * self.n_words
        )

    def plan(self, choice: Choice, bands: tuple[Band, ...]) -> Plan:
        """Return the plan of these bands with what is expected of it."""
        pairs = self.near * self.n_pairs
        owned = self.wants_pairs * pairs * (_NS_PAIR + _NS_UNLIKE * self.radius)
        if choice == "scan":
            candidates = self.n_pairs
            ns = candidates * (_NS_BLOCK / LANES * self.n_words + self.passing * _NS_VERIFY) + owned
        else:
            candidates = 0.0
            ns = owned * (1 + len(bands) / 4)  # near pairs meet in many bands
            seen: dict[tuple[int, int, int], tuple[float, float]] = {}
            for band in bands:
                kind = band.n_bits, band.n_key_bits, band.radius
                if kind not in seen:  # one band speaks for all of its shape: the bits were dealt evenly
                    share, passing = self.agreement(band)
                    seen[kind] = share * self.n_pairs, self.band_ns(band.n_key_bits, band.radius, share, passing)
                candidates += seen[kind][0]
                ns += seen[kind][1]
        return Plan(choice, bands, self.n_words, self.radius, self.n_left, self.n_right, candidates, pairs, 1e-9 * ns)


@cache
def _n_within(n_bits: int, radius: int) -> int:
    """Return how many keys of `n_bits` lie within `radius` bits of one."""
    return sum(comb(n_bits, ones) for ones in range(radius + 1))


def _uniform_share(n_bits: int, radius: int) -> float:
    """Return the share of pairs of `n_bits` fair coins that differ in at most `radius` places."""
    return _n_within(n_bits, radius) / 2.0**n_bits


def _band_layouts(estimate: _Estimate) -> list[tuple[Band, ...]]:
    """Return layouts worth an estimate: radii as even as can be for a number of bands, widths that balance the cost."""
    radius, n_bits = estimate.radius, estimate.n_bits
    n_most = min(radius + 1, n_bits)
    if n_bits <= 64:
        numbers = list(range(1, n_most + 1))
    else:
        numbers = sorted({ceil((radius + 1) / (within + 1)) for within in range(4)} | {n_most})
    layouts = []
    for n_bands in numbers:
        total = radius - n_bands + 1
        radii = sorted((total // n_bands + (i < total % n_bands) for i in range(n_bands)), reverse=True)
        if _n_within(min(n_bits // n_bands, _MAX_KEY_BITS), radii[0]) <= _MAX_FLIPS:
            layouts.append(_layout(estimate, radii))
    layouts.sort(key=lambda bands: sum(estimate.theory(band.n_key_bits, band.radius) for band in bands))
    return layouts[: len(layouts) if n_bits > 64 else 3]


def _layout(estimate: _Estimate, radii: list[int]) -> tuple[Band, ...]:
    """Return the bands of these radii: one width for each of the two radii, then the rest bit by bit, where it pays."""
    n_bits = estimate.n_bits
    most = min(_MAX_KEY_BITS, ceil(log2(max(2, estimate.n_right))) + 1)
    outer, inner = radii[0], radii[-1]
    n_outer = radii.count(outer)
    n_inner = len(radii) - n_outer
    inners = [(estimate.theory(narrow, inner), narrow) for narrow in range(inner, most + 1)]
    best = inf, 0, 0
    for width in range(outer, min(most, n_bits // n_outer) + 1):
        cost, narrow = 0.0, 0
        if n_inner:
            n_left = (n_bits - n_outer * width) // n_inner
            cost, narrow = min(inners[: max(0, n_left - inner + 1)], default=(inf, 0))
        best = min(best, (n_outer * estimate.theory(width, outer) + n_inner * cost, width, narrow))
    widths = [best[1]] * n_outer + [best[2]] * n_inner
    rest = n_bits - sum(widths)
    for i, (width, within) in enumerate(zip(widths, radii, strict=True)):
        if rest and width < most and estimate.theory(width + 1, within) < estimate.theory(width, within):
            widths[i] += 1
            rest -= 1
    spare = rest // len(radii)
    bands = []
    low = 0
    for width, within in zip(widths, radii, strict=True):
        slice_bits = max(1, min(64, width + spare) if within == 0 else width)
        # A wider key by hashing is nearly free, and real hashes crowd in few buckets.
        key_bits = max(width, min(slice_bits, most)) if within == 0 and spare else width
        bands.append(Band(low, slice_bits, key_bits, within))
        low += width + spare
    return tuple(bands)
