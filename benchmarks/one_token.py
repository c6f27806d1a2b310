"""How long a decoding step takes in `klear_lab.sampling.one_token`, against the model's own forward pass.

    python benchmarks/one_token.py [--sequences 16 64 256 512] [--repeats 5] [--steps 40]

The model, its operations without its modules, and fewer with joined weights take turns, `steps` steps each on one
thread, on the tiny model after prompts of 20 tokens. The second must give the first's logits bit for bit, the
third but for rounding. Prints medians of the repeats: the model's milliseconds, and the others' shares of them.
"""

import argparse
import time
from statistics import median

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klear_lab.config import ModelConfig
from klear_lab.policy.model import build_tiny
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.one_token import Step, by_the_model, step_of, without_modules
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
    print(f"{'sequences':>10} {'model, ms':>10} {'without modules':>16} {'joined':>8}")
    ways = (by_the_model, without_modules, step_of)
    for count in given.sequences:
        found = [[steps(model, way(model), count, given.steps) for way in ways] for _ in range(given.repeats + 1)]
        for (_, theirs), (_, same), (_, close) in found:
            assert torch.equal(theirs, same)
            torch.testing.assert_close(theirs, close, rtol=1e-4, atol=1e-4)
        theirs_s, *ours_s = (median(seconds for seconds, _ in way) for way in zip(*found[1:], strict=True))
        without, joined = (seconds / theirs_s for seconds in ours_s)
        print(f"{count:>10} {1000 * theirs_s:>10.2f} {without:>16.2f} {joined:>8.2f}")


@torch.no_grad()
def steps(model: PreTrainedModel, step: Step, sequences: int, count: int) -> tuple[float, Tensor]:
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
