"""Tells what paired effects say of a claim when one looks after every batch of seeds and stops when it is enough.

An effect is one number a seed; N counts how many of the first seeds are looked at. Evidence against a mean is an
e-process: for normal effects the chance that it ever passes 1 / level, at any of the looks, is at most `level`
(Ville's inequality), so looking costs nothing and neither the looks nor their number need be known beforehand. It
is the t-test's likelihood ratio of an effect size drawn from N(0, PRIOR) to no effect, which doesn't depend on the
unknown spread: Lai (1976), "On confidence sequences"; Wang and Ramdas (2025), "Anytime-valid t-tests and
confidence sequences for Gaussian means with unknown variance". Means that the evidence doesn't exclude make a
confidence sequence.

Few skewed effects make any t-test say too much. So a mean counts as excluded only where Hall's skewness-corrected
t (1992, "On the removal of skewness by transformation") excludes it too. That can only take verdicts away, so what
holds for normal effects goes on holding. docs/analysis.md has what simulations make of it.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from analysis.statistics import spread_so_far

Array = npt.NDArray[np.float64]

FIRST_LOOK = 7  # seeds; of fewer, a skewed effect shows too little of its skewness
LEAST_LEFT = 0.5  # of Student's t after the correction, which says nothing of effects of several spreads
PRIOR = 1.0  # variance of the effect size, in standard deviations, that the evidence is made for
MOST_SEEDS = 1000
POWER = 0.8
HISTORIES = 4000  # that power is simulated with


def moments(x_S: Array) -> tuple[Array, Array, Array]:
    """Returns mean, standard deviation and skewness of the first N seeds, N = 1, 2, ... along the last axis."""
    first = x_S[..., :1]
    y_S, n_N = x_S - first, np.arange(1, x_S.shape[-1] + 1)  # shifted, so that no digits cancel
    mean, square, cube = (np.cumsum(y_S**k, axis=-1) / n_N for k in (1, 2, 3))
    variance = square - mean**2
    third = cube - 3 * mean * square + 2 * mean**3
    flat = ~spread_so_far(x_S)
    skewness = np.where(flat, 0.0, third / np.where(flat, 1.0, variance) ** 1.5)
    spread = np.where(flat, 0.0, np.sqrt(np.maximum(variance, 0) * n_N / np.maximum(n_N - 1, 1)))
    return mean + first, spread, skewness


def t_values(x_S: Array, mean: float) -> Array:
    """Returns the signed t-value of the first N seeds against a mean: the smaller of Student's and Hall's.

    It is 0 for seeds without spread.
    """
    return t_of_moments(*moments(x_S), mean)


def t_of_moments(centre_N: Array, spread_N: Array, skew_N: Array, mean: float) -> Array:
    """Returns `t_values` of seeds with these `moments`."""
    n_N = np.arange(1, centre_N.shape[-1] + 1)
    flat = spread_N == 0
    u_N = np.where(flat, 0.0, (centre_N - mean) / np.where(flat, 1.0, spread_N))
    hall_N = u_N + skew_N * u_N**2 / 3 + skew_N**2 * u_N**3 / 27 + skew_N / (6 * n_N)
    plain_N, corrected_N = np.abs(u_N), np.sign(u_N) * hall_N
    return np.sign(u_N) * np.clip(corrected_N, LEAST_LEFT * plain_N, plain_N) * np.sqrt(n_N)


def log_evidence(t_N: Array) -> Array:
    """Returns the log of the evidence in t-values of the first N = 1, 2, ... seeds; none before FIRST_LOOK."""
    n_N = np.arange(1, t_N.shape[-1] + 1)
    wide_N, freedom_N = 1 + PRIOR * n_N, np.maximum(n_N - 1, 1)
    grown = np.log1p(t_N**2 / freedom_N) - np.log1p(t_N**2 / (freedom_N * wide_N))
    return np.where(n_N < FIRST_LOOK, -np.inf, n_N / 2 * grown - np.log(wide_N) / 2)


def boundary(seeds: npt.ArrayLike, level: float) -> Array:
    """Returns the t-value at which evidence reaches 1 / level; infinite where so few seeds never reach it."""
    n = np.asarray(seeds, dtype=float)
    wide = 1 + PRIOR * n
    ratio = np.exp((np.log(wide) - 2 * np.log(level)) / n)
    reached = (ratio < wide) & (n >= FIRST_LOOK)
    square = (n - 1) * (ratio - 1) / np.where(reached, 1 - ratio / wide, 1.0)
    return np.where(reached, np.sqrt(square), np.inf)


def p_different(x_S: Array, mean: float = 0.0) -> tuple[float, float]:
    """Returns the always-valid p-value of "the mean is `mean`", and the side (+1, -1, 0) that the seeds lie on.

    The largest evidence at any look counts, so more seeds never make a verdict weaker.
    """
    t_N = t_values(x_S, mean)
    log_e_N = np.where(t_N == 0, -np.inf, log_evidence(t_N))
    best = int(log_e_N.argmax())
    return as_p(log_e_N[best]), float(np.sign(t_N[best])) if np.isfinite(log_e_N[best]) else 0.0


def p_equal(x_S: Array, margin: float) -> float:
    """Returns the always-valid p-value of "the mean is not between -margin and margin": two one-sided tests."""
    low_N, high_N = t_values(x_S, -margin), t_values(x_S, margin)
    inside_N = (low_N > 0) & (high_N < 0)
    log_e_N = np.minimum(log_evidence(low_N), log_evidence(high_N))
    return as_p(np.where(inside_N, log_e_N, -np.inf).max())


def as_p(log_e: float) -> float:
    """Returns the p-value of some evidence: 1 / evidence, at most 1."""
    return float(np.exp(-max(0.0, log_e)))


def bounds(x_S: Array, level: float) -> tuple[Array, Array]:
    """Returns the means that each look leaves over: the lower and upper end for N = 1, 2, ... seeds."""
    low_N, high_N = (bound_of_moments(*moments(x_S), level, side) for side in (1, -1))
    return low_N, high_N


def bound_of_moments(centre_N: Array, spread_N: Array, skew_N: Array, level: float, side: int) -> Array:
    """Returns the lower (side 1) or upper (-1) of the `bounds` of seeds with these `moments`."""
    n_N = np.arange(1, centre_N.shape[-1] + 1)
    w_N = boundary(n_N, level) / np.sqrt(n_N)
    # the wider of Student's and Hall's, because both must exclude a mean
    hall_N = side * hall_inverse(side * w_N, skew_N, n_N)
    u_N = side * np.clip(hall_N, w_N, w_N / LEAST_LEFT)
    known_N = np.isfinite(w_N) & (spread_N > 0)
    return np.where(known_N, centre_N - spread_N * np.where(known_N, u_N, 0.0), -side * np.inf)


def hall_inverse(w_N: Array, skew_N: Array, n_N: npt.NDArray[np.int64]) -> Array:
    """Returns the standardised distance whose skewness-corrected value is w."""
    plain = np.abs(skew_N) < 1e-6
    g_N = np.where(plain, 1.0, skew_N)
    finite_N = np.where(np.isinf(w_N), 0.0, w_N)
    bent = 3 / g_N * (np.cbrt(1 + g_N * (finite_N - g_N / (6 * n_N))) - 1)
    return np.where(plain, finite_N, bent)


def interval(x_S: Array, level: float) -> tuple[float, float]:
    """Returns the means that no look has excluded at `level`; the last look's where looks exclude all of them."""
    low_N, high_N = bounds(x_S, level)
    low, high = float(low_N.max()), float(high_N.min())
    return (low, high) if low <= high else (float(low_N[-1]), float(high_N[-1]))


