"""The loss of one mini-batch and its gradient, accumulated over micro-batches.

    loss = - sum of the clip method's objective / tokens of the mini-batch            (token mean, Eq. 7)
           + alpha * negative log-likelihood of correct responses / their tokens      (Eq. 13, 14)

A method that needs statistics of the whole mini-batch gets them from a pass of its own over all micro-batches,
without gradient, before the first of them; only such methods pay for it.

Departures: both denominators count the whole mini-batch, whereas the authors' code averages each micro-batch and
weights it by its sequences, and so depends on how the batch is split; `token_mean="micro_batch"` is theirs, for
comparison. `token_mean="sequence"` averages over each response's tokens and then over responses, as GSPO and its
kin are published. Eq. 8 and 13 print pi where they mean the log-likelihood.

Shapes: N response tokens of a micro-batch or, in `TokenMeasures`, of a mini-batch or a step; T of a response.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.model import Policy
from klear_lab.rl.clip_methods import ClipMethod, Responses
from klear_lab.rl.mismatch import Correction, correct

OldLogProbs = dict[int, Tensor]  # log-probabilities before the step's first update, by a response's number


@dataclass(frozen=True)
class ScoredResponse:
    """A scored response is one response of a rollout with the advantage that its reward gave it.

    `number` is its place in the step's rollout, in which the responses to one prompt follow each other;
    `sampler_log_prob_T` are the sampler's own log-probabilities, None from a sampler that has none.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    truncated: bool
    correct: bool
    advantage: float
    number: int
    sampler_log_prob_T: Tensor | None = None


def column(dtype: torch.dtype | None = None) -> Any:
    """Declares a tensor of a type; None stands for the policy's own floating-point type."""
    return field(metadata={"dtype": dtype})


@dataclass(frozen=True)
class TokenMeasures:
    """Holds what the probes need to know of each token, in tensors of shape (N,) on the CPU.

    `weight` is F A, the derivative of the token's objective with respect to its log-probability; `number` is that
    of the token's response, `position` its place in it; `entropy` is in nats; `sampler_log_prob` is no number
    where the sampler has none; `mismatch_low` and `mismatch_high` are beyond the bounds of the correction for
    mismatch; the other masks are those of `ClipOutput`.
    """

    token_id: Tensor = column(torch.int32)
    number: Tensor = column(torch.int32)
    position: Tensor = column(torch.int32)
    log_prob: Tensor = column()
    old_log_prob: Tensor = column()
    sampler_log_prob: Tensor = column()
    advantage: Tensor = column()
    entropy: Tensor = column()
    weight: Tensor = column()
    below: Tensor = column(torch.bool)
    above: Tensor = column(torch.bool)
    low: Tensor = column(torch.bool)
    high: Tensor = column(torch.bool)
    dual: Tensor = column(torch.bool)
    mismatch_low: Tensor = column(torch.bool)
    mismatch_high: Tensor = column(torch.bool)

    @classmethod
    def empty(cls, count: int, dtype: torch.dtype) -> "TokenMeasures":
        """Makes room for the tokens of a step, 43 bytes each in float32, where all its updates write."""
        return cls(**{f.name: torch.empty(count, dtype=f.metadata["dtype"] or dtype) for f in fields(cls)})

    def part(self, start: int, end: int) -> "TokenMeasures":
        """Returns a view of some of the tokens, which shares their memory."""
        return TokenMeasures(**{f.name: getattr(self, f.name)[start:end] for f in fields(self)})

    def fill(self, **columns: Tensor) -> None:
        """Copies values into the tokens, wherever these values lie."""
        for name, values in columns.items():
            getattr(self, name).copy_(values.detach())


@dataclass(frozen=True)
class MiniBatchResult:
    """Holds a mini-batch's losses and tokens; `sft_loss` is without alpha, and None if no response is correct."""

    policy_loss: float
    sft_loss: float | None
    tokens: TokenMeasures


