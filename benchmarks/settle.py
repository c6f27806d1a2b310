"""How often settling a claim gives a false verdict, how often a true one, and after how many seeds.

    python benchmarks/settle.py [--histories 2000] [--seeds 30] [--level 0.05]

A history is a claim that is looked at after every seed, from the seventh on, until it has a verdict or the seeds
are spent. Effects are in standard deviations of one seed's difference: none, as large as the margin (1; the worse
of both signs is printed), and what the report calls detectable with as many seeds. Paired differences are normal,
skewed, or those of two arms' bounded scores. For comparison: batches after a t-test of five seeds, as a report has
made of kept results, so that a claim without effect has two chances; the t-test that is made anew at every look;
and the one t-test after all seeds.
"""

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.claims.always_valid import FIRST_LOOK, detectable, log_evidence, t_values
from analysis.claims.multiple_testing import INCONCLUSIVE, SeedEffects, decide

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...], float], Array]
MARGIN = 1.0
CLAIMS = 20
REPORTED = 5  # seeds of a sweep that a report judges before anybody settles its claims


def normal(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Array:
    """Draws normal differences of spread 1 and mean `size`."""
    return rng.normal(size, 1.0, shape)


def exponential(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Array:
    """Draws exponential differences of spread 1: skewness 2."""
    return rng.exponential(size=shape) - 1 + size


def lognormal(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Array:
    """Draws log-normal differences of spread 1, sigma 0.5: skewness 1.75."""
    spread = np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))
    return (rng.lognormal(0.0, 0.5, shape) - np.exp(0.125)) / spread + size


def two_exponentials(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Array:
    """Draws differences of two skewed arms, one twice as noisy as the other."""
    return (rng.exponential(size=shape) - 1 - (rng.exponential(size=shape) - 1) / 2) / np.sqrt(1.25) + size


def bounded(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Array:
    """Draws differences of two arms' scores, beta with means 0.8 +- half the effect, in units of spread."""
    total = 10.0
    unit = np.sqrt(2 * 0.8 * 0.2 / (total + 1))
    high, low = 0.8 + size * unit / 2, 0.8 - size * unit / 2
    a, b = (rng.beta(total * mean, total * (1 - mean), shape) for mean in (high, low))
    return (a - b) / unit


def collapsing(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Array:
    """Draws differences of bounded scores where one arm collapses in three seeds of ten and else gains."""
    fall = (rng.random(shape) < 0.3) * rng.uniform(0, 0.75, shape)
    x = 0.1125 - fall + 0.075 * rng.normal(size=shape)
    return x / np.sqrt(0.3 * 0.75**2 / 3 - 0.1125**2 + 0.075**2) + size


DRAWS: dict[str, Draw] = {
    "normal": normal,
    "exponential (skewness 2)": exponential,
    "log-normal (skewness 1.75)": lognormal,
    "two exponential arms": two_exponentials,
    "two beta arms, in [0, 1]": bounded,
    "one arm collapses in 3 seeds of 10": collapsing,
}


def first_passing(log_e_RN: Array, level: float) -> npt.NDArray[np.int64]:
    """Returns the seeds after which each history's evidence passes 1 / level; a large number for never."""
    passed_RN = log_e_RN >= -np.log(level)
    return np.where(passed_RN.any(axis=1), passed_RN.argmax(axis=1) + 1, 10**6)


def settle(x_RN: Array, level: float, margin: float | None) -> tuple[Array, Array]:
    """Returns each history's verdict (1 above 0, -1 below 0, 2 equal within the margin, 0 none) and its seeds."""
    t_RN = t_values(x_RN, 0.0)
    ends = {
        1: np.where(t_RN > 0, log_evidence(t_RN), -np.inf),
        -1: np.where(t_RN < 0, log_evidence(t_RN), -np.inf),
    }
    if margin is not None:
        low, high = t_values(x_RN, -margin), t_values(x_RN, margin)
        both = np.minimum(log_evidence(low), log_evidence(high))
        ends = {2: np.where((low > 0) & (high < 0), both, -np.inf), **ends}
    when = np.array([first_passing(one, level) for one in ends.values()])
    verdict = np.where(when.min(axis=0) < 10**6, np.array([*ends])[when.argmin(axis=0)], 0)
    return verdict, np.minimum(when.min(axis=0), x_RN.shape[1])


def naive(x_RN: Array, level: float) -> tuple[float, float]:
    """Returns how often a t-test finds anything: at any look from the first on, and after all seeds."""
    looks = range(FIRST_LOOK, x_RN.shape[1] + 1)
    found = np.array([stats.ttest_1samp(x_RN[:, :n], 0.0, axis=1).pvalue <= level for n in looks])
    return float(found.any(axis=0).mean()), float(found[-1].mean())


def after_a_report(x_RN: Array, level: float) -> float:
    """Returns how often a t-test of the first seeds finds anything, or batches do where it doesn't."""
    before = stats.ttest_1samp(x_RN[:, :REPORTED], 0.0, axis=1).pvalue <= level
    return float((before | (settle(x_RN, level, None)[0] != 0)).mean())


def percent(values: npt.ArrayLike) -> str:
    """Prints a share in per cent."""
    return f"{100 * float(np.mean(values)):.1f}"


def of_one_claim(histories: int, seeds: int, level: float) -> None:
    """Prints a row for each kind of differences."""
    size = detectable(seeds, level)
    heads = [
        *("differences", "no effect: false", f"after a t-test of {REPORTED} seeds", "t-test at every look: false"),
        "one t-test at the end: false",
        *("effect at the margin: called equal", "no effect, with margin: false", "called equal"),
        *(f"effect {size:.2f}: found", "false", "mean seeds"),
    ]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for place, (name, draw) in enumerate(DRAWS.items()):
        rng, shape = np.random.default_rng(place), (histories, seeds)
        none, real, *at = (draw(rng, shape, mean) for mean in (0.0, size, MARGIN, -MARGIN))
        looked, once = naive(none, level)
        null, equal = settle(none, level, None)[0], settle(none, level, MARGIN)[0]
        found, used = settle(real, level, None)
        cells = [percent(null != 0), f"{100 * after_a_report(none, level):.1f}"]
        cells += [f"{100 * looked:.1f}", f"{100 * once:.1f}"]
        cells += [
            f"{100 * max(np.mean(settle(one, level, MARGIN)[0] == 2) for one in at):.1f}",
            percent(abs(equal) == 1),
            percent(equal == 2),
        ]
        cells += [percent(found == 1), percent(found == -1), f"{used.mean():.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def of_reports(reports: int, seeds: int) -> None:
    """Prints how many verdicts of whole reports are false, where no claim or half of them have an effect."""
    size = detectable(seeds, 0.05 / 2)
    heads = [
        *("differences", f"{CLAIMS} claims without effect: reports with a false verdict"),
        *(f"half with an effect of {size:.2f}: share of verdicts that are false", "found"),
    ]
    print("\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for place, (name, draw) in enumerate(DRAWS.items()):
        rng, false, shares, found = np.random.default_rng(100 + place), 0, [], []
        for _ in range(reports):
            none = draw(rng, (CLAIMS, seeds), 0.0)
            real = np.concatenate([none[: CLAIMS // 2], draw(rng, (CLAIMS // 2, seeds), size)])
            nothing = [verdict != INCONCLUSIVE for verdict, _ in verdicts_of(none)]
            said = [verdict != INCONCLUSIVE for verdict, _ in verdicts_of(real)]
            false += any(nothing)
            shares.append(sum(said[: CLAIMS // 2]) / max(1, sum(said)))
            found.append(np.mean(said[CLAIMS // 2 :]))
        print(f"| {name} | {100 * false / reports:.1f} | {percent(shares)} | {percent(found)} |")


def verdicts_of(x_CN: Array) -> list[tuple[str, float | None]]:
    """Returns the report's verdicts on claims that were all settled in batches."""
    return decide([SeedEffects(x_N, in_batches=True) for x_N in x_CN])[0]


def main() -> None:
    """Prints both tables, in per cent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--level", type=float, default=0.05)
    arguments = parser.parse_args()
    of_one_claim(arguments.histories, arguments.seeds, arguments.level)
    of_reports(arguments.histories, arguments.seeds)


if __name__ == "__main__":
    main()
