"""What RL had spent by each step: sums from the steps' own numbers, means over runs, and nothing where unknown."""

import pandas as pd
import pytest

from analysis.sweeps.kept import KeptSweep
from analysis.sweeps.spent import spent_of_kept, spent_of_runs


def kept_run(name, rollout, length, tokens=120):
    curves = {"time/rollout_s": rollout, "time/reward_s": [0.0, 1.0, 0.0], "time/train_s": [1.0, 1.0, 1.0]}
    return {"run_id": name, "tokens": tokens, "curves": {**curves, "rollout/length_mean": length}}


def test_a_kept_runs_tokens_are_spread_by_response_length_and_seconds_add_up():
    runs = [kept_run("a", [1.0, 2.0, 3.0], [10.0, 20.0, 30.0]), kept_run("b", [3.0, 2.0, 1.0], [30.0, 20.0, 10.0])]
    assert spent_of_kept(KeptSweep({}, runs[:1]), ["gppo"]) == {
        "gppo": {"tokens": [0, 20, 60, 120], "seconds": [0, 2.0, 6.0, 10.0]}
    }
    both = spent_of_kept(KeptSweep({}, runs), ["gppo", "gppo"])
    assert both == {"gppo": {"tokens": [0, 40, 80, 120], "seconds": [0, 3.0, 7.0, 10.0]}}


@pytest.mark.parametrize("change", [{"tokens": 0}, {"curves": {}}, {"length": [1.0, None, 1.0]}])
def test_an_arm_with_a_run_of_which_it_is_unknown_has_no_other_axis(change):
    known = kept_run("a", [1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    broken = {**kept_run("b", [1.0] * 3, change.get("length", [1.0] * 3)), **change}
    assert [*spent_of_kept(KeptSweep({}, [known, broken, known]), ["gppo", "gppo", "cispo"])] == ["cispo"]


def metrics(run_id, speeds, seconds=(1.0, 1.0, 2.0)):
    times = dict(zip(("time/rollout_s", "time/reward_s", "time/train_s"), seconds))
    rows = [{"stage": "rl", "step": n, "perf/tokens_per_s": s, **times} for n, s in enumerate(speeds, start=1)]
    return pd.DataFrame([{"stage": "rl", "step": 0}, *rows, {"stage": "sft", "step": 1}]).assign(run_id=run_id)


def test_runs_at_hand_have_their_own_tokens_of_each_step():
    frame = pd.concat([metrics("a", [5.0, 10.0]), metrics("b", [15.0, 20.0, 25.0])])
    runs = pd.DataFrame({"run_id": ["a", "b"], "arm": ["GPPO", "GPPO"]})
    # the mean ends where the shorter run ends
    assert spent_of_runs(frame, runs) == {"GPPO": {"tokens": [0, 40, 100], "seconds": [0, 4.0, 8.0]}}


def test_runs_without_times_or_with_a_missing_step_have_no_other_axis():
    runs = pd.DataFrame({"run_id": ["a"], "arm": ["GPPO"]})
    frame = metrics("a", [5.0, 10.0, 15.0])
    assert spent_of_runs(frame[frame["step"] != 2], runs) == {}
    assert spent_of_runs(frame.drop(columns="time/train_s"), runs) == {}
    assert spent_of_runs(metrics("a", [5.0, float("nan")]), runs) == {}
