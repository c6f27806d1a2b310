"""Training: the output head alone, one long sequence and its optimizers, the RL update by its micro-batches."""

import random
import statistics
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

import chunked_head
import torch

from gpu_parts.measure import Report, empty_cache, measured
from gpu_parts.model import load, prompts
from gpu_parts.sizes import Job, Sizes
from klear_lab.config import RLConfig
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.micro_batches import equal_micro_batches, length, micro_batches
from klear_lab.policy.training_state import TrainingState, apply_gradient, start_state
from klear_lab.rl.clip_methods import make_clip_method
from klear_lab.rl.loss import ScoredResponse, backward
from klear_lab.rl.mismatch import Correction
from klear_lab.rl.trainer import make_room
from klear_lab.sft import Example

MOST_GB = 25  # of one long sequence


def train_head(job: Job, report: Report) -> None:
    """Measures the output head's forward and backward pass in three ways, as benchmarks/chunked_head.py does."""
    ways = {"chunked": chunked_head.chunked, "plain": chunked_head.plain}
    if find_spec("liger_kernel"):
        ways["Liger"] = chunked_head.liger
    else:
        report("Liger", "liger_kernel isn't installed")
    for hidden in job.sizes.head_hidden:
        for name, way in ways.items():
            with report.guarded(f"{name}, hidden size {hidden}"):
                measure_head(job, report, name, way, hidden)


def measure_head(job: Job, report: Report, name: str, way: chunked_head.Way, hidden: int) -> None:
    """Measures one way: the median of three passes after one that isn't counted."""
    tokens, vocabulary, cuda = job.sizes.head_tokens, job.sizes.vocabulary, job.device == "cuda"
    torch.manual_seed(0)
    hidden_NH = torch.randn(tokens, hidden, device=job.device, requires_grad=True)
    weight_VH = (torch.randn(vocabulary, hidden, device=job.device) * hidden**-0.5).requires_grad_()
    target_N = torch.randint(vocabulary, (tokens,), device=job.device)

    def train() -> None:
        hidden_NH.grad = weight_VH.grad = None
        way(hidden_NH, weight_VH, target_N).backward()

    train()
    hidden_NH.grad = weight_VH.grad = None
    peak = (chunked_head.measure_peak(train, cuda) - weight_VH.nbytes) / tokens
    ms = statistics.median(chunked_head.measure_time(train, cuda) for _ in range(3))
    report(f"{name}, hidden size {hidden}", ms, "ms")
    report(f"{name}, hidden size {hidden}: peak memory a token", peak, "bytes")


def train_long(job: Job, report: Report) -> None:
    """Trains on one long sequence with activation checkpointing, then takes a step with each optimizer."""
    policy = load(job, gradient_checkpointing=True)
    (prompt,) = prompts(policy, 1)
    generator = random.Random(0)
    response = [generator.randrange(3, job.sizes.vocabulary) for _ in range(job.sizes.long_tokens - len(prompt))]
    goal = None if job.small else MOST_GB
    for again in ("first pass", "second pass"):
        policy.model.zero_grad()
        what = f"{again}: {job.sizes.long_tokens} tokens forward and backward"
        with report.guarded(what):
            with measured(job.device) as found:
                log_prob_N, _ = response_log_probs(policy, [Example(prompt, response)])
                (-log_prob_N.mean()).backward()
            del log_prob_N
            report(what, found.seconds, "s")
            report(f"{again}: peak memory", found.peak_gb, "GB", goal)
    for parameter in policy.model.parameters():
        if parameter.grad is None:  # where the passes had no room
            parameter.grad = torch.zeros_like(parameter)
    for name in ("adamw", "adamw_8bit"):
        with report.guarded(f"optimizer={name}"):
            rl = RLConfig()
            state = start_state(
                policy, learning_rate=1e-6, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay, optimizer=name
            )
            state.optimizer.step()  # which makes the states
            with measured(job.device) as found:
                state.optimizer.step()
            report(f"optimizer={name}: a step", found.seconds, "s")
            report(f"optimizer={name}: weights, gradients, states", bytes_a_parameter(state), "bytes/parameter")
            report(f"optimizer={name}: peak memory of a step", found.peak_gb, "GB")
            del state
        empty_cache()


