"""Plan of a join in blocks: its tasks, bytes and expected core-hours, before it runs.

The cost of a task is that of the single machine's plan for its rows, from a sample of the hashes, or without data for
hashes of independent uniform bits.
"""

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, Final, cast

from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import pairs as frames
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.distances import ByDistance
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.votes import ByVotes
from imgmatch_df.hashes.kinds import BMH1, HashKind
from imgmatch_df.options import shown
from imgmatch_df.spark import calls, sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from imgmatch_df.matching.plan import Plan

    U64 = NDArray[np.uint64]

# Seconds of one core, measured by benchmarks/spark_tiles.py on a server core with AVX-512 (2026).
_READ_S: Final = 1.5e-7  # one row of a block: read, decompressed and sorted
_TASK_S: Final = 0.05  # a task before it compares: scheduled, its function sent to the worker
_IMAGE_S: Final = 4e-5  # one image of a task by votes, beside the search for near points
_SAMPLE: Final = 2_048  # hashes from which the cost of a task is expected
_SAMPLE_OF_VOTES: Final = 128  # images, with 64 points each
_N_POINTS: Final = 64
_TURNS: Final = 8
# Kinds whose bits are nearly independent, so that the number of pairs by chance is that of uniform hashes.
_UNIFORM: Final = ("phash", "pdq", "imagehash_phash", "imagehash_phash16")


@dataclass(frozen=True, slots=True)
class SparkPlan:
    """The tasks of `near_duplicates` on Spark and their expected cost; `str` shows them in a few lines.

    Parameters
    ----------
    kind
        Name of the kind of the hashes.
    limit
        What makes two rows near-duplicates, such as ``"within 4 bits"``.
    n_rows
        Rows with a hash that is compared.
    n_distinct
        Different hashes among them; an estimate within about 2 percent where Spark counts them.
    n_blocks, rows_per_block
        Blocks of different hashes, and hashes in one of them on average.
    n_tasks
        Tasks that compare: one for each two blocks, and one for each block.
    bytes_read
        Bytes that all tasks together read at most, before compression.
    work_bytes
        Bytes of the rows in blocks in the work folder, before compression; found pairs come on top, 18 bytes each.
    task_bytes
        Expected memory of the Python worker of a task. Executors need it beside their heap, for each of their cores.
    core_hours
        Expected time of all tasks on one core, in hours; the shuffle into blocks and what follows the tasks not
        counted.
    chance_pairs
        Expected number of pairs of unrelated images within the radius, for kinds whose bits are nearly independent;
        None where it is not known.
    join
        Expected plan of the comparison of one task; None with one hash or none, or where equal hashes alone match.
    """

    kind: str
    limit: str
    n_rows: int
    n_distinct: int
    n_blocks: int
    rows_per_block: int
    n_tasks: int
    bytes_read: int
    work_bytes: int
    task_bytes: int
    core_hours: float
    chance_pairs: float | None
    join: "Plan | None"

    def __str__(self) -> str:
        about = "" if self.n_distinct == self.n_rows else "about "
        lines = [
            f"{self.n_rows:,} rows of {self.kind}, {about}{self.n_distinct:,} different, {self.limit}",
            f"{_count(self.n_blocks, 'block')} of {self.rows_per_block:,} hashes; {_count(self.n_tasks, 'task')}",
            f"read by all tasks: {shown_bytes(self.bytes_read)}; work folder: {shown_bytes(self.work_bytes)} and the "
            f"pairs; memory of a task: {shown_bytes(self.task_bytes)}",
            f"expected: {shown_hours(self.core_hours)} on one core",
        ]
        if self.chance_pairs is not None:
            lines[-1] += f"; {shown_count(self.chance_pairs)} pairs of unrelated images by chance"
        if self.join is not None:
            lines.append(f"a task: {self.join}")
        return "\n".join(lines)


