"""Evaluation: avg@n of a policy on every benchmark.

avg@n is the mean over problems of the share of n sampled responses that are right (paper, section 4: temperature
0.6, top-p 0.95). It keeps every sample as a row, so that an analysis can make other estimates later.
"""

import pandas as pd

from klear_lab.policy.codec import Codec
from klear_lab.policy.memory import explained_memory, sampling_advice
from klear_lab.policy.model import Policy
from klear_lab.rows import Row
from klear_lab.run_context import RunContext
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.types import Sampler, Sampling
from klear_lab.verify.rewards import score_rollout

COLUMNS = (
    *("benchmark", "step", "prompt_id", "sample", "correct", "score", "reward", "reason", "length", "truncated"),
)


def evaluate(
    run: RunContext, policy: Policy, sampler: Sampler, step: int
) -> tuple[dict[str, float | None], pd.DataFrame]:
    """Returns metrics `eval/<benchmark>/avg@<n>`, and a row for each sample; both are empty without benchmarks."""
    metrics: dict[str, float | None] = {}
    frames = []
    sampler.load(policy.weights, step)
    for name, rows in run.data.benchmarks.items():
        frame = sample_rows(run, policy.codec, sampler, name, rows, step)
        metrics[f"eval/{name}/avg@{run.config.eval.samples}"] = float(frame["correct"].mean())
        frames.append(frame)
    return metrics, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def sample_rows(
    run: RunContext, codec: Codec, sampler: Sampler, benchmark: str, rows: list[Row], step: int
) -> pd.DataFrame:
    """Samples and scores responses to a benchmark; returns one row for each. Programs run on all their test cases.

    Columns: benchmark, step, prompt_id, sample, correct, score (raw), reward, reason, length (tokens), truncated.
    """
    prompts = [codec.encode_prompt(row["prompt"]) for row in rows]
    requests = make_requests(prompts, run.config.eval.samples, f"{run.config.seed}-{benchmark}-{step}")
    settings = run.config.eval
    with explained_memory("evaluation", sampling_advice("eval.batch_sequences", settings.batch_sequences)):
        groups = sampler.sample(requests, Sampling.for_evaluation(run.config))
    records = []
    scores = score_rollout(codec, rows, groups, run.verifiers, draw=None)
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
