"""Losses, advantages and corrections inside verl's own functions, against klear_lab's own and sums over tokens.

Shapes: B responses, T tokens, P prompts, G responses to each, N tokens of all responses.
"""

import dataclasses
import math

import pytest

pytest.importorskip("verl.protocol", reason="verl has an environment of its own: make test-verl")

import numpy as np
import torch
from verl.protocol import DataProto
from verl.trainer.ppo.metric_utils import compute_data_metrics
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.utils import tensordict_utils
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from klear_lab.config import RLConfig
from klear_lab.engines.verl.advantages import KlearAlgorithmConfig
from klear_lab.engines.verl.metrics import our_metrics
from klear_lab.engines.verl.policy_loss import CORRECT, SHARE, TRAINED, Counts, KlearLossConfig, Share
from klear_lab.engines.verl.settings import correction
from klear_lab.rl.advantages import group_advantages
from klear_lab.rl.clip_methods import CLIP_METHODS, Responses, make_clip_method
from klear_lab.rl.loss import ScoredResponse
from klear_lab.rl.mismatch import Correction, correct
from support.verl_cpu import make_batch

pytestmark = pytest.mark.verl

FLAGS = [TRAINED, TRAINED | CORRECT, 0, CORRECT, TRAINED | CORRECT, TRAINED]


def random_responses(seed):
    """Six responses of 1 to 9 tokens, some of whose ratios are far beyond what a float32 can hold."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 10, (6,), generator=generator).tolist()
    responses = [
        ScoredResponse([5, 6], [7] * n, False, False, float(a), i)
        for i, (n, a) in enumerate(zip(lengths, [1.5, 0.5, 0, 0, -2, -1]))
    ]
    log_probs = [-3 * torch.rand(n, generator=generator) for n in lengths]
    old = [log_prob + torch.randn(n, generator=generator) for log_prob, n in zip(log_probs, lengths)]
    old[0][0], old[-1][0], old[1][-1] = -120.0, 0.0, 90.0
    log_probs[-1][0] = -110.0
    return responses, log_probs, old


def verl_loss(name, settings, batch, log_probs, flags, counts, gpus=1):
    """The loss and the gradient of each token's log-probability, by verl's own `ppo_loss`; jagged as a model's."""
    config = ActorConfig(strategy="fsdp2", rollout_n=2, ppo_micro_batch_size_per_gpu=1, policy_loss=settings)
    leaves = [log_prob.clone().requires_grad_() for log_prob in log_probs]
    whole = [torch.cat([torch.zeros(1), leaf, torch.zeros(1)]) for leaf in leaves]  # two of a prompt, shifted left
    flag_BT = torch.nested.to_padded_tensor(batch["returns"], 0.0)
    config.global_batch_info[SHARE] = Share(counts, gpus, flag_BT)
    data = batch.copy()
    tensordict_utils.assign_non_tensor(data, dp_size=gpus, batch_num_tokens=99, global_batch_size=99)
    output = {
        "log_probs": torch.nested.as_nested_tensor(whole, layout=torch.jagged)
    }  # keeps the leaves' gradients
    loss, _ = ppo_loss(config, output, data)
    loss.backward()
    return loss.item(), [leaf.grad for leaf in leaves]


def sum_over_tokens(name, settings, responses, log_probs, old, flags):
    """The same from the formula, response by response: mini-batch and micro-batch are the same here."""
    leaves = [log_prob.clone().requires_grad_() for log_prob in log_probs]
    trained = [i for i, flag in enumerate(flags) if flag & TRAINED]
    right = [i for i in trained if flags[i] & CORRECT]
    method = make_clip_method(name, **settings.parameters)
    loss = torch.zeros(())
    for i in trained:
        advantage = torch.full_like(leaves[i], responses[i].advantage)
        loss = loss - method(
            leaves[i], old[i], advantage, responses=Responses.of([len(leaves[i])])
        ).objective.sum() / sum(len(leaves[j]) for j in trained)
    for i in right:
        loss = loss - settings.alpha * leaves[i].sum() / sum(len(leaves[j]) for j in right)
    loss.backward()
    return loss.item(), [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def counts_of(responses, flags):
    trained = [r for r, flag in zip(responses, flags) if flag & TRAINED]
    right = [r for r, flag in zip(responses, flags) if flag == TRAINED | CORRECT]
    tokens = [sum(len(r.response_ids) for r in some) for some in (trained, right)]
    return Counts(*tokens, len(trained))


@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("token_mean", ["mini_batch", "micro_batch"])
@pytest.mark.parametrize("name", [name for name, own in CLIP_METHODS.items() if own.statistics is None])
def test_loss_and_gradient_are_those_of_the_formula(name, token_mean, dual_clip):
    if CLIP_METHODS[name].of_responses and dual_clip is not None:
        pytest.skip("methods of whole responses take no dual clip")
    for seed in range(3):
        responses, log_probs, old = random_responses(seed)
        if name in ("none", "cispo", "cispo_upper", "drpo"):  # whose objective is infinite where the ratio or q is
            old[0][0], log_probs[-1][0] = -10.0, -9.0
        if name in ("none", "drpo"):
            old[1][-1] = 9.0
        settings = KlearLossConfig(
            loss_mode=f"klear_{name}", parameters={"dual_clip": dual_clip}, alpha=0.1, token_mean=token_mean
        )
        batch = make_batch(responses, old, FLAGS)
        counts = counts_of(responses, FLAGS)
        loss, gradients = verl_loss(name, settings, batch, log_probs, FLAGS, counts)
        expected_loss, expected = sum_over_tokens(name, settings, responses, log_probs, old, FLAGS)
        assert math.isfinite(loss) and loss == pytest.approx(expected_loss, rel=1e-5, abs=1e-6)
        for gradient, wanted in zip(gradients, expected, strict=True):
            assert gradient.isfinite().all()
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-7)


