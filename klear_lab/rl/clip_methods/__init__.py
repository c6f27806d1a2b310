"""Clip methods: what a token's importance ratio does to its gradient. The heart of the project.

Every method maps (log_prob, old_log_prob, advantage) to a per-token objective, to be maximised, whose gradient
with respect to log_prob is F * A. Each file opens with its methods' F, sources and departures: paper.py has
those of Klear-Reasoner's paper and its neighbours, per_token.py others that look at a token alone,
sequence.py those that look at its response, mini_batch.py those that look at the whole mini-batch first.

To add a method: one decorated function of (tokens, its parameters) in one of these files, and
conf/clip_method/<name>.yaml.
"""

from klear_lab.rl.clip_methods import mini_batch, paper, per_token, sequence  # noqa: F401  each registers its methods
from klear_lab.rl.clip_methods.interface import (
    CLIP_METHODS,
    Responses,
    Tokens,
    clip_method,
    describe,
    keep_gradient,
    unclipped,
)
from klear_lab.rl.clip_methods.make import OWN, make_clip_method
from klear_lab.rl.clip_methods.method import ClipMethod, ClipOutput
from klear_lab.rl.clip_methods.own import try_out

__all__ = [
    "CLIP_METHODS",
    "OWN",
    "ClipMethod",
    "ClipOutput",
    "Responses",
    "Tokens",
    "clip_method",
    "describe",
    "keep_gradient",
    "make_clip_method",
    "try_out",
    "unclipped",
]
