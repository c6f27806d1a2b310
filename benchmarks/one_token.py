"""How long a decoding step takes in `klear_lab.sampling.one_token`, against the model's own forward pass.

    python benchmarks/one_token.py [--sequences 16 64 256 512] [--repeats 5] [--steps 40]

The two take turns, `steps` steps each on one thread, on the tiny model after prompts of 20 tokens; their logits
must be equal bit for bit. Prints the median of the repeats for each number of sequences.
"""

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from klear_lab.config import ModelConfig
from klear_lab.policy.model import build_tiny
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.one_token import Step, by_the_model, step_of
from klear_lab.sampling.transformers import read_prompts

PROMPT_TOKENS = 20


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = build_tiny(ModelConfig(name="tiny", path=None), torch.device("cpu"), 0).model.eval()
    print(f"{'sequences':>10} {'model, ms':>10} {'here, ms':>10} {'ratio':>6}")
    for count in given.sequences:
        pairs = [
            (
                steps(model, by_the_model(model), count, given.steps),
                steps(model, step_of(model), count, given.steps),
            )
            for _ in range(given.repeats + 1)
        ]
        assert all(torch.equal(theirs, ours) for (_, theirs), (_, ours) in pairs)
        theirs, ours = (1000 * median(pair[side][0] for pair in pairs[1:]) for side in (0, 1))
        print(f"{count:>10} {theirs:>10.2f} {ours:>10.2f} {ours / theirs:>6.2f}")


@torch.no_grad()
def steps(model: torch.nn.Module, step: Step, sequences: int, count: int) -> tuple[float, Tensor]:
    """Returns the seconds of a step, and the logits of all, on prompts that are the same in each call."""
    torch.manual_seed(0)
    prompt_BT = torch.randint(3, 40, (sequences, PROMPT_TOKENS))
    read, logits_BV = read_prompts(model, prompt_BT, torch.ones_like(prompt_BT))
    cache = SlotCache(sequences, None)
    cache.clear(sequences)
    cache.admit(read, [PROMPT_TOKENS] * sequences, [*range(sequences)], count)
    seen, started = [], time.perf_counter()
    for number in range(count):
        position_B = torch.full((sequences,), PROMPT_TOKENS + number)
        logits_BV = step(logits_BV.argmax(-1), position_B, cache)
        cache.advance()
        seen.append(logits_BV)
    return (time.perf_counter() - started) / count, torch.stack(seen)


if __name__ == "__main__":
    main()
