"""Starts verl, follows what it does, and takes metrics and weights over."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from klear_lab.config import Config, ConfigError
from klear_lab.engines.verl.files import has_verl, is_current, save_start, starting_model, write_files
from klear_lab.engines.verl.metrics import forget_steps, read_answers, read_steps, read_validation
from klear_lab.engines.verl.phases import Training, trainings
from klear_lab.policy.model import Policy, load_pretrained
from klear_lab.rl.phases import total_steps
from klear_lab.rl.stage import note_seconds
from klear_lab.run_context import RunContext
from klear_lab.storage.interruption import Interrupted
from klear_lab.storage.run_folder import RunFolder

SECONDS_BETWEEN_LOOKS = 2.0


def missing_verl(config: Config) -> Iterator[str]:
    """Yields a line where a run that isn't dry couldn't start: no verl, no GPUs, no cluster."""
    if config.dry_run:
        return
    dry = "dry_run=true writes what it would be started with"
    if not has_verl():
        yield f"engine=verl: verl isn't installed here (docs/engines.md says how); {dry}"
    elif os.environ.get("RAY_ADDRESS"):
        return
    elif not torch.cuda.is_available():
        yield f"engine=verl: needs NVIDIA GPUs and sees none; {dry}"
    elif torch.cuda.device_count() < config.engine.gpus_per_node:
        there = torch.cuda.device_count()
        yield f"engine.gpus_per_node={config.engine.gpus_per_node}: engine=verl sees {there} GPUs; {dry}"
    elif config.engine.nodes + config.engine.rollout_nodes > 1:
        yield f"engine.nodes={config.engine.nodes}: needs a Ray cluster; set RAY_ADDRESS. {dry}"


def train_verl(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains the policy with verl, which goes on from its own last checkpoint.

    A cluster may have trained already, by the scripts of a dry run: then it only takes over what verl left. Raises
    `ConfigError` without GPUs, `RuntimeError` where verl fails, and `Interrupted` when asked to stop.
    """
    config = run.config
    place = write_files(config, run.data, run.folder)
    if starting_model(config, place) == str(place / "start") and not (place / "start").exists():
        save_start(policy, place / "start")
    for training in trainings(config):
        if last_checkpoint(place / training.name) < training.config.rl.steps:
            if lines := [*missing_verl(config)]:
                raise ConfigError("\n".join(lines))
            policy.model.to("cpu")  # type: ignore[arg-type]
            torch.cuda.empty_cache()
            follow(run, place / training.name, training)
        take_over(run, place / training.name, training)
    load_weights(policy, training.weights(place), place)
    note_seconds(run.folder)


def policy_of_cluster(config: Config, folder: Path, device: torch.device) -> Policy | None:
    """Returns the policy that verl's SFT has left in a run's folder, by the scripts of a dry run; None without."""
    place = folder / "verl"
    if not is_current(place, RunFolder(folder)) or last_checkpoint(place / "sft") < config.sft.steps:
        return None
    return load_pretrained(place / "start", config.model, device) if (place / "start").exists() else None


def last_checkpoint(place: Path) -> int:
    """Returns the step of verl's last checkpoint, 0 without one."""
    file = place / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


def follow(run: RunContext, place: Path, training: Training) -> None:
    """Runs verl's training in a folder and logs its steps as they come. Raises `RuntimeError` where it fails."""
    done, start, total = last_checkpoint(place), training.phase.start, total_steps(run.config.rl)
    forget_steps(place / "metrics", done)
    with (place / "output.log").open("ab") as output:
        process = subprocess.Popen(
            ["bash", str(place / "train.sh")],
            env={**os.environ, "PYTHON": sys.executable},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with run.tracker.display.stage("RL", total, start + done, run.config.eval.every):
            while process.poll() is None:
                log_steps(run, place, start)
                if run.stop.requested:
                    raise Interrupted(
                        f"verl was stopped; the same command goes on from its step {last_checkpoint(place)}"
                    )
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        end(process)
    if process.returncode:
        raise RuntimeError(f"verl ended with code {process.returncode}; its output is in {place / 'output.log'}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends verl where it still runs, and with it the processes that Ray has started for it."""
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def log_steps(run: RunContext, place: Path, start: int) -> None:
    """Logs the steps that verl has taken since the last look; `start` steps of other phases come before."""
    logged = {line["step"] for line in run.folder.metrics() if line["stage"] == "rl"}
    total = total_steps(run.config.rl)
    for step, metrics in read_steps(place / "metrics").items():
        if start + step not in logged:
            run.tracker.log("rl", start + step, metrics)
            run.tracker.display.show("RL", start + step, total, metrics)


def take_over(run: RunContext, place: Path, training: Training) -> None:
    """Logs what a training has left to log."""
    start = training.phase.start
    log_steps(run, place, start)
    for file in sorted((place / "validation").glob("*.jsonl"), key=lambda path: int(path.stem)):
        frame = read_validation(file)
        run.folder.add_evaluations(frame.assign(step=frame["step"] + start))
        if start + int(file.stem) == total_steps(run.config.rl):
            answers = read_answers(file, run.config.samples.answers)
            run.folder.write_lines("answers.jsonl", [{**line, "step": line["step"] + start} for line in answers])


def load_weights(policy: Policy, trained: Path, place: Path) -> None:
    """Loads the weights of verl's last step into the policy. Raises `RuntimeError` where there are none."""
    if not trained.is_dir():
        raise RuntimeError(f"verl left no weights in {trained}; its output is in output.log below {place}")
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    policy.model.load_state_dict(model.state_dict())
    policy.model.to(policy.device)  # type: ignore[arg-type]
