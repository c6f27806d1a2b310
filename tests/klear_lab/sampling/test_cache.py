"""The cache: its length is what live sequences need, and rows keep their keys wherever they move."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from klear_lab.sampling.cache import BLOCK, SlotCache, fill_holes
from klear_lab.sampling.past import part_rows


def read(*lengths):
    """A cache of prompts flush right, whose every key and value is the prompt's number, from 1 on."""
    number = torch.arange(1.0, len(lengths) + 1)[:, None, None, None]
    cache = DynamicCache()
    cache.update(number.repeat(1, 2, max(lengths), 4), -number.repeat(1, 1, max(lengths), 3), 0)
    return cache


def step(cache, *values):
    """One decoding step that writes a value for each row; returns the keys that the rows see, (B, T)."""
    states = torch.tensor(values)[:, None, None, None]
    keys, _ = cache.update(states.repeat(1, 2, 1, 4), -states.repeat(1, 1, 1, 3), 0)
    seen = [row[mask].tolist() for row, mask in zip(keys[:, 0, :, 0], cache.attention_mask, strict=True)]
    cache.advance()
    return seen


@pytest.fixture
def cache():
    made = SlotCache(4, torch.float32)
    made.admit(read(3, 2), [3, 2], [0, 1, 1], steps=8)
    return made


def test_a_row_sees_its_prompt_and_what_came_after(cache):
    assert step(cache, 10.0, 20.0, 30.0) == [[1, 1, 1, 10], [2, 2, 20], [2, 2, 30]]
    assert step(cache, 11.0, 21.0, 31.0) == [[1, 1, 1, 10, 11], [2, 2, 20, 21], [2, 2, 30, 31]]


def test_rows_keep_their_keys_when_others_leave_and_come(cache):
    step(cache, 10.0, 20.0, 30.0)
    cache.keep(fill_holes([1, 2]))
    cache.admit(read(6), [6], [0], steps=8)
    assert step(cache, 31.0, 21.0, 40.0) == [[2, 2, 30, 31], [2, 2, 20, 21], [1] * 6 + [40]]


@pytest.mark.parametrize("kept", [0, 1], ids=["longer than the new ones", "shorter"])
def test_masked_columns_are_finite_whatever_was_there_before(cache, kept):
    cache.clear(4)
    cache.admit(read(9, 3), [9, 3], [0, 1], steps=8)
    cache.keep([kept])
    for room in cache.rooms[0].room:
        room[:, :, : cache.columns.first] = torch.nan
        room[1:] = torch.nan
    cache.admit(read(7, 8), [7, 8], [0, 1], steps=1)
    for states in cache.update(torch.zeros(3, 2, 1, 4), torch.zeros(3, 1, 1, 3), 0):
        assert states.isfinite().all()


def test_the_cache_is_as_long_as_its_longest_row_needs(cache):
    longest = 0
    for count in range(40 * BLOCK):
        cache.make_room(0, 1)
        step(cache, *[float(count)] * cache.columns.rows)
        if count % 10 == 9:  # the oldest row goes, and a new one comes
            starts = cache.columns.starts
            cache.keep(fill_holes([row for row in range(3) if row != starts.index(min(starts))]))
            cache.admit(read(4), [4], [0], steps=1)
        longest = max(longest, cache.size[1])
    assert longest <= 2 * BLOCK  # three rows of 10, 20 and 30 steps


def test_a_long_sequence_grows_the_cache_by_a_share_and_not_a_block(cache):
    cache.keep([0])
    sizes = set()
    for _ in range(2000):
        cache.make_room(0, 1)
        step(cache, 0.0)
        sizes.add(cache.size[1])
    assert len(sizes) < 20
    assert max(sizes) < 1.3 * 2003 + BLOCK


def test_room_is_made_for_the_slots_that_are_still_wanted(cache):
    assert cache.size == (4, BLOCK)
    cache.keep([1])
    cache.slots = 1
    cache.make_room(0, 2 * BLOCK)
    assert cache.size == (1, 3 * BLOCK)
    assert step(cache, 20.0) == [[2, 2, 20]]
    cache.slots = 3
    cache.admit(read(2, 1), [2, 1], [1, 0], steps=1)
    assert step(cache, 21.0, 30.0, 40.0) == [[2, 2, 20, 21], [2, 30], [1, 1, 40]]


@pytest.mark.parametrize(("live", "order"), [([0, 1, 2], [0, 1, 2]), ([0, 3, 4], [0, 4, 3]), ([2], [2]), ([], [])])
def test_holes_are_filled_from_behind(live, order):
    assert fill_holes(live) == order


def shared_step(cache, tokens):
    """One decoding step with shared rows that writes a token a row; returns what each sequence sees, (B, T)."""
    cache.part(*part_rows(cache.past, torch.tensor(tokens)))
    token_of_row = dict(zip(cache.row_B.tolist(), tokens, strict=True))
    seen = step(cache, *[float(token_of_row[row]) for row in range(cache.columns.rows)])
    return [seen[row] for row in cache.row_B.tolist()]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2**16)), min_size=1, max_size=12),
    st.sampled_from([8, 2**30]),
)
def test_sequences_of_a_shared_row_see_their_own_tokens_and_have_a_row_for_each_prefix(moves, unlike):
    cache = SlotCache(6, torch.float32)
    cache.shares = True
    sequences = []
    for new, steps, bits in moves:
        if new and len(sequences) + 3 <= 6:  # two of a prompt and one of another one, longer or shorter
            lengths = [2 + new, 5 - new]
            cache.admit(read(*lengths), lengths, [0, 0, 1], steps=4)
            sequences += [[1.0] * lengths[0], [1.0] * lengths[0], [2.0] * lengths[1]]
        for number in range(steps if sequences else 0):
            tokens = [unlike * (1 + (bits >> number + index & 1)) for index in range(len(sequences))]
            cache.make_room(0, 1)
            for sequence, token in zip(sequences, tokens, strict=True):
                sequence.append(float(token))
            assert shared_step(cache, tokens) == sequences
            assert len({*map(tuple, sequences)}) <= cache.columns.rows <= len(sequences)
        live = fill_holes([index for index in range(len(sequences)) if bits >> index & 5 != 5])
        if len(live) < len(sequences):
            cache.keep(live)
            sequences = [sequences[index] for index in live]
    assert {*cache.row_B.tolist()} == {*range(cache.columns.rows)}


def test_rows_of_sequences_that_stay_alike_stay_shared():
    cache = SlotCache(4, torch.float32)
    cache.shares = True
    cache.admit(read(3, 2), [3, 2], [0, 0, 0, 1], steps=8)
    assert cache.columns.rows == 2
    shared_step(cache, [7, 7, 7, 7])
    assert cache.columns.rows == 2
    assert shared_step(cache, [8, 9, 8, 7])[1] == [1, 1, 1, 7, 9]
    assert cache.columns.rows == 3
    cache.keep([0, 3, 2])
    assert cache.columns.rows == 2
    assert shared_step(cache, [5, 6, 5]) == [[1, 1, 1, 7, 8, 5], [2, 2, 7, 7, 6], [1, 1, 1, 7, 8, 5]]
