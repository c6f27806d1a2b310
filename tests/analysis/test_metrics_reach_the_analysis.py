"""A new metric comes out everywhere from two places: its entry in the table, and the values that a run logs."""

import json

import pytest

from analysis.commands.compare import DRAWN
from analysis.commands.wandb_push import workspace_of
from analysis.report.report import GRADIENT_NORM
from analysis.runs.figures import clipping_figure, clipping_metrics
from analysis.runs.frames import load_runs
from analysis.statistics import metric_curves
from analysis.sweeps.figures import BESIDE_SCORES, figures_of
from analysis.sweeps.from_runs import keep_sweep
from analysis.sweeps.kept import FOLDER, read_results
from klear_lab import metrics
from klear_lab.metrics import METRICS, PAGE, Metric
from klear_lab.progress import describe

NEW = Metric(
    "clip/surprise",
    "Surprise of clipped tokens",
    "nats",
    "mean of -log p over clipped tokens",
    group=metrics.CLIPPING,
)


@pytest.fixture
def frames(write_run, tmp_path, monkeypatch):
    """Runs of two methods that log the new metric, as a contributor's code would, with its entry in the table."""
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, NEW))
    for method in ("cispo", "gppo"):
        for seed in (0, 1):
            path = write_run(tmp_path / "runs", method, seed) / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                if line["stage"] == "rl" and line["step"]:
                    line[NEW.name] = 0.5 * line["step"] + seed
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_runs(tmp_path / "runs")


def test_a_new_metric_is_kept(frames):
    kept = keep_sweep(frames, "figure2")
    found = {(run["arm"]["clip_method"], run["seed"]): run["curves"][NEW.name] for run in kept.runs}
    assert found["gppo", 1] == [0.5 * step + 1 for step in range(1, 13)]
    assert len(found) == 4


def test_a_new_metric_is_on_the_page_of_metrics(frames):
    page = PAGE.read_text(encoding="utf-8")
    assert NEW.name not in page
    row = "| `clip/surprise` | Surprise of clipped tokens | nats | mean of -log p over clipped tokens | yes |"
    assert row in metrics.with_tables(page)


def test_a_new_metric_has_a_panel_in_wandb(frames):
    spec = json.loads(
        workspace_of(keep_sweep(frames, "figure2"), "team", "project")._to_model().model_dump_json(by_alias=True)
    )
    sections = {part["name"]: part["panels"] for part in spec["spec"]["section"]["panelBankConfig"]["sections"]}
    assert [NEW.name] in [panel["config"]["metrics"] for panel in sections[metrics.CLIPPING]]


def test_a_new_metric_is_drawn_under_its_title(frames):
    mechanism = figures_of(keep_sweep(frames, "figure2"))["figure2_mechanism"](False)
    clipping = clipping_figure(metric_curves(frames.metrics, frames.runs, clipping_metrics()))
    for figure in (mechanism, clipping):
        (ax,) = [ax for ax in figure.axes if ax.get_title() == "Surprise of clipped\ntokens (nats)"]
        drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
        assert drawn["GPPO"] == [0.5 * step + 0.5 for step in range(1, 13)]


def test_a_new_metric_can_be_shown_on_the_console(frames, monkeypatch):
    monkeypatch.setitem(metrics.CONSOLE, NEW.name, "surprise {:.1f}")
    assert describe({"policy/entropy": 0.5, NEW.name: 1.25}) == "entropy 0.500  surprise 1.2"


def test_metrics_that_the_analysis_names_are_in_the_table_and_kept():
    beside = {name for names in BESIDE_SCORES.values() for name in names}
    in_results = {
        name for path in FOLDER.glob("*.jsonl") for run in read_results(path).runs for name in run["curves"]
    }
    assert {*beside, *DRAWN, GRADIENT_NORM, *in_results} <= {*metrics.kept_names()}


def test_without_an_entry_a_logged_name_is_kept_nowhere(frames, monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", METRICS)
    assert all(NEW.name not in run["curves"] for run in keep_sweep(frames, "figure2").runs)
