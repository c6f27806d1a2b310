"""Draws a sweep: curves, with the paper's own below where it has some, mechanism, maps of large grids,
parallel coordinates of more than two keys (parallel.py), many clip methods side by side (choice_figure.py).

A new one is a function here and an entry in `figures_of`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.arms import as_words, describe_arm, method_label
from analysis.draw.figure import (
    NARROW,
    OTHER_COLOURS,
    STYLE,
    WIDE,
    Block,
    Panel,
    draw_blocks,
    in_rows,
    settle,
    wrapped,
)
from analysis.draw.heat_map import draw_map
from analysis.paper.figures import PANELS_OF, published_block
from analysis.sweeps.choice import is_a_choice
from analysis.sweeps.choice_figure import choice_figure
from analysis.sweeps.curves import kept_curves, panels_of
from analysis.sweeps.effects import final_score, final_scores_S
from analysis.sweeps.kept import KeptSweep, benchmarks_of, in_order, seeds_words, world_of
from analysis.sweeps.numbered_tables import STAGES
from analysis.sweeps.parallel import is_drawn, parallel_coordinates
from klear_lab.metrics import MECHANISM, heading, names_in

# Metrics to draw beside the benchmarks' scores, of those that a sweep's runs have.
BESIDE_SCORES = {
    "figure2": ("optim/grad_norm",),
    "figure3": ("reward/mean",),
    "figure4": (),
    "figure5": ("reward/mean",),
    "overlong": ("rollout/truncated_fraction", "optim/grad_norm"),
    "ce_gppo": ("policy/entropy", "clip/gradient_share"),
    "ce_gppo_methods": ("policy/entropy", "clip/gradient_share"),
    "dapo": ("policy/entropy", "rollout/length_mean", "rollout/truncated_fraction"),
    "table6": ("loss/sft", "policy/entropy"),
}
# What the paper calls the arms of its figures, so that one name and colour stands for both sides.
PAPERS_ARMS = {
    "figure3": {"soft": "Soft reward", "hard": "Hard reward"},
    "figure4": {"true": "Filtered", "false": "Unfiltered"},
    "figure5": {"true": "w/o zero-advantage groups", "false": "w/ zero-advantage groups"},
}
MOST_LINES = 14  # of a figure of curves; more can't be told apart
Draw = Callable[[bool], Figure]


def figures_of(kept: KeptSweep) -> dict[str, Draw]:
    """Returns the figures that a sweep's runs allow, by file stem; each is drawn when called, narrow or wide."""
    name = kept.about["sweep"]
    arms = {describe_arm(run["arm"]) for run in kept.runs}
    steps = [len(found) for run in kept.runs for found in run["scores"].values()]
    # runs without evaluations have curves of metrics alone
    evaluated = (
        max(steps)
        if steps
        else max((len(curve) for run in kept.runs for curve in run["curves"].values()), default=0)
    )
    one_world = len({tuple(sorted(run["scores"])) for run in kept.runs}) == 1
    found: dict[str, Draw] = {}
    if name in ("figure1", "table1") and benchmarks_of(kept):
        found["figure1"] = partial(stage_bars, kept)
    if len(arms) <= MOST_LINES and evaluated > 2 and one_world:
        if benchmarks_of(kept) or any(metric in panels_of(kept) for metric in BESIDE_SCORES.get(name, ())):
            found[f"{name}_curves"] = partial(sweep_curves, kept)
        if any(metric in panels_of(kept) for metric in names_in(*MECHANISM)):
            found[f"{name}_mechanism"] = partial(sweep_mechanism, kept)
    if len(arms) > MOST_LINES and len(kept.runs[0]["arm"]) > 1 and benchmarks_of(kept):
        found[f"{name}_map"] = partial(score_map, kept)
    if is_a_choice(kept):
        found[f"{name}_choice"] = partial(choice_figure, kept)
    if is_drawn(kept):
        found[f"{name}_parallel"] = partial(parallel_coordinates, kept)
    return found


def sweep_curves(kept: KeptSweep, narrow: bool = False) -> Figure:
    """Draws scores and the sweep's metrics over steps, above the paper's own figure where it has this one."""
    name = kept.about["sweep"]
    beside = BESIDE_SCORES.get(name, ())
    panels = [*benchmarks_of(kept), *(metric for metric in beside if metric in panels_of(kept))]
    blocks = own_blocks(kept, panels, f"Ours ({world_of(kept)}, {seeds_of(kept)})")
    if name in PANELS_OF:
        blocks.append(published_block(name, "Paper (Qwen3-8B, one run an arm)"))
    return draw_blocks(blocks, narrow)


def sweep_mechanism(kept: KeptSweep, narrow: bool = False) -> Figure:
    """Draws what is clipped, its share of the gradient, entropies, ratio quantiles, pass rate by difficulty."""
    panels = [name for name in names_in(*MECHANISM) if name in panels_of(kept)]
    return draw_blocks(own_blocks(kept, panels, f"Mechanism ({seeds_of(kept)})"), narrow)


