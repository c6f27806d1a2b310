"""The paper's side: every number of its tables and figures is the file's, in the paper's layout, best values marked."""

import re

import numpy as np
import pandas as pd
import pytest

from analysis.draw.table import to_latex, to_markdown
from analysis.paper.figures import PAPER_FIGURES
from analysis.paper.numbers import DATA, published_arms
from analysis.paper.tables import (
    LONG_MODEL,
    PAPER_TABLES,
    paper_table1,
    paper_table2,
    paper_table4,
    paper_table6,
)

CSV = pd.read_csv(DATA / "tables.csv")


def numbers_of(text):
    return sorted(float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", text))


@pytest.mark.parametrize("name", PAPER_TABLES)
@pytest.mark.parametrize("form", [to_markdown, to_latex])
def test_a_table_holds_each_number_of_the_file_once_in_every_format(name, form):
    table = PAPER_TABLES[name]()
    wanted = sorted(CSV.loc[CSV["table"] == name, "value"])
    cells = [cell for row in table.rows for cell in row[1:]]
    assert sorted(map(float, cells)) == pytest.approx(wanted)
    body = form(table).split("---" if form is to_markdown else "\\midrule", 1)[1]
    for row in table.rows:
        body = body.replace(row[0], "")
    assert numbers_of(re.sub(r"alpha *= *[\d.]+", "", body)) == pytest.approx(wanted)


def test_a_cell_stands_where_its_row_and_column_meet():
    values = CSV.set_index(["table", "row", "column"])["value"]
    one, two, four = paper_table1(), paper_table2(), paper_table4()
    row = {cells[0]: cells for cells in one.rows}
    assert float(row["POLARIS-4B-Preview"][4]) == values["table1", "POLARIS-4B-Preview", "livecodebench_v5"]
    assert one.columns[4] == ("Benchmark", "LCB V5 (avg@8)")
    assert two.columns[3:5] == [("Hard", "Only True"), ("Hard", "Mixed")]
    assert float(two.rows[2][4]) == values["table2", "hard/mixed", "livecodebench_v5"]
    assert [name for _, name in four.columns] == ["Benchmark", *(f"Top{k}" for k in (1, 2, 4, 6, 8, 10))]
    assert float(four.rows[3][6]) == values["table4", "top10", "livecodebench_v6"]


def test_table_1_has_the_papers_rule_indent_and_marks():
    table = paper_table1()
    assert table.rows[-1][0] == "\N{EM SPACE}w/ 64K Inference Budget"
    (ruled,) = table.rules
    assert table.rows[ruled][0] == "Klear-Reasoner-8B-SFT"
    for column in range(1, 6):
        values = np.array([float(row[column]) for row in table.rows])
        bold = [r for r, c in table.bold if c == column]
        second = [r for r, c in table.underlined if c == column]
        assert values[bold].min() == values.max()
        assert values[second].min() == sorted(values)[-2] == values[second].max()
    assert LONG_MODEL in set(CSV["row"])
    latex = to_latex(table)
    assert latex.count("\\textbf") == len(table.bold) and latex.count("\\underline") == len(table.underlined)
    assert latex.index("\\midrule\nKlear-Reasoner-8B-SFT") > 0 and "\\quad w/ 64K" in latex


def test_the_better_of_each_pair_of_table_2_is_bold_and_the_best_of_each_row_elsewhere():
    two = paper_table2()
    for r, row in enumerate(two.rows):
        for c in (1, 3, 5):
            better = c if float(row[c]) > float(row[c + 1]) else c + 1
            assert {(r, c), (r, c + 1)} & set(two.bold) == {(r, better)}
    for name in ("table3", "table4", "table5"):
        table = PAPER_TABLES[name]()
        for r, row in enumerate(table.rows):
            assert {c for i, c in table.bold if i == r} == {1 + int(np.argmax([float(v) for v in row[1:]]))}
    six = paper_table6()
    assert six.rules == {1} and six.rows[0][0] == "Starting Checkpoint" and six.bold == {(3, 1), (3, 2)}


@pytest.mark.parametrize("name", ["figure3", "figure4", "figure5"])
def test_the_drawn_points_are_the_files(name):
    points = pd.read_csv(DATA / "curves.csv").query("figure == @name")
    groups = points.sort_values("step").groupby(["panel", "series"])
    wanted = sorted(tuple(zip(g["step"].astype(float), g["value"], strict=True)) for _, g in groups)
    lines = [line for ax in PAPER_FIGURES[name]().axes for line in ax.get_lines()]
    assert sorted(tuple(map(tuple, np.asarray(line.get_xydata()).tolist())) for line in lines) == wanted
    assert len(published_arms(name)) == len(points)


def test_the_bars_of_figure_1_are_table_1():
    axes = PAPER_FIGURES["figure1"]().axes
    heights = sorted(float(bar.get_height()) for ax in axes for bar in ax.patches)
    assert heights == pytest.approx(sorted(CSV.loc[CSV["table"] == "table1", "value"]))
    assert [ax.get_title() for ax in axes] == ["AIME 2024", "AIME 2025", "HMMT 2025", "LCB V5", "LCB V6"]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", PAPER_FIGURES)
def test_nothing_is_cut_or_empty(name, narrow):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = PAPER_FIGURES[name](narrow=narrow)
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.width, figure.bbox.height
    for ax in figure.axes:
        assert ax.has_data()
        box = ax.get_tightbbox()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
