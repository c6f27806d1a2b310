"""Works out effects: one number a seed from a kept sweep, which a claim is judged on.

A measure turns one run into a number; an effect is the difference of a measure between arms, paired within seed
and within whatever else the sweep varies. Positive means what the claim says.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from analysis.arms import as_words
from analysis.sweeps.kept import KeptSweep

K = TypeVar("K")  # what groups are named by
Run = Mapping[str, Any]
Measure = Callable[[Run], float | None]
Arms = Mapping[str, Sequence[str]]  # swept key -> its values, as typed


def final_score(run: Run) -> float | None:
    """Returns avg@n after the last step, mean over the run's benchmarks."""
    return mean([found[max(found, key=int)] for found in run["scores"].values()])


def mean_of(runs: Iterable[Run], measure: Measure, arms: Arms) -> float | None:
    """Returns a measure's mean over the runs of some arms; None where none of them has it."""
    chosen = [run for run in runs if all(as_words(run["arm"].get(key)) in words for key, words in arms.items())]
    return mean([value for run in chosen if (value := measure(run)) is not None])


def final_scores_S(kept: KeptSweep, arm: Mapping[str, object], benchmark: str) -> np.ndarray:
    """Returns the final avg@n of an arm on a benchmark, one value a seed; empty where its runs don't have it."""
    found = [
        run["scores"][benchmark][max(run["scores"][benchmark], key=int)]
        for run in kept.runs
        if benchmark in run["scores"] and all(run["arm"].get(key) == value for key, value in arm.items())
    ]
    return np.array(found, dtype=float)


def learning_score(run: Run) -> float | None:
    """Returns avg@n averaged over all evaluations after the first, which is higher for a faster rise."""
    return mean([score for found in run["scores"].values() for step, score in found.items() if int(step) > 0])


def area_score(run: Run) -> float | None:
    """Returns the area under avg@n over steps, as a mean height; None of runs not evaluated in between."""
    areas = []
    for found in run["scores"].values():
        steps = sorted(map(int, found))
        if len(steps) < 3:
            return None
        areas.append(np.trapezoid([found[str(step)] for step in steps], steps) / (steps[-1] - steps[0]))
    return mean(areas)


def late(name: str) -> Measure:
    """Returns the measure: mean of a metric over the last quarter of the steps, at least the last one."""
    return lambda run: mean(last_quarter(values_of(run, name)))


def whole(name: str) -> Measure:
    """Returns the measure: mean of a metric over all steps."""
    return lambda run: mean(values_of(run, name))


def rise(name: str) -> Measure:
    """Returns the measure: a metric's last quarter less its first one."""

    def measure(run: Run) -> float | None:
        values = values_of(run, name)
        first = values[: len(last_quarter(values))]
        return mean(last_quarter(values)) - mean(first) if values else None  # type: ignore[operator]

    return measure


def roughness(name: str) -> Measure:
    """Returns the measure: mean absolute change of a metric from step to step."""
    return lambda run: mean([abs(after - before) for before, after in pairwise(values_of(run, name))])


def calm(name: str, bound: float) -> Measure:
    """Returns the measure: `bound` less a metric's largest value / its median; positive if no step stands out."""

    def measure(run: Run) -> float | None:
        values = values_of(run, name)
        return bound - max(values) / float(np.median(values)) if values and np.median(values) > 0 else None

    return measure


def difference_of(first: Measure, second: Measure) -> Measure:
    """Returns the measure: one measure less another, of the same run."""

    def measure(run: Run) -> float | None:
        a, b = first(run), second(run)
        return None if a is None or b is None else a - b

    return measure


class Measured(NamedTuple):
    """Holds a run's measure, None where it has none, with its arm's values as typed."""

    seed: int
    arm: Mapping[str, str]
    value: float | None


