"""Calls clip methods, and checks their parameters.

Shapes: N tokens, in any shape where responses play no part.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from klear_lab.rl.clip_methods.interface import Definition, Responses, Tokens

# Parameters that can't be above the one behind them. (Other methods' `low` and `high` are distances from 1 or 0.)
ORDERED = {
    "bapo": (("low_start", "low_end"), ("low_end", "high_start"), ("high_start", "high_end")),
    "clip_cov": (("low", "high"), ("cov_low", "cov_high")),
}
DIVISORS = ("m", "tau_neg", "tau_pos", "threshold")  # parameters that methods divide by


@dataclass(frozen=True)
class ClipOutput:
    """Holds the `objective` per token, to be maximised, and boolean masks of the same shape.

    `below` and `above` mark tokens beyond the method's bounds, for most r < 1-eps_low and r > 1+eps_high; none for
    a method without bounds. The clip regions are `low`, where also A < 0, and `high`, where also A > 0. `dual`
    marks tokens beyond the dual-clip bound.
    """

    objective: Tensor
    below: Tensor
    above: Tensor
    low: Tensor
    high: Tensor
    dual: Tensor


@dataclass(frozen=True)
class ClipMethod:
    """Is a clip method with its parameters bound, called with three tensors of one shape and what else it needs.

    `seed_name` names its random choices.
    """

    name: str
    definition: Definition
    parameters: dict[str, Any]
    dual_clip: float | None = None
    seed_name: str = ""

    @property
    def has_bounds(self) -> bool:
        """Tells whether the method has bounds, and so clip regions."""
        return self.definition.bounds is not None

    @property
    def needs_statistics(self) -> bool:
        """Tells whether the method must see the whole mini-batch before any of its tokens (`measure`)."""
        return self.definition.statistics is not None

    @property
    def of_responses(self) -> bool:
        """Tells whether a token's objective may depend on other tokens of its response."""
        return self.definition.of_responses

    def seeded(self, seed_name: str) -> "ClipMethod":
        """Returns the method with its random choices named, e.g. "3-clip-17": those of seed 3 at step 17."""
        return dataclasses.replace(self, seed_name=seed_name)

    def __call__(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        *,
        responses: Responses | None = None,
        sampler_log_prob: Tensor | None = None,
        statistics: Any = None,
    ) -> ClipOutput:
        """Returns objective and masks. Raises `ValueError` for what the method needs and wasn't given."""
        if self.needs_statistics and statistics is None:
            raise ValueError(
                f"{self.name} needs statistics of the whole mini-batch: pass those that `measure` returns"
            )
        tokens = self.tokens(log_prob, old_log_prob, advantage, responses, sampler_log_prob)
        tokens = dataclasses.replace(tokens, statistics=statistics)
        below, above = self.beyond_bounds(tokens)
        low, high = below & (advantage < 0), above & (advantage > 0)
        dual = (tokens.ratio > (self.dual_clip or math.inf)) & (advantage < 0)
        log_ratio = torch.where(dual, 0.0, tokens.log_ratio)
        tokens = dataclasses.replace(tokens, log_ratio=log_ratio, low=low, high=high)
        value = self.definition.objective(tokens, **self.parameters)
        if self.dual_clip is not None:
            value = torch.where(dual, self.dual_clip * advantage, value)
        return ClipOutput(value, below, above, low, high, dual)

    def measure(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        *,
        responses: Responses | None = None,
        sampler_log_prob: Tensor | None = None,
    ) -> Any:
        """Returns the statistics that the method needs, of all tokens of a mini-batch; None if it needs none."""
        if self.definition.statistics is None:
            return None
        with torch.no_grad():
            tokens = self.tokens(log_prob, old_log_prob, advantage, responses, sampler_log_prob)
            return self.definition.statistics(tokens, **self.parameters)

    def tokens(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        responses: Responses | None,
        sampler_log_prob: Tensor | None,
    ) -> Tokens:
        """Returns the tokens as a method sees them, before it is known which are clipped."""
        log_ratio = log_prob - old_log_prob
        nowhere = torch.zeros_like(log_ratio, dtype=torch.bool)
        return Tokens(
            *(log_prob, old_log_prob, log_ratio, advantage, nowhere, nowhere),
            sampler_log_prob=sampler_log_prob,
            known_responses=responses if self.of_responses or self.needs_statistics else None,
            seed_name=self.seed_name,
            method=self.name,
        )

    def beyond_bounds(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Returns which tokens are below the method's lower bound, and which above its upper one."""
        if self.definition.bounds is None:
            return tokens.low, tokens.high
        with torch.no_grad():
            measure, lower, upper = self.definition.bounds(tokens, **self.parameters)
        return measure < lower, measure > upper


def check_names(name: str, allowed: list[str], given: dict[str, Any]) -> None:
    """Raises `ValueError` for a parameter that the method doesn't take."""
    for key in given:
        if key not in allowed:
            raise ValueError(f"{key}: unknown; {name} takes {', '.join(allowed) or 'no parameters'}")


def check_numbers(given: dict[str, Any]) -> None:
    """Raises `ValueError` unless each parameter is a number."""
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key}={value}: must be a number")


def check_order(name: str, parameters: dict[str, Any]) -> None:
    """Raises `ValueError` where a lower bound of a method is above its upper one; `parameters` are all it has."""
    for low, high in ORDERED.get(name, ()):
        if parameters[low] > parameters[high]:
            raise ValueError(f"{low}={parameters[low]}: must be at most {high}={parameters[high]}")


def check_ranges(given: dict[str, Any]) -> None:
    """Raises `ValueError` unless each parameter is in the range of its name."""
    for key, value in given.items():
        if key == "dual_clip" and value <= 1:
            raise ValueError(f"dual_clip={value}: must be above 1, or null for none")
        if key in DIVISORS and value <= 0:
            raise ValueError(f"{key}={value}: must be above 0")
        if value < 0 or (key == "eps_low" and value >= 1):
            raise ValueError(f"{key}={value}: must be at least 0{' and below 1' * (key == 'eps_low')}")
