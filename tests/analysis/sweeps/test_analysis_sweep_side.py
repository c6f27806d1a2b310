"""Our tables in the paper's layout hold the kept numbers, and the sweeps' figures are whole: nothing cut or covered."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.draw.table import DASH
from analysis.paper.tables import PAPER_TABLES
from analysis.sweeps.figures import figures_of
from analysis.sweeps.kept import FOLDER, KeptSweep, read_results
from analysis.sweeps.numbered_tables import OUR_TABLES
from analysis.sweeps.tables import cost_table

KEPT = {path.stem: read_results(path) for path in sorted(FOLDER.glob("*.jsonl"))}
FIGURES = {stem: draw for kept in KEPT.values() for stem, draw in figures_of(kept).items()}
# one of each kind, with most arms, panels or panels of the paper
DRAWN = ("ce_gppo_mechanism", "figure3_curves", "figure2_curves", "collapse_map", "stability_map", "figure1")


def mean_of(sweep, benchmark, **arm):
    found = [
        run["scores"][benchmark][max(run["scores"][benchmark], key=int)]
        for run in KEPT[sweep].runs
        if benchmark in run["scores"] and all(str(run["arm"][k.replace("__", ".")]) == v for k, v in arm.items())
    ]
    return f"{np.mean(found):.3f}"


@pytest.mark.parametrize("name", [name for name in OUR_TABLES if name in KEPT])
def test_columns_and_rows_are_those_of_the_papers_table(name):
    ours = OUR_TABLES[name](KEPT[name])
    papers = PAPER_TABLES[name]()
    if name in ("table2", "table4"):
        assert ours.columns == papers.columns
    if name == "table6":
        assert [row[0].replace("0.0", "0") if row[0] == "alpha = 0.0" else row[0] for row in ours.rows] == [
            row[0] for row in papers.rows
        ]
        assert ours.rules == papers.rules
    assert all(cell for row in ours.rows for cell in row) and ours.bold


def test_cells_are_means_of_the_kept_scores():
    two = OUR_TABLES["table2"](KEPT["table2"])
    row = {cells[0]: cells for cells in two.rows}["code6"]
    assert row[3].split(" ")[0] == mean_of("table2", "code6", difficulty_filter="hard", correctness="only_true")
    four = OUR_TABLES["table4"](KEPT["table4"])
    assert four.rows[1][4].split(" ")[0] == mean_of("table4", "chain8", data__top_sources="6")
    one = OUR_TABLES["table1"](KEPT["table1"])
    assert {cells[0]: cells for cells in one.rows}["SFT and RL"][2].split(" ")[0] == mean_of(
        "table1", "chain8", recipe="sft_rl"
    )
    six = OUR_TABLES["table6"](KEPT["table6"])
    started = [run["scores"]["chain6"]["0"] for run in KEPT["table6"].runs]
    assert six.rows[0][1] == f"{sum(started) / len(started):.3f}"
    assert six.rows[3][2].split(" ")[0] == mean_of("table6", "chain8", rl__alpha="0.1")


def test_the_better_of_each_pair_is_bold():
    two = OUR_TABLES["table2"](KEPT["table2"])
    for number, row in enumerate(two.rows):
        for place in (1, 3, 5):
            a, b = (float(row[p].split(" ")[0]) for p in (place, place + 1))
            wanted = {(number, place)} if a > b else {(number, place + 1)} if b > a else set()
            assert {(number, place), (number, place + 1)} & set(two.bold) == wanted or a == b


def test_costs_are_means_over_the_runs_of_an_arm():
    curves = {"time/rollout_s": [3.0, 3.0], "time/reward_s": [1.0, None], "time/train_s": [2.0, 1.0]}
    runs = [
        {"arm": {"clip_method": "gppo"}, "seed": s, "seconds": 60 + 20 * s, "samples": 4, "tokens": 1000 * (s + 1)}
        | {"scores": {"chain6": {"0": 0.5}}, "curves": curves}
        for s in range(2)
    ]
    table = cost_table(KeptSweep({"sweep": "toy"}, runs))
    assert table.rows == [["gppo", "70", "1,500", "60%", "10%", "30%"]]
    for run in runs:
        run |= {"tokens": 0, "curves": {}}
    assert cost_table(KeptSweep({"sweep": "toy"}, runs)).rows == [["gppo", "70", *[DASH] * 4]]


def test_a_map_holds_the_mean_of_each_cell():
    figure = FIGURES["stability_map"](False)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in panels] == ["mini_batch_prompts=8", "mini_batch_prompts=2"]
    (image,) = panels[1].images
    runs = [
        run
        for run in KEPT["stability"].runs
        if run["arm"] == {"clip_method": "gppo", "rl.learning_rate": 4e-4, "rl.mini_batch_prompts": 2}
    ]
    finals = [np.mean([found[max(found, key=int)] for found in run["scores"].values()]) for run in runs]
    assert image.get_array()[3, 2] == pytest.approx(np.mean(finals))
    assert [label.get_text() for label in panels[0].get_yticklabels()][-1] == "GPPO"


def seven_benchmarks(narrow):
    names = [f"reasoning_gym_hard_{number}" for number in range(7)]
    runs = [
        {
            "arm": {"recipe": stage},
            "seed": 0,
            "samples": 4,
            "scores": {name: {"0": 0.5} for name in names},
            "curves": {},
        }
        for stage in ("sft", "sft_rl")
    ]
    return figures_of(KeptSweep({"sweep": "table1"}, runs))["figure1"](narrow)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("stem", [*DRAWN, "seven benchmarks"])
def test_nothing_is_empty_cut_or_covered(stem, narrow):
    figure = FIGURES.get(stem, seven_benchmarks)(narrow)
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.width, figure.bbox.height
    shown = [ax for ax in figure.axes if ax.axison]
    boxes = [ax.get_tightbbox() for ax in shown]
    for ax, box in zip(shown, boxes, strict=True):
        assert ax.has_data(), ax.get_title()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, ax.get_title()
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_an_arm_of_the_papers_figures_has_one_colour_on_both_sides():
    for stem in ("figure2_curves", "figure3_curves", "figure4_curves", "figure5_curves"):
        colours: dict[str, set[str]] = {}
        for line in [line for ax in FIGURES[stem](False).axes for line in ax.get_lines()]:
            colours.setdefault(str(line.get_label()), set()).add(str(line.get_color()))
        assert len(colours) == (3 if stem == "figure2_curves" else 2) and all(
            len(c) == 1 for c in colours.values()
        )
