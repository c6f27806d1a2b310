"""Probes: every number against a hand-computed one."""

import math

import pytest
import torch

from klear_lab.rl.loss import TokenRecord
from klear_lab.rl.probes import clip_metrics, quantiles


def record(ratio, advantage, entropy, weight, low, high, dual):
    log_ratio = torch.tensor(ratio).log()
    return TokenRecord(
        log_ratio,
        torch.zeros(len(ratio)),
        *map(torch.tensor, (advantage, entropy, weight)),
        *(torch.tensor(mask) for mask in (low, high, dual)),
    )


def test_metrics_are_the_hand_computed_ones():
    tokens = record(
        ratio=[0.5, 1.0, 2.0, 1.0],
        advantage=[-1.0, 1.0, 1.0, -1.0],
        entropy=[0.4, 0.1, 0.8, 0.3],
        weight=[-0.8, 1.0, 1.28, -1.0],
        low=[True, False, False, False],
        high=[False, False, True, False],
        dual=[False] * 4,
    )
    got = clip_metrics(tokens)
    want = {
        "clip/low_fraction": 0.25,
        "clip/high_fraction": 0.25,
        "clip/dual_fraction": 0.0,
        "clip/gradient_share": 2.08 / 4.08,
        "ratio/mean": 1.125,
        "ratio/p01": 0.5,
        "ratio/p99": 2.0,
        "ratio/max": 2.0,
        "policy/entropy": 0.4,
        "policy/entropy_high_clipped": 0.8,
        "policy/entropy_low_clipped": 0.4,
        "policy/entropy_unclipped": 0.2,
        "policy/kl_old": (0.5 - 1 - math.log(0.5) + 2 - 1 - math.log(2)) / 4,
    }
    assert got == pytest.approx(want, rel=1e-6)


def test_a_region_without_tokens_has_no_entropy_and_silent_tokens_no_share():
    tokens = record([1.0], [0.0], [0.5], [0.0], [False], [False], [False])
    got = clip_metrics(tokens)
    assert got["policy/entropy_high_clipped"] is got["clip/gradient_share"] is None


def test_quantiles_are_values_of_the_sample():
    assert quantiles(torch.arange(1000.0), 0.01, 0.5, 0.99) == [10, 500, 990]
    assert quantiles(torch.tensor([3.0]), 0.01, 0.99) == [3, 3]
