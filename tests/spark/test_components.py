"""Components that rounds of joins find equal a plain union-find."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import reference

from imgmatch_df.spark.components import find_components
from imgmatch_df.spark.work import WorkFolder

pytestmark = pytest.mark.spark


def write_links(work, pairs, n_files=3):
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    for number in range(n_files):
        part = pairs[number::n_files]
        table = pa.table({"left_node": part[:, 0], "right_node": part[:, 1]})
        work.write_table(f"links/{number}.parquet", table)


def groups(rows):
    found = {}
    for node, root in rows:
        found.setdefault(root, set()).add(node)
    assert all(root in nodes for root, nodes in found.items())
    return sorted(map(sorted, found.values()))


def links_with_shapes(seed=0):
    """A shuffled path of 2,000, a star of 500 around its largest node, a cycle, a clique, and many pairs; a loop."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(1 << 20)[:6_000].astype(np.int64) << 20
    path, star, rest = names[:2_000], np.sort(names[2_000:2_500]), names[2_500:]
    pairs = [*pairwise(path), *((star[-1], node) for node in star[:-1])]
    pairs += [(rest[i], rest[(i + 1) % 40]) for i in range(40)]
    pairs += [(rest[i], rest[j]) for i in range(50, 70) for j in range(50, 70)]
    pairs += [(rest[2 * i], rest[2 * i + 1]) for i in range(50, 1_500)]
    pairs = [tuple(map(int, pair)) for pair in pairs]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def expected_groups(pairs):
    nodes = sorted({node for pair in pairs for node in pair})
    number = {node: place for place, node in enumerate(nodes)}
    labels = reference.components(len(nodes), [(number[one], number[other]) for one, other in pairs])
    return groups((node, nodes[label]) for node, label in zip(nodes, labels, strict=True))


def test_both_ways_equal_plain_union_find(spark, tmp_path):
    pairs = links_with_shapes()
    expected = expected_groups(pairs)
    for limit, most_rounds in ((10_000, 0), (100, 5)):
        work = WorkFolder(str(tmp_path / str(limit)))
        write_links(work, pairs)
        found = find_components(spark, work, "links", limit).collect()
        assert groups(found) == expected
        rounds = [folder.name for folder in (tmp_path / str(limit)).glob("components-*-hooks")]
        assert bool(most_rounds) == bool(rounds)
        assert len(rounds) <= most_rounds


def test_a_rerun_goes_on_after_the_last_finished_stage(spark, tmp_path):
    pairs = links_with_shapes(1)
    work = WorkFolder(str(tmp_path))
    write_links(work, pairs)
    find_components(spark, work, "links", 100)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("components-0-*/_SUCCESS")}
    assert len(kept) == 2
    (tmp_path / "components" / "_SUCCESS").unlink()
    (tmp_path / "components-1-links" / "_SUCCESS").unlink()
    assert groups(find_components(spark, work, "links", 100).collect()) == expected_groups(pairs)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_no_links_are_no_components(spark, tmp_path):
    assert find_components(spark, WorkFolder(str(tmp_path / "none")), None).collect() == []
    work = WorkFolder(str(tmp_path / "empty"))
    write_links(work, [])
    assert find_components(spark, work, "links", 0).collect() == []
