"""Tracking: a run logs what the table of metrics names, wandb gets the same, and labels tell arms apart."""

import json
import math
from pathlib import Path

import pytest

from analysis.runs.wandb_file import history, records
from klear_lab.metrics import METRICS, PAGE
from klear_lab.pipeline import run_pipeline
from klear_lab.progress import describe
from klear_lab.storage.run_folder import RunFolder
from klear_lab.tracking import cut, final_scores, run_label
from klear_lab.validation import parse
from klear_lab.verify.rewards import reasons

ROOT = Path(__file__).parents[2]
# What wandb holds beside the metrics: klear_lab/rl/probes.py and samples.py
NO_NUMBERS = ("_histogram", "clip/tokens", "samples")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One smoke run with wandb offline."""
    from hydra import compose, initialize_config_dir

    from klear_lab.config import register
    from klear_lab.validation import parse

    register()
    runs_dir = tmp_path_factory.mktemp("runs")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", overrides=["scale=smoke", "progress=off", f"runs_dir={runs_dir}"])
    return run_pipeline(parse(composed), composed, sweep="methods", arm={"clip_method": "gppo"})


def test_what_wandb_wrote_is_metrics_jsonl(finished_run):
    (file,) = finished_run.path.glob("wandb/offline-run-*/*.wandb")
    rows = history(file)
    lines = finished_run.metrics()
    assert len(rows) == len(lines) > 4
    for row, line in zip(rows, lines, strict=True):
        stage, step = line.pop("stage"), line.pop("step")
        assert row[f"{stage}/step"] == step
        numbers = {k: v for k, v in row.items() if not any(words in k for words in NO_NUMBERS)}
        own = {k: v for k, v in numbers.items() if not k.startswith("_") and not k.endswith("/step")}
        assert own == {key: value for key, value in line.items() if value is not None}
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps))


def test_wandb_has_histograms_of_every_step_and_a_table_of_the_most_clipped_tokens(finished_run):
    (file,) = finished_run.path.glob("wandb/offline-run-*/*.wandb")
    steps = [row for row in history(file) if row.get("rl/step", 0) > 0]
    for row, line in zip(steps, finished_run.lines("probes.jsonl"), strict=True):
        for name, histogram in line["histograms"].items():
            assert row[f"{name}_histogram/values"] == histogram["counts"]
    assert steps[-1]["clip/tokens/_type"] == "table-file"


def test_a_run_logs_the_metrics_of_the_table_and_no_others(finished_run):
    lines = finished_run.metrics()
    logged = {stage: {key for line in lines if line["stage"] == stage for key in line} for stage in ("sft", "rl")}
    for stage, names in logged.items():
        names -= {"stage", "step"}
        unknown = [name for name in names if not any(metric.matches(name) for metric in METRICS)]
        missing = [m.name for m in METRICS if (stage == "rl" or m.in_sft) and not any(map(m.matches, names))]
        assert (unknown, missing) == ([], []), stage
    assert {m.name for m in METRICS if any(map(m.matches, logged["sft"]))} == {m.name for m in METRICS if m.in_sft}
    assert {name for name in logged["rl"] if name.startswith("reward/reason/")} == {
        f"reward/reason/{why}" for why in reasons()
    }


def test_every_reason_of_a_reward_is_explained_in_the_documentation():
    page = PAGE.read_text(encoding="utf-8")
    assert [why for why in reasons() if f"`{why}`" not in page] == []


def test_metrics_are_numbers_or_null_and_start_with_the_evaluation_before_rl(finished_run):
    lines = finished_run.metrics()
    assert [line["stage"] for line in lines] == sorted((line["stage"] for line in lines), reverse=True)
    rl = [line for line in lines if line["stage"] == "rl"]
    assert [line["step"] for line in rl] == [0, 1, 2]
    assert {k for k in rl[0] if k.startswith("eval/")} == {"eval/chain6/avg@2", "eval/chain8/avg@2"}
    for line in lines:
        for key, value in line.items():
            assert key == "stage" or value is None or math.isfinite(value), key


def test_the_wandb_run_belongs_to_its_sweep(finished_run):
    (file,) = finished_run.path.glob("wandb/offline-run-*/*.wandb")
    found = records(file)
    (run,) = [r.run for r in found if r.WhichOneof("record_type") == "run"][:1]
    assert (run.run_group, run.display_name, run.run_id) == ("methods", "gppo seed 0", finished_run.path.name)
    assert {*run.tags} >= {"smoke", "clip_method=gppo"}
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["rl"]["steps"] == 2
    axes = {r.metric.glob_name or r.metric.name: r.metric.step_metric for r in found if r.HasField("metric")}
    assert axes["clip/*"] == axes["eval/*"] == axes["optim/updates"] == "rl/step"
    assert "optim/lr" not in axes  # of both stages: over wandb's own step


def test_labels_name_the_arm_and_the_seed():
    assert run_label({"clip_method": "gppo", "rl.learning_rate": 1e-4}, 3) == "gppo, learning_rate=0.0001 seed 3"
    assert run_label({}, 0) == "run seed 0"
    assert run_label({"rl.steps": 1, "sft.steps": 2}, None) == "rl.steps=1, sft.steps=2"
    assert run_label({"data.seed": 1, "cpu_threads": 2}, 0) == "data.seed=1, cpu_threads=2 seed 0"


def test_a_cut_name_ends_in_a_hash_of_the_whole():
    first, second = cut("x" * 200 + "1", 128), cut("x" * 200 + "2", 128)
    assert len(first) == len(second) == 128 and first != second and first[:119] == second[:119]
    assert cut("x" * 128, 128) == "x" * 128


def test_wandb_takes_names_groups_and_tags_however_long(tmp_path, composed_config):
    long = {
        "data_source.rl.columns": {"prompt": "p" * 100},
        "rl.phases": [{"ability": "math"}] * 9,
        "model.path": "",
    }
    composed = composed_config("logger=offline", f"runs_dir={tmp_path}", "rl.steps=0", "sft.steps=1")
    folder = run_pipeline(parse(composed), composed, sweep="s" * 500, arm=long)
    (file,) = folder.path.glob("wandb/offline-run-*/*.wandb")
    (run,) = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"][:1]
    assert len(run.run_group) == len(run.display_name) == 128
    assert all(1 <= len(tag) <= 64 for tag in run.tags) and len({*run.tags}) == 4


def test_the_console_shows_accuracy_entropy_clipping_and_scores():
    text = describe(
        {
            "reward/accuracy": 0.5,
            "policy/entropy": 0.1234,
            "clip/low_fraction": 0.01,
            "clip/high_fraction": 0.002,
            "eval/chain6/avg@4": 0.75,
        }
    )
    assert text == "accuracy 0.50  entropy 0.123  clip low 1.00%  high 0.20%  chain6/avg@4 0.75"


def test_final_scores_are_the_last_ones():
    lines = [{"eval/a/avg@2": 0.1}, {"eval/a/avg@2": 0.2, "loss/policy": 1.0}, {"loss/policy": 0.5}]
    assert final_scores(lines) == {"eval/a/avg@2": 0.2}


def test_half_a_line_at_the_end_of_metrics_is_not_a_line(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append_line("metrics.jsonl", {"stage": "rl", "step": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rl", "st')
    assert folder.metrics() == [{"stage": "rl", "step": 1}]
