"""Methods that weigh a token by its whole response.

With s = exp(mean of log r over the response):

| method | F of each token of the response                                              | source           |
|--------|------------------------------------------------------------------------------|------------------|
| gspo   | s; 0 where s < 1-e_low, A < 0 or s > 1+e_high, A > 0                         | arXiv 2507.18071 |

Each token's objective has a gradient of its own, F A, as in GSPO-token. Summed over a response of n tokens it is
the gradient of n s A.

Departures:
1. gspo is published as a mean over responses: `rl.token_mean=sequence` gives that, and then F is as published. The
   default, the mean over tokens, weighs each response by its length as well.
2. log s is held to at most 10, as verl does: beyond, a negative response's weight would overflow.
3. A dual clip bounds a token's own ratio, so these methods take none.
"""

import torch
from torch import Tensor

from klear_lab.rl.clip_methods.interface import Tokens, clip_method, describe, keep_gradient

MOST_LOG_RATIO = 10.0


def sequence_ratio(tokens: Tokens) -> Tensor:
    """Returns s for each token, without gradient."""
    return tokens.response_mean(tokens.log_ratio.detach()).clamp(max=MOST_LOG_RATIO).exp()


def sequence_bounds(tokens: Tokens, eps_low: float, eps_high: float) -> tuple[Tensor, float, float]:
    """Bounds the response's ratio by 1 - eps_low and 1 + eps_high."""
    return sequence_ratio(tokens), 1 - eps_low, 1 + eps_high


@clip_method
@describe(bounds=sequence_bounds, of_responses=True)
def gspo(tokens: Tokens, eps_low: float = 3e-4, eps_high: float = 4e-4) -> Tensor:
    """Implements GSPO-token: PPO's clip for a whole response at once, by its ratio."""
    kept = ~(tokens.low | tokens.high)
    ratio = sequence_ratio(tokens)
    bounded = tokens.advantage * ratio.clamp(1 - eps_low, 1 + eps_high)
    return torch.where(kept, keep_gradient(ratio, tokens), bounded)
