"""Writes what verl is started with into the run folder.

The folder `verl/` of a run:

config.yaml             what differs from verl's own defaults
complete.yaml           the whole configuration, where verl is installed
train.parquet           the rows of all steps; benchmarks.parquet those to evaluate
start/                  the model after SFT, where SFT makes one
train.sh                starts verl on one machine, or on the Ray cluster of RAY_ADDRESS
node.sh                 with several machines: starts the cluster on each, and train.sh on the first
metrics/, validation/   what verl writes, by attempt and by step; output.log, and checkpoints/ with its weights

With rl.phases each phase has a folder of its own in it, with all but benchmarks.parquet, start/ and node.sh, and
train.sh runs one after the other. recipe.py writes what a dry run adds: SFT, evaluation, and README.md.
"""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml
from transformers import GenerationConfig

from klear_lab.config import Config, ConfigError
from klear_lab.data.prepare import PreparedData
from klear_lab.engines.verl.phases import Training, trainings
from klear_lab.engines.verl.rows import write_benchmarks, write_training_rows
from klear_lab.engines.verl.scripts import node_script, phases_script, train_script
from klear_lab.engines.verl.settings import Places, verl_settings
from klear_lab.policy.model import Policy, load_codec
from klear_lab.storage.files import replace_file
from klear_lab.storage.run_folder import RunFolder

HEADER = "# Written by klear_lab for verl 0.9.1; what isn't here has verl's own default.\n"


def has_verl() -> bool:
    """Tells whether verl is installed; a folder of that name on the path is none."""
    found = find_spec("verl")
    return found is not None and found.origin is not None


def write_files(config: Config, data: PreparedData, folder: RunFolder) -> Path:
    """Writes all but the model that verl is started with; returns the folder. What older inputs left is removed.

    Where verl is installed its own classes check the configuration. Raises `ConfigError` for rows that verl can't
    read, and for a configuration that it refuses.
    """
    place = folder.path / "verl"
    if place.exists() and not is_current(place, folder):
        shutil.rmtree(place)
    place.mkdir(exist_ok=True)
    replace_file(place / "inputs.json", inputs_of(folder))
    benchmarks = place / "benchmarks.parquet" if data.benchmarks else None
    write_benchmarks(data.benchmarks, place / "benchmarks.parquet")
    model, phases = starting_model(config, place), trainings(config)
    for training in phases:
        own = place / training.name
        places = Places(own, model, benchmarks, run=folder.path.name, steps_before=training.phase.start)
        write_training(training, data, places)
        model = str(training.weights(place))
    if config.rl.phases:
        replace_file(place / "train.sh", phases_script([training.name for training in phases]))
    if config.engine.nodes + config.engine.rollout_nodes > 1:
        replace_file(place / "node.sh", node_script(config.engine))
    return place


def write_training(training: Training, data: PreparedData, places: Places) -> None:
    """Writes what one training of verl's is started with."""
    places.folder.mkdir(exist_ok=True)
    config = training.config
    write_training_rows(training.phase, config.seed, data.rl_rows, places.folder / "train.parquet")
    write_config(places.folder, "ppo_trainer", verl_settings(config, places))
    replace_file(places.folder / "train.sh", train_script())


def write_config(folder: Path, trainer: str, settings: dict[str, object]) -> None:
    """Writes config.yaml on top of one of verl's own configurations, and lets verl check it where it is installed.

    Raises `ConfigError` with what verl refuses.
    """
    hydra = {"searchpath": ["pkg://verl.trainer.config"], "run": {"dir": str(folder)}, "output_subdir": None}
    content = {"defaults": [trainer, "_self_"], "hydra": hydra, **settings}
    replace_file(folder / "config.yaml", HEADER + yaml.safe_dump(content, sort_keys=False))
    if has_verl():
        check_with_verl(folder)


def inputs_of(folder: RunFolder) -> str:
    """Returns what a run is made from, as text."""
    return json.dumps(folder.record.get("inputs"), sort_keys=True)


def is_current(place: Path, folder: RunFolder) -> bool:
    """Tells whether a folder was written for what the run is made from now."""
    stamp = place / "inputs.json"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == inputs_of(folder)


def check_with_verl(place: Path) -> None:
    """Lets verl check the configuration and write it out whole. Raises `ConfigError` with what it refuses."""
    command = [sys.executable, "-m", "klear_lab.engines.verl.check", str(place)]
    checked = subprocess.run(command, capture_output=True, text=True)
    if checked.returncode:
        lines = [line for line in checked.stderr.splitlines() if line.startswith("verl refuses")]
        raise ConfigError("\n".join(lines or [f"verl can't be asked: {checked.stderr.strip()[-500:]}"]))


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
