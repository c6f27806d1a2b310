"""What sampling takes: tokens, FLOPs and seconds of rollouts and evaluations.

    seconds of a round = (steps x weights + tokens x half of a response's cache) / bandwidth
    steps              = tokens / sequences at once, and at least the tokens of the longest response

A round is a rollout or an evaluation, which ends with its longest response; all cards wait for it. Where a mean
length below the longest is assumed, some response of each round is taken to be as long as it may be. With many
cards this is what a round takes: verl's own runs of up to 28,672 tokens take as long with 64 cards as with 128.
"""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from klear_lab.config import Config
from klear_lab.plan.cards import BANDWIDTH_SHARE, LAUNCH_SECONDS, UTILISATION, Card, gpus_of
from klear_lab.plan.measure import Method, sampling_pass
from klear_lab.plan.memory import Assumed, method_of, prompt_tokens, samples_with_vllm
from klear_lab.plan.model_size import ModelSize, sequence_flops


@dataclass(frozen=True)
class Rounds:
    """Says what is sampled: how many rounds, sequences in each, and tokens of their responses."""

    count: float
    sequences: float
    mean: float
    longest: float


def rounds_of(config: Config, count: float, sequences: float, longest: float, assumed: Assumed) -> Rounds:
    """Returns rounds of responses of the assumed mean length; asynchronous trainers don't wait for the longest."""
    mean = assumed.mean_response(longest)
    waits = config.engine.name != "verl" or config.engine.trainer_mode == "sync"
    return Rounds(count, sequences, mean, longest if waits else mean)


def sampling_cost(
    config: Config,
    model: PreTrainedConfig,
    size: ModelSize,
    card: Card,
    assumed: Assumed,
    rounds: Rounds,
    rows: int,
) -> tuple[float, float, float]:
    """Returns tokens, FLOPs and a card's seconds of all rounds, some `rows` sequences at once."""
    bfloat16, prompt = method_of(config, card).bfloat16, prompt_tokens(config, assumed)
    together = config.engine.tensor_parallel if config.engine.name == "verl" else 1
    own = rounds.sequences * together / gpus_of(config)  # sequences of cards that draw together
    weights = size.used * (2 if bfloat16 else 4)
    cache = sampling_pass(model, Method(bfloat16), 1, 8, 1, 8).cache_token * (prompt + rounds.mean / 2)
    if config.sampler.name == "vllm":
        rows = config.sampler.max_num_seqs
    if samples_with_vllm(config) and not card.is_cpu:  # what doesn't fit in its cache waits
        room = together * config.sampler.gpu_memory_utilization * card.memory - weights
        rows = int(min(rows, room / cache))
    rows = int(max(1, min(rows, own)))
    steps = max(rounds.longest, rounds.mean * own / rows)
    read = (steps * weights + own * rounds.mean * cache) / (together * card.bandwidth * BANDWIDTH_SHARE)
    computed = own * rounds.mean * sequence_flops(size, 1, 2) / (together * card.bfloat16 * UTILISATION)
    launched = 0.0 if samples_with_vllm(config) or card.is_cpu else LAUNCH_SECONDS * size.layers * steps
    tokens = rounds.count * rounds.sequences * rounds.mean
    flops = rounds.count * rounds.sequences * sequence_flops(size, prompt + rounds.mean, 2)
    return tokens, flops, rounds.count * max(read, computed, launched) * gpus_of(config)
