"""The command line, as users call it: sweeps, messages, exit statuses, help, completion, any working directory.

Most commands are forked from a server that has everything imported; those that start workers or meet a signal have
an interpreter of their own.
"""

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from analysis.arms import as_words
from klear_lab.validation import parse
from support.server import SERVER

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


@pytest.fixture
def fork(tmp_path):
    """The same, forked: starts a command, and gives a function that waits for its result."""
    started = []

    def start(*arguments, **environment):
        outputs = [tmp_path / f"{name}_of_{len(list(tmp_path.glob('stdout*')))}" for name in ("stdout", "stderr")]
        process = SERVER.Process(target=run_command, args=(arguments, tmp_path, environment, outputs))
        process.start()
        started.append(process)

        def result():
            process.join()
            texts = [file.read_text() for file in outputs]
            return subprocess.CompletedProcess(arguments, process.exitcode, *texts)

        for file in outputs:
            file.touch()
        return result

    yield start
    for process in started:
        process.kill()  # one that hangs; otherwise it has ended
    for file in tmp_path.glob("std*_of_*"):
        file.unlink()


@pytest.fixture
def command(fork):
    """Runs a forked command to its end."""
    return lambda *arguments, **environment: fork(*arguments, **environment)()


def run_command(arguments, folder, environment, outputs):
    """What `python -m klear_lab.run` does, in a forked process."""
    import torch

    from klear_lab.run import main

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update(environment)
    for descriptor, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [str(ROOT / "klear_lab" / "run.py"), *arguments]
    main()


def records(folder):
    return [json.loads(p.read_text()) for p in sorted((folder / "runs").glob("*/run.json"))]


@pytest.mark.parametrize("launcher", [pytest.param("basic", marks=pytest.mark.slow), "joblib"])
def test_a_sweep_trains_its_arms_and_ends_with_a_table(call, command, tmp_path, launcher):
    arguments = [*SMOKE, "clip_method=gppo,cispo", "seed=0,1", f"launcher={launcher}", "-m"]
    result = (call if launcher == "joblib" else command)(*arguments)
    assert result.returncode == 0, result.stderr
    found = records(tmp_path)
    assert sorted((r["arm"]["clip_method"], r["seed"]) for r in found) == [
        *(("cispo", 0), ("cispo", 1), ("gppo", 0), ("gppo", 1))
    ]
    assert {r["sweep"] for r in found} == {"scale=smoke clip_method=gppo,cispo"}
    assert sorted(r["stages"]["sft"]["from_cache"] for r in found) == [False, True, True, True]
    for record in found:
        assert f"runs/{record['run_id']}" in result.stderr
    again = call(*arguments[:-2], "-m", PYTHONPROFILEIMPORTTIME="1")
    assert again.returncode == 0
    assert again.stderr.count("finished already") == 4
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines() if "import time:" in line}
    assert "klear_lab.pipeline" in imported and not imported & {"torch", "transformers", "pandas"}


def test_a_failed_arm_does_not_stop_the_others_and_fails_the_sweep(command, tmp_path):
    result = command(*SMOKE, "data.sft_budget=1000,100", "-m")
    assert result.returncode == 1
    assert "1 of 2 arms failed; the same command tries them again" in result.stderr
    assert "Traceback" not in result.stderr
    by_arm = {r["arm"]["data.sft_budget"]: r for r in records(tmp_path)}
    assert {arm: r["status"] for arm, r in by_arm.items()} == {1000: "failed", 100: "finished"}
    assert "data.sft_budget=1000: only 200 SFT rows are left" in by_arm[1000]["error"]


def test_an_arm_that_cannot_run_stops_the_sweep_before_anything_is_trained(command, tmp_path):
    result = command(*SMOKE, "rl.mini_batch_prompts=2,3", "-m")
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
def test_a_wrong_setting_is_one_message_without_traceback(command, tmp_path, override, words):
    result = command(*SMOKE, override)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert all(record["status"] == "failed" for record in records(tmp_path))


def test_an_unknown_option_in_a_sweep_is_one_message(command, tmp_path):
    result = command(*SMOKE, "clip_method=gppo,typo", "-m")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [("basic", signal.SIGINT), ("joblib", signal.SIGINT), ("joblib", signal.SIGTERM)],
)
def test_a_stopped_sweep_saves_its_arms_and_goes_on(tmp_path, launcher, number):
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
    assert "stopped" in messages and "failed" not in messages
    assert {record["status"] for record in records(tmp_path)} <= {"running", "finished"}
    errors = [record["error"] for record in records(tmp_path)]
    assert errors and all("the same command goes on from there" in error for error in errors)
    assert all(
        (tmp_path / "runs" / r["run_id"] / "checkpoint.pt").exists()
        for r in records(tmp_path)
        if "RL" in r["error"]
    )


@pytest.mark.slow
def test_ctrl_c_that_meets_workers_while_they_start_loses_nothing(tmp_path):
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


def test_the_same_run_by_two_commands_at_once_is_made_once(fork, tmp_path):
    results = [wait() for wait in [fork(*SMOKE), fork(*SMOKE)]]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr + results[1].stderr
    assert len(records(tmp_path)) == 1
    assert sorted("finished already" in result.stderr for result in results) == [False, True]


SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
MOST_ARMS = 8


