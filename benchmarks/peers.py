"""What the trainers that are measured beside ours are told, so that they measure nothing but their work."""

from typing import Any

# Keyword arguments of transformers' and TRL's trainers: nothing logged or saved, no schedule, nothing recomputed.
QUIET: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}


def alternating(count: int) -> list[float]:
    """Returns rewards of which every second is 1, so that no group is dropped and nothing is verified."""
    return [float(number % 2) for number in range(count)]
