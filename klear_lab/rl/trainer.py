"""The RL step: sample, score, normalise, update several times.

    for each step:
        sample responses to a few prompts, score them, drop groups without advantage (rollout.py)
        record old log-probabilities of all mini-batches but the first
        for each of `epochs` passes, each mini-batch of `mini_batch_prompts` groups:
            one AdamW step on the clip method's loss                                 (loss.py)

Deviations from textbook PPO, as in the paper: no critic (section 2.2), no KL, token mean instead of sequence mean
and a constant learning rate (4.1); as in its authors' scripts: no entropy bonus, one pass over a rollout, warm-up.
Deviations from the paper:
1. The groups that are left are split into mini-batches of nearly equal size, at most `mini_batch_prompts` groups
   each, so that no update rests on one left-over group.
2. Old log-probabilities come from the training forward pass, not from the sampler, and from the same cuts into
   micro-batches, so that the first mini-batch's ratios are exactly 1. What a sampler's own probabilities differ
   by can be corrected for, and isn't by default (mismatch.py).

Every random choice is a function of (seed, step): a resumed run needs weights, optimizer and the step.

    python -m klear_lab.run clip_method=gppo rl.steps=24
"""

import math
import time
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from klear_lab.config import Config, RLConfig
from klear_lab.policy.log_probs import cut_for, response_log_probs
from klear_lab.policy.memory import explained_memory, training_advice
from klear_lab.policy.micro_batches import equal_micro_batches, largest_micro_batch, length
from klear_lab.policy.model import Policy
from klear_lab.policy.throughput import forget_peak_memory, memory_metrics, utilisation
from klear_lab.policy.training_state import TrainingState, apply_gradient, start_state
from klear_lab.rl.clip_methods import ClipMethod, make_clip_method
from klear_lab.rl.loss import (
    MiniBatchResult,
    OldLogProbs,
    ScoredResponse,
    TokenMeasures,
    backward,
    count_tokens,
    remember,
)
from klear_lab.rl.mismatch import Correction
from klear_lab.rl.phases import phase_of
from klear_lab.rl.probes import Metrics, clip_metrics, rollout_metrics, without_regions
from klear_lab.rl.rollout import Rollout, collect
from klear_lab.rl.samples import Sample, choose_samples
from klear_lab.rows import Row
from klear_lab.sampling.types import Sampler
from klear_lab.verify.verifiers import Verifiers


class NonFiniteUpdate(FloatingPointError):
    """Says that an update wasn't applied, as its loss or gradient isn't finite; `responses` is its mini-batch."""

    def __init__(self, message: str, responses: list[ScoredResponse], old_log_probs: OldLogProbs) -> None:
        """Takes a `message` that names the step and the update."""
        super().__init__(message)
        self.responses, self.old_log_probs = responses, old_log_probs


@dataclass(frozen=True)
class Update:
    """Holds the result of one mini-batch's update; `norm` is that of its gradient before clipping."""

    result: MiniBatchResult
    norm: float


@dataclass(frozen=True)
class StepResult:
    """Holds what a step returns. `prompts` are its rows, `skipped` updates that were not applied.

    `tokens` are the measures of all its updates' tokens, `samples` a few responses for a person to read.
    """

    metrics: Metrics
    prompts: list[Row]
    tokens: TokenMeasures
    updates: list[Update] = field(default_factory=list)
    skipped: list[NonFiniteUpdate] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def train_step(
    state: TrainingState, rows: list[Row], config: Config, verifiers: Verifiers, sampler: Sampler
) -> StepResult:
    """Makes one rollout and its updates, and moves `state` on by one step.

    Raises `NonFiniteUpdate` for a loss or gradient that isn't finite, unless `rl.on_nonfinite` is skip.
    """
    step = state.step + 1
    phase = phase_of(config.rl, step)
    rl, policy = phase.settings, state.policy
    if step == phase.start + 1:
        begin_phase(state, rl, config.optimizer)
    method = make_clip_method(**config.clip_method).seeded(f"{config.seed}-clip-{step}")

    forget_peak_memory(policy.device)
    started = time.perf_counter()
    sampler.load(policy.weights, state.step)
    rollout = collect(policy.codec, sampler, phase, rows, config, verifiers, step)
    collected = time.perf_counter()
    responses = [r for group in rollout.chosen for r in group]
    largest = largest_micro_batch(responses, rl.micro_batch_sequences, rl.micro_batch_tokens)
    with explained_memory("RL update", training_advice(config, "rl", *largest)):
        updates, skipped, tokens = update(state, rollout.chosen, method, rl, step - phase.start - 1)
    trained = time.perf_counter()

    state.step = step
    metrics = rollout_metrics(rollout.prompts, rollout.sampled, rollout.scores, rollout.groups)
    metrics |= update_metrics(updates, tokens, state, method.has_bounds)
    trained_lengths = [*map(length, responses)] * rl.epochs
    metrics |= {
        "optim/skipped_updates": len(skipped),
        **speed_metrics(rollout, trained_lengths, started, collected, trained),
        "perf/mfu": utilisation(policy.model, trained_lengths, trained - collected),
        **memory_metrics(policy.device),
    }
    samples = choose_samples(rollout.prompts, rollout.sampled, rollout.scores, config.samples.responses)
    return StepResult(metrics, rollout.prompts, tokens, updates, skipped, samples)


