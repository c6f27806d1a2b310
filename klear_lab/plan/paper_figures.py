"""What the paper's figures and tables would take with a config's model, batches and cards.

Steps and evaluations are those that the paper's curves have (arXiv 2508.07629, Figures 2 to 5), lengths those of
its captions. RL starts from checkpoints that the paper has already, so its SFT is counted in Table 1 alone. Tables
2 and 3 name no size: 31,600 rows are taken, as in Tables 4 and 5; for all four, the 4 epochs of section 4.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedConfig

from klear_lab.config import Config
from klear_lab.plan.advice import applied
from klear_lab.plan.benchmarks import PROBLEMS
from klear_lab.plan.cards import Card
from klear_lab.plan.costs import costs_of, rl_costs, sft_cost
from klear_lab.plan.decoding import Rounds, rounds_of, sampling_cost
from klear_lab.plan.memory import Assumed, memory_of
from klear_lab.plan.model_size import size_of

EPOCHS, ROWS = 4, 31_600
AIME, CODE = 32 * PROBLEMS["aime24"], 4 * PROBLEMS["lcb_v5"]  # responses of avg@32 and of avg@4
# avg@64 on three competitions and avg@8 on both versions of LiveCodeBench.
FINAL = 64 * sum(PROBLEMS[name] for name in ("aime24", "aime25", "hmmt25"))
FINAL += 8 * (PROBLEMS["lcb_v5"] + PROBLEMS["lcb_v6"])
NODE = 8
SIZES = (8, 16, 32, 64, 128, 256)  # cards


@dataclass(frozen=True)
class Figure:
    """Says what a figure or table trains and evaluates: `ability` of its RL, None for SFT on ROWS rows."""

    name: str
    runs: int
    ability: str | None
    steps: int
    tokens: int  # of a response
    evaluations: int
    responses: int  # of an evaluation


FIGURES = (
    Figure("Figure 2", 3, "math", 240, 32768, 24, AIME + CODE),
    Figure("Figure 3", 2, "code", 100, 16384, 20, CODE),
    Figure("Figure 4", 2, "code", 100, 16384, 20, CODE),
    Figure("Figure 5", 2, "math", 70, 32768, 15, AIME),
    Figure("Table 2", 6, None, 0, 32768, 1, AIME + CODE),
    Figure("Table 3", 3, None, 0, 32768, 1, AIME + CODE),
    Figure("Table 4", 6, None, 0, 32768, 1, AIME + CODE),
    Figure("Table 5", 4, None, 0, 32768, 1, AIME + CODE),
    Figure("Table 6", 4, "math", 100, 32768, 1, 2 * AIME),
)


@dataclass(frozen=True)
class FigureCost:
    """Holds what all runs of a figure take together, in a card's seconds."""

    name: str
    runs: int
    what: str
    training: float
    sampling: float

    @property
    def seconds(self) -> float:
        """Returns both together."""
        return self.training + self.sampling


@dataclass(frozen=True)
class SizeCost:
    """Holds what the whole recipe takes on so many cards: bytes of each at the peak, and a card's seconds."""

    gpus: int
    memory: int
    seconds: float


def figure_costs(config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed) -> Iterator[FigureCost]:
    """Yields the cost of each figure and table, that of Table 1 and Figure 1 first: the recipe, evaluated once."""
    costs = costs_of(config, "Table 1", model, card, assumed)
    sampling = sum(cost.seconds for cost in costs if cost.stage in ("rollouts", "evaluation"))
    training = sum(cost.seconds for cost in costs) - sampling
    rounds = rounds_of(config, 1, FINAL, config.rl.max_response_tokens, assumed)
    sampling += sampled(config, model, card, assumed, rounds)
    yield FigureCost("Figure 1, Table 1", 1, "the whole recipe", training, sampling)
    for figure in FIGURES:
        yield cost_of(figure, config, model, card, assumed)


def cost_of(figure: Figure, config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed) -> FigureCost:
    """Returns the cost of one figure's runs."""
    size, tokens = size_of(model, config.model.lora_rank), f"{figure.tokens:,} tokens"
    if figure.ability is None:
        steps = EPOCHS * ROWS / config.sft.batch_sequences
        changed = applied(config, {"sft.steps": steps, "sft.max_tokens": figure.tokens})
        training = sft_cost(changed, model, size, card, assumed, figure.name, None).seconds
        sampling, what = 0.0, f"SFT of {ROWS:,} rows, {EPOCHS} epochs, {tokens}"
    else:
        changed = applied(config, of_phase(config, figure))
        rollouts, updates = rl_costs(changed, figure.name, model, size, card, assumed, None)
        sampling, training = rollouts.seconds, updates.seconds
        what = f"{figure.steps} steps of {figure.ability} RL, {tokens}"
    rounds = rounds_of(changed, figure.evaluations, figure.responses, figure.tokens, assumed)
    sampling += sampled(changed, model, card, assumed, rounds)
    return FigureCost(figure.name, figure.runs, what, figure.runs * training, figure.runs * sampling)


def of_phase(config: Config, figure: Figure) -> dict[str, object]:
    """Returns the keys of RL that a figure has, with those of the config's phase of the same ability."""
    phases = [phase for phase in config.rl.phases if phase["ability"] == figure.ability]
    own = {f"rl.{key}": value for phase in phases[:1] for key, value in phase.items() if key != "ability"}
    return own | {"rl.phases": [], "rl.steps": figure.steps, "rl.max_response_tokens": figure.tokens}


def sampled(config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed, rounds: Rounds) -> float:
    """Returns a card's seconds of evaluations."""
    size = size_of(model, config.model.lora_rank)
    return sampling_cost(config, model, size, card, assumed, rounds, config.eval.batch_sequences)[2]


def size_costs(config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed) -> Iterator[SizeCost]:
    """Yields what the recipe takes with engine=verl on 8 to 256 cards."""
    for gpus in SIZES:
        changed = applied(config, {"engine.nodes": gpus // NODE, "engine.gpus_per_node": NODE})
        memory = max((stage.total for stage in memory_of(changed, model, card, assumed)), default=0)
        costs = costs_of(changed, f"{gpus} cards", model, card, assumed)
        yield SizeCost(gpus, memory, sum(cost.seconds for cost in costs))
