"""The methods of the paper and its neighbours: what becomes of the gradient of a token beyond the clip range.

With r = exp(log_prob - old_log_prob) and e_low, e_high the clip range (equations of arXiv 2508.07629):

| method      | F                                                                       | source        |
|-------------|-------------------------------------------------------------------------|---------------|
| none        | r                                                                       | no clipping   |
| grpo        | r; 0 where r < 1-e_low, A < 0 or r > 1+e_high, A > 0 (e_low = e_high)   | Eq. 3         |
| clip_higher | the same with e_high > e_low                                            | Eq. 6, 7      |
| cispo       | clip(r, 1-e_low, 1+e_high), whatever the sign of A                      | Eq. 16        |
| cispo_upper | min(r, 1+e_high)                                                        | MiniMax-M1    |
| gppo        | r; 1-e_low where r < 1-e_low, A < 0; 1+e_high where r > 1+e_high, A > 0 | Eq. 11, 12    |
| ce_gppo     | gppo with its bounds times beta1 (low) and beta2 (high)                 | Eq. 17, 18    |
| gppo_upper  | r; 1+e_high where r > 1+e_high, A > 0                                   | a control     |

Departures from the paper's text and code:
1. Eq. 15 prints r where Eq. 16 needs sg(clip(r)); cispo follows Eq. 16.
2. The authors' code wraps gppo in a dual clip (10 in its recipes), the equations don't. Here `dual_clip` is an
   option of every method, off by default: tokens with r > dual_clip and A < 0 have objective dual_clip * A,
   so no gradient.
3. Clipped tokens keep their gradient through bound * exp(x - sg(x)), exact for any finite log-ratio; the
   printed (1-e_low) / sg(r) * r is NaN once r is 0 or inf, at log-ratios near -104 and 89 in float32.
   For the same reason branches are chosen on inputs made safe first: a `where` after an exp() that overflowed
   still sends inf * 0 = NaN backwards.
"""

import torch
from torch import Tensor

from klear_lab.rl.clip_methods.interface import Tokens, clip_method, clipped, keep_gradient, unclipped


@clip_method
def none(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Weights by the ratio alone, without clipping; the bounds only mark the regions that the metrics count."""
    return unclipped(tokens, silent=torch.zeros_like(tokens.low))


@clip_method
def clip_higher(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Implements Eq. 6, 7: min(r A, clip(r) A); clipped tokens have no gradient."""
    return clipped(tokens, 1 - eps_low, 1 + eps_high)


@clip_method
def grpo(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.2) -> Tensor:
    """Implements Eq. 3: clip_higher with equal bounds."""
    return clip_higher(tokens, eps_low, eps_high)


@clip_method
def cispo(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Implements Eq. 16: sg(clip(r, 1-eps_low, 1+eps_high)) A log pi."""
    weight = tokens.log_ratio.detach().exp().clamp(1 - eps_low, 1 + eps_high)
    return weight * tokens.advantage * tokens.log_prob


@clip_method
def cispo_upper(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Implements MiniMax-M1 (arXiv 2506.13585): sg(min(r, 1+eps_high)) A log pi; eps_low only marks `low`."""
    weight = tokens.log_ratio.detach().exp().clamp(max=1 + eps_high)
    return weight * tokens.advantage * tokens.log_prob


@clip_method
def ce_gppo(
    tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28, beta1: float = 0.75, beta2: float = 1.0
) -> Tensor:
    """Implements Eq. 17, 18 (arXiv 2509.20712): gppo with its bounds times beta1 (low) and beta2 (high)."""
    low = keep_gradient(beta1 * (1 - eps_low), tokens)
    high = keep_gradient(beta2 * (1 + eps_high), tokens)
    beyond = tokens.low | tokens.high
    return torch.where(beyond, torch.where(tokens.low, low, high), unclipped(tokens, silent=beyond))


@clip_method
def gppo(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Implements Eq. 11, 12: the value of clip_higher, with a bounded gradient where that has none."""
    return ce_gppo(tokens, eps_low, eps_high, beta1=1.0, beta2=1.0)


@clip_method
def gppo_upper(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Applies gppo on its high side alone: a negative token's weight shrinks with r, as without clipping."""
    high = keep_gradient(1 + eps_high, tokens)
    return torch.where(tokens.high, high, unclipped(tokens, silent=tokens.high))
