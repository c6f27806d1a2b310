"""Clip methods: what a token's importance ratio does to its gradient. The heart of the project.

Every method maps (log_prob, old_log_prob, advantage) to a per-token objective, to be maximised, whose gradient
with respect to log_prob is F * A. With r = exp(log_prob - old_log_prob) and e_low, e_high the clip range
(equations of arXiv 2508.07629):

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

To add a method: one decorated function of (tokens, its parameters) below, and conf/clip_method/<name>.yaml.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Holds what a clip method sees of its tokens; all tensors have the same shape, one entry for each token."""

    log_prob: Tensor
    log_ratio: Tensor
    advantage: Tensor
    low: Tensor  # r < 1-eps_low, A < 0
    high: Tensor  # r > 1+eps_high, A > 0


@dataclass(frozen=True)
class ClipOutput:
    """Holds the `objective` per token, to be maximised, and boolean masks of the same shape.

    `below` marks r < 1-eps_low, `above` marks r > 1+eps_high. The clip regions are `low`, where also A < 0, and
    `high`, where also A > 0. `dual` marks tokens beyond the dual-clip bound.
    """

    objective: Tensor
    below: Tensor
    above: Tensor
    low: Tensor
    high: Tensor
    dual: Tensor


ClipMethod = Callable[[Tensor, Tensor, Tensor], ClipOutput]
Objective = Callable[..., Tensor]
CLIP_METHODS: dict[str, Objective] = {}


def clip_method(function: Objective) -> Objective:
    """Registers a method under its function's name."""
    CLIP_METHODS[function.__name__] = function
    return function


def unclipped(tokens: Tokens, silent: Tensor) -> Tensor:
    """Returns r A, whose gradient is r A; exactly 0 where `silent` or A = 0, even if r overflows there."""
    live = ~silent & (tokens.advantage != 0)
    return torch.where(live, tokens.log_ratio, 0.0).exp() * torch.where(live, tokens.advantage, 0.0)


def keep_gradient(bound: float, tokens: Tokens) -> Tensor:
    """Returns bound * A, whose gradient is bound * A too."""
    return bound * torch.exp(tokens.log_prob - tokens.log_prob.detach()) * tokens.advantage


@clip_method
def none(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Weights by the ratio alone, without clipping; the bounds only mark the regions that the metrics count."""
    return unclipped(tokens, silent=torch.zeros_like(tokens.low))


@clip_method
def clip_higher(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Implements Eq. 6, 7: min(r A, clip(r) A); clipped tokens have no gradient."""
    bounded = torch.where(tokens.low, (1 - eps_low) * tokens.advantage, (1 + eps_high) * tokens.advantage)
    clipped = tokens.low | tokens.high
    return torch.where(clipped, bounded, unclipped(tokens, silent=clipped))


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
    clipped = tokens.low | tokens.high
    return torch.where(clipped, torch.where(tokens.low, low, high), unclipped(tokens, silent=clipped))


@clip_method
def gppo(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Implements Eq. 11, 12: the value of clip_higher, with a bounded gradient where that has none."""
    return ce_gppo(tokens, eps_low, eps_high, beta1=1.0, beta2=1.0)


@clip_method
def gppo_upper(tokens: Tokens, eps_low: float = 0.2, eps_high: float = 0.28) -> Tensor:
    """Applies gppo on its high side alone: a negative token's weight shrinks with r, as without clipping."""
    high = keep_gradient(1 + eps_high, tokens)
    return torch.where(tokens.high, high, unclipped(tokens, silent=tokens.high))


def make_clip_method(name: str, *, dual_clip: float | None = None, **parameters: float) -> ClipMethod:
    """Makes a clip method with its parameters bound; those not given take the paper's values.

    Raises `ValueError` for an unknown name and for a parameter that is unknown or out of range.
    """
    if name not in CLIP_METHODS:
        raise ValueError(f"name={name}: must be one of {', '.join(sorted(CLIP_METHODS))}")
    objective = CLIP_METHODS[name]
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(objective).parameters.items()
        if key != "tokens"
    }
    check_parameters(name, defaults, parameters, dual_clip)
    bound = {**defaults, **parameters}
    eps_low, eps_high = bound["eps_low"], bound["eps_high"]

    def method(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> ClipOutput:
        log_ratio = log_prob - old_log_prob
        ratio = log_ratio.detach().exp()
        below, above = ratio < 1 - eps_low, ratio > 1 + eps_high
        low, high = below & (advantage < 0), above & (advantage > 0)
        dual = (ratio > (dual_clip or math.inf)) & (advantage < 0)
        tokens = Tokens(log_prob, torch.where(dual, 0.0, log_ratio), advantage, low, high)
        value = objective(tokens, **bound)
        if dual_clip is not None:
            value = torch.where(dual, dual_clip * advantage, value)
        return ClipOutput(value, below, above, low, high, dual)

    return method


def check_parameters(
    name: str, allowed: dict[str, float], given: dict[str, float], dual_clip: float | None
) -> None:
    """Raises `ValueError` unless each parameter is one of the method's own and in range."""
    for key, value in [*given.items(), *([] if dual_clip is None else [("dual_clip", dual_clip)])]:
        if key not in allowed and key != "dual_clip":
            raise ValueError(f"{key}: unknown; {name} takes {', '.join([*allowed, 'dual_clip'])}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key}={value}: must be a number")
        if key == "dual_clip" and value <= 1:
            raise ValueError(f"dual_clip={value}: must be above 1, or null for none")
        if value < 0 or (key == "eps_low" and value >= 1):
            raise ValueError(f"{key}={value}: must be at least 0{' and below 1' * (key == 'eps_low')}")