def speed_metrics(
    rollout: Rollout, trained_lengths: list[int], started: float, collected: float, trained: float
) -> Metrics:
    """Returns a step's seconds and tokens a second; it has sampled until `collected` and trained until `trained`.

    `trained_lengths` are those of all sequences that its updates met.
    """
    sampled = sum(len(s.token_ids) for group in rollout.sampled for s in group)
    rollout_s, train_s = collected - started - rollout.reward_s, trained - collected
    return {
        "time/rollout_s": rollout_s,
        "time/reward_s": rollout.reward_s,
        "time/train_s": train_s,
        "perf/tokens_per_s": sampled / (trained - started),
        "perf/rollout_tokens_per_s": sampled / rollout_s,
        "perf/train_tokens_per_s": sum(trained_lengths) / train_s if trained_lengths else None,
    }


def begin_phase(state: TrainingState, rl: RLConfig, optimizer: str) -> None:
    """Starts a new optimizer and warm-up: the paper's code RL is a run of its own, from the weights of math RL."""
    fresh = start_state(
        state.policy,
        learning_rate=rl.learning_rate,
        adam_betas=rl.adam_betas,
        weight_decay=rl.weight_decay,
        optimizer=optimizer,
    )
    state.optimizer, state.updates = fresh.optimizer, 0


def update(
    state: TrainingState, groups: list[list[ScoredResponse]], method: ClipMethod, rl: RLConfig, rollouts: int = 0
) -> tuple[list[Update], list[NonFiniteUpdate], TokenMeasures]:
    """Makes all updates of one rollout; returns those it applied, those it skipped, and the applied ones' tokens.

    `rollouts` came before it in its phase. Raises the first `NonFiniteUpdate` if `rl.on_nonfinite` is stop.
    """
    mini_batches = [cut(state.policy, part, rl) for part in split_evenly(groups, rl.mini_batch_prompts)]
    old_log_probs = record_old_log_probs(state.policy, mini_batches[1:], rl)
    tokens = make_room(state.policy, mini_batches * rl.epochs)
    updates, skipped, done = [], [], 0
    for number, mini_batch in enumerate(mini_batches * rl.epochs, start=1):
        end = done + sum(map(count_tokens, mini_batch))
        rate = learning_rate(rl, state.updates, rollouts)
        try:
            updates.append(update_once(state, mini_batch, method, old_log_probs, tokens.part(done, end), rl, rate))
            done = end
        except FloatingPointError as error:
            state.optimizer.zero_grad()
            responses = [r for micro_batch in mini_batch for r in micro_batch]
            old = {r.number: old_log_probs[r.number] for r in responses}
            nonfinite = NonFiniteUpdate(f"{error} (update {number} of the step)", responses, old)
            if rl.on_nonfinite == "stop":
                raise nonfinite from error
            skipped.append(nonfinite)
    return updates, skipped, tokens.part(0, done)


