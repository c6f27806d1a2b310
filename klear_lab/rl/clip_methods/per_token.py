"""Methods of other papers that weigh each token by itself.

With r = exp(log_prob - old_log_prob), p and q the token's probability now and then, s the logistic function:

| method  | F                                                                             | source           |
|---------|-------------------------------------------------------------------------------|------------------|
| sapo    | 4 r s(x) (1 - s(x)), x = t (r - 1), t = tau_pos for A > 0, else tau_neg       | arXiv 2511.20347 |
| dppo_tv | min(r, cap); 0 where p - q > high, A > 0 or q - p > low, A <= 0               | arXiv 2602.04879 |
| dppo_kl | min(r, cap); 0 where k(q, p) > high, p > q, A > 0 or k > low, p < q, A <= 0   | arXiv 2602.04879 |
| dcpo    | r; 0 where r < l(q), A < 0 or r > h(q), A > 0                                 | arXiv 2509.02333 |
| aspo    | A > 0: min(1/r, cap), 0 where r > 1+e_high; A < 0: min(r, cap), 0 where r < 1-e_low | 2510.06062 |
| topr    | A > 0: 1; A < 0: min(r, 1)                                                    | arXiv 2503.14286 |
| drpo    | r (1 - sign(A) (p - q) / threshold)                                           | arXiv 2606.09821 |
| dgpo    | r; r^(n+1) / (1-e_low)^n where r < 1-e_low, A < 0;                            | arXiv 2603.14389 |
|         | r^(1 - 1/m) (1+e_high)^(1/m) where r > 1+e_high, A > 0                        |                  |

k(q, p) is the KL divergence of two coins with these probabilities, and

    l(q) = (1 + sqrt(max(0, 1 - 4 e_low / q))) / 2        h(q) = min((1 + sqrt(1 + 4 e_high / q)) / 2, cap)

Departures:
1. sapo is published with the mean over sequences of their token means (`rl.token_mean=sequence`); F is the same.
2. dppo measures p against q of the learner before the step. Its paper measures against the sampler's probability:
   the two agree where sampler and learner do.
3. dcpo's code has a dual clip of 10 as well (`dual_clip=10`), and another advantage. Its code takes l = 1 for a q
   that underflows to 0; here it is 1/2, the limit.
4. aspo's code widens the range for tokens of high entropy and adds a KL term; here is one range for all tokens.
   The cap keeps the gradient ("soft" dual clip), for both signs, as in the code.
5. topr is published for whole responses, with their rewards' signs; this is the token form, with the advantages'
   signs, as ROLL has it.
6. drpo takes q, and so r, from the learner before the step, as dppo does here. Its authors' code can do so
   (old_logp_source=replay), but by default takes q from the sampler. F is 0 where log r is beyond 20 on either
   side, as in the code. The clip regions are where F has the sign of -A: p - q beyond the threshold, which is
   never so at the published 12.5. There F is r, give or take 8 %.
7. dgpo's code counts tokens beyond a dual clip, but doesn't clip them. It holds log r to 20 outside of the clip
   regions; here, as in the methods of the paper, nothing does.
"""

import math

import torch
from torch import Tensor

from klear_lab.rl.clip_methods.interface import (
    Tokens,
    clip_method,
    clipped,
    describe,
    keep_gradient,
    unclipped,
    with_gradient,
)


@clip_method
@describe()
def sapo(tokens: Tokens, tau_pos: float = 1.0, tau_neg: float = 1.05) -> Tensor:
    """Fades the weight out smoothly on both sides of r = 1: (4 / t) s(t (r - 1)) A; no token is clipped.

    F is worked out in logarithms, since r alone overflows where F is long 0.
    """
    tau = torch.full_like(tokens.advantage, tau_neg).masked_fill(tokens.advantage > 0, tau_pos)
    distance = tau * (tokens.ratio - 1)
    weight = 4 * (tokens.log_ratio - distance.abs()).exp() / (1 + (-distance.abs()).exp()) ** 2
    return with_gradient(4 / tau * distance.sigmoid() * tokens.advantage, weight, tokens)


