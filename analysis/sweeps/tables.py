"""Makes the tables that every sweep has: its scores, differences between neighbouring values, arms and costs.

A new one is a function here and an entry in SWEEP_TABLES of analysis/report/sections.py.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.arms import as_words, describe_arm
from analysis.draw.cells import difference_cell, interval_cell, one_seed_note, range_cell
from analysis.draw.table import DASH, Table
from analysis.statistics import Interval, mean_interval, paired_difference
from analysis.sweeps.aggregate import interquartile_mean, probability_of_improvement
from analysis.sweeps.kept import KeptSweep, in_order


def arm_table(kept: KeptSweep) -> Table:
    """Gives each arm's interquartile mean of final scores, and how likely it beats the sweep's first arm.

    Both are over seeds and benchmarks, as rliable defines them; the second over benchmarks that both arms have. A
    run that lacks a benchmark of its arm is left out.
    """
    name, found = f"{kept.about['sweep']}_arms", scores_by_arm(kept)
    order = [arm for arm in arms_in_order(kept) if arm in found]
    if not order:
        return Table(name, "No benchmark was evaluated.", [("", "arm")], [])
    cells = []
    for arm in order:
        own, first = found[arm], found[order[0]]
        middle, beats = interquartile_mean(own.to_numpy()), DASH
        shared = own.columns.intersection(first.columns)
        if arm != order[0] and len(shared):
            better = probability_of_improvement(own[shared].to_numpy(), first[shared].to_numpy())
            beats = range_cell(better.value, better.interval, 2)
        cells.append([arm, range_cell(middle.value, middle.interval), beats])
    words = (
        "Interquartile mean of the final scores of all seeds and benchmarks, and the probability that a run of "
        f"the arm beats one of {order[0]} on the same benchmark, with 95 % intervals of a stratified bootstrap. "
        "With few seeds these intervals are too narrow. No verdict: see the claims."
    )
    header = [("", name) for name in ("arm", "IQM", f"P(beats {order[0]})")]
    return Table(name, words + one_seed_note(map(len, found.values())), header, cells)


def scores_by_arm(kept: KeptSweep) -> dict[str, pd.DataFrame]:
    """Returns each arm's final scores, seeds by benchmarks, of the runs that have all benchmarks of the arm."""
    tables = {
        str(arm): own.pivot_table(index="seed", columns="benchmark", values="score").dropna()
        for arm, own in kept.scores().groupby("arm")
    }
    return {arm: table for arm, table in tables.items() if len(table)}


def cost_table(kept: KeptSweep) -> Table:
    """Gives what a run of each arm took, mean over seeds: time, sampled tokens, and where RL's time went."""
    parts = ("rollout", "reward", "train")
    rows = []
    for arm in arms_in_order(kept):
        runs = [run for run in kept.runs if describe_arm(run["arm"]) == arm]
        tokens = [run["tokens"] for run in runs if run.get("tokens")]
        spent = [mean_sum(runs, f"time/{part}_s") for part in parts]
        shares = [f"{part / sum(spent):.0%}" if sum(spent) else DASH for part in spent]
        cells = [f"{np.mean([run['seconds'] for run in runs]):.0f}", f"{np.mean(tokens):,.0f}" if tokens else DASH]
        rows.append([arm, *cells, *shares])
    header = [("", "arm"), ("", "seconds"), ("", "tokens sampled"), *(("RL time", part) for part in parts)]
    words = (
        "Cost of one run of each arm, mean over seeds. Seconds: all stages, computed or fetched, on the machine "
        "of the runs, often two at once. Tokens: of RL's rollouts."
    )
    return Table(f"{kept.about['sweep']}_cost", words, header, rows)


def mean_sum(runs: Sequence[Mapping[str, Mapping[str, Sequence[float | None]]]], name: str) -> float:
    """Returns a metric's sum over steps, mean over runs; 0 where none has it."""
    return float(np.mean([sum(value or 0.0 for value in run["curves"].get(name, [])) for run in runs]))


def arms_in_order(kept: KeptSweep, without: str | None = None) -> list[str]:
    """Returns the arms as tables call them, in the order of the values in the sweep's file.

    `without` is a key whose values are left out, so that arms differing in it alone are one.
    """
    keys, sweep = [key for key in kept.runs[0]["arm"] if key != without], kept.about["sweep"]
    places = {key: in_order(sweep, key, {as_words(run["arm"].get(key)) for run in kept.runs}) for key in keys}
    arms = sorted(
        {tuple(as_words(run["arm"].get(key)) for key in keys) for run in kept.runs},
        key=lambda arm: [places[key].index(value) for key, value in zip(keys, arm, strict=True)],
    )
    return [describe_arm(dict(zip(keys, arm, strict=True))) for arm in arms]


def score_table(kept: KeptSweep) -> Table:
    """Sets arms by benchmarks: mean and half-width of the 95 % t-interval over seeds."""
    frame, sweep = kept.scores(), kept.about["sweep"]
    benchmarks = sorted(frame["benchmark"].unique())
    seen: list[int] = []  # the numbers of seeds of all cells
    rows = []
    for name in arms_in_order(kept):
        own = frame[frame["arm"] == name]
        cells = [mean_interval(own.loc[own["benchmark"] == benchmark, "score"]) for benchmark in benchmarks]
        seen += [cell.seeds for cell in cells]
        seeds = {run["seed"] for run in kept.runs if describe_arm(run["arm"]) == name}
        rows.append([name, str(len(seeds)), *map(interval_cell, cells)])
    header = [*(("", name) for name in ("arm", "seeds", *benchmarks))]
    samples = kept.runs[0].get("samples")
    caption = f"avg@{samples} at the last step, mean ± half-width of the 95 % t-interval over seeds"
    caption = f"{caption}.{one_seed_note(seen)}" if benchmarks else "No benchmark was evaluated."
    return Table(f"{sweep}_scores", caption, header, rows)


def swept_differences_table(kept: KeptSweep) -> Table:
    """Gives, for each swept key, a value's score less that of the value before it, paired over seeds."""
    frame, sweep = kept.scores(), kept.about["sweep"]
    benchmarks = sorted(frame["benchmark"].unique())
    keys = [key for key in kept.runs[0]["arm"] if key != "data_source"]
    rows = []
    seen: list[int] = []  # the numbers of seeds of all cells
    for key in keys:
        others = [other for other in kept.runs[0]["arm"] if other != key]
        for rest, group in frame.groupby(others) if others else [((), frame)]:
            values = in_order(sweep, key, group[key].unique())
            for before, after in pairwise(values):
                cells = [
                    swept_difference(group[group["benchmark"] == name], key, after, before) for name in benchmarks
                ]
                seen += [cell.seeds for cell in cells]
                where = describe_arm(dict(zip(others, rest, strict=True)))
                rows.append([f"{key}: {after} less {before}", where, *map(difference_cell, cells)])
    header = [*(("", name) for name in ("difference", "where", *benchmarks))]
    caption = "Paired differences over seeds, 95 % t-interval, not corrected for their number; * excludes 0."
    caption += one_seed_note(seen)
    return Table(f"{sweep}_differences", caption, header, rows)


def swept_difference(group: pd.DataFrame, key: str, after: Any, before: Any) -> Interval:
    """Returns the paired difference of two values of a key on one benchmark."""
    a_S, b_S = (group[group[key] == value].set_index("seed")["score"] for value in (after, before))
    return paired_difference(a_S, b_S)