def between(kept: KeptSweep, measure: Measure, plus: Arms, minus: Arms) -> pd.Series:
    """Returns the measure on arms of `plus` less that on arms of `minus`, one value a seed.

    Where the sweep varies other keys too, the difference is taken within each of their values and averaged. A seed
    that lacks an arm is left out: it would compare other things than the rest. No value where no run has one of
    the named values.
    """
    runs = measured(kept, measure)
    if not (has_all(runs, plus) and has_all(runs, minus)):
        return pd.Series(dtype=float)
    others = [key for key in arm_keys(kept) if key not in {*plus, *minus}]
    more, less = (complete_means([run for run in runs if matches(run, arms)], others) for arms in (plus, minus))
    return per_seed([(place[0], more[place] - less[place]) for place in more if place in less])


def on_all_arms(kept: KeptSweep, measure: Measure, arms: Arms | None = None) -> pd.Series:
    """Returns the measure itself, averaged over the arms, one value a seed; none where a named arm has no run."""
    runs = measured(kept, measure)
    if not has_all(runs, arms or {}):
        return pd.Series(dtype=float)
    return per_seed([(run.seed, run.value) for run in runs if matches(run, arms or {}) and run.value is not None])


def in_every_arm(kept: KeptSweep, measure: Measure, arms: Arms) -> pd.Series:
    """Returns the measure on that of the named arms where it is lowest, one value a seed that has all of them."""
    sides = [on_all_arms(kept, measure, {key: [value]}) for key, values in arms.items() for value in values]
    return pd.concat(sides, axis=1).dropna().min(axis=1)


def measured(kept: KeptSweep, measure: Measure) -> list[Measured]:
    """Measures each run."""
    found = []
    for run in kept.runs:
        value = measure(run)
        arm = {key: as_words(value) for key, value in run["arm"].items()}
        found.append(Measured(run["seed"], arm, None if value is None or math.isnan(value) else value))
    return found


def arm_keys(kept: KeptSweep) -> list[str]:
    """Returns the keys that the sweep varies beside the seed."""
    return [*dict.fromkeys(key for run in kept.runs for key in run["arm"])]


def swept_keys(kept: KeptSweep) -> list[str]:
    """Returns the keys of which the sweep's arms have several values."""
    return [key for key in arm_keys(kept) if len({as_words(run["arm"].get(key)) for run in kept.runs}) > 1]


def matches(run: Measured, arms: Arms) -> bool:
    """Tells whether a run's arm is one of those named. A key that it doesn't have matches nothing."""
    return all(run.arm.get(key) in values for key, values in arms.items())


def has_all(runs: Sequence[Measured], arms: Arms) -> bool:
    """Tells whether each of the named values has a run."""
    return all({*values} <= {run.arm.get(key) for run in runs} for key, values in arms.items())


def complete_means(runs: Iterable[Measured], keys: Sequence[str]) -> dict[tuple[Any, ...], float]:
    """Returns mean values by seed and `keys`, without groups that lack an arm which others have, or a value."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for run in runs:
        if run.value is not None and run.arm.keys() >= {*keys}:
            groups.setdefault((run.seed, *(run.arm[key] for key in keys)), []).append(run.value)
    return means_of_the_largest(groups)


def per_seed(values: Iterable[tuple[int, float]]) -> pd.Series:
    """Returns the mean over everything but the seed, of the seeds that have all of it."""
    groups: dict[int, list[float]] = {}
    for seed, value in values:
        groups.setdefault(seed, []).append(value)
    means = means_of_the_largest(groups)
    seeds = sorted(means)
    return pd.Series([means[seed] for seed in seeds], pd.Index(seeds, name="seed", dtype=int), dtype=float)


def means_of_the_largest(groups: Mapping[K, Sequence[float]]) -> dict[K, float]:
    """Returns the mean of each group that has as many values as any."""
    most = max(map(len, groups.values()), default=0)
    return {name: math.fsum(values) / most for name, values in groups.items() if len(values) == most}


def values_of(run: Run, name: str) -> list[float]:
    """Returns a kept metric's values over steps, without those steps that have none."""
    return [value for value in run["curves"].get(name, []) if value is not None and math.isfinite(value)]


def last_quarter(values: Sequence[float]) -> Sequence[float]:
    """Returns the last quarter of values over steps, at least one where there is any."""
    return values[-max(1, len(values) // 4) :]


def mean(values: Sequence[float]) -> float | None:
    """Returns the mean, None for no values."""
    return float(np.mean(values)) if len(values) else None
