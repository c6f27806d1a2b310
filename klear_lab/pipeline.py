"""One run: prepare data, SFT, RL with its evaluations, in that order, into one run folder.

Data and SFT come from the stage cache where another run has made them. RL belongs to the run and goes on from
its last checkpoint.
"""

import dataclasses
import logging
import traceback
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from klear_lab import sft
from klear_lab.config import Config, ConfigError, run_id
from klear_lab.data.look import as_text, steps_table
from klear_lab.data.prepare import (
    PreparedData,
    load_prepared,
    read_json_lines,
    write_json_lines,
)
from klear_lab.data.sources import source_fingerprint
from klear_lab.data.stage import prepare_data_stage
from klear_lab.policy.model import Policy, choose_device, load_policy, load_pretrained, weights_fingerprint
from klear_lab.policy.training_state import (
    checkpoint_step,
    find_checkpoint,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
    start_state,
)
from klear_lab.rl.stage import train_rl
from klear_lab.storage.files import StorageError, forget_checkpoints, trouble
from klear_lab.storage.interruption import Interrupted, Stop, stop_on_signals
from klear_lab.storage.run_folder import RunFolder, now
from klear_lab.storage.stage_cache import STAGE_VERSIONS, CachedStage, cached, held_lock, reading
from klear_lab.tracking import Tracker
from klear_lab.verify.verifiers import Verifiers

log = logging.getLogger(__name__)


def run_pipeline(
    config: Config,
    composed: DictConfig,
    *,
    sweep: str | None = None,
    arm: dict[str, Any] | None = None,
    live: bool = False,
    stop_file: Path | None = None,
) -> RunFolder:
    """Runs what isn't done yet of one config and returns its folder.

    What a stage raises is written to run.json and raised again, as a `StorageError` where a full disk or a
    vanished folder is behind it. A run that another process is working on is
    waited for. A run made from other weights or by other versions of the stages is made anew.
    """
    identity = run_id(composed)
    folder, cache_dir = RunFolder.of(config, identity), Path(config.cache_dir).expanduser().absolute()
    folder.path.mkdir(parents=True, exist_ok=True)
    with stop_on_signals(stop_file) as stop, held_lock(folder.path / ".lock", f"working on {identity}", stop):
        folder.join_sweep(identity, config.seed, sweep, arm or {})
        try:
            forget_other_inputs(config, folder)
            if folder.record["status"] == "finished":
                log.info("[%s] finished already: %s", identity, folder.path)
                return folder
            if config.cpu_threads is not None:
                torch.set_num_threads(config.cpu_threads)
            device = choose_device(config.device)
            folder.start(OmegaConf.to_yaml(composed, resolve=True), device)
            run_stages(config, composed, folder, device, stop, live)
        except BaseException as error:
            plain = None if isinstance(error, StorageError) else trouble(error, [folder.path, cache_dir])
            note_failure(folder, plain or error)
            if plain is not None:
                raise plain from error
            raise
    return folder


def note_failure(folder: RunFolder, error: BaseException) -> None:
    """Writes down how an attempt ended, where that can still be written."""
    try:
        said = str(error) if isinstance(error, Interrupted | StorageError) else traceback.format_exc()
        folder.update_record(status="failed", error=said)
    except StorageError as second:
        log.warning("run.json doesn't say how this attempt ended: %s", second)


def forget_other_inputs(config: Config, folder: RunFolder) -> None:
    """Clears what an earlier attempt made from inputs that the run's identity doesn't hold."""
    before = folder.record.get("inputs", {})
    # A folder that is gone (runs looked at on another machine) says nothing against the run.
    weights = weights_fingerprint(config.model) or before.get("weights")
    try:
        data_files = source_fingerprint(config.data_source) or before.get("data_files")
    except ConfigError:  # nor do files of rows that are gone; a run that still needs them stops in its data stage
        data_files = before.get("data_files")
    inputs = {"stage_versions": STAGE_VERSIONS, "weights": weights, "data_files": data_files}
    if before != inputs:
        if before:
            changed = "the files of the model or of the data, or the code's stages, have changed"
            log.info("[%s] %s: it is made anew", folder.path.name, changed)
        folder.clear()  # files without a record are what is left of a folder that was removed under a run
        folder.update_record(status="running")
    folder.update_record(inputs=inputs)


