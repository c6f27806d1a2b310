"""Writes what verl is started with into the run folder, starts it, and takes metrics and weights over.

The folder `verl/` of a run:

config.yaml             what differs from verl's own defaults
complete.yaml           the whole configuration, where verl is installed
train.parquet           the rows of all steps; benchmarks.parquet those to evaluate
start/                  the model after SFT, where SFT makes one
train.sh                starts verl on one machine, or on the Ray cluster of RAY_ADDRESS
node.sh                 with several machines: starts the cluster on each, and train.sh on the first
metrics/, validation/   what verl writes, by attempt and by step; output.log, and checkpoints/ with its weights
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, GenerationConfig

from klear_lab.config import Config, ConfigError
from klear_lab.data.prepare import PreparedData
from klear_lab.engines.verl.metrics import forget_steps, read_steps, read_validation
from klear_lab.engines.verl.rows import write_benchmarks, write_training_rows
from klear_lab.engines.verl.scripts import node_script, train_script
from klear_lab.engines.verl.settings import Places, verl_settings
from klear_lab.policy.model import Policy, load_codec
from klear_lab.rl.stage import note_seconds
from klear_lab.run_context import RunContext
from klear_lab.storage.files import replace_file
from klear_lab.storage.interruption import Interrupted
from klear_lab.storage.run_folder import RunFolder

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 2.0


def has_verl() -> bool:
    """Tells whether verl is installed; a folder of that name on the path is none."""
    found = find_spec("verl")
    return found is not None and found.origin is not None


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
    if last_checkpoint(place) < config.rl.steps:
        if lines := [*missing_verl(config)]:
            raise ConfigError("\n".join(lines))
        policy.model.to("cpu")  # type: ignore[arg-type]
        torch.cuda.empty_cache()
        follow(run, place)
    take_over(run, policy, place)


def write_files(config: Config, data: PreparedData, folder: RunFolder) -> Path:
    """Writes all but the model that verl is started with; returns the folder. What older inputs left is removed.

    Where verl is installed its own classes check the configuration. Raises `ConfigError` for rows that verl can't
    read, and for a configuration that it refuses.
    """
    place = folder.path / "verl"
    inputs = json.dumps(folder.record.get("inputs"), sort_keys=True)
    stamp = place / "inputs.json"
    if place.exists() and (not stamp.exists() or stamp.read_text(encoding="utf-8") != inputs):
        shutil.rmtree(place)
    place.mkdir(exist_ok=True)
    replace_file(stamp, inputs)
    write_training_rows(config, data.rl_rows, place / "train.parquet")
    write_benchmarks(data.benchmarks, place / "benchmarks.parquet")
    places = Places(place, starting_model(config, place), bool(data.benchmarks))
    hydra = {"searchpath": ["pkg://verl.trainer.config"], "run": {"dir": str(place)}, "output_subdir": None}
    content = {"defaults": ["ppo_trainer", "_self_"], "hydra": hydra, **verl_settings(config, places)}
    header = "# Written by klear_lab for verl 0.9.1; what isn't here has verl's own default.\n"
    replace_file(place / "config.yaml", header + yaml.safe_dump(content, sort_keys=False))
    replace_file(place / "train.sh", train_script())
    if config.engine.nodes + config.engine.rollout_nodes > 1:
        replace_file(place / "node.sh", node_script(config.engine))
    if has_verl():
        check_with_verl(place)
    return place


def check_with_verl(place: Path) -> None:
    """Lets verl check the configuration and write it out whole. Raises `ConfigError` with what it refuses."""
    command = [sys.executable, "-m", "klear_lab.engines.verl.check", str(place)]
    checked = subprocess.run(command, capture_output=True, text=True)
    if checked.returncode:
        lines = [line for line in checked.stderr.splitlines() if line.startswith("verl refuses")]
        raise ConfigError("\n".join(lines or [f"verl can't be asked: {checked.stderr.strip()[-500:]}"]))


def dry_run(config: Config, data: PreparedData, folder: RunFolder) -> None:
    """Writes what verl would be started with, and tells how to start it."""
    place = write_files(config, data, folder)
    if not has_verl():
        log.info("verl isn't installed here, so none of its classes has checked %s", place / "config.yaml")
    if starting_model(config, place) == str(place / "start"):
        log.info(
            "%s isn't there yet: without dry_run it is made by SFT, or copied with our stop tokens",
            place / "start",
        )
    several = (place / "node.sh").exists()
    command = f"srun --ntasks-per-node=1 bash {place / 'node.sh'}" if several else f"bash {place / 'train.sh'}"
    log.info("dry_run=true: nothing was trained. To train: %s; then this command without dry_run", command)


def starting_model(config: Config, place: Path) -> str:
    """Returns what verl starts from: the config's own model where it can be taken as it is, else a folder of ours.

    SFT makes another model; a revision is unknown to verl; and verl stops a response where the model's generation
    config and tokenizer say, so a template with another end of turn needs a copy that names it.
    """
    model = config.model
    if config.sft.steps > 0 or model.path is None or model.revision is not None:
        return str(place / "start")
    codec, _ = load_codec(model)
    path = str(Path(model.path).expanduser().absolute()) if Path(model.path).expanduser().is_dir() else model.path
    try:
        stop = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        stop = None
    known = {codec.tokenizer.eos_token_id, *(stop if isinstance(stop, list) else [stop])}
    return path if set(codec.stop_token_ids) <= known else str(place / "start")


def save_start(policy: Policy, folder: Path) -> None:
    """Saves the policy for verl, with all of our stop tokens in its generation config."""
    partial = folder.with_name("start.partial")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save(partial)
    generation = GenerationConfig.from_pretrained(partial)
    generation.eos_token_id = policy.codec.stop_token_ids
    generation.save_pretrained(partial)
    partial.rename(folder)


def last_checkpoint(place: Path) -> int:
    """Returns the step of verl's last checkpoint, 0 without one."""
    file = place / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


def follow(run: RunContext, place: Path) -> None:
    """Runs verl and logs its steps as they come. Raises `RuntimeError` where it fails."""
    done = last_checkpoint(place)
    forget_steps(place / "metrics", done)
    with (place / "output.log").open("ab") as output:
        process = subprocess.Popen(
            ["bash", str(place / "train.sh")],
            env={**os.environ, "PYTHON": sys.executable},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with run.tracker.display.stage("RL", run.config.rl.steps, done, run.config.eval.every):
            while process.poll() is None:
                log_steps(run, place)
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


def log_steps(run: RunContext, place: Path) -> None:
    """Logs the steps that verl has taken since the last look."""
    logged = {line["step"] for line in run.folder.metrics() if line["stage"] == "rl"}
    for step, metrics in read_steps(place / "metrics").items():
        if step not in logged:
            run.tracker.log("rl", step, metrics)
            run.tracker.display.show("RL", step, run.config.rl.steps, metrics)


def take_over(run: RunContext, policy: Policy, place: Path) -> None:
    """Logs what is left to log, and loads the weights of verl's last step into the policy."""
    log_steps(run, place)
    for file in sorted((place / "validation").glob("*.jsonl"), key=lambda path: int(path.stem)):
        run.folder.add_evaluations(read_validation(file))
    trained = place / "checkpoints" / f"global_step_{run.config.rl.steps}" / "actor" / "huggingface"
    if not trained.is_dir():
        raise RuntimeError(f"verl left no weights in {trained}; its output is in {place / 'output.log'}")
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    policy.model.load_state_dict(model.state_dict())
    policy.model.to(policy.device)  # type: ignore[arg-type]
    note_seconds(run.folder)
