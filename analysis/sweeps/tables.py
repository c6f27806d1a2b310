"""Our Tables 1 to 6 in the paper's layout, and the tables that every sweep has beside its scores.

Cells are avg@n at the last step, mean and half-width of the 95 % t-interval over seeds. A new table is a function
here and, for one of the paper's, an entry in TABLES.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.arms import describe_arm
from analysis.draw.table import DASH, Table
from analysis.statistics import Interval, mean_interval, paired_difference
from analysis.sweeps.effects import final_score
from analysis.sweeps.kept import KeptSweep, in_order, world_of

STAGES = {
    "base": "Before SFT",
    "sft": "SFT",
    "sft_rl": "SFT and RL",
    "sft_rl_long": "\N{EM SPACE}w/ a longer inference budget",
}
PAIRS = [(d, c) for d in ("easy", "hard", "overall") for c in ("only_true", "mixed")]


def table1(kept: KeptSweep) -> Table:
    """Stages by benchmarks; the best bold, the second underlined."""
    return arms_by_benchmarks(kept, "table1", "recipe", STAGES, second=True)


def table2(kept: KeptSweep) -> Table:
    """Benchmarks by difficulty and correctness; the better of each pair bold."""
    header = [(d.capitalize(), {"only_true": "Only True", "mixed": "Mixed"}[c]) for d, c in PAIRS]
    places = [{"difficulty_filter": d, "correctness": c} for d, c in PAIRS]
    return benchmarks_by_arms(kept, "table2", places, header, group=2)


def table3(kept: KeptSweep) -> Table:
    """Benchmarks by teachers."""
    names = in_order("table3", "teacher", {run["arm"]["teacher"] for run in kept.runs})
    return benchmarks_by_arms(
        kept, "table3", [{"teacher": name} for name in names], [("Teacher", n) for n in names]
    )


def table4(kept: KeptSweep) -> Table:
    """Benchmarks by the best K math sources."""
    return top_sources(kept, "table4")


def table5(kept: KeptSweep) -> Table:
    """Benchmarks by the best K code sources."""
    return top_sources(kept, "table5")


def table6(kept: KeptSweep) -> Table:
    """Weights of the SFT term by benchmarks, below the checkpoint that they start from."""
    values = in_order("table6", "rl.alpha", {run["arm"]["rl.alpha"] for run in kept.runs})
    table = arms_by_benchmarks(kept, "table6", "rl.alpha", {value: f"alpha = {value}" for value in values})
    first = ["Starting Checkpoint"]
    for benchmark in benchmarks_of(kept):
        first.append(interval_cell(mean_interval([run["scores"][benchmark]["0"] for run in kept.runs[:1]])))
    first[1:] = [cell.partition(" ±")[0] for cell in first[1:]]  # one checkpoint for all: no spread
    rows, bold = [first, *table.rows], {(row + 1, column) for row, column in table.bold}
    return Table(table.name, table.caption, table.columns, rows, bold, rules={1})


TABLES: Mapping[str, Callable[[KeptSweep], Table]] = {
    made.__name__: made for made in (table1, table2, table3, table4, table5, table6)
}


def top_sources(kept: KeptSweep, sweep: str) -> Table:
    """Benchmarks by the number of sources."""
    key = "data.top_sources"
    values = in_order(sweep, key, {run["arm"][key] for run in kept.runs})
    return benchmarks_by_arms(kept, sweep, [{key: value} for value in values], [("", f"Top{v}") for v in values])


def benchmarks_by_arms(
    kept: KeptSweep,
    name: str,
    arms: Sequence[Mapping[str, object]],
    header: Sequence[tuple[str, str]],
    group: int = 0,
) -> Table:
    """One row a benchmark, one column an arm; the best of each `group` neighbours (0: of the row) bold."""
    rows, bold = [], set()
    for number, benchmark in enumerate(benchmarks_of(kept)):
        values_A = [final_scores_S(kept, arm, benchmark) for arm in arms]
        rows.append([benchmark, *(interval_cell(mean_interval(x_S)) or DASH for x_S in values_A)])
        size = group or len(arms)
        for start in range(0, len(arms), size):
            bold |= {(number, 1 + place) for place in best(values_A, range(start, start + size))}
    return Table(name, caption(kept, name), [("", "Benchmark"), *header], rows, bold)


def arms_by_benchmarks(
    kept: KeptSweep, name: str, key: str, names: Mapping[object, str] | Mapping[str, str], second: bool = False
) -> Table:
    """One row an arm, one column a benchmark; the best of each column bold, on wish the second underlined."""
    benchmarks = benchmarks_of(kept)
    cells_AB = [[final_scores_S(kept, {key: value}, benchmark) for benchmark in benchmarks] for value in names]
    rows = [
        [label, *(interval_cell(mean_interval(x_S)) or DASH for x_S in row)]
        for label, row in zip(names.values(), cells_AB, strict=True)
    ]
    bold, underlined = set(), set()
    for place in range(len(benchmarks)):
        column = [row[place] for row in cells_AB]
        first = best(column, range(len(column)))
        bold |= {(number, place + 1) for number in first}
        rest = [np.array([]) if number in first else x_S for number, x_S in enumerate(column)]
        underlined |= {(number, place + 1) for number in best(rest, range(len(rest)))} if second else set()
    header = [("", ""), *(("Benchmark", benchmark) for benchmark in benchmarks)]
    return Table(name, caption(kept, name), header, rows, bold, underlined)


def final_scores_S(kept: KeptSweep, arm: Mapping[str, object], benchmark: str) -> np.ndarray:
    """Final avg@n of an arm on a benchmark, one value a seed; empty where its runs don't have it."""
    found = [
        run["scores"][benchmark][max(run["scores"][benchmark], key=int)]
        for run in kept.runs
        if benchmark in run["scores"] and all(run["arm"].get(key) == value for key, value in arm.items())
    ]
    return np.array(found, dtype=float)