def run_stages(
    config: Config, composed: DictConfig, folder: RunFolder, device: torch.device, stop: Stop, live: bool
) -> None:
    """The stages in order; the record says finished only when everything else is written."""
    cache_dir = Path(config.cache_dir).expanduser().absolute()
    checkpoint = folder.path / "checkpoint.pt"
    # A checkpoint brings its own weights, so the SFT that they came from needn't be there any more.
    policy = load_policy(config.model, device, config.sft.seed) if has_checkpoint(checkpoint) else None
    saved = find_checkpoint(checkpoint, policy)
    if saved is not None:
        folder.rewind(checkpoint_step(saved))
    else:
        folder.clear()
    resolved = OmegaConf.to_container(composed, resolve=True)
    with Tracker(folder, config, resolved, live) as tracker:
        data_stage, data = run_data_stage(config, cache_dir, folder, stop)
        with open_verifiers(config, data) as verifiers:  # before SFT: a verifier that can't work shows at once
            if config.sft.steps == 0:
                policy = policy or load_policy(config.model, device, config.sft.seed)
            elif policy is None or saved is None:
                policy = run_sft_stage(config, data, data_stage.key, cache_dir, device, folder, tracker, stop)
            train_rl(config, policy, data, verifiers, saved, folder, tracker, stop)
        policy.save(folder.path / "model")
    folder.update_record(status="finished", finished=now())
    forget_checkpoints(checkpoint)


def open_verifiers(config: Config, data: PreparedData) -> Verifiers:
    """Those that the rows of RL and of the benchmarks need."""
    rows = [*data.rl_rows, *(row for benchmark in data.benchmarks.values() for row in benchmark)]
    return Verifiers(rows, config.reward, config.reward_workers, config.sandbox)


def run_data_stage(
    config: Config, cache_dir: Path, folder: RunFolder, stop: Stop
) -> tuple[CachedStage, PreparedData]:
    """Prepared data, with its steps in the run's record and on the console."""
    stage = prepare_data_stage(config, cache_dir, stop)
    with reading(stage.folder):
        data = load_prepared(stage.folder)
    if not stage.from_cache:
        log.info("prepared data\n%s", as_text(steps_table(data.steps)))
    if not data.benchmarks:
        log.warning("data_source.benchmarks names none: nothing is evaluated, and no prompt decontaminated")
    folder.finish_stage("data", stage.seconds, stage.key, stage.from_cache)
    folder.update_record(data=data.steps)
    return stage, data


def run_sft_stage(
    config: Config,
    data: PreparedData,
    data_key: str,
    cache_dir: Path,
    device: torch.device,
    folder: RunFolder,
    tracker: Tracker,
    stop: Stop,
) -> Policy:
    """The policy that RL starts from, trained now or by another run."""
    content = {
        "version": STAGE_VERSIONS["sft"],
        "data": data_key,
        "sft": dataclasses.asdict(config.sft),
        "model": dataclasses.asdict(config.model),
        "weights": weights_fingerprint(config.model),
        "device": str(device),
        "cpu_threads": config.cpu_threads,
    }

    def make(partial: Path) -> None:
        policy = load_policy(config.model, device, config.sft.seed)
        train_sft(config, policy, data, partial / "checkpoint.pt", tracker, stop)

    stage = cached("sft", content, cache_dir, make, stop)
    with reading(stage.folder):
        lines = read_json_lines(stage.folder / "metrics.jsonl") if stage.from_cache else []
        policy = load_pretrained(stage.folder / "model", config.model, device)
    for line in lines:
        tracker.log("sft", line.pop("step"), line)
    folder.finish_stage("sft", stage.seconds, stage.key, stage.from_cache)
    return policy


def train_sft(
    config: Config, policy: Policy, data: PreparedData, checkpoint: Path, tracker: Tracker, stop: Stop
) -> None:
    """Trains, and leaves `model/` and `metrics.jsonl` beside where the checkpoint was."""
    settings = config.sft
    examples = sft.tokenize(policy, data.sft_rows, settings.max_tokens)
    log.info("SFT on %d of %d rows (sft.max_tokens)", len(examples), len(data.sft_rows))
    state = start_state(
        policy,
        learning_rate=settings.learning_rate,
        adam_betas=settings.adam_betas,
        weight_decay=settings.weight_decay,
    )
    if (saved := find_checkpoint(checkpoint, policy)) is not None:
        load_checkpoint(state, saved)
    for line in state.history:
        tracker.log("sft", line["step"], {key: value for key, value in line.items() if key != "step"})
    with tracker.stage("SFT", settings.steps, state.step):
        while state.step < settings.steps:
            try:
                metrics = sft.train_step(state, examples, settings)
            except FloatingPointError as error:
                batch = sft.batch_frame(policy, sft.choose_batch(examples, settings, state.step + 1))
                file = tracker.folder.write_frame(batch, f"nonfinite_sft_{state.step + 1:06d}.parquet")
                raise FloatingPointError(f"{error}; its batch is in {file}") from error
            if state.step % settings.log_every == 0 or state.step in (1, settings.steps):
                state.history.append({"step": state.step, **metrics})
                tracker.log("sft", state.step, metrics)
            tracker.show("SFT", state.step, settings.steps, metrics)
            if state.step == settings.steps:
                break
            if state.step % config.checkpoint.sft_every == 0 or stop.requested:
                save_checkpoint(state, checkpoint)
            if stop.requested:
                raise Interrupted(f"saved after SFT step {state.step}; the same command goes on from there")
    policy.save(checkpoint.parent / "model")
    write_json_lines(state.history, checkpoint.parent / "metrics.jsonl")
    forget_checkpoints(checkpoint)
