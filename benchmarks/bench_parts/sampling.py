"""Sampling the default run's rollout: 32 prompts x 8 responses; plain `generate`, and vLLM where it is installed.

vLLM runs in its own environment, .venv-vllm, on the same CPU; its start isn't counted.
"""

import statistics
import time

from bench_parts.figures import OURS, Figure
from bench_parts.our_step import prompts_of
from bench_parts.work import ROOT, Work
from klear_lab.policy.model import Policy
from klear_lab.sampling.types import Sampler

TITLE = "Sampling: 32 prompts x 8 responses"
GENERATE, VLLM = "generate", "vLLM"
WARM_UP, STEPS = 1, 5
THREADS = (1,)
PYTHONS = {VLLM: ROOT / ".venv-vllm" / "bin" / "python"}  # sides that another environment runs


def measure_ours(work: Work) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens from the transformers sampler."""
    from klear_lab.sampling.transformers import TransformersSampler

    policy = work.policy()
    return measure_sampler(work, policy, TransformersSampler(policy))


def measure_vllm(work: Work) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens from the vLLM sampler."""
    from klear_lab.sampling.samplers import open_sampler

    config, policy = work.composed("sampler=vllm"), work.policy()
    sampler = open_sampler(config, policy)
    sampler.load(policy.weights, 0)
    try:
        return measure_sampler(work, policy, sampler)
    finally:
        sampler.close()


def measure_sampler(work: Work, policy: Policy, sampler: Sampler) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens from one of our samplers."""
    from klear_lab.sampling.draws import make_requests
    from klear_lab.sampling.types import Sampling

    rl, rows = work.config.rl, work.rows("rl.jsonl")
    seconds, counts = [], []
    for step in range(WARM_UP + STEPS):
        chosen = prompts_of(rows, step, rl.prompts_per_step)
        started = time.perf_counter()
        requests = make_requests(
            [policy.codec.encode_prompt(p) for p in chosen], rl.responses_per_prompt, f"bench-{step}"
        )
        sampled = sampler.sample(requests, Sampling.for_rollout(rl))
        seconds.append(time.perf_counter() - started)
        counts.append([len(r.token_ids) for group in sampled for r in group])
    return summary(seconds, counts)


def measure_generate(work: Work) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens from transformers' `generate`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rl, rows = work.config.rl, work.rows("rl.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(work.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype="float32").eval()
    ends = torch.tensor(model.generation_config.eos_token_id).reshape(-1)
    torch.manual_seed(0)
    seconds, counts = [], []
    for step in range(WARM_UP + STEPS):
        chosen = prompts_of(rows, step, rl.prompts_per_step)
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
        responses = made[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(responses, ends).int()
        counts.append(((ended.cumsum(1) - ended) == 0).sum(1).tolist())
    return summary(seconds, counts)


SIDES = {OURS: measure_ours, GENERATE: measure_generate, VLLM: measure_vllm}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
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


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Says how long the responses of each side are, which must agree, as all sample the same distribution."""
    (sides,) = found.values()
    told = ", ".join(
        f"{side} {ones[0]['length']:.1f} ± {1.96 * ones[0]['error']:.1f}" for side, ones in sides.items() if ones
    )
    return [f"Mean tokens of a response (95 % interval): {told}."]


def summary(seconds: list[float], counts: list[list[int]]) -> dict[str, float]:
    """Returns the median seconds of 1,000 tokens, the mean length of a response and its standard error."""
    each = [1000 * s / sum(c) for s, c in zip(seconds, counts, strict=True)][WARM_UP:]
    lengths = [length for step in counts for length in step]
    error = statistics.stdev(lengths) / len(lengths) ** 0.5
    return {"1,000 tokens": statistics.median(each), "length": statistics.mean(lengths), "error": error}
