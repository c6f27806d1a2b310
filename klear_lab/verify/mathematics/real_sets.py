"""Sets of real numbers: the same one as an inequality, an interval, a union of them or a condition."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import mpmath

from klear_lab.verify.mathematics.nodes import VALUES, Node
from klear_lab.verify.mathematics.unknowns import lone_name
from klear_lab.verify.mathematics.values import equal_values, names_of, value_at

LEAST, GREATEST = Node("infinity", (-1,)), Node("infinity", (1,))
FLIPPED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
ALL_REALS = ("all real numbers", "all reals", "real numbers", "all real number")


class Interval(NamedTuple):
    """From `low` to `high`, each end included or not."""

    low: Node
    high: Node
    has_low: bool
    has_high: bool


class RealSet(NamedTuple):
    """`name` is the variable that is said to lie in it; `definite` unless it might be a point (1, 2)."""

    name: str | None
    intervals: tuple[Interval, ...]
    definite: bool = True


REALS = (Interval(LEAST, GREATEST, False, False),)


def read_real_set(items: Sequence[Node], separators: Sequence[str]) -> RealSet | None:
    """The set that several conditions on one variable describe, or None."""
    sets = [one_real_set(item) for item in items]
    found = [s for s in sets if s is not None]
    if len(found) < len(sets):
        return None
    if len(sets) == 1:
        return found[0]
    if len({s.name for s in found}) > 1 or found[0].name is None:
        return None
    intervals = found[0].intervals
    for other, separator in zip(found[1:], separators, strict=True):
        both = () if separator == "or" else intersection(intervals, other.intervals)
        if both is None or (not both and separator == "and"):
            return None
        intervals = both or intervals + other.intervals
    return RealSet(found[0].name, intervals)


def one_real_set(item: Node) -> RealSet | None:
    """The set that one condition, interval, union or name of a set describes, or None."""
    if item.head == "relation":
        return set_of_relation(*item.parts)
    if item.head == "bracket" and len(item.parts[2]) == 2:
        opener, closer, (low, high) = item.parts
        if not all(end.head in (*VALUES, "infinity") for end in (low, high)):
            return None
        definite = opener + closer in ("[)", "(]") or "infinity" in (low.head, high.head)
        return RealSet(None, (Interval(low, high, opener == "[", closer == "]"),), definite)
    if item.head == "union":
        parts = [points_of(part) or one_real_set(part) for part in item.parts]
        if all(part is not None for part in parts):
            return RealSet(None, tuple(i for part in parts if part is not None for i in part.intervals))
    if item == Node("numbers", ("R",)) or (item.head == "text" and item.parts[0].lower() in ALL_REALS):
        return RealSet(None, REALS)
    if item.head == "without" and item.parts[0] == Node("numbers", ("R",)) and item.parts[1].head == "set":
        gaps: tuple[Interval, ...] | None = REALS
        for point in item.parts[1].parts:
            gaps = intersection(gaps, around(point)) if gaps is not None and point.head in VALUES else None
        return RealSet(None, gaps) if gaps is not None else None
    if item.head == "builder":
        return set_of_builder(*item.parts)
    return None


def points_of(part: Node) -> RealSet | None:
    """A finite set as intervals of one point each."""
    if part.head != "set" or not all(point.head in VALUES for point in part.parts):
        return None
    return RealSet(None, tuple(Interval(point, point, True, True) for point in part.parts))


def set_of_builder(element: Node, conditions: tuple[Node, ...], separators: tuple[str, ...]) -> RealSet | None:
    """{x : condition on x}, also {x in R : condition}; x is no name outside of it."""
    if element.head == "relation" and element.parts[0] == ("in",) and element.parts[1][1].parts == ("R",):
        element = element.parts[1][0]
    found = read_real_set(conditions, separators)
    return None if found is None or found.name != lone_name(element) else RealSet(None, found.intervals)


def set_of_relation(signs: tuple[str, ...], sides: tuple[Node, ...]) -> RealSet | None:
    """x > 3, 1 <= x < 2, x != 0, x in [0, 1]."""
    if signs == ("in",):
        inner, name = one_real_set(sides[1]), lone_name(sides[0])
        return RealSet(name, inner.intervals) if inner is not None and name is not None else None
    if set(signs) <= {">", ">="}:
        signs, sides = tuple(FLIPPED[sign] for sign in reversed(signs)), sides[::-1]
    names = [lone_name(side) if side.head == "name" else None for side in sides]
    at = [i for i, name in enumerate(names) if name is not None]
    if len(at) != 1 or not all(s.head in (*VALUES, "infinity") for s in sides):
        return None
    name, place = names[at[0]], at[0]
    if any(name in names_of(side) for i, side in enumerate(sides) if i != place):
        return None
    if signs == ("!=",):
        return RealSet(name, around(sides[1 - place]))
    if not set(signs) <= {"<", "<="} or len(sides) > 3 or (len(sides) == 3 and place != 1):
        return None
    low, has_low = (sides[place - 1], signs[place - 1] == "<=") if place else (LEAST, False)
    high, has_high = (sides[place + 1], signs[place] == "<=") if place + 1 < len(sides) else (GREATEST, False)
    return RealSet(name, (Interval(low, high, has_low, has_high),))


def around(point: Node) -> tuple[Interval, ...]:
    """All numbers but one."""
    return Interval(LEAST, point, False, False), Interval(point, GREATEST, False, False)


def number_of(end: Node) -> Any:
    """Where an end lies, or None for one that depends on a variable."""
    if end.head == "infinity":
        return mpmath.inf * end.parts[0]
    value = value_at(end, {})
    return None if value is None else mpmath.re(value)


def intersection(ours: Sequence[Interval], theirs: Sequence[Interval]) -> tuple[Interval, ...] | None:
    """What lies in both unions, or None where an end isn't a number."""
    found = []
    for a in ours:
        for b in theirs:
            ends = [number_of(end) for end in (a.low, b.low, a.high, b.high)]
            if None in ends:
                return None
            low = (ends[0], not a.has_low, a.low), (ends[1], not b.has_low, b.low)
            high = (ends[2], a.has_high, a.high), (ends[3], b.has_high, b.high)
            lowest, highest = max(low, key=lambda e: e[:2]), min(high, key=lambda e: e[:2])
            if lowest[0] < highest[0] or (lowest[0] == highest[0] and not lowest[1] and highest[1]):
                found.append(Interval(lowest[2], highest[2], not lowest[1], highest[1]))
    return tuple(found)


def equal_real_sets(truth: RealSet, answer: RealSet) -> bool:
    """Whether two sets have the same intervals, and no variables of different names."""
    if truth.name is not None and answer.name is not None and truth.name != answer.name:
        return False
    ours, theirs = in_order(truth.intervals), in_order(answer.intervals)
    return len(ours) == len(theirs) and all(
        t[2:] == a[2:] and equal_ends(t.low, a.low) and equal_ends(t.high, a.high)
        for t, a in zip(ours, theirs, strict=True)
    )


def in_order(intervals: Sequence[Interval]) -> list[Interval]:
    """Intervals by their lower ends, where these are numbers."""
    lows = [number_of(interval.low) for interval in intervals]
    if None in lows:
        return list(intervals)
    return [intervals[i] for i in sorted(range(len(lows)), key=lambda i: lows[i])]


def equal_ends(truth: Node, answer: Node) -> bool:
    """Whether two ends of intervals are the same value or infinity."""
    if "infinity" in (truth.head, answer.head):
        return truth == answer
    return equal_values(truth, answer)
