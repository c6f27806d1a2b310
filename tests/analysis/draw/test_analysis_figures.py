"""Figures: the right data on the axes, one colour an arm everywhere, nothing cut, nothing overlapping."""

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.arms import arm_labels, describe_arm
from analysis.draw.figure import (
    METHOD_COLOURS,
    Block,
    Panel,
    arm_styles,
    as_bytes,
    draw_blocks,
)
from analysis.report.report import Results, figure2_blocks, summarise
from analysis.runs.comparable import comparable_sets
from analysis.runs.figures import clipping_figure
from analysis.runs.frames import load_runs
from klear_lab.metrics import BY_REGION, CLIPPING, names_in

Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_sweep: Writer, write_run: Writer) -> tuple[list, Results]:
    """Comparable sets and results of three arms over three seeds, and a variant with the longest name."""
    folder = write_sweep(tmp_path_factory.mktemp("figures"))
    for seed in (0, 1, 2):
        write_run(folder, "gppo", seed, clip={"dual_clip": 10})
    frames = load_runs(folder)
    sets = comparable_sets(frames)
    return sets, summarise(frames, sets[0])


@pytest.fixture(scope="module", params=["wide", "narrow"])
def all_figures(made: tuple[list, Results], request: pytest.FixtureRequest) -> list[Figure]:
    """Figure 2, the clipping figure, and Figure 2 with the paper's block alone."""
    sets, results = made
    narrow = request.param == "narrow"
    blocks = figure2_blocks(sets, results)
    return [
        draw_blocks(blocks, narrow),
        clipping_figure(results.clipping_curves, narrow),
        draw_blocks(blocks[1:], narrow),
    ]


def visible_texts(figure: Figure) -> list[Text]:
    """Texts that are drawn; tick labels outside the axis range exist but are not."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if text not in hidden]


def check_texts(figure: Figure) -> None:
    """No text of the figure is cut or overlaps another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in visible_texts(figure)]
    for index, (words, box) in enumerate(boxes):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, f"{words!r} is cut"
        for other_words, other in boxes[index + 1 :]:
            assert not box.overlaps(other), f"{words!r} overlaps {other_words!r}"


def test_no_text_is_cut_or_overlaps_another(all_figures: list[Figure]) -> None:
    for figure in all_figures:
        check_texts(figure)


@pytest.mark.parametrize("narrow", [False, True])
def test_many_benchmarks_of_figure_2_stand_in_rows(made: tuple[list, Results], narrow: bool) -> None:
    sets, results = made
    names = (
        "aime2024",
        "aime2025",
        "hmmt_2025",
        "livecodebench_v5",
        "livecodebench_v6",
        "reasoning_gym_hard_2025_09",
    )
    final, curves = (
        pd.concat([frame[frame[key] == "chain6"].assign(**{key: name}) for name in names])
        for frame, key in ((results.final, "benchmark"), (results.score_curves, "panel"))
    )
    blocks = figure2_blocks(sets, replace(results, final=final, score_curves=curves))
    assert [len(block.panels) for block in blocks] == [3, 4, 3] and not blocks[1].title
    check_texts(draw_blocks(blocks, narrow))


def test_a_legend_covers_no_axes_and_names_every_arm(all_figures: list[Figure]) -> None:
    for figure in all_figures[:2]:
        figure.draw_without_rendering()
        (legend,) = [part.legends[0] for part in figure.subfigs if part.legends]
        names = [text.get_text() for text in legend.get_texts()]
        assert names == ["GRPO w/ Clip-Higher", "CISPO", "GPPO", "GPPO (dual_clip=10)"]
        box = legend.get_window_extent()
        axes_boxes = [around for ax in figure.axes if (around := ax.get_tightbbox()) is not None]
        assert len(axes_boxes) == len(figure.axes) and not any(map(box.overlaps, axes_boxes))
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_our_panels_hold_the_means_of_the_statistics(made: tuple[list, Results]) -> None:
    sets, results = made
    figure = draw_blocks(figure2_blocks(sets, results))
    chain6 = results.score_curves[results.score_curves["panel"] == "chain6"]
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].get_lines()}
    assert drawn == {arm: own.sort_values("step")["mean"].tolist() for arm, own in chain6.groupby("arm")}
    assert [ax.get_title() for ax in figure.axes[:3]] == ["chain6 (avg@4)", "chain8 (avg@4)", "Gradient norm"]
    assert all(len(ax.get_lines()) == 4 and len(ax.collections) == 4 for ax in figure.axes[:3])


