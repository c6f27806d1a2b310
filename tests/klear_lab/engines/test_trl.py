"""Whole runs with engine=trl: what engine=local has, where both meet, resume, stops, refusals, two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from klear_lab import pipeline
from klear_lab.config import ConfigError
from klear_lab.engines.trl import checks
from klear_lab.identity import run_id
from klear_lab.pipeline import run_pipeline
from klear_lab.preflight import check_machine
from klear_lab.storage.interruption import Interrupted, Stop
from klear_lab.storage.run_folder import RunFolder
from klear_lab.validation import parse
from support.runs import SMALL, same_result, timeless
from support.server import SERVER

pytest.importorskip("trl")

ROOT = Path(__file__).parents[3]
SETTINGS = [*SMALL, "engine=trl", "sft.steps=4", "rl.steps=4", "eval.every=2", "checkpoint.rl_every=2"]


def same_but_for_rounding(got, want):
    """Two runs' metrics, but for their last digits; evaluations and all texts are the same."""
    pairs = [*zip(timeless(got.metrics()), timeless(want.metrics()), strict=True)]
    for left, right in pairs:
        assert left.keys() == right.keys()
        for name, value in right.items():
            near = pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, float) else value
            assert left[name] == near, name
    assert got.evaluations().equals(want.evaluations())
    assert got.lines("samples.jsonl") == want.lines("samples.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        ["clip_method=cispo", "rl.epochs=2", "rl.prompts_per_step=2", "rl.divide_by_std=false", "rl.alpha=0"],
        pytest.param([], marks=pytest.mark.slow),
        pytest.param(["model.lora_rank=4", "rl.mask_overlong=true"], marks=pytest.mark.slow),
        pytest.param(
            ["model.gradient_checkpointing=true", "rl.mismatch_correction=tis", "rl.temperature=0.8"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_is_the_local_engines_but_for_rounding(run, changes):
    got, want = run("engine=trl", *changes), run(*changes)
    same_but_for_rounding(got, want)
    names = [sorted(path.name for path in (f.path / "rollouts").glob("*")) for f in (got, want)]
    assert names[0] == names[1] != []
    assert [line.keys() for line in got.lines("probes.jsonl")] == [
        line.keys() for line in want.lines("probes.jsonl")
    ]
    left, right = (AutoModelForCausalLM.from_pretrained(f.path / "model").state_dict() for f in (got, want))
    assert left.keys() == right.keys()
    assert all((left[name] - right[name]).abs().max() < 1e-4 for name in left)
    assert got.path != want.path and not (got.path / "trl").exists()
    assert got.record["status"] == "finished" and [*got.record["stages"]] == ["data", "sft", "rl", "evaluation"]
    assert got.record["stages"]["sft"]["cache_key"] == want.record["stages"]["sft"]["cache_key"]


def test_the_record_says_what_trl_was_told(run):
    told = run("engine=trl", "rl.micro_batch_sequences=3").record["trl"]
    assert told["trl"] == "1.16.0" and told["processes"] == 1
    assert (told["per_device_train_batch_size"], told["gradient_accumulation_steps"]) == (2, 4)  # 8 sequences
    assert (told["steps_per_generation"], told["max_steps"], told["num_generations"]) == (8, 4, 4)
    assert told["vllm_importance_sampling_correction"] is False and told["top_p"] == 1.0


def test_bfloat16_goes_through_the_whole_run(run):
    folder = run("engine=trl", "model.precision=bfloat16", *SMALL)
    assert folder.record["status"] == "finished"


def test_a_run_whose_groups_are_all_dropped_has_steps_without_updates(run):
    got = run("engine=trl", "rl.drop_zero_advantage=true", "rl.max_response_tokens=2", "reward=paper")
    lines = [line for line in got.metrics() if line["stage"] == "rl"]
    assert [line.get("optim/updates") for line in lines] == [None, 0, 0]
    assert got.record["status"] == "finished"
    same_but_for_rounding(got, run("rl.drop_zero_advantage=true", "rl.max_response_tokens=2", "reward=paper"))


def test_without_rl_steps_the_sft_checkpoint_is_evaluated(run):
    folder = run("engine=trl", "rl.steps=0")
    assert set(folder.evaluations()["step"]) == {0} and folder.record["status"] == "finished"


def work(composed):
    """What the command does, in a process of its own."""
    torch.set_num_threads(1)
    run_pipeline(parse(composed), composed)


@pytest.mark.parametrize(
    "lines", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_same_bits(run, composed_config, tmp_path, lines):
    composed = composed_config(*SETTINGS, f"runs_dir={tmp_path / 'runs'}")
    folder = RunFolder(tmp_path / "runs" / run_id(composed))
    process = SERVER.Process(target=work, args=(composed,))
    process.start()
    deadline = time.monotonic() + 120
    while sum(m["stage"] == "rl" for m in folder.metrics()) < lines:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join()
    assert folder.record["status"] == "running"
    other = composed_config(*SETTINGS, f"runs_dir={tmp_path / 'other'}")
    same_result(run(*SETTINGS), run_pipeline(parse(other), other))


@pytest.mark.parametrize(
    "damage", [None, *(pytest.param(how, marks=pytest.mark.slow) for how in ("byte", "mark"))]
)
def test_a_stopped_run_saves_and_goes_on_bit_for_bit(run, monkeypatch, composed_config, tmp_path, damage):
    """Also from the checkpoint before a damaged one."""
    from klear_lab.engines.trl.engine import Leader

    stop, real, begun = Stop(), Leader.roll_out, []

    def roll_out(self, number):
        begun.append(number)
        stop.asked = number == 3 and len(begun) == 3
        return real(self, number)

    monkeypatch.setattr(Leader, "roll_out", roll_out)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "stop_on_signals", lambda file: nullcontext(stop))
        with pytest.raises(Interrupted, match="saved after RL step 3; the same command goes on"):
            run(*SETTINGS)
    (folder,) = (tmp_path / "runs").glob("*/trl")
    assert sorted(path.name for path in folder.iterdir()) == ["step_000002", "step_000003"]
    newest = folder / "step_000003"
    if damage == "byte":
        (weights,) = newest.glob("*/model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif damage == "mark":
        (newest / "complete.json").unlink()
    again = run(*SETTINGS)
    assert begun[3:] == ([3, 4] if damage else [4])
    other = composed_config(*SETTINGS, f"runs_dir={tmp_path / 'other'}")
    same_result(again, run_pipeline(parse(other), other))


def test_an_update_that_is_not_finite_stops_the_run_and_keeps_its_batch(run, tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"RL step \d: the .* is nan.*; its batch is in (.*)\. Lower"
    ) as error:
        run(*SETTINGS, "rl.learning_rate=1e38", "rl.warmup_updates=0", "rl.max_grad_norm=inf")
    assert Path(str(error.value).split("its batch is in ")[1].split(". Lower")[0]).exists()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["rl.token_mean=micro_batch"], "rl.token_mean=micro_batch: engine=trl can't follow it"),
        (
            ["rl.micro_batch_tokens=64"],
            "rl.micro_batch_tokens=64: engine=trl .*; set rl.micro_batch_tokens=null and",
        ),
        (["rl.on_nonfinite=skip"], "rl.on_nonfinite=skip: engine=trl"),
        (["rl.phases=[{steps: 1}]"], r"rl.phases=\[.*\]: engine=trl .* each phase as a run of its own"),
        (["engine.vllm_server=http://here:8000"], "engine.vllm_server=http://here:8000: needs sampler=vllm"),
    ],
)
def test_what_trl_can_not_follow_is_refused_with_the_key_and_the_way_out(config, overrides, line):
    with pytest.raises(ConfigError, match=line):
        config("engine=trl", *overrides)


def test_keys_of_trl_are_refused_with_another_engine(config):
    with pytest.raises(ConfigError, match="engine.vllm_server=x: only engine=trl reads it"):
        config("engine.vllm_server=x")


def test_without_trl_one_line_says_what_to_install(config, monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine=trl: trl, .*pip install -e '\.\[trl\]'") as error:
        check_machine(config("engine=trl", f"runs_dir={tmp_path}"), "a run")
    assert "\n" not in str(error.value)
    check_machine(config(f"runs_dir={tmp_path}"), "a run")


@pytest.mark.parametrize(
    ("environment", "overrides", "line"),
    [
        ({"WORLD_SIZE": "3"}, [], "a mini-batch has 8 sequences, which 3 processes can't share evenly"),
        (
            {"ACCELERATE_USE_FSDP": "true"},
            [],
            "sampler=transformers: can't draw from weights that processes share",
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            ["optimizer=adamw_8bit"],
            "optimizer=adamw_8bit: has no form for weights that processes share",
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_GRADIENT_CLIPPING": "1.0"},
            ["rl.max_grad_norm=0.5"],
            "rl.max_grad_norm=0.5: DeepSpeed's gradient_clipping, now 1.0, must be the same",
        ),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, [], "mixed_precision=bf16: must be no, since model.precision"),
        ({"WORLD_SIZE": "2"}, ["sampler=vllm"], "sampler=vllm: 2 processes need a server of their own"),
    ],
)
def test_a_launch_that_can_not_work_is_refused(config, monkeypatch, environment, overrides, line):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert any(line in found for found in checks.missing(config("engine=trl", *overrides)))


def test_a_sweep_is_refused_where_several_processes_share_one_run(monkeypatch, capsys, tmp_path):
    from klear_lab.run import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="-m: several processes share one run"):
        main(["engine=trl", "scale=smoke", "clip_method=gppo,cispo", f"runs_dir={tmp_path}", "-m"])


