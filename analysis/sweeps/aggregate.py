"""Aggregates scores over runs and benchmarks as rliable does: interquartile mean and probability of improvement.

Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice"; intervals are the
percentiles of a stratified bootstrap, which draws runs anew on each benchmark. The library itself isn't used, for
reasons that docs/analysis.md gives. R runs (seeds) of an arm, Q of another, K benchmarks, B bootstrap samples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.statistics import CONFIDENCE

SAMPLES = 2000
Scores = npt.NDArray[np.float64]


class Aggregate(NamedTuple):
    """Holds an aggregate with its interval; None where a seed alone leaves nothing to draw from."""

    value: float
    interval: tuple[float, float] | None


def interquartile_mean(scores_RK: Scores) -> Aggregate:
    """Returns the mean of the middle half of all scores, each run's on each benchmark."""

    def middle_B(scores_BRK: Scores) -> Scores:
        return np.asarray(stats.trim_mean(scores_BRK.reshape(len(scores_BRK), -1), 0.25, axis=1))

    return aggregate(middle_B, scores_RK)


def probability_of_improvement(x_RK: Scores, y_QK: Scores) -> Aggregate:
    """Returns how likely a run of x scores above one of y on the same benchmark, mean over benchmarks.

    Ties count half: on one benchmark it is Mann and Whitney's U / (R Q).
    """

    def better_B(x_BRK: Scores, y_BQK: Scores) -> Scores:
        # By ranks, since all pairs of hundreds of runs take gigabytes. Samples have ranks of their own, one above
        # the other.
        rank = np.unique(np.concatenate([x_BRK.ravel(), y_BQK.ravel()]), return_inverse=True)[1].ravel()
        samples, (runs, others) = len(x_BRK) * x_BRK.shape[2], (x_BRK.shape[1], y_BQK.shape[1])
        sample_B1K = np.arange(samples).reshape(len(x_BRK), 1, -1)
        x_BRK, y_BQK = (
            own.reshape(scores.shape) + sample_B1K * len(rank)
            for own, scores in zip(np.split(rank, [x_BRK.size]), (x_BRK, y_BQK), strict=True)
        )
        y_sorted = np.sort(y_BQK, axis=None)
        below_BRK, up_to_BRK = (np.searchsorted(y_sorted, x_BRK, side) for side in ("left", "right"))
        wins_BRK = (below_BRK + up_to_BRK) / 2 - others * sample_B1K
        return np.asarray(wins_BRK.sum(axis=(1, 2)) / (runs * others * x_BRK.shape[2]))

    return aggregate(better_B, x_RK, y_QK)


def aggregate(measure_B: Callable[..., Scores], *arms: Scores) -> Aggregate:
    """Returns a measure of some arms' scores, and the 95 % interval of its bootstrap; the same at every call."""
    value = float(measure_B(*(scores_RK[None] for scores_RK in arms))[0])
    if min(len(scores_RK) for scores_RK in arms) < 2:
        return Aggregate(value, None)
    drawn = np.random.default_rng(0)
    found_B = measure_B(*(resampled(scores_RK, drawn) for scores_RK in arms))
    low, high = np.quantile(found_B, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Aggregate(value, (float(low), float(high)))


def resampled(scores_RK: Scores, drawn: np.random.Generator) -> Scores:
    """Returns bootstrap samples of an arm, (B, R, K): on each benchmark R runs, drawn with replacement."""
    runs_BRK = drawn.integers(len(scores_RK), size=(SAMPLES, *scores_RK.shape))
    return scores_RK[runs_BRK, np.arange(scores_RK.shape[1])]
