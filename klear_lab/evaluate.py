"""Evaluation: avg@n of a policy on every benchmark.

avg@n is the mean over problems of the share of n sampled responses that are right (paper, Table 1: temperature
0.6, top-p 0.95). It keeps every sample as a row, so that an analysis can make other estimates later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from klear_lab.policy.codec import Codec
from klear_lab.policy.memory import explained_memory, sampling_advice
from klear_lab.policy.model import Policy
from klear_lab.rows import Row
from klear_lab.run_context import RunContext
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.types import Response, Sampler, Sampling
from klear_lab.verify.rewards import Score, score_rollout

COLUMNS = (
    *("benchmark", "step", "prompt_id", "sample", "correct", "score", "reward", "reason", "length", "truncated"),
)


@dataclass(frozen=True)
class Evaluation:
    """Holds what one evaluation found; everything is empty without benchmarks.

    scores: metrics `eval/<benchmark>/avg@<n>`. samples: a row for each response, of COLUMNS. answers: lines of
    answers.jsonl.
    """

    scores: dict[str, float | None]
    samples: pd.DataFrame
    answers: list[dict[str, Any]]


def evaluate(run: RunContext, policy: Policy, sampler: Sampler, step: int, answers_kept: int) -> Evaluation:
    """Samples and scores responses to every benchmark, and keeps some of each prompt's as text.

    Programs run on all their test cases.
    """
    settings = run.config.eval
    scores: dict[str, float | None] = {}
    frames: list[pd.DataFrame] = []
    answers: list[dict[str, Any]] = []
    sampler.load(policy.weights, step)
    for name, rows in run.data.benchmarks.items():
        prompts = [policy.codec.encode_prompt(row["prompt"]) for row in rows]
        requests = make_requests(prompts, settings.samples, f"{run.config.seed}-{name}-{step}")
        advice = sampling_advice(run.config, "eval.batch_sequences", settings.batch_sequences)
        with explained_memory("evaluation", advice):
            groups = sampler.sample(requests, Sampling.for_evaluation(run.config))
        found = score_rollout(policy.codec, rows, groups, run.verifiers, draw=None)
        frames.append(samples_frame(name, step, rows, groups, found))
        scores[f"eval/{name}/avg@{settings.samples}"] = float(frames[-1]["correct"].mean())
        answers += answer_lines(policy.codec, name, step, rows, groups, found, answers_kept)
    samples = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    return Evaluation(scores, samples, answers)


def samples_frame(
    benchmark: str,
    step: int,
    rows: Sequence[Row],
    groups: Sequence[Sequence[Response]],
    scores: Sequence[Sequence[Score]],
) -> pd.DataFrame:
    """Returns a row for each response to a benchmark: COLUMNS, with the raw score and the length in tokens."""
    records = []
    for row, group, found in zip(rows, groups, scores, strict=True):
        for sample, (response, score) in enumerate(zip(group, found, strict=True)):
            records.append(
                {
                    "benchmark": benchmark,
                    "step": step,
                    "prompt_id": row["id"],
                    "sample": sample,
                    "correct": score.correct,
                    "score": score.raw,
                    "reward": score.reward,
                    "reason": score.reason,
                    "length": len(response.token_ids),
                    "truncated": response.truncated,
                }
            )
    return pd.DataFrame(records)


def answer_lines(
    codec: Codec,
    benchmark: str,
    step: int,
    rows: Sequence[Row],
    groups: Sequence[Sequence[Response]],
    scores: Sequence[Sequence[Score]],
    count: int,
) -> list[dict[str, Any]]:
    """Returns the first `count` responses to each prompt as lines of answers.jsonl, without stop tokens."""
    return [
        {
            "step": step,
            "benchmark": benchmark,
            "prompt_id": row["id"],
            "prompt": codec.prompt_text(row["prompt"]),
            "response": codec.decode_response(row["prompt"], response.token_ids),
            "correct": score.correct,
        }
        for row, group, found in zip(rows, groups, scores, strict=True)
        for response, score in list(zip(group, found, strict=True))[:count]
    ]
