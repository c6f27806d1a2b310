"""What a clip method is: a function from tokens to an objective, and what is said of it beside its formula.

A method is one function of `Tokens` and its own parameters, which returns a per-token objective, to be maximised,
whose gradient with respect to log_prob is F * A. Most need nothing else. `describe` says what the others need:
bounds that aren't 1 - eps_low and 1 + eps_high, the responses that tokens belong to, or statistics of the whole
mini-batch. Whoever calls a method hands these over (method.py); what isn't there is an error that names it.

Shapes: N tokens, in any shape where responses play no part; S responses.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from klear_lab.sampling.draws import GOLDEN, mix_64, sample_seed


@dataclass(frozen=True)
class Responses:
    """Says which response each token belongs to: the first `lengths[0]` tokens to the first, and so on.

    `numbers` are the responses' own numbers, which stay when a mini-batch is cut or ordered otherwise.
    """

    lengths: Sequence[int]
    numbers: Sequence[int]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Responses":
        """Numbers responses as they come."""
        return cls(lengths, range(len(lengths)))

    def spread(self, values_S: Tensor) -> Tensor:
        """Repeats each response's value for each of its tokens, shape (N,)."""
        lengths = torch.tensor(self.lengths, dtype=torch.long, device=values_S.device)  # also of no responses
        return values_S.repeat_interleave(lengths)

    def keys(self, device: torch.device) -> Tensor:
        """Returns a number for each token, int64 (N,): its response's number and its position in it."""
        number_N = self.spread(torch.tensor(list(self.numbers), device=device))
        position_N = torch.cat([torch.arange(length, device=device) for length in self.lengths])
        return (number_N << 32) + position_N


@dataclass(frozen=True)
class Tokens:
    """Holds what a clip method sees of its tokens; all tensors have the same shape, one entry for each token.

    `low` and `high` are the clip regions: beyond the method's bounds, where also A < 0 or A > 0. The rest is there
    where the caller knows it: `sampler_log_prob`, `statistics` of the mini-batch, and the responses.
    """

    log_prob: Tensor
    old_log_prob: Tensor
    log_ratio: Tensor
    advantage: Tensor
    low: Tensor
    high: Tensor
    sampler_log_prob: Tensor | None = None
    statistics: Any = None
    known_responses: Responses | None = None
    seed_name: str = ""
    method: str = "this method"

    @property
    def ratio(self) -> Tensor:
        """Returns r without gradient; infinite where it overflows."""
        return self.log_ratio.detach().exp()

    @property
    def responses(self) -> Responses:
        """Returns which response each token belongs to. Raises `ValueError` where the caller didn't say."""
        if self.known_responses is None:
            raise ValueError(
                f"{self.method} needs to know which tokens form a response: pass responses=Responses.of(lengths), "
                "and describe the method with @describe(of_responses=True)"
            )
        return self.known_responses

    @cached_property
    def length(self) -> Tensor:
        """Returns the length of each token's response, shape (N,)."""
        return self.responses.spread(torch.tensor(list(self.responses.lengths)).to(self.log_prob))

    def response_sum(self, values_N: Tensor) -> Tensor:
        """Sums over each token's response, shape (N,); a response's sum depends on no other response."""
        return self.spread([part.sum() for part in self.split(values_N)], values_N)

    def response_mean(self, values_N: Tensor) -> Tensor:
        """Averages over each token's response, shape (N,)."""
        return self.spread([part.mean() for part in self.split(values_N)], values_N)

    def spread(self, values: list[Tensor], values_N: Tensor) -> Tensor:
        """Repeats a number of each response for each of its tokens, shape (N,); no responses have no tokens."""
        return self.responses.spread(torch.stack(values)) if values else values_N

    def split(self, values_N: Tensor) -> tuple[Tensor, ...]:
        """Splits values by response."""
        return values_N.split(list(self.responses.lengths))

    @property
    def keys(self) -> Tensor:
        """Returns a number for each token, int64 (N,), the same however the mini-batch is cut or ordered."""
        return self.responses.keys(self.log_prob.device)

    def random_order(self) -> Tensor:
        """Returns a random number for each token, int64 (N,): a hash of seed, step, response and position."""
        return mix_64(mix_64(self.keys * GOLDEN) + sample_seed(self.seed_name))


