"""The plan of one run, and the sum of several: what the command prints and writes as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from klear_lab.config import Config
from klear_lab.plan.advice import Change, advise
from klear_lab.plan.cards import Card, gpus_of
from klear_lab.plan.costs import StageCost, costs_of
from klear_lab.plan.memory import Assumed, StageMemory, memory_of, token_measures
from klear_lab.plan.model_size import ModelSize, read_model_config, size_of
from klear_lab.rl.phases import phases_of


@dataclass(frozen=True)
class ArmPlan:
    """Holds what one run would take on a card; `change` makes it fit, empty where it does, None where none can.

    `gpus` are the cards that share the run, each of which takes this memory.
    """

    name: str
    run_id: str
    size: ModelSize
    memory: list[StageMemory]
    main_memory: int  # bytes, for the measures of a step's tokens
    costs: list[StageCost]
    change: Change | None
    gpus: int = 1

    @property
    def largest(self) -> StageMemory:
        """Returns the stage that takes most memory; an empty one where the run has none."""
        return max(self.memory, key=lambda stage: stage.total, default=StageMemory("nothing", 0, 0, {}))


def plan_arm(config: Config, run_id: str, name: str, card: Card, assumed: Assumed) -> ArmPlan:
    """Plans one run. Raises `ConfigError` where the model's config isn't there."""
    model = read_model_config(config.model)
    return ArmPlan(
        name=name,
        run_id=run_id,
        size=size_of(model, config.model.lora_rank),
        memory=memory_of(config, model, card, assumed),
        main_memory=max(token_measures(phase.settings, config) for phase in phases_of(config.rl)),
        costs=costs_of(config, run_id, model, card, assumed),
        change=advise(config, model, card, assumed),
        gpus=gpus_of(config),
    )


def still_to_do(arms: Sequence[ArmPlan]) -> list[StageCost]:
    """Returns the stages that some arm must still make, those that several share once."""
    costs = {cost.key: cost for arm in arms for cost in arm.costs if cost.done is None}
    return [*costs.values()]


def hours(costs: Sequence[StageCost]) -> float:
    """Returns the hours of some stages, one after the other on one card."""
    return sum(cost.seconds for cost in costs) / 3600


def as_json(
    arms: Sequence[ArmPlan], card: Card, assumed: Assumed, price: float | None, factors: dict[str, float]
) -> dict[str, Any]:
    """Returns plans as JSON types: bytes, tokens, FLOPs, and GPU-hours of what is still to do.

    `factors` are those of a run that the hours go by, empty where they are assumed.
    """
    left = still_to_do(arms)
    return {
        "card": asdict(card) | {"usable": card.usable},
        "assumed": asdict(assumed),
        "measured factors": factors,
        "arms": [as_plain(arm, card) for arm in arms],
        "total": {
            "tokens": sum(cost.tokens for cost in left),
            "flops": sum(cost.flops for cost in left),
            "gpu_hours": hours(left),
            "price": None if price is None else price * hours(left),
        },
    }


def as_plain(arm: ArmPlan, card: Card) -> dict[str, Any]:
    """Returns one plan as JSON types."""
    return {
        "name": arm.name,
        "run_id": arm.run_id,
        "model": asdict(arm.size),
        "gpus": arm.gpus,
        "fits": arm.largest.total <= card.usable,
        "change": arm.change,
        "main_memory": arm.main_memory,
        "memory": [asdict(stage) | {"total": stage.total} for stage in arm.memory],
        "costs": [asdict(cost) for cost in arm.costs],
    }
