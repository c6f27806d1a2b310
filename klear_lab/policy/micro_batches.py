"""Cuts sequences into micro-batches: as few as fit into memory, with little padding.

Sequences of similar length go together, padded on the right, where causal attention never looks: no sequence sees
another, in any architecture. A cut depends on the lengths and the limits alone, so that two passes over the same
sequences compute the same bits.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

MOST_PADDING = 0.05  # of all positions; the rest of a forward pass computes tokens


class Tokenized(Protocol):
    """Holds a prompt and its response as token ids; any class with these two attributes will do."""

    @property
    def prompt_ids(self) -> list[int]: ...  # noqa: D102
    @property
    def response_ids(self) -> list[int]: ...  # noqa: D102


S = TypeVar("S", bound=Tokenized)
Part = tuple[int, int]  # the longest sequence of a micro-batch in tokens, and the number of sequences


def micro_batches(sequences: Sequence[S], most_sequences: int, most_tokens: int | None = None) -> list[list[S]]:
    """Cuts sequences into micro-batches of similar length, the longest first: if memory runs out, then at once.

    Each has at most `most_sequences` sequences, and at most `most_tokens` positions unless one sequence alone is
    longer; null: no such limit. Together at most 5 % of their positions are padding.
    """
    ordered = sorted(sequences, key=lambda s: -length(s))
    parts = []
    for _, count in cut([length(s) for s in ordered], most_sequences, most_tokens):
        parts.append(ordered[:count])
        ordered = ordered[count:]
    return parts


def equal_micro_batches(sequences: Sequence[S], size: int) -> list[list[S]]:
    """Cuts sequences, in the order they have, into micro-batches of `size`, as the authors' code does.

    Sorted by length, each would hold sequences of one length, and the mean over micro-batches become one over
    sequences.
    """
    return full_micro_batches(sequences, size)


def full_micro_batches(
    sequences: Sequence[S], most_sequences: int, most_tokens: int | None = None
) -> list[list[S]]:
    """Cuts sequences, in the order they have, into micro-batches that are as full as the same limits let them be.

    Responses to one prompt stay together, which is read once for them where padding isn't computed.
    """
    parts: list[list[S]] = []
    longest = 0
    for sequence in sequences:
        longest = max(longest, length(sequence))
        if parts and len(parts[-1]) < most_sequences_of(longest, most_sequences, most_tokens):
            parts[-1].append(sequence)
        else:
            parts.append([sequence])
            longest = length(sequence)
    return parts


def largest_micro_batch(
    sequences: Sequence[Tokenized], most_sequences: int, most_tokens: int | None
) -> tuple[int, int]:
    """Returns the longest sequence in tokens, and how many of its length a micro-batch may have."""
    longest = max(map(length, sequences), default=1)
    return longest, most_sequences_of(longest, min(most_sequences, len(sequences)), most_tokens)


def most_sequences_of(tokens: int, most_sequences: int, most_tokens: int | None) -> int:
    """Returns how many sequences of some length a micro-batch may have."""
    return max(1, most_sequences if most_tokens is None else min(most_sequences, most_tokens // tokens))


def length(sequence: Tokenized) -> int:
    """Returns the tokens of a prompt and its response."""
    return len(sequence.prompt_ids) + len(sequence.response_ids)


def cut(lengths: Sequence[int], most_sequences: int, most_tokens: int | None) -> list[Part]:
    """Returns the micro-batches of sequences that are sorted, the longest first.

    It starts from sequences of equal length, and joins those neighbours that pad least, while the limits hold.
    """
    parts: list[Part] = []
    for tokens in lengths:
        if parts and parts[-1][0] == tokens and fits(parts[-1], (tokens, 1), most_sequences, most_tokens):
            parts[-1] = (tokens, parts[-1][1] + 1)
        else:
            parts.append((tokens, 1))
    allowed = sum(lengths) * MOST_PADDING / (1 - MOST_PADDING)
    while True:
        joinable = [
            (padding_of(first, second), i)
            for i, (first, second) in enumerate(pairwise(parts))
            if fits(first, second, most_sequences, most_tokens)
        ]
        if not joinable or min(joinable)[0] > allowed:
            return parts
        added, i = min(joinable)
        allowed -= added
        parts[i : i + 2] = [(parts[i][0], parts[i][1] + parts[i + 1][1])]


def padding_of(first: Part, second: Part) -> int:
    """Returns the positions of padding that joining two neighbours adds."""
    return (first[0] - second[0]) * second[1]


def fits(first: Part, second: Part, most_sequences: int, most_tokens: int | None) -> bool:
    """Tells whether two neighbours may be one micro-batch."""
    count = first[1] + second[1]
    return count <= most_sequences and (most_tokens is None or first[0] * count <= most_tokens)