def backward(
    policy: Policy,
    micro_batches: Sequence[Sequence[ScoredResponse]],
    method: ClipMethod,
    old_log_probs: OldLogProbs,
    tokens: TokenMeasures,
    *,
    alpha: float,
    temperature: float,
    correction: Correction,
    token_mean: str = "mini_batch",
) -> MiniBatchResult:
    """Adds the gradient of the mini-batch's loss to the parameters' `.grad`; returns the losses and measures.

    Responses that `old_log_probs` lacks get this pass's own there: it is the step's first. The measures go into
    `tokens`, in the order of the micro-batches.
    """
    responses = [r for micro_batch in micro_batches for r in micro_batch]
    token_count = count_tokens(responses)
    correct_count = count_tokens(r for r in responses if r.correct)
    policy_loss, sft_loss, done = 0.0, 0.0, 0
    statistics = mini_batch_statistics(policy, micro_batches, method, old_log_probs, temperature)
    for micro_batch in micro_batches:
        log_prob_N, entropy_N = response_log_probs(policy, micro_batch, temperature)
        own = tokens.part(done, done + len(log_prob_N))
        objective_N, correct_N = measure(
            micro_batch, log_prob_N, entropy_N, method, old_log_probs, correction, own, statistics
        )
        share, own_tokens, own_correct = 1.0, token_count, correct_count
        if token_mean == "micro_batch":
            share = len(micro_batch) / len(responses)
            own_tokens, own_correct = len(log_prob_N), int(correct_N.sum())
        policy_term = -objective_N.sum() * share / own_tokens
        if token_mean == "sequence":
            lengths = [len(r.response_ids) for r in micro_batch]
            policy_term = -(objective_N / per_token(lengths, lengths).to(log_prob_N)).sum() / len(responses)
        sft_term = -log_prob_N[correct_N].sum() * share / max(1, own_correct)
        (policy_term + alpha * sft_term if alpha > 0 else policy_term).backward()
        policy_loss += policy_term.item()
        sft_loss += sft_term.item()
        done += len(log_prob_N)
    return MiniBatchResult(policy_loss, sft_loss if correct_count else None, tokens)


def measure(
    responses: Sequence[ScoredResponse],
    log_prob_N: Tensor,
    entropy_N: Tensor,
    method: ClipMethod,
    old_log_probs: OldLogProbs,
    correction: Correction,
    tokens: TokenMeasures,
    statistics: Any = None,
) -> tuple[Tensor, Tensor]:
    """Returns each token's objective, corrected for mismatch, and a mask of the correct responses, both (N,).

    Responses that `old_log_probs` lacks get `log_prob_N` there. The measures go into `tokens`.
    """
    remember(old_log_probs, responses, log_prob_N)
    lengths = [len(r.response_ids) for r in responses]
    old_log_prob_N = torch.cat([old_log_probs[r.number] for r in responses]).to(log_prob_N)
    advantage_N = per_token([r.advantage for r in responses], lengths).to(log_prob_N)
    sampler_log_prob_N = sampler_log_probs(responses).to(log_prob_N)
    corrected = correct(old_log_prob_N - sampler_log_prob_N, lengths, correction)
    known = {**what_is_known(responses, log_prob_N), "statistics": statistics}
    output = method(log_prob_N, old_log_prob_N, advantage_N, **known)
    tokens.fill(
        **identify(responses, lengths),
        log_prob=log_prob_N,
        old_log_prob=old_log_prob_N,
        sampler_log_prob=sampler_log_prob_N,
        advantage=advantage_N,
        entropy=entropy_N,
        weight=gradient_weight(method, log_prob_N, old_log_prob_N, advantage_N, factor=corrected.factor, **known),
        below=output.below,
        above=output.above,
        low=output.low,
        high=output.high,
        dual=output.dual,
        mismatch_low=corrected.low,
        mismatch_high=corrected.high,
    )
    correct_N = per_token([r.correct for r in responses], lengths).to(log_prob_N.device)
    return output.objective * corrected.factor, correct_N


def remember(old_log_probs: OldLogProbs, responses: Sequence[ScoredResponse], log_prob_N: Tensor) -> None:
    """Keeps the log-probabilities of responses that have none yet."""
    parts = log_prob_N.detach().split([len(r.response_ids) for r in responses])
    for response, log_prob_T in zip(responses, parts, strict=True):
        old_log_probs.setdefault(response.number, log_prob_T)


