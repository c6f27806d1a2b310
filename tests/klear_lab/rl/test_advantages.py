"""Advantages: a Python loop as oracle, equal rewards, invariances."""

import statistics

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from klear_lab.rl.advantages import group_advantages

groups = st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5)


@given(groups)
def test_advantages_are_the_definition_written_as_a_loop(rewards):
    got = group_advantages(torch.tensor(rewards, dtype=torch.float64))
    for row, group in zip(got.tolist(), rewards, strict=True):
        spread = statistics.pstdev(group)
        assume(len(set(group)) == 1 or spread > 1e-6)
        mean = statistics.fmean(group)
        want = [0.0] * 4 if len(set(group)) == 1 else [(r - mean) / spread for r in group]
        torch.testing.assert_close(torch.tensor(row), torch.tensor(want), rtol=1e-6, atol=1e-9)


def test_equal_rewards_give_exactly_zero_also_where_their_mean_rounds():
    assert group_advantages(torch.full((1, 7), 0.1)).tolist() == [[0.0] * 7]


def test_unequal_soft_rewards_keep_an_advantage_however_close():
    assert (group_advantages(torch.tensor([[0.5, 0.5, 0.5, 0.50001]])) != 0).all()


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4), st.floats(0.5, 5), st.floats(-2, 2))
def test_advantages_ignore_scale_and_shift_of_the_reward(group, scale, shift):
    reward = torch.tensor([group], dtype=torch.float64)
    torch.testing.assert_close(group_advantages(reward * scale + shift), group_advantages(reward))


def test_without_the_division_an_advantage_is_the_distance_from_the_mean():
    reward_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3], [0.25, 1.0, 0.5, 0.25]])
    want = [[0.5, -0.5, -0.5, 0.5], [0.0] * 4, [-0.25, 0.5, 0.0, -0.25]]
    assert group_advantages(reward_PG, divide_by_std=False).tolist() == want


@given(groups, st.data())
def test_with_a_sample_std_and_a_mask_they_are_the_authors_code_written_as_a_loop(rewards, data):
    counted = [[data.draw(st.booleans()) for _ in group] for group in rewards]
    reward_PG, counted_PG = torch.tensor(rewards, dtype=torch.float64), torch.tensor(counted)
    got = group_advantages(reward_PG, True, counted_PG, "sample")
    for row, group, own in zip(got.tolist(), rewards, counted, strict=True):
        left = [r for r, counts in zip(group, own, strict=True) if counts]
        if len(set(left)) < 2:
            assert row == [0.0] * 4
            continue
        mean, spread = statistics.fmean(left), statistics.stdev(left) + 1e-6
        want = [(r - mean) / spread if counts else 0.0 for r, counts in zip(group, own, strict=True)]
        torch.testing.assert_close(torch.tensor(row), torch.tensor(want), rtol=1e-6, atol=1e-9)
