"""Training state, its updates and its checkpoints: everything the next step depends on.

Random choices are functions of (seed, step), so weights, optimizer and two counters are enough for a run to
go on bit for bit.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from klear_lab.model import Policy


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
    """Replaces the checkpoint whole; a kill leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.partial")
    torch.save(
        {
            "step": state.step,
            "updates": state.updates,
            "history": state.history,
            "model": state.policy.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
        },
        temporary,
    )
    temporary.replace(path)


def checkpoint_step(path: Path) -> int:
    """The finished steps of a checkpoint, without reading its weights."""
    return int(torch.load(path, mmap=True, weights_only=True)["step"])


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Puts a saved state into `state`."""
    saved = torch.load(path, map_location=state.policy.device, weights_only=True)
    state.policy.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step, state.updates, state.history = saved["step"], saved["updates"], saved["history"]
