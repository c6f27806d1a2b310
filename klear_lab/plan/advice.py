"""What to change where a stage doesn't fit: the smallest change that is enough, with its value.

What changes no result comes first (micro-batches, sequences at once), then time for memory (checkpointing), then
optimizer states of 8 bits, then adapters.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from klear_lab.config import Config, value_of
from klear_lab.plan.cards import Card
from klear_lab.plan.memory import Assumed, StageMemory, memory_of

Change = dict[str, Any]
LORA_RANK = 32
KEYS = {
    "SFT update": "sft.micro_batch_tokens",
    "RL update": "rl.micro_batch_tokens",
    "rollout": "rl.rollout_batch_sequences",
    "evaluation": "eval.batch_sequences",
}
ROUND = 256  # tokens of a micro-batch are advised in multiples


def advise(
    config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed, limit: float | None = None
) -> Change | None:
    """Returns the keys and values that make every stage fit, none where all do; None where nothing here is enough.

    `limit` is the bytes that a stage may take; the card's usable ones without it.
    """
    bound = card.usable if limit is None else limit

    def stages(changed: Config) -> dict[str, StageMemory]:
        return {stage.stage: stage for stage in memory_of(changed, model, card, assumed)}

    for first in first_changes(config):
        changed, made = applied(config, first), dict(first)
        for name, stage in stages(changed).items():
            if stage.total > bound:
                key = key_of(config, name)
                memory = MemoryOf(name, model, card, assumed)
                value = largest_that_fits(stage, key, bound, memory, changed)
                if value is None:
                    break
                made[key] = value
                changed = applied(changed, {key: value})
        if all(stage.total <= bound for stage in stages(changed).values()):
            return made
    return None


def key_of(config: Config, stage: str) -> str:
    """Names the key that bounds a stage's batches; engine=trl refuses the one that cuts its updates by tokens."""
    if stage == "RL update" and config.engine.name == "trl":
        return "rl.micro_batch_sequences"
    return KEYS[stage]


@dataclass(frozen=True)
class MemoryOf:
    """Finds the memory of one stage of changed configs."""

    stage: str
    model: PreTrainedConfig
    card: Card
    assumed: Assumed

    def __call__(self, config: Config) -> StageMemory:
        """Returns it for a config."""
        stages = memory_of(config, self.model, self.card, self.assumed)
        return next(stage for stage in stages if stage.stage == self.stage)


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
    stage: StageMemory, key: str, bound: float, memory: Callable[[Config], StageMemory], config: Config
) -> int | None:
    """Returns about the largest value of a key with which a stage fits, None where even the smallest doesn't.

    A stage takes about as much more as it has more tokens or sequences, so a line leads to the value, and `memory`
    of a changed config tells whether it is right.
    """
    of_tokens = key.endswith("_tokens")
    step = ROUND if of_tokens else 1

    def amount(found: StageMemory) -> int:
        return found.sequences * (found.positions if of_tokens else 1)

    least = memory(applied(config, {key: 1}))
    if least.total > bound or amount(least) >= amount(stage):
        return None
    slope = (stage.total - least.total) / (amount(stage) - amount(least))
    value = round(amount(least) + (bound - least.total) / slope)
    while (rounded := value // step * step) > amount(least):
        if memory(applied(config, {key: rounded})).total <= bound:
            return rounded
        value = min(value * 97 // 100, value - 1)
    return amount(least)


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
