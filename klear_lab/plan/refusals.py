"""What a run is refused for before anything is loaded: a stage that its card can't hold, by the plan."""

from collections.abc import Iterator

from klear_lab.config import Config, ConfigError
from klear_lab.plan.advice import Change, advise, as_overrides
from klear_lab.plan.cards import GB, Card
from klear_lab.plan.memory import Assumed, StageMemory, memory_of
from klear_lab.plan.model_size import read_model_config

# No more than is sure: a prompt of one token, and all of the card's memory instead of what is usable.
LEAST = Assumed(prompt_tokens=1)


def refusals(config: Config, card: Card) -> Iterator[str]:
    """Yields a line for each stage that takes more than all of the card; none for a model without a plan."""
    try:
        model = read_model_config(config.model)
        stages = memory_of(config, model, card, LEAST)
    except ConfigError:  # what is wrong with the model is said by the checks that load it
        return
    too_large = [stage for stage in stages if stage.total > card.memory]
    if not too_large:
        return
    change = advise(config, model, card, LEAST, limit=card.memory)
    for stage in too_large:
        yield f"{needs(stage, card)}; {in_words(change)}. plan=skip starts the run all the same"


def needs(stage: StageMemory, card: Card) -> str:
    """Says what a stage would take of a card."""
    what = f"{stage.stage} of {stage.sequences} x {stage.positions:,} tokens"
    return f"{what}: would take {stage.total / GB:.1f} of the {card.memory / GB:.1f} GB that {card.name} has"


def in_words(change: Change | None) -> str:
    """Says what would make it fit."""
    if change is None:
        return "no setting of memory is enough, so take a smaller model, shorter responses or a larger card"
    return f"set {as_overrides(change)}"
