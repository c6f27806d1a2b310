"""The rollout of an RL step: its prompts, the responses to them, their rewards, and the groups to train on.

    for up to `max_rollouts` times, until `train_prompts` groups are left:
        sample `responses_per_prompt` responses to each of `prompts_per_step` prompts
        score them; a response that is nearly too long loses some reward            (overlong_buffer)
        give them their group's advantages                                          (advantages.py)
        leave out groups that teach nothing, and truncated responses where those are masked

By default a step samples once and trains on all groups that are left, however few. The authors' scripts sample 256
prompts to train on at most 128 groups; DAPO (arXiv 2503.14476) samples until a batch is full.

Every random choice is a function of (seed, step) and, after the first time, of the time.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from klear_lab.config import Config, RLConfig
from klear_lab.policy.codec import Codec
from klear_lab.policy.memory import explained_memory, sampling_advice
from klear_lab.rl.advantages import group_advantages
from klear_lab.rl.loss import ScoredResponse
from klear_lab.rl.phases import Phase
from klear_lab.rl.probes import has_advantage
from klear_lab.rows import Row, places_in_epochs
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.types import Response, Sampler, Sampling
from klear_lab.verify.rewards import Score, score_rollout
from klear_lab.verify.verifiers import Verifiers


@dataclass
class Rollout:
    """Holds all that a step has sampled, prompt by prompt; `chosen` are the groups to train on.

    `reward_s` are the seconds that verifying took.
    """

    prompts: list[Row] = field(default_factory=list)
    sampled: list[list[Response]] = field(default_factory=list)
    scores: list[list[Score]] = field(default_factory=list)
    groups: list[list[ScoredResponse]] = field(default_factory=list)
    chosen: list[list[ScoredResponse]] = field(default_factory=list)
    reward_s: float = 0.0


def collect(
    codec: Codec, sampler: Sampler, phase: Phase, rows: list[Row], config: Config, verifiers: Verifiers, step: int
) -> Rollout:
    """Samples and scores what a step trains on; the sampler has the policy's weights, and sleeps afterwards."""
    rl, rollout = phase.settings, Rollout()
    for again in range(rl.max_rollouts):
        prompts = choose_prompts(phase, rows, config.seed, step, again)
        suffix = f"-{again}" if again else ""
        prompt_ids = [codec.encode_prompt(row["prompt"]) for row in prompts]
        requests = make_requests(prompt_ids, rl.responses_per_prompt, f"{config.seed}-rollout-{step}{suffix}")
        advice = sampling_advice(config, "rl.rollout_batch_sequences", rl.rollout_batch_sequences)
        with explained_memory("rollout", advice):
            sampled = sampler.sample(requests, Sampling.for_rollout(rl))
        started = time.perf_counter()
        scores = score_rollout(codec, prompts, sampled, verifiers, f"{config.seed}-tests-{step}{suffix}")
        scores = punish_overlong(sampled, scores, rl)
        rollout.reward_s += time.perf_counter() - started
        groups = make_groups(prompt_ids, sampled, scores, rl, len(rollout.prompts))
        rollout.prompts += prompts
        rollout.sampled += sampled
        rollout.scores += scores
        rollout.groups += groups
        rollout.chosen += choose_groups(groups, rl)
        if rl.train_prompts is not None and len(rollout.chosen) >= rl.train_prompts:
            break
    sampler.sleep()
    rollout.chosen = rollout.chosen[: rl.train_prompts]
    return rollout


def choose_prompts(phase: Phase, rows: list[Row], seed: int, step: int, again: int = 0) -> list[Row]:
    """Returns the rows of a step: the phase's in shuffled order, every row once before any comes again.

    Those that a step samples `again`, to fill its batch, are drawn from all of the phase's rows.
    """
    rows, count = phase.rows(rows), phase.settings.prompts_per_step
    if again:
        draws = random.Random(f"{seed}-prompts-{step}-{again}")
        return draws.sample(rows, count) if count <= len(rows) else draws.choices(rows, k=count)
    positions = range((step - phase.start - 1) * count, (step - phase.start) * count)
    return [rows[place] for place in places_in_epochs(len(rows), positions, f"{seed}-prompts")]


def punish_overlong(
    sampled: Sequence[Sequence[Response]], scores: list[list[Score]], rl: RLConfig
) -> list[list[Score]]:
    """Takes reward from responses within `overlong_buffer` tokens of the limit, the more the longer they are.

    A response at the limit loses `overlong_penalty`, one at the buffer's start nothing (DAPO, arXiv 2503.14476,
    Eq. 13: there the penalty is 1, the buffer 4,096 tokens before 20,480).
    """
    if rl.overlong_buffer is None:
        return scores
    start = rl.max_response_tokens - rl.overlong_buffer
    return [
        [
            replace(score, reward=score.reward - rl.overlong_penalty * max(0, length - start) / rl.overlong_buffer)
            for score, length in zip(found, [len(r.token_ids) for r in responses], strict=True)
        ]
        for responses, found in zip(sampled, scores, strict=True)
    ]


def make_groups(
    prompt_ids: list[list[int]],
    sampled: list[list[Response]],
    scores: list[list[Score]],
    rl: RLConfig,
    prompts_before: int = 0,
) -> list[list[ScoredResponse]]:
    """Gives the responses their advantages; returns a list for each prompt.

    `prompts_before` counts the prompts of the same step that have their groups already.
    """
    reward_PG = torch.tensor([[s.reward for s in group] for group in scores], dtype=torch.float64)
    truncated_PG = torch.tensor([[s.truncated for s in group] for group in sampled])
    counted_PG = None if rl.overlong_counts else ~truncated_PG
    advantage_PG = group_advantages(reward_PG, rl.divide_by_std, counted_PG, rl.group_std).tolist()
    groups = []
    for prompt, (ids, responses, found) in enumerate(zip(prompt_ids, sampled, scores, strict=True)):
        group = []
        for sample, (response, score) in enumerate(zip(responses, found, strict=True)):
            group.append(
                ScoredResponse(
                    prompt_ids=ids,
                    response_ids=response.token_ids,
                    truncated=response.truncated,
                    correct=score.correct,
                    advantage=advantage_PG[prompt][sample],
                    number=(prompts_before + prompt) * len(responses) + sample,
                    sampler_log_prob_T=response.log_prob_T,
                )
            )
        groups.append(group)
    return groups


def choose_groups(groups: list[list[ScoredResponse]], rl: RLConfig) -> list[list[ScoredResponse]]:
    """Returns the groups to train on, without truncated responses if `rl.mask_overlong`.

    Groups that teach nothing go if `rl.drop_zero_advantage`.
    """
    chosen = [group for group in groups if teaches(group, rl) or not rl.drop_zero_advantage]
    if rl.mask_overlong:
        chosen = [[r for r in group if not r.truncated] for group in chosen]
    return [group for group in chosen if group]


def teaches(group: list[ScoredResponse], rl: RLConfig) -> bool:
    """Tells whether what `rl.drop_equal` names differs within a group."""
    if rl.drop_equal == "correct":
        return len({r.correct for r in group if rl.overlong_counts or not r.truncated}) > 1
    return has_advantage(group)