Objective = Callable[..., Tensor]
# Of tokens and parameters: what is measured of each token's move, its lower and its upper bound.
Bounds = Callable[..., tuple[Tensor, Tensor | float, Tensor | float]]


@dataclass(frozen=True)
class Definition:
    """Says what a method needs beside its objective.

    `bounds` is None for a method that has none, and so no clip regions. `statistics`, if any, is a function of the
    whole mini-batch's tokens and the parameters; what it returns reaches the objective as `tokens.statistics`.
    `of_responses`: whether a token's objective may depend on other tokens of its response.
    """

    objective: Objective
    bounds: Bounds | None
    statistics: Callable[..., Any] | None = None
    of_responses: bool = False


CLIP_METHODS: dict[str, Definition] = {}


def ratio_bounds(tokens: Tokens, eps_low: float, eps_high: float, **_: float) -> tuple[Tensor, float, float]:
    """Bounds the ratio by 1 - eps_low and 1 + eps_high, as PPO does."""
    return tokens.ratio, 1 - eps_low, 1 + eps_high


def describe(
    *,
    bounds: Bounds | Literal["of_parameters"] | None = "of_parameters",
    statistics: Callable[..., Any] | None = None,
    of_responses: bool = False,
) -> Callable[[Objective], Objective]:
    """Describes a method whose bounds aren't those of PPO, or that needs more than its own tokens.

    `bounds` "of_parameters" are those of PPO if the method has parameters eps_low and eps_high, else none.
    """

    def decorate(function: Objective) -> Objective:
        own = bounds_of_parameters(function) if bounds == "of_parameters" else bounds
        vars(function)["definition"] = Definition(function, own, statistics, of_responses)
        return function

    return decorate


def clip_method(function: Objective) -> Objective:
    """Registers a method under its function's name."""
    CLIP_METHODS[function.__name__] = definition_of(function)
    return function


def parameters_of(function: Objective) -> dict[str, Any]:
    """Returns a method's own parameters with their defaults, `inspect.Parameter.empty` where there is none."""
    _, *own = inspect.signature(function).parameters.values()  # the first are the tokens
    return {parameter.name: parameter.default for parameter in own}


def definition_of(function: Objective) -> Definition:
    """Returns what `describe` said of a function, else that it bounds r if it has eps_low and eps_high."""
    found: Definition = vars(function).get("definition", Definition(function, bounds_of_parameters(function)))
    return found


def bounds_of_parameters(function: Objective) -> Bounds | None:
    """Returns the bounds of PPO for a method with parameters eps_low and eps_high, None for another."""
    return ratio_bounds if {"eps_low", "eps_high"} <= {*parameters_of(function)} else None


def unclipped(tokens: Tokens, silent: Tensor) -> Tensor:
    """Returns r A, whose gradient is r A; exactly 0 where `silent` or A = 0, even if r overflows there."""
    live = ~silent & (tokens.advantage != 0)
    return torch.where(live, tokens.log_ratio, 0.0).exp() * torch.where(live, tokens.advantage, 0.0)


def keep_gradient(bound: float | Tensor, tokens: Tokens) -> Tensor:
    """Returns bound * A, whose gradient is bound * A too."""
    return bound * torch.exp(tokens.log_prob - tokens.log_prob.detach()) * tokens.advantage


def with_gradient(value: Tensor, weight: Tensor, tokens: Tokens) -> Tensor:
    """Returns `value`, whose gradient is weight * A whatever the value is."""
    return value.detach() + weight.detach() * tokens.advantage * (tokens.log_prob - tokens.log_prob.detach())


def clipped(tokens: Tokens, low: float | Tensor, high: float | Tensor, silent: Tensor | None = None) -> Tensor:
    """Returns min(r A, clip(r, low, high) A), PPO's objective: clipped tokens have no gradient.

    Nor have those that are `silent` for another reason.
    """
    bounded = torch.where(tokens.low, low * tokens.advantage, high * tokens.advantage)
    beyond = tokens.low | tokens.high
    quiet = beyond if silent is None else beyond | silent
    return torch.where(beyond, bounded, unclipped(tokens, silent=quiet))
