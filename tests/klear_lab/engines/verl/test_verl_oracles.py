"""Clip methods against verl's own loss functions: the same gradient of each token. Runs in verl's environment.

Each test asks verl for the mean over tokens, or where it has another of its own, takes its gradient to ours.

Shapes: B sequences, T positions.
"""

import pytest

pytest.importorskip("verl.protocol", reason="verl has an environment of its own: make test-verl")

import torch
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig, PolicyLossConfig

from klear_lab.rl.clip_methods import Responses, make_clip_method

pytestmark = pytest.mark.verl
LENGTHS = [5, 1, 8, 3, 6, 2, 30]
B, T = len(LENGTHS), max(LENGTHS)
EPS = {"eps_low": 0.1, "eps_high": 0.15}
# ours: what verl calls it, our parameters, verl's
CASES = {
    "clip_higher": ("vanilla", EPS, {}),
    "cispo": ("cispo", EPS, {}),
    "sapo": ("sapo", {"tau_pos": 1.0, "tau_neg": 1.05}, {"tau_pos": 1.0, "tau_neg": 1.05}),
    "dppo_tv": ("dppo_tv", {"low": 0.1, "high": 0.15, "cap": 2.0}, {"clip_ratio_c": 2.0}),
    "dppo_kl": ("dppo_kl", {"low": 0.1, "high": 0.15, "cap": 2.0}, {"clip_ratio_c": 2.0}),
    "gspo": ("gspo", EPS, {}),
    "gmpo": ("geo_mean", {"low": 0.1, "high": 0.15}, {}),
    "clip_cov": ("clip_cov", {"low": 0.9, "high": 1.15, "share": 1.0, "cov_low": 0.1}, {}),
    "kl_cov": ("kl_cov", {"share": 0.2, "beta": 0.3}, {}),
}


def batch(seed, spread):
    noise = torch.Generator().manual_seed(seed)
    mask_BT = (torch.arange(T) < torch.tensor(LENGTHS)[:, None]).long()
    old_BT = -torch.rand((B, T), generator=noise, dtype=torch.float64) * 3 - 0.1
    log_prob_BT = -(old_BT + spread * torch.randn((B, T), generator=noise, dtype=torch.float64)).abs() - 1e-3
    advantage_B = torch.randn(B, generator=noise, dtype=torch.float64)
    return log_prob_BT, old_BT, advantage_B[:, None] * mask_BT, mask_BT


def verl_gradient(kind, log_prob_BT, old_BT, advantage_BT, mask_BT, settings):
    covariances = PolicyLossConfig(
        loss_mode=kind, clip_cov_ratio=1.0, clip_cov_lb=0.1, clip_cov_ub=5.0, kl_cov_ratio=0.2, ppo_kl_coef=0.3
    )
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_mini_batch_size=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=0.1,
        clip_ratio_high=0.15,
        policy_loss=covariances,
        **{"clip_ratio_c": 1e9, **settings},
    )
    leaf_BT = log_prob_BT.clone().requires_grad_()
    loss, _ = core_algos.get_policy_loss_fn(kind)(
        old_log_prob=old_BT,
        log_prob=leaf_BT,
        advantages=advantage_BT,
        response_mask=mask_BT,
        loss_agg_mode="token-mean",
        config=config,
    )
    loss.backward()
    return leaf_BT.grad


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_verl(name, spread, seed):
    kind, ours, theirs = CASES[name]
    log_prob_BT, old_BT, advantage_BT, mask_BT = batch(seed, spread)
    theirs_BT = verl_gradient(kind, log_prob_BT, old_BT, advantage_BT, mask_BT, theirs)
    kept_BT = mask_BT.bool()
    leaf_N, old_N, advantage_N = log_prob_BT[kept_BT].requires_grad_(), old_BT[kept_BT], advantage_BT[kept_BT]
    method, responses = make_clip_method(name, **ours), Responses.of(LENGTHS)
    statistics = method.measure(leaf_N, old_N, advantage_N, responses=responses)
    method(leaf_N, old_N, advantage_N, responses=responses, statistics=statistics).objective.sum().backward()
    # sapo and geo_mean know no mean over tokens
    divided_by = mask_BT.sum() if kind not in ("sapo", "geo_mean") else B * mask_BT.sum(-1, keepdim=True)
    want_BT = -theirs_BT * divided_by
    torch.testing.assert_close(leaf_N.grad, want_BT[kept_BT], rtol=1e-6, atol=1e-6)
    assert leaf_N.grad.abs().max() > 0.1
