"""Decides what paired effects over seeds allow to say of many claims at once.

An effect is one number a seed, positive where its claim holds. It is tested against 0 with a two-sided one-sample
t-test; a claim of "no clear difference" also with two one-sided tests against its margin (TOST, p doubled for the
two ways it can end). P-values of all claims together are corrected by Benjamini and Hochberg: of the verdicts that
are not `inconclusive`, at most 5 % are expected to be false; without any effect at all, at most 5 % of reports
hold one. Claims that are settled in batches of seeds, looked at after each, are tested by always-valid p-values
instead (always_valid.py): 1 / evidence, which makes of Benjamini and Hochberg's procedure the e-BH of Wang and
Ramdas (2022), "False discovery rate control with e-values". S seeds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from analysis.claims import always_valid
from analysis.statistics import CONFIDENCE, mean_interval

FALSE_DISCOVERY_RATE, POWER = 0.05, 0.8
MOST_SEEDS = 1000

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN = "supported", "contradicted", "inconclusive", "not run"


@dataclass(frozen=True)
class ClaimVerdict:
    """Holds the verdict on one claim, with its numbers.

    estimate, interval: mean over seeds with its 95 % t-interval, uncorrected. p_value: corrected. detectable: the
    effect that these seeds would have found with 80 % probability; seeds_needed: for the estimate as it stands,
    None above 1000 or where the verdict needs no more; both at the level that the correction left.
    """

    verdict: str
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int = 0
    p_value: float | None = None
    detectable: float | None = None
    seeds_needed: int | None = None


def judge_effects(
    effects: Sequence[npt.ArrayLike | None], margins: Sequence[float | None], settled: Collection[int] = ()
) -> list[ClaimVerdict]:
    """Returns a verdict on each effect (S values; None: not run), in order, with what more seeds would bring.

    settled: places of the claims that are settled in batches, whose seeds are in the order of their looks.
    """
    values = [np.array([]) if effect is None else np.asarray(effect, dtype=float) for effect in effects]
    decided, level = decide(values, margins, settled)
    return [
        (settled_numbers if i in settled else with_numbers)(x_S, *decided[i], level, margins[i])
        for i, x_S in enumerate(values)
    ]


def decide(
    effects: Sequence[npt.NDArray[np.float64]], margins: Sequence[float | None], settled: Collection[int] = ()
) -> tuple[list[tuple[str, float | None]], float]:
    """Returns the verdict on each effect with its corrected p-value, and the level that the correction left.

    Effects of too few seeds (two, or before the first look), or without any spread to judge by, are inconclusive
    and not tested.
    """
    found = single_tests(effects, margins, settled)
    corrected = stats.false_discovery_control([p for _, p in found.values()]) if found else np.array([])
    verdicts: list[tuple[str, float | None]] = [(INCONCLUSIVE if x_S.size else NOT_RUN, None) for x_S in effects]
    for (i, (claimed, _)), p in zip(found.items(), corrected, strict=True):
        verdicts[i] = (claimed if p <= FALSE_DISCOVERY_RATE else INCONCLUSIVE, float(p))
    rejected = int((corrected <= FALSE_DISCOVERY_RATE).sum())
    return verdicts, FALSE_DISCOVERY_RATE * max(1, rejected) / max(1, len(found))


def single_tests(
    effects: Sequence[npt.NDArray[np.float64]], margins: Sequence[float | None], settled: Collection[int] = ()
) -> dict[int, tuple[str, float]]:
    """Returns what each effect that can be tested would say were it significant, and its p-value, by its place."""
    return {
        i: (settled_direction if i in settled else direction)(x_S, margins[i])
        for i, x_S in enumerate(effects)
        if x_S.size >= (always_valid.FIRST_LOOK if i in settled else 2) and np.ptp(x_S) > 0
    }


def bar_of(place: int, tests: dict[int, tuple[str, float]]) -> float:
    """Returns the largest p-value at which the claim at `place` would get a verdict beside the others' tests."""
    others = np.array([p for i, (_, p) in tests.items() if i != place])
    levels = FALSE_DISCOVERY_RATE * np.arange(1, len(others) + 2) / (len(others) + 1)
    enough = [(others <= level).sum() + 1 >= k for k, level in enumerate(levels, start=1)]
    return float(levels[np.flatnonzero(enough)[-1]])


