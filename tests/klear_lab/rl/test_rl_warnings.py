"""Warnings of a run: each is told once, in the log, run.json and wandb, whatever interrupts the run."""

import pytest

from analysis.runs.wandb_file import records
from klear_lab.pipeline import run_pipeline
from klear_lab.rl import runaway, stage
from klear_lab.rl.runaway import Rule
from klear_lab.validation import parse

ALWAYS = Rule(
    "length",
    "rollout/length_mean",
    lambda values: [0.0] * len(values),
    lambda value, _: True,
    "{value:.0f} tokens",
    "wait",
)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """One rule, which holds at every step, so that it warns at step 3."""
    monkeypatch.setattr(runaway, "RULES", (ALWAYS,))


@pytest.fixture
def start(composed_config, tmp_path, caplog):
    """Runs, or goes on with, one config; returns the folder and the warnings in the log."""

    def begin(*overrides):
        composed = composed_config(f"runs_dir={tmp_path}", "eval.every=9", *overrides)
        caplog.clear()
        folder = run_pipeline(parse(composed), composed)
        return folder, told(caplog)

    return begin


def told(caplog):
    return [record.getMessage() for record in caplog.records if "people" in record.getMessage()]


def killed_at(step, monkeypatch):
    """Makes the checkpoint of a step fail, as if the run were killed before it."""
    whole = stage.save_checkpoint

    def save(state, *arguments):
        if state.step == step:
            raise KeyboardInterrupt
        whole(state, *arguments)

    monkeypatch.setattr(stage, "save_checkpoint", save)


def test_an_episode_is_one_line_one_entry_and_one_alert(start):
    folder, lines = start("rl.steps=5", "logger=offline")
    ((warning,), (line,)) = folder.record["warnings"], lines
    assert (warning["kind"], warning["step"]) == ("length", 3)
    assert warning["text"].startswith("RL step 3: ") and warning["text"].endswith("in a row; people wait")
    assert line == f"[run seed 0] {warning['text']}"
    (file,) = folder.path.glob("wandb/offline-run-*/*.wandb")
    alerts = [r.alert for r in records(file) if r.WhichOneof("record_type") == "alert"]
    assert [(alert.title, alert.text) for alert in alerts] == [("length", warning["text"])]


def test_a_quiet_run_says_that_it_has_no_warnings(start, monkeypatch):
    monkeypatch.setattr(runaway, "RULES", ())
    folder, lines = start("rl.steps=2")
    assert folder.record["warnings"] == lines == []


@pytest.mark.parametrize("killed", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_resumed_run_does_not_warn_twice(start, monkeypatch, caplog, killed):
    with monkeypatch.context() as patched:
        killed_at(killed, patched)
        with pytest.raises(KeyboardInterrupt):
            start("rl.steps=5")
        assert len(told(caplog)) == 1
    folder, lines = start("rl.steps=5")
    assert lines == [] and [one["step"] for one in folder.record["warnings"]] == [3]


def test_a_warning_that_the_step_taken_again_does_not_give_is_taken_back(start, monkeypatch):
    with monkeypatch.context() as patched:
        killed_at(3, patched)
        with pytest.raises(KeyboardInterrupt):
            start("rl.steps=4")
    monkeypatch.setattr(runaway, "RULES", ())
    assert start("rl.steps=4")[0].record["warnings"] == []


@pytest.mark.slow
def test_a_phase_is_not_compared_with_the_one_before(start):
    folder, _ = start("data_source=chain_and_functions", "rl.phases=[{steps: 2}, {steps: 3}]", "reward_workers=1")
    assert [one["step"] for one in folder.record["warnings"]] == [5]