def best(values: Sequence[np.ndarray], places: range) -> set[int]:
    """The places of the highest mean, to the digits that are printed."""
    means = {place: round(float(values[place].mean()), 3) for place in places if values[place].size}
    return {place for place, mean in means.items() if mean == max(means.values())}


def benchmarks_of(kept: KeptSweep) -> list[str]:
    """Those that any run has, in order of their names."""
    return sorted({name for run in kept.runs for name in run["scores"]})


def caption(kept: KeptSweep, name: str) -> str:
    """Whose numbers these are, so that nobody takes them for the paper's."""
    seeds = len({run["seed"] for run in kept.runs})
    return (
        f"Our Table {name.removeprefix('table')}, in the paper's layout: {world_of(kept)}, {seeds} seeds; "
        f"avg@{kept.runs[0]['samples']} at the last step, mean ± half-width of the 95 % t-interval."
    )


def arm_table(kept: KeptSweep) -> Table:
    """For each arm the interquartile mean of its final scores and how likely it beats the sweep's first arm.

    Over seeds; a run's score is the mean of its benchmarks. Probability of improvement: the share of pairs of runs
    in which the arm scores higher, ties counted half (Mann and Whitney).
    """
    rows = [{"arm": describe_arm(run["arm"]), "score": final_score(run)} for run in kept.runs]
    frame = pd.DataFrame(rows).dropna()
    order = [row[0] for row in score_table(kept).rows if row[0] in set(frame["arm"])]
    first = frame.loc[frame["arm"] == order[0], "score"].to_numpy()
    cells = []
    for arm in order:
        own = frame.loc[frame["arm"] == arm, "score"].to_numpy()
        better = stats.mannwhitneyu(own, first).statistic / (len(own) * len(first))
        cells.append([arm, f"{stats.trim_mean(own, 0.25):.3f}", DASH if arm == order[0] else f"{better:.2f}"])
    words = (
        "Interquartile mean of the final scores over seeds (mean of the benchmarks), and the probability that a "
        f"run of the arm beats one of {order[0]}. No verdict: see the claims."
    )
    header = [("", name) for name in ("arm", "IQM", f"P(beats {order[0]})")]
    return Table(f"{kept.about['sweep']}_arms", words, header, cells)