def test_every_clipping_panel_has_a_line_for_every_arm(made: tuple[list, Results]) -> None:
    figure = clipping_figure(made[1].clipping_curves)
    assert len(figure.axes) == len(names_in(CLIPPING, BY_REGION))
    assert all(len(ax.get_lines()) == 4 for ax in figure.axes)
    assert len({ax.get_ylim() for ax in figure.axes[len(names_in(CLIPPING)) :]}) == 1


def test_an_arm_has_one_colour_in_ours_and_in_the_papers_panels(made: tuple[list, Results]) -> None:
    figure = draw_blocks(figure2_blocks(*made))
    colours: dict[str, set[str]] = {}
    for line in [line for ax in figure.axes for line in ax.get_lines()]:
        colours.setdefault(str(line.get_label()), set()).add(str(line.get_color()))
    assert colours["GPPO"] == colours["GPPO (dual_clip=10)"] == {METHOD_COLOURS["gppo"]}
    assert colours["CISPO"] == {METHOD_COLOURS["cispo"]}
    assert colours["GRPO w/ Clip-Higher"] == {METHOD_COLOURS["clip_higher"]}


def test_a_band_reaches_from_the_lowest_to_the_highest_seed(made: tuple[list, Results]) -> None:
    sets, results = made
    figure = draw_blocks(figure2_blocks(sets, results))
    own = results.score_curves[results.score_curves["panel"] == "chain6"]
    edges = [np.asarray(band.get_paths()[0].vertices)[:, 1] for band in figure.axes[0].collections]
    assert min(edge.min() for edge in edges) == own["lowest"].min()
    assert max(edge.max() for edge in edges) == own["highest"].max()


VARIANTS = [f"CE-GPPO (beta1={index / 100}, beta2=1.25)" for index in range(9)]
KEYS = "gppo, hidden_size=64, rl.learning_rate=0.0002, prompts_per_step=32, zero_advantage_filter=null, steps={}"


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "arms", [VARIANTS, [*map(KEYS.format, range(9))], ["a", "very_long_name_" * 12], ["W" * 95, "M M" * 40, "b"]]
)
def test_a_legend_of_many_long_names_stays_inside(arms: list[str], narrow: bool) -> None:
    curves = pd.DataFrame({"panel": "p", "method": "ce_gppo", "arm": arms, "step": 1, "mean": 0.5, "seeds": 1})
    figure = draw_blocks([Block("Ours", [Panel("p", "p")], curves.assign(lowest=0.5, highest=0.5))], narrow)
    figure.draw_without_rendering()
    legend = figure.subfigs[-1].legends[0]
    box = legend.get_window_extent()
    assert ["".join(text.get_text().split()) for text in legend.get_texts()] == [
        *("".join(arm.split()) for arm in sorted(arms))
    ]
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    assert box.y1 <= min(around.y0 for ax in figure.axes if (around := ax.get_tightbbox()) is not None)


@pytest.mark.parametrize(
    "words", ["a$b$c", r"\$5", "in $ and x_{ in $", r"$\frac{$", "sft.seed=${seed} data.seed=${seed}"]
)
def test_dollar_signs_in_names_and_titles_are_drawn_as_they_are(words: str) -> None:
    curves = pd.DataFrame({"panel": words, "method": "gppo", "arm": [words], "step": 1, "mean": 0.5, "seeds": 1})
    figure = draw_blocks([Block(words, [Panel(words, words)], curves.assign(lowest=0.5, highest=0.5))])
    svg = as_bytes(figure, "svg", letters="none").decode()
    assert svg.count(f">{html.escape(words, quote=False)}</text>") == 3  # the title, the panel's and the legend


