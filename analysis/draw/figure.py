"""Draws figures of computed frames with matplotlib, and saves them.

Nothing is computed here: means, bands and ranges come from `statistics.over_seeds` (or from the paper, in the
same form). A figure is made of blocks, a block of panels. Each figure has a wide form (two-column width, 7
inches) and a narrow one (panels below each other) for a phone, where the wide form's letters would be too
small to read. A new figure is a function that returns `draw_blocks(...)`.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from analysis.arms import arm_order

# Okabe-Ito, readable with every common form of colour blindness; its yellow is too faint on white
METHOD_COLOURS = {
    "none": "#000000",
    "grpo": "#56B4E9",
    "clip_higher": "#0072B2",
    "cispo_upper": "#E69F00",
    "cispo": "#009E73",
    "ce_gppo": "#CC79A7",
    "gppo": "#D55E00",
    "gppo_upper": "#7B3294",
    "gppo_high_only": "#777777",
    "gppo_low_only": "#8C510A",
}
# for arms that are no methods, in the order of the legend
OTHER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#777777", "#8C510A")
METHOD_MARKERS = {
    "none": "x",
    "grpo": "v",
    "clip_higher": "s",
    "cispo_upper": "P",
    "cispo": "^",
    "ce_gppo": "D",
    "gppo": "o",
}
# of methods without a marker of their own, each time that colours begin again
OTHER_MARKERS = ("*", "X", "h", "p")
VARIANT_LINES = ["-", "--", ":", "-."]
VARIANT_MARKERS = ("<", ">", "d", "H")  # each time that a method's lines begin again

LETTERS = 8  # points
STYLE: dict[Any, Any] = {
    "figure.dpi": 200,  # of PNG files; and laid out with it, because widths of letters depend on it
    "font.family": "DejaVu Sans",
    "font.size": LETTERS,
    "text.parse_math": False,  # names and titles may have dollar signs
    "axes.titlesize": LETTERS,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": LETTERS,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "pdf.fonttype": 42,
    # a fixed salt and no dates: the same runs give the same files
    "svg.hashsalt": "klear_lab",
}
UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
WIDE, NARROW = 7.0, 3.7
TITLE: dict[str, Any] = {"fontsize": 9, "fontweight": "bold"}
# a line with more points than this (a metric of every step) gets about MARKERS markers and a thinner stroke
DENSE, MARKERS = 30, 12


@dataclass(frozen=True)
class Panel:
    """Says what one set of axes shows.

    key: the value of `panel` in the curves. limits: a fixed y range. shared: one y range for all such panels
    of a block.
    """

    key: str
    title: str
    limits: tuple[float, float] | None = None
    shared: bool = False


@dataclass(frozen=True)
class Block:
    """Holds a row of panels (narrow: a column) under one title.

    curves: in the form of `statistics.over_seeds`. published: whether they are a paper's and not ours.
    """

    title: str
    panels: Sequence[Panel]
    curves: pd.DataFrame
    published: bool = False


def draw_blocks(blocks: Sequence[Block], narrow: bool = False) -> Figure:
    """Draws the given blocks below each other, with one legend for all of them at the foot."""
    width = NARROW if narrow else WIDE
    styles = arm_styles(pd.concat([block.curves for block in blocks]))
    columns = legend_columns(list(styles), width)
    labels = [wrapped(arm, width / columns - 0.5) for arm in styles]
    heights = [*(block_height(block, narrow) for block in blocks), 0.2 + 0.17 * legend_lines(labels, columns)]
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(hspace=0.05 if narrow else 0.02)
        figure = Figure(figsize=(width, sum(heights)), layout=layout)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, block in zip(parts, blocks, strict=False):
            draw_block(part, block, styles, narrow)
        handles = [
            Line2D([], [], label=label, **style) for label, style in zip(labels, styles.values(), strict=True)
        ]
        legend = parts[-1].legend(handles=handles, loc="center", ncols=columns)
        for arm, handle, text in zip(styles, legend.legend_handles, legend.get_texts(), strict=True):
            handle.set_gid(arm_gid(arm, "key", "handle"))
            text.set_gid(arm_gid(arm, "key", "text"))
        settle(figure)
    return figure


def in_rows(panels: Sequence[str], most: int = 4) -> list[list[str]]:
    """Lays panels out in as few rows of at most `most` as hold them, nearly equal."""
    rows = -(-len(panels) // most)
    return [list(panels[len(panels) * i // rows : len(panels) * (i + 1) // rows]) for i in range(rows)]


def settle(figure: Figure) -> None:
    """Lays the figure out once, and keeps the places rounded.

    The layout's solver leaves differences of 1e-15 from call to call, and SVG names its clip paths after
    exact places: without the rounding the same figure would be another file each time.
    """
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(4))
    for ax in figure.axes:
        x, y, width, height = ax.get_position().bounds
        ax.set_position((round(x, 4), round(y, 4), round(width, 4), round(height, 4)))


def draw_block(part: SubFigure, block: Block, styles: dict[str, dict[str, Any]], narrow: bool) -> None:
    """Draws the panels of one block under its title."""
    part.suptitle(block_title(block, narrow), **TITLE)
    rows, columns = (len(block.panels), 1) if narrow else (1, len(block.panels))
    axes = part.subplots(rows, columns, squeeze=False).ravel()
    shared = [panel.key for panel in block.panels if panel.shared]
    for ax, panel in zip(axes, block.panels, strict=True):
        draw_panel(ax, panel, block.curves, styles)
        # no wider than the axes, which labels at their left make narrower
        ax.set_title(wrapped(panel.title, (NARROW if narrow else WIDE) / columns - 0.45))
        if not block.published:
            # by these the page finds what moves along another axis
            ax.set_gid(f"panel:{panel.key}")
            ax.xaxis.set_gid(f"steps:{panel.key}")
        in_range = block.curves[block.curves["panel"].isin(shared if panel.shared else [panel.key])]
        if panel.limits is not None:
            ax.set_ylim(*panel.limits)
        elif len(in_range):
            ax.set_ylim(*padded(in_range["lowest"].min(), in_range["highest"].max()))


def draw_panel(ax: Axes, panel: Panel, curves: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """Draws a line with markers for each arm, and a band from its lowest to its highest seed.

    The band isn't the t-interval (that stands in the tables): over two or three seeds the interval is wider than
    the panel and hides every line.
    """
    own = curves[curves["panel"] == panel.key]
    for arm, style in styles.items():
        line = own[own["arm"] == arm].sort_values("step")
        if line.empty:
            continue
        (drawn,) = ax.plot(line["step"], line["mean"], label=arm, **style)
        drawn.set_gid(arm_gid(arm, "line", panel.key))
        if len(line) > DENSE:
            drawn.set(markevery=len(line) // MARKERS, linewidth=0.8)
        if line["seeds"].max() > 1:
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            drawn_band = ax.fill_between(line["step"], line["lowest"], line["highest"], **band)
            drawn_band.set_gid(arm_gid(arm, "band", panel.key))
    if own.empty:
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", va="center", color="#555555")
    ax.set_xlabel("RL step")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))


def arm_gid(arm: str, kind: str, place: str) -> str:
    """Returns the id of an SVG element that belongs to an arm, by which the page finds it (`inline_svg`)."""
    return f"arm:{arm}::{kind}:{place}"


def padded(lowest: float, highest: float) -> tuple[float, float]:
    """Returns a y range a little wider than the values of all seeds."""
    margin = 0.08 * (highest - lowest) or 0.05 * abs(highest) or 0.05
    return lowest - margin, highest + margin


def block_height(block: Block, narrow: bool) -> float:
    """Returns the inches that a block needs for its title and its panels with their labels."""
    lines = block_title(block, narrow).count("\n") + 1
    # a narrow figure's panels have room for one line of the title
    return 2.1 * len(block.panels) + 0.2 * max(2, lines - 1) if narrow else 1.95 + 0.2 * lines


def block_title(block: Block, narrow: bool) -> str:
    """Returns a block's title in lines that fit; in a narrow figure, what stands in brackets has its own."""
    parts = block.title.split(" (", 1) if narrow else [block.title]
    return "\n(".join(wrapped(part, (NARROW if narrow else WIDE) - 0.3, **TITLE) for part in parts)


