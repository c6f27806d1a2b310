"""The choice between clip methods: the best setting is chosen by other seeds, and falls below the start are counted."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.draw.table import DASH
from analysis.sweeps.choice import best_by_others, choice_of, choice_table, is_a_choice
from analysis.sweeps.choice_figure import choice_figure, ticks_between
from analysis.sweeps.figures import caption_lines, figures_of
from analysis.sweeps.kept import KeptSweep

METHODS = ["gppo", "cispo", "clip_higher", "grpo", "gspo", "none"]
RATES, SEEDS, START = [1e-4, 4e-4], [0, 1, 2], 0.5


def sweep(score, methods=METHODS, rates=RATES, lacking=(), entropy=0.1):
    """Runs of each method, rate and seed; score: their final score from these three; None: not evaluated."""
    runs = []
    for method, rate, seed in itertools.product(methods, rates, SEEDS):
        if (method, rate, seed) in lacking:
            continue
        found = score(method, rate, seed)
        scores = {} if found is None else {"chain6": {"0": START, "8": found}}
        curves = {"policy/entropy": [0.2, None, entropy, entropy]} if entropy else {}
        arm = {"clip_method": method, "rl.learning_rate": rate}
        runs.append({"arm": arm, "seed": seed, "scores": scores, "curves": curves, "samples": 4})
    return KeptSweep({"sweep": "toy"}, runs)


def ranked(method, rate, seed):
    """Methods in the order of METHODS, each 0.3 lower at the high rate; seeds differ by 0.01."""
    return 0.9 - 0.05 * METHODS.index(method) - 0.3 * (rate == 4e-4) + 0.01 * seed


def test_the_setting_is_chosen_by_the_other_seeds():
    # by its own number the first seed would take the second setting, where the others are low
    assert best_by_others(np.array([[0.5, 0.5, 0.5], [0.9, 0.0, 0.0]])).tolist() == [0.5] * 3
    noise = np.random.default_rng(0).normal(size=(6, 5, 2000))
    judged = np.mean([best_by_others(noise[:, :, draw]).mean() for draw in range(2000)])
    assert abs(judged) < 0.03 < noise.mean(axis=1).max(axis=0).mean()  # the highest of means would be 0.57


def test_a_seed_without_runs_has_no_score_and_one_alone_chooses_for_itself():
    nan = np.nan
    assert np.isnan(best_by_others(np.array([[0.5, nan], [0.7, nan]]))[1])
    assert best_by_others(np.array([[nan, 0.4, 0.4], [0.2, 0.1, 0.3]])).tolist() == [0.2, 0.4, 0.4]
    assert best_by_others(np.array([[0.5], [0.7]])).tolist() == [0.7]


def test_methods_come_by_their_best_score_and_settings_are_found():
    choice = choice_of(sweep(ranked))
    assert [one.method for one in choice.summaries] == METHODS
    assert choice.settings == ["learning_rate=0.0001", "learning_rate=0.0004"]
    assert (choice.settings.index("learning_rate=0.0001"), choice.hardest) == (0, 1)
    assert choice.start_score == START and choice.start_entropy == pytest.approx(0.2)
    first = choice.summaries[0]
    assert first.best.mean == pytest.approx(0.91) and first.at(1).mean == pytest.approx(0.61)
    assert first.entropy_C == pytest.approx([0.1, 0.1])


def test_runs_below_their_start_are_counted():
    table = choice_table(sweep(ranked))
    cells = {row[0]: row for row in table.rows}
    assert cells["GPPO"][-1].startswith("0 of 6 [")
    assert cells["No clipping"][-1].startswith("3 of 6 [")  # 0.35 to 0.37 at the high rate, 0.65 at the other
    assert cells["GPPO"][3] == "learning_rate=0.0001"
    assert "Before RL the score is 0.500." in table.caption


def test_a_method_whose_best_setting_is_another_is_shown_at_it():
    table = choice_table(sweep(lambda method, rate, seed: 0.4 + 0.2 * ((rate == 4e-4) == (method == "gspo"))))
    best = {row[0]: (row[2].split(" ")[0], row[3]) for row in table.rows}
    assert best["GSPO"] == ("0.600", "learning_rate=0.0004")
    assert best["GPPO"] == ("0.600", "learning_rate=0.0001")


@pytest.mark.parametrize(
    "kept, wanted",
    [
        (sweep(ranked), True),
        (sweep(ranked, methods=METHODS[:5]), False),
        (sweep(ranked, rates=RATES[:1]), False),
        (sweep(lambda *_: None), False),
        (KeptSweep({"sweep": "toy"}, [{"arm": {"a": 1}, "seed": 0, "scores": {}, "curves": {}}]), False),
    ],
)
def test_only_many_methods_at_several_settings_are_a_choice(kept, wanted):
    assert is_a_choice(kept) is wanted
    assert ("toy_choice" in figures_of(kept)) is wanted


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "kept",
    [
        sweep(ranked),
        sweep(ranked, entropy=None),
        sweep(ranked, lacking={("gspo", 4e-4, seed) for seed in SEEDS} | {("gppo", 1e-4, 0)}),
        sweep(lambda method, *rest: None if method == "gspo" else ranked(method, *rest)),
    ],
    ids=["whole", "no entropy", "runs missing", "a method without scores"],
)
def test_the_figure_is_whole(kept, narrow):
    figure = choice_figure(kept, narrow)
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= width + 1 and b.y1 <= height + 1 for b in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= width
    assert len(figure.axes[0].get_yticklabels()) == len(METHODS)
    assert "Wilson" in caption_lines(["toy_choice"])["toy_choice"]
    assert all(DASH not in row[0] for row in choice_table(kept).rows)


@pytest.mark.parametrize(
    "low, high",
    [
        (0.04, 0.2),
        (0.001, 3.0),
        (0.09, 0.11),
        (1e-4, 1e-2),
        (0.21, 0.49),
        (0.55, 0.95),
        (0.11, 0.19),
        (0.35, 0.45),
    ],
)
def test_ticks_are_few_and_within(low, high):
    found = ticks_between(low, high)
    assert found and all(low <= place <= high for place in found) and len(found) <= 4


def test_a_method_that_lacks_a_setting_makes_none_look_hard():
    # gspo scores low and ran at the low rate alone, where all others score higher
    weak = sweep(
        lambda method, rate, seed: 0.3 if method == "gspo" else 0.9 - 0.05 * (rate == 4e-4),
        lacking={("gspo", 4e-4, seed) for seed in SEEDS},
    )
    choice = choice_of(weak)
    assert choice.settings[choice.hardest] == "learning_rate=0.0004"


def test_whole_and_no_scores_are_printed_apart():
    extreme = sweep(lambda method, rate, seed: float(rate == 1e-4))
    words = {text.get_text() for text in choice_figure(extreme).axes[1].texts}
    assert words == {"1.00", "0.00"}


def test_one_seed_says_that_it_chose_for_itself():
    one = sweep(ranked)
    one = KeptSweep(one.about, [run for run in one.runs if run["seed"] == 0])
    caption = choice_table(one).caption
    assert "One seed chooses its own best" in caption and "an interval needs two seeds" in caption
    labels = [text.get_text() for text in choice_figure(one).legends[0].get_texts()]
    assert "best, chosen by this seed" in labels
