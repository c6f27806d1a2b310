"""Draws the paper's Figures 1 to 5 in the style of ours, from the CSV files beside this file.

A new figure is a function here and an entry in PAPER_FIGURES.
"""

from collections.abc import Callable, Mapping

import matplotlib as mpl
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure

from analysis.draw.figure import (
    NARROW,
    OTHER_COLOURS,
    STYLE,
    WIDE,
    Block,
    Panel,
    draw_blocks,
    settle,
)
from analysis.paper.numbers import published_arms, published_table
from analysis.paper.tables import BENCHMARKS

AIME_PANEL, CODE_PANEL = (
    Panel("aime2024", "AIME 2024 (avg@32)"),
    Panel("livecodebench_v5", "LiveCodeBench V5 (avg@4)"),
)
REWARD_PANEL = Panel("reward", "Mean reward")
# The panels of the figures that show curves; the limits are the paper's own axis.
PANELS_OF = {
    "figure2": (AIME_PANEL, CODE_PANEL, Panel("grad_norm", "Gradient norm", limits=(0.0, 0.5))),
    "figure3": (CODE_PANEL, REWARD_PANEL),
    "figure4": (CODE_PANEL,),
    "figure5": (AIME_PANEL, REWARD_PANEL),
}
FIGURE1_MODELS = ("Klear-Reasoner-8B (64K inference)", "Klear-Reasoner-8B")


def paper_figure1(narrow: bool = False) -> Figure:
    """Draws bars of each model on the benchmarks of Table 1, Klear-Reasoner first and in colour."""
    frame = published_table("table1").pivot_table(index="row", columns="column", values="value", sort=False)
    models = [*FIGURE1_MODELS, *(name for name in frame.index if name not in FIGURE1_MODELS)]
    greys = mpl.colormaps["Greys"](np.linspace(0.35, 0.85, len(models) - len(FIGURE1_MODELS)))
    colours = [OTHER_COLOURS[1], OTHER_COLOURS[0], *greys]
    rows = len(frame.columns) if narrow else 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(NARROW if narrow else WIDE, 2.3 * rows + 1.3), layout="constrained")
        axes = figure.subplots(rows, 1 if narrow else len(frame.columns), sharey=True, squeeze=False).ravel()
        for ax, column in zip(axes, frame.columns, strict=True):
            values = frame.loc[models, column]
            ax.bar(range(len(models)), values, color=colours, width=0.85)
            ax.set_title(BENCHMARKS[str(column)].replace("LiveCodeBench", "LCB"))
            ax.set_xticks([])
            ax.set_ylim(0, 100)
        axes[0].set_ylabel("per cent")
        handles = [mpl.patches.Patch(color=c, label=m) for m, c in zip(models, colours, strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=1 if narrow else 3)
        settle(figure)
    return figure


def paper_figure2(narrow: bool = False) -> Figure:
    """Draws the clip methods' scores and gradient norms."""
    return draw_published("figure2", narrow)


def paper_figure3(narrow: bool = False) -> Figure:
    """Draws soft and hard code rewards."""
    return draw_published("figure3", narrow)


def paper_figure4(narrow: bool = False) -> Figure:
    """Draws code RL on prompts that were filtered by pass@16, or not."""
    return draw_published("figure4", narrow)


def paper_figure5(narrow: bool = False) -> Figure:
    """Draws RL that drops groups without advantage, or keeps them."""
    return draw_published("figure5", narrow)


PAPER_FIGURES: Mapping[str, Callable[..., Figure]] = {
    "figure1": paper_figure1,
    "figure2": paper_figure2,
    "figure3": paper_figure3,
    "figure4": paper_figure4,
    "figure5": paper_figure5,
}


def draw_published(figure: str, narrow: bool) -> Figure:
    """Draws the published points of one figure alone."""
    return draw_blocks([published_block(figure, f"Figure {figure[-1]} of the paper")], narrow)


def published_block(figure: str, title: str) -> Block:
    """Returns one of the paper's figures as a block, to stand alone or below ours."""
    return Block(title, PANELS_OF[figure], published_arms(figure), published=True)
