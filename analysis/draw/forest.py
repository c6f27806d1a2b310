"""Draws a forest plot: a row for each effect with its interval, and the mark of the number to compare it with.

Groups of rows stand below each other. Rows of a group share one scale, or each has its own where their units
differ; zero is in the middle of every scale. Places are inches from the figure's upper left corner. A verdict is
told by colour and by marker, so that neither print in grey nor colour blindness hides it.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.cells import number_cell
from analysis.draw.figure import NARROW, STYLE, WIDE

LINE, GAP = 0.135, 0.09  # inches: a line of words, and what is left free between rows
HEADING, TICKS, LEGEND = 0.3, 0.3, 0.3  # inches that these take
LETTERS = 7.0  # points
GREY = "#777777"
NUMBERS = (-0.5, -0.1, -0.02, 0.0, 0.02, 0.1, 0.5)  # that stand at a stretched scale
COMPARED = {"color": "#1b1b1b", "marker": "D", "markerfacecolor": "white", "markersize": 3.0}


@dataclass(frozen=True)
class ForestRow:
    """Holds one effect: what stands at its left, the number at its right, and what is drawn between.

    mark: the key of its style. compared: numbers of another source. margin: within which an effect counts as none.
    """

    name: str
    words: str
    number: str
    mark: str
    estimate: float | None
    interval: tuple[float, float] | None = None
    compared: tuple[float, ...] = ()
    margin: float | None = None


@dataclass(frozen=True)
class Scale:
    """Holds a scale with zero in its middle.

    reach: the number at its right end. linear: up to where it is nearly even; beyond it gets ever denser (asinh),
    so that effects of 0.01 and of 0.5 can be read off one scale. None: even throughout.
    """

    reach: float
    linear: float | None = None

    def place(self, value: float) -> float:
        """Returns where a number stands, from -1 to 1."""
        if self.linear is None:
            return value / self.reach
        return math.asinh(value / self.linear) / math.asinh(self.reach / self.linear)


@dataclass(frozen=True)
class ForestGroup:
    """Holds the rows under one heading. scale: the one that they share; None gives each row its own."""

    title: str
    rows: Sequence[ForestRow]
    scale: Scale | None


@dataclass(frozen=True)
class Places:
    """Says where things stand across the figure, in inches, and how many letters of words fit a line.

    below: whether a row is drawn below its words rather than beside them.
    """

    width: float
    left: float
    right: float
    letters: int
    below: bool

    @property
    def middle(self) -> float:
        """Returns where zero stands."""
        return (self.left + self.right) / 2

    def of(self, value: float, scale: Scale) -> float:
        """Returns where a number stands."""
        return self.middle + scale.place(value) * (self.right - self.left) / 2


WIDE_PLACES = Places(WIDE, 3.05, 5.45, 52, below=False)
NARROW_PLACES = Places(NARROW, 0.08, 2.25, 58, below=True)


def own_scale(row: ForestRow) -> Scale:
    """Returns an even scale that shows all of one row."""
    found = [*row.compared, *(row.interval or ()), row.estimate or 0.0]
    return Scale(1.12 * max(map(abs, found)) or 1.0)


def draw_forest(
    groups: Sequence[ForestGroup], marks: Mapping[str, dict[str, str]], narrow: bool = False, legend: bool = True
) -> Figure:
    """Draws the groups below each other. marks: a style for each mark, in the order of the legend."""
    places = NARROW_PLACES if narrow else WIDE_PLACES
    head = LEGEND * (2 if narrow else 1) if legend else 0.0
    height = head + sum(group_height(group, places) for group in groups) + 0.05
    with mpl.rc_context({**STYLE, "font.size": LETTERS}):
        figure = Figure(figsize=(places.width, height))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        ax.set(xlim=(0, places.width), ylim=(height, 0))
        ax.set_axis_off()
        if legend:
            draw_legend(ax, marks, narrow)
        top = head
        for group in groups:
            draw_group(ax, group, marks, places, top)
            top += group_height(group, places)
    return figure


def lines_of(row: ForestRow, places: Places) -> list[str]:
    """Returns a row's words in lines that fit."""
    return textwrap.wrap(f"{row.name}  {row.words}", places.letters)


def row_height(row: ForestRow, places: Places) -> float:
    """Returns the inches that a row takes."""
    return LINE * (len(lines_of(row, places)) + places.below) + GAP


def group_height(group: ForestGroup, places: Places) -> float:
    """Returns the inches that a group takes with its heading and its scale."""
    return HEADING + sum(row_height(row, places) for row in group.rows) + (TICKS if group.scale else 0.1)


