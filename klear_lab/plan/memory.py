"""What each stage takes of a card's memory at its peak, part by part.

With engine=verl it is what each of its cards takes: FSDP shares weights, gradients and states out, and gathers
the weights of two layers at a time, the one at work and the next, beside embedding and head. Micro-batches are a
card's own, but for `engine.sequence_parallel`, by which that many cards share the positions of each sequence.

A stage's total is the sum of its parts. Sequences are taken to be as long as the config lets them be, and a
micro-batch to be as full; prompts have the length that `Assumed` says, since no data is read.
"""

from dataclasses import dataclass, replace

from transformers import PreTrainedConfig

from klear_lab.config import Config, RLConfig
from klear_lab.plan.benchmarks import problems_by_benchmark
from klear_lab.plan.cards import Card, gpus_of
from klear_lab.plan.measure import Method, TrainingPass, sampling_pass, training_pass
from klear_lab.plan.model_size import ModelSize, size_of
from klear_lab.policy.folder_checks import position_limit
from klear_lab.policy.packed import LARGEST
from klear_lab.rl.phases import phases_of
from klear_lab.sampling.transformers import PREFILL_TOKENS

FLOAT, HALF = 4, 2  # bytes of weights and gradients, and of weights that FSDP gathers
# Bytes of an optimizer's states a trained parameter; 8 bits come with a float32 scale for each block of 256.
STATES = {"adamw": 8.0, "adamw_8bit": 2 + 2 * 4 / 256, "adamw_paged": 0.0}
CACHE_GROWTH = 5 / 4  # sampling/cache.py makes room for a quarter more than it needs
TOKEN_MEASURES = 43  # bytes a response token of a step, in main memory


@dataclass(frozen=True)
class ResponseLengths:
    """Holds the mean tokens of responses that ended by themselves, and the share that was cut at the longest."""

    ended: float
    truncated: float

    def mean(self, longest: float) -> float:
        """Returns the mean length where `longest` is allowed: what ended stays, what was cut fills it again."""
        return min(longest, (1 - self.truncated) * self.ended + self.truncated * longest)


@dataclass(frozen=True)
class Assumed:
    """Holds what a plan can't read from a config: tokens of a prompt, and how full responses are, from 0 to 1.

    `responses` are lengths that a run has measured, which count instead of `fullness`.
    """

    prompt_tokens: int = 512
    fullness: float = 1.0
    responses: ResponseLengths | None = None

    def mean_response(self, longest: float) -> float:
        """Returns the mean tokens of a response that may have `longest`."""
        return longest * self.fullness if self.responses is None else self.responses.mean(longest)


@dataclass(frozen=True)
class StageMemory:
    """Holds the bytes that a stage takes, by part, and the sequences and positions of its largest pass."""

    stage: str
    sequences: int
    positions: int
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Returns the bytes of all parts together."""
        return sum(self.parts.values())


def memory_of(config: Config, model: PreTrainedConfig, card: Card, assumed: Assumed) -> list[StageMemory]:
    """Returns the memory of each stage that the config has; without benchmarks there is no evaluation."""
    found = []
    if config.sft.steps > 0:
        found.append(sft_update(config, model, card))
    settings = [phase.settings for phase in phases_of(config.rl) if phase.settings.steps > 0]
    if settings:
        updates = [rl_update(config, rl, model, card, assumed) for rl in settings]
        found.append(max(updates, key=lambda update: update.total))
        samples, rows = config.rl.responses_per_prompt, config.rl.rollout_batch_sequences
        rows = min(rows, max(rl.prompts_per_step * rl.responses_per_prompt for rl in settings))
        tokens = config.rl.max_response_tokens
        found.append(sampling("rollout", config, model, card, assumed, samples, rows, tokens))
    if asked := problems_by_benchmark(config):
        tokens, rows = evaluation_tokens(config), config.eval.batch_sequences
        if None not in asked:  # one benchmark after the other
            rows = min(rows, config.eval.samples * max(count for count in asked if count is not None))
        found.append(sampling("evaluation", config, model, card, assumed, config.eval.samples, rows, tokens))
    return found


def sft_update(config: Config, model: PreTrainedConfig, card: Card) -> StageMemory:
    """Returns the memory of an SFT step."""
    sft = config.sft
    most = min(sft.micro_batch_sequences, sft.batch_sequences)
    longest = within_positions(sft.max_tokens, model)
    return update("SFT update", config, model, card, *largest_shape(longest, most, sft.micro_batch_tokens))


def rl_update(config: Config, rl: RLConfig, model: PreTrainedConfig, card: Card, assumed: Assumed) -> StageMemory:
    """Returns the memory of an RL step's updates."""
    longest = within_positions(prompt_tokens(config, assumed) + config.rl.max_response_tokens, model)
    most = min(rl.micro_batch_sequences, rl.mini_batch_prompts * rl.responses_per_prompt)
    tokens = rl.micro_batch_tokens if rl.token_mean != "micro_batch" else None
    stage = update("RL update", config, model, card, *largest_shape(longest, most, tokens))
    count = rl.trained_prompts * rl.responses_per_prompt * config.rl.max_response_tokens
    stage.parts["old log-probabilities"] = FLOAT * count
    if card.is_cpu:
        stage.parts["token measures"] = token_measures(rl, config)
    return stage


