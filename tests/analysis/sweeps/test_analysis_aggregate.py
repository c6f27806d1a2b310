"""IQM and probability of improvement are rliable's: by hand, by its own formulas, and with intervals that cover."""

import numpy as np
import pytest
from scipy import stats

from analysis.sweeps.aggregate import interquartile_mean, probability_of_improvement

# value and interval that rliable 1.2.0 (arch 7.2.0, pandas 2) gives of the scores below, 20,000 samples or more
IQM = (0.56166667, 0.53583333, 0.58833333)
BETTER = (0.71180556, 0.53819444, 0.86458333)
X_RK = np.random.default_rng(1).normal(0.55, 0.1, (8, 3)).round(2)
Y_QK = np.random.default_rng(2).normal(0.5, 0.1, (6, 3)).round(2)


def rliables_probability(x_RK, y_QK):
    """Its published definition: Mann and Whitney's U over the number of pairs, mean over tasks; equal arms: 0.5."""
    tasks = []
    for x_R, y_Q in zip(x_RK.T, y_QK.T):
        u = stats.mannwhitneyu(x_R, y_Q, alternative="greater").statistic / (len(x_R) * len(y_Q))
        tasks.append(0.5 if np.array_equal(x_R, y_Q) else u)
    return np.mean(tasks)


def test_the_interquartile_mean_drops_a_quarter_at_each_end_of_all_scores_together():
    scores_RK = np.array([[0.0, 0.2], [0.4, 0.5], [0.6, 0.7], [0.9, 1.0]])
    assert interquartile_mean(scores_RK).value == pytest.approx((0.4 + 0.5 + 0.6 + 0.7) / 4)


@pytest.mark.parametrize("shape", [(8, 3), (5, 1), (3, 4), (2, 2), (1, 2)])
def test_both_are_those_of_rliables_formulas(shape):
    for seed in range(5):
        drawn = np.random.default_rng(seed)
        x_RK, y_QK = drawn.normal(0.5, 0.1, shape).round(1), drawn.normal(0.5, 0.1, (4, shape[1])).round(1)
        assert interquartile_mean(x_RK).value == pytest.approx(stats.trim_mean(x_RK, 0.25, axis=None))
        assert probability_of_improvement(x_RK, y_QK).value == pytest.approx(rliables_probability(x_RK, y_QK))
        assert probability_of_improvement(x_RK, x_RK).value == pytest.approx(0.5)


def test_values_and_intervals_are_those_that_the_library_gives():
    found, better = interquartile_mean(X_RK), probability_of_improvement(X_RK, Y_QK)
    assert found.value == pytest.approx(IQM[0]) and found.interval == pytest.approx(IQM[1:], abs=0.004)
    assert better.value == pytest.approx(BETTER[0]) and better.interval == pytest.approx(BETTER[1:], abs=0.02)


def test_the_same_scores_give_the_same_interval_and_one_seed_gives_none():
    assert interquartile_mean(X_RK) == interquartile_mean(X_RK.copy())
    assert interquartile_mean(X_RK[:1]).interval is None
    assert probability_of_improvement(X_RK, Y_QK[:1]).interval is None


def test_intervals_of_many_seeds_cover_the_truth_about_as_often_as_they_say():
    drawn = np.random.default_rng(0)
    truth, hits = 0.5, 0
    for _ in range(100):
        low, high = interquartile_mean(drawn.normal(truth, 0.1, (25, 2))).interval
        hits += low <= truth <= high
    assert 87 <= hits <= 99
