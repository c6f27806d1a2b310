"""Methods that look at the whole mini-batch before they weigh any of its tokens.

| method   | F                                                                                | source           |
|----------|----------------------------------------------------------------------------------|------------------|
| bapo     | r; 0 where r < low, A < 0 or r > high, A > 0; the bounds are searched for        | arXiv 2510.18927 |
| clip_cov | r; 0 where r < low, A < 0 or r > high, A > 0, and for a few tokens of high c     | arXiv 2505.22617 |
| kl_cov   | r; the derivative is r A - beta sign(log r) for the tokens of highest c          | arXiv 2505.22617 |

c = (A - mean A) (log_prob - mean log_prob) is a token's part of the covariance, over the mini-batch.

bapo: with P = sum of min(r, high) A over A > 0, and N = sum of max(r, low) |A| over A < 0, the lower bound rises
from low_start by low_step until P / N reaches the target or the bound low_end; then the upper one in the same way.
clip_cov: `share` of all tokens, at least one, drawn among those with cov_low < c < cov_high that aren't clipped.
kl_cov: `share` of all tokens, at least one.

Departures:
1. All three are published per micro-batch, which is what their code sees at once; here it is the mini-batch.
2. bapo's defaults are those of its README, steps and target those of its script. Its code has a dual clip of 3 as
   well (`dual_clip=3`). As in the code, N counts clipped tokens, so a higher lower bound can only lower P / N.
3. clip_cov's authors train with bounds of 0 and 2, the default here; verl's usual ones are 0.8 and 1.2. Its random
   choice is a hash of seed, step, response and position, so no cut or order changes it.
4. kl_cov's authors use a share of 2e-3 for 7B models and 2e-4 for 32B; the latter is the default here, as in verl.
"""

import torch
from torch import Tensor

from klear_lab.rl.clip_methods.interface import Tokens, clip_method, clipped, describe, unclipped

MOST_LOG_RATIO = 20.0  # in bapo's sums, as in its code


def search_bounds(
    tokens: Tokens,
    low_start: float,
    low_end: float,
    low_step: float,
    high_start: float,
    high_end: float,
    high_step: float,
    target: float,
) -> tuple[float, float]:
    """Returns bapo's bounds for a mini-batch: the first at which positive tokens weigh enough, else the last."""
    ratio = tokens.log_ratio.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO).exp()

    def is_balanced() -> bool:
        positive = (ratio.clamp(max=high) * tokens.advantage.clamp(min=0)).sum().item()
        negative = (ratio.clamp(min=low) * tokens.advantage.clamp(max=0)).sum().item()
        return negative == 0 or positive / (1e-8 - negative) >= target

    low, high = low_start, high_start
    while low < low_end and low_step > 0 and not is_balanced():
        low = min(low + low_step, low_end)
    while high < high_end and high_step > 0 and not is_balanced():
        high = min(high + high_step, high_end)
    return low, high


def found_bounds(tokens: Tokens, **_: float) -> tuple[Tensor, float, float]:
    """Bounds r by what was found for the mini-batch."""
    return tokens.ratio, *tokens.statistics


@clip_method
@describe(bounds=found_bounds, statistics=search_bounds)
def bapo(
    tokens: Tokens,
    low_start: float = 0.6,
    low_end: float = 0.9,
    low_step: float = 0.05,
    high_start: float = 1.2,
    high_end: float = 3.0,
    high_step: float = 0.1,
    target: float = 0.5,
) -> Tensor:
    """Clips as clip_higher does, between bounds that give positive tokens their part of the mini-batch."""
    return clipped(tokens, *tokens.statistics)


def covariances(tokens: Tokens) -> Tensor:
    """Returns each token's part of the covariance of advantage and log-probability."""
    log_prob = tokens.log_prob.detach()
    return (tokens.advantage - tokens.advantage.mean()) * (log_prob - log_prob.mean())


def count_of(share: float, tokens: Tokens) -> int:
    """Returns how many tokens a share of the mini-batch is, at least one."""
    return max(1, int(share * len(tokens.log_prob)))


def drawn_tokens(tokens: Tokens, low: float, high: float, share: float, cov_low: float, cov_high: float) -> Tensor:
    """Returns the keys of the tokens that clip_cov silences."""
    covariance, ratio = covariances(tokens), tokens.ratio
    beyond = ((ratio < low) & (tokens.advantage < 0)) | ((ratio > high) & (tokens.advantage > 0))
    candidate = (covariance > cov_low) & (covariance < cov_high) & ~beyond
    order = tokens.random_order()[candidate].argsort(stable=True)
    return tokens.keys[candidate][order[: count_of(share, tokens)]]


def plain_bounds(tokens: Tokens, low: float, high: float, **_: float) -> tuple[Tensor, float, float]:
    """Bounds r by two numbers."""
    return tokens.ratio, low, high


@clip_method
@describe(bounds=plain_bounds, statistics=drawn_tokens)
def clip_cov(
    tokens: Tokens,
    low: float = 0.0,
    high: float = 2.0,
    share: float = 2e-4,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
) -> Tensor:
    """Silences a few of the tokens that lower entropy most, drawn anew in each mini-batch, beside PPO's clip."""
    drawn = torch.isin(tokens.keys, tokens.statistics)
    return torch.where(drawn, 0.0, clipped(tokens, low, high, silent=drawn))


def highest_tokens(tokens: Tokens, share: float, beta: float) -> Tensor:
    """Returns the keys of the tokens that kl_cov holds back."""
    order = covariances(tokens).argsort(descending=True, stable=True)
    return tokens.keys[order[: count_of(share, tokens)]]


@clip_method
@describe(statistics=highest_tokens)
def kl_cov(tokens: Tokens, share: float = 2e-4, beta: float = 1.0) -> Tensor:
    """Pulls the tokens that lower entropy most towards where they were, and clips none."""
    held = torch.isin(tokens.keys, tokens.statistics)
    penalty = torch.where(held, beta * tokens.log_ratio.abs(), 0.0)
    return unclipped(tokens, silent=torch.zeros_like(held)) - penalty
