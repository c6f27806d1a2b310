"""Clip methods against TRL's own losses, run on TRL's own trainer classes: the same gradient of each token.

TRL averages in other ways than we do: over sequences of token means, over all tokens, or over sequences of sums.
`scale` takes its gradient to ours, F A of each token: times what TRL divides a token's loss by.

Shapes: B sequences, T positions.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer
from trl.experimental.gmpo import GMPOTrainer

from klear_lab.rl.clip_methods import Responses, make_clip_method

LENGTHS = [5, 1, 8, 3, 6, 2]
B, T = len(LENGTHS), max(LENGTHS)
OF_TRL = {
    "sapo": {"loss_type": "sapo"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo"},
    "gmpo": {"loss_type": "gmpo"},
    "cispo_upper": {"loss_type": "cispo"},
    "clip_higher": {"loss_type": "dapo"},
}


def batch(seed, spread):
    """Log-probabilities now and then, one advantage a sequence, and the mask; what is masked is wild."""
    noise = torch.Generator().manual_seed(seed)
    mask_BT = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    old_BT = -torch.rand((B, T), generator=noise, dtype=torch.float64) * 3 - 0.1
    log_prob_BT = -(old_BT + spread * torch.randn((B, T), generator=noise, dtype=torch.float64)).abs() - 1e-3
    advantage_B = torch.randn(B, generator=noise, dtype=torch.float64)
    return log_prob_BT, old_BT, advantage_B, mask_BT.long()


def trl_gradient(log_prob_BT, old_BT, advantage_B, mask_BT, bounds, loss_type, importance_sampling_level="token"):
    """The gradient of TRL's loss with respect to the log-probabilities."""
    kind = GMPOTrainer if loss_type == "gmpo" else GRPOTrainer
    trainer = kind.__new__(kind)
    leaf_BT = log_prob_BT.clone().requires_grad_()
    entropy_BT = torch.zeros_like(leaf_BT)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf_BT, entropy_BT, None)
    trainer.model = SimpleNamespace(training=True)
    trainer.loss_type, trainer.importance_sampling_level = loss_type, importance_sampling_level
    trainer.epsilon_low, trainer.epsilon_high = bounds
    trainer.args = SimpleNamespace(
        delta=None,
        use_bias_correction_kl=False,
        steps_per_generation=1,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        vespo_k_pos=2.0,
        vespo_lambda_pos=3.0,
        vespo_k_neg=3.0,
        vespo_lambda_neg=2.0,
    )
    trainer.aux_loss_enabled = trainer.use_vllm = trainer.use_adaptive_entropy = False
    trainer._entropy_bonus_enabled = False
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold, trainer.beta = 1.0, None, 0.0
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, **_: x)
    trainer._metrics = defaultdict(lambda: defaultdict(list))
    ids_BT = torch.zeros((B, T), dtype=torch.long)
    inputs = {
        "prompt_ids": ids_BT,
        "prompt_mask": mask_BT,
        "completion_ids": ids_BT,
        "completion_mask": mask_BT,
        "advantages": advantage_B,
        "old_per_token_logps": old_BT,
        "num_items_in_batch": mask_BT.sum(),
    }
    trainer._compute_loss(trainer.model, inputs).backward()
    return leaf_BT.grad


def scale(loss_type, mask_BT):
    """What TRL divides a token's loss by: the tokens, or the sequences times the tokens of its own."""
    if loss_type in ("vespo", "cispo", "dapo"):
        return mask_BT.sum()
    return B * mask_BT.sum(-1, keepdim=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("name", OF_TRL)
def test_the_gradient_is_that_of_trl(name, spread, seed):
    log_prob_BT, old_BT, advantage_B, mask_BT = batch(seed, spread)
    ours, bounds = {"eps_low": 0.1, "eps_high": 0.15}, (0.1, 0.15)
    if name == "cispo_upper":
        bounds = (0.1, 1.15)  # TRL's epsilon_high of cispo is the bound itself
    elif name == "gmpo":
        ours = {"low": 0.1, "high": 0.15}
    elif name in ("sapo", "vespo"):
        ours = {}
    theirs_BT = trl_gradient(log_prob_BT, old_BT, advantage_B, mask_BT, bounds, **OF_TRL[name])
    kept_BT = mask_BT.bool()
    leaf_N = log_prob_BT[kept_BT].requires_grad_()
    advantage_N = advantage_B[:, None].expand(B, T)[kept_BT]
    output = make_clip_method(name, **ours)(leaf_N, old_BT[kept_BT], advantage_N, responses=Responses.of(LENGTHS))
    output.objective.sum().backward()
    want_BT = -theirs_BT * scale(OF_TRL[name]["loss_type"], mask_BT)
    torch.testing.assert_close(leaf_N.grad, want_BT[kept_BT], rtol=1e-6, atol=1e-6)
    assert not theirs_BT[~kept_BT].any()
    assert leaf_N.grad.abs().max() > 0.1
