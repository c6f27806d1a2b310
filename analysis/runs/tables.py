"""Computes and prints two tables of the runs at hand: final scores of arms, and paired differences between them.

`final_scores` and `arm_differences` compute frames, which the report writes as CSV; `final_scores_table` and
`arm_differences_table` turn a frame into cells. Tables of sweeps, which may vary more than the clip method, are
in analysis/sweeps/tables.py.
"""

from itertools import combinations

import pandas as pd

from analysis.arms import arm_order
from analysis.draw.cells import interval_cell, one_seed_note
from analysis.draw.table import MINUS, Table
from analysis.statistics import Interval, mean_interval, paired_difference


def final_scores(scores: pd.DataFrame, runs: pd.DataFrame, last: int) -> pd.DataFrame:
    """Computes avg@n of each arm and benchmark at the SFT checkpoint (step 0), at step `last`, and the gain.

    scores: `statistics.scores` of the runs. Columns arm, method, benchmark, prompts, samples, step, seeds,
    then mean and half_width of sft, final and gain (gain: within each seed, so its interval is a paired one).
    """
    numbers = [f"{name}_{part}" for name in ("sft", "final", "gain") for part in ("mean", "half_width")]
    rows = []
    for benchmark in sorted(scores["benchmark"].unique()):
        own = scores[scores["benchmark"] == benchmark]
        for method, arm in ordered_arms(runs):
            sft_S, final_S = (_by_seed(own, runs, arm, step) for step in (0, last))
            sft, final = mean_interval(sft_S), mean_interval(final_S)
            gain = paired_difference(final_S, sft_S)
            row = {"arm": arm, "method": method, "benchmark": benchmark}
            row |= {
                "prompts": own["prompts"].max(),
                "samples": own["samples"].max(),
                "step": last,
                "seeds": final.seeds,
            }
            for name, interval in (("sft", sft), ("final", final), ("gain", gain)):
                row |= {f"{name}_mean": interval.mean, f"{name}_half_width": interval.half_width}
            rows.append(row)
    columns = ["arm", "method", "benchmark", "prompts", "samples", "step", "seeds", *numbers]
    return pd.DataFrame(rows, columns=columns)


def arm_differences(scores: pd.DataFrame, runs: pd.DataFrame, last: int) -> pd.DataFrame:
    """Computes the paired difference of avg@n at step `last`, `arm` minus `minus`, by benchmark and pair of arms.

    Columns benchmark, samples, step, arm, minus, difference, half_width, low, high, seeds (those that both
    arms have).
    """
    columns = [
        *("benchmark", "samples", "step", "arm", "minus"),
        *("difference", "half_width", "low", "high", "seeds"),
    ]
    rows = []
    for benchmark in sorted(scores["benchmark"].unique()):
        own = scores[scores["benchmark"] == benchmark]
        for (_, earlier), (_, later) in combinations(ordered_arms(runs), 2):
            gap = paired_difference(_by_seed(own, runs, later, last), _by_seed(own, runs, earlier, last))
            ends = (gap.mean - gap.half_width, gap.mean + gap.half_width)
            rows.append((benchmark, own["samples"].max(), last, later, earlier, *gap[:2], *ends, gap.seeds))
    return pd.DataFrame(rows, columns=columns)


def final_scores_table(final: pd.DataFrame) -> Table:
    """Prints `final_scores`: a row for each arm, three columns for each benchmark."""
    header = [("", "Arm"), ("", "Seeds")]
    rows: dict[str, list[str]] = {}
    for row in final.to_dict("records"):
        group = f"{row['benchmark']} (avg@{row['samples']})"
        columns = [(group, "SFT"), (group, f"step {row['step']}"), (group, "gain")]
        header += [column for column in columns if column not in header]
        cells = rows.setdefault(row["arm"], [row["arm"], str(row["seeds"])])
        for name in ("sft", "final", "gain"):
            interval = Interval(row[f"{name}_mean"], row[f"{name}_half_width"], row["seeds"])
            cells.append(interval_cell(interval, signed=name == "gain"))
    caption = "Final scores: share of correct responses, mean over seeds ± half-width of the 95 % t-interval."
    caption += one_seed_note(final["seeds"])
    return Table("final_scores", caption, header, list(rows.values()))


def arm_differences_table(gaps: pd.DataFrame) -> Table:
    """Prints `arm_differences`, with what may be read from each row and no more."""
    rows = []
    for row in gaps.to_dict("records"):
        interval = Interval(row["difference"], row["half_width"], row["seeds"])
        benchmark = f"{row['benchmark']} (avg@{row['samples']})"
        pair = f"{row['arm']} {MINUS} {row['minus']}"
        rows.append([benchmark, pair, interval_cell(interval, signed=True), str(row["seeds"]), reading(interval)])
    step = f" at step {gaps['step'].iloc[0]}" if len(gaps) else ""
    caption = (
        f"Paired differences over seeds{step}, ± half-width of the 95 % t-interval. No verdict from one seed."
    )
    caption += one_seed_note(gaps["seeds"])
    header = [("", name) for name in ("Benchmark", "Difference", "Value", "Seeds", "What it says")]
    return Table("differences", caption, header, rows)


def reading(interval: Interval) -> str:
    """Says in words what an interval of a difference allows to say."""
    if interval.seeds == 0:
        return "no seed in common"
    if interval.seeds == 1:
        return "1 seed: no interval, no verdict"
    if interval.half_width == 0:
        return (
            "no difference in any seed" if interval.mean == 0 else "the same in every seed: no spread to judge by"
        )
    return "interval excludes 0" if interval.excludes_zero else "interval includes 0"


def ordered_arms(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Returns the (method, arm) pairs of runs in the order in which they are shown everywhere."""
    pairs = set(zip(runs["method"], runs["arm"], strict=True))
    return sorted(pairs, key=lambda pair: arm_order(*pair))


def _by_seed(scores: pd.DataFrame, runs: pd.DataFrame, arm: str, step: int) -> pd.Series:
    own = runs.loc[runs["arm"] == arm, ["run_id", "seed"]]
    joined = scores[scores["step"] == step].merge(own, on="run_id")
    return joined.set_index("seed")["score"].sort_index()
