"""Works out effects: one number a seed from a kept sweep, which a claim is judged on.

A measure turns one run into a number; an effect is the difference of a measure between arms, paired within seed
and within whatever else the sweep varies. Positive means what the claim says.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.arms import as_words
from analysis.sweeps.kept import KeptSweep

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


def between(kept: KeptSweep, measure: Measure, plus: Arms, minus: Arms) -> pd.Series:
    """Returns the measure on arms of `plus` less that on arms of `minus`, one value a seed.

    Where the sweep varies other keys too, the difference is taken within each of their values and averaged. A seed
    that lacks an arm is left out: it would compare other things than the rest. No value where no run has one of
    the named values.
    """
    frame = measured(kept, measure)
    if not (has_all(frame, plus) and has_all(frame, minus)):
        return pd.Series(dtype=float)
    compared = {*plus, *minus}
    keys = ["seed", *(key for key in arm_keys(kept) if key not in compared)]
    sides = [complete_means(frame[matches(frame, arms)], keys) for arms in (plus, minus)]
    return per_seed(sides[0] - sides[1])


def on_all_arms(kept: KeptSweep, measure: Measure, arms: Arms | None = None) -> pd.Series:
    """Returns the measure itself, averaged over the arms, one value a seed; none where a named arm has no run."""
    frame = measured(kept, measure)
    if not has_all(frame, arms or {}):
        return pd.Series(dtype=float)
    chosen = frame[matches(frame, arms or {})]
    return per_seed(chosen.set_index(["seed", *arm_keys(kept)])["value"])


def in_every_arm(kept: KeptSweep, measure: Measure, arms: Arms) -> pd.Series:
    """Returns the measure on that of the named arms where it is lowest, one value a seed that has all of them."""
    sides = [on_all_arms(kept, measure, {key: [value]}) for key, values in arms.items() for value in values]
    return pd.concat(sides, axis=1).dropna().min(axis=1)


def measured(kept: KeptSweep, measure: Measure) -> pd.DataFrame:
    """Measures each run. Columns: seed, the arm's keys as typed, value (NaN where there is none)."""
    rows = []
    for run in kept.runs:
        value = measure(run)
        arm = {key: as_words(value) for key, value in run["arm"].items()}
        rows.append({"seed": run["seed"], **arm, "value": np.nan if value is None else value})
    return pd.DataFrame(rows)


def arm_keys(kept: KeptSweep) -> list[str]:
    """Returns the keys that the sweep varies beside the seed."""
    return [*dict.fromkeys(key for run in kept.runs for key in run["arm"])]


def swept_keys(kept: KeptSweep) -> list[str]:
    """Returns the keys of which the sweep's arms have several values."""
    return [key for key in arm_keys(kept) if len({as_words(run["arm"].get(key)) for run in kept.runs}) > 1]


def matches(frame: pd.DataFrame, arms: Arms) -> pd.Series:
    """Tells which rows' arm is one of those named. A key that the sweep doesn't vary matches nothing."""
    chosen = pd.Series(True, index=frame.index)
    for key, values in arms.items():
        chosen &= frame[key].isin(values) if key in frame else False
    return chosen


def has_all(frame: pd.DataFrame, arms: Arms) -> bool:
    """Tells whether each of the named values has a run."""
    return all(key in frame and {*values} <= {*frame[key]} for key, values in arms.items())


def complete_means(frame: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Returns mean values by `keys`, without groups that lack an arm which others have, or a value."""
    groups = frame.groupby(keys)["value"]
    counts = groups.count()
    return groups.mean()[counts == counts.max()]


def per_seed(values: pd.Series) -> pd.Series:
    """Returns the mean over everything but the seed, of the seeds that have all of it."""
    groups = values.dropna().groupby("seed")
    counts = groups.count()
    return groups.mean()[counts == counts.max()]


def values_of(run: Run, name: str) -> list[float]:
    """Returns a kept metric's values over steps, without those steps that have none."""
    return [value for value in run["curves"].get(name, []) if value is not None and math.isfinite(value)]


def last_quarter(values: Sequence[float]) -> Sequence[float]:
    """Returns the last quarter of values over steps, at least one where there is any."""
    return values[-max(1, len(values) // 4) :]


def mean(values: Sequence[float]) -> float | None:
    """Returns the mean, None for no values."""
    return float(np.mean(values)) if len(values) else None
