"""Sizes and plans of joins in blocks, which need no Spark."""

import math
import subprocess
import sys

import numpy as np
import pytest

from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.hashes.kinds import KINDS, hash_kind
from imgmatch_df.matching import join
from imgmatch_df.spark import sizes
from imgmatch_df.spark.plans import chance_pairs, explain_near_duplicates, plan_of_rows

ROWS = (0, 1, 2, 1_000, 10**5, 10**6, 10**7, 10**8, 10**9)


@pytest.mark.parametrize("kind", [one for one in KINDS.values() if one.is_perceptual], ids=lambda kind: kind.name)
def test_the_default_number_of_blocks(kind):
    found = [sizes.default_blocks(n, kind) for n in ROWS]
    assert found == sorted(found)
    assert found[0] == found[1] == found[3] == 1
    for n, n_blocks in zip(ROWS, found, strict=True):
        limit = 2_500_000_000 if kind.by_votes else 1_400_000_000
        assert n_blocks == 512 or sizes.task_bytes(n, kind, n_blocks) <= limit + 2 * sizes.row_bytes(kind)
        assert n_blocks <= sizes.default_blocks(n, kind, turns=True) <= sizes.MAX_BLOCKS


def test_several_cores_have_tasks_that_are_not_tiny():
    kind = hash_kind("phash")
    assert [sizes.default_blocks(n, kind) for n in (400_000, 2_000_000, 4_000_000, 16_000_000)] == [1, 1, 2, 8]
    assert [sizes.default_blocks(n, hash_kind("pdq")) for n in (400_000, 1_000_000, 3_000_000)] == [1, 2, 6]
    assert [sizes.default_blocks(n, hash_kind("local")) for n in (3_000, 8_000, 100_000)] == [1, 2, 8]


@pytest.mark.parametrize(("n", "n_bits", "radius"), [(50, 8, 1), (200, 8, 2), (3, 64, 64)])
def test_chance_pairs_are_those_of_uniform_hashes(n, n_bits, radius):
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(60):
        bits = rng.integers(0, 2, (n, n_bits))
        distances = (bits[:, None] != bits[None]).sum(axis=2)
        counts.append(int((distances[np.triu_indices(n, 1)] <= radius).sum()))
    expected = chance_pairs(n, n_bits, radius)
    assert abs(np.mean(counts) - expected) <= 5 * math.sqrt(expected / len(counts)) + 1e-9


def test_a_plan_of_a_number_of_rows():
    plan = explain_near_duplicates(10**9, 4, "phash")
    assert plan.n_tasks == sizes.n_tiles(plan.n_blocks) > 20_000
    assert plan.n_blocks * plan.rows_per_block >= plan.n_rows == plan.n_distinct == 10**9
    assert plan.chance_pairs == pytest.approx(5e17 * sum(math.comb(64, i) for i in range(5)) / 2**64)
    assert plan.join is not None
    assert plan.core_hours > 1
    lines = str(plan).splitlines()
    assert lines[0] == "1,000,000,000 rows of phash, 1,000,000,000 different, within 4 bits"
    assert f"{plan.n_tasks:,} tasks" in lines[1]
    assert "18,000 pairs of unrelated images by chance" in lines[3]
    assert explain_near_duplicates(10**9, 4, "phash") == plan


def test_fewer_blocks_cost_less_time_and_more_memory():
    plans = [explain_near_duplicates(10**9, 4, "phash", n_blocks=n) for n in (20, 100, 400)]
    assert [one.core_hours for one in plans] == sorted(one.core_hours for one in plans)
    assert [one.task_bytes for one in plans] == sorted((one.task_bytes for one in plans), reverse=True)


def test_turns_votes_and_equal_hashes():
    plain, turned = (explain_near_duplicates(10**7, 24, "bmh1", turns=turns) for turns in (False, True))
    assert turned.core_hours > 4 * plain.core_hours
    assert turned.n_blocks > plain.n_blocks
    assert plain.chance_pairs is None
    local, upright = (explain_near_duplicates(10**6, hash_type="local", turns=turns) for turns in (None, False))
    assert local.core_hours > 2 * upright.core_hours
    assert "8 votes in eight turns" in str(local)
    equal = explain_near_duplicates(10**6, 0, "phash", n_blocks=8)
    assert (equal.n_tasks, equal.join) == (8, None)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("hash_type", ["phash", "local"])
def test_few_rows(n, hash_type):
    plan = explain_near_duplicates(n, 4 if hash_type == "phash" else None, hash_type, n_blocks=3)
    assert (plan.n_rows, plan.n_tasks) == (n, 6)
    assert 0 < plan.core_hours < 0.001
    assert str(plan)


def test_the_plan_of_a_sample_is_that_of_the_join():
    rng = np.random.default_rng(1)
    words = np.unique(rng.integers(0, 1 << 63, 50_000, np.uint64))[:, None]
    comparison = check_comparison("phash", 4, None, None)
    plan = plan_of_rows(len(words), comparison, 1, sample=words[rng.permutation(len(words))[:2_048]])
    truth = join.explain(words, 4, 64)
    assert plan.join.bands == truth.bands
    assert plan.join.seconds == pytest.approx(truth.seconds, rel=0.1)


def test_hashes_that_depend_on_each_other_cost_more():
    rng = np.random.default_rng(2)
    centers = rng.integers(0, 1 << 63, 20, np.uint64)
    near = centers[rng.integers(0, 20, 2_048)]
    for _ in range(6):
        near ^= np.uint64(1) << rng.integers(0, 64, len(near), np.uint64)
    comparison = check_comparison("phash", 4, None, None)
    crowded = plan_of_rows(10**7, comparison, sample=np.unique(near)[:, None])
    assert crowded.core_hours > 3 * plan_of_rows(10**7, comparison).core_hours


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((-1, 4, "phash"), {}, "at least 0, got -1"),
        ((10, -1, "phash"), {}, "radius"),
        ((10, 4, "phush"), {}, "phush"),
        ((10, 4, "phash"), {"n_blocks": 0}, "n_blocks"),
        ((10, 4, "phash"), {"min_votes": 3}, "min_votes"),
        ((10, 4, "local"), {}, "radius"),
        ((10, 4, "phash"), {"id": "a"}, "id has no effect"),
        ((10, 4, "phash"), {"column": "a"}, "column has no effect"),
    ],
)
def test_wrong_arguments(arguments, named, message):
    with pytest.raises(ArgumentError, match=message) as raised:
        explain_near_duplicates(*arguments, **named)
    assert "Hint: " in str(raised.value)


def test_a_number_of_rows_needs_no_spark():
    code = (
        "import sys; sys.modules['pyspark'] = None; import imgmatch_df.spark as ims; "
        "print(ims.explain_near_duplicates(4_000_000, 4, 'phash').n_tasks)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
