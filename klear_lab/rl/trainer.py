"""The RL stage: sample, score, normalise, update several times, evaluate, repeat.

    for each step:
        sample `responses_per_prompt` responses to `prompts_per_step` prompts        (temperature 1, top-p 1)
        score them; advantage = (R - group mean) / group std                         (advantages.py)
        drop groups without advantage, record old log-probabilities
        for each mini-batch of `mini_batch_prompts` groups: one AdamW step on the clip method's loss (loss.py)

Deviations from textbook PPO, as in the paper (section 4): no critic, no KL, no entropy bonus, one pass over a
rollout, token mean instead of sequence mean, constant learning rate after warm-up. Deviations from the paper:
1. Dropped groups aren't refilled; what is left is split into mini-batches of nearly equal size, at most
   `mini_batch_prompts` groups each, so that no update rests on one left-over group.
2. Old log-probabilities come from the training forward pass, not from the sampler, so that the first
   mini-batch's ratios are exactly 1.

Every random choice is a function of (seed, step): a resumed run needs weights, optimizer and the step.

    python -m klear_lab.run clip_method=gppo rl.steps=24
"""

import random
import time
from functools import lru_cache
from itertools import pairwise

import torch

from klear_lab.checkpoint import TrainingState, apply_gradient
from klear_lab.config import Config, RLConfig
from klear_lab.data.rows import Row
from klear_lab.log_probs import micro_batches, response_log_probs
from klear_lab.model import Policy
from klear_lab.rl.advantages import group_advantages
from klear_lab.rl.clip_methods import ClipMethod, make_clip_method
from klear_lab.rl.loss import MiniBatchResult, Rollout, backward, concatenate
from klear_lab.rl.probes import Metrics, clip_metrics
from klear_lab.rl.rewards import REASONS, Score, score_responses
from klear_lab.rl.rollout import Sampled, sample_responses
from klear_lab.rl.verifiers import Verifiers


def train_step(state: TrainingState, rows: list[Row], config: Config, verifiers: Verifiers) -> Metrics:
    """One rollout and its updates; `state` moves on by one step. Returns the step's metrics.

    Raises `FloatingPointError` for a gradient that isn't finite; the update isn't applied.
    """
    rl, policy, step = config.rl, state.policy, state.step + 1
    method = make_clip_method(**config.clip_method)
    prompts = choose_prompts(rows, rl.prompts_per_step, config.seed, step)

    started = time.perf_counter()
    prompt_ids = [policy.encode_prompt(row["prompt"]) for row in prompts]
    sampled = sample_rollout(policy, prompt_ids, rl, f"{config.seed}-rollout-{step}")
    rollout_done = time.perf_counter()
    scores = score_rollout(policy, prompts, sampled, config, verifiers, f"{config.seed}-tests-{step}")
    reward_done = time.perf_counter()
    groups = make_groups(prompt_ids, sampled, scores)
    batch = [group for group in groups if has_advantage(group) or not rl.drop_zero_advantage]
    if rl.mask_overlong:
        batch = [[r for r in group if not r.truncated] for group in batch]
    batch = [group for group in batch if group]
    results, norms = update(state, batch, method, rl)
    trained = time.perf_counter()

    state.step = step
    metrics = rollout_metrics(sampled, scores, groups)
    metrics |= update_metrics(results, norms, state)
    tokens = sum(len(s.token_ids) for group in sampled for s in group)
    metrics |= {
        "time/rollout_s": rollout_done - started,
        "time/reward_s": reward_done - rollout_done,
        "time/train_s": trained - reward_done,
        "perf/tokens_per_s": tokens / (trained - started),
    }
    return metrics


def choose_prompts(rows: list[Row], count: int, seed: int, step: int) -> list[Row]:
    """The prompts of a step: rows in shuffled order, every row once before any comes again."""
    chosen = []
    for position in range((step - 1) * count, step * count):
        epoch, index = divmod(position, len(rows))
        chosen.append(rows[shuffled_order(len(rows), seed, epoch)[index]])
    return chosen


@lru_cache(maxsize=2)
def shuffled_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch."""
    order = list(range(count))
    random.Random(f"{seed}-prompts-{epoch}").shuffle(order)
    return order


def sample_rollout(policy: Policy, prompt_ids: list[list[int]], rl: RLConfig, seed: str) -> list[list[Sampled]]:
    """A group of responses to each prompt, from the whole distribution (top-p 1)."""
    return sample_responses(
        policy,
        prompt_ids,
        samples=rl.responses_per_prompt,
        max_tokens=rl.max_response_tokens,
        temperature=rl.temperature,
        top_p=1.0,
        seed=seed,
        batch_sequences=rl.rollout_batch_sequences,
    )


def score_rollout(
    policy: Policy,
    prompts: list[Row],
    sampled: list[list[Sampled]],
    config: Config,
    verifiers: Verifiers,
    draw: str | None,
) -> list[list[Score]]:
    """The scores of all responses, verified together, a list for each prompt."""
    rows = [row for row, group in zip(prompts, sampled, strict=True) for _ in group]
    flat = [response for group in sampled for response in group]
    texts = [policy.decode_response(row["prompt"], s.token_ids) for row, s in zip(rows, flat, strict=True)]
    scores = iter(score_responses(texts, rows, config.reward, verifiers, draw))
    return [[next(scores) for _ in group] for group in sampled]


def make_groups(
    prompt_ids: list[list[int]], sampled: list[list[Sampled]], scores: list[list[Score]]
) -> list[list[Rollout]]:
    """Rollouts with their advantages, a list for each prompt; old log-probabilities still to come."""
    reward_PG = torch.tensor([[s.reward for s in group] for group in scores], dtype=torch.float64)
    groups = []
    for ids, responses, found, advantages in zip(
        prompt_ids, sampled, scores, group_advantages(reward_PG).tolist(), strict=True
    ):
        of_prompt = zip(responses, found, advantages, strict=True)
        groups.append(
            [Rollout(ids, r.token_ids, r.truncated, score.correct, a, torch.empty(0)) for r, score, a in of_prompt]
        )
    return groups


def has_advantage(group: list[Rollout]) -> bool:
    """Whether a group's rewards differ; single responses may still lie exactly at the mean."""
    return any(rollout.advantage != 0 for rollout in group)


