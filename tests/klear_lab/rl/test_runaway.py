"""Warnings of runs that run away: made-up histories against the rules, with their boundary cases."""

import pytest

from klear_lab.rl.runaway import find_runaways

ENTROPY, SHARE, LENGTH = "policy/entropy", "rollout/truncated_fraction", "rollout/length_mean"


def warned(metric, values):
    """(kind, step) of all warnings of a history of one metric, whose steps count from 1."""
    found = find_runaways([{"step": step, metric: value} for step, value in enumerate(values, start=1)])
    return [(one.kind, one.step) for one in found]


@pytest.mark.parametrize(("metric", "value"), [(ENTROPY, 0.3), (ENTROPY, 0.0), (SHARE, 1.0), (LENGTH, 50.0)])
def test_a_constant_history_warns_of_nothing(metric, value):
    assert warned(metric, [value] * 40) == []


def test_no_history_and_a_short_one_warn_of_nothing():
    assert find_runaways([]) == []
    assert warned(ENTROPY, [1.0, 1.0, 0.0, 0.0, 0.0]) == []  # the steps that the reference is the mean of
    assert warned(LENGTH, [10.0] * 3 + [100.0] * 9) == []


def test_a_slow_collapse_warns_once_at_its_third_step_below_a_tenth():
    values = [1.0] * 5 + [0.8**n for n in range(1, 40)]
    below = next(step for step, value in enumerate(values, start=1) if value < 0.1)
    assert warned(ENTROPY, values) == [("entropy_collapse", below + 2)]


@pytest.mark.parametrize(
    ("last", "kinds"), [(0.1, []), (0.0999, ["entropy_collapse"]), (3.0, []), (3.001, ["entropy_explosion"])]
)
def test_the_bounds_of_entropy_themselves_are_allowed(last, kinds):
    assert [kind for kind, _ in warned(ENTROPY, [1.0] * 5 + [last] * 3)] == kinds


def test_a_spike_of_two_steps_warns_of_nothing_and_one_of_three_does():
    assert warned(ENTROPY, [1.0] * 6 + [9.0] * 2 + [1.0] * 9) == []
    assert warned(ENTROPY, [1.0] * 6 + [9.0] * 3 + [1.0] * 9) == [("entropy_explosion", 9)]


def test_a_collapse_that_recovered_warns_again_when_it_comes_back():
    values = [1.0] * 5 + [0.01] * 5 + [1.0] * 3 + [0.01] * 5
    assert warned(ENTROPY, values) == [("entropy_collapse", 8), ("entropy_collapse", 16)]


def test_two_good_steps_do_not_end_an_episode():
    assert warned(ENTROPY, [1.0] * 5 + [0.01] * 4 + [1.0] * 2 + [0.01] * 6) == [("entropy_collapse", 8)]


def test_steps_without_the_number_are_passed_over():
    assert warned(ENTROPY, [1.0] * 5 + [0.01, None, 0.01, None, 0.01]) == [("entropy_collapse", 10)]


def test_truncation_warns_only_after_it_was_rare():
    assert warned(SHARE, [0.9] * 9) == []
    assert warned(SHARE, [0.25] + [0.9] * 9) == []
    assert warned(SHARE, [0.249] + [0.9] * 9) == [("truncated", 4)]
    assert warned(SHARE, [0.1] + [0.5] * 9) == []
    assert warned(SHARE, [0.1] + [0.501] * 9) == [("truncated", 4)]


def test_a_length_that_jumps_to_double_warns_and_a_little_less_does_not():
    assert warned(LENGTH, [100.0] * 12 + [200.0] * 20) == [("length", 15)]
    assert warned(LENGTH, [100.0] * 12 + [199.0] * 20) == []


def test_steady_growth_warns_where_it_doubles_within_ten_steps():
    assert [kind for kind, _ in warned(LENGTH, [100 * 2 ** (n / 10) for n in range(30)])] == ["length"]
    assert warned(LENGTH, [100 * 2 ** (n / 15) for n in range(60)]) == []


def test_the_line_has_the_step_the_numbers_and_what_people_do():
    history = [{"step": step, ENTROPY: 2.0 if step <= 25 else 0.125} for step in range(21, 29)]
    (found,) = find_runaways(history)
    assert found.text.startswith(
        "RL step 28: entropy 0.125 is below a tenth of 2, its mean over the first 5 steps"
    )
    assert "for 3 steps in a row; people lower rl.learning_rate" in found.text


def test_a_history_up_to_a_step_has_the_same_warnings_as_the_whole_one_up_to_there():
    values = [1.0] * 5 + [0.01] * 5 + [1.0] * 3 + [9.0] * 5
    whole = warned(ENTROPY, values)
    for end in range(len(values) + 1):
        assert warned(ENTROPY, values[:end]) == [one for one in whole if one[1] <= end]