def needed_mean(x_S: Array, level: float) -> float:
    """Returns how far from 0 the mean of these seeds must be to exclude it now, if spread and skewness stay."""
    centre, (low_N, high_N) = float(x_S.mean()), bounds(x_S, level)
    return float(centre - low_N[-1] if centre > 0 else high_N[-1] - centre)


def seeds_in_all(x_S: Array, margin: float | None, level: float) -> int | None:
    """Returns how many seeds settle a claim, if mean, spread and skewness stay as these have them.

    It is more than these; None above 1000.
    """
    centre_N, spread_N, skew_N = (np.full(MOST_SEEDS, own[-1]) for own in moments(x_S))
    n_N = np.arange(1, MOST_SEEDS + 1)
    needed_N = boundary(n_N, level)
    settled_N = np.abs(t_of_moments(centre_N, spread_N, skew_N, 0.0)) >= needed_N
    if margin is not None:
        low_N, high_N = (t_of_moments(centre_N, spread_N, skew_N, end) for end in (-margin, margin))
        settled_N |= (low_N >= needed_N) & (-high_N >= needed_N)
    found = n_N[settled_N & (n_N > x_S.size)]
    return int(found[0]) if found.size else None


@lru_cache
def noise(seeds: int) -> tuple[Array, Array, Array]:
    """Returns the moments of HISTORIES histories of standard normal effects, always the same ones."""
    return moments(np.random.default_rng(0).normal(size=(HISTORIES, seeds)))


@lru_cache
def detectable(seeds: int, level: float) -> float:
    """Returns the size, in standard deviations, of the effect found with 80 %; infinite for too few seeds.

    A history shows an effect of a size where that, added to its seeds, lifts the lower bound of some look above 0.
    """
    least_R = np.sort(-bound_of_moments(*noise(seeds), level, side=1).max(axis=-1))
    return float(least_R[int(np.ceil(POWER * HISTORIES)) - 1])
