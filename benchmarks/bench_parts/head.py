"""The output head at Qwen3's vocabulary, beside TRL's chunked one and beside all logits at once."""

import statistics
from functools import partial

from bench_parts.environments import TRL as TRL_ENVIRONMENT
from bench_parts.figures import OURS, Figure
from bench_parts.work import Work

TITLE = "The output head: 151,936 words, hidden size 256, float32, forward and backward"
TRL, PLAIN = "TRL's chunked head", "all logits at once"
ENVIRONMENTS = {TRL: TRL_ENVIRONMENT}
THREADS = (1,)
VOCABULARY, HIDDEN = 151_936, 256
FEW, MANY = 1024, 16_384
TOKENS = {OURS: (FEW, MANY), TRL: (FEW, MANY), PLAIN: (FEW,)}  # 16 K tokens' logits don't fit
REPEATS_OF_MANY = 2  # a pass over so many tokens takes minutes


def measure(side: str, work: Work) -> dict[str, float]:
    """Returns a side's seconds and bytes a token, by the number of tokens."""
    import torch
    from chunked_head import chunked, measure_peak, measure_time, plain
    from torch import Tensor

    def trl(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
        from trl.trainer import utils

        head, chunk = utils._ChunkedLogProbFunction, utils._CHUNKED_LOGPROB_CHUNK_SIZE
        outputs = head.apply(hidden_NH, weight_VH, None, target_N, 1.0, chunk, None, 1.0, ("entropy",))
        loss: Tensor = -outputs[0].mean()
        return loss

    way = {OURS: chunked, TRL: trl, PLAIN: plain}[side]
    vocabulary, hidden = (1000, 32) if work.small else (VOCABULARY, HIDDEN)
    found = {}
    for tokens in TOKENS[side]:
        if tokens == MANY and work.repetition >= REPEATS_OF_MANY:
            continue
        count = tokens // 64 if work.small else tokens
        torch.manual_seed(0)
        hidden_NH = torch.randn(count, hidden, requires_grad=True)
        weight_VH = (torch.randn(vocabulary, hidden) * hidden**-0.5).requires_grad_()
        target_N = torch.randint(vocabulary, (count,))

        def train(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> None:
            hidden_NH.grad = weight_VH.grad = None
            way(hidden_NH, weight_VH, target_N).backward()

        once = partial(train, hidden_NH, weight_VH, target_N)
        peak = measure_peak(once, cuda=False) - weight_VH.nbytes
        found[f"seconds {tokens}"] = measure_time(once, cuda=False) / 1e3
        found[f"bytes {tokens}"] = peak / count
    return found


SIDES = {side: partial(measure, side) for side in TOKENS}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns seconds and memory, beside each of the others."""
    (sides,) = found.values()
    return [
        Figure(
            f"{tokens:,} tokens, {what}, beside {peer}",
            unit,
            {side: values(sides, side, f"{key} {tokens}") for side in (OURS, peer)},
            peer,
        )
        for peer in (TRL, PLAIN)
        if peer in sides
        for tokens in TOKENS[peer]
        for what, key, unit in (("processor time", "seconds", "s"), ("memory a token", "bytes", "bytes"))
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Says what memory is, how often what was measured, and what all logits of many tokens would take."""
    (sides,) = found.values()
    seconds, size = (statistics.median(values(sides, PLAIN, f"{key} {FEW}")) for key in ("seconds", "bytes"))
    return [
        "Memory is the most that a pass holds beyond hidden states, weight and the weight's gradient. A pass over "
        f"{MANY:,} tokens takes minutes, so it is repeated {REPEATS_OF_MANY} times at most.",
        f"All logits of {MANY:,} tokens at once weren't measured: at the bytes and seconds a token of {FEW:,}, "
        f"they take {size * MANY / 2**30:.1f} GiB and {seconds * MANY / FEW:.0f} s.",
    ]


def values(sides: dict[str, list[dict[str, float]]], side: str, key: str) -> list[float]:
    """Returns what a side found, in the repetitions that measured it."""
    return [one[key] for one in sides[side] if key in one]