def draw_legend(ax: Axes, marks: Mapping[str, dict[str, str]], narrow: bool) -> None:
    """Draws what markers mean, in one line, or two on a narrow figure."""
    entries: list[tuple[str, dict[str, object]]] = [(name, as_marker(style)) for name, style in marks.items()]
    entries.append(("the paper's own number", {**COMPARED}))
    step = 1.2 if narrow else 1.15
    for place, (name, style) in enumerate(entries):
        x, y = 0.1 + step * (place % 3 if narrow else place), 0.12 + 0.2 * (place // 3 if narrow else 0)
        ax.plot([x], [y], linestyle="none", **style)  # type: ignore[arg-type]
        ax.text(x + 0.1, y, name, va="center")


def as_marker(style: Mapping[str, str]) -> dict[str, object]:
    """Returns what matplotlib needs to draw a mark: its colour, form and filling."""
    colour = style["color"]
    filling = "white" if style.get("filled") == "no" else colour
    return {"color": colour, "marker": style["marker"], "markerfacecolor": filling, "markersize": 4.8}


def draw_group(
    ax: Axes, group: ForestGroup, marks: Mapping[str, dict[str, str]], places: Places, top: float
) -> None:
    """Draws a heading, its rows, the line of zero behind them, and the scale that they share."""
    ax.text(0.02, top + HEADING - 0.12, group.title, fontweight="bold", fontsize=LETTERS + 1, va="center")
    first = y = top + HEADING
    for row in group.rows:
        words = lines_of(row, places)
        middle = y + LINE * (len(words) + 0.5 if places.below else len(words) / 2)
        for n, line in enumerate(words):
            ax.text(0.02, y + LINE * (n + 0.5), line, va="center")
        draw_row(ax, row, as_marker(marks[row.mark]), group.scale or own_scale(row), places, middle)
        y += row_height(row, places)
        ax.plot([0.02, places.width - 0.02], [y - GAP / 2] * 2, color="#e5e5e5", linewidth=0.4, zorder=0)
    if group.scale:
        draw_scale(ax, group.scale, places, y)
    if not places.below:
        ax.plot([places.middle] * 2, [first, y], color="#999999", linewidth=0.7, zorder=0)


def draw_row(ax: Axes, row: ForestRow, style: dict[str, object], scale: Scale, places: Places, y: float) -> None:
    """Draws margin, interval, effect and compared numbers of a row, and its number at the right."""
    half = 0.07
    if places.below:
        ax.plot([places.middle] * 2, [y - half, y + half], color="#999999", linewidth=0.7, zorder=0)
    if row.margin is not None:
        ends = [places.of(end, scale) for end in (-row.margin, row.margin)]
        ax.fill_between(ends, y - half, y + half, color="#dddddd", linewidth=0, zorder=0)
    if row.interval is not None:
        draw_interval(ax, row.interval, str(style["color"]), scale, places, y)
    if row.compared:
        xs = [places.of(value, scale) for value in row.compared]
        ax.plot([min(xs), max(xs)], [y, y], color="#1b1b1b", linewidth=0.6, linestyle=":", zorder=2)
        middle = places.of(sum(row.compared) / len(row.compared), scale)
        ax.plot([middle], [y], zorder=5, **COMPARED)  # type: ignore[arg-type]
    if row.estimate is not None:
        ax.plot([places.of(row.estimate, scale)], [y], zorder=4, **style)  # type: ignore[arg-type]
    colour = "#1b1b1b" if row.estimate is not None else GREY
    ax.text(places.width - 0.02, y, row.number, va="center", ha="right", color=colour)


def draw_interval(
    ax: Axes, interval: tuple[float, float], colour: str, scale: Scale, places: Places, y: float
) -> None:
    """Draws an interval with bars at its ends; an arrow stands for an end that lies beyond the scale."""
    ends = [min(max(end, -scale.reach), scale.reach) for end in interval]
    xs = [places.of(end, scale) for end in ends]
    ax.plot(xs, [y, y], color=colour, linewidth=1.3, zorder=1, solid_capstyle="butt")
    for x, end, shown, arrow in zip(xs, interval, ends, ("<", ">"), strict=True):
        ax.plot([x], [y], marker="|" if end == shown else arrow, color=colour, markersize=3.5, zorder=1)


def draw_scale(ax: Axes, scale: Scale, places: Places, y: float) -> None:
    """Draws the scale below a group, with its numbers."""
    ax.plot([places.left, places.right], [y, y], color="#1b1b1b", linewidth=0.7)
    for value in NUMBERS:
        x = places.of(value, scale)
        ax.plot([x, x], [y, y + 0.04], color="#1b1b1b", linewidth=0.7)
        words = number_cell(value, 2, signed=True) if value else "0"
        ax.text(x, y + 0.11, words, ha="center", va="center", fontsize=LETTERS - 0.5)
