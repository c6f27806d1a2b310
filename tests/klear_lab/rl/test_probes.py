"""Probes: every number against a hand-computed one."""

import math

import pytest
import torch

from klear_lab.rl.loss import TokenMeasures
from klear_lab.rl.probes import (
    HISTOGRAMS,
    clip_metrics,
    histograms,
    k3,
    most_clipped,
    quantiles,
    rollout_metrics,
)
from klear_lab.sampling.transformers import Response
from klear_lab.verify.rewards import Score

REGIONS = ("low_clipped", "high_clipped", "below_positive", "above_negative")


def record(ratio, advantage, entropy, weight, low=None, high=None, dual=None, ids=None, numbers=None, old=0.0):
    """Tokens of one response, or of those that `numbers` gives; bounds 0.8 and 1.28."""
    ratio, count = torch.tensor(ratio), len(ratio)
    numbers = numbers or [0] * count
    off = torch.zeros(count, dtype=torch.bool)
    masks = [off if mask is None else torch.tensor(mask) for mask in (low, high, dual)]
    return TokenMeasures(
        torch.tensor(ids or [0] * count),
        torch.tensor(numbers),
        torch.tensor([numbers[:i].count(number) for i, number in enumerate(numbers)]),
        ratio.log() + old,
        torch.full((count,), old),
        torch.full((count,), torch.nan),
        *map(torch.tensor, (advantage, entropy, weight)),
        ratio < 0.8,
        ratio > 1.28,
        *masks,
        *(off.clone(), off.clone()),
    )


def test_metrics_are_the_hand_computed_ones():
    """One token a region, and one more, in two responses of four and two tokens."""
    tokens = record(
        ratio=[0.5, 1.0, 2.0, 0.5, 2.0, 1.0],
        advantage=[-1.0, 1.0, 1.0, 1.0, -1.0, -1.0],
        entropy=[0.4, 0.1, 0.8, 0.2, 0.6, 0.3],
        weight=[-0.8, 1.0, 1.28, 0.5, -2.0, -1.0],
        low=[True, False, False, False, False, False],
        high=[False, False, True, False, False, False],
        numbers=[0, 0, 0, 0, 1, 1],
        old=math.log(0.25),
    )
    total = 0.8 + 1 + 1.28 + 0.5 + 2 + 1
    want = {
        "clip/low_fraction": 1 / 6,
        "clip/high_fraction": 1 / 6,
        "clip/dual_fraction": 0.0,
        "clip/below_positive_fraction": 1 / 6,
        "clip/above_negative_fraction": 1 / 6,
        "clip/gradient_share": (0.8 + 1.28) / total,
        "clip/gradient_share_low_clipped": 0.8 / total,
        "clip/gradient_share_high_clipped": 1.28 / total,
        "clip/gradient_share_below_positive": 0.5 / total,
        "clip/gradient_share_above_negative": 2 / total,
        "ratio/mean": 7 / 6,
        "ratio/p01": 0.5,
        "ratio/p10": 0.5,
        "ratio/p50": 1.0,
        "ratio/p90": 2.0,
        "ratio/p99": 2.0,
        "ratio/p999": 2.0,
        "ratio/max": 2.0,
        "policy/entropy": 0.4,
        "policy/entropy_high_clipped": 0.8,
        "policy/entropy_low_clipped": 0.4,
        "policy/entropy_below_positive": 0.2,
        "policy/entropy_above_negative": 0.6,
        "policy/entropy_unclipped": (0.1 + 0.2 + 0.6 + 0.3) / 4,
        "policy/prob_high_clipped": 0.5,
        "policy/prob_low_clipped": 0.125,
        "policy/prob_below_positive": 0.125,
        "policy/prob_above_negative": 0.5,
        "policy/prob_unclipped": (0.25 + 0.125 + 0.5 + 0.25) / 4,
        **{f"policy/prob_old_{name}": 0.25 for name in (*REGIONS, "unclipped")},
        "policy/entropy_quarter_1": (0.4 + 0.6) / 2,
        "policy/entropy_quarter_2": 0.1,
        "policy/entropy_quarter_3": (0.8 + 0.3) / 2,
        "policy/entropy_quarter_4": 0.2,
        "policy/kl_old": sum(r - 1 - math.log(r) for r in (0.5, 1, 2, 0.5, 2, 1)) / 6,
        "clip/mismatch_low_fraction": 0.0,
        "clip/mismatch_high_fraction": 0.0,
    }
    got = clip_metrics(tokens)
    assert (got.pop("policy/sampler_kl"), got.pop("policy/sampler_ratio_max")) == (None, None)
    assert got == pytest.approx(want, rel=1e-6)


