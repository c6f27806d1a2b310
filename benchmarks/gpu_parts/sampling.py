"""Samplers: the same requests through klear_lab's own and through vLLM."""

from importlib.util import find_spec

import torch

from gpu_parts.measure import GB, Report, measured
from gpu_parts.model import load, prompts
from gpu_parts.sizes import Job, Sizes
from klear_lab.config import SamplerConfig
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Request, Sampler, Sampling

MOST_SECONDS, MOST_GB = 120, 70
SPARE = 1.25  # the cache's room, relative to what is in use, when it has just grown
REST_GB = 5  # float32 weights, their copies in bfloat16, and a step's logits


def sample_transformers(job: Job, report: Report) -> None:
    """Samples with the policy's own model, as many sequences at once as the goal and the card have memory for."""
    policy = load(job)
    requests = make_requests(prompts(policy, job.sizes.sample_prompts), job.sizes.samples, "gpu")
    wanted = job.sizes.sample_prompts * job.sizes.samples
    if job.batch_sequences is not None:
        choices = [job.batch_sequences]
    else:
        choices = [-(-wanted // rounds) for rounds in (1, 2, 3, 4, 6, 8)]
    longest = max(len(request.prompt_ids) for request in requests) + job.sizes.sample_tokens
    for sequences in choices:
        needed = cache_gb(job.sizes, sequences, longest)
        if job.batch_sequences is None and job.device == "cuda" and needed + REST_GB > min(free_gb(), MOST_GB):
            report(f"{sequences} sequences at once", f"not tried: up to {needed:.0f} GB of keys and values")
            continue
        try:
            measure(job, report, TransformersSampler(policy), requests, sequences)
        except torch.OutOfMemoryError:
            report(f"{sequences} sequences at once", "out of memory")
            torch.cuda.empty_cache()
            continue
        return


def sample_vllm(job: Job, report: Report) -> None:
    """Samples the same with vLLM, where it is installed."""
    if find_spec("vllm") is None:
        report("vLLM", "not installed")
        return
    from klear_lab.sampling.vllm import VllmSampler

    policy = load(job)
    ids = prompts(policy, job.sizes.sample_prompts)
    wanted = len(ids) * job.sizes.samples
    settings = SamplerConfig(
        name="vllm",
        max_model_len=max(map(len, ids)) + job.sizes.sample_tokens,
        max_num_seqs=wanted,
        gpu_memory_utilization=0.8,
    )
    with measured(job.device) as started:
        sampler = VllmSampler(policy, settings)
    report("starting vLLM's engine", started.seconds, "s")
    measure(job, report, sampler, make_requests(ids, job.sizes.samples, "gpu"), wanted)


def measure(job: Job, report: Report, sampler: Sampler, requests: list[Request], sequences: int) -> None:
    """Samples a sixteenth of the length as a warm-up, then all of it."""
    short, full = (
        Sampling(job.sizes.samples, tokens, 1.0, 1.0, sequences)
        for tokens in (max(2, job.sizes.sample_tokens // 16), job.sizes.sample_tokens)
    )
    with measured(job.device) as found:
        drawn = count(sampler.sample(requests, short))
    report(f"warm-up of {short.max_tokens} tokens, {sequences} at once", drawn / found.seconds, "tokens/s")
    sampler.sleep()
    with measured(job.device) as found:
        drawn = count(sampler.sample(requests, full))
    goals = (None, None) if job.small else (MOST_SECONDS, MOST_GB)
    report("sequences at once", float(sequences))
    report("tokens drawn", float(drawn))
    report("all of them", found.seconds, "s", goals[0])
    report("tokens a second", drawn / found.seconds, "tokens/s")
    report("peak memory of the process's tensors", found.peak_gb, "GB", goals[1])


def count(responses: list) -> int:
    """Counts the tokens of all responses."""
    return sum(len(response.token_ids) for group in responses for response in group)


def cache_gb(sizes: Sizes, sequences: int, longest: int) -> float:
    """Returns the most that keys and values take in bfloat16: the cache, and a layer repeated for all heads."""
    layer = sequences * longest * SPARE * 2 * sizes.kv_heads * sizes.head_dim * 2
    return layer * (sizes.layers + sizes.heads / sizes.kv_heads) / GB


def free_gb() -> float:
    """Returns the GPU's memory that a program may still have, with what this process holds in reserve."""
    reserve = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return (torch.cuda.mem_get_info()[0] + reserve) / GB
