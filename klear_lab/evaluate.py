"""Evaluation: avg@n of a policy on every benchmark.

avg@n is the mean over problems of the share of n sampled responses that are right (paper, section 4: temperature
0.6, top-p 0.95). Every sample is kept as a row, so that other estimates can be made later.
"""

from typing import Any

import pandas as pd

from klear_lab.config import Config
from klear_lab.policy.model import Policy
from klear_lab.sampling.transformers import sample_responses
from klear_lab.verify.rewards import score_rollout
from klear_lab.verify.verifiers import Verifiers

COLUMNS = (
    *("benchmark", "step", "prompt_id", "sample", "correct", "score", "reward", "reason", "length", "truncated"),
)


def evaluate(
    policy: Policy, benchmarks: dict[str, list[dict[str, Any]]], config: Config, verifiers: Verifiers, step: int
) -> tuple[dict[str, float | None], pd.DataFrame]:
    """Metrics `eval/<benchmark>/avg@<n>`, and one row a sample (see `sample_rows`); none without benchmarks."""
    metrics: dict[str, float | None] = {}
    frames = []
    for name, rows in benchmarks.items():
        frame = sample_rows(policy, name, rows, config, verifiers, step)
        metrics[f"eval/{name}/avg@{config.eval.samples}"] = float(frame["correct"].mean())
        frames.append(frame)
    return metrics, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def sample_rows(
    policy: Policy,
    benchmark: str,
    rows: list[dict[str, Any]],
    config: Config,
    verifiers: Verifiers,
    step: int,
) -> pd.DataFrame:
    """benchmark, step, prompt_id, sample, correct, score (raw), reward, reason, length (tokens), truncated.

    Programs run on all their test cases.
    """
    groups = sample_responses(
        policy,
        [policy.encode_prompt(row["prompt"]) for row in rows],
        samples=config.eval.samples,
        max_tokens=round(config.eval.response_budget * config.rl.max_response_tokens),
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        seed=f"{config.seed}-{benchmark}-{step}",
        batch_sequences=config.eval.batch_sequences,
    )
    records = []
    scores = score_rollout(policy, rows, groups, config, verifiers, draw=None)
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