@pytest.mark.slow
def test_trl_is_imported_only_where_it_is_chosen():
    code = "import sys, klear_lab.sweep; print([m for m in sys.modules if m.split('.')[0] in ('trl', 'datasets')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def launch(runs_dir, *overrides):
    """Starts two processes, as docs/engines.md says; any free port, as other tests run too."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.Popen(
        [
            *command,
            "-m",
            "klear_lab.run",
            "scale=smoke",
            "logger=none",
            "progress=off",
            f"runs_dir={runs_dir}",
            *overrides,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_two_processes_end_where_one_does_and_a_killed_launch_goes_on_to_the_same_bits(
    run, composed_config, tmp_path
):
    composed = composed_config(*SETTINGS, f"runs_dir={tmp_path / 'two'}")
    straight, killed = (RunFolder(tmp_path / name / run_id(composed)) for name in ("two", "killed"))
    process = launch(straight.path.parent, *SETTINGS)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert straight.record["status"] == "finished" and straight.record["trl"]["processes"] == 2
    assert said.count("the run is in") == 1
    same_but_for_rounding(straight, run(*SETTINGS))
    process = launch(killed.path.parent, *SETTINGS)
    while sum(m["stage"] == "rl" for m in killed.metrics()) < 4:
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    said, _ = launch(killed.path.parent, *SETTINGS).communicate(timeout=200)
    same_result(killed, straight)
    again = launch(killed.path.parent, *SETTINGS)  # finished already: nobody waits for a step that never comes
    said, _ = again.communicate(timeout=100)
    assert again.returncode == 0 and "finished already" in said


@pytest.mark.slow
def test_a_launch_whose_leader_fails_ends(tmp_path):
    process = launch(tmp_path, *SETTINGS, "rl.learning_rate=1e38", "rl.warmup_updates=0", "rl.max_grad_norm=inf")
    said, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and "its batch is in" in said
    (file,) = tmp_path.glob("*/run.json")
    assert json.loads(file.read_text())["status"] == "failed"