def bytes_a_parameter(state: TrainingState) -> float:
    """Returns the bytes of weights, gradients and states by the number of weights; shared tensors count once."""
    parameters = list(state.policy.model.parameters())
    held = [*parameters, *(p.grad for p in parameters if p.grad is not None)]
    held += [value for of_one in state.optimizer.state.values() for value in of_one.values()]
    sizes = {value.data_ptr(): value.nbytes for value in held if isinstance(value, torch.Tensor)}
    return sum(sizes.values()) / sum(p.numel() for p in parameters)


def train_update(job: Job, report: Report) -> None:
    """Updates on responses of mixed lengths, in micro-batches of 8 sequences and of as many tokens as fit."""
    policy = load(job, gradient_checkpointing=True)
    responses = mixed_responses(job.sizes, prompts(policy, job.sizes.update_sequences))
    tokens = sum(map(length, responses))
    report("sequences", float(len(responses)))
    report("tokens, prompts included", float(tokens))
    rl = RLConfig()
    state = start_state(policy, learning_rate=1e-6, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay)
    cuts = {
        "8 sequences a micro-batch": equal_micro_batches(sorted(responses, key=length), 8),
        f"{job.sizes.micro_batch_tokens} tokens a micro-batch": micro_batches(
            responses, len(responses), job.sizes.micro_batch_tokens
        ),
    }
    seconds: dict[str, list[float]] = {}
    with report.guarded("a micro-batch as a warm-up"):
        update(state, [cut[0] for cut in cuts.values()])
    for _ in range(2):  # in turns
        for name, cut in cuts.items():
            with report.guarded(name), measured(job.device) as found:
                update(state, cut)
            if found.seconds:
                seconds.setdefault(name, []).append(found.seconds)
    for name, found_seconds in seconds.items():
        report(f"{name}: number", float(len(cuts[name])))
        report(f"{name}: padding", 100 * padding(cuts[name]), "% of positions")
        report(name, tokens / min(found_seconds), "tokens/s")
    if len(seconds) == 2:
        old, new = map(min, seconds.values())
        report("by tokens, relative to 8 sequences", old / new, "times the tokens/s")


def mixed_responses(sizes: Sizes, prompt_ids: list[list[int]]) -> list[ScoredResponse]:
    """Returns responses of log-uniform lengths and random tokens; every second one is right."""
    generator = random.Random(0)
    found = []
    for number, ids in enumerate(prompt_ids):
        count = round(sizes.shortest * (sizes.longest / sizes.shortest) ** generator.random())
        tokens = [generator.randrange(3, sizes.vocabulary) for _ in range(count)]
        right = number % 2 == 0
        found.append(ScoredResponse(ids, tokens, False, right, 1.0 if right else -1.0, number))
    return found


def update(state: TrainingState, cut: Sequence[list[ScoredResponse]]) -> None:
    """Takes one optimiser step on one mini-batch, as RL does."""
    rl, method = RLConfig(), make_clip_method("gppo")
    room = make_room(state.policy, [list(cut)])
    once = partial(backward, alpha=rl.alpha, temperature=rl.temperature, correction=Correction.of(rl))
    once(state.policy, cut, method, {}, room)
    apply_gradient(state, "rl", 1e-6, rl.max_grad_norm)


def padding(cut: Sequence[Sequence[ScoredResponse]]) -> float:
    """Returns the share of positions that are padding."""
    positions = sum(max(map(length, part)) * len(part) for part in cut)
    return 1 - sum(length(response) for part in cut for response in part) / positions
