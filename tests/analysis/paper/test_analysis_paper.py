"""The paper's numbers: the loader hands out the CSV files unchanged, and the figure plots just those."""

import numpy as np
import pandas as pd
import pytest

from analysis.draw.figure import draw_blocks
from analysis.paper.figures import PAPER_FIGURES, published_block
from analysis.paper.numbers import (
    DATA,
    METHOD_OF_SERIES,
    NAME_OF_SERIES,
    published_arms,
    published_curves,
    published_table,
)


def test_every_figure_and_table_of_the_paper_is_there() -> None:
    assert all(len(published_curves(f"figure{n}")) for n in (2, 3, 4, 5))
    assert all(len(published_table(f"table{n}")) for n in (1, 2, 3, 4, 5, 6))


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"figure9.*figure2"):
        published_curves("figure9")


def test_the_plotted_points_of_the_paper_are_those_of_the_csv() -> None:
    figure = draw_blocks([published_block("figure2", "Paper")])
    csv = pd.read_csv(DATA / "curves.csv")
    lines = [line for ax in figure.axes for line in ax.get_lines()]
    plotted = sorted(tuple(map(tuple, np.asarray(line.get_xydata()).tolist())) for line in lines)
    groups = csv[csv["figure"] == "figure2"].groupby(["panel", "series"])
    expected = sorted(tuple(zip(g["step"].astype(float), g["value"], strict=True)) for _, g in groups)
    assert plotted == expected and len(plotted) == 3 * len(METHOD_OF_SERIES)


def test_the_paper_has_one_curve_a_method_and_therefore_no_band() -> None:
    curves = published_arms("figure2")
    assert (curves["seeds"] == 1).all() and curves["half_width"].isna().all()
    figure = PAPER_FIGURES["figure2"]()
    assert not any(ax.collections for ax in figure.axes)
    assert figure.axes[2].get_ylim() == (0.0, 0.5)


def test_every_published_series_is_named_once() -> None:
    named = {*METHOD_OF_SERIES, *NAME_OF_SERIES}
    assert {*pd.read_csv(DATA / "curves.csv")["series"]} == named and not {*METHOD_OF_SERIES} & {*NAME_OF_SERIES}
    assert set(published_arms("figure2")["arm"]) == {"GRPO w/ Clip-Higher", "CISPO", "GPPO"}
    assert set(published_arms("figure4")["arm"]) == {"Filtered", "Unfiltered"}
