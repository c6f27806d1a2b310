"""Group-normalised advantages of GRPO."""

import torch
from torch import Tensor


def group_advantages(reward_PG: Tensor, divide_by_std: bool = True) -> Tensor:
    """Returns A = (R - mean of its group) / std of its group (population std), shape (P, G) as `reward_PG`.

    P prompts, G responses each; the formula is that of the paper's section on GRPO (arXiv 2508.07629). Without
    `divide_by_std` A = R - mean, as in Dr. GRPO (arXiv 2503.20783).

    A group whose rewards are all equal has advantage exactly 0. There is no epsilon in the denominator, which
    would bend the others. It compares the rewards themselves, since rounding can leave a std above 0.
    """
    equal_P1 = (reward_PG == reward_PG[:, :1]).all(dim=1, keepdim=True)
    centred_PG = reward_PG - reward_PG.mean(dim=1, keepdim=True)
    if not divide_by_std:
        return torch.where(equal_P1, 0.0, centred_PG)
    std_P1 = centred_PG.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(equal_P1, 0.0, centred_PG / torch.where(equal_P1, 1.0, std_P1))
