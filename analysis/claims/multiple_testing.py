"""Decides what paired effects over seeds allow to say of many claims at once.

An effect is one number a seed, positive where its claim holds. It is tested against 0 with a two-sided t-test
and, where it has a margin below which arms count as equal, with two one-sided t-tests against that (TOST).
The p-value of equality is doubled: at the margin both "equal" and the wrong sign are false, and share the level.
Of fewer than seven seeds nothing is equal: arms that fall in one seed of five look alike in the other four.
P-values of all claims together are corrected by Benjamini and Hochberg: of the verdicts that are not
`inconclusive`, at most 5 % are expected to be false; without any effect at all, at most 5 % of reports hold one.
That holds for normal effects whose tests are independent or positively dependent, as those of claims that share an
arm mostly are. docs/analysis.md has what simulations make of other effects.

Claims whose seeds came in batches, looked at after each, are tested by always-valid p-values instead
(always_valid.py). S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy

from analysis.claims import always_valid
from analysis.statistics import CONFIDENCE, has_spread, mean_interval

K = TypeVar("K")  # what claims are named by

FALSE_DISCOVERY_RATE, POWER = 0.05, 0.8

SUPPORTED, CONTRADICTED, EQUAL, INCONCLUSIVE, NOT_RUN = (
    *("supported", "contradicted", "equal", "inconclusive"),
    "not run",
)
VERDICTS = (SUPPORTED, CONTRADICTED, EQUAL, INCONCLUSIVE, NOT_RUN)


@dataclass(frozen=True)
class SeedEffects:
    """Holds the effect of one claim, and how it is tested.

    x_S: a value for each seed, in the order of looks; none where it wasn't run. margin: a mean closer to 0 counts
    as none; None where nothing does. of_equality: the claim itself is that there is no difference. in_batches: the
    seeds came in batches that were looked at.
    """

    x_S: npt.NDArray[np.float64]
    margin: float | None = None
    of_equality: bool = False
    in_batches: bool = False

    @property
    def testable(self) -> bool:
        """Tells whether there are enough seeds, and spread to judge them by."""
        enough = self.x_S.size >= (always_valid.FIRST_LOOK if self.in_batches else 2)
        return enough and has_spread(self.x_S)


@dataclass(frozen=True)
class ClaimVerdict:
    """Holds the verdict on one claim, with its numbers.

    estimate, interval: mean over seeds with its 95 % interval, uncorrected; of seeds in batches the interval that
    holds at every look. p_value: corrected. detectable: the effect that these seeds would have found with 80 %
    probability. seeds_needed: after which batches of seeds settle an inconclusive claim, if mean and spread stay
    as they are, and so do the other claims; None above 1000. detectable is at the level that the correction left,
    seeds_needed at the one that this claim has to pass (`bar_of`).
    """

    verdict: str
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int = 0
    p_value: float | None = None
    detectable: float | None = None
    seeds_needed: int | None = None


def judge_effects(effects: Sequence[SeedEffects]) -> list[ClaimVerdict]:
    """Returns a verdict on each effect, in order, with what more seeds would bring."""
    tests = single_tests(dict(enumerate(effects)))
    decided, level = corrected_verdicts(effects, tests)
    return [
        with_numbers(effect, *found, level, bar_of(i, tests))
        for i, (effect, found) in enumerate(zip(effects, decided, strict=True))
    ]


def decide(effects: Sequence[SeedEffects]) -> tuple[list[tuple[str, float | None]], float]:
    """Returns the verdict on each effect with its corrected p-value, and the level that the correction left.

    Effects of too few seeds (two, or before the first look), or without any spread to judge by, are inconclusive
    and not tested.
    """
    return corrected_verdicts(effects, single_tests(dict(enumerate(effects))))


def corrected_verdicts(
    effects: Sequence[SeedEffects], found: Mapping[int, tuple[str, float]]
) -> tuple[list[tuple[str, float | None]], float]:
    """Does the work of `decide`; found: the `single_tests` of the effects by their places."""
    corrected = scipy.stats.false_discovery_control([p for _, p in found.values()]) if found else np.array([])
    verdicts: list[tuple[str, float | None]] = [(INCONCLUSIVE if e.x_S.size else NOT_RUN, None) for e in effects]
    for (i, (said, _)), p in zip(found.items(), corrected, strict=True):
        verdicts[i] = (said if p <= FALSE_DISCOVERY_RATE else INCONCLUSIVE, float(p))
    rejected = int((corrected <= FALSE_DISCOVERY_RATE).sum())
    return verdicts, FALSE_DISCOVERY_RATE * max(1, rejected) / max(1, len(found))


def single_tests(effects: Mapping[K, SeedEffects]) -> dict[K, tuple[str, float]]:
    """Returns what each effect that can be tested would say were it significant, and its p-value."""
    return {name: single_test(effect) for name, effect in effects.items() if effect.testable}


def single_test(effect: SeedEffects) -> tuple[str, float]:
    """Returns what an effect would say were it significant, and its p-value."""
    p_difference, side = (always_valid.p_different if effect.in_batches else p_different)(effect.x_S)
    different = SUPPORTED if side > 0 and not effect.of_equality else CONTRADICTED
    if effect.margin is None or effect.x_S.size < always_valid.FIRST_LOOK:
        return different, p_difference
    # Not doubled in batches: all is read off one confidence sequence, which is wrong about the true mean with at
    # most its level.
    p_equality = (always_valid.p_equal if effect.in_batches else p_equal)(effect.x_S, effect.margin)
    if p_equality > p_difference:
        return different, p_difference
    return SUPPORTED if effect.of_equality else EQUAL, p_equality


def p_different(x_S: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the p-value of "the mean is 0", two-sided, and the side that the seeds lie on."""
    return float(scipy.stats.ttest_1samp(x_S, 0.0).pvalue), float(np.sign(x_S.mean()))


