"""Evidence under looking: the form that was published, at most the promised error, and the power that is printed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, stats

from analysis.claims import always_valid
from analysis.claims.always_valid import (
    FIRST_LOOK,
    boundary,
    bounds,
    detectable,
    interval,
    log_evidence,
    moments,
    needed_mean,
    p_different,
    p_equal,
    seeds_in_all,
    t_of_moments,
    t_values,
)
from analysis.claims.multiple_testing import (
    CONTRADICTED,
    EQUAL,
    FALSE_DISCOVERY_RATE,
    INCONCLUSIVE,
    SUPPORTED,
    SeedEffects,
    bar_of,
    decide,
    judge_effects,
    single_tests,
)

HISTORIES, SEEDS = 2000, 30
SKEWED = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "negative log-normal": lambda rng, shape: np.exp(0.125) - rng.lognormal(0, 0.5, shape),
    "bounded": lambda rng, shape: rng.beta(8, 2, shape) - rng.beta(8, 2, shape),
}


def in_batches(x_S, **how):
    return SeedEffects(np.asarray(x_S, dtype=float), in_batches=True, **how)


def ever(x_RN, mean, level=0.05):
    """Which histories' evidence against a mean passes 1 / level at any look."""
    t_RN = t_values(x_RN, mean)
    return (np.where(t_RN == 0, -np.inf, log_evidence(t_RN)) >= -np.log(level)).any(axis=1)


@pytest.mark.parametrize(("seeds", "t"), [(7, 2.0), (12, -1.3), (30, 3.0)])
def test_evidence_is_the_likelihood_ratio_of_a_normal_effect_size_to_none(seeds, t):
    likelihood = integrate.quad(
        lambda size: stats.nct.pdf(t, seeds - 1, size * np.sqrt(seeds)) * stats.norm.pdf(size), -6, 6, limit=200
    )[0]
    published = likelihood / stats.t.pdf(t, seeds - 1)
    assert np.exp(log_evidence(np.full(seeds, t))[-1]) == pytest.approx(published, rel=1e-6)


def test_the_boundary_is_where_evidence_reaches_its_level_and_no_earlier_than_the_first_look():
    for seeds in (FIRST_LOOK, 20, 60):
        t = float(boundary(seeds, 0.05))
        assert np.exp(log_evidence(np.full(seeds, t))[-1]) == pytest.approx(20)
    assert np.isinf(boundary(FIRST_LOOK - 1, 0.05)) and boundary(30, 0.05) > stats.t.isf(0.025, 29)
    seeds = np.arange(FIRST_LOOK, 60)
    assert (np.diff(boundary(seeds, 0.05) / np.sqrt(seeds)) < 0).all()


def test_a_mean_lies_outside_the_interval_exactly_where_evidence_excludes_it():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x_S = rng.choice([-1, 1]) * rng.exponential(size=12) + rng.normal()
        for ends, inward in zip(bounds(x_S, 0.05), (1, -1), strict=True):
            for n in (FIRST_LOOK, 12):
                inside, outside = (
                    log_evidence(t_values(x_S, ends[n - 1] + sign * inward * 1e-6))[n - 1] for sign in (1, -1)
                )
                assert inside <= -np.log(0.05) + 1e-4 and outside >= -np.log(0.05) - 1e-4


@pytest.mark.parametrize("name", SKEWED)
def test_no_effect_looked_at_after_every_seed_is_found_in_at_most_one_history_of_twenty(name):
    x_RN = SKEWED[name](np.random.default_rng(0), (HISTORIES, SEEDS))
    assert ever(x_RN, 0.0).mean() <= 0.05
    naive = [stats.ttest_1samp(x_RN[:, :n], 0.0, axis=1).pvalue <= 0.05 for n in range(FIRST_LOOK, SEEDS + 1)]
    assert np.any(naive, axis=0).mean() > 0.15  # what looking does to a t-test


@pytest.mark.parametrize("name", SKEWED)
def test_an_effect_as_large_as_the_margin_is_called_equal_in_at_most_one_history_of_twenty(name):
    x_RN = SKEWED[name](np.random.default_rng(1), (HISTORIES, SEEDS))
    margin = float(x_RN.std())
    for sign in (1, -1):
        assert np.mean([p_equal(x_N + sign * margin, margin) <= 0.05 for x_N in x_RN]) <= 0.05
    assert np.mean([p_equal(x_N, margin) <= 0.05 for x_N in x_RN]) > 0.5


@pytest.mark.parametrize(("seeds", "level"), [(10, 0.05), (30, 0.05), (30, 0.005)])
def test_power_is_as_printed_early_stopping_included(seeds, level):
    size = detectable(seeds, level)
    others_RN = np.random.default_rng(7).normal(size, 1, (HISTORIES, seeds))
    assert ever(others_RN, 0.0, level).mean() == pytest.approx(0.8, abs=0.035)
    same_RN = size + np.random.default_rng(0).normal(size=(always_valid.HISTORIES, seeds))
    assert ever(same_RN, 0.0, level).mean() == pytest.approx(0.8, abs=0.001)
    assert detectable(FIRST_LOOK - 1, level) == np.inf


