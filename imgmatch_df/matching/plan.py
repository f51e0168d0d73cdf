"""Choice of the plan of a join, by its expected cost on a sample of the hashes: pigeonhole bands, counts or a scan.

Let m bands have radii r_i that sum to ``radius - m + 1``. Then every pair within the radius is within r_i in at least
one band i: otherwise it would differ in at least ``sum(r_i + 1) = radius + 1`` bits (Norouzi, Punjani, Fleet, "Fast
search in Hamming space with multi-index hashing", CVPR 2012). A scan is the plan of one band without bits. `counts`
compares long hashes by the ones in groups of their bits.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import ceil, comb, exp, inf, log2
from typing import Final, Literal, NamedTuple

import numpy as np

from imgmatch_df._kernels.arrays import I64, U32, U64
from imgmatch_df._kernels.gaps import BOXES
from imgmatch_df._kernels.popcount import LANES, STRETCH
from imgmatch_df.matching.counts import estimate_shares
from imgmatch_df.matching.kernels.bands import count_agreements, count_prefixes, deal_bits, permute_bits

Choice = Literal["bands", "counts", "scan"]

_MAX_FLIPS: Final = 4096
_MAX_KEY_BITS: Final = 24
_MAX_SAMPLE: Final = 2048
_FEW_PAIRS: Final = 1 << 20  # a scan of so many pairs takes less time than the choice of bands
MIN_COUNTED_BITS: Final = 257  # shorter hashes have too few bits of a kind
_MIN_COUNTED_S: Final = 0.02  # a shorter join takes less time than the estimate of the counts

# Nanoseconds on one thread of a server core with AVX-512. Only their ratios decide, which are similar on other
# machines.
_NS_BLOCK: Final = 1.7  # one query against LANES hashes, per word
_NS_RUN: Final = 5.0  # one run of another bucket, chosen and copied
_NS_GATHER: Final = 0.4  # one word of such a run
_NS_STRETCH: Final = 1.3  # one query against LANES gathered hashes, per word
_NS_QUERY: Final = 8.0  # one query against a gathered buffer, fixed cost
_NS_RUN_IN_PLACE: Final = 18.0  # one query against the run of another bucket in place, fixed cost
_NS_SELF: Final = 3.0  # one row of a self-join against the rest of its block
_NS_ROW: Final = 8.0  # one row sorted into one band
_NS_COPY: Final = 2.5  # one more word copied beside it
_NS_SLOT: Final = 2.0  # one bucket counted and cleared
_NS_VERIFY: Final = 10.0  # one candidate within the radius in the first words
_NS_PAIR: Final = 30.0  # one pair checked for the first band that finds it
_NS_COUNT: Final = 120.0  # one row counted and copied in the order of the counts
_NS_SPLIT: Final = 6.0  # one row sorted once by a count
_NS_BOX: Final = 0.4  # one block against one of `BOXES` blocks
_NS_ROWS: Final = 12.0  # all rows of a block against a near block
_NS_POINTS: Final = 8.0  # one row against all rows of a near block
_NS_COUNTED: Final = 5.0  # one pair with near counts verified
_NS_FOUND: Final = 15.0  # one pair found by its counts
_NS_BANDS_CHECKED: Final = 1.5  # per bit of the radius: with more bands the first band that finds a pair is later


class Distinct(NamedTuple):
    """Distinct hashes of one side: hashes (n, n_words) uint64, and the first row of each distinct hash, (m,) uint32."""

    hashes: U64
    rows: U32


@dataclass(frozen=True, slots=True)
class Band:
    """A slice of the permuted bits, and the maximum distance within it.

    Parameters
    ----------
    low, n_bits
        The slice ``low..low + n_bits``.
    n_key_bits
        Bits of the bucket number. They are fewer than `n_bits` only if `radius` is 0; the slice is then hashed.
    radius
        Maximum distance within the slice, in bits; inclusive.
    """

    low: int
    n_bits: int
    n_key_bits: int
    radius: int

    @property
    def slice(self) -> tuple[int, int]:
        """First bit and number of bits."""
        return self.low, self.n_bits

    @property
    def max_flips(self) -> int:
        """Maximum number of bits in which two compared keys differ."""
        return min(self.radius, self.n_key_bits)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a join is computed, and its expected cost; `str` shows both in one line.

    Parameters
    ----------
    choice
        ``"bands"``, ``"counts"`` or ``"scan"``.
    bands
        The bands; for a scan one band of no bits, for counts none.
    n_words
        Number of words that are compared first, before a candidate is verified in full.
    radius
        Maximum distance of a pair, in bits; inclusive.
    n_left, n_right
        Number of distinct hashes on each side; equal for a self-join.
    candidates, pairs
        Expected number of pairs of distinct hashes that are compared, and that are found.
    seconds
        Expected time on one thread, in seconds.
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
        if not self.bands:
            how = "counts of ones in groups of bits"
        elif self.choice == "scan":
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
    """Return the key differences of 1 bit, of 2 bits …, within the band's radius: (n_flips,) uint32 each, ascending."""
    bits = [1 << bit for bit in range(band.n_key_bits)]
    levels = range(1, band.max_flips + 1)
    return [np.array(sorted(map(sum, combinations(bits, n_ones))), np.uint32) for n_ones in levels]