def wrapped(words: str, width: float, fontsize: float = LETTERS, fontweight: str = "normal") -> str:
    """Returns words in lines of at most `width` inches; lines that fit stay as they are."""
    return "\n".join(fitting(line, width, fontsize, fontweight) for line in words.split("\n"))


def fitting(line: str, width: float, fontsize: float, fontweight: str) -> str:
    """Breaks one line where it is too wide: between words, and where a word alone is too wide, in it."""
    parts, most = [line], len(line)
    while most > 1 and (widest := max(inches(part, fontsize, fontweight) for part in parts)) > width:
        most = min(most - 1, int(most * width / widest))
        parts = textwrap.wrap(line, max(most, 1), break_on_hyphens=False)
    return "\n".join(parts)


@lru_cache(maxsize=1024)
def inches(line: str, fontsize: float, fontweight: str) -> float:
    """Returns how wide a line of text is."""
    font = FontProperties(family=STYLE["font.family"], size=fontsize, weight=fontweight)
    points, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
    return float(points) / 72


def legend_lines(labels: Sequence[str], columns: int) -> int:
    """Returns the lines of the legend's longest column; its entries stand below each other."""
    lines = np.array([label.count("\n") + 1 for label in labels])
    return max(int(column.sum()) for column in np.array_split(lines, columns))


