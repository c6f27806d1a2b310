"""The forest plot: simulated runs with known effects, missing seeds, a confounded run and an arm that failed."""

import itertools
import re
from pathlib import Path

import pytest

from analysis.claims.claims import CLAIMS
from analysis.claims.judge import claims_json, claims_table, judge_claims, sweeps_at_hand
from analysis.draw.figure import as_bytes
from analysis.draw.forest import ForestGroup, ForestRow, Scale
from analysis.paper.effects import from_curves
from analysis.report.forest import (
    MARKS,
    forest_caption,
    forest_figure,
    forest_groups,
    forest_svg,
    published_effects,
)
from analysis.report.report import write_report
from analysis.runs.frames import load_runs

EFFECT = 0.1  # of GPPO over CISPO on chain6; chain8 has half of it


@pytest.fixture(scope="module")
def simulated(write_run, tmp_path_factory) -> Path:
    """GPPO ends 0.1 above CISPO; one of CISPO's seeds is missing, another confounded; every Clip-Higher failed."""
    folder = tmp_path_factory.mktemp("forest") / "runs"
    for seed in range(6):
        level = 0.5 + 0.02 * seed

        def better(step, level=level, seed=seed):
            return level + (EFFECT + 0.02 * (-1) ** seed) * (step > 0)

        def plain(_, level=level):
            return level

        write_run(folder, "gppo", seed, score=better, prompts=50)
        write_run(folder, "clip_higher", seed, status="failed", error="Traceback\nMemoryError")
        if seed == 5:
            write_run(
                folder,
                "cispo",
                seed,
                score=lambda _: 0.9,
                prompts=50,
                settings={"rl": {"learning_rate": 0.1, "steps": 12}},
            )
        elif seed != 4:
            write_run(folder, "cispo", seed, score=plain, prompts=50)
    return folder


@pytest.fixture(scope="module")
def entries(simulated, tmp_path_factory):
    """The claims as judged from these runs alone."""
    return claims_json(judge_claims(sweeps_at_hand(load_runs(simulated), kept=tmp_path_factory.mktemp("none"))))


def row_of(entries, claim):
    groups = forest_groups(entries)
    return next(row for group in groups for row in group.rows if row.name == claim)


def test_the_known_effect_is_drawn_from_the_seeds_that_compare(entries):
    row = row_of(entries, "C8")
    # four seeds have both arms; effects of 0.12 and 0.08, half of them on chain8
    assert row.estimate == pytest.approx(0.75 * EFFECT, abs=1e-9)
    assert row.interval[0] < row.estimate < row.interval[1]
    entry = next(entry for entry in entries if entry["id"] == "C8")
    assert entry["seeds"] == 4 and row.interval == tuple(entry["interval"])


def test_an_arm_that_failed_leaves_its_claims_with_the_papers_number_alone(entries):
    for claim in ("C7", "C9"):
        row = row_of(entries, claim)
        assert (row.number, row.estimate, row.interval) == ("not run", None, None) and row.compared


def test_every_claim_has_one_row_with_the_tables_number(entries):
    table = claims_table(entries)
    cells = {
        row[0]: row[3].split(";")[0] for row in table.rows if row[3] != "\N{EN DASH}"
    }  # second judgements follow
    rows = {row.name: row for group in forest_groups(entries) for row in group.rows}
    assert sorted(rows) == sorted(entry["id"] for entry in entries)
    # without Clip-Higher the claims about all three methods have no effect
    assert {*cells} == {"C8", "C20"} and {name: rows[name].number for name in cells} == cells


def test_rows_stand_by_paper_and_kind_and_scores_share_a_scale(entries):
    titles = [group.title.partition(" (")[0] for group in forest_groups(entries)]
    assert titles == [
        *(f"Klear-Reasoner: {kind}" for kind in ("scores", "entropy", "training")),
        *(f"{paper}: {kind}" for paper in ("CE-GPPO", "DAPO") for kind in ("scores", "entropy")),
    ]
    assert {group.scale is None for group in forest_groups(entries) if ": scores" in group.title} == {False}
    assert {group.scale for group in forest_groups(entries) if ": scores" not in group.title} == {None}


