"""One run from start to end: the run folder, the cache, determinism, resume after SIGKILL, failures."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from transformers import AutoModelForCausalLM

from klear_lab import pipeline, sft
from klear_lab.config import ConfigError
from klear_lab.identity import run_id
from klear_lab.pipeline import run_pipeline
from klear_lab.rl import trainer
from klear_lab.storage.files import StorageError
from klear_lab.storage.interruption import Interrupted, Stop, stop_on_signals
from klear_lab.storage.run_folder import RunFolder
from klear_lab.validation import parse
from klear_lab.verify.rewards import reasons
from support.architectures import save_folder
from support.runs import SIZES, same_result

ROOT = Path(__file__).parents[2]


def test_the_run_folder_is_the_contracts(run):
    folder = run(sweep="methods", arm={"clip_method": "gppo"})
    record = json.loads((folder.path / "run.json").read_text())
    assert record["run_id"] == folder.path.name
    assert (record["status"], record["error"], record["seed"]) == ("finished", None, 0)
    assert (record["sweep"], record["arm"]) == ("methods", {"clip_method": "gppo"})
    assert [*record["stages"]] == ["data", "sft", "rl", "evaluation"]
    for stage in record["stages"].values():
        assert stage.keys() == {"seconds", "cache_key", "from_cache"}
    assert record["versions"]["torch"].startswith("2.13.0")
    assert record["hardware"]["device"] == "cpu"
    config = yaml.safe_load((folder.path / "config.yaml").read_text())
    assert config["rl"]["steps"] == 2
    assert config["cache_dir"] == f"{config['runs_dir']}/cache"
    frame = folder.evaluations()
    assert [*frame.columns] == [
        *(
            "benchmark",
            "step",
            "prompt_id",
            "sample",
            "correct",
            "score",
            "reward",
            "reason",
            "length",
            "truncated",
        )
    ]
    assert frame["score"].between(0, 1).all() and set(frame["reason"]) <= set(reasons())
    assert len(frame) == 2 * 3 * 4 * 2  # benchmarks, steps 0 to 2, prompts, samples
    assert not (folder.path / "checkpoint.pt").exists()
    assert (folder.path / "model" / "tokenizer.json").exists()


def test_two_arms_share_data_and_sft(run):
    first, second = run("clip_method=gppo"), run("clip_method=cispo")
    stages = [f.record["stages"] for f in (first, second)]
    assert [s["sft"]["from_cache"] for s in stages] == [s["data"]["from_cache"] for s in stages] == [False, True]
    assert stages[0]["sft"]["cache_key"] == stages[1]["sft"]["cache_key"]
    sft = [[m for m in f.metrics() if m["stage"] == "sft"] for f in (first, second)]
    assert sft[0] == sft[1] != []


def test_a_run_on_a_cached_sft_opens_no_sft_row_and_no_token(run, tmp_path):
    run()
    cache = tmp_path / "runs" / "cache"
    opened = [*cache.glob("data-*/sft.arrow"), *cache.glob("tokens-*/*")]
    assert len(opened) == 4
    for file in opened:
        file.write_bytes(b"damaged")
    folder = run("clip_method=cispo", "seed=1")
    assert folder.record["status"] == "finished"
    with pytest.raises(StorageError, match=r"tokens-\w+: damaged"):
        run("sft.seed=1")
    for file in cache.glob("tokens-*/*"):
        file.unlink()
    shutil.rmtree(opened[1].parent)
    with pytest.raises(StorageError, match=r"data-\w+: damaged"):
        run("sft.seed=2")


def test_data_that_older_code_prepared_are_prepared_anew_to_the_same_sft(run, tmp_path):
    first = run("rl.steps=0")
    (rows,) = (tmp_path / "runs" / "cache").glob("data-*/sft.arrow")
    rows.rename(rows.with_name("sft.jsonl"))
    stages = run("rl.steps=0", "seed=1").record["stages"]
    assert (stages["data"]["from_cache"], stages["sft"]["from_cache"]) == (False, True)
    assert rows.exists() and stages["data"]["cache_key"] == first.record["stages"]["data"]["cache_key"]


def test_what_changes_the_sft_changes_its_key_and_what_does_not_does_not(run):
    base = run("rl.steps=0").record["stages"]
    for override, stages in [
        ("rl.learning_rate=1e-3", []),
        ("sft.learning_rate=1e-3", ["sft"]),
        ("sft.seed=1", ["sft"]),
        ("model.layers=2", ["sft"]),
        ("difficulty_filter=easy", ["data", "sft"]),
        ("data.seed=1", ["data", "sft"]),
    ]:
        other = run("rl.steps=0", override).record["stages"]
        changed = [s for s in ("data", "sft") if other[s]["cache_key"] != base[s]["cache_key"]]
        assert changed == stages, override


def test_a_finished_run_is_skipped(run):
    folder = run()
    before = (folder.path / "metrics.jsonl").stat().st_mtime_ns
    assert run().path == folder.path
    assert (folder.path / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_run_that_two_sweeps_share_belongs_to_both(run):
    run(sweep="a", arm={"clip_method": "gppo"})
    record = run(sweep="b", arm={"rl.alpha": 0.1}).record
    assert (record["sweep"], record["arm"]) == ("a", {"clip_method": "gppo"})
    assert record["sweeps"] == {"a": {"clip_method": "gppo"}, "b": {"rl.alpha": 0.1}}


def test_two_runs_of_one_config_give_the_same_bits(composed_config, tmp_path):
    folders = []
    for name in "ab":
        composed = composed_config(f"runs_dir={tmp_path / name}")
        folders.append(run_pipeline(parse(composed), composed))
    same_result(*folders)


def test_another_seed_samples_other_responses_from_the_same_sft(run):
    first, second = run(), run("seed=1")
    assert first.record["stages"]["sft"]["cache_key"] == second.record["stages"]["sft"]["cache_key"]
    assert not first.evaluations().equals(second.evaluations())


def test_a_failed_run_keeps_its_traceback_and_is_tried_again(run, monkeypatch, composed_config, tmp_path):
    real = trainer.train_step

    def fail_at_two(state, *rest):
        if state.step == 1:
            raise RuntimeError("cosmic ray")
        return real(state, *rest)

    monkeypatch.setattr(trainer, "train_step", fail_at_two)
    with pytest.raises(RuntimeError, match="cosmic ray"):
        run()
    (file,) = (tmp_path / "runs").glob("*/run.json")
    record = json.loads(file.read_text())
    assert record["status"] == "failed"
    assert record["error"].startswith("Traceback") and "cosmic ray" in record["error"]
    monkeypatch.setattr(trainer, "train_step", real)
    again = run()
    assert (again.record["status"], again.record["error"]) == ("finished", None)
    composed = composed_config(f"runs_dir={tmp_path / 'other'}")
    same_result(again, run_pipeline(parse(composed), composed))


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_stopped_run_saves_and_goes_on_bit_for_bit(run, monkeypatch, stage, composed_config, tmp_path):
    """As Ctrl-C does it: the flag goes up during a step."""
    stop = Stop()
    module = {"sft": sft, "rl": trainer}[stage]
    real = module.train_step

    def step_then_stop(*arguments):
        result = real(*arguments)
        stop.asked = True
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_step", step_then_stop)
        patch.setattr(pipeline, "stop_on_signals", lambda file: nullcontext(stop))
        with pytest.raises(Interrupted, match=f"saved after {stage.upper()} step 1; the same command goes on"):
            run()
    calls = []
    monkeypatch.setattr(module, "train_step", lambda *a: calls.append(1) or real(*a))
    again = run()
    assert len(calls) == {"sft": 3, "rl": 1}[stage]
    composed = composed_config(f"runs_dir={tmp_path / 'other'}")
    same_result(again, run_pipeline(parse(composed), composed))


def test_a_signal_asks_for_a_stop_and_a_second_one_stops():
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


@pytest.mark.parametrize(("stage", "lines"), [("rl", 5)])
def test_a_killed_command_goes_on_to_the_same_bits(run, composed_config, tmp_path, stage, lines):
    """Through the command line; at random moments: test_kill.py."""
    overrides = ["rl.steps=6", "checkpoint.rl_every=2", "eval.every=3", "sft.steps=12", "checkpoint.sft_every=3"]
    composed = composed_config(f"runs_dir={tmp_path / 'runs'}", *overrides)
    folder = RunFolder(tmp_path / "runs" / run_id(composed))
    command = [sys.executable, "-m", "klear_lab.run", "scale=smoke", "logger=none", "progress=off"]
    process = subprocess.Popen(
        [*command, f"runs_dir={tmp_path / 'runs'}", *overrides],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while sum(m["stage"] == stage for m in folder.metrics()) < lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.record["status"] == "running"
    again = run(*overrides)
    other = composed_config(f"runs_dir={tmp_path / 'other'}", *overrides)
    same_result(again, run_pipeline(parse(other), other))


def test_rl_goes_on_without_the_sft_that_it_came_from(run, monkeypatch, composed_config, tmp_path):
    real = trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", lambda state, *a: real(state, *a) if state.step < 1 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run()
    shutil.rmtree(tmp_path / "runs" / "cache")
    again = run()
    assert [*again.record["stages"]] == ["data", "sft", "rl", "evaluation"]
    composed = composed_config(f"runs_dir={tmp_path / 'other'}")
    same_result(again, run_pipeline(parse(composed), composed))


def test_two_processes_never_work_on_one_run(run, composed_config, tmp_path):
    composed = composed_config(f"runs_dir={tmp_path / 'runs'}")
    path = tmp_path / "runs" / run_id(composed)
    path.mkdir(parents=True)
    (tmp_path / "stop").touch()
    with FileLock(path / ".lock"), pytest.raises(Interrupted, match="another process was working on"):
        run(stop_file=tmp_path / "stop")
    assert not (path / "metrics.jsonl").exists()


def test_a_run_that_fails_at_once_still_says_who_it_is(run, tmp_path):
    with pytest.raises(ConfigError, match="device=mps: PyTorch finds none here; must be auto or one of cpu"):
        run("device=mps")
    (file,) = (tmp_path / "runs").glob("*/run.json")
    record = json.loads(file.read_text())
    assert (record["run_id"], record["status"], record["seed"]) == (file.parent.name, "failed", 0)


@pytest.mark.parametrize(
    "override",
    ["model.precision=bfloat16", pytest.param("model.gradient_checkpointing=true", marks=pytest.mark.slow)],
)
def test_precision_and_checkpointing_go_through_the_whole_run(run, override):
    folder = run(override)
    assert folder.record["status"] == "finished"
    base = [line["loss/sft"] for line in run().metrics() if line["stage"] == "sft"]
    assert [line["loss/sft"] for line in folder.metrics() if line["stage"] == "sft"] == pytest.approx(
        base, rel=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["model.lora_rank=4"],
        ["optimizer=adamw_8bit", "checkpoint.keep=1"],
    ],
)
def test_what_saves_memory_goes_through_the_whole_run_and_its_resume(
    run, monkeypatch, composed_config, tmp_path, settings
):
    straight = run(*settings, "rl.steps=3")
    real, steps = trainer.train_step, []
    with monkeypatch.context() as patch:
        patch.setattr(
            trainer, "train_step", lambda *a: real(*a) if len(steps) < 2 and not steps.append(1) else stop()
        )
        other = composed_config(f"runs_dir={tmp_path / 'other'}", *settings, "rl.steps=3")
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(parse(other), other)
    same_result(straight, run_pipeline(parse(other), other))
    names = AutoModelForCausalLM.from_pretrained(straight.path / "model").state_dict()
    assert not any("lora" in name for name in names)


def stop():
    raise KeyboardInterrupt


def test_without_rl_steps_the_sft_checkpoint_is_evaluated(run):
    folder = run("rl.steps=0")
    assert set(folder.evaluations()["step"]) == {0}
    assert folder.record["status"] == "finished"


def test_without_sft_steps_rl_starts_from_the_model_itself(run):
    folder = run("sft.steps=0")
    assert [*folder.record["stages"]] == ["data", "rl", "evaluation"]
    assert {m["stage"] for m in folder.metrics()} == {"rl"}


FAMILIES = ("qwen3", "qwen2", "llama", "gemma", "mistral", "phi", "gpt2", "qwen3_moe")


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        pytest.param(*pair, marks=() if pair in (("qwen3", "float32"), ("gpt2", "float32")) else pytest.mark.slow)
        for pair in itertools.product(FAMILIES, ("float32", "bfloat16"))
    ],
)
def test_every_family_goes_through_data_sft_rl_evaluation_save_and_reload(run, tmp_path, kind, precision):
    model = save_folder(tmp_path / "model", kind)
    folder = run(
        *("model=path", f"model.path={model}", f"model.precision={precision}"),
        *("sft.steps=2", "rl.steps=2", "rl.drop_zero_advantage=false", "rl.max_response_tokens=20"),
        *("rl.prompts_per_step=2", "rl.mini_batch_prompts=1", "rl.responses_per_prompt=3"),
        *("data.benchmark_rows=2", "data_source.benchmark_steps=[6]", "data.rl_rows=8", "data.sft_rows=40"),
    )
    assert folder.record["status"] == "finished"
    lines = [line for line in folder.metrics() if "policy/sampler_kl" in line]
    assert len(lines) == 2
    # A sampler in bfloat16 reads its own roundings back from the cache.
    assert all(line["policy/sampler_kl"] < (1e-8 if precision == "float32" else 1e-2) for line in lines)
    again = AutoModelForCausalLM.from_pretrained(folder.path / "model")
    before = AutoModelForCausalLM.from_pretrained(model)
    pairs = zip(again.parameters(), before.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert type(again) is type(before)


def test_a_model_folder_goes_through_the_whole_run(run, tmp_path):
    from support.models import save_model

    model = save_model(tmp_path / "model")
    settings = ["model=path", f"model.path={model}", "rl.max_response_tokens=24", "sft.max_tokens=200"]
    folder = run(*settings)
    assert folder.record["status"] == "finished"
    assert (folder.path / "model" / "chat_template.jinja").exists()
    first = folder.record
    assert run(*settings).record == first


EMBEDDED = ("chain", "functions", "chain_and_functions")
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in (ROOT / "conf").glob("*/*.yaml")
    # Launchers and sweeps run in test_run.py, experiments in test_verl_recipe.py.
    if path.parent.name not in ("hydra", "launcher", "sweep", "experiment")
    and (path.parent.name != "data_source" or path.stem in EMBEDDED)  # the others in test_sources.py
)


# Of the clip methods one of each kind, and of the ladder both ends; the others run among the slow tests.
QUICK = {f"clip_method={name}" for name in ("gppo", "sapo", "gspo", "bapo", "custom")}
QUICK |= {"ladder=dapo_0_grpo", "ladder=dapo_5_dynamic_sampling"}


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, marks=pytest.mark.slow)
        if option.startswith(("clip_method=", "ladder=")) and option not in QUICK
        else option
        for option in OPTIONS
    ],
)
def test_every_option_runs(run, tmp_path, option, monkeypatch):
    from support.models import save_model

    if option == "logger=wandb":
        monkeypatch.setenv("WANDB_API_KEY", "")
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        with pytest.raises(ConfigError, match="logger=wandb: .*choose logger=offline"):
            run(option, *SIZES)
        return
    if option == "sampler=vllm" and find_spec("vllm") is None:  # where it is, test_vllm.py runs it
        with pytest.raises(
            ConfigError, match="sampler=vllm: vLLM isn't installed here; in the checkout, pip install"
        ):
            run(option, *SIZES)
        return
    if option == "engine=verl":  # test_verl_launch.py runs it up to verl, test_verl_update.py its updates
        with pytest.raises(ConfigError, match="engine=verl: (verl isn't installed here|needs NVIDIA GPUs)"):
            run(option, *SIZES, "engine.gpus_per_node=1")
        return
    needs = {
        "model=path": [f"model.path={tmp_path / 'model'}"],
        "reward=format_only": ["rl.alpha=0"],
        "recipe=math_then_code": ["data_source=chain_and_functions"],
        "clip_method=custom": [
            f"clip_method.function={Path(__file__).parents[1] / 'support/own_clip_methods.py'}:unit"
        ],
    }
    sizes = SIZES
    if option.startswith("ladder="):  # its rungs drop groups, and punish within the last nine tokens
        sizes = [word for word in SIZES if not word.startswith("rl.drop_zero_advantage")]
        sizes = [*sizes, "rl.max_response_tokens=12"]
    if option == "model=path":
        save_model(tmp_path / "model")
    folder = run(option, *needs.get(option, []), *sizes)
    assert folder.record["status"] == "finished"
    last = folder.metrics()[-1]
    # of rungs that mask truncated responses a few are left, and none of the rung that asks for right ones too
    few = {f"ladder={path.stem}": (0, 1, 2) for path in (ROOT / "conf" / "ladder").glob("dapo_[1-4]*.yaml")}
    wanted = few | {"ladder=dapo_5_dynamic_sampling": (0,)}
    assert last["optim/updates"] in wanted.get(option, (2,))
