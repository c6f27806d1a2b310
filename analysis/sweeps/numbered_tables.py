"""Makes our form of the papers' tables, in their layout.

Cells are avg@n at the last step, mean and half-width of the 95 % t-interval over seeds. A new table is a function
here and an entry in OUR_TABLES.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from analysis.arms import describe_arm, method_label
from analysis.draw.cells import interval_cell, number_cell, one_seed_note
from analysis.draw.table import Table
from analysis.statistics import mean_interval
from analysis.sweeps.effects import final_scores_S, mean
from analysis.sweeps.kept import KeptSweep, benchmarks_of, in_order, seeds_words, world_of

STAGES = {
    "base": "Before SFT",
    "sft": "SFT",
    "sft_rl": "SFT and RL",
    "sft_rl_long": "\N{EM SPACE}w/ a longer inference budget",
}
# The rungs of DAPO's ladder: a file in conf/ladder/ -> its row of the paper's Table 1.
DAPO_RUNGS = {
    "dapo_0_grpo": "Naive GRPO",
    "dapo_1_overlong_filtering": "+ Overlong Filtering",
    "dapo_2_clip_higher": "+ Clip-Higher",
    "dapo_3_soft_overlong_punishment": "+ Soft Overlong Punishment",
    "dapo_4_token_level_loss": "+ Token-level Loss",
    "dapo_5_dynamic_sampling": "+ Dynamic Sampling (DAPO)",
}
PAIRS = [(d, c) for d in ("easy", "hard", "overall") for c in ("only_true", "mixed")]


def our_table1(kept: KeptSweep) -> Table:
    """Sets stages by benchmarks, the best bold, the second underlined."""
    return arms_by_benchmarks(kept, "table1", "recipe", STAGES, second=True)


def our_table2(kept: KeptSweep) -> Table:
    """Sets benchmarks by difficulty and correctness, the better of each pair bold."""
    header = [(d.capitalize(), {"only_true": "Only True", "mixed": "Mixed"}[c]) for d, c in PAIRS]
    places = [{"difficulty_filter": d, "correctness": c} for d, c in PAIRS]
    return benchmarks_by_arms(kept, "table2", places, header, group=2)


def our_table3(kept: KeptSweep) -> Table:
    """Sets benchmarks by teachers."""
    names = in_order("table3", "teacher", {run["arm"]["teacher"] for run in kept.runs})
    return benchmarks_by_arms(
        kept, "table3", [{"teacher": name} for name in names], [("Teacher", n) for n in names]
    )


def our_table4(kept: KeptSweep) -> Table:
    """Sets benchmarks by the number of math sources."""
    return top_sources(kept, "table4")


def our_table5(kept: KeptSweep) -> Table:
    """Sets benchmarks by the number of code sources."""
    return top_sources(kept, "table5")


def our_table6(kept: KeptSweep) -> Table:
    """Sets weights of the SFT term by benchmarks, below their start, which other machines make otherwise."""
    values = in_order("table6", "rl.alpha", {run["arm"]["rl.alpha"] for run in kept.runs})
    table = arms_by_benchmarks(kept, "table6", "rl.alpha", {value: f"alpha = {value}" for value in values})
    first = ["Starting Checkpoint"]
    for benchmark in benchmarks_of(kept):
        found = [run["scores"][benchmark]["0"] for run in kept.runs if "0" in run["scores"].get(benchmark, {})]
        first.append(number_cell(mean(found)))
    rows, bold = [first, *table.rows], {(row + 1, column) for row, column in table.bold}
    return Table(table.name, table.caption, table.columns, rows, bold, rules={1})


def our_ce_gppo(kept: KeptSweep) -> Table:
    """Sets clip methods by benchmarks, the best bold."""
    values = in_order("ce_gppo_methods", "clip_method", {run["arm"]["clip_method"] for run in kept.runs})
    return arms_by_benchmarks(kept, "ce_gppo_methods", "clip_method", {v: f"+{method_label(v)}" for v in values})


def our_dapo(kept: KeptSweep) -> Table:
    """Sets the rungs of DAPO's ladder by benchmarks, the best bold."""
    return arms_by_benchmarks(kept, "dapo", "ladder", DAPO_RUNGS)


OUR_TABLES: Mapping[str, Callable[[KeptSweep], Table]] = {
    "table1": our_table1,
    "table2": our_table2,
    "table3": our_table3,
    "table4": our_table4,
    "table5": our_table5,
    "table6": our_table6,
    "ce_gppo_methods": our_ce_gppo,
    "dapo": our_dapo,
}


def top_sources(kept: KeptSweep, sweep: str) -> Table:
    """Sets benchmarks by the number of sources of a sweep."""
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
    """Sets benchmarks (rows) by arms (columns), the best of each `group` neighbours (0: of the row) bold."""
    rows, bold = [], set()
    for number, benchmark in enumerate(benchmarks_of(kept)):
        values_A = [final_scores_S(kept, arm, benchmark) for arm in arms]
        rows.append([benchmark, *(interval_cell(mean_interval(x_S)) for x_S in values_A)])
        size = group or len(arms)
        for start in range(0, len(arms), size):
            bold |= {(number, 1 + place) for place in best(values_A, range(start, start + size))}
    return Table(name, table_caption(kept, name), [("", "Benchmark"), *header], rows, bold)


def arms_by_benchmarks(
    kept: KeptSweep, name: str, key: str, names: Mapping[object, str] | Mapping[str, str], second: bool = False
) -> Table:
    """Sets arms (rows) by benchmarks (columns), the best of each column bold, on wish the second underlined."""
    benchmarks = benchmarks_of(kept)
    cells_AB = [[final_scores_S(kept, {key: value}, benchmark) for benchmark in benchmarks] for value in names]
    rows = [
        [label, *(interval_cell(mean_interval(x_S)) for x_S in row)]
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
    return Table(name, table_caption(kept, name), header, rows, bold, underlined)


def best(values: Sequence[np.ndarray], places: range) -> set[int]:
    """Returns the places of the highest mean, to the digits that are printed."""
    means = {place: round(float(values[place].mean()), 3) for place in places if values[place].size}
    return {place for place, value in means.items() if value == max(means.values())}


def table_caption(kept: KeptSweep, name: str) -> str:
    """Says whose numbers these are, so that nobody takes them for the paper's."""
    seeds_by_arm = Counter(describe_arm(run["arm"]) for run in kept.runs).values()
    table = f"Table {name.removeprefix('table')}" if name.startswith("table") else f"table of {name}"
    return (
        f"Our {table}, in the paper's layout: {world_of(kept)}, {seeds_words(kept)}; "
        f"avg@{kept.runs[0]['samples']} at the last step, mean ± half-width of the 95 % t-interval."
        f"{one_seed_note(seeds_by_arm)}"
    )
