"""How many GPUs there are, and how batches are cut for them."""

from klear_lab.config import Config

TOKENS = 16384  # verl's own default, which it doesn't read while sequences are counted instead


def micro_batch(config: Config) -> int:
    """Returns how many sequences a card computes at once: the most that divide its share of a mini-batch."""
    own = config.rl.mini_batch_prompts * config.rl.responses_per_prompt // shares(config)
    return max((n for n in range(1, own + 1) if own % n == 0 and n <= config.rl.micro_batch_sequences), default=1)


def cards(config: Config) -> int:
    """Returns the number of GPUs that train."""
    return config.engine.nodes * config.engine.gpus_per_node


def longest_prompt(config: Config) -> int:
    """Returns the most tokens of a prompt; longer ones have left the data before RL."""
    from klear_lab.data import lengths  # not above: --help needn't wait for torch

    bound = lengths.longest_prompt(config)
    return config.model.max_positions if bound is None else bound


def updates_per_step(config: Config) -> int:
    """Returns the optimiser steps that one call of verl's update makes."""
    mini_batches = config.rl.prompts_per_step // config.rl.mini_batch_prompts
    return config.rl.epochs * (1 if config.engine.trainer_mode == "separate_async" else mini_batches)


def shares(config: Config) -> int:
    """Returns in how many shares a batch is cut: GPUs that train on a response together have the same."""
    return cards(config) // config.engine.sequence_parallel


def tokens_of_a_gpu(config: Config, tokens: int | None) -> int:
    """Returns verl's limit for a GPU, which it multiplies with the GPUs that train on a response together."""
    return TOKENS if tokens is None else -(-tokens // config.engine.sequence_parallel)
