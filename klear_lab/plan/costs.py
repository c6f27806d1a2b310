"""Tokens, FLOPs and hours of a run, stage by stage, and which stages are done already.

    training FLOPs = (2 forward + 4 backward, or 2 with adapters, + 2 with checkpointing) x parameters x tokens
                   + the same multiples of layers x heads x head dimension x tokens squared, of each sequence
    sampling time  = (weights + half of the cache) / bandwidth for each decoding step of all sequences at once

Attention counts half, as it is causal. All responses are taken to be as long as `Assumed` says; groups without an
advantage, which RL drops, are counted, and verifiers aren't. So the hours are a bound by tokens, at a stated speed
that nobody has measured here.

Seconds are a card's. With engine=verl as many cards as it has share them, at the same utilisation whatever their
number; `engine.tensor_parallel` of them draw a response together.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from klear_lab.config import Config, ConfigError
from klear_lab.data.stage import data_content
from klear_lab.data_source_config import EmbeddedSourceConfig, TwoWorldsConfig
from klear_lab.identity import identity_of
from klear_lab.plan.cards import BANDWIDTH_SHARE, LAUNCH_SECONDS, UTILISATION, Card, gpus_of
from klear_lab.plan.measure import Method, sampling_pass
from klear_lab.plan.memory import (
    Assumed,
    evaluation_tokens,
    method_of,
    prompt_tokens,
    samples_with_vllm,
    within_positions,
)
from klear_lab.plan.model_size import ModelSize, size_of
from klear_lab.progress import evaluations_to_come
from klear_lab.rl.phases import phases_of, total_steps
from klear_lab.sft import sft_content
from klear_lab.storage.files import StorageError
from klear_lab.storage.run_folder import RunFolder
from klear_lab.storage.stage_cache import cache_folder, stage_key

BENCHMARK_ROWS = 500  # problems of a benchmark where the config sets no number


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
    finished = "finished" if is_finished(RunFolder.of(config, run_id)) else None
    found = []
    if config.sft.steps > 0:
        key = sft_key(config, card)
        cached = "in the cache" if (cache_folder(config) / f"sft-{key}").is_dir() else None
        found.append(sft_cost(config, model, size, card, assumed, key, finished or cached))
    if total_steps(config.rl) > 0:
        found += rl_costs(config, run_id, model, size, card, assumed, finished)
    found.append(evaluation_cost(config, run_id, model, size, card, assumed, finished))
    return found


def is_finished(folder: RunFolder) -> bool:
    """Tells whether a run's record says that it is finished; a damaged one stops its own run, not the others."""
    try:
        return folder.record.get("status") == "finished"
    except StorageError:
        return False


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
    """Returns the costs of rollouts and of updates, the pass for old log-probabilities among the latter.

    A step that may sample several times, `rl.max_rollouts`, is taken to do so.
    """
    prompt, response = prompt_tokens(config, assumed), config.rl.max_response_tokens * assumed.fullness
    length = min(prompt + response, within_positions(10**12, model))
    tokens = sampled = flops = 0.0
    for phase in phases_of(config.rl):
        rl = phase.settings
        sampled += rl.steps * rl.prompts_per_step * rl.max_rollouts * rl.responses_per_prompt
        sequences = rl.steps * rl.trained_prompts * rl.responses_per_prompt
        tokens += sequences * rl.epochs * length
        earlier = 1 - rl.mini_batch_prompts / rl.trained_prompts  # mini-batches that need old log-probabilities
        each = rl.epochs * multiples(config) + 2 * earlier
        flops += sequences * sequence_flops(size, length, each)
    rows = config.rl.rollout_batch_sequences
    rollout = sampling_cost(config, model, size, card, assumed, sampled, response, rows)
    seconds = training_seconds(config, card, flops)
    return [
        StageCost("rollouts", f"{run_id}-rollouts", *rollout, done),
        StageCost("RL updates", f"{run_id}-updates", tokens, flops, seconds, done),
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
    sequences = evaluations_of(config) * problems(config) * config.eval.samples
    response, rows = evaluation_tokens(config) * assumed.fullness, config.eval.batch_sequences
    cost = sampling_cost(config, model, size, card, assumed, sequences, response, rows)
    return StageCost("evaluation", f"{run_id}-evaluation", *cost, done)


def evaluations_of(config: Config) -> int:
    """Returns how often a run evaluates: before RL, every `eval.every` steps, and after the last."""
    return 1 + evaluations_to_come(0, total_steps(config.rl), config.eval.every)


def problems(config: Config) -> int:
    """Returns the problems of all benchmarks, as many as the config asks for."""
    source = config.data_source
    worlds = [source.chain, source.functions] if isinstance(source, TwoWorldsConfig) else [source]
    benchmarks = sum(
        len(w.benchmark_steps) if isinstance(w, EmbeddedSourceConfig) else len(w.benchmarks) for w in worlds
    )
    return benchmarks * (config.data.benchmark_rows or BENCHMARK_ROWS)


def multiples(config: Config) -> int:
    """Returns how many FLOPs a training pass takes for each parameter used and token."""
    backward = 4 if config.model.lora_rank is None else 2
    return 2 + backward + 2 * config.model.gradient_checkpointing


def sequence_flops(size: ModelSize, length: float, each: float) -> float:
    """Returns the FLOPs of one sequence, of which a forward pass has 2 for each parameter used."""
    return each * (size.used * length + size.attention * length**2)


def training_seconds(config: Config, card: Card, flops: float) -> float:
    """Returns how long a card takes for FLOPs of training."""
    peak = card.bfloat16 if method_of(config, card).bfloat16 else card.float32
    return flops / (peak * UTILISATION)


def sampling_cost(
    config: Config,
    model: PreTrainedConfig,
    size: ModelSize,
    card: Card,
    assumed: Assumed,
    sequences: float,
    response: float,
    rows: int,
) -> tuple[float, float, float]:
    """Returns the tokens, FLOPs and seconds of sampling, some `rows` at once."""
    bfloat16, prompt = method_of(config, card).bfloat16, prompt_tokens(config, assumed)
    flops = sequences * sequence_flops(size, prompt + response, 2)
    together = config.engine.tensor_parallel if config.engine.name == "verl" else 1
    weights = size.used * (2 if bfloat16 else 4)
    cache_of_one = sampling_pass(model, Method(bfloat16), 1, 8, 1, 8).cache_token * (prompt + response / 2)
    if config.sampler.name == "vllm":
        rows = config.sampler.max_num_seqs
    if samples_with_vllm(config) and not card.is_cpu:  # what doesn't fit in its cache waits
        room = together * config.sampler.gpu_memory_utilization * card.memory - weights
        rows = int(min(rows, room / cache_of_one))
    rows = int(max(1, min(rows, sequences * together / gpus_of(config))))
    cache = cache_of_one * rows
    step = (weights + cache) / (together * card.bandwidth * BANDWIDTH_SHARE)
    step = max(step, rows * sequence_flops(size, 1, 2) / (together * card.bfloat16 * UTILISATION))
    if not samples_with_vllm(config) and not card.is_cpu:
        step = max(step, LAUNCH_SECONDS * size.layers)
    return sequences * response, flops, together * step * response * sequences / rows
