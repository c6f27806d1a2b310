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

from klear_lab.policy.memory import SMALLER_STATES, explained_memory
from klear_lab.policy.model import Policy
from klear_lab.policy.optimizers import make_optimizer
from klear_lab.storage.files import checksum_file, previous, replace_file, replacing

log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Holds all that the next step of a stage's training depends on.

    `step` counts finished steps, `updates` optimiser steps; `history` keeps the metrics of a stage that has no run
    of its own (SFT, which other runs reuse).
    """

    policy: Policy
    optimizer: torch.optim.Optimizer
    step: int = 0
    updates: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def start_state(
    policy: Policy,
    *,
    learning_rate: float,
    adam_betas: list[float],
    weight_decay: float,
    optimizer: str = "adamw",
) -> TrainingState:
    """Returns the state before the first step of a stage. `optimizer` is the config's key of that name."""
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    betas = (adam_betas[0], adam_betas[1])
    made = make_optimizer(optimizer, trained, lr=learning_rate, betas=betas, weight_decay=weight_decay)
    return TrainingState(policy, made)


def apply_gradient(state: TrainingState, stage: str, learning_rate: float, max_grad_norm: float) -> float:
    """Clips the gradient, takes an AdamW step with it, clears it; returns its norm before clipping.

    `stage` is sft or rl. Raises `FloatingPointError` for a norm that isn't finite, without applying the update.
    """
    norm = torch.nn.utils.clip_grad_norm_(state.policy.model.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"{stage.upper()} step {state.step + 1}: the gradient norm is {norm}; the update was not applied. "
            f"Lower {stage}.learning_rate, or look at the step's batch"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    with explained_memory("optimizer", SMALLER_STATES):
        state.optimizer.step()
    state.optimizer.zero_grad()
    state.updates += 1
    return norm


def save_checkpoint(state: TrainingState, path: Path, keep: int = 2) -> None:
    """Writes the state as the newest checkpoint; with `keep` 2 the one that was newest stays as the previous one.

    Raises `StorageError` where it can't write, and leaves both old ones untouched then.
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
        # A checkpoint without its checksum may be damaged, so it must not replace the one before it.
        if keep > 1 and path.exists() and checksum_file(path).exists():
            path.replace(previous(path))
            checksum_file(path).replace(checksum_file(previous(path)))
    replace_file(checksum_file(path), checksum)


def checksum_of(path: Path) -> str:
    """Returns the CRC-32 of a file's content, in hexadecimal."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def has_checkpoint(path: Path) -> bool:
    """Tells whether there is a checkpoint or a previous one, whole or damaged."""
    return path.exists() or previous(path).exists()


def find_checkpoint(path: Path, policy: Policy | None = None) -> Path | None:
    """Returns the last checkpoint; falls back to the previous one if the last is damaged, and to None without one.

    It warns of a damaged one. A checkpoint whose model has another shape than `policy` counts as damaged.
    """
    files = [checksum_file(candidate) for candidate in (path, previous(path))]
    # A match with either counts, because a kill may come between renaming a checkpoint and renaming its checksum.
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
    """Tells whether a checkpoint's weights have the names and shapes of the policy's."""
    try:
        saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)["model"]
        shapes = [{name: w.shape for name, w in ws.items()} for ws in (saved, policy.model.state_dict())]
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, UnpicklingError):
        return False  # written by something else, with a checksum of its own
    return shapes[0] == shapes[1]


def checkpoint_step(path: Path) -> int:
    """Returns the number of finished steps of a checkpoint, without reading its weights."""
    return int(torch.load(path, map_location="cpu", mmap=True, weights_only=True)["step"])


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Loads a saved state into `state`. It is read into main memory, since a GPU may not hold a second copy."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    state.policy.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step, state.updates, state.history = saved["step"], saved["updates"], saved["history"]
