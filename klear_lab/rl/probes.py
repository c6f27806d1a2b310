"""Measures what a step's rollout and its tokens tell of the clip method at work.

Numbers go into the step's line of metrics; klear_lab/metrics.py holds the formula of each. Histograms and the most
clipped tokens are no numbers: they make the step's line of probes.jsonl.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from klear_lab.metrics import REGIONS
from klear_lab.rl.loss import ScoredResponse, TokenMeasures
from klear_lab.rows import Row
from klear_lab.sampling.transformers import Response
from klear_lab.verify.rewards import Score, reasons

Metrics = dict[str, float | None]

QUARTERS = 4
MOST_CLIPPED = 20
# name: lower edge, upper edge, bins; what lies outside is counted in the outermost bins.
HISTOGRAMS = {
    "ratio/log": (-3.0, 3.0, 60),
    "policy/entropy": (0.0, 6.0, 48),
    "clip/weight": (-6.0, 6.0, 48),
}


# Metrics of what lies beyond a clip method's bounds, or within.
OF_REGIONS = re.compile(
    r"clip/(low|high|below_positive|above_negative)_fraction|clip/gradient_share.*|policy/(entropy|prob|prob_old)_"
    + f"({'|'.join(REGIONS)})"
)


def without_regions(metrics: Metrics) -> Metrics:
    """Returns metrics for a method without bounds: nothing lies beyond them, so regions have None, not 0."""
    return {name: None if OF_REGIONS.fullmatch(name) else value for name, value in metrics.items()}


def clip_metrics(tokens: TokenMeasures) -> Metrics:
    """Returns the metrics of all response tokens of one RL step; a value is None where no token counts for it."""
    log_ratio = tokens.log_prob - tokens.old_log_prob
    ratio = log_ratio.exp()
    weight = tokens.weight.abs()
    total = weight.sum()
    clipped = tokens.low | tokens.high
    regions = {
        "low_clipped": tokens.low,
        "high_clipped": tokens.high,
        "below_positive": tokens.below & (tokens.advantage > 0),
        "above_negative": tokens.above & (tokens.advantage < 0),
        "unclipped": ~clipped,
    }

    def gradient_share(mask: Tensor) -> float | None:
        return (weight[mask].sum() / total).item() if total > 0 else None

    p01, p10, p50, p90, p99, p999 = quantiles(ratio, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    return {
        "clip/low_fraction": mean(tokens.low),
        "clip/high_fraction": mean(tokens.high),
        "clip/dual_fraction": mean(tokens.dual),
        "clip/below_positive_fraction": mean(regions["below_positive"]),
        "clip/above_negative_fraction": mean(regions["above_negative"]),
        "clip/gradient_share": gradient_share(clipped),
        **{f"clip/gradient_share_{name}": gradient_share(m) for name, m in regions.items() if name != "unclipped"},
        "ratio/mean": mean(ratio),
        "ratio/p01": p01,
        "ratio/p10": p10,
        "ratio/p50": p50,
        "ratio/p90": p90,
        "ratio/p99": p99,
        "ratio/p999": p999,
        "ratio/max": ratio.max().item(),
        "policy/entropy": mean(tokens.entropy),
        **{f"policy/entropy_{name}": mean(tokens.entropy[mask]) for name, mask in regions.items()},
        **{f"policy/prob_{name}": mean(tokens.log_prob[mask].exp()) for name, mask in regions.items()},
        **{f"policy/prob_old_{name}": mean(tokens.old_log_prob[mask].exp()) for name, mask in regions.items()},
        **entropy_by_position(tokens),
        "policy/kl_old": mean(k3(log_ratio)),
        **mismatch_metrics(tokens),
    }


def mismatch_metrics(tokens: TokenMeasures) -> Metrics:
    """Returns how far the sampler's probabilities lie from the learner's, and what the correction clipped."""
    log_mismatch = tokens.old_log_prob - tokens.sampler_log_prob
    log_mismatch = log_mismatch[~log_mismatch.isnan()]
    mismatch = log_mismatch.exp()
    return {
        "policy/sampler_kl": mean(k3(log_mismatch)),
        "policy/sampler_ratio_max": mismatch.max().item() if len(mismatch) else None,
        "clip/mismatch_low_fraction": mean(tokens.mismatch_low),
        "clip/mismatch_high_fraction": mean(tokens.mismatch_high),
    }


def entropy_by_position(tokens: TokenMeasures) -> Metrics:
    """Returns the mean entropy in each quarter of the responses."""
    length = torch.zeros(int(tokens.number.max()) + 1, dtype=torch.long)
    length.scatter_reduce_(0, tokens.number.long(), tokens.position.long() + 1, "amax")
    quarter = tokens.position * QUARTERS // length[tokens.number]
    return {f"policy/entropy_quarter_{q + 1}": mean(tokens.entropy[quarter == q]) for q in range(QUARTERS)}


def rollout_metrics(
    rows: Sequence[Row],
    sampled: list[list[Response]],
    scores: list[list[Score]],
    groups: list[list[ScoredResponse]],
) -> Metrics:
    """Returns the metrics of the whole rollout, before anything is dropped."""
    rewards = torch.tensor([s.reward for group in scores for s in group], dtype=torch.float64)
    flat_scores = [s for group in scores for s in group]
    flat = [s for group in sampled for s in group]
    zero = sum(not has_advantage(group) for group in groups)

    def share(holds: Callable[[Score], bool]) -> float:
        return sum(map(holds, flat_scores)) / len(flat)

    def length_where(correct: bool) -> float | None:
        found = [len(s.token_ids) for s, score in zip(flat, flat_scores, strict=True) if score.correct == correct]
        return sum(found) / len(found) if found else None

    return {
        "reward/mean": rewards.mean().item(),
        "reward/std": rewards.std(correction=0).item(),
        "reward/raw": sum(s.raw for s in flat_scores) / len(flat),
        "reward/accuracy": share(lambda s: s.correct),
        **accuracy_by_difficulty(rows, scores),
        "reward/format_rate": share(lambda s: s.well_formed),
        "rollout/length_mean": sum(len(s.token_ids) for s in flat) / len(flat),
        "rollout/length_correct": length_where(True),
        "rollout/length_wrong": length_where(False),
        "rollout/truncated_fraction": sum(s.truncated for s in flat) / len(flat),
        "rollout/zero_advantage_fraction": zero / len(groups),
        **{f"reward/reason/{why}": share(lambda s, why=why: s.reason == why) for why in reasons()},  # type: ignore[misc]
    }


def has_advantage(group: list[ScoredResponse]) -> bool:
    """Tells whether a group's rewards differ; single responses may still lie exactly at the mean."""
    return any(response.advantage != 0 for response in group)