def test_a_papers_per_cent_are_shares_beside_ours_and_other_units_stay():
    entries = {entry["id"]: entry for entry in claims_json(judge_claims({}))}
    assert published_effects(entries["C7"]) == pytest.approx((0.034, 0.02))
    assert published_effects(entries["C10"]) == pytest.approx((1.5079, 1.1111, 1.1905))
    assert published_effects(entries["C14"]) == (-0.0008,)  # a difference of arms, as ours is
    of_arms = [claim.id for claim in CLAIMS if getattr(claim.published, "func", None) is from_curves]
    assert of_arms == ["C10", "C17"]  # which are about each arm, and not about a difference


def test_one_seed_shows_its_mean_and_says_that_an_interval_needs_two(entries):
    one = {**next(entry for entry in entries if entry["id"] == "C8"), "seeds": 1, "interval": None}
    assert row_of([one], "C8").number == "+0.075, 1 seed"
    assert "an interval needs two seeds" in forest_caption([one])
    assert "an interval needs two seeds" not in forest_caption(entries)


def test_a_stretched_scale_keeps_order_signs_and_its_ends():
    scale = Scale(reach=1.0, linear=0.02)
    places = [scale.place(value) for value in (-1.0, -0.5, -0.01, 0.0, 0.01, 0.5, 1.0)]
    assert places == sorted(places) and places[0] == -1 and places[3] == 0 and places[-1] == 1
    assert places[4] > 0.05  # on an even scale an effect of 0.01 would stand on zero


def xs_of(figure, colour):
    return [line.get_xdata() for line in figure.axes[0].lines if line.get_color() == colour]


def test_marks_stand_where_their_numbers_are(monkeypatch):
    supported = MARKS["supported"]["color"]
    row = ForestRow("C8", "words", "+0.500 [0.250, 3.000]", "supported", 0.5, (0.25, 3.0), (0.1, 0.3))
    from analysis.draw.forest import WIDE_PLACES, draw_forest

    figure = draw_forest([ForestGroup("scores", [row], Scale(1.0))], MARKS)
    middle, half = WIDE_PLACES.middle, (WIDE_PLACES.right - WIDE_PLACES.left) / 2
    drawn = [list(xs) for xs in xs_of(figure, supported)[1:]]  # the first is the legend's
    assert drawn[0] == pytest.approx([middle + half / 4, middle + half])  # cut at the scale's end
    assert drawn[-1] == pytest.approx([middle + half / 2])
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"][1:]
    assert [line.get_xdata()[0] for line in diamonds] == pytest.approx([middle + 0.2 * half])
    assert [line.get_marker() for line in figure.axes[0].lines].count(">") == 1


@pytest.mark.parametrize("narrow", [False, True])
def test_no_words_of_the_plot_run_into_the_drawing_or_out_of_the_figure(entries, narrow):
    figure = forest_figure(entries, narrow)
    as_bytes(figure, "png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert min(box.x0 for box in boxes) >= 0 and max(box.x1 for box in boxes) <= figure.bbox.width
    assert min(box.y0 for box in boxes) >= 0 and max(box.y1 for box in boxes) <= figure.bbox.height
    assert not any(a.overlaps(b) for a, b in itertools.combinations([b.shrunk(0.9, 0.7) for b in boxes], 2))


@pytest.mark.slow
def test_the_page_shows_the_plot_before_the_table_and_tells_it_in_words(simulated, tmp_path):
    page = write_report(load_runs(simulated), tmp_path / "report", kept=tmp_path).read_text(encoding="utf-8")
    assert (
        page.index('aria-label="Forest plot') < page.index('<table id="claims"') < page.index("Figure 2: scores")
    )
    assert re.search(
        r'aria-label="Forest plot. Klear-Reasoner: scores [^"]*C7 not run, C8 supported, C9 not run', page
    )
    assert 'id="claims_more"' in page and page.count('<th class="detail">') == 3
    assert "MemoryError" in page and "learning_rate" in page


def test_each_group_is_a_part_for_print_and_the_first_has_the_legend(entries):
    parts = forest_svg(entries, "wide").split('<div class="part">')[1:]
    assert ["own number</text>" in part for part in parts] == [True, *[False] * (len(parts) - 1)]
    shown = [claim for part in parts for claim in re.findall(r">([CGD]\d+) ", part)]
    assert sorted(shown) == sorted(entry["id"] for entry in entries)