def update(
    state: TrainingState, groups: list[list[Rollout]], method: ClipMethod, rl: RLConfig
) -> tuple[list[MiniBatchResult], list[float]]:
    """All updates of one rollout: the result of each mini-batch and its gradient norm before clipping."""
    record_old_log_probs(state.policy, [r for group in groups for r in group], rl)
    results, norms = [], []
    for mini_batch in split_evenly(groups, rl.mini_batch_prompts):
        result = backward(
            state.policy,
            [r for group in mini_batch for r in group],
            method,
            alpha=rl.alpha,
            temperature=rl.temperature,
            micro_batch_sequences=rl.micro_batch_sequences,
        )
        results.append(result)
        norms.append(optimizer_step(state, rl))
    return results, norms


def record_old_log_probs(policy: Policy, rollouts: list[Rollout], rl: RLConfig) -> None:
    """Log-probabilities under the policy before its first update."""
    with torch.no_grad():
        for micro_batch in micro_batches(rollouts, rl.micro_batch_sequences):
            log_prob_N, _ = response_log_probs(policy, micro_batch, rl.temperature)
            lengths = [len(r.response_ids) for r in micro_batch]
            for rollout, log_prob_T in zip(micro_batch, log_prob_N.split(lengths), strict=True):
                rollout.old_log_prob_T = log_prob_T


def split_evenly(groups: list[list[Rollout]], size: int) -> list[list[list[Rollout]]]:
    """As few parts of at most `size` groups as hold them all, nearly equal, in order."""
    parts = -(-len(groups) // size)
    bounds = [len(groups) * i // parts for i in range(parts + 1)] if parts else [0]
    return [groups[a:b] for a, b in pairwise(bounds)]


def optimizer_step(state: TrainingState, rl: RLConfig) -> float:
    """One update at the warmed-up learning rate; returns the gradient norm before clipping."""
    warmed_up = min(1.0, (state.updates + 1) / max(1, rl.warmup_updates))
    return apply_gradient(state, "rl", rl.learning_rate * warmed_up, rl.max_grad_norm)


def rollout_metrics(
    sampled: list[list[Sampled]], scores: list[list[Score]], groups: list[list[Rollout]]
) -> Metrics:
    """What the rollout was like, before anything is dropped."""
    rewards = torch.tensor([s.reward for group in scores for s in group], dtype=torch.float64)
    flat_scores = [s for group in scores for s in group]
    flat = [s for group in sampled for s in group]
    zero = sum(not has_advantage(group) for group in groups)
    return {
        "reward/mean": rewards.mean().item(),
        "reward/std": rewards.std(correction=0).item(),
        "reward/raw": sum(s.raw for s in flat_scores) / len(flat),
        "reward/accuracy": sum(s.correct for s in flat_scores) / len(flat),
        "reward/format_rate": sum(s.well_formed for s in flat_scores) / len(flat),
        "rollout/length_mean": sum(len(s.token_ids) for s in flat) / len(flat),
        "rollout/truncated_fraction": sum(s.truncated for s in flat) / len(flat),
        "rollout/zero_advantage_fraction": zero / len(groups),
        **{f"reward/reason/{why}": sum(s.reason == why for s in flat_scores) / len(flat) for why in REASONS},
    }


def update_metrics(results: list[MiniBatchResult], norms: list[float], state: TrainingState) -> Metrics:
    """Losses and gradient norms, mean over the step's mini-batches, and the clip method's probes."""
    if not results:  # every group was dropped: nothing was learned, and nothing is known of the ratios
        return {"optim/lr": state.optimizer.param_groups[0]["lr"], "optim/updates": 0}
    sft_losses = [r.sft_loss for r in results if r.sft_loss is not None]
    return {
        "loss/policy": sum(r.policy_loss for r in results) / len(results),
        "loss/sft": sum(sft_losses) / len(sft_losses) if sft_losses else None,
        "optim/grad_norm": sum(norms) / len(norms),
        "optim/lr": state.optimizer.param_groups[0]["lr"],
        "optim/updates": len(results),
        **clip_metrics(concatenate([r.tokens for r in results])),
    }
