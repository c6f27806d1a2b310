"""Aggregates scores over runs and benchmarks as rliable does: interquartile mean and probability of improvement.

Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice"; intervals are the
percentiles of a stratified bootstrap, which draws runs anew on each benchmark. The library itself isn't used, for
reasons that docs/analysis.md gives. R runs (seeds) of an arm, Q of another, K benchmarks, B bootstrap samples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

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
        return np.asarray(scipy.stats.trim_mean(scores_BRK.reshape(len(scores_BRK), -1), 0.25, axis=1))

    return aggregate(middle_B, scores_RK)


def probability_of_improvement(x_RK: Scores, y_QK: Scores) -> Aggregate:
    """Returns how likely a run of x scores above one of y on the same benchmark, mean over benchmarks.

    Ties count half: on one benchmark it is Mann and Whitney's U / (R Q).
    """

    def better_B(x_BRK: Scores, y_BQK: Scores) -> Scores:
        # U by ranks, where ties have their mean: all pairs of hundreds of runs would take gigabytes.
        (_, runs, benchmarks), others = x_BRK.shape, y_BQK.shape[1]
        rank_BRK = scipy.stats.rankdata(np.concatenate([x_BRK, y_BQK], axis=1), axis=1)[:, :runs]
        wins_BK = rank_BRK.sum(axis=1) - runs * (runs + 1) / 2
        return np.asarray(wins_BK.sum(axis=1) / (runs * others * benchmarks))

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
