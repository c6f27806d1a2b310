"""klear_lab's advantages in verl, and each response's flag: whether it is trained, and whether it is correct.

verl's own GRPO divides by a standard deviation over n - 1 and adds 1e-6 to it; here it is klear_lab's formula. An
estimator of verl returns advantages and returns, of which policy gradients use the first alone; the second carries
the flags to worker.py.

Shapes: B responses of a step, T tokens of the longest, G responses to one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import register_adv_est

from klear_lab.engines.verl.policy_loss import CORRECT, TRAINED
from klear_lab.engines.verl.settings import ADVANTAGES
from klear_lab.rl.advantages import group_advantages


@dataclass
class KlearAlgorithmConfig(AlgoConfig):
    """Adds our settings to verl's own; see `rl` in klear_lab/config.py. A right answer earns `correct_reward`."""

    group_std: str = "population"
    drop_zero_advantage: bool = True
    drop_equal: str = "reward"
    mask_overlong: bool = False
    overlong_counts: bool = True
    correct_reward: float = 1.0
    max_response_tokens: int = 0


@register_adv_est(ADVANTAGES)
def advantages_and_flags(
    token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[Any], config: Any, **_: Any
) -> tuple[Tensor, Tensor]:
    """Returns advantages and flags, both (B, T), the same at all tokens of a response and 0 beyond its end.

    `index` names each response's prompt. Not trained are groups whose rewards are all equal, or with `drop_equal`
    correct all right or all wrong, if `drop_zero_advantage`; responses of `max_response_tokens`, if
    `mask_overlong`; and verl's padding.
    """
    reward_B = token_level_rewards.sum(dim=-1).double()
    length_B = response_mask.sum(dim=-1)
    advantage_B, trained_B = torch.zeros_like(reward_B), length_B > 0
    # A reward is float32 in verl.
    correct_B = torch.isclose(reward_B, torch.full_like(reward_B, config.correct_reward), rtol=1e-6)
    whole_B = length_B < config.max_response_tokens
    counted_B = torch.ones_like(whole_B) if config.overlong_counts else whole_B
    groups: dict[Any, list[int]] = {}
    for place, prompt in enumerate(index):
        groups.setdefault(prompt, []).append(place)
    for places in groups.values():
        counted_G = counted_B[places]
        (advantage_G,) = group_advantages(
            reward_B[places].unsqueeze(0), config.norm_adv_by_std_in_grpo, counted_G.unsqueeze(0), config.group_std
        )
        advantage_B[places] = advantage_G
        right_G = correct_B[places][counted_G]
        teaches = advantage_G.any() if config.drop_equal == "reward" else right_G.any() and not right_G.all()
        if config.drop_zero_advantage and not teaches:
            trained_B[places] = False
    if config.mask_overlong:
        trained_B &= whole_B
    flag_B = TRAINED * trained_B + CORRECT * correct_B
    mask_BT = response_mask.to(token_level_rewards)
    return advantage_B.to(mask_BT).unsqueeze(1) * mask_BT, flag_B.to(mask_BT).unsqueeze(1) * mask_BT
