"""The command line, as users call it: sweeps, messages, exit statuses, help, completion, any working directory."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from analysis.results import as_words

ROOT = Path(__file__).parents[2]
SMOKE = ["scale=smoke", "logger=none"]


@pytest.fixture
def call(tmp_path):
    """Runs `python -m klear_lab.run ...` in an empty folder."""

    def start(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "klear_lab.run", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )

    return start


def records(folder):
    return [json.loads(p.read_text()) for p in sorted((folder / "runs").glob("*/run.json"))]


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_sweep_trains_its_arms_and_ends_with_a_table(call, tmp_path, launcher):
    arguments = [*SMOKE, "clip_method=gppo,cispo", "seed=0,1", f"launcher={launcher}", "-m"]
    result = call(*arguments)
    assert result.returncode == 0, result.stderr
    found = records(tmp_path)
    assert sorted((r["arm"]["clip_method"], r["seed"]) for r in found) == [
        *(("cispo", 0), ("cispo", 1), ("gppo", 0), ("gppo", 1))
    ]
    assert {r["sweep"] for r in found} == {"scale=smoke clip_method=gppo,cispo"}
    assert sorted(r["stages"]["sft"]["from_cache"] for r in found) == [False, True, True, True]
    for record in found:
        assert f"runs/{record['run_id']}" in result.stderr
    again = call(*arguments)
    assert again.returncode == 0
    assert again.stderr.count("finished already") == 4


def test_a_failed_arm_does_not_stop_the_others_and_fails_the_sweep(call, tmp_path):
    result = call(*SMOKE, "data.sft_rows=5000", "data_source.sft_steps=[2,2],[3,8]", "-m")
    assert result.returncode == 1
    assert "1 of 2 arms failed; the same command tries them again" in result.stderr
    by_arm = {tuple(r["arm"]["data_source.sft_steps"]): r for r in records(tmp_path)}
    assert {arm: r["status"] for arm, r in by_arm.items()} == {(2, 2): "failed", (3, 8): "finished"}
    assert "there are only 9000 problems of that length" in by_arm[2, 2]["error"]


def test_an_arm_that_cannot_run_stops_the_sweep_before_anything_is_trained(call, tmp_path):
    result = call(*SMOKE, "rl.mini_batch_prompts=2,3", "-m")
    assert result.returncode == 1
    assert "rl.mini_batch_prompts=3: must divide rl.prompts_per_step=4, so one of 1, 2, 4" in result.stderr
    assert "Nothing was run." in result.stderr
    assert "Traceback" not in result.stderr
    assert records(tmp_path) == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rl.stpes=3", "rl.stpes: there is no such key; did you mean rl.steps?"),
        ("clip_method=gpo", "Available options in 'clip_method'"),
        ("rl.steps=-1", "rl.steps=-1: must be at least 0"),
        ("reward=format_only", "must be 0 with this reward"),
        ("device=mps", "device=mps: PyTorch finds none here"),
        ("sweep=figure2", "sweep=figure2: a sweep needs -m (--multirun) at the end of the command"),
    ],
)
def test_a_wrong_setting_is_one_message_without_traceback(call, tmp_path, override, words):
    result = call(*SMOKE, override)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert all(record["status"] == "failed" for record in records(tmp_path))


def test_an_unknown_option_in_a_sweep_is_one_message(call, tmp_path):
    result = call(*SMOKE, "clip_method=gppo,typo", "-m")
    assert result.returncode == 1
    assert "Could not find 'clip_method/typo'" in result.stderr
    assert "Warning" not in result.stderr and "Traceback" not in result.stderr
    assert records(tmp_path) == []


def start_long_sweep(folder, launcher):
    """Three arms, in a session of their own as in a terminal."""
    arguments = [*SMOKE, "rl.steps=400", "clip_method=gppo,cispo,none", f"launcher={launcher}", "-m"]
    return subprocess.Popen(
        [sys.executable, "-m", "klear_lab.run", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_saves_its_arms_and_goes_on(call, tmp_path, launcher, number):
    process = start_long_sweep(tmp_path, launcher)
    while not list((tmp_path / "runs").glob("*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it: to every process of the group
    else:
        process.send_signal(number)  # as `kill` does it: to the first process alone
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The sweep was stopped; the same command goes on with it" in messages
    assert "not started" in messages
    errors = [record["error"] for record in records(tmp_path)]
    assert errors and all("the same command goes on from there" in error for error in errors)
    assert all(
        (tmp_path / "runs" / r["run_id"] / "checkpoint.pt").exists()
        for r in records(tmp_path)
        if "RL" in r["error"]
    )


def test_ctrl_c_that_meets_workers_while_they_start_loses_nothing(call, tmp_path):
    process = start_long_sweep(tmp_path, "joblib")
    workers = ["pgrep", "-g", str(process.pid), "-f", "popen_loky_posix"]
    while subprocess.run(workers, stdout=subprocess.DEVNULL).returncode:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The sweep was stopped; the same command goes on with it" in messages
    assert "Traceback" not in messages and "not started" in messages


def test_the_same_run_twice_in_a_sweep_is_made_once(call, tmp_path):
    result = call(*SMOKE, "seed=0,0", "launcher=joblib", "-m")
    assert result.returncode == 0, result.stderr
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize("sweep", sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
def test_every_prepared_sweep_runs_all_its_arms_under_its_name(call, tmp_path, sweep):
    sizes = [
        "data.sft_rows=400",
        "data.sft_budget=40",
        "data.rl_rows=16",
        "data.benchmark_rows=2",
        "eval.samples=1",
    ]
    sizes += ["sft.steps=1", "rl.steps=1", "rl.prompts_per_step=8", "rl.responses_per_prompt=2"]
    params = yaml.safe_load((ROOT / "sweeps" / f"{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]
    # A recipe says itself how many steps there are.
    recipes = ["rl.steps", "sft.steps"] if "recipe" in params else []
    result = call(*SMOKE, f"sweep={sweep}", *(s for s in sizes if s.split("=")[0] not in recipes), "seed=0", "-m")
    assert result.returncode == 0, result.stderr
    swept = {key: str(values).split(",") for key, values in params.items() if "," in str(values) and key != "seed"}
    found = records(tmp_path)
    assert {record["sweep"] for record in found} == {sweep}
    arms = {tuple(typed(as_words(record["arm"][key])) for key in swept) for record in found}
    assert arms == set(itertools.product(*([typed(word) for word in words] for words in swept.values())))


def typed(word):
    """A value as Hydra reads it: 2e-4 and 0.0002 are one."""
    try:
        return float(word)
    except ValueError:
        return word


def test_help_lists_groups_keys_and_examples(call):
    result = call("--help")
    assert result.returncode == 0
    for words in (
        "clip_method: ce_gppo, cispo",
        "learning_rate: 0.0001",
        "clip_method=gppo,cispo -m",
        "--cfg job",
    ):
        assert words in result.stdout


def test_the_config_can_be_shown_resolved(call, tmp_path):
    result = call("--cfg", "job", "--resolve", "clip_method=ce_gppo")
    assert "beta1: 0.75" in result.stdout
    assert "cache_dir: runs/cache" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_tab_completion_offers_options_and_keys(call):
    for line, words in [("clip_method=c", "clip_method=cispo_upper"), ("rl.st", "rl.steps=")]:
        result = call("-sc", "query=bash", COMP_LINE=f"klear-lab {line}", COMP_POINT=str(len(f"klear-lab {line}")))
        assert words in result.stdout.split()
