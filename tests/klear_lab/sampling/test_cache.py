"""The cache: its length is what live sequences need, and rows keep their keys wherever they move."""

import pytest
import torch
from transformers import DynamicCache

from klear_lab.sampling.cache import BLOCK, SlotCache
from klear_lab.sampling.transformers import fill_holes


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


def test_masked_columns_are_finite_whatever_was_there_before(cache):
    cache.rooms[0].room[0].fill_(torch.nan)
    cache.clear()
    cache.admit(read(2), [2], [0], steps=8)
    step(cache, 10.0)
    cache.admit(read(9, 3), [9, 3], [0, 1], steps=8)
    keys, _ = cache.update(torch.zeros(3, 2, 1, 4), torch.zeros(3, 1, 1, 3), 0)
    assert keys.isfinite().all()


def test_the_cache_is_as_long_as_its_longest_row_needs(cache):
    longest = 0
    for count in range(40 * BLOCK):
        cache.make_room(0, 1)
        step(cache, *[float(count)] * cache.columns.rows)
        if count % 10 == 9:  # the oldest row goes, and a new one comes
            starts = cache.columns.starts
            cache.keep(fill_holes([row for row in range(3) if row != starts.index(min(starts))]))
            cache.admit(read(4), [4], [0], steps=1)
        longest = max(longest, cache.length)
    assert longest <= 2 * BLOCK  # three rows of 10, 20 and 30 steps


def test_a_long_sequence_grows_the_cache_by_a_share_and_not_a_block(cache):
    cache.keep([0])
    sizes = set()
    for _ in range(2000):
        cache.make_room(0, 1)
        step(cache, 0.0)
        sizes.add(cache.length)
    assert len(sizes) < 20
    assert max(sizes) < 1.3 * 2003 + BLOCK


@pytest.mark.parametrize(("live", "order"), [([0, 1, 2], [0, 1, 2]), ([0, 3, 4], [0, 4, 3]), ([2], [2]), ([], [])])
def test_holes_are_filled_from_behind(live, order):
    assert fill_holes(live) == order