def cut(policy: Policy, groups: list[list[ScoredResponse]], rl: RLConfig) -> list[list[ScoredResponse]]:
    """Cuts a mini-batch into micro-batches; as the authors' code counts them where the cut changes the loss."""
    responses = [r for group in groups for r in group]
    if rl.token_mean == "micro_batch":
        return equal_micro_batches(responses, rl.micro_batch_sequences)
    return cut_for(policy, responses, rl.micro_batch_sequences, rl.micro_batch_tokens)


def make_room(policy: Policy, mini_batches: list[list[list[ScoredResponse]]]) -> TokenMeasures:
    """Makes room for the measures of all tokens of a step's updates."""
    count = sum(count_tokens(part) for mini_batch in mini_batches for part in mini_batch)
    return TokenMeasures.empty(count, torch.promote_types(torch.float32, next(policy.model.parameters()).dtype))


def record_old_log_probs(
    policy: Policy, mini_batches: list[list[list[ScoredResponse]]], rl: RLConfig
) -> OldLogProbs:
    """Returns the log-probabilities before the step's first update, with the same cuts as the updates later make.

    The first mini-batch needs no pass of its own: its update starts from the same weights.
    """
    old_log_probs: OldLogProbs = {}
    with torch.no_grad():
        for micro_batch in (part for mini_batch in mini_batches for part in mini_batch):
            log_prob_N, _ = response_log_probs(policy, micro_batch, rl.temperature)
            remember(old_log_probs, micro_batch, log_prob_N)
    return old_log_probs


def update_once(
    state: TrainingState,
    mini_batch: list[list[ScoredResponse]],
    method: ClipMethod,
    old_log_probs: OldLogProbs,
    tokens: TokenMeasures,
    rl: RLConfig,
    rate: float,
) -> Update:
    """Takes one optimiser step on one mini-batch at the learning rate `rate`.

    Raises `FloatingPointError` for a loss or a gradient norm that isn't finite, without applying the update.
    """
    result = backward(
        state.policy,
        mini_batch,
        method,
        old_log_probs,
        tokens,
        alpha=rl.alpha,
        temperature=rl.temperature,
        correction=Correction.of(rl),
        token_mean=rl.token_mean,
    )
    loss = result.policy_loss + rl.alpha * (result.sft_loss or 0.0)
    if not math.isfinite(loss):
        raise FloatingPointError(f"RL step {state.step + 1}: the loss is {loss}; the update was not applied")
    return Update(result, apply_gradient(state, "rl", rate, rl.max_grad_norm))


def split_evenly(groups: list[list[ScoredResponse]], size: int) -> list[list[list[ScoredResponse]]]:
    """Splits groups, in order, into as few nearly equal parts of at most `size` as hold them all."""
    parts = -(-len(groups) // size)
    bounds = [len(groups) * i // parts for i in range(parts + 1)] if parts else [0]
    return [groups[a:b] for a, b in pairwise(bounds)]


def learning_rate(rl: RLConfig, updates: int, rollouts: int) -> float:
    """Returns an update's learning rate: linear warm-up, then constant.

    `updates` and `rollouts` came before it in its phase. With `warmup_unit` rollout all updates of a rollout have
    one rate, and those of the first a rate of 0, as in the authors' code.
    """
    if rl.warmup_unit == "rollout":
        return rl.learning_rate * min(1.0, rollouts / max(1, rl.warmup_updates))
    return rl.learning_rate * min(1.0, (updates + 1) / max(1, rl.warmup_updates))


def update_metrics(
    updates: list[Update], tokens: TokenMeasures, state: TrainingState, has_bounds: bool
) -> Metrics:
    """Returns losses and gradient norms, mean over the step's mini-batches, and the clip method's metrics."""
    if not updates:  # every group was dropped, or every update skipped: no losses and no ratios to report
        return {"optim/lr": None, "optim/updates": 0}
    measured = clip_metrics(tokens)
    sft_losses = [u.result.sft_loss for u in updates if u.result.sft_loss is not None]
    return {
        "loss/policy": sum(u.result.policy_loss for u in updates) / len(updates),
        "loss/sft": sum(sft_losses) / len(sft_losses) if sft_losses else None,
        "optim/grad_norm": sum(u.norm for u in updates) / len(updates),
        "optim/lr": state.optimizer.param_groups[0]["lr"],
        "optim/updates": len(updates),
        **(measured if has_bounds else without_regions(measured)),
    }
