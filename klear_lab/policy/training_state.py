"""Training state, its updates and its checkpoints: everything the next step depends on.

Random choices are functions of (seed, step), so weights, optimizer and two counters are enough for a run to
go on bit for bit.
"""

import logging
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from klear_lab.policy.model import Policy
from klear_lab.storage.files import checksum_file, previous, replace_file, replacing

log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """`step`: finished steps; `updates`: optimiser steps so far; `history`: metrics of a stage without a run."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    step: int = 0
    updates: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def start_state(
    policy: Policy, *, learning_rate: float, adam_betas: list[float], weight_decay: float
) -> TrainingState:
    """The state before the first step, with AdamW."""
    optimizer = torch.optim.AdamW(
        policy.model.parameters(),
        lr=learning_rate,
        betas=(adam_betas[0], adam_betas[1]),
        weight_decay=weight_decay,
    )
    return TrainingState(policy, optimizer)


def apply_gradient(state: TrainingState, stage: str, learning_rate: float, max_grad_norm: float) -> float:
    """Clips the gradient, takes an AdamW step with it, clears it; returns its norm before clipping.

    Raises `FloatingPointError` for a norm that isn't finite; the update isn't applied. `stage` is sft or rl.
    """
    norm = torch.nn.utils.clip_grad_norm_(state.policy.model.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"{stage.upper()} step {state.step + 1}: the gradient norm is {norm}; the update was not applied. "
            f"Lower {stage}.learning_rate, or look at the step's batch"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.updates += 1
    return norm


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Puts the state in the place of the checkpoint, which stays beside it as the one before.

    Raises `StorageError`; then both old ones are untouched.
    """
    content = {
        "step": state.step,
        "updates": state.updates,
        "history": state.history,
        "model": state.policy.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            torch.save(content, file)
        checksum = checksum_of(temporary)
        # Without its checksum a checkpoint isn't known to be whole, so the one before it stays.
        if path.exists() and checksum_file(path).exists():
            path.replace(previous(path))
            checksum_file(path).replace(checksum_file(previous(path)))
    replace_file(checksum_file(path), checksum)


def checksum_of(path: Path) -> str:
    """CRC-32 of a file's content, in hexadecimal."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def has_checkpoint(path: Path) -> bool:
    """Whether there is one, or one before it, whole or not."""
    return path.exists() or previous(path).exists()


def find_checkpoint(path: Path, policy: Policy | None = None) -> Path | None:
    """The newest checkpoint that is whole, or None; says so where a damaged one is passed by.

    One that holds a model of another shape than `policy` counts as damaged.
    """
    files = [checksum_file(candidate) for candidate in (path, previous(path))]
    # Either's, because a kill may have come between the renaming of a checkpoint and that of its checksum.
    checksums = {file.read_text(errors="replace") for file in files if file.exists()}
    damaged: list[Path] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        if checksum_of(candidate) in checksums and (policy is None or fits(candidate, policy)):
            if damaged:
                log.warning("%s: damaged; going on from the one before it, %s", damaged[0], candidate.name)
            return candidate
        damaged.append(candidate)
    if damaged:
        log.warning("%s: damaged, and there is no other; this stage starts anew", damaged[0])
    return None


def fits(path: Path, policy: Policy) -> bool:
    """Whether a checkpoint's weights have the names and shapes of the policy's."""
    try:
        saved = torch.load(path, mmap=True, weights_only=True)["model"]
        shapes = [{name: w.shape for name, w in ws.items()} for ws in (saved, policy.model.state_dict())]
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, UnpicklingError):
        return False  # written by something else, with a checksum of its own
    return shapes[0] == shapes[1]


def checkpoint_step(path: Path) -> int:
    """The finished steps of a checkpoint, without reading its weights."""
    return int(torch.load(path, mmap=True, weights_only=True)["step"])


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Puts a saved state into `state`."""
    saved = torch.load(path, map_location=state.policy.device, weights_only=True)
    state.policy.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step, state.updates, state.history = saved["step"], saved["updates"], saved["history"]
