"""The stages of one run in order: data, SFT, RL with evaluations; each goes on where an earlier attempt ended."""

import shutil

import torch
from omegaconf import DictConfig, OmegaConf

from klear_lab.config import Config
from klear_lab.data.lengths import fit_prompts
from klear_lab.data.prepare import PreparedData
from klear_lab.data.stage import run_data_stage
from klear_lab.engines.registry import ENGINES, OWN_CHECKPOINTS, dry_run, policy_of_engine
from klear_lab.policy.memory import keep_freed_memory
from klear_lab.policy.model import choose_device, load_policy
from klear_lab.policy.training_state import checkpoint_step, find_checkpoint, has_checkpoint
from klear_lab.rl.phases import check_rows
from klear_lab.run_context import RunContext
from klear_lab.sft import run_sft_stage
from klear_lab.storage.files import forget_checkpoints
from klear_lab.storage.interruption import Stop
from klear_lab.storage.run_folder import RunFolder, now
from klear_lab.tracking import Tracker
from klear_lab.verify.verifiers import Verifiers


def start_stages(config: Config, composed: DictConfig, folder: RunFolder, stop: Stop, live: bool) -> None:
    """Records what this attempt is made with, and runs the stages, or writes what an engine would be given."""
    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    device = choose_device(config.device)
    folder.start(OmegaConf.to_yaml(composed, resolve=True), device)
    if config.dry_run:
        data_key, data = prepare_data(config, folder, stop)
        dry_run(config, data, data_key, folder, stop)
    else:
        run_stages(config, composed, folder, device, stop, live)


def run_stages(
    config: Config, composed: DictConfig, folder: RunFolder, device: torch.device, stop: Stop, live: bool
) -> None:
    """Runs the stages in order; the record says finished only when everything else is written."""
    checkpoint = folder.path / "checkpoint.pt"
    # A checkpoint brings its own weights, so the SFT that they came from needn't be there any more.
    own = OWN_CHECKPOINTS.get(config.engine.name)
    found = own(folder.path) if own else None
    kept = found is not None or (own is None and has_checkpoint(checkpoint))
    policy = load_policy(config.model, device, config.sft.seed) if kept else None
    saved, step = found or (None, None)
    if own is None and (saved := find_checkpoint(checkpoint, policy)) is not None:
        step = checkpoint_step(saved)
    if step is not None:
        folder.rewind(step)
    else:
        folder.clear()
    resolved = OmegaConf.to_container(composed, resolve=True)
    with Tracker(folder, config, resolved, live) as tracker:
        data_key, data = prepare_data(config, folder, stop)
        folder.update_record(data=data.steps)
        with open_verifiers(config, data) as verifiers:  # before SFT: a verifier that can't work shows at once
            keep_freed_memory()
            run = RunContext(config, device, data, data_key, verifiers, folder, tracker, stop)
            if config.sft.steps == 0:
                policy = policy or load_policy(config.model, device, config.sft.seed)
            elif policy is None or saved is None:
                policy = policy_of_engine(run) or run_sft_stage(run)
            ENGINES[config.engine.name](run, policy, saved)
        policy.save(folder.path / "model")
    folder.update_record(status="finished", finished=now())
    forget_checkpoints(checkpoint)
    shutil.rmtree(folder.path / "trl", ignore_errors=True)


def prepare_data(config: Config, folder: RunFolder, stop: Stop) -> tuple[str, PreparedData]:
    """Returns the rows of a run and their stage's key. Raises `ConfigError` for a phase of RL without rows."""
    stage, data = run_data_stage(config, folder, stop)
    data = fit_prompts(data, config, stage.key, stop)
    check_rows(config.rl, data.rl_rows)
    return stage.key, data


def open_verifiers(config: Config, data: PreparedData) -> Verifiers:
    """Opens the verifiers that RL and benchmark rows need."""
    rows = [*data.rl_rows, *(row for benchmark in data.benchmarks.values() for row in benchmark)]
    return Verifiers(rows, config.reward, config.reward_workers, config.sandbox)
