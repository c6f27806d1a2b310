"""Corrects for a sampler whose probabilities aren't the learner's: other kernels, precision, or older weights.

A rollout is drawn from the sampler's probabilities mu, and the loss takes it as drawn from the learner's
q = pi_old. Each correction multiplies a token's objective with a factor that only depends on the mismatch q / mu,
so it goes with every clip method and has no gradient of its own. None acts where sampler and learner agree.

| name          | factor                                      | bounds          | source                   |
|---------------|---------------------------------------------|-----------------|--------------------------|
| tis           | min(q / mu, high)                           | high 2          | verl, slime (token level) |
| icepop        | q / mu; 0 outside [low, high]               | low 0.5, high 5 | arXiv 2510.18855         |
| sequence_mask | its product over the response; 0 outside    | low 0, high 3   | TRL's default with vLLM  |

Shapes: N response tokens of a micro-batch, S its responses.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from klear_lab.config import RLConfig

DEFAULT_BOUNDS = {"tis": (0.0, 2.0), "icepop": (0.5, 5.0), "sequence_mask": (0.0, 3.0)}


@dataclass(frozen=True)
class Correction:
    """Names a correction and the bounds of its factor; `name` none corrects nothing."""

    name: str
    low: float
    high: float

    @classmethod
    def of(cls, rl: RLConfig) -> "Correction":
        """Returns RL's setting, with the method's own bounds where the config has none."""
        low, high = DEFAULT_BOUNDS.get(rl.mismatch_correction, (0.0, math.inf))
        return cls(
            rl.mismatch_correction,
            low if rl.mismatch_low is None else rl.mismatch_low,
            high if rl.mismatch_high is None else rl.mismatch_high,
        )


@dataclass(frozen=True)
class CorrectedTokens:
    """Holds each token's factor, and masks of tokens whose mismatch lies below or above the bounds, all (N,)."""

    factor: Tensor
    low: Tensor
    high: Tensor


def correct(log_mismatch_N: Tensor, lengths: list[int], correction: Correction) -> CorrectedTokens:
    """Returns the factors for tokens of log q - log mu; `lengths` are those of the S responses, in order."""
    if correction.name == "none":
        nowhere_N = torch.zeros_like(log_mismatch_N, dtype=torch.bool)
        return CorrectedTokens(torch.ones_like(log_mismatch_N), nowhere_N, nowhere_N)
    if correction.name == "sequence_mask":
        log_mismatch_S = torch.stack([part.sum() for part in log_mismatch_N.split(lengths)])
        counts_S = torch.tensor(lengths, device=log_mismatch_N.device)
        log_mismatch_N = log_mismatch_S.repeat_interleave(counts_S)
    mismatch_N = log_mismatch_N.exp()
    low_N, high_N = mismatch_N < correction.low, mismatch_N > correction.high
    if correction.name == "tis":
        return CorrectedTokens(mismatch_N.clamp(max=correction.high), low_N, high_N)
    return CorrectedTokens(mismatch_N.masked_fill(low_N | high_N, 0.0), low_N, high_N)