def p_equal(x_S: npt.NDArray[np.float64], margin: float) -> float:
    """Returns the p-value of "the mean is not within the margin", doubled (see the module)."""
    sides = (("greater", -1), ("less", 1))
    tests = [scipy.stats.ttest_1samp(x_S, sign * margin, alternative=side) for side, sign in sides]
    return min(1.0, 2 * max(float(test.pvalue) for test in tests))


def bar_of(claim: K, tests: Mapping[K, tuple[str, float]]) -> float:
    """Returns the largest p-value at which a claim would get a verdict beside the others' tests."""
    others = np.array([p for name, (_, p) in tests.items() if name != claim])
    levels = FALSE_DISCOVERY_RATE * np.arange(1, len(others) + 2) / (len(others) + 1)
    enough = [(others <= level).sum() + 1 >= k for k, level in enumerate(levels, start=1)]
    return float(levels[np.flatnonzero(enough)[-1]])


def with_numbers(
    effect: SeedEffects, verdict: str, p_value: float | None, level: float, bar: float
) -> ClaimVerdict:
    """Returns a verdict with its numbers; without a test there is only an estimate.

    level: that the correction left. bar: the p-value at which this effect would get a verdict.
    """
    x_S = effect.x_S
    if verdict == NOT_RUN:
        return ClaimVerdict(NOT_RUN)
    mean, half_width, seeds = mean_interval(x_S)
    if p_value is None:
        return ClaimVerdict(verdict, mean, None, seeds)
    spread = float(x_S.std(ddof=1))
    needed = always_valid.seeds_in_all(x_S, effect.margin, bar) if verdict == INCONCLUSIVE else None
    low, high = float(mean - half_width), float(mean + half_width)
    if effect.in_batches:
        low, high = always_valid.interval(x_S, 1 - CONFIDENCE)
    found = (always_valid.detectable if effect.in_batches else detectable)(seeds, level) * spread
    return ClaimVerdict(
        verdict,
        mean,
        (low, high) if np.isfinite([low, high]).all() else None,
        seeds,
        p_value,
        found if np.isfinite(found) else None,
        needed,
    )


def power(seeds: int, size: float, level: float) -> float:
    """Returns the probability that a two-sided t-test at `level` finds an effect of `size` standard deviations.

    It is a mean over 2,000 equally likely values of the estimated standard deviation, because scipy's noncentral
    t is NaN for the large shifts that few seeds need.
    """
    bar, shift = scipy.stats.t.isf(level / 2, seeds - 1) * estimated_spreads(seeds), size * np.sqrt(seeds)
    return float((scipy.special.ndtr(shift - bar) + scipy.special.ndtr(-bar - shift)).mean())


@lru_cache(maxsize=1000)
def estimated_spreads(seeds: int) -> npt.NDArray[np.float64]:
    """Returns 2,000 equally likely values of the standard deviation that `seeds` values of spread 1 show."""
    chances = (np.arange(2000) + 0.5) / 2000
    return np.sqrt(scipy.stats.chi2.ppf(chances, seeds - 1) / (seeds - 1))


@lru_cache
def detectable(seeds: int, level: float) -> float:
    """Returns the size, in standard deviations, of the effect that these seeds find with a probability of 80 %."""
    top = 1.0
    while power(seeds, top, level) < POWER:
        top *= 2
    return float(scipy.optimize.brentq(lambda size: power(seeds, size, level) - POWER, 0.0, top))
