"""The prefix tree has one node for each distinct prefix, and leads each response token back to its own."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from klear_lab.policy.prefix_tree import prefix_tree, shorter_and_longer
from klear_lab.sft import Example
from support.prefixes import inputs_of, nodes

few_tokens = st.lists(st.integers(0, 2), min_size=1, max_size=5)  # so that prefixes are often equal
sequences = st.lists(st.builds(Example, few_tokens, few_tokens), min_size=1, max_size=12)


@settings(deadline=None, max_examples=300)
@given(sequences)
def test_each_distinct_prefix_is_a_node_and_each_response_token_comes_after_its_own(sequences):
    tree, node = prefix_tree(sequences, 4, 2), nodes(sequences)
    assert [prefix[-1] for prefix in node] == tree.token_U[tree.kind_N].tolist()
    assert [len(prefix) - 1 for prefix in node] == tree.position_N.tolist()
    wanted = [
        (node[inputs_of(s)[: len(s.prompt_ids) + place]], target)
        for s in sequences
        for place, target in enumerate(s.response_ids)
    ]
    pairs = [*zip(tree.predicts_M[tree.node_Q].tolist(), tree.target_Q.tolist(), strict=True)]
    assert [pairs[pair] for pair in tree.pair_P] == wanted
    assert sorted({*wanted}) == pairs and len({*pairs}) == len(pairs)
    assert tree.predicts_M.tolist() == sorted({number for number, _ in wanted})


@settings(deadline=None)
@given(sequences)
def test_attention_computes_each_node_once_and_in_the_last_layer_those_that_predict(sequences):
    heads = 4
    tree, count = prefix_tree(sequences, heads, 2), len(nodes(sequences))
    for rectangles, outputs in ((tree.rectangles, count), (tree.last_rectangles, len(tree.predicts_M))):
        rows = sorted(row for part in rectangles for row in part.row_R.tolist())
        assert rows == [*range(outputs * heads)]


def test_the_order_of_sequences_changes_nothing_but_the_order_of_their_tokens():
    some = [Example([1, 2], [3, 4]), Example([1, 2], [3, 5, 6]), Example([1], [2, 3, 4])]
    tree, turned = prefix_tree(some, 1, 1), prefix_tree(some[::-1], 1, 1)
    assert tree.kind_N.equal(turned.kind_N) and tree.node_Q.equal(turned.node_Q)
    given, other = tree.pair_P.split([2, 3, 3]), turned.pair_P.split([3, 3, 2])
    assert all(one.equal(two) for one, two in zip(given, other[::-1], strict=True))


def test_two_rectangles_have_the_smallest_area_and_sequences_without_tokens_are_in_none():
    count_B = np.array([9, 2, 0, 3, 2, 30, 3, 0])
    parts = shorter_and_longer(count_B)
    assert [(count_B[rows].tolist(), longest) for rows, longest in parts] == [([2, 2, 3, 3, 9], 9), ([30], 30)]
    assert [rows.tolist() for rows, _ in shorter_and_longer(np.array([0, 7]))] == [[1]]
