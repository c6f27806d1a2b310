"""Draws a sweep over more than two keys as parallel coordinates: an axis for each key, and one for the score.

A line is an arm, through its values of the keys to its score, mean over seeds and benchmarks; colour is the score
too, and so is the place within a value, so that lines can be followed back from it. A key with one value has no
axis.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.arms import as_words, method_label, short_keys
from analysis.draw.figure import NARROW, STYLE, WIDE, settle
from analysis.sweeps.effects import final_score, swept_keys
from analysis.sweeps.kept import KeptSweep, in_order

SCORE = "final score"
FEWEST = 3  # keys; two make a table or a map
FAN = 0.4  # of the way to the next value, over which the lines at a value are spread


def is_drawn(kept: KeptSweep) -> bool:
    """Tells whether the sweep varies enough keys, and has scores."""
    return len(swept_keys(kept)) >= FEWEST and any(final_score(run) is not None for run in kept.runs)


def arm_scores(kept: KeptSweep) -> pd.DataFrame:
    """Returns a row for each arm that was evaluated: its values as typed, and its final score, lowest first."""
    keys = swept_keys(kept)
    rows = [{key: as_words(run["arm"].get(key)) for key in keys} | {SCORE: final_score(run)} for run in kept.runs]
    frame = pd.DataFrame(rows).astype({SCORE: float}).dropna(subset=[SCORE])
    return frame.groupby(keys, sort=False)[SCORE].mean().reset_index().sort_values(SCORE, ignore_index=True)


def parallel_coordinates(kept: KeptSweep, narrow: bool = False) -> Figure:
    """Draws the arms, the best ones above the others."""
    frame, keys = arm_scores(kept), swept_keys(kept)
    low, high = float(frame[SCORE].min()), float(frame[SCORE].max())
    reach = Normalize(low, high if high > low else low + 0.01)
    colours = mpl.colormaps["viridis_r"]  # dark is high: pale lines are those to pass over
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(NARROW if narrow else WIDE, 3.2), layout="constrained")
        ax = figure.subplots()
        places = {key: value_places(kept, key, frame) for key in keys}
        xs = np.linspace(0, len(keys), 40 * len(keys) + 1)
        for row in frame.to_dict("records"):
            score = float(reach(row[SCORE]))
            heights = [*(places[key][row[key]] + FAN * (score - 0.5) / len(places[key]) for key in keys), score]
            smooth = scipy.interpolate.PchipInterpolator  # flat at its ends, without overshooting
            ys = smooth(range(len(heights)), heights)(xs)
            ax.plot(xs, ys, color=colours(0.1 + 0.9 * score), linewidth=1.1, alpha=0.85)
        for place, (key, name) in enumerate(short_keys(keys).items()):
            draw_key(ax, place, name, places[key], narrow)
        draw_score(ax, len(keys), reach)
        ax.set(xlim=(-0.25 if not narrow else -0.1, len(keys) + 0.3), ylim=(-0.12, 1.26))
        ax.set_axis_off()
        settle(figure)
    return figure


def value_places(kept: KeptSweep, key: str, frame: pd.DataFrame) -> dict[str, float]:
    """Returns where the values of a key stand, from 0 to 1 in the order of the sweep's file."""
    values = in_order(kept.about["sweep"], key, set(frame[key]))
    return {value: n / max(1, len(values) - 1) for n, value in enumerate(values)}


def draw_key(ax: Axes, place: int, name: str, places: dict[str, float], narrow: bool) -> None:
    """Draws the axis of a key with its values."""
    ax.plot([place, place], [-0.1, 1.1], color="#1b1b1b", linewidth=0.8, zorder=3)
    ax.text(place, 1.14, name.replace("_", "\n" if narrow else " "), ha="center", va="bottom", fontweight="bold")
    for value, height in places.items():
        words = method_label(value)
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.8}
        ax.text(place + 0.02, height, words, va="center", ha="left", bbox=box, zorder=4, fontsize=7)


def draw_score(ax: Axes, place: int, reach: Normalize) -> None:
    """Draws the axis of the score with its lowest, middle and highest number."""
    ax.plot([place, place], [0, 1], color="#1b1b1b", linewidth=0.8, zorder=3)
    ax.text(place, 1.14, SCORE, ha="center", va="bottom", fontweight="bold")
    low, high = float(reach.vmin or 0.0), float(reach.vmax or 1.0)
    for height in (0.0, 0.5, 1.0):
        ax.text(place + 0.04, height, f"{low + height * (high - low):.2f}", va="center", fontsize=7)
