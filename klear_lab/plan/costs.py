"""Tokens, FLOPs and hours of a run, stage by stage, and which stages are done already.

    training FLOPs = (2 forward + 4 backward, or 2 with adapters, + 2 with checkpointing) x parameters x tokens
                   + the same multiples of layers x heads x head dimension x tokens squared, of each sequence

Attention counts half, as it is causal. All responses are taken to be as long as `Assumed` says; groups without an
advantage, which RL drops, are counted, and verifiers aren't. So the hours are a bound by tokens, at a stated speed
that nobody has measured here; tests/klear_lab/test_plan_public.py compares it with what others have published.

Seconds are a card's. With engine=verl as many cards as it has share them, at the same utilisation whatever their
number; `engine.tensor_parallel` of them draw a response together (decoding.py).
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from klear_lab.config import Config, ConfigError
from klear_lab.data.stage import data_content
from klear_lab.identity import identity_of
from klear_lab.plan.benchmarks import problems_by_benchmark
from klear_lab.plan.cards import ADAPTER_UTILISATION, PASS_SHARE, UTILISATION, Card
from klear_lab.plan.decoding import rounds_of, sampling_cost
from klear_lab.plan.memory import Assumed, evaluation_tokens, method_of, prompt_tokens, within_positions
from klear_lab.plan.model_size import ModelSize, sequence_flops, size_of
from klear_lab.progress import evaluations_to_come
from klear_lab.rl.clip_methods.make import make_clip_method
from klear_lab.rl.phases import phases_of, total_steps
from klear_lab.sft import sft_content
from klear_lab.storage.run_folder import RunFolder
from klear_lab.storage.stage_cache import cache_folder, stage_key

BENCHMARK_ROWS = 500  # problems of a benchmark where neither the config nor benchmarks.py has a number


@dataclass(frozen=True)
class StageCost:
    """Holds what a stage takes; `key` is by which it is known, so that arms which share it pay once.

    `done` says why it takes nothing any more, None where it is still to do.
    """

    stage: str
    key: str
    tokens: float
    flops: float
    seconds: float
    done: str | None = None


def costs_of(
    config: Config, run_id: str, model: PreTrainedConfig, card: Card, assumed: Assumed
) -> list[StageCost]:
    """Returns the cost of each stage that the config has."""
    size = size_of(model, config.model.lora_rank)
    finished = "finished" if RunFolder.of(config, run_id).is_finished() else None
    found = []
    if config.sft.steps > 0:
        key = sft_key(config, card)
        cached = "in the cache" if (cache_folder(config) / f"sft-{key}").is_dir() else None
        found.append(sft_cost(config, model, size, card, assumed, key, finished or cached))
    if total_steps(config.rl) > 0:
        found += rl_costs(config, run_id, model, size, card, assumed, finished)
    if problems(config) > 0:
        found.append(evaluation_cost(config, run_id, model, size, card, assumed, finished))
    return found


def sft_key(config: Config, card: Card) -> str:
    """Returns by what the stage cache knows the SFT checkpoint of a run on a card.

    Where files of data or weights aren't here yet, nothing can be cached, and the settings alone tell arms apart.
    """
    device = str(torch.device("cpu" if card.is_cpu else "cuda"))
    try:
        return stage_key("sft", sft_content(config, stage_key("data", data_content(config)), device))
    except ConfigError:
        parts = ("data_source", "data", "teacher", "difficulty_filter", "correctness", "sft", "model")
        return stage_key("unknown", {part: identity_of(getattr(config, part)) for part in parts})


def sft_cost(
    config: Config,
    model: PreTrainedConfig,
    size: ModelSize,
    card: Card,
    assumed: Assumed,
    key: str,
    done: str | None,
) -> StageCost:
    """Returns the cost of SFT."""
    length = within_positions(config.sft.max_tokens, model) * assumed.fullness
    sequences = config.sft.steps * config.sft.batch_sequences
    flops = sequences * sequence_flops(size, length, multiples(config))
    return StageCost("SFT", key, sequences * length, flops, training_seconds(config, card, flops), done)


def rl_costs(
    config: Config,
    run_id: str,
    model: PreTrainedConfig,
    size: ModelSize,
    card: Card,
    assumed: Assumed,
    done: str | None,
) -> list[StageCost]:
    """Returns the costs of rollouts and of updates, with the passes that look at log-probabilities alone.

    These are one for old log-probabilities, and one before each update where the clip method looks at the whole
    mini-batch first. A step that may sample several times, `rl.max_rollouts`, is taken to do so.
    """
    prompt, response = prompt_tokens(config, assumed), assumed.mean_response(config.rl.max_response_tokens)
    length = min(prompt + response, within_positions(10**12, model))
    passes = 2 * make_clip_method(**config.clip_method).needs_statistics  # FLOPs, before each update
    tokens = updating = looking = 0.0
    rollout: list[tuple[float, float, float]] = []  # of each phase: tokens, FLOPs, seconds
    for phase in phases_of(config.rl):
        rl = phase.settings
        sampled, longest = rl.prompts_per_step * rl.responses_per_prompt, config.rl.max_response_tokens
        rounds = rounds_of(config, rl.steps * rl.max_rollouts, sampled, longest, assumed)
        one = sampling_cost(config, model, size, card, assumed, rounds, config.rl.rollout_batch_sequences)
        rollout.append(one)
        sequences = rl.steps * rl.trained_prompts * rl.responses_per_prompt
        tokens += sequences * rl.epochs * length
        earlier = 1 - rl.mini_batch_prompts / rl.trained_prompts  # mini-batches that need old log-probabilities
        updating += sequences * sequence_flops(size, length, rl.epochs * multiples(config))
        looking += sequences * sequence_flops(size, length, rl.epochs * passes + 2 * earlier)
    drawn, drawing, sampling_seconds = (sum(parts) for parts in zip(*rollout, strict=True))
    seconds = training_seconds(config, card, updating + looking / PASS_SHARE)
    return [
        StageCost("rollouts", f"{run_id}-rollouts", drawn, drawing, sampling_seconds, done),
        StageCost("RL updates", f"{run_id}-updates", tokens, updating + looking, seconds, done),
    ]


def evaluation_cost(
    config: Config,
    run_id: str,
    model: PreTrainedConfig,
    size: ModelSize,
    card: Card,
    assumed: Assumed,
    done: str | None,
) -> StageCost:
    """Returns the cost of all evaluations: before RL, every `eval.every` steps, and after the last."""
    sequences = problems(config) * config.eval.samples
    rounds = rounds_of(config, evaluations_of(config), sequences, evaluation_tokens(config), assumed)
    cost = sampling_cost(config, model, size, card, assumed, rounds, config.eval.batch_sequences)
    return StageCost("evaluation", f"{run_id}-evaluation", *cost, done)


def evaluations_of(config: Config) -> int:
    """Returns how often a run evaluates: before RL, every `eval.every` steps, and after the last."""
    return 1 + evaluations_to_come(0, total_steps(config.rl), config.eval.every)


def problems(config: Config) -> int:
    """Returns the problems of all benchmarks; those of unknown size are taken to have `BENCHMARK_ROWS`."""
    return sum(BENCHMARK_ROWS if count is None else count for count in problems_by_benchmark(config))


def multiples(config: Config) -> int:
    """Returns how many FLOPs a training pass takes for each parameter used and token."""
    backward = 4 if config.model.lora_rank is None else 2
    return 2 + backward + 2 * config.model.gradient_checkpointing


def training_seconds(config: Config, card: Card, flops: float) -> float:
    """Returns how long a card takes for FLOPs of training."""
    peak = card.bfloat16 if method_of(config, card).bfloat16 else card.float32
    return flops / (peak * (UTILISATION if config.model.lora_rank is None else ADAPTER_UTILISATION))