def test_more_seeds_never_weaken_a_verdict_and_narrow_the_interval():
    x_S = np.random.default_rng(3).normal(0.8, 1, 40)
    looks = range(FIRST_LOOK, 41)
    p_values = [p_different(x_S[:n])[0] for n in looks]
    widths = [np.diff(interval(x_S[:n], 0.05))[0] for n in looks]
    assert (np.diff(p_values) <= 0).all() and (np.diff(widths) <= 0).all()


def test_seeds_that_are_equal_or_few_say_nothing():
    assert p_different(np.full(12, 0.3)) == (1.0, 0.0)
    assert p_different(np.array([0.5, 0.52, 0.49, 0.51, 0.5])) == (1.0, 0.0)
    assert interval(np.full(12, 0.3), 0.05) == (-np.inf, np.inf)
    few, equal = judge_effects([in_batches(x_S) for x_S in ([0.5, 0.52, 0.49], [0.1] * 9)])
    assert (few.verdict, few.p_value, equal.verdict) == (INCONCLUSIVE, None, INCONCLUSIVE)


def test_claims_in_batches_are_supported_contradicted_equal_or_open():
    noise = np.random.default_rng(5).normal(0, 0.01, 12)
    up, down, same, equal, unequal, open_ = judge_effects(
        [
            *(
                in_batches(0.5 + noise, margin=0.03),
                in_batches(-0.5 + noise),
                in_batches(0.001 + noise, margin=0.03),
            ),
            *(in_batches(mean + noise, margin=0.03, of_equality=True) for mean in (0.001, 0.2)),
            in_batches(0.003 + noise),
        ]
    )
    assert [one.verdict for one in (up, down, same)] == [SUPPORTED, CONTRADICTED, EQUAL]
    assert [one.verdict for one in (equal, unequal)] == [SUPPORTED, CONTRADICTED]
    assert open_.verdict == INCONCLUSIVE and open_.seeds_needed > 12
    assert up.interval[0] < 0.5 < up.interval[1] and up.detectable > 0


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_seeds_in_all_are_the_first_at_which_effects_like_these_are_settled(skewed, sign):
    noise = np.random.default_rng(0).normal(size=8)
    x_S = sign * (0.6 + (np.exp(noise) / 2 if skewed else noise))
    needed = seeds_in_all(x_S, None, 0.05)

    def settled(seeds):
        """Whether seeds with the moments of these exclude 0."""
        mean, spread, skewness = (np.full(seeds, own[-1]) for own in moments(x_S))
        return abs(t_of_moments(mean, spread, skewness, 0.0)[-1]) >= boundary(seeds, 0.05)

    assert needed > 8 and settled(needed) and not any(map(settled, range(9, needed)))


def test_seeds_in_all_of_equality_are_those_that_exclude_both_ends_of_the_margin():
    x_S = np.array([-1.0, 1.0] * 4)  # mean 0
    needed = seeds_in_all(x_S, 1.0, 0.05)
    assert needed == seeds_in_all(x_S + 1, None, 0.05) and seeds_in_all(x_S, None, 0.05) is None
    assert seeds_in_all(x_S, 0.5, 0.05) > needed


@given(
    hnp.arrays(float, st.integers(2, 40), elements=st.integers(-1000, 1000).map(lambda x: x / 100)),
    st.sampled_from([0.05, 0.01]),
)
def test_the_needed_mean_is_passed_where_the_last_look_excludes_zero(x_S, level):
    low_N, high_N = bounds(x_S, level)
    outside = low_N[-1] > 0 or high_N[-1] < 0
    assert (abs(x_S.mean()) > needed_mean(x_S, level)) == outside


def test_a_p_value_at_the_bar_gets_a_verdict_beside_the_others_and_one_above_it_none():
    rng = np.random.default_rng(0)
    for _ in range(100):
        others = {i: ("", float(p)) for i, p in enumerate(rng.uniform(0, 0.08, 6), start=1)}
        bar = bar_of(0, {0: ("", 1.0), **others})
        for p, said in ((bar, True), (bar * 1.001, False)):
            corrected = stats.false_discovery_control([p, *(one for _, one in others.values())])
            assert (corrected[0] <= FALSE_DISCOVERY_RATE + 1e-12) == said


def test_tests_of_both_kinds_are_corrected_together():
    x_CS = np.random.default_rng(2).normal(1.0, 1.0, (4, 12))
    effects = [in_batches(x_S) if i in (1, 3) else SeedEffects(x_S) for i, x_S in enumerate(x_CS)]
    verdicts, _ = decide(effects)
    single = single_tests(dict(enumerate(effects)))
    assert [p for _, p in verdicts] == pytest.approx(
        stats.false_discovery_control([single[i][1] for i in range(4)])
    )
    assert single[1][1] == always_valid.p_different(x_CS[1])[0] != single[0][1]
