"""What a process has of each mini-batch, and putting together what all have measured."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from klear_lab.engines.trl.processes import count, rank
from klear_lab.policy.micro_batches import length
from klear_lab.rl.loss import ScoredResponse, TokenMeasures, count_tokens


@dataclass(frozen=True)
class MicroBatch:
    """Holds what a process takes at once, with the response tokens of the whole mini-batch in all processes.

    A `filler` stands where a process has no responses left: it takes part, and adds nothing.
    """

    responses: list[ScoredResponse]
    tokens: int
    correct_tokens: int
    filler: bool


def deal(mini_batch: Sequence[ScoredResponse], times: int) -> list[MicroBatch]:
    """Returns this process's micro-batches of a mini-batch, `times` of them, of similar length in all processes.

    A smaller mini-batch, of which groups were dropped, makes smaller ones, and fillers where it has too few.
    """
    ordered = sorted(mini_batch, key=lambda r: -length(r))
    tokens, right = count_tokens(ordered), count_tokens(r for r in ordered if r.correct)
    parts, found = times * count(), []
    for part in range(rank(), parts, count()):
        own = ordered[len(ordered) * part // parts : len(ordered) * (part + 1) // parts]
        found.append(MicroBatch(own or ordered[-1:], tokens, right, filler=not own))
    return found


def joined(parts: Sequence[TokenMeasures]) -> TokenMeasures:
    """Returns several measures as one."""
    parts = parts or [TokenMeasures.empty(0, torch.float32)]
    columns = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(TokenMeasures)}
    return TokenMeasures(**columns)
