"""Sampling the default run's rollout: 32 prompts x 8 responses; plain `generate`, and vLLM where it is installed.

vLLM runs in its own environment, .venv-vllm, on the same CPU; its start isn't counted. As in training, our
samplers are put to sleep after each rollout. All sides must draw from the same distribution, which is tested.
"""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from bench_parts.environments import VLLM as VLLM_ENVIRONMENT
from bench_parts.figures import OURS, Figure
from bench_parts.our_step import prompts_of
from bench_parts.work import Work
from klear_lab.policy.model import Policy
from klear_lab.sampling.types import Sampler

TITLE = "Sampling: 32 prompts x 8 responses"
GENERATE, VLLM = "generate", "vLLM"
WARM_UP, STEPS = 1, 5
THREADS = (1,)
ENVIRONMENTS = {VLLM: VLLM_ENVIRONMENT}
# Whose tokens are compared: the first two, which the prompt nearly decides, and some amid the thought, where
# responses to one prompt differ. A temperature of 0.7 instead of 1 shows there alone (p = 3e-5 at the 25th).
PLACES = (0, 1, 18, 24, 30)
LEAST_P = 1e-4  # that the draws of one distribution show by chance
FEWEST = 10  # draws of a token that is counted by itself


def measure_ours(work: Work) -> dict[str, Any]:
    """Returns the seconds of 1,000 tokens from the transformers sampler."""
    from klear_lab.sampling.transformers import TransformersSampler

    policy = work.policy()
    return measure_sampler(work, policy, TransformersSampler(policy))


def measure_vllm(work: Work) -> dict[str, Any]:
    """Returns the seconds of 1,000 tokens from the vLLM sampler."""
    from klear_lab.sampling.samplers import open_sampler

    config, policy = work.composed("sampler=vllm"), work.policy()
    sampler = open_sampler(config, policy)
    sampler.load(policy.weights, 0)
    try:
        return measure_sampler(work, policy, sampler)
    finally:
        sampler.close()


def measure_sampler(work: Work, policy: Policy, sampler: Sampler) -> dict[str, Any]:
    """Returns the seconds of 1,000 tokens from one of our samplers."""
    from klear_lab.sampling.draws import make_requests
    from klear_lab.sampling.types import Sampling

    rl, rows = work.config.rl, work.rows("rl.jsonl")
    seconds, responses = [], []
    for step in range(1, WARM_UP + STEPS + 1):
        chosen = prompts_of(work.config, rows, step)
        started = time.perf_counter()
        requests = make_requests(
            [policy.codec.encode_prompt(p) for p in chosen], rl.responses_per_prompt, f"bench-{step}"
        )
        sampled = sampler.sample(requests, Sampling.for_rollout(rl))
        sampler.sleep()
        seconds.append(time.perf_counter() - started)
        responses.append([r.token_ids for group in sampled for r in group])
    return summary(seconds, responses)


def measure_generate(work: Work) -> dict[str, Any]:
    """Returns the seconds of 1,000 tokens from transformers' `generate`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rl, rows = work.config.rl, work.rows("rl.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(work.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype="float32").eval()
    ends = torch.tensor(model.generation_config.eos_token_id).reshape(-1)
    torch.manual_seed(0)
    seconds, responses = [], []
    for step in range(1, WARM_UP + STEPS + 1):
        chosen = prompts_of(work.config, rows, step)
        started = time.perf_counter()
        texts = tokenizer.apply_chat_template(chosen, add_generation_prompt=True, tokenize=False)
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        made = model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=rl.max_response_tokens,
            num_return_sequences=rl.responses_per_prompt,
        )
        seconds.append(time.perf_counter() - started)
        drawn = made[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(drawn, ends).int()
        lengths = ((ended.cumsum(1) - ended) == 0).sum(1).tolist()
        responses.append([ids[:length] for ids, length in zip(drawn.tolist(), lengths, strict=True)])
    return summary(seconds, responses)


SIDES = {OURS: measure_ours, GENERATE: measure_generate, VLLM: measure_vllm}


def figures(found: dict[int, dict[str, list[dict[str, Any]]]]) -> list[Figure]:
    """Returns our figure beside each of the others that could be measured."""
    (sides,) = found.values()
    goals = {GENERATE: 0.5, VLLM: None}
    return [
        Figure(
            f"1,000 tokens, beside {peer}",
            "s",
            {side: [one["1,000 tokens"] for one in sides[side]] for side in (OURS, peer)},
            peer,
            goals[peer],
        )
        for peer in (GENERATE, VLLM)
        if sides.get(peer)
    ]


def notes(found: dict[int, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Says how long the responses of each side are, and how well their tokens agree.

    Raises `RuntimeError` for a side that samples another distribution than ours.
    """
    (sides,) = found.values()
    told = ", ".join(
        f"{side} {ones[0]['length']:.1f} ± {1.96 * ones[0]['error']:.1f}" for side, ones in sides.items() if ones
    )
    own = {side: ones[0]["tokens"] for side, ones in sides.items() if ones}  # every repetition draws the same
    agree = {peer: agreement(own[OURS], tokens, peer) for peer, tokens in own.items() if peer != OURS}
    places = ", ".join(str(place + 1) for place in PLACES)
    least = ", ".join(f"{p:.2g} ({peer})" for peer, p in agree.items())
    return [
        f"Mean tokens of a response (95 % interval): {told}.",
        f"The sides draw from one distribution: a chi-square test between our tokens {places} of a response and "
        f"theirs has a least p of {least}; below {LEAST_P:g} the measurement fails.",
    ]


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], peer: str) -> float:
    """Returns the least p of the tests at all places. Raises `RuntimeError` where it is below `LEAST_P`."""
    least = min(map(same_distribution, ours, theirs))
    if least < LEAST_P:
        raise RuntimeError(
            f"sampling: ours and {peer} don't sample the same distribution, so their times can't be compared: the "
            f"counts of their tokens at one place agree with p = {least:.2g}, at least {LEAST_P:g} is asked for"
        )
    return least


def same_distribution(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Returns the p of a chi-square test between two samples of tokens; rare tokens count as one."""
    both, *counts = Counter([*ours, *theirs]), Counter(ours), Counter(theirs)
    kinds = [token for token, count in both.items() if count >= FEWEST]
    table = np.array([[*(c[t] for t in kinds), c.total() - sum(c[t] for t in kinds)] for c in counts])
    table = table[:, table.sum(axis=0) > 0]
    return float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0


def summary(seconds: list[float], responses: list[list[list[int]]]) -> dict[str, Any]:
    """Returns the median seconds of 1,000 tokens, and the mean length of a response with its standard error.

    Beside them it returns the tokens at each of `PLACES`, -1 for a response that has ended before.
    """
    counts = [[len(ids) for ids in step] for step in responses]
    each = [1000 * s / sum(c) for s, c in zip(seconds, counts, strict=True)][WARM_UP:]
    lengths = [length for step in counts for length in step]
    error = statistics.stdev(lengths) / len(lengths) ** 0.5
    drawn = [ids for step in responses for ids in step]
    tokens = [[ids[place] if place < len(ids) else -1 for ids in drawn] for place in PLACES]
    mean = statistics.mean(lengths)
    return {"1,000 tokens": statistics.median(each), "length": mean, "error": error, "tokens": tokens}
