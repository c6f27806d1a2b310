"""Group-normalised advantages of GRPO.

Shapes: P prompts, G responses to each.
"""

import torch
from torch import Tensor

SAMPLE_EPSILON = 1e-6  # what verl's GRPO, and so the authors' code, adds to the standard deviation


def group_advantages(
    reward_PG: Tensor, divide_by_std: bool = True, counted_PG: Tensor | None = None, std: str = "population"
) -> Tensor:
    """Returns A = (R - mean of its group) / std of its group, shape (P, G) as `reward_PG`.

    The formula is that of the paper's section on GRPO (arXiv 2508.07629), whose std is that of a population: it
    divides by G and adds no epsilon, which would bend the others. With `std` sample it divides by G - 1 and adds
    1e-6, as the authors' code does: at 8 responses advantages are 0.935 times as large. Without `divide_by_std`
    A = R - mean, as in Dr. GRPO (arXiv 2503.20783).

    Responses outside of the mask `counted_PG` don't count in their group's mean and std, and have advantage 0. So
    does every response of a group whose rewards are all equal: it compares the rewards themselves, since rounding
    can leave a std above 0.
    """
    counted_PG = torch.ones_like(reward_PG, dtype=torch.bool) if counted_PG is None else counted_PG
    count_P1 = counted_PG.sum(dim=1, keepdim=True)
    some_P1 = count_P1.clamp(min=1)
    highest_P1 = reward_PG.masked_fill(~counted_PG, -torch.inf).amax(dim=1, keepdim=True)
    lowest_P1 = reward_PG.masked_fill(~counted_PG, torch.inf).amin(dim=1, keepdim=True)
    silent_PG = (highest_P1 <= lowest_P1) | ~counted_PG
    mean_P1 = reward_PG.where(counted_PG, 0.0).sum(dim=1, keepdim=True) / some_P1
    centred_PG = (reward_PG - mean_P1).where(~silent_PG, 0.0)
    if not divide_by_std:
        return centred_PG
    squares_P1 = centred_PG.square().sum(dim=1, keepdim=True)
    if std == "sample":
        std_P1 = (squares_P1 / (some_P1 - 1).clamp(min=1)).sqrt() + SAMPLE_EPSILON
    else:
        std_P1 = (squares_P1 / some_P1).sqrt()
    return torch.where(silent_PG, 0.0, centred_PG / torch.where(std_P1 == 0, 1.0, std_P1))