def is_gathered(radius: int) -> bool:
    """Return whether the runs around a bucket are copied into one buffer before they are compared.

    Within one flip there are too few runs: with a copy, 1,000,000 hashes within 4 bits took 1.2 times as long.
    """
    return radius > 1


def choose_plan(
    left: Distinct, right: Distinct, radius: int, n_bits: int, *, choice: Choice | None = None, pairs: bool = True
) -> tuple[Plan, I64]:
    """Return the plan with the smallest expected time, and its order of the bits.

    Parameters
    ----------
    left, right
        Both sides; the same object for a self-join.
    radius
        Maximum distance of a pair, in bits.
    n_bits
        Bits that carry information.
    choice
        Use the best plan of this kind, whatever its cost.
    pairs
        Whether pairs are computed, or only the components that they connect. For components, near hashes cost no more
        than their place in the order.
    """
    if choice is None and len(left.rows) * len(right.rows) <= _FEW_PAIRS:
        choice = "scan"
    sample = _sample(left, right)
    order = _order_bits(sample, n_bits, radius + 1 if choice in ("bands", None) else 1)
    columns = np.empty((sample.shape[1], len(sample)), np.uint64)
    permute_bits(sample, np.arange(len(sample), dtype=np.uint32), order, 0, len(sample), columns)
    estimate = _Estimate(columns, len(sample), left, right, radius, n_bits, pairs)
    plans = []
    if choice in ("scan", None):
        plans.append(estimate.plan("scan", (Band(0, 1, 0, radius),)))
    if choice in ("bands", None):
        plans.extend(estimate.plan("bands", bands) for bands in _band_layouts(estimate))
    best = min(plans, key=lambda plan: plan.seconds, default=None)
    is_long = pairs and n_bits >= MIN_COUNTED_BITS
    if best is None or (choice is None and is_long and best.seconds >= _MIN_COUNTED_S):
        counts = estimate.counts(sample_hashes(left, right))
        best = counts if best is None or counts.seconds < best.seconds else best
    return best, order