@pytest.mark.parametrize("narrow", [False, True])
def test_long_titles_take_lines_that_fit(narrow: bool) -> None:
    curves = pd.DataFrame({"panel": "p", "method": "gppo", "arm": "GPPO", "step": [0, 9], "mean": 0.5, "seeds": 1})
    panels = [
        Panel("p", title) for title in ("a long title of a panel", "eval/unbroken_benchmark_name/avg@4", "b")
    ]
    title = (
        "rl.learning_rate=1e-4,2e-4 sft.learning_rate=1e-3,5e-3 clip_method.dual_clip=null,1.28 (mean of 5 seeds)"
    )
    figure = draw_blocks([Block(title, [*panels, panels[1]], curves.assign(lowest=0.5, highest=0.5))], narrow)
    check_texts(figure)
    assert min(ax.get_window_extent().height for ax in figure.axes) > 0.9 * figure.dpi


def test_keys_of_an_arm_are_whole_where_their_last_parts_are_the_same() -> None:
    arm = {"clip_method": "gppo", "rl.learning_rate": 1e-4, "sft.learning_rate": 1e-3, "rl.alpha": 0.1}
    assert describe_arm(arm) == "gppo, rl.learning_rate=0.0001, sft.learning_rate=0.001, alpha=0.1"
    assert describe_arm({key: arm[key] for key in [*arm][:2]}) == "gppo, learning_rate=0.0001"


def test_variants_of_one_method_can_be_told_apart() -> None:
    arms = [("gppo", "GPPO"), ("gppo", "GPPO (dual_clip=3)"), ("new_method", "new_method")]
    styles = arm_styles(pd.DataFrame(arms, columns=["method", "arm"]))
    assert list(styles) == ["GPPO", "GPPO (dual_clip=3)", "new_method"]
    assert styles["GPPO"]["linestyle"] != styles["GPPO (dual_clip=3)"]["linestyle"]


@pytest.mark.parametrize("methods, variants", [(2, 7), (14, 1), (1, 14), (7, 2)])
def test_as_many_arms_as_a_figure_may_have_look_different(methods: int, variants: int) -> None:
    for names in (["gppo", "cispo", *"abcdefghijklmn"], [*"abcdefghijklmn"]):
        arms = [(name, f"{name} {n:02}") for name in names[:methods] for n in range(variants)]
        styles = arm_styles(pd.DataFrame(arms, columns=["method", "arm"]))
        assert len({tuple(style.values()) for style in styles.values()}) == methods * variants


def test_one_seed_is_drawn_without_a_band(tmp_path: Path, write_run: Writer) -> None:
    for method in ("cispo", "gppo"):
        write_run(tmp_path, method)
    frames = load_runs(tmp_path)
    sets = comparable_sets(frames)
    figure = draw_blocks(figure2_blocks(sets, summarise(frames, sets[0])))
    assert not any(ax.collections for ax in figure.axes)


def test_a_metric_that_no_run_has_says_so_instead_of_an_empty_panel(made: tuple[list, Results]) -> None:
    curves = made[1].clipping_curves
    figure = clipping_figure(curves[curves["panel"] != "policy/entropy"])
    assert [text.get_text() for text in figure.axes[3].texts] == ["no values"]


def test_a_method_of_ones_own_is_named_after_its_function_and_has_a_colour_of_its_own():
    own = [{"name": "custom", "function": f"{file}.py:{name}", "source": name} for file, name in ("ab", "cd")]
    assert arm_labels([*own, {"name": "gppo"}]) == ["b", "d", "GPPO"]
    other = {**own[0], "source": "later"}
    assert arm_labels([own[0], other]) == ["b (source=b)", "b (source=later)"]
    arms = [("b", "b"), ("clip_higher", "Clip-Higher"), ("d", "d"), ("gppo", "GPPO"), ("gspo", "GSPO")]
    styles = arm_styles(pd.DataFrame(arms, columns=["method", "arm"]))
    assert len({style["color"] for style in styles.values()}) == len(arms)
