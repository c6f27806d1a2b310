"""Draws what choice.py sums up, a row for each clip method: scores, a map of all settings, entropy, stability."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.arms import method_label
from analysis.draw.figure import NARROW, OTHER_COLOURS, STYLE, WIDE, settle
from analysis.draw.heat_map import draw_map
from analysis.statistics import Interval, share_interval
from analysis.sweeps.choice import Choice, choice_of
from analysis.sweeps.kept import KeptSweep

FIRST, BEST, HARDEST = OTHER_COLOURS[4], OTHER_COLOURS[0], OTHER_COLOURS[1]
FINE = (1, 1.2, 1.5, 1.7, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)
BESIDE = 0.22  # rows between the marks of one method


def choice_figure(kept: KeptSweep, narrow: bool = False) -> Figure:
    """Draws the methods below each other, the one with the highest best score on top."""
    choice = choice_of(kept)
    rows = len(choice.summaries)
    height = 0.2 * rows + 0.9
    draws = (draw_scores, draw_settings, draw_entropy, draw_below)
    down, across = (len(draws), 1) if narrow else (1, len(draws))
    ratios = None if narrow else [1.5, 1.3, 1.0, 0.8]
    with mpl.rc_context(STYLE):
        size = (NARROW if narrow else WIDE, height * down + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(down, across, sharey=not narrow, squeeze=False, width_ratios=ratios).ravel()
        for ax, draw in zip(axes, draws, strict=True):
            draw(ax, choice)
            ax.set_ylim(rows - 0.5, -0.5)
            ax.tick_params(axis="y", length=0)
        for ax in axes if narrow else axes[:1]:
            ax.set_yticks(range(rows), [method_label(one.method) for one in choice.summaries])
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center")
        settle(figure)
    return figure


def draw_scores(ax: Axes, choice: Choice) -> None:
    """Draws the scores at the first, the best and the hardest setting, with intervals over seeds."""
    marks = (
        (
            f"first: {choice.settings[0]}",
            FIRST,
            "s",
            [one.at(0) for one in choice.summaries],
        ),
        (
            "best, chosen by the other seeds" if choice.seeds > 1 else "best, chosen by this seed",
            BEST,
            "o",
            [one.best for one in choice.summaries],
        ),
        (
            f"hardest: {choice.settings[choice.hardest]}",
            HARDEST,
            "v",
            [one.at(choice.hardest) for one in choice.summaries],
        ),
    )
    for place, (label, colour, marker, found) in enumerate(marks):
        draw_intervals(ax, found, BESIDE * (place - 1), label, colour, marker)
    start_line(ax, choice.start_score)
    ax.set_xlim(0, 1)
    ax.set_title("Final score")
    ax.set_xlabel("dotted: before RL")
    ax.grid(axis="y", linewidth=0.3)


def draw_intervals(ax: Axes, found: list[Interval], offset: float, label: str, colour: str, marker: str) -> None:
    """Draws a mark with its interval for each method."""
    means = [one.mean for one in found]
    reach = np.nan_to_num([one.half_width for one in found])
    places = np.arange(len(found)) + offset
    ax.errorbar(
        means, places, xerr=reach, color=colour, marker=marker, linestyle="none", elinewidth=0.8, label=label
    )


def draw_settings(ax: Axes, choice: Choice) -> None:
    """Draws the mean score at each setting, in colour and as a number."""
    mean_MC = np.array([[one.at(c).mean for c in range(len(choice.settings))] for one in choice.summaries])
    draw_map(ax, mean_MC, letters=5.5)
    ax.set_xticks(range(len(choice.settings)), [shortened(words) for words in choice.settings], rotation=90)
    ax.set_title("Score by setting")


def shortened(setting: str) -> str:
    """Returns a setting by its values alone, as the legend names the keys."""
    return ", ".join(word.rpartition("=")[2] for word in setting.split(", "))


def draw_entropy(ax: Axes, choice: Choice) -> None:
    """Draws the entropy of the last steps at the best and at the hardest setting."""
    for row, one in enumerate(choice.summaries):
        if one.best_setting is not None:
            ax.plot(one.entropy_C[one.best_setting], row - BESIDE / 2, color=BEST, marker="o", linestyle="none")
        ax.plot(one.entropy_C[choice.hardest], row + BESIDE / 2, color=HARDEST, marker="v", linestyle="none")
    start_line(ax, choice.start_entropy)
    ax.set_xscale("log")
    places = ticks_between(*ax.get_xlim())
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.set_xticks([], minor=True)
    ax.set_title("Late entropy")
    ax.set_xlabel("nats")
    ax.grid(axis="y", linewidth=0.3)


def ticks_between(low: float, high: float) -> list[float]:
    """Returns at most three round numbers for a short logarithmic axis, one of each decade, or else its ends."""
    for steps in (FINE, (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [float(f"{step}e{decade}") for decade in range(-6, 4) for step in steps]
        found = [place for place in found if low <= place <= high]
        if len(found) <= 3:
            break
    return found or [low, high]


def draw_below(ax: Axes, choice: Choice) -> None:
    """Draws which share of all runs ended below the score that they started from, with Wilson's interval."""
    for row, one in enumerate(choice.summaries):
        if one.runs:
            share, low, high = share_interval(one.below, one.runs)
            ax.barh(row, share, height=0.6, color="#777777")
            ax.plot([low, high], [row, row], color="#1b1b1b", linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_title("Fell below start")
    ax.set_xlabel("share of runs")


def start_line(ax: Axes, value: float | None) -> None:
    """Draws where the runs started from."""
    if value is not None:
        ax.axvline(value, color="#1b1b1b", linewidth=0.8, linestyle=":")
