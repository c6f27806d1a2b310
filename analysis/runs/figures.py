"""Draws what the runs at hand tell of clipping; their scores are drawn beside the paper's, in analysis/report."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.draw.figure import Block, Panel, draw_blocks, in_rows
from klear_lab.metrics import BY_REGION, CLIPPING, heading, names_in

GROUPS = (CLIPPING, BY_REGION)


def clipping_metrics() -> list[str]:
    """Returns the metrics that `clipping_figure` draws."""
    return names_in(*GROUPS)


def clipping_figure(curves: pd.DataFrame, narrow: bool = False) -> Figure:
    """Draws how much is clipped, its share of the gradient, and the entropy of clipped and other tokens.

    curves: in the form of `statistics.over_seeds`. The panels of entropy by region share one y range.
    """
    blocks = [
        Block(group if row == 0 else "", [Panel(n, heading(n), shared=group == BY_REGION) for n in names], curves)
        for group in GROUPS
        for row, names in enumerate(in_rows(names_in(group)))
    ]
    return draw_blocks(blocks, narrow)
