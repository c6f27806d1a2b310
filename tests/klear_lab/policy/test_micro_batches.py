"""Micro-batches: every sequence once, within the limits, little padding, and cuts that depend on lengths alone."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from klear_lab.policy.micro_batches import (
    MOST_PADDING,
    equal_micro_batches,
    full_micro_batches,
    length,
    micro_batches,
)


@dataclass(frozen=True)
class Example:
    """A sequence of given lengths, told apart by its number."""

    number: int
    prompt: int
    response: int

    @property
    def prompt_ids(self):
        return [0] * self.prompt

    @property
    def response_ids(self):
        return [0] * self.response


def examples(lengths):
    return [Example(i, 1, tokens - 1) for i, tokens in enumerate(lengths)]


sizes = st.lists(st.integers(2, 4000), min_size=1, max_size=60)


@given(sizes, st.integers(1, 20), st.none() | st.integers(1, 20_000))
def test_every_sequence_comes_once_within_the_limits_and_with_little_padding(lengths, most, tokens):
    parts = micro_batches(examples(lengths), most, tokens)
    assert sorted(e.number for part in parts for e in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) <= most
        assert tokens is None or len(part) == 1 or length(part[0]) * len(part) <= tokens
    positions = sum(length(part[0]) * len(part) for part in parts)
    assert positions - sum(lengths) <= MOST_PADDING * positions + 1e-6


@given(sizes)
def test_the_longest_come_first_and_neighbours_in_length_stay_together(lengths):
    ordered = [length(e) for part in micro_batches(examples(lengths), 8, 9000) for e in part]
    assert ordered == sorted(lengths, reverse=True)


@given(st.integers(2, 500), st.integers(1, 40))
def test_sequences_of_one_length_are_cut_by_the_limits_alone(tokens, count):
    parts = micro_batches(examples([tokens] * count), 1000, None)
    assert len(parts) == 1
    parts = micro_batches(examples([tokens] * count), 1000, 3 * tokens)
    assert [len(part) for part in parts] == [3] * (count // 3) + [count % 3] * (count % 3 > 0)


def test_padding_is_spent_where_it_joins_most():
    lengths = [1000, 1000, 40, 30, 20, 10]  # the short ones cost nothing beside the long ones
    assert [len(part) for part in micro_batches(examples(lengths), 64, None)] == [2, 4]


def test_a_sequence_beyond_the_limit_stands_alone():
    assert [len(p) for p in micro_batches(examples([50, 9, 9]), 64, 20)] == [1, 2]


def test_equal_micro_batches_count_sequences_only_and_keep_their_order():
    parts = equal_micro_batches(examples([5, 50, 10, 4, 3]), 2)
    assert [[length(e) for e in part] for part in parts] == [[5, 50], [10, 4], [3]]


@given(sizes, st.integers(1, 20), st.none() | st.integers(1, 20_000))
def test_full_ones_keep_the_order_within_the_limits_and_take_all_that_fits(lengths, most, tokens):
    parts = full_micro_batches(examples(lengths), most, tokens)
    assert [e.number for part in parts for e in part] == [*range(len(lengths))]

    def fits(part):
        positions = len(part) * max(map(length, part))
        return len(part) <= most and (tokens is None or positions <= tokens or len(part) == 1)

    assert all(map(fits, parts))
    assert not any(fits([*part, following[0]]) for part, following in pairwise(parts))