def test_the_mismatch_is_measured_where_the_sampler_tells_its_probabilities():
    tokens = record([1.0] * 3, [1.0] * 3, [0.5] * 3, [1.0] * 3)
    tokens.fill(
        sampler_log_prob=torch.tensor([math.log(0.5), math.log(2.0), math.nan]),
        mismatch_high=torch.tensor([True, False, False]),
    )
    got = clip_metrics(tokens)
    assert got["policy/sampler_kl"] == pytest.approx(sum(m - 1 - math.log(m) for m in (2.0, 0.5)) / 2)
    assert got["policy/sampler_ratio_max"] == pytest.approx(2.0)
    assert got["clip/mismatch_high_fraction"] == pytest.approx(1 / 3)
    assert got["clip/mismatch_low_fraction"] == 0.0


def test_each_region_has_its_own_share_and_together_they_have_all():
    """Without tokens inside of the bounds, the four regions' shares add up to one."""
    tokens = record(
        ratio=[0.5, 2.0, 0.5, 2.0],
        advantage=[-1.0, 1.0, 1.0, -1.0],
        entropy=[0.0] * 4,
        weight=[-0.8, 1.28, 0.5, -2.0],
        low=[True, False, False, False],
        high=[False, True, False, False],
    )
    got = clip_metrics(tokens)
    assert sum(got[f"clip/gradient_share_{name}"] for name in REGIONS) == pytest.approx(1)


def test_histograms_count_every_token_also_those_outside():
    tokens = record([1.0, 1e-9, 1e9, 1.03], [1.0] * 4, [0.1, 0.2, 99.0, 0.3], [1.0, -1.0, 50.0, -50.0])
    found = histograms(tokens)
    assert {name: sum(h["counts"]) for name, h in found.items()} == dict.fromkeys(HISTOGRAMS, 4)
    ratio = found["ratio/log"]["counts"]
    assert (ratio[0], ratio[-1], ratio[30]) == (1, 1, 2)  # clamped, clamped, and [0, 0.1)
    assert found["policy/entropy"]["counts"][-1] == found["clip/weight"]["counts"][0] == 1


def test_the_most_clipped_tokens_come_first_with_how_often_they_occur():
    tokens = record(
        [0.5] * 3 + [2.0] * 2 + [1.0],
        [-1.0] * 3 + [1.0] * 2 + [1.0],
        [0.0] * 6,
        [1.0] * 6,
        low=[True] * 3 + [False] * 3,
        high=[False] * 3 + [True] * 2 + [False],
        ids=[7, 5, 7, 5, 9, 7],
    )
    assert most_clipped(tokens, lambda token: f"<{token}>") == {
        "low": [{"id": 7, "text": "<7>", "count": 2, "of": 3}, {"id": 5, "text": "<5>", "count": 1, "of": 2}],
        "high": [{"id": 5, "text": "<5>", "count": 1, "of": 2}, {"id": 9, "text": "<9>", "count": 1, "of": 1}],
    }


def score(correct):
    return Score(float(correct), correct, True, 1.0 if correct else -1.0, "correct" if correct else "wrong")


def test_lengths_and_pass_rates_are_split_by_outcome_and_difficulty():
    rows = [{"difficulty": 0.1}, {"completions": 4, "passed": 1}, {}]
    sampled = [[Response([1] * 3, False), Response([1] * 5, True)] for _ in rows]
    scores = [[score(True), score(False)], [score(False), score(False)], [score(True), score(True)]]
    got = rollout_metrics(rows, sampled, scores, [[], [], []])
    assert got["rollout/length_correct"] == (3 + 3 + 5) / 3
    assert got["rollout/length_wrong"] == (5 + 3 + 5) / 3
    by_difficulty = [got[f"reward/accuracy_difficulty_{q}"] for q in (1, 2, 3, 4)]
    assert by_difficulty == [0.5, None, None, 0.0]  # the third row has no label


def test_a_region_without_tokens_has_no_entropy_and_silent_tokens_no_share():
    tokens = record([1.0], [0.0], [0.5], [0.0], [False], [False], [False])
    got = clip_metrics(tokens)
    assert got["policy/entropy_high_clipped"] is got["clip/gradient_share"] is None


def test_quantiles_are_values_of_the_sample():
    assert quantiles(torch.arange(1.0, 1001.0), 0.01, 0.5, 0.99, 0.999) == [10, 500, 990, 999]
    assert quantiles(torch.arange(1.0, 101.0), 0.01, 0.07, 0.29, 0.99, 0.999) == [1, 7, 29, 99, 100]
    assert quantiles(torch.tensor([3.0]), 0.01, 0.99) == [3, 3]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 1e-7])
def test_a_small_divergence_is_no_rounding_error(scale):
    log_ratio = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * scale
    exact = [math.expm1(x) - x if abs(x) > 1e-3 else x * x / 2 + x**3 / 6 + x**4 / 24 for x in log_ratio.tolist()]
    assert k3(log_ratio).sum().item() == pytest.approx(sum(exact), rel=1e-2)
    assert (k3(log_ratio) >= 0).all()
