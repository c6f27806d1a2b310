"""Works out the papers' own effects: differences between published numbers, to stand beside a claim's verdict.

Scores are in per cent, others in the curve's unit. The papers give one run an arm, so there is no interval.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from analysis.paper.numbers import published_curves, published_table

Published = dict[str, float]  # what is compared -> the difference


def row_differences(table: str, plus: str | Sequence[str], minus: str) -> Published:
    """Returns the difference of a row of a table, or of the mean of several, and another, by column."""
    frame = published_table(table)
    rows = [plus] if isinstance(plus, str) else plus
    a = frame[frame["row"].isin(rows)].groupby("column", sort=False)["value"].mean()
    b = frame[frame["row"] == minus].set_index("column")["value"]
    return {str(key): round(float(value), 2) for key, value in (a - b).dropna().items()}


def model_gaps(table: str, plus: str, minus: str, column: str) -> Published:
    """Returns the difference of two methods in a column, for each model of a table of rows "<model>+<method>"."""
    values = published_table(table).query("column == @column").set_index("row")["value"]
    models = [str(row).removesuffix(f"+{plus}") for row in values.index if str(row).endswith(f"+{plus}")]
    return {
        model.rpartition("-")[2]: round(float(values[f"{model}+{plus}"] - values[f"{model}+{minus}"]), 2)
        for model in models
    }


def few_against_many(table: str) -> Published:
    """Returns the mean of Top 1 and 2 less that of the rest, for each benchmark of Table 4 or 5."""
    frame = published_table(table).pivot_table(index="column", columns="row", values="value")
    few = frame[["top1", "top2"]].mean(axis=1)
    rest = frame.drop(columns=["top1", "top2"]).mean(axis=1)
    return {str(key): round(float(value), 2) for key, value in (few - rest).items()}


def last_points(figure: str, plus: str, minus: str) -> Published:
    """Returns the difference of two curves at their last common point, for each score panel, in per cent."""
    frame = published_curves(figure)
    found = {}
    for panel, points in frame[~frame["panel"].isin(["grad_norm", "reward"])].groupby("panel"):
        curves = points.pivot_table(index="step", columns="series", values="value")[[plus, minus]].dropna()
        found[str(panel)] = round(float(100 * (curves[plus] - curves[minus]).iloc[-1]), 2)
    return found


def from_curves(figure: str, panel: str, measure: Callable[[pd.Series], float]) -> Published:
    """Returns a measure of each curve in a panel."""
    frame = published_curves(figure)
    own = frame[frame["panel"] == panel].sort_values("step")
    return {str(name): round(float(measure(c["value"])), 4) for name, c in own.groupby("series")}


def curve_difference(
    figure: str, panel: str, measure: Callable[[pd.Series], float], plus: str, minus: str
) -> Published:
    """Returns a measure of one curve in a panel less that of another."""
    of_curve = from_curves(figure, panel, measure)
    return {panel: round(of_curve[plus] - of_curve[minus], 4)}


def none_published() -> Published:
    """Returns no numbers, for claims that a paper makes in words alone."""
    return {}


def mean_step(values: pd.Series) -> float:
    """Returns the mean absolute change from point to point."""
    return float(values.diff().abs().mean())


def rises(values: pd.Series) -> float:
    """Returns the mean of the last quarter less that of the first."""
    quarter = max(1, len(values) // 4)
    return float(values.iloc[-quarter:].mean() - values.iloc[:quarter].mean())
