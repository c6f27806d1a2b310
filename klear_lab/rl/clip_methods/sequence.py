"""Methods that weigh a token by its whole response.

With n the tokens of a response, s = exp(mean of log r) and w = exp(sum of log r) over them:

| method | F of each token of the response                                              | source           |
|--------|------------------------------------------------------------------------------|------------------|
| gspo   | s; 0 where s < 1-e_low, A < 0 or s > 1+e_high, A > 0                         | arXiv 2507.18071 |
| luspo  | gspo times n                                                                 | arXiv 2602.05261 |
| gmpo   | exp(mean of c), 0 where c isn't log r; c = log r, but at least -low where    | arXiv 2507.20673 |
|        | A < 0 and at most high where A > 0                                           |                  |
| vespo  | e^l w^k e^(-l w); (k, l) by the sign of A                                    | arXiv 2602.10693 |

Each token's objective has a gradient of its own, F A, as in GSPO-token. Summed over a response of n tokens it is
the gradient of n s A, n times what is published for the response.

Departures:
1. gspo, luspo and gmpo are published as a mean over responses: `rl.token_mean=sequence` gives that, and then F is
   as published. The default, the mean over tokens, weighs each response by its length as well. So with the default
   gspo already is what luspo publishes, up to a constant, and luspo counts lengths twice.
2. log s, and gmpo's mean, are held to at most 10, as verl does for s: beyond, a negative response's weight would
   overflow.
3. vespo holds log r to 20 on both sides, and log w to [log 1e-8, 20], as its code does. TRL multiplies w by the
   mismatch between learner and sampler; here `rl.mismatch_correction` multiplies F.
4. A dual clip bounds a token's own ratio, so these methods take none.
"""

import math

import torch
from torch import Tensor

from klear_lab.rl.clip_methods.interface import Tokens, clip_method, describe, keep_gradient

MOST_LOG_RATIO = 10.0
# vespo's, of a token and of a response
TOKEN_RANGE, RESPONSE_RANGE = (-20.0, 20.0), (math.log(1e-8), 20.0)


def mean_ratio(tokens: Tokens, log_ratio: Tensor) -> Tensor:
    """Returns the geometric mean of each response's ratios for its tokens, without gradient."""
    return tokens.response_mean(log_ratio.detach()).clamp(max=MOST_LOG_RATIO).exp()


def sequence_bounds(tokens: Tokens, eps_low: float, eps_high: float) -> tuple[Tensor, float, float]:
    """Bounds the response's ratio by 1 - eps_low and 1 + eps_high."""
    return mean_ratio(tokens, tokens.log_ratio), 1 - eps_low, 1 + eps_high


@clip_method
@describe(bounds=sequence_bounds, of_responses=True)
def gspo(tokens: Tokens, eps_low: float = 3e-4, eps_high: float = 4e-4) -> Tensor:
    """Implements GSPO-token: PPO's clip for a whole response at once, by its ratio."""
    ratio = mean_ratio(tokens, tokens.log_ratio)
    bounded = ratio.clamp(1 - eps_low, 1 + eps_high) * tokens.advantage
    return torch.where(tokens.low | tokens.high, bounded, keep_gradient(ratio, tokens))


@clip_method
@describe(bounds=sequence_bounds, of_responses=True)
def luspo(tokens: Tokens, eps_low: float = 3e-4, eps_high: float = 4e-4) -> Tensor:
    """Takes back GSPO's division by the length, which favours short right answers and long wrong ones."""
    return tokens.length * gspo(tokens, eps_low, eps_high)


def log_bounds(tokens: Tokens, low: float, high: float) -> tuple[Tensor, float, float]:
    """Bounds the token's log-ratio."""
    return tokens.log_ratio.detach(), -low, high


@clip_method
@describe(bounds=log_bounds, of_responses=True)
def gmpo(tokens: Tokens, low: float = 0.4, high: float = 0.4) -> Tensor:
    """Weighs by the geometric mean of the response's ratios, each clipped where its advantage pushes beyond."""
    clipped = torch.where(tokens.low, -low, tokens.log_ratio.detach()).masked_fill(tokens.high, high)
    ratio = mean_ratio(tokens, clipped)
    return torch.where(tokens.low | tokens.high, ratio * tokens.advantage, keep_gradient(ratio, tokens))


@clip_method
@describe(of_responses=True)
def vespo(
    tokens: Tokens, k_pos: float = 2.0, lambda_pos: float = 3.0, k_neg: float = 3.0, lambda_neg: float = 2.0
) -> Tensor:
    """Weighs by a gamma function of the response's ratio: 1 on policy, and less on both sides of its peak."""
    positive = tokens.advantage >= 0
    k = torch.full_like(tokens.advantage, k_neg).masked_fill(positive, k_pos)
    slope = torch.full_like(tokens.advantage, lambda_neg).masked_fill(positive, lambda_pos)
    log_ratio = tokens.response_sum(tokens.log_ratio.detach().clamp(*TOKEN_RANGE)).clamp(*RESPONSE_RANGE)
    weight = (slope + k * log_ratio - slope * log_ratio.exp()).exp()
    return weight * tokens.advantage * tokens.log_prob
