"""The evaluation before RL is made once for all arms of one checkpoint, and is what each of them would have found."""

import copy
from contextlib import nullcontext

import pandas as pd
import pytest
import torch

from klear_lab import pipeline
from klear_lab.rl import stage
from klear_lab.rl.first_evaluation import first_evaluation, sample_of_weights
from klear_lab.storage.files import StorageError
from klear_lab.storage.interruption import Interrupted, Stop


def first_line(folder):
    return next(line for line in folder.metrics() if line["stage"] == "rl" and line["step"] == 0)


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "runs" / "cache").glob("evaluation-*") if path.is_dir())


def test_a_second_arm_finds_what_it_would_have_measured(run, tmp_path):
    run("clip_method=gppo")
    found = run("clip_method=cispo")
    measured = run("clip_method=cispo", f"runs_dir={tmp_path / 'alone'}")
    pd.testing.assert_frame_equal(found.evaluations(), measured.evaluations())
    lines = [first_line(folder) for folder in (found, measured)]
    assert lines[1].pop("time/eval_s") > 0
    assert lines[0] == lines[1] and any("avg@" in key for key in lines[0])
    assert all("time/eval_s" in line for line in found.metrics() if line["stage"] == "rl" and line["step"] == 2)
    assert found.record["stages"]["evaluation"]["seconds"] > 0


@pytest.mark.slow
def test_only_arms_with_the_same_start_and_draws_share(run, tmp_path):
    run()
    for override in ("clip_method=grpo", "rl.learning_rate=3e-4", "rl.temperature=0.9", "eval.every=2"):
        run(override)
    expected = 1
    assert len(kept(tmp_path)) == expected
    for override in ("seed=1", "eval.temperature=0.9", "rl.max_response_tokens=31", "sft.seed=5"):
        run(override)
        expected += 1
        assert len(kept(tmp_path)) == expected, override


def test_without_rl_the_answers_are_kept_and_nothing_is_shared(run, tmp_path):
    folder = run("rl.steps=0")
    assert kept(tmp_path) == [] and folder.lines("answers.jsonl")


@pytest.mark.parametrize("file", ["scores.json", "samples.parquet"])
def test_a_damaged_one_is_named(run, tmp_path, file):
    run("clip_method=gppo")
    (place,) = kept(tmp_path)
    path = tmp_path / "runs" / "cache" / place / file
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(StorageError, match=rf"{place}: damaged .*; delete this folder"):
        run("clip_method=cispo")


def test_weights_that_were_trained_again_are_others(policy):
    before = sample_of_weights(policy)
    assert sample_of_weights(copy.deepcopy(policy)) == before
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 1e-6
    assert sample_of_weights(policy) != before


def test_a_stop_during_it_takes_no_rl_step(run, monkeypatch):
    stop = Stop()

    def evaluate_then_stop(*arguments):
        stop.asked = True
        return first_evaluation(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "first_evaluation", evaluate_then_stop)
        patch.setattr(pipeline, "stop_on_signals", lambda file: nullcontext(stop))
        with pytest.raises(Interrupted, match="saved before the first RL step; the same command goes on"):
            run()
    folder = run()
    assert [line["step"] for line in folder.metrics() if line["stage"] == "rl"] == [0, 1, 2]
