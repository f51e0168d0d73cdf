"""Components of links between sparse numbers equal a plain union-find."""

import numpy as np
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df.spark.components import unite_links

few_nodes = st.integers(0, 9).map(lambda number: number % 3 << 40 | number)
links = st.lists(st.tuples(few_nodes, few_nodes), max_size=12)


@settings(max_examples=100, deadline=None)
@given(links)
def test_law_components_of_links_equal_plain_union_find(pairs):
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    nodes, roots = unite_links(left, right)
    expected = sorted({node for pair in pairs for node in pair})
    assert nodes.tolist() == expected
    number = {node: place for place, node in enumerate(expected)}
    labels = reference.components(len(expected), [(number[one], number[other]) for one, other in pairs])
    assert roots.tolist() == [expected[label] for label in labels]


def test_a_shuffled_path_is_one_component():
    order = np.random.default_rng(0).permutation(2_000).astype(np.int64) << 33
    nodes, roots = unite_links(order[:-1], order[1:])
    assert len(nodes) == 2_000
    assert set(roots.tolist()) == {0}