def accuracy_by_difficulty(rows: Sequence[Row], scores: list[list[Score]]) -> Metrics:
    """Returns the accuracy on prompts of each quarter of difficulty, 1 the easiest; None without such prompts."""
    right: list[list[bool]] = [[] for _ in range(QUARTERS)]
    for row, group in zip(rows, scores, strict=True):
        if (difficulty := difficulty_of(row)) is not None:
            right[min(QUARTERS - 1, int(difficulty * QUARTERS))] += [s.correct for s in group]
    return {
        f"reward/accuracy_difficulty_{q + 1}": sum(found) / len(found) if found else None
        for q, found in enumerate(right)
    }


def difficulty_of(row: Row) -> float | None:
    """Returns a row's label (0 to 1), or else the share of a strong model's completions that failed."""
    if row.get("difficulty") is not None:
        return float(row["difficulty"])
    return 1 - row["passed"] / row["completions"] if row.get("completions") else None


def histograms(tokens: TokenMeasures) -> dict[str, dict[str, Any]]:
    """Returns `low`, `high` (edges) and `counts` of log-ratio, entropy and weight, in the bins of `HISTOGRAMS`."""
    values = {
        "ratio/log": tokens.log_prob - tokens.old_log_prob,
        "policy/entropy": tokens.entropy,
        "clip/weight": tokens.weight,
    }
    found = {}
    for name, (low, high, bins) in HISTOGRAMS.items():
        counts = torch.histc(values[name].float().clamp(low, high), bins, low, high)
        found[name] = {"low": low, "high": high, "counts": counts.long().tolist()}
    return found


def most_clipped(tokens: TokenMeasures, decode: Callable[[int], str]) -> dict[str, list[dict[str, Any]]]:
    """Returns the most frequent tokens of each clip region: id, text, count there, and `of`: count in the step."""
    token_ids, count_in_step = tokens.token_id.unique(return_counts=True)
    in_step = dict(zip(token_ids.tolist(), count_in_step.tolist(), strict=True))
    found = {}
    for region, mask in (("low", tokens.low), ("high", tokens.high)):
        ids, counts = tokens.token_id[mask].unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:MOST_CLIPPED]
        found[region] = [
            {"id": i, "text": decode(i), "count": count, "of": in_step[i]}
            for i, count in zip(ids[order].tolist(), counts[order].tolist(), strict=True)
        ]
    return found


def mean(values: Tensor) -> float | None:
    """Returns the mean, None for no values."""
    return values.double().mean().item() if len(values) else None


def k3(log_ratio: Tensor) -> Tensor:
    """Returns exp(x) - 1 - x, the k3 estimate of a divergence, in float64: float32 would round small ones away."""
    log_ratio = log_ratio.double()
    return log_ratio.expm1() - log_ratio


def quantiles(values: Tensor, *shares: float) -> list[float]:
    """Returns nearest-rank quantiles; torch.quantile refuses more than 16 million values."""
    ordered = values.sort().values
    ranks = [math.ceil(share * len(values) - 1e-9) for share in shares]  # 0.07 * 100 is a little more than 7
    return [ordered[max(rank, 1) - 1].item() for rank in ranks]
