"""Ratios, which are equal where their terms are proportional, and times of day, which aren't."""

import math

from klear_lab.verify.mathematics.nodes import VALUES, Node
from klear_lab.verify.mathematics.rationals import fold
from klear_lab.verify.mathematics.values import equal_values


def terms_of(side: Node) -> tuple[Node, ...]:
    """The terms of a ratio; a quotient is one of two terms, and 10:30 may be one too."""
    if side.head in ("ratio", "quotient"):
        return side.parts
    if side.head == "time" and not side.parts[-1].endswith("m"):
        return side.parts[:-1]
    return (side,)


def equal_ratios(truth: Node, answer: Node) -> bool:
    """Whether the terms of two ratios are proportional, in their order."""
    ours, theirs = terms_of(truth), terms_of(answer)
    if len(ours) != len(theirs) or any(term.head not in VALUES for term in (*ours, *theirs)):
        return False
    if fold(ours[0]) == 0 or fold(theirs[0]) == 0:
        return all(map(equal_values, ours, theirs))
    return all(
        equal_values(Node("product", (ours[0], a)), Node("product", (t, theirs[0])))
        for t, a in zip(ours[1:], theirs[1:], strict=True)
    )


def equal_times(truth: Node, answer: Node) -> bool:
    """Whether an answer says the time of a ground truth such as 10:30, which may also be a ratio.

    A ratio would be in its lowest terms and without leading zeros. One that is (5:12) may still be a time, so that
    its terms must be the same ones, but a quotient has them too.
    """
    *ours, said = truth.parts
    if answer.head == "time":
        *theirs, their_said = answer.parts
        half, their_half = said.lstrip("0123456789:"), their_said.lstrip("0123456789:")
        return ours == theirs and half in ("", their_half)
    may_be_ratio = math.gcd(*(int(term.parts[0]) for term in ours)) == 1 and ":0" not in said and said[-1] != "m"
    return may_be_ratio and terms_of(answer) == tuple(ours)