def own_blocks(kept: KeptSweep, panels: list[str], title: str) -> list[Block]:
    """Returns panels of a sweep in rows of four, the arms under the paper's names where it has some."""
    samples, scored = kept.runs[0]["samples"], benchmarks_of(kept)
    frame = kept_curves(kept, panels)
    sweep = kept.about["sweep"]
    frame = frame.assign(arm=[drawn_name(sweep, arm) for arm in frame["arm"]])
    if sweep in PAPERS_ARMS:
        frame["method"] = frame["arm"]
    titles = {name: f"{name} (avg@{samples})" if name in scored else heading(name) for name in panels}
    return [
        Block(title if row == 0 else "", [Panel(name, titles[name]) for name in names], frame)
        for row, names in enumerate(in_rows(panels))
    ]


def drawn_name(sweep: str, arm: str) -> str:
    """Returns what figures call an arm: by the paper's name where it has one."""
    return PAPERS_ARMS.get(sweep, {}).get(arm.rpartition("=")[2], method_label(arm))


def seeds_of(kept: KeptSweep) -> str:
    """Says what lines and bands are, for instance "mean and range of 5 seeds", or of "5 to 9 seeds"."""
    counted = seeds_words(kept)
    return counted if counted == "1 seed" else f"mean and range of {counted}"


def stage_bars(kept: KeptSweep, narrow: bool = False) -> Figure:
    """Draws our form of the paper's Figure 1: bars of each stage on each benchmark, with the range over seeds."""
    benchmarks = benchmarks_of(kept)
    rows = -(-len(benchmarks) // (2 if narrow else 4))
    columns = -(-len(benchmarks) // rows)
    width = NARROW if narrow else WIDE
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 2.0 * rows + 0.6), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax, benchmark in zip(axes, benchmarks, strict=False):
            for place, (stage, label) in enumerate(STAGES.items()):
                x_S = final_scores_S(kept, {"recipe": stage}, benchmark)
                if x_S.size:
                    reach = [[x_S.mean() - x_S.min()], [x_S.max() - x_S.mean()]]
                    colour = OTHER_COLOURS[place]
                    ax.bar(place, x_S.mean(), yerr=reach, color=colour, label=label.strip(), error_kw={"lw": 0.8})
            ax.set_title(wrapped(f"{benchmark} (avg@{kept.runs[0]['samples']})", width / columns - 0.3))
            ax.set_xticks([])
            ax.set_ylim(0, 1)
        for ax in axes[len(benchmarks) :]:
            ax.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if narrow else 4)
        settle(figure)
    return figure


def score_map(kept: KeptSweep, narrow: bool = False) -> Figure:
    """Draws final scores, means of seeds and benchmarks, by the first two swept keys; others make panels."""
    rows_key, columns_key, *others = kept.runs[0]["arm"]
    values = {
        key: [
            as_words(v)
            for v in in_order(kept.about["sweep"], key, {as_words(run["arm"].get(key)) for run in kept.runs})
        ]
        for key in kept.runs[0]["arm"]
    }
    arms = [{key: as_words(value) for key, value in run["arm"].items()} for run in kept.runs]
    frame = pd.DataFrame(arms).assign(score=pd.Series([final_score(run) for run in kept.runs], dtype=float))
    mean = frame.groupby([*others, rows_key, columns_key])["score"].mean()
    panels = [*product(*(values[key] for key in others))]
    down, across = (len(panels), 1) if narrow else (1, len(panels))
    height = (0.24 * len(values[rows_key]) + 0.75) * down + 0.3
    # the label of the colour bar reaches a little past what the layout gives it
    layout = ConstrainedLayoutEngine(rect=(0, 0, 0.995, 1))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(NARROW if narrow else WIDE, height), layout=layout)
        axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for ax, fixed in zip(axes, panels, strict=True):
            mean_RC = [[mean.get((*fixed, r, c), np.nan) for c in values[columns_key]] for r in values[rows_key]]
            image = draw_map(ax, np.array(mean_RC, dtype=float))
            ax.set_xticks(range(len(values[columns_key])), values[columns_key])
            ax.set_yticks(range(len(values[rows_key])), [method_label(value) for value in values[rows_key]])
            ax.set_xlabel(columns_key)
            ax.set_title(describe_arm(dict(zip(others, fixed, strict=True))), fontsize=8)
        figure.colorbar(image, ax=axes.tolist(), label="final score", shrink=0.8)
        settle(figure)
    return figure


def caption_lines(figures: Iterable[str]) -> dict[str, str]:
    """Returns a line on each figure, for its caption."""
    words = {
        "curves": "Lines are means over seeds, bands reach from the lowest to the highest seed.",
        "mechanism": "Measured before each update over a step's response tokens; docs/metrics.md has formulas.",
        "map": "Mean of the final scores over seeds and benchmarks.",
        "choice": "Scores with 95 % t-intervals over seeds at three settings. Fell below start: share of all of a "
        "method's runs that ended below the score before RL, with Wilson's interval.",
        "parallel": "Each line is an arm, through its values of the swept keys to its final score, mean over "
        "seeds and benchmarks; dark is high. At each value the lines fan out by their score.",
        "figure1": "Bars are means over seeds, lines reach from the lowest to the highest seed.",
    }
    return {stem: words[stem.rpartition("_")[2]] for stem in figures}