def cost_table(kept: KeptSweep) -> Table:
    """What a run of each arm took: time, sampled tokens, and where RL's time went; means over seeds."""
    parts = ("rollout", "reward", "train")
    rows = []
    for arm in (row[0] for row in score_table(kept).rows):
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
    """A metric's sum over steps, mean over runs; 0 where none has it."""
    return float(np.mean([sum(value or 0.0 for value in run["curves"].get(name, [])) for run in runs]))


def score_table(kept: KeptSweep) -> Table:
    """Arms by benchmarks: mean +- half-width of the 95 % t-interval over seeds."""
    frame, sweep = kept.scores(), kept.about["sweep"]
    benchmarks = sorted(frame["benchmark"].unique())
    keys = [*kept.runs[0]["arm"]]
    places = {key: in_order(sweep, key, frame[key].unique()) for key in keys}
    arms = sorted(
        {tuple(row) for row in frame[keys].itertuples(index=False)},
        key=lambda arm: [places[key].index(value) for key, value in zip(keys, arm, strict=True)],
    )
    rows = []
    for arm in arms:
        name = describe_arm(dict(zip(keys, arm, strict=True)))
        own = frame[frame["arm"] == name]
        cells = [mean_interval(own.loc[own["benchmark"] == benchmark, "score"]) for benchmark in benchmarks]
        rows.append([name, str(own["seed"].nunique()), *map(interval_cell, cells)])
    header = [*(("", name) for name in ("arm", "seeds", *benchmarks))]
    samples = kept.runs[0]["samples"]
    caption = f"avg@{samples} at the last step, mean ± half-width of the 95 % t-interval over seeds"
    return Table(f"{sweep}_scores", caption, header, rows)


def difference_table(kept: KeptSweep) -> Table:
    """For each swept key: a value less the one before it, all other keys equal, paired over seeds."""
    frame, sweep = kept.scores(), kept.about["sweep"]
    benchmarks = sorted(frame["benchmark"].unique())
    keys = [key for key in kept.runs[0]["arm"] if key != "data_source"]
    rows = []
    for key in keys:
        others = [other for other in kept.runs[0]["arm"] if other != key]
        for rest, group in frame.groupby(others) if others else [((), frame)]:
            values = in_order(sweep, key, group[key].unique())
            for before, after in pairwise(values):
                cells = [difference(group[group["benchmark"] == name], key, after, before) for name in benchmarks]
                where = describe_arm(dict(zip(others, rest, strict=True)))
                rows.append([f"{key}: {after} less {before}", where, *map(difference_cell, cells)])
    header = [*(("", name) for name in ("difference", "where", *benchmarks))]
    caption = "Paired differences over seeds, 95 % t-interval, not corrected for their number; * excludes 0"
    return Table(f"{sweep}_differences", caption, header, rows)


def difference(group: pd.DataFrame, key: str, after: Any, before: Any) -> Interval:
    """The paired difference of two values of a key on one benchmark."""
    a_S, b_S = (group[group[key] == value].set_index("seed")["score"] for value in (after, before))
    return paired_difference(a_S, b_S)


def interval_cell(interval: Interval) -> str:
    """An interval, empty where there is none."""
    return f"{interval.mean:.3f} ± {interval.half_width:.3f}" if interval.seeds else ""


def difference_cell(interval: Interval) -> str:
    """A difference, with a star where its interval excludes 0."""
    if not interval.seeds:
        return ""
    star = " *" if abs(interval.mean) > interval.half_width else ""
    return f"{interval.mean:+.3f} ± {interval.half_width:.3f}{star}"