def settled_direction(x_S: npt.NDArray[np.float64], margin: float | None) -> tuple[str, float]:
    """Returns the same as `direction` of seeds that were looked at after every batch.

    The p-value isn't doubled for the two ways that a claim with a margin can end, because both are read off one
    confidence sequence, which is wrong about the true mean with at most its level.
    """
    p_difference, side = always_valid.p_different(x_S)
    if margin is None:
        return (SUPPORTED if side > 0 else CONTRADICTED), p_difference
    p_equality = always_valid.p_equal(x_S, margin)
    return (SUPPORTED if p_equality <= p_difference else CONTRADICTED), min(p_equality, p_difference)


def settled_numbers(
    x_S: npt.NDArray[np.float64], verdict: str, p_value: float | None, level: float, margin: float | None
) -> ClaimVerdict:
    """Returns the same as `with_numbers` of seeds that were looked at after every batch."""
    if p_value is None:
        return with_numbers(x_S, verdict, p_value, level, margin)
    spread = float(x_S.std(ddof=1))
    low, high = always_valid.interval(x_S, 1 - CONFIDENCE)
    needed = always_valid.seeds_in_all(float(x_S.mean()), spread, margin, level)
    found = always_valid.detectable(x_S.size, level) * spread
    return ClaimVerdict(
        verdict,
        float(x_S.mean()),
        (low, high) if np.isfinite([low, high]).all() else None,
        x_S.size,
        p_value,
        found if np.isfinite(found) else None,
        needed if verdict == INCONCLUSIVE else None,
    )


def direction(x_S: npt.NDArray[np.float64], margin: float | None) -> tuple[str, float]:
    """Returns what the effect would say were it significant, and its p-value."""
    p_difference = float(stats.ttest_1samp(x_S, 0.0).pvalue)
    if margin is None:
        return (SUPPORTED if x_S.mean() > 0 else CONTRADICTED), p_difference
    p_equal = max(
        float(stats.ttest_1samp(x_S, -margin, alternative="greater").pvalue),
        float(stats.ttest_1samp(x_S, margin, alternative="less").pvalue),
    )
    said = SUPPORTED if p_equal <= p_difference else CONTRADICTED
    return said, min(1.0, 2 * min(p_equal, p_difference))


def with_numbers(
    x_S: npt.NDArray[np.float64], verdict: str, p_value: float | None, level: float, margin: float | None = None
) -> ClaimVerdict:
    """Returns a verdict with its numbers; without a test there is only an estimate."""
    if verdict == NOT_RUN:
        return ClaimVerdict(NOT_RUN)
    mean, half_width, seeds = mean_interval(x_S)
    if p_value is None:
        return ClaimVerdict(verdict, mean, None, seeds)
    spread = float(x_S.std(ddof=1))
    needed = seeds_needed(abs(mean) / spread, level) if verdict == INCONCLUSIVE else None
    interval = (float(mean - half_width), float(mean + half_width))
    return ClaimVerdict(verdict, mean, interval, seeds, p_value, detectable(seeds, level) * spread, needed)


def power(seeds: int, size: float, level: float) -> float:
    """Returns the probability that a two-sided t-test at `level` finds an effect of `size` standard deviations.

    It is a mean over 2,000 equally likely values of the estimated standard deviation, because scipy's noncentral
    t is NaN for the large shifts that few seeds need.
    """
    bar, shift = stats.t.isf(level / 2, seeds - 1) * estimated_spreads(seeds), size * np.sqrt(seeds)
    return float((special.ndtr(shift - bar) + special.ndtr(-bar - shift)).mean())


@lru_cache(maxsize=MOST_SEEDS)
def estimated_spreads(seeds: int) -> npt.NDArray[np.float64]:
    """Returns 2,000 equally likely values of the standard deviation that `seeds` values of spread 1 show."""
    chances = (np.arange(2000) + 0.5) / 2000
    return np.sqrt(stats.chi2.ppf(chances, seeds - 1) / (seeds - 1))


@lru_cache
def detectable(seeds: int, level: float) -> float:
    """Returns the size, in standard deviations, of the effect that these seeds find with a probability of 80 %."""
    top = 1.0
    while power(seeds, top, level) < POWER:
        top *= 2
    return float(optimize.brentq(lambda size: power(seeds, size, level) - POWER, 0.0, top))


def seeds_needed(size: float, level: float) -> int | None:
    """Returns the fewest seeds that find an effect of `size` standard deviations with 80 %; None above 1000."""
    if power(MOST_SEEDS, size, level) < POWER:
        return None
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, size, level) >= POWER else (middle + 1, high)
    return low
