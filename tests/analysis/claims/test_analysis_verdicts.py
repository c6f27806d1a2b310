"""Verdicts: calibrated without an effect, as powerful as they say with one, and none from too little."""

import numpy as np
import pytest
from scipy import stats

from analysis.claims.multiple_testing import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    SUPPORTED,
    decide,
    detectable,
    judge_effects,
    power,
    seeds_needed,
)

CLAIMS = 20


@pytest.mark.parametrize("seeds", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 10))])
def test_without_any_effect_at_most_one_verdict_in_twenty_is_not_inconclusive(seeds):
    rng, families = np.random.default_rng(seeds), 150
    said = [
        verdict != INCONCLUSIVE
        for _ in range(families)
        for verdict, _ in decide([*rng.normal(size=(CLAIMS, seeds))], [None] * CLAIMS)[0]
    ]
    assert np.mean(said) <= 0.05
    # The correction promises more: at most one report in twenty holds any false verdict.
    reports = np.reshape(said, (families, CLAIMS)).any(axis=1)
    assert reports.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / families)


@pytest.mark.parametrize("seeds", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 10))])
def test_an_effect_of_the_detectable_size_is_found_four_times_in_five(seeds):
    rng, repeats = np.random.default_rng(seeds), 4000
    effect = detectable(seeds, 0.05)  # of a single claim, in standard deviations
    x_RS = rng.normal(loc=effect, size=(repeats, seeds))
    found = stats.ttest_1samp(x_RS, 0.0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.025)
    assert power(seeds, effect, 0.05) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("seeds", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 10))])
def test_among_many_claims_a_verdict_has_the_power_that_it_states(seeds):
    """One real effect of the size that the report calls detectable (known spread), nineteen of nothing."""
    rng, repeats = np.random.default_rng(100 + seeds), 200
    effect = detectable(seeds, 0.05 / CLAIMS)
    found = 0
    for _ in range(repeats):
        x_CS = rng.normal(size=(CLAIMS, seeds))
        x_CS[0] += effect
        verdicts, _ = decide([*x_CS], [None] * CLAIMS)
        found += verdicts[0][0] == SUPPORTED
    assert found / repeats == pytest.approx(0.8, abs=0.08)


def test_power_is_that_of_the_noncentral_t_where_scipy_can_work_it_out():
    for seeds, size, level in [(5, 1.0, 0.05), (10, 0.7, 0.01), (30, 0.4, 0.05)]:
        critical, shift = stats.t.isf(level / 2, seeds - 1), size * np.sqrt(seeds)
        exact = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
        assert power(seeds, size, level) == pytest.approx(exact, abs=1e-3)


def test_seeds_needed_are_the_fewest_that_reach_the_power():
    needed = seeds_needed(0.8, 0.05)
    assert power(needed, 0.8, 0.05) >= 0.8 > power(needed - 1, 0.8, 0.05)
    assert seeds_needed(0.01, 0.05) is None


def test_clear_effects_are_supported_or_contradicted_and_noise_is_neither():
    clear, noise = [0.5, 0.52, 0.49, 0.51, 0.5], [0.1, -0.1, 0.2, 0.06, 0.02]
    up, down, neither = judge_effects([clear, [-x for x in clear], noise], [None] * 3)
    assert (up.verdict, down.verdict, neither.verdict) == (SUPPORTED, CONTRADICTED, INCONCLUSIVE)
    assert up.estimate == pytest.approx(0.504) and up.interval[0] < 0.504 < up.interval[1]
    assert up.seeds_needed is None and neither.seeds_needed > 5


def test_a_claim_of_no_difference_is_supported_inside_its_margin_and_contradicted_outside():
    equal, unequal, open_ = judge_effects(
        [[0.001, -0.002, 0.0, 0.001], [0.2, 0.21, 0.19, 0.2], [0.1, -0.1, 0.05, -0.02]], [0.03] * 3
    )
    assert (equal.verdict, unequal.verdict, open_.verdict) == (SUPPORTED, CONTRADICTED, INCONCLUSIVE)


def test_one_seed_equal_seeds_and_no_seeds_give_no_verdict():
    one, equal, none, absent = judge_effects([[0.5], [0.5, 0.5, 0.5], [], None], [None] * 4)
    assert (one.verdict, one.seeds, one.interval) == (INCONCLUSIVE, 1, None)
    assert (equal.verdict, equal.estimate, equal.interval) == (INCONCLUSIVE, 0.5, None)
    assert none.verdict == absent.verdict == NOT_RUN


def test_the_correction_counts_all_claims_that_are_tested():
    weak = [0.5, 0.9, 0.1, 0.7, 0.2]  # p = 0.03 alone
    noise = [*np.random.default_rng(0).normal(size=(19, 5))]
    assert judge_effects([weak], [None])[0].verdict == SUPPORTED
    assert judge_effects([weak, *noise], [None] * 20)[0].verdict == INCONCLUSIVE