def explain_near_duplicates(
    df: "DataFrame | int",
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    id: str | None = None,
    column: str | None = None,
    flat: Flat = "identical",
    max_pairs: int = frames.MAX_PAIRS,
    turns: bool | None = None,
    n_blocks: int | None = None,
) -> SparkPlan:
    """Return the plan that `near_duplicates` on Spark takes for the same arguments: tasks, bytes and core-hours.

    Of a DataFrame one job counts the rows and estimates the different hashes, and another one takes a sample of them,
    from which the cost of a task is expected. A number in the place of the DataFrame needs no Spark: the plan is that
    of so many hashes of independent uniform bits. Bits of real bmh1 and of points of real images depend on each other,
    and cost more.

    Parameters
    ----------
    df
        DataFrame that has the hashes, or a number of rows.
    radius, hash_type, min_votes, id, column, flat, max_pairs, turns
        As `near_duplicates`. `id` and `max_pairs` are checked; the plan does not depend on them.
    n_blocks
        Number of blocks. None: as `near_duplicates` chooses it for the number of rows, so that a task needs at most
        1 GB, for ``"local"`` 2 GB, while there are at most 512 blocks.

    Returns
    -------
    SparkPlan
        `str` shows it in a few lines.

    Raises
    ------
    ArgumentError, ColumnError
        As `near_duplicates`, and for a negative number of rows.

    Examples
    --------
    >>> from imgmatch_df.spark import explain_near_duplicates
    >>> plan = explain_near_duplicates(1_000_000_000, 4, "phash")
    >>> plan.n_blocks, plan.n_tasks, round(plan.chance_pairs)
    (211, 22366, 18408)
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns)
    n_blocks = calls.check_blocks(n_blocks)
    if isinstance(df, int) and not isinstance(df, bool):
        if df < 0:
            raise ArgumentError(f"a number of rows must be at least 0, got {shown(df)}\nHint: such as 1_000_000_000.")
        idle = [name for name, value in (("id", id), ("column", column)) if value is not None]
        if idle:
            raise ArgumentError(
                f"{idle[0]} has no effect on a number of rows, which has no columns\nHint: leave it out."
            )
        return plan_of_rows(df, comparison, n_blocks)
    frames.explain_near_duplicates(
        calls.empty_frame(df),
        radius,
        hash_type,
        min_votes=min_votes,
        id=id,
        column=column,
        flat=flat,
        max_pairs=max_pairs,
        turns=turns,
    )
    return _plan_of_frame(df, comparison, column or comparison.kind.name, flat, n_blocks)


def plan_of_rows(
    n_rows: int,
    comparison: Comparison,
    n_blocks: int | None = None,
    *,
    n_distinct: int | None = None,
    sample: "U64 | None" = None,
) -> SparkPlan:
    """Return the plan for a number of rows.

    Parameters
    ----------
    n_rows
        Rows with a hash that is compared.
    comparison
        How they are compared.
    n_blocks
        Number of blocks; None for the default.
    n_distinct
        Different hashes; None for `n_rows`.
    sample
        Some different hashes as words, (m, n_words); None for uniform ones.
    """
    kind, turns = comparison.kind, _has_turns(comparison)
    n_distinct = n_rows if n_distinct is None else min(n_distinct, n_rows)
    if n_blocks is None:
        n_blocks = sizes.default_blocks(n_rows, kind, turns=turns)
    join, seconds = _expect(comparison, n_distinct, n_blocks, sample)
    return SparkPlan(
        kind=kind.name,
        limit=_limit(comparison),
        n_rows=n_rows,
        n_distinct=n_distinct,
        n_blocks=n_blocks,
        rows_per_block=-(-n_distinct // n_blocks),
        n_tasks=n_blocks if comparison.equal_only and not turns else sizes.n_tiles(n_blocks),
        bytes_read=sizes.bytes_read(n_distinct, kind, n_blocks),
        work_bytes=sizes.stored_bytes(n_rows, kind),
        task_bytes=sizes.task_bytes(n_distinct, kind, n_blocks, turns=turns),
        core_hours=seconds / 3600,
        chance_pairs=_chance_pairs(comparison, n_distinct),
        join=join,
    )


def chance_pairs(n: int, n_bits: int, radius: int) -> float:
    """Return the expected number of pairs within a radius among `n` hashes of independent uniform bits."""
    return n * (n - 1) / 2 * sum(comb(n_bits, distance) for distance in range(radius + 1)) / 2.0**n_bits


def _plan_of_frame(
    df: "DataFrame", comparison: Comparison, hash_column: str, flat: Flat, n_blocks: int | None
) -> SparkPlan:
    import polars as pl
    from pyspark.sql import functions as F  # noqa: N812  # Spark's own name for it

    from imgmatch_df.frames.flat import Guard
    from imgmatch_df.hashes import codec
    from imgmatch_df.spark.nodes import HASH, IS_FLAT, rows_to_compare

    kind = comparison.kind
    guard = Guard.of(calls.empty_frame(df).collect_schema()) if flat == "identical" and kind.is_perceptual else None
    rows = rows_to_compare(df, kind, id=hash_column, hash_column=hash_column, guard=guard)
    hashes = rows.filter(F.col(HASH).isNotNull() & ~F.col(IS_FLAT)).select(HASH)
    counts = hashes.agg(F.count(HASH), F.approx_count_distinct(HASH, 0.02)).collect()[0]
    n_rows, n_distinct = int(counts[0]), int(counts[1])
    words = None
    if n_distinct > 1:
        n_sampled = _SAMPLE_OF_VOTES if kind.by_votes else _SAMPLE
        some = hashes if n_rows <= 4 * n_sampled else hashes.sample(2 * n_sampled / n_rows, seed=0)
        column = pl.DataFrame(some.limit(4 * n_sampled).toArrow())[HASH].unique(maintain_order=True)
        words = codec.hash_words(codec.as_hashes(column, kind), kind)
        n_distinct = max(n_distinct, len(words))
    return plan_of_rows(n_rows, comparison, n_blocks, n_distinct=n_distinct, sample=words)


def _has_turns(comparison: Comparison) -> bool:
    return isinstance(comparison, ByDistance) and comparison.bits is not None


def _limit(comparison: Comparison) -> str:
    turned = " in eight turns"
    if isinstance(comparison, ByVotes):
        return f"{comparison.min_votes} votes{turned if comparison.turns else ''}"
    distance = cast("ByDistance", comparison)
    return f"within {_count(distance.radius, 'bit')}{turned if distance.bits is not None else ''}"


def _chance_pairs(comparison: Comparison, n: int) -> float | None:
    if not isinstance(comparison, ByDistance) or comparison.kind.name not in _UNIFORM:
        return None
    n_turns = 1 if comparison.bits is None else _TURNS
    return n_turns * chance_pairs(n, comparison.kind.n_bits, comparison.radius)


def _expect(
    comparison: Comparison, n_distinct: int, n_blocks: int, sample: "U64 | None"
) -> "tuple[Plan | None, float]":
    """Return the expected plan of one task, and the seconds of all tasks on one core."""
    n_tasks, per_block = sizes.n_tiles(n_blocks), n_distinct / n_blocks
    n_read = n_distinct * n_blocks
    seconds = _TASK_S * n_tasks + _READ_S * n_read * max(1, comparison.kind.n_bytes / 64)
    if n_distinct < 2 or (comparison.equal_only and not _has_turns(comparison)):
        return None, seconds
    of_one, of_two = round(per_block), round(2 * per_block)
    if isinstance(comparison, ByVotes):
        words = _points(sample)
        n_turns = _TURNS if comparison.turns else 1
        one, two = (_plan_of_points(words, n * _N_POINTS, n_turns) for n in (of_one, of_two))
        seconds += _IMAGE_S * (n_blocks * of_one + (n_tasks - n_blocks) * of_two)
    else:
        words = _uniform(comparison.kind) if sample is None else sample
        n_bits, radius = comparison.kind.n_bits, cast("ByDistance", comparison).radius
        if not _has_turns(comparison):
            one = _plan_of(words, of_one, None, radius, n_bits)
            two = _plan_of(words, of_one, of_one, radius, n_bits)
        else:
            one, two = (_plan_of(words, sizes.N_VERSIONS * n, None, radius, n_bits) for n in (of_one, of_two))
    seconds += n_blocks * one.seconds + (n_tasks - n_blocks) * two.seconds
    return one if n_blocks == 1 else two, seconds


def _uniform(kind: HashKind) -> "U64":
    import numpy as np

    n_words = sizes.n_words(kind)
    words = np.random.default_rng(0).integers(0, np.iinfo(np.uint64).max, (_SAMPLE, n_words), np.uint64, endpoint=True)
    if kind.n_bits < 64 * n_words:
        words[:, -1] &= np.uint64((1 << (kind.n_bits - 64 * (n_words - 1))) - 1)
    return words


def _points(sample: "U64 | None") -> "U64":
    """Return hashes of points, (n, 1) uint64 of 63 bits, of sampled local hashes or uniform ones."""
    import numpy as np

    from imgmatch_df.hashes.local import N_BYTES, unpack

    if sample is not None:
        rows = np.ascontiguousarray(sample).view(np.uint8).reshape(len(sample), -1)[:, :N_BYTES]
        hashes = unpack(rows)[0]
        if len(hashes) > 1:
            return hashes[np.random.default_rng(0).permutation(len(hashes))[:_SAMPLE], None] >> np.uint64(1)
    return np.random.default_rng(0).integers(0, 1 << 63, (_SAMPLE, 1), np.uint64)


def _plan_of_points(words: "U64", n_points: int, n_turns: int) -> "Plan":
    """Return the plan of the search for near points among those of the images of one task."""
    from imgmatch_df.matching.candidates import HIT_RADIUS

    return _plan_of(words, n_turns * n_points, n_points, HIT_RADIUS, 63)


def _plan_of(words: "U64", n_left: int, n_right: int | None, radius: int, n_bits: int) -> "Plan":
    """Return the plan of a join of so many hashes with the distribution of a sample, without `n_right` of one side."""
    from imgmatch_df.matching.plan import Distinct, choose_plan

    rows: Any
    if n_right is None:
        rows = _Repeated(max(2, n_left), 0, len(words))
        left = right = Distinct(words, rows)
    else:  # no hash of the sample on both sides
        half = len(words) // 2
        rows = _Repeated(max(1, n_left), 0, half)
        left = Distinct(words, rows)
        rows = _Repeated(max(1, n_right), half, len(words))
        right = Distinct(words, rows)
    return choose_plan(left, right, radius, n_bits)[0]


class _Repeated:
    """Row numbers of a sample as if there were many rows: a sequence that holds none of them in memory."""

    def __init__(self, n: int, start: int, stop: int) -> None:
        self._n, self._start, self._size = n, start, stop - start

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, rows: slice) -> "NDArray[np.int64]":
        import numpy as np

        places = np.asarray(range(self._n)[rows][:_SAMPLE], np.int64)
        return self._start + np.minimum((places * self._size + self._n // 2) // self._n, self._size - 1)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def shown_bytes(n: float) -> str:
    """Return a number of bytes with its unit: ``"3.4 TB"``."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if n >= 10**power:
            return f"{_digits(n / 10**power)} {unit}"
    return f"{n / 1e3:.0f} kB"


def shown_hours(hours: float) -> str:
    """Return a time with its unit, from seconds to hours."""
    if hours >= 1:
        return f"{_digits(hours)} hours"
    if hours >= 1 / 60:
        return f"{_digits(60 * hours)} minutes"
    return f"{_digits(3600 * hours)} seconds"


def shown_count(n: float) -> str:
    """Return an expected number, rounded to two digits."""
    if n < 0.01:
        return "practically no"
    return _digits(n)


def _digits(n: float) -> str:
    """Return a number with two digits, or all of a larger whole part rounded to three."""
    if n < 100:
        return f"{n:.2g}" if n >= 0.1 else f"{n:.1g}"
    digits = len(str(round(n))) - 2
    return f"{round(n, -digits):,.0f}"