def test_gpus_average_to_the_sum_over_tokens_of_all():
    responses, log_probs, old = random_responses(0)
    settings = KlearLossConfig(loss_mode="klear_gppo", alpha=0.1)
    counts, halves = counts_of(responses, FLAGS), [slice(0, 3), slice(3, 6)]
    whole, _ = verl_loss("gppo", settings, make_batch(responses, old, FLAGS), log_probs, FLAGS, counts)
    parts = []
    for half in halves:
        batch = make_batch(responses[half], old[half], FLAGS[half])
        parts.append(verl_loss("gppo", settings, batch, log_probs[half], FLAGS[half], counts, gpus=2)[0])
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-5)


def test_micro_batches_are_weighted_by_their_trained_responses():
    responses, log_probs, old = random_responses(1)
    settings = KlearLossConfig(loss_mode="klear_gppo", token_mean="micro_batch", alpha=0.0)
    counts = counts_of(responses, FLAGS)
    means, parts = [], []
    for half in (slice(0, 3), slice(3, 6)):
        own = counts_of(responses[half], FLAGS[half])
        batch = make_batch(responses[half], old[half], FLAGS[half])
        parts.append(verl_loss("gppo", settings, batch, log_probs[half], FLAGS[half], counts)[0])
        mean, _ = sum_over_tokens("gppo", settings, responses[half], log_probs[half], old[half], FLAGS[half])
        means.append(mean * own.responses / counts.responses)
    assert parts == pytest.approx(means, rel=1e-5)


def test_a_micro_batch_without_a_trained_token_has_no_loss_and_no_gradient():
    responses, log_probs, old = random_responses(0)
    flags = [0] * 6
    settings = KlearLossConfig(loss_mode="klear_gppo", alpha=0.1)
    loss, gradients = verl_loss(
        "gppo", settings, make_batch(responses, old, flags), log_probs, flags, Counts(0, 0, 0)
    )
    assert loss == 0 and all((gradient == 0).all() for gradient in gradients)


def test_weights_of_a_correction_multiply_the_objective():
    responses, log_probs, old = random_responses(2)
    batch = make_batch(responses, old, FLAGS)
    halves = [[0.5] * len(r.response_ids) for r in responses]
    settings = KlearLossConfig(loss_mode="klear_gppo")
    plain, _ = verl_loss("gppo", settings, batch, log_probs, FLAGS, counts_of(responses, FLAGS))
    rows = [torch.tensor(row) for row in halves]
    batch["rollout_is_weights"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    weighted, _ = verl_loss("gppo", settings, batch, log_probs, FLAGS, counts_of(responses, FLAGS))
    assert weighted == pytest.approx(plain / 2, rel=1e-5)


def test_a_worker_of_verls_own_is_refused():
    responses, _, old = random_responses(0)
    settings = KlearLossConfig(loss_mode="klear_gppo")
    config = ActorConfig(strategy="fsdp2", rollout_n=2, ppo_micro_batch_size_per_gpu=1, policy_loss=settings)
    batch = make_batch(responses, old, FLAGS)
    tensordict_utils.assign_non_tensor(batch, dp_size=1, batch_num_tokens=9, global_batch_size=9)
    whole = torch.nested.as_nested_tensor(
        [torch.zeros(len(r.response_ids) + 2) for r in responses], layout=torch.jagged
    )
    with pytest.raises(RuntimeError, match="loss_mode=klear_gppo: needs .*external_lib"):
        ppo_loss(config, {"log_probs": whole}, batch)


REWARDS_PG = [[1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 0.25, -0.5]]
LENGTHS_B = [3, 5, 2, 4, 4, 1, 5, 2, 3]


def rollout(shuffle=True):
    """A step's rollout as verl's trainer has it, its responses in any order, with padding at its end."""
    rewards_B = [*np.array(REWARDS_PG).ravel(), 0.0]
    lengths_B, uids = [*LENGTHS_B, 0], [f"prompt{p}" for p in range(3) for _ in range(3)] + ["pad"]
    order = np.random.default_rng(0).permutation(10) if shuffle else np.arange(10)
    mask_BT = (torch.arange(6) < torch.tensor(lengths_B).unsqueeze(1)).long()
    reward_BT = torch.zeros(10, 6)
    reward_BT[torch.arange(10), (torch.tensor(lengths_B) - 1).clamp(min=0)] = torch.tensor(rewards_B).float()
    uid_B = np.array(uids, dtype=object)[order]
    tensors = {"token_level_rewards": reward_BT[order], "response_mask": mask_BT[order]}
    return DataProto.from_dict(tensors=tensors, non_tensors={"uid": uid_B}), order


@pytest.mark.parametrize("std", ["population", "sample"])
@pytest.mark.parametrize("divide_by_std", [True, False])
def test_advantages_are_ours_in_any_order(divide_by_std, std):
    data, order = rollout()
    config = KlearAlgorithmConfig(norm_adv_by_std_in_grpo=divide_by_std, group_std=std, max_response_tokens=5)
    found = compute_advantage(data, "klear_lab", config=config).batch
    expected_B = group_advantages(torch.tensor(REWARDS_PG, dtype=torch.float64), divide_by_std, std=std).flatten()
    expected_B = torch.cat([expected_B, torch.zeros(1)])[order].float()
    torch.testing.assert_close(found["advantages"], expected_B.unsqueeze(1) * found["response_mask"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [3, 1, 1, 2, 2, 2, 1, 1, 1, 0]),
        ({"drop_zero_advantage": False}, [3, 1, 1, 3, 3, 3, 1, 1, 1, 0]),
        ({"mask_overlong": True}, [3, 0, 1, 2, 2, 2, 0, 1, 1, 0]),
        ({"drop_equal": "correct"}, [3, 1, 1, 2, 2, 2, 0, 0, 0, 0]),
        ({"mask_overlong": True, "overlong_counts": False}, [3, 0, 1, 2, 2, 2, 0, 1, 1, 0]),
    ],
    ids=["dropped groups", "none dropped", "overlong", "none or all right", "overlong leave first"],
)
def test_flags_tell_who_is_trained_and_who_is_right(settings, expected):
    data, _ = rollout(shuffle=False)
    config = KlearAlgorithmConfig(max_response_tokens=5, **settings)
    found = compute_advantage(data, "klear_lab", config=config).batch
    assert found["returns"].amax(dim=1).tolist() == expected
    assert (found["returns"] == found["returns"].amax(dim=1, keepdim=True) * found["response_mask"]).all()