def probabilities(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Returns p and q, without gradient."""
    return tokens.log_prob.detach().exp().clamp(max=1), tokens.old_log_prob.exp().clamp(max=1)


def tv_bounds(tokens: Tokens, low: float, high: float, **_: float) -> tuple[Tensor, float, float]:
    """Bounds the difference of the token's probabilities."""
    p, q = probabilities(tokens)
    return p - q, -low, high


def kl_bounds(tokens: Tokens, low: float, high: float, **_: float) -> tuple[Tensor, float, float]:
    """Bounds the divergence of the token's probabilities, with the sign of its move."""
    p, q = probabilities(tokens)
    others = (1 - q) * torch.log((1 - q + 1e-8) / (1 - p + 1e-8))
    divergence = q * (tokens.old_log_prob - tokens.log_prob.detach().clamp(max=0)) + others
    return divergence * (p - q).sign(), -low, high


def masked(tokens: Tokens, cap: float) -> Tensor:
    """Returns min(r, cap) A log p, and 0 for clipped tokens."""
    weight = tokens.ratio.clamp(max=cap).masked_fill(tokens.low | tokens.high, 0.0)
    return weight * tokens.advantage * tokens.log_prob


@clip_method
@describe(bounds=tv_bounds)
def dppo_tv(tokens: Tokens, low: float = 0.2, high: float = 0.2, cap: float = 20.0) -> Tensor:
    """Silences tokens whose probability has moved too far in the direction that their advantage pushes."""
    return masked(tokens, cap)


@clip_method
@describe(bounds=kl_bounds)
def dppo_kl(tokens: Tokens, low: float = 0.05, high: float = 0.05, cap: float = 20.0) -> Tensor:
    """Does as dppo_tv, with the divergence of the token's probabilities for their difference."""
    return masked(tokens, cap)


def drpo_bounds(tokens: Tokens, threshold: float) -> tuple[Tensor, float, float]:
    """Bounds the difference of the token's probabilities where the penalty outweighs the advantage."""
    return tv_bounds(tokens, threshold, threshold)


@clip_method
@describe(bounds=drpo_bounds)
def drpo(tokens: Tokens, threshold: float = 12.5) -> Tensor:
    """Punishes a token's move by abs(A) q (r - 1)^2 / (2 threshold), and so pulls back what moved beyond."""
    ratio = tokens.log_ratio.clamp(-20, 20).exp()
    penalty = tokens.advantage.abs() * tokens.old_log_prob.exp() * (ratio - 1) ** 2 / (2 * threshold)
    return ratio * tokens.advantage - penalty


def dcpo_range(tokens: Tokens, eps_low: float, eps_high: float, cap: float) -> tuple[Tensor, Tensor]:
    """Returns l(q) and h(q): the rarer the token was, the wider."""
    q = tokens.old_log_prob.exp()
    low = (1 + (1 - 4 * eps_low / q).clamp(min=0).sqrt()) / 2
    return low, ((1 + (1 + 4 * eps_high / q).sqrt()) / 2).clamp(max=cap)


def dcpo_bounds(tokens: Tokens, eps_low: float, eps_high: float, cap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds r by the range of the token's old probability."""
    return tokens.ratio, *dcpo_range(tokens, eps_low, eps_high, cap)


@clip_method
@describe(bounds=dcpo_bounds)
def dcpo(tokens: Tokens, eps_low: float = 0.1, eps_high: float = 0.2, cap: float = 10.0) -> Tensor:
    """Clips as clip_higher does, with a range of each token's own."""
    return clipped(tokens, *dcpo_range(tokens, eps_low, eps_high, cap))


@clip_method
def aspo(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.2, cap: float = 3.0) -> Tensor:
    """Weighs positive tokens by 1/r, so that likelier ones get less, and negative ones by r, up to the cap."""
    log_weight = torch.where(tokens.advantage > 0, -tokens.log_ratio.detach(), tokens.log_ratio.detach())
    weight = log_weight.exp().clamp(max=cap).masked_fill(tokens.low | tokens.high, 0.0)
    return weight * tokens.advantage * tokens.log_prob


def topr_bounds(tokens: Tokens, cap: float) -> tuple[Tensor, float, float]:
    """Bounds r from above alone."""
    return tokens.ratio, 0.0, cap


@clip_method
@describe(bounds=topr_bounds)
def topr(tokens: Tokens, cap: float = 1.0) -> Tensor:
    """Imitates positive tokens whatever their ratio, and lets go of negative ones as they become unlikely."""
    weight = torch.where(tokens.advantage > 0, 1.0, tokens.ratio.clamp(max=cap))
    return weight * tokens.advantage * tokens.log_prob


@clip_method
def dgpo(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.2, n: float = 1.0, m: float = 2.0) -> Tensor:
    """Lets a clipped token's weight go on from the bound by a power of r: faster down below, slower up above."""
    beyond = tokens.low | tokens.high
    log_ratio = torch.where(beyond, tokens.log_ratio.detach(), 0.0)
    log_bound = torch.full_like(log_ratio, math.log(1 + eps_high)).masked_fill(tokens.low, math.log(1 - eps_low))
    power = torch.full_like(log_ratio, -1 / m).masked_fill(tokens.low, n)
    weight = (log_ratio + power * (log_ratio - log_bound)).exp()
    return torch.where(beyond, keep_gradient(weight, tokens), unclipped(tokens, silent=beyond))