def _sample(left: Distinct, right: Distinct) -> U64:
    """Return hashes taken evenly from both sides; fewer for a small join, so that the sample costs little."""
    n_rows = len(left.rows) + len(right.rows)
    n = int(np.clip(n_rows // (512 if left.hashes.shape[1] == 1 else 256), 256, _MAX_SAMPLE))
    return sample_hashes(left, right, n)


def sample_hashes(left: Distinct, right: Distinct, n: int = _MAX_SAMPLE) -> U64:
    """Return `n` hashes taken evenly from both sides, fewer where there are fewer."""
    if left is right:
        return left.hashes[left.rows[:: max(1, len(left.rows) // n)][:n]]
    halves = [side.hashes[side.rows[:: max(1, 2 * len(side.rows) // n)][: n // 2]] for side in (left, right)]
    return np.concatenate(halves)


def _order_bits(sample: U64, n_bits: int, n_bands: int) -> I64:
    """Return an order of all bits in which the bits of each of `n_bands` equal slices are little correlated.

    Neighbouring bits of a perceptual hash are strongly correlated, so slices of them make few large buckets. On 200,000
    real crops within 24 bits there are 25 candidates per row in this order, and 63 in a random one.
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
    """Expected cost of bands, from the sizes of the join and a sample of its hashes."""

    def __init__(
        self, columns: U64, n_sample: int, left: Distinct, right: Distinct, radius: int, n_bits: int, pairs: bool
    ) -> None:
        self.columns, self.n_sample, self.radius, self.n_bits = columns, n_sample, radius, n_bits
        self.n_left, self.n_right, self.same = len(left.rows), len(right.rows), left is right
        self.n_pairs = self.n_left * (self.n_left - 1) / 2 if self.same else float(self.n_left) * self.n_right
        self.makes_pairs = pairs
        few = min(n_sample, 384)
        passed = np.zeros(len(columns), np.int64)
        count_prefixes(columns, few, radius, passed)
        shares = passed / max(1, few * (few - 1) // 2)
        costs = [_NS_BLOCK / LANES * (k + 1) + _NS_VERIFY * share for k, share in enumerate(shares)]
        self.n_words = int(np.argmin(costs)) + 1
        self.passing = float(shares[self.n_words - 1])  # share of all pairs within the radius in the first words
        self.near = float(shares[-1])
        self._theory: dict[tuple[int, int], float] = {}

    def agreement(self, band: Band) -> tuple[float, float]:
        """Return the share of all pairs that a band compares, and that also pass the first words."""
        uniform = _uniform_share(band.n_bits, band.radius)
        if self.makes_pairs:
            first_word = ((band.low + band.n_bits - 1) // 64 + 1) % len(self.columns)
            seen, passed = count_agreements(
                self.columns, self.n_sample, *band.slice, band.radius, first_word, self.n_words, self.radius
            )
            n_seen = max(1, self.n_sample * (self.n_sample - 1) // 2)
            expected = uniform * n_seen
            # Use the sample only if it exceeds the uniform model by more than the sampling error.
            share = seen / n_seen if seen > expected + 4 * expected**0.5 + 4 else uniform
            passing = passed / n_seen if passed > 4 else share * self.passing
        else:
            share, passing = uniform, 0.0
        if band.n_key_bits < band.n_bits:
            share += 0.5**band.n_key_bits
            passing += self.passing * 0.5**band.n_key_bits
        return share, passing

    def theory(self, n_bits: int, radius: int) -> float:
        """Return the nanoseconds of one band whose bits are independent and uniform."""
        kind = n_bits, radius
        if kind not in self._theory:
            share = _uniform_share(n_bits, radius)
            self._theory[kind] = self.band_ns(n_bits, radius, share, share * self.passing)
        return self._theory[kind]

    def band_ns(self, n_key_bits: int, radius: int, share: float, passing: float) -> float:
        """Return the nanoseconds of one band, for the shares of pairs that it compares and that pass first words."""
        half = 0.5 if self.same else 1.0
        n_flips = (_n_within(n_key_bits, radius) - 1) * half
        n_buckets = 2.0**n_key_bits
        filled = 1 - exp(-self.n_right / n_buckets)
        n_runs = n_buckets * (1 - exp(-self.n_left / n_buckets)) * n_flips
        own = min(share, 0.5**n_key_bits) if radius else share
        # The last block of a run is half empty on average.
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
        if not self.makes_pairs or not is_gathered(radius):
            others += 0.5 * self.n_left * n_flips * filled
            return ns + n_runs * filled * _NS_RUN_IN_PLACE + others * _NS_BLOCK * self.n_words
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
        """Return the plan of these bands with its expected cost."""
        pairs = self.near * self.n_pairs
        verified = self.makes_pairs * pairs * (_NS_PAIR + _NS_BANDS_CHECKED * self.radius)
        if choice == "scan":
            candidates = self.n_pairs
            ns = candidates * (_NS_BLOCK / LANES * self.n_words + self.passing * _NS_VERIFY) + verified
        else:
            candidates = 0.0
            ns = verified * (1 + len(bands) / 4)  # many bands compare the same near pair
            seen: dict[tuple[int, int, int], tuple[float, float]] = {}
            for band in bands:
                kind = band.n_bits, band.n_key_bits, band.radius
                if kind not in seen:  # bands of one shape are alike, because `deal_bits` distributes the bits evenly
                    share, passing = self.agreement(band)
                    seen[kind] = share * self.n_pairs, self.band_ns(band.n_key_bits, band.radius, share, passing)
                candidates += seen[kind][0]
                ns += seen[kind][1]
        return Plan(choice, bands, self.n_words, self.radius, self.n_left, self.n_right, candidates, pairs, 1e-9 * ns)

    def counts(self, sample: U64) -> Plan:
        """Return the plan by counts with its expected cost."""
        n_left, n_right = (-(-n // BOXES) for n in (self.n_left, self.n_right))
        shares = estimate_shares(sample, self.n_bits, self.radius, max(1, n_right))
        half = 0.5 if self.same else 1.0
        n_blocks = half * n_left * n_right
        candidates, pairs = shares.near * self.n_pairs, self.near * self.n_pairs
        ns = (
            sum(n * (_NS_COUNT + _NS_SPLIT * log2(max(2, n / BOXES))) for n in {self.n_left, self.n_right})
            + n_blocks * (_NS_BOX + shares.of_blocks * _NS_ROWS + shares.of_rows * BOXES * _NS_POINTS)
            + candidates * _NS_COUNTED
            + pairs * _NS_FOUND
        )
        return Plan("counts", (), 0, self.radius, self.n_left, self.n_right, candidates, pairs, 1e-9 * ns)


@cache
def _n_within(n_bits: int, radius: int) -> int:
    """Return the number of keys of `n_bits` within `radius` bits of one key."""
    return sum(comb(n_bits, ones) for ones in range(radius + 1))


def _uniform_share(n_bits: int, radius: int) -> float:
    """Return the share of pairs within `radius` among keys of `n_bits` independent uniform bits."""
    return _n_within(n_bits, radius) / 2.0**n_bits


def _band_layouts(estimate: _Estimate) -> list[tuple[Band, ...]]:
    """Return the layouts to estimate: for each number of bands the most even radii, and widths of least cost."""
    radius, n_bits = estimate.radius, estimate.n_bits
    max_bands = min(radius + 1, n_bits)
    if n_bits <= 64:
        numbers = list(range(1, max_bands + 1))
    else:
        numbers = sorted({ceil((radius + 1) / (within + 1)) for within in range(4)} | {max_bands})
    layouts = []
    for n_bands in numbers:
        total = radius - n_bands + 1
        radii = sorted((total // n_bands + (i < total % n_bands) for i in range(n_bands)), reverse=True)
        if _n_within(min(n_bits // n_bands, _MAX_KEY_BITS), radii[0]) <= _MAX_FLIPS:
            layouts.append(_layout(estimate, radii))
    layouts.sort(key=lambda bands: sum(estimate.theory(band.n_key_bits, band.radius) for band in bands))
    return layouts[: len(layouts) if n_bits > 64 else 3]


def _layout(estimate: _Estimate, radii: list[int]) -> tuple[Band, ...]:
    """Return the bands of these radii: the best width for each of the two radii, then spare bits one by one."""
    n_bits = estimate.n_bits
    max_bits = min(_MAX_KEY_BITS, ceil(log2(max(2, estimate.n_right))) + 1)
    outer, inner = radii[0], radii[-1]
    n_outer = radii.count(outer)
    n_inner = len(radii) - n_outer
    inners = [(estimate.theory(narrow, inner), narrow) for narrow in range(inner, max_bits + 1)]
    best = inf, 0, 0
    for width in range(outer, min(max_bits, n_bits // n_outer) + 1):
        cost, narrow = 0.0, 0
        if n_inner:
            n_left = (n_bits - n_outer * width) // n_inner
            cost, narrow = min(inners[: max(0, n_left - inner + 1)], default=(inf, 0))
        best = min(best, (n_outer * estimate.theory(width, outer) + n_inner * cost, width, narrow))
    widths = [best[1]] * n_outer + [best[2]] * n_inner
    rest = n_bits - sum(widths)
    for i, (width, within) in enumerate(zip(widths, radii, strict=True)):
        if rest and width < max_bits and estimate.theory(width + 1, within) < estimate.theory(width, within):
            widths[i] += 1
            rest -= 1
    spare = rest // len(radii)
    bands = []
    low = 0
    for width, within in zip(widths, radii, strict=True):
        slice_bits = max(1, min(64, width + spare) if within == 0 else width)
        # Hashing a wider slice into the key is nearly free, and real hashes fill few of the buckets.
        key_bits = max(width, min(slice_bits, max_bits)) if within == 0 and spare else width
        bands.append(Band(low, slice_bits, key_bits, within))
        low += width + spare
    return tuple(bands)