def params_of(sweep):
    return yaml.safe_load((ROOT / "sweeps" / f"{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]


def swept_values(sweep):
    """The values of each key that a sweep varies, the seed aside."""
    params = {key: as_listed(key, str(values)) for key, values in params_of(sweep).items()}
    return {key: words.split(",") for key, words in params.items() if "," in words and key != "seed"}


def as_listed(key, words):
    """The values of a key as a list, also where they are all options of a group but some."""
    if not (found := re.fullmatch(r"glob\(\*,exclude=\[(.*)\]\)", words)):
        return words
    names = sorted(path.stem for path in (ROOT / "conf" / key).glob("*.yaml"))
    return ",".join(name for name in names if not any(fnmatch(name, one) for one in found[1].split(",")))


def run_sweep(command, folder, sweep, swept, *settings):
    """Runs a prepared sweep, small, with the values given of each swept key; its arms must be those."""
    sizes = [
        "data.sft_rows=400",
        "data.sft_budget=40",
        "data.rl_rows=16",
        "data.benchmark_rows=2",
        "eval.samples=1",
    ]
    sizes += ["sft.steps=1", "rl.steps=1", "rl.prompts_per_step=8", "rl.responses_per_prompt=2"]
    # A recipe says itself how many steps there are.
    recipes = ["rl.steps", "sft.steps"] if "recipe" in params_of(sweep) else []
    # One value alone is swept only as a choice, which in turn can't hold a null.
    fewer = [
        f"{key}={','.join(words) if len(words) > 1 else f'choice({words[0]})'}" for key, words in swept.items()
    ]
    sizes = [size for size in sizes if size.split("=")[0] not in recipes]
    result = command(*SMOKE, f"sweep={sweep}", *sizes, *fewer, *settings, "seed=0", "-m")
    assert result.returncode == 0, result.stderr
    found = records(folder)
    assert {record["sweep"] for record in found} == {sweep}
    arms = {tuple(typed(as_words(record["arm"][key])) for key in swept) for record in found}
    assert arms == set(itertools.product(*([typed(word) for word in words] for words in swept.values())))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps") / "cache"


# Of the sweeps, one of each kind: of clip methods, of SFT data, of a ladder. The slow test below runs them all.
@pytest.mark.parametrize(
    "sweep", ["figure2", *(pytest.param(s, marks=pytest.mark.slow) for s in ("table2", "dapo"))]
)
def test_a_prepared_sweep_runs_two_arms_under_its_name(command, tmp_path, shared_cache, sweep):
    """Those of the first key's first and last value, and of the other keys' last; the sweeps share one cache."""
    (key, words), *others = swept_values(sweep).items()
    swept = {key: [words[0], words[-1]], **{other: values[-1:] for other, values in others}}
    run_sweep(command, tmp_path, sweep, swept, f"cache_dir={shared_cache}")


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_prepared_sweep_runs_its_arms_under_its_name(command, tmp_path, sweep):
    """All of them, or in a large sweep those of each key's first and last value."""
    swept = swept_values(sweep)
    if math.prod(map(len, swept.values())) > MOST_ARMS:
        swept = {key: [words[0], words[-1]] for key, words in swept.items()}
    run_sweep(command, tmp_path, sweep, swept)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_arm_of_a_prepared_sweep_can_be_composed(composed_config, sweep):
    fixed = [f"{key}={value}" for key, value in params_of(sweep).items() if "," not in str(value)]
    swept = swept_values(sweep)
    for words in itertools.product(*swept.values()):
        composed = composed_config(
            "scale=small", f"sweep={sweep}", *fixed, *(f"{k}={w}" for k, w in zip(swept, words, strict=True))
        )
        parse(composed)


def typed(word):
    """A value as Hydra reads it: 2e-4 and 0.0002 are one."""
    try:
        return float(word)
    except ValueError:
        return word


def test_help_ends_quietly_where_its_reader_has_gone(tmp_path):
    command = f"{sys.executable} -m klear_lab.run --help | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.stdout.count("\n"), result.stderr) == (1, "")


def test_help_lists_groups_keys_and_examples(command):
    result = command("--help")
    assert result.returncode == 0
    for words in (
        "clip_method: aspo, ",
        "learning_rate: 0.0001",
        "clip_method=gppo,cispo -m",
        "--cfg job",
    ):
        assert words in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_a_command_that_trains_nothing_does_not_wait_for_torch(tmp_path, arguments):
    python = [sys.executable, "-X", "importtime", "-m", "klear_lab.run", *arguments]
    result = subprocess.run(python, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.decode().splitlines()}
    assert result.returncode == 0 and "hydra" in imported
    assert not {"torch", "transformers", "wandb", "pandas"} & imported


def test_the_config_can_be_shown_resolved(command, tmp_path):
    result = command("--cfg", "job", "--resolve", "clip_method=ce_gppo")
    assert "beta1: 0.75" in result.stdout
    assert "cache_dir: runs/cache" in result.stdout
    assert [path.name for path in tmp_path.iterdir() if "_of_" not in path.name] == []


def test_tab_completion_offers_options_and_keys(command):
    for line, words in [("clip_method=c", "clip_method=cispo_upper"), ("rl.st", "rl.steps=")]:
        result = command(
            "-sc", "query=bash", COMP_LINE=f"klear-lab {line}", COMP_POINT=str(len(f"klear-lab {line}"))
        )
        assert words in result.stdout.split()