def count_tokens(responses: Iterable[ScoredResponse]) -> int:
    """Counts the response tokens of all responses together."""
    return sum(len(r.response_ids) for r in responses)


def sampler_log_probs(responses: Sequence[ScoredResponse]) -> Tensor:
    """Returns the sampler's log-probabilities, shape (N,); no number where it has none."""
    known = [(r, r.sampler_log_prob_T) for r in responses]
    return torch.cat([torch.full((len(r.response_ids),), torch.nan) if t is None else t for r, t in known])


def identify(responses: Sequence[ScoredResponse], lengths: Sequence[int]) -> dict[str, Tensor]:
    """Returns each token's id, the number of its response and its position there, three tensors of shape (N,)."""
    return {
        "token_id": torch.tensor([token for r in responses for token in r.response_ids]),
        "number": per_token([r.number for r in responses], lengths),
        "position": torch.cat([torch.arange(length) for length in lengths]),
    }


def gradient_weight(
    method: ClipMethod,
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    factor: Tensor | float = 1.0,
    **known: Any,
) -> Tensor:
    """Returns F A of each token, taken from the method itself, so that a new method needs no second formula.

    Where a token's objective depends on its whole response, so does its derivative: pass whole responses then.
    `factor` multiplies each token's objective; `known` is what else the method is given.
    """
    leaf = log_prob.detach().requires_grad_()
    objective = method(leaf, old_log_prob, advantage, **known).objective
    if method.of_responses:  # other tokens' factors count too
        return torch.autograd.grad((objective * factor).sum(), leaf)[0]
    return factor * torch.autograd.grad(objective.sum(), leaf)[0]


def what_is_known(micro_batch: Sequence[ScoredResponse], log_prob_N: Tensor) -> dict[str, Any]:
    """Returns what a method may ask beside a token's own numbers: responses, the sampler's log-probabilities."""
    responses = Responses([len(r.response_ids) for r in micro_batch], [r.number for r in micro_batch])
    silent = any(r.sampler_log_prob_T is None for r in micro_batch)
    return {
        "responses": responses,
        "sampler_log_prob": None if silent else sampler_log_probs(micro_batch).to(log_prob_N),
    }


def mini_batch_statistics(
    policy: Policy,
    micro_batches: Sequence[Sequence[ScoredResponse]],
    method: ClipMethod,
    old_log_probs: OldLogProbs,
    temperature: float,
) -> Any:
    """Returns the statistics of the whole mini-batch that the method needs, None if it needs none.

    They are made of the responses in the order of their numbers, so that neither cut nor order can change them.
    Responses that `old_log_probs` lacks count as they are now: at a ratio of 1.
    """
    if not method.needs_statistics:
        return None
    parts: dict[int, tuple[ScoredResponse, Tensor]] = {}
    with torch.no_grad():
        for micro_batch in micro_batches:
            log_prob_N, _ = response_log_probs(policy, micro_batch, temperature)
            for response, own_T in zip(
                micro_batch, log_prob_N.split([len(r.response_ids) for r in micro_batch]), strict=True
            ):
                parts[response.number] = response, own_T
    responses = [response for _, (response, _) in sorted(parts.items())]
    log_prob_N = torch.cat([own_T for _, (_, own_T) in sorted(parts.items())])
    old_log_prob_N = torch.cat([old_log_probs.get(r.number, parts[r.number][1]) for r in responses]).to(log_prob_N)
    lengths = [len(r.response_ids) for r in responses]
    advantage_N = per_token([r.advantage for r in responses], lengths).to(log_prob_N)
    return method.measure(log_prob_N, old_log_prob_N, advantage_N, **what_is_known(responses, log_prob_N))


def per_token(values: Sequence[float], lengths: Sequence[int]) -> Tensor:
    """Repeats each response's value for each of its tokens, shape (N,)."""
    return torch.tensor(values).repeat_interleave(torch.tensor(lengths))
