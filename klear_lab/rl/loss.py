"""The loss of one mini-batch and its gradient, accumulated over micro-batches.

    loss = - sum of the clip method's objective / tokens of the mini-batch            (token mean, Eq. 7)
           + alpha * negative log-likelihood of correct responses / their tokens      (Eq. 13, 14)

Departures: both denominators count the whole mini-batch, whereas the authors' code averages each micro-batch and
weights it by its sequences, and so depends on how the batch is split; `token_mean="micro_batch"` is theirs, for
comparison. Eq. 8 and 13 print pi where they mean the log-likelihood.

Shapes: N response tokens of a micro-batch or, in `TokenMeasures`, of all the micro-batches joined there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from klear_lab.policy.log_probs import micro_batches, response_log_probs
from klear_lab.policy.model import Policy
from klear_lab.rl.clip_methods import ClipMethod


@dataclass(frozen=True)
class ScoredResponse:
    """A scored response is one response of a rollout with the advantage that its reward gave it.

    `number` is its place in the step's rollout, in which the responses to one prompt follow each other.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    truncated: bool
    correct: bool
    advantage: float
    number: int


@dataclass(frozen=True)
class TrainedResponse(ScoredResponse):
    """A trained response also has the log-probabilities of its tokens under the policy that sampled it."""

    old_log_prob_T: Tensor


@dataclass(frozen=True)
class TokenMeasures:
    """Holds what the probes need to know of each token, in tensors of shape (N,) on the CPU.

    `weight` is F A, the derivative of the token's objective with respect to its log-probability; `number` is that
    of the token's response, `position` its place in it; `entropy` is in nats; the masks are those of `ClipOutput`.
    """

    token_id: Tensor
    number: Tensor
    position: Tensor
    log_prob: Tensor
    old_log_prob: Tensor
    advantage: Tensor
    entropy: Tensor
    weight: Tensor
    below: Tensor
    above: Tensor
    low: Tensor
    high: Tensor
    dual: Tensor


@dataclass(frozen=True)
class MiniBatchResult:
    """Holds a mini-batch's losses and tokens; `sft_loss` is without alpha, and None if no response is correct."""

    policy_loss: float
    sft_loss: float | None
    tokens: TokenMeasures


def backward(
    policy: Policy,
    responses: Sequence[TrainedResponse],
    method: ClipMethod,
    *,
    alpha: float,
    temperature: float,
    micro_batch_sequences: int,
    token_mean: str = "mini_batch",
) -> MiniBatchResult:
    """Adds the gradient of the mini-batch's loss to the parameters' `.grad`; returns the losses and measures."""
    token_count = count_tokens(responses)
    correct_count = count_tokens(r for r in responses if r.correct)
    policy_loss, sft_loss, measures = 0.0, 0.0, []
    for micro_batch in micro_batches(responses, micro_batch_sequences):
        log_prob_N, entropy_N = response_log_probs(policy, micro_batch, temperature)
        old_log_prob_N = torch.cat([r.old_log_prob_T for r in micro_batch]).to(log_prob_N)
        advantage_N = per_token([r.advantage for r in micro_batch], micro_batch).to(log_prob_N)
        correct_N = per_token([r.correct for r in micro_batch], micro_batch).to(policy.device)
        output = method(log_prob_N, old_log_prob_N, advantage_N)
        share, own_tokens, own_correct = 1.0, token_count, correct_count
        if token_mean == "micro_batch":
            share = len(micro_batch) / len(responses)
            own_tokens, own_correct = len(log_prob_N), int(correct_N.sum())
        policy_term = -output.objective.sum() * share / own_tokens
        sft_term = -log_prob_N[correct_N].sum() * share / max(1, own_correct)
        (policy_term + alpha * sft_term if alpha > 0 else policy_term).backward()
        policy_loss += policy_term.item()
        sft_loss += sft_term.item()
        weight_N = gradient_weight(method, log_prob_N, old_log_prob_N, advantage_N)
        measured = (log_prob_N, old_log_prob_N, advantage_N, entropy_N, weight_N)
        masks = (output.below, output.above, output.low, output.high, output.dual)
        measures.append(TokenMeasures(*identify(micro_batch), *(c.detach().cpu() for c in (*measured, *masks))))
    return MiniBatchResult(policy_loss, sft_loss if correct_count else None, concatenate(measures))


def count_tokens(responses: Iterable[TrainedResponse]) -> int:
    """Counts the response tokens of all responses together."""
    return sum(len(r.response_ids) for r in responses)


def identify(responses: Sequence[TrainedResponse]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each token's id, the number of its response and its position there, three tensors of shape (N,)."""
    return (
        torch.tensor([token for r in responses for token in r.response_ids]),
        per_token([r.number for r in responses], responses),
        torch.cat([torch.arange(len(r.response_ids)) for r in responses]),
    )


def gradient_weight(method: ClipMethod, log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Returns F A of each token, taken from the method itself, so that a new method needs no second formula."""
    leaf = log_prob.detach().requires_grad_()
    return torch.autograd.grad(method(leaf, old_log_prob, advantage).objective.sum(), leaf)[0]


def per_token(values: Sequence[float], responses: Sequence[TrainedResponse]) -> Tensor:
    """Repeats each response's value for each of its tokens, shape (N,)."""
    lengths = torch.tensor([len(r.response_ids) for r in responses])
    return torch.tensor(values).repeat_interleave(lengths)


def concatenate(measures: Sequence[TokenMeasures]) -> TokenMeasures:
    """Joins the tokens of several mini-batches or micro-batches."""
    return TokenMeasures(*(torch.cat(columns) for columns in zip(*map(columns_of, measures), strict=True)))


def columns_of(measures: TokenMeasures) -> tuple[Tensor, ...]:
    """Returns the fields of the measures, in order."""
    return tuple(vars(measures).values())