def legend_columns(labels: Sequence[str], width: float) -> int:
    """Returns how many legend entries fit beside each other in `width` inches, at most four."""
    # a letter of 8 points is about 0.065 inches wide, line and gaps of an entry 0.5
    entry = 0.5 + 0.065 * max((len(label) for label in labels), default=1)
    return max(1, min(4, int(width / entry)))


def arm_styles(curves: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Returns each arm's style in legend order: colour and marker by clip method, line and filling by variant.

    Where lines or colours begin again, markers tell arms apart.
    """
    arms = set(zip(curves["method"], curves["arm"], strict=True))
    styles: dict[str, dict[str, Any]] = {}
    variants: dict[str, int] = {}
    others = sorted({method for method, _ in arms if method not in METHOD_COLOURS})
    taken = {METHOD_COLOURS[method] for method, _ in arms if method in METHOD_COLOURS}
    free = [colour for colour in OTHER_COLOURS if colour not in taken] or [*OTHER_COLOURS]
    colours = METHOD_COLOURS | {m: free[i % len(free)] for i, m in enumerate(others)}
    markers = {
        m: OTHER_MARKERS[i // len(free) % len(OTHER_MARKERS)] for i, m in enumerate(others)
    } | METHOD_MARKERS
    for method, arm in sorted(arms, key=lambda pair: arm_order(*pair)):
        variant = variants.setdefault(method, 0)
        variants[method] += 1
        again = variant // len(VARIANT_LINES)
        marker = VARIANT_MARKERS[(again - 1) % len(VARIANT_MARKERS)] if again else markers.get(method, "*")
        styles[arm] = {
            "color": colours[method],
            "marker": marker,
            "markerfacecolor": "white" if variant else colours[method],
            "linestyle": VARIANT_LINES[variant % len(VARIANT_LINES)],
        }
    return styles


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes stem.png, stem.svg and stem.pdf, byte for byte the same for the same figure."""
    paths = [stem.with_name(f"{stem.name}.{form}") for form in UNDATED]
    for path in paths:
        path.write_bytes(as_bytes(figure, path.suffix[1:]))
    return paths


def as_bytes(figure: Figure, form: str, letters: str = "path") -> bytes:
    """Returns the bytes of the figure's file in one format: png, svg or pdf.

    letters, of an SVG: "path" draws them, which looks alike everywhere; "none" leaves text, which is much smaller.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.fonttype": letters}):
        # not savefig, which draws everything twice: once to measure, which `settle` did already
        if form == "png":
            FigureCanvasAgg(figure).print_png(buffer, metadata=UNDATED[form])
        elif form == "svg":
            FigureCanvasSVG(figure).print_svg(buffer, metadata=UNDATED[form])
        else:
            FigureCanvasPdf(figure).print_pdf(buffer, metadata=UNDATED[form])
    return buffer.getvalue()
