"""The paper's Figures 1 to 5 from analysis/paper/, in the style of ours; one published curve a series, no spread.

A new figure is a function here and an entry in FIGURES.
"""

from collections.abc import Callable

import matplotlib as mpl
import matplotlib.patches
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.draw.figure import (
    NARROW,
    OTHER_COLOURS,
    PAPER_PANELS,
    STYLE,
    WIDE,
    Block,
    Panel,
    draw_blocks,
    settle,
)
from analysis.paper.numbers import published_curves, published_figure2, published_table
from analysis.paper.tables import BENCHMARKS

SERIES = {
    "soft_reward": "Soft reward",
    "hard_reward": "Hard reward",
    "filtered": "Filtered",
    "unfiltered": "Unfiltered",
    "drop_zero_advantage": "w/o zero-advantage groups",
    "keep_zero_advantage": "w/ zero-advantage groups",
}
PANELS = {
    "livecodebench_v5": Panel("livecodebench_v5", "LiveCodeBench V5 (avg@4)"),
    "aime2024": Panel("aime2024", "AIME 2024 (avg@32)"),
    "reward": Panel("reward", "Mean reward"),
}
PANELS_OF = {
    "figure3": ("livecodebench_v5", "reward"),
    "figure4": ("livecodebench_v5",),
    "figure5": ("aime2024", "reward"),
}
FIGURE1_MODELS = ("Klear-Reasoner-8B (64K inference)", "Klear-Reasoner-8B")


def figure1(narrow: bool = False) -> Figure:
    """Bars of each model on the benchmarks of Table 1, Klear-Reasoner first and in colour."""
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


def figure2(narrow: bool = False) -> Figure:
    """Clip methods: scores and gradient norm."""
    return draw_blocks([Block("Figure 2 of the paper", PAPER_PANELS, published_figure2())], narrow)


def figure3(narrow: bool = False) -> Figure:
    """Soft and hard code rewards."""
    return draw_series("figure3", narrow)


def figure4(narrow: bool = False) -> Figure:
    """Code prompts filtered by pass@16, or not."""
    return draw_series("figure4", narrow)


def figure5(narrow: bool = False) -> Figure:
    """Groups without advantage dropped, or kept."""
    return draw_series("figure5", narrow)


FIGURES: tuple[Callable[..., Figure], ...] = (figure1, figure2, figure3, figure4, figure5)


def draw_series(name: str, narrow: bool) -> Figure:
    """The published points of one figure."""
    block = Block(f"Figure {name[-1]} of the paper", [PANELS[panel] for panel in PANELS_OF[name]], as_curves(name))
    return draw_blocks([block], narrow)


def as_curves(name: str) -> pd.DataFrame:
    """A published figure in the form of `statistics.over_seeds`; the paper has one curve a series."""
    points = published_curves(name)
    arms = points["series"].map(SERIES)
    return pd.DataFrame(
        {
            "panel": points["panel"],
            "method": arms,
            "arm": arms,
            "step": points["step"],
            "mean": points["value"],
            "half_width": np.nan,
            "lowest": points["value"],
            "highest": points["value"],
            "seeds": 1,
        }
    )