def test_overlong_responses_leave_their_group_before_its_mean_where_they_dont_count():
    data, _ = rollout(shuffle=False)
    config = KlearAlgorithmConfig(max_response_tokens=5, mask_overlong=True, overlong_counts=False)
    found = compute_advantage(data, "klear_lab", config=config).batch["advantages"].sum(dim=1)
    assert (found[[0, 2]] / found.new_tensor([3, 2])).tolist() == [1.0, -1.0]  # of three tokens and of two
    assert found[1] == 0


@pytest.mark.parametrize("name", ["tis", "icepop", "sequence_mask"])
def test_verls_correction_of_mismatch_is_ours(config, name):
    settings = config(f"rl.mismatch_correction={name}")
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 6, 4]
    mask_BT = (torch.arange(6) < torch.tensor(lengths).unsqueeze(1)).long()
    log_mismatch_BT = torch.randn(3, 6, generator=generator)
    tensors = {
        "old_log_probs": log_mismatch_BT - 1,
        "rollout_log_probs": -torch.ones(3, 6),
        "response_mask": mask_BT,
    }
    batch, metrics = compute_rollout_correction_and_add_to_batch(
        DataProto.from_dict(tensors=tensors), correction(settings)
    )
    ours = correct(log_mismatch_BT[mask_BT.bool()], lengths, Correction.of(settings.rl))
    torch.testing.assert_close(batch.batch["rollout_is_weights"][mask_BT.bool()], ours.factor)
    assert torch.equal(batch.batch["response_mask"], mask_BT)
    assert {"policy/sampler_kl", "clip/mismatch_high_fraction"} <= {*our_metrics(metrics)}
    assert ours.high.any()


def test_the_metrics_that_are_read_are_those_that_verl_writes():
    data, _ = rollout(shuffle=False)
    data = compute_advantage(data, "klear_lab", config=KlearAlgorithmConfig(max_response_tokens=5))
    batch = data.batch
    batch["responses"] = torch.zeros(10, 6, dtype=torch.long)
    batch["attention_mask"] = torch.cat([torch.ones(10, 2, dtype=torch.long), batch["response_mask"]], dim=1)
    batch["prompts"], batch["token_level_scores"] = (
        torch.zeros(10, 2, dtype=torch.long),
        batch["token_level_rewards"],
    )
    found = our_metrics(compute_data_metrics(data[:9], use_critic=False))
    assert found["reward/mean"] == pytest.approx(np.mean(REWARDS_PG))
    assert found["rollout/length_mean"] == pytest.approx(np.mean(LENGTHS_B))


def test_unset_settings_have_the_values_of_our_own():
    ours, theirs = RLConfig(), KlearLossConfig()
    for name in ("token_mean", "on_nonfinite"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert {f.name for f in dataclasses.fields(KlearAlgorithmConfig)} >= {"drop_zero_advantage", "mask_overlong"}
