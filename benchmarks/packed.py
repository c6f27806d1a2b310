"""How long a mini-batch's forward and backward pass takes read packed, against the model's own forward pass.

    python benchmarks/packed.py [--tokens 32 64 128 256] [--hidden 64] [--threads 1] [--repeats 9]

A mini-batch is 32 responses to 4 prompts, or 32 examples with a prompt each, as in SFT. Prompts have a quarter of
`--tokens`, responses three quarters in the mean, from half of that to one and a half. The two ways take turns,
each with its own cut into micro-batches; gradients must agree. Prints the medians of the repeats.
"""

import argparse
import random
import time
from collections.abc import Callable
from statistics import median
from unittest.mock import patch

import torch

from klear_lab.config import ModelConfig
from klear_lab.policy import log_probs, packed
from klear_lab.policy.model import Policy, build_tiny
from klear_lab.sft import Example

SEQUENCES, PROMPTS = 32, 4


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    config = ModelConfig(name="tiny", path=None, hidden_size=given.hidden, max_positions=2 * max(given.tokens))
    policy = build_tiny(config, torch.device("cpu"), 0)
    print(f"{'tokens':>7} {'prompts':>8} {'model, ms':>10} {'packed, ms':>11} {'ratio':>6}")
    for tokens in given.tokens:
        for prompts in (PROMPTS, SEQUENCES):
            theirs, ours = both_ways(policy, mini_batch(tokens, prompts), given.repeats)
            print(f"{tokens:>7} {prompts:>8} {theirs:>10.1f} {ours:>11.1f} {ours / theirs:>6.2f}")


def mini_batch(tokens: int, prompts: int) -> list[Example]:
    """Returns a mini-batch of random tokens, the same in each call."""
    draw = random.Random(0)

    def some(count: int) -> list[int]:
        return [draw.randrange(3, 40) for _ in range(count)]

    asked = [some(tokens // 4) for _ in range(prompts)]
    mean = tokens * 3 // 4
    return [
        Example(asked[number * prompts // SEQUENCES], some(draw.randint(mean // 2, mean * 3 // 2)))
        for number in range(SEQUENCES)
    ]


def both_ways(policy: Policy, examples: list[Example], repeats: int) -> tuple[float, float]:
    """Returns the milliseconds of the model's own pass and of the packed one."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    norms = set()
    for _ in range(repeats + 1):
        for is_packed, found in seconds.items():
            with patch.object(log_probs, "reads_packed", chosen(is_packed)):
                policy.model.zero_grad()
                started = time.perf_counter()
                for part in log_probs.cut_for(policy, examples, SEQUENCES):
                    log_probs.response_log_probs(policy, part)[0].sum().backward()
                found.append(time.perf_counter() - started)
            norms.add(round(float(torch.nn.utils.get_total_norm([p.grad for p in policy.model.parameters()])), 1))
    assert max(norms) - min(norms) < 1e-3 * max(norms), norms
    return 1000 * median(seconds[False][1:]), 1000 * median(seconds[True][1:])


def chosen(is_packed: bool) -> Callable[[Policy, int], bool]:
    """Returns what decides for one way, whatever the length."""
    return lambda policy, longest: is_packed and packed.can_be_packed(policy.model)


if __name__ == "__main__":
    main()
