"""benchmarks/power.py: its parts of a variance are those that simulated seeds, prompts and samples were made of."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from analysis.statistics import mean_interval

PATH = Path(__file__).parents[2] / "benchmarks" / "power.py"
SPEC = importlib.util.spec_from_file_location("power_benchmark", PATH)
assert SPEC and SPEC.loader
power = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(power)


def simulated(seeds, prompts, samples, of_seed, of_prompt, shared=0.0):
    """Two arms of one benchmark. of_seed, of_prompt: spread of chances over seeds, and over prompts within a seed."""
    rng = np.random.default_rng(0)
    both = rng.normal(0, shared, prompts) if shared else np.zeros(prompts)
    found = {}
    for seed in range(seeds):
        plus = 0.5 + rng.normal(0, of_seed) + rng.normal(0, of_prompt, prompts) + both
        chances = np.clip(np.array([plus, np.full(prompts, 0.5)]), 0, 1)
        right = rng.binomial(samples, chances) / samples
        found[seed] = [(sign, "a", right[i], samples) for i, sign in enumerate((1.0, -1.0))]
    return found


def test_the_parts_of_a_variance_are_those_it_was_made_of():
    whole, samples, prompts = power.split(simulated(400, 50, 4, 0.05, 0.1), fixed=True)
    # two arms of chance about 0.5, less what the prompts' own spread takes off p (1 - p)
    assert samples == pytest.approx((0.5 - 0.01 - 0.0025) / 50 / 4, rel=0.03)
    assert prompts == pytest.approx(0.01 / 50, rel=0.1)
    assert whole - samples - prompts == pytest.approx(0.05**2, rel=0.15)


def test_what_a_prompt_does_to_all_seeds_alike_is_no_part_where_prompts_are_shared():
    same = power.split(simulated(60, 50, 4, 0.05, 0.0, shared=0.1), fixed=True)
    other = power.split(simulated(60, 50, 4, 0.05, 0.0, shared=0.1), fixed=False)
    assert same[2] < 0.2 * other[2]


def test_half_the_prompts_are_as_much_wider_as_the_parts_say():
    found = simulated(300, 50, 4, 0.02, 0.1)
    whole, samples, prompts = power.split(found, fixed=True)
    measured, moved = power.halves(found, 100)
    assert measured == pytest.approx(np.sqrt(1 + (samples + prompts) / whole), rel=0.03)
    assert moved < 0.02


def test_an_interval_without_covariate_is_the_reports_and_a_shared_coefficient_widens_it_a_little():
    y = np.array([0.1, 0.3, 0.2, 0.6])
    plain = mean_interval(y)
    assert power.interval(y) == pytest.approx((plain.mean, plain.half_width))
    assert plain.half_width < power.interval(y, 36)[1] < 1.05 * plain.half_width


def test_more_seeds_narrow_by_hand():
    # t(9) / t(4) / sqrt(2) = 2.262 / 2.776 / 1.414
    assert power.narrower(5, 5) == pytest.approx(0.576, abs=1e-3)


def test_a_slope_is_within_claims_and_not_between_them():
    x = np.array([0.0, 1.0])
    assert power.slope([(2 * x, x), (2 * x + 9, x + 5)]) == pytest.approx(2)
    assert power.slope([(x, np.zeros(2))]) == 0