def token_measures(rl: RLConfig, config: Config) -> int:
    """Returns the bytes of main memory that the measures of a step's tokens take."""
    responses = rl.trained_prompts * rl.responses_per_prompt * rl.epochs
    return TOKEN_MEASURES * responses * config.rl.max_response_tokens


def update(
    stage: str, config: Config, model: PreTrainedConfig, card: Card, sequences: int, positions: int
) -> StageMemory:
    """Returns the memory of an update whose largest micro-batch has this shape."""
    size = size_of(model, config.model.lora_rank)
    cards = gpus_of(config)
    own = positions if cards == 1 else -(-positions // config.engine.sequence_parallel)
    packs = card.is_cpu and config.engine.name == "local" and size.parameters <= LARGEST
    found: TrainingPass = training_pass(model, replace(method_of(config, card), packs=packs), sequences, own)
    gathered = round(found.copies * 2 / size.layers) + 2 * HALF * model.vocab_size * model.hidden_size
    parts = held(config, size) | {
        "gradients": FLOAT * size.trained // cards,
        **({"autocast copies": found.copies} if cards == 1 else {"gathered weights": gathered}),
        "activations": found.activations,
        "head chunks and a layer's own": found.rest,
    }
    return StageMemory(stage, sequences, positions, parts)


def sampling(
    stage: str,
    config: Config,
    model: PreTrainedConfig,
    card: Card,
    assumed: Assumed,
    samples: int,
    rows: int,
    tokens: int,
) -> StageMemory:
    """Returns the memory of sampling `rows` sequences at once, `samples` to a prompt."""
    parts = held(config, size_of(model, config.model.lora_rank))
    prompt = prompt_tokens(config, assumed)
    longest = within_positions(prompt + tokens, model)
    if samples_with_vllm(config):
        share = 0.0 if card.is_cpu else config.sampler.gpu_memory_utilization
        parts["vLLM"] = round(share * card.memory)
        at_once = config.sampler.max_num_seqs if config.sampler.name == "vllm" else rows
        return StageMemory(stage, min(rows, at_once), longest, parts)
    prompts = max(1, min(PREFILL_TOKENS // prompt, -(-rows // samples)))
    plain = Method(method_of(config, card).bfloat16, lora=config.model.lora_rank)
    found = sampling_pass(model, plain, prompts, min(prompt, longest - 1), rows, max(1, longest - prompt))
    parts |= {
        "autocast copies": found.copies,
        "key-value cache": round(found.cache_token * rows * longest * CACHE_GROWTH),
        "prompts or logits": max(found.prefill, found.decode),
    }
    return StageMemory(stage, rows, longest, parts)


def samples_with_vllm(config: Config) -> bool:
    """Tells whether vLLM, or a program like it, draws the responses, with a cache of its own."""
    return config.sampler.name == "vllm" or config.engine.name == "verl"


def held(config: Config, size: ModelSize) -> dict[str, int]:
    """Returns the parts that are there in every stage."""
    cards = gpus_of(config)
    return {
        "weights": FLOAT * size.parameters // cards,
        "optimizer states": round(STATES[config.optimizer] * size.trained / cards),
    }


def method_of(config: Config, card: Card) -> Method:
    """Returns how the config's passes are computed on a card."""
    precision = config.model.precision
    bfloat16 = precision == "bfloat16" or (precision == "auto" and not card.is_cpu)
    return Method(bfloat16, config.model.gradient_checkpointing, config.model.lora_rank)


def prompt_tokens(config: Config, assumed: Assumed) -> int:
    """Returns the tokens that a prompt is taken to have."""
    return min(assumed.prompt_tokens, config.data.max_prompt_tokens or assumed.prompt_tokens)


def evaluation_tokens(config: Config) -> int:
    """Returns the most tokens of a response in evaluation."""
    return round(config.eval.response_budget * config.rl.max_response_tokens)


def within_positions(tokens: int, model: PreTrainedConfig) -> int:
    """Returns a length, or the most that the model was made for if that is less: a run refuses more."""
    return max(2, min(tokens, position_limit(model) or tokens))


def largest_shape(longest: int, most_sequences: int, most_tokens: int | None) -> tuple[int, int]:
    """Returns sequences and positions of the micro-batch with the most tokens that there may be."""
    if most_tokens is None:
        return most_sequences, longest
    tokens = min(most_sequences * longest, max(longest, most_tokens))
    sequences = -(-tokens // longest)
    return sequences, tokens // sequences
