"""Clip methods as a person writes them outside of the repository: one that works, and each way to go wrong."""

import torch

from klear_lab.rl.clip_methods import describe, keep_gradient, unclipped


def unit(tokens, eps_low=0.2, eps_high=0.28):
    """F = 1 on clipped tokens, r on the others."""
    clipped = tokens.low | tokens.high
    return torch.where(clipped, keep_gradient(1.0, tokens), unclipped(tokens, silent=clipped))


@describe(of_responses=True)
def whole(tokens, power):
    """The ratio of the response, to a power."""
    return keep_gradient((power * tokens.response_mean(tokens.log_ratio.detach())).exp(), tokens)


@describe(statistics=lambda tokens: tokens.advantage.abs().mean() + 1e-9)
def scaled(tokens):
    """Advantages of mean size 1."""
    return tokens.log_prob * tokens.advantage / tokens.statistics


def summed(tokens):
    return (tokens.log_ratio * tokens.advantage).sum()


def raises(tokens):
    return tokens.advantages * tokens.log_prob


def leaves(tokens):
    raise SystemExit("done")


def without_gradient(tokens):
    return tokens.ratio * tokens.advantage


def constant(tokens):
    return 0.0 * tokens.log_prob


def not_a_number(tokens):
    return tokens.log_ratio.log() * tokens.advantage


def steep(tokens):
    return tokens.log_ratio.abs().sqrt() * tokens.advantage


def a_float(tokens):
    return 1.0


def undescribed(tokens):
    return tokens.response_sum(tokens.log_ratio) * tokens.advantage


number = 3
