"""What to change where a stage doesn't fit: the smallest change that is enough, with its value.

What changes no result comes first (micro-batches, sequences at once), then time for memory (checkpointing), then
optimizer states of 8 bits, then adapters.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from transformers import PreTrainedConfig

from klear_lab.config import Config
from klear_lab.plan.cards import Card
from klear_lab.plan.memory import Assumed, StageMemory, memory_of

Change = dict[str, Any]
LORA_RANK = 32
SAMPLED = {"rollout": "rl.rollout_batch_sequences", "evaluation": "eval.batch_sequences"}
TRAINED = {"SFT update": "sft.micro_batch_tokens", "RL update": "rl.micro_batch_tokens"}
ROUND = 256  # tokens of a micro-batch are advised in multiples


def advise(
    config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed, limit: float | None = None
) -> Change | None:
    """Returns the keys and values that make every stage fit, none where all do; None where nothing here is enough.

    `limit` is the bytes that a stage may take; the card's usable ones without it.
    """
    bound = card.usable if limit is None else limit

    def too_large(changed: Config) -> list[StageMemory]:
        return [stage for stage in memory_of(changed, model, card, assumed) if stage.total > bound]

    for first in first_changes(config):
        changed, made = applied(config, first), dict(first)
        for stage in too_large(changed):
            key = SAMPLED.get(stage.stage) or TRAINED[stage.stage]
            value = largest_that_fits(stage, key, changed, too_large)
            if value is None:
                break
            made[key] = value
            changed = applied(changed, {key: value})
        if not too_large(changed):
            return made
    return None


def first_changes(config: Config) -> Iterator[Change]:
    """Yields what to change beside the sizes of batches, nothing first."""
    made: Change = {}
    yield made
    if not config.model.gradient_checkpointing:
        made = {**made, "model.gradient_checkpointing": True}
        yield made
    if config.model.lora_rank is None:
        if config.optimizer == "adamw":
            yield {**made, "optimizer": "adamw_8bit"}
        yield {**made, "model.lora_rank": LORA_RANK}


def largest_that_fits(
    stage: StageMemory, key: str, config: Config, too_large: Callable[[Config], list[StageMemory]]
) -> int | None:
    """Returns the largest value of a key, below its own, with which a stage fits; None where there is none."""
    step = ROUND if key in TRAINED.values() else 1
    high = stage.sequences * stage.positions // step if step > 1 else value_of(config, key)
    low = 0

    def fits(value: int) -> bool:
        tried = applied(config, {key: value * step})
        return all(found.stage != stage.stage for found in too_large(tried))

    while high - low > max(1, high // 32):  # exact to 3 percent: each try takes a second
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0 and high > 1 and fits(1):
        low = 1
    return low * step or None


def value_of(config: Config, key: str) -> Any:
    """Returns the value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def applied(config: Config, change: Change) -> Config:
    """Returns a copy of a config with some dotted keys changed."""
    changed = deepcopy(config)
    for key, value in change.items():
        *parents, name = key.split(".")
        setattr(value_of(changed, ".".join(parents)) if parents else changed, name, value)
    return changed


def as_overrides(change: Change) -> str:
    """Writes a change as it is typed."""
    return " ".join(f"{key}={str(value).lower() if value is True else value}" for key, value in change.items())
