"""Verdicts: calibrated without an effect, as powerful as they say with one, and none from too little."""

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.claims.always_valid import FIRST_LOOK
from analysis.claims.multiple_testing import (
    CONTRADICTED,
    EQUAL,
    INCONCLUSIVE,
    NOT_RUN,
    SUPPORTED,
    SeedEffects,
    decide,
    detectable,
    judge_effects,
    power,
)

CLAIMS = 20


def effects_of(values, **how):
    return [SeedEffects(np.asarray(x_S, dtype=float), **how) for x_S in values]


@pytest.mark.parametrize("seeds", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 10))])
def test_without_any_effect_at_most_one_verdict_in_twenty_is_not_inconclusive(seeds):
    rng, families = np.random.default_rng(seeds), 150
    said = [
        verdict != INCONCLUSIVE
        for _ in range(families)
        for verdict, _ in decide(effects_of(rng.normal(size=(CLAIMS, seeds))))[0]
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
        verdicts, _ = decide(effects_of(x_CS))
        found += verdicts[0][0] == SUPPORTED
    assert found / repeats == pytest.approx(0.8, abs=0.08)


def test_power_is_that_of_the_noncentral_t_where_scipy_can_work_it_out():
    for seeds, size, level in [(5, 1.0, 0.05), (10, 0.7, 0.01), (30, 0.4, 0.05)]:
        critical, shift = stats.t.isf(level / 2, seeds - 1), size * np.sqrt(seeds)
        exact = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
        assert power(seeds, size, level) == pytest.approx(exact, abs=1e-3)


def test_clear_effects_are_supported_or_contradicted_and_noise_is_neither():
    clear, noise = [0.5, 0.52, 0.49, 0.51, 0.5], [0.1, -0.1, 0.2, 0.06, 0.02]
    up, down, neither = judge_effects(effects_of([clear, [-x for x in clear], noise]))
    assert (up.verdict, down.verdict, neither.verdict) == (SUPPORTED, CONTRADICTED, INCONCLUSIVE)
    assert up.estimate == pytest.approx(0.504) and up.interval[0] < 0.504 < up.interval[1]
    assert (
        up.seeds_needed is None and neither.seeds_needed > 6
    )  # what batches would take, never below a first look


def test_a_claim_of_no_difference_is_supported_inside_its_margin_and_contradicted_outside():
    values = [[0.001, -0.002, 0.0, 0.001] * 2, [0.2, 0.21, 0.19, 0.2], [0.1, -0.1, 0.05, -0.02] * 2]
    equal, unequal, open_ = judge_effects(effects_of(values, margin=0.03, of_equality=True))
    assert (equal.verdict, unequal.verdict, open_.verdict) == (SUPPORTED, CONTRADICTED, INCONCLUSIVE)


def test_a_claim_of_a_difference_is_equal_where_it_is_surely_within_its_margin():
    values = [[0.001, -0.002, 0.0, 0.001, 0.002, -0.001, 0.0], [0.2, 0.21, 0.19], [-0.2, -0.21, -0.19]]
    values += [[0.1, -0.1, 0.05, 0.0, -0.07, 0.12, -0.02]]
    found = [one.verdict for one in judge_effects(effects_of(values, margin=0.03))]
    assert found == [EQUAL, SUPPORTED, CONTRADICTED, INCONCLUSIVE]
    assert judge_effects(effects_of(values[:1]))[0].verdict == INCONCLUSIVE  # without a margin nothing is equal
    few = [values[0][: FIRST_LOOK - 1]]
    assert judge_effects(effects_of(few, margin=0.03))[0].verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("seeds", "mean"),
    [
        pytest.param(*case, marks=() if case == (7, 1.0) else pytest.mark.slow)
        for case in itertools.product((3, 7, 10), (0.0, 0.5, 1.0, -1.0))
    ],
)
def test_a_margin_lets_at_most_one_verdict_in_twenty_be_false_wherever_the_mean_is(mean, seeds):
    x_RS, margin = np.random.default_rng(seeds).normal(mean, 0.4, (2000, seeds)), 1.0
    said = [judge_effects([SeedEffects(x_S, margin)])[0].verdict for x_S in x_RS]
    wrong = {
        0.0: (SUPPORTED, CONTRADICTED),
        0.5: (CONTRADICTED,),
        1.0: (CONTRADICTED, EQUAL),
        -1.0: (SUPPORTED, EQUAL),
    }
    assert np.isin(said, wrong[mean]).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_one_seed_equal_seeds_and_no_seeds_give_no_verdict():
    one, equal, absent = judge_effects(effects_of([[0.5], [0.5, 0.5, 0.5], []]))
    assert (one.verdict, one.seeds, one.interval) == (INCONCLUSIVE, 1, None)
    assert (equal.verdict, equal.estimate, equal.interval) == (INCONCLUSIVE, 0.5, None)
    assert absent.verdict == NOT_RUN


@pytest.mark.parametrize(
    "how", [{}, {"margin": 0.03}, {"margin": 0.03, "of_equality": True}, {"in_batches": True}]
)
@pytest.mark.parametrize("gap", [0.05, -0.1])
@pytest.mark.parametrize("seeds", [2, 3, 9, 30])
def test_a_gap_that_differs_between_seeds_by_rounding_alone_gives_no_verdict(seeds, gap, how):
    rng = np.random.default_rng(seeds)
    start_SB = rng.integers(10, 60, size=(seeds, 2)) / 77  # two benchmarks of 77 responses
    rounded_S = (start_SB + gap).round(5).mean(axis=1) - start_SB.round(5).mean(axis=1)
    (found,) = judge_effects(effects_of([rounded_S], **how))
    assert (found.verdict, found.p_value, found.interval, found.seeds_needed) == (INCONCLUSIVE, None, None, None)


def test_first_seeds_that_differ_by_rounding_alone_are_no_evidence_for_later_looks():
    residue = [0.05, 0.05001, 0.05, 0.04999, 0.05, 0.05, 0.05001, 0.05]
    (found,) = judge_effects(effects_of([[*residue, -0.4, 0.5]], in_batches=True))
    assert found.verdict == INCONCLUSIVE and found.p_value > 0.5


def test_the_correction_counts_all_claims_that_are_tested():
    weak = [0.5, 0.9, 0.1, 0.7, 0.2]  # p = 0.03 alone
    noise = [*np.random.default_rng(0).normal(size=(19, 5))]
    assert judge_effects(effects_of([weak]))[0].verdict == SUPPORTED
    assert judge_effects(effects_of([weak, *noise]))[0].verdict == INCONCLUSIVE
