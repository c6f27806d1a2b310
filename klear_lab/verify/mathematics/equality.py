"""Whether an answer says the same as the ground truth: structure, units and names first, then values.

What has order (tuples, ratios, sequences) keeps it; what has none (roots, sets) is compared with repetitions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath

from klear_lab.verify.mathematics.nodes import VALUES, Node
from klear_lab.verify.mathematics.ratios import equal_ratios, equal_times
from klear_lab.verify.mathematics.real_sets import FLIPPED, equal_real_sets, read_real_set
from klear_lab.verify.mathematics.units import Unit
from klear_lab.verify.mathematics.unknowns import lone_name, strange_sides
from klear_lab.verify.mathematics.values import (
    DIGITS,
    LEAST_POINTS,
    equal_values,
    names_of,
    points_for,
    value_at,
)

MOST_ITEMS = 64  # of a list that is compared without regard to order


class Answer(NamedTuple):
    """Items, and the comma or word behind each but the last."""

    items: tuple[Node, ...]
    separators: tuple[str, ...] = ()


def equal_answers(truth: Answer, answer: Answer) -> bool:
    """Whether two answers say the same. Raises `Unreadable` where a value can't be worked out."""
    if not strange_sides(answer.items) <= strange_sides(truth.items):
        return False
    truth, answer = spell_out(truth), spell_out(answer)
    sets = [read_real_set(*side) for side in (truth, answer)]
    if sets[0] and sets[1] and (sets[0].definite or sets[1].definite):
        return equal_real_sets(sets[0], sets[1])
    ours, theirs = assignments(truth), assignments(answer)
    if len(keys_of(ours)) > 1 or len(keys_of(theirs)) > 1:
        return equal_assignments(truth, answer, ours, theirs)
    truth, answer = unwrap_set(truth), unwrap_set(answer)
    if any(item.head == "dots" for item in truth.items):
        return in_order(truth.items, answer.items, equal_items)
    return in_any_order(truth.items, answer.items, equal_items)


def spell_out(said: Answer) -> Answer:
    """Each of two signs as an item of its own, and (x, y) = (1, 2) as two equations, several such as tuples."""
    items: list[Node] = []
    separators: list[str] = []
    for i, item in enumerate(said.items):
        spelled = [*both_signs(item)]
        if len(spelled) == len(said.items) == 1:
            spelled = split_pair(item)
        else:
            spelled = [without_names(one) for one in spelled]
        items += spelled
        separators += [","] * (len(spelled) - 1)
        separators += said.separators[i : i + 1]
    return Answer(tuple(items), tuple(separators))


def both_signs(node: Node) -> Sequence[Node]:
    """A node once with the upper and once with the lower signs, or alone where it has none."""
    found = with_sign(node, "pm"), with_sign(node, "mp")
    return found[:1] if found[0] == found[1] else found


def with_sign(node: Any, positive: str) -> Any:
    """A tree in which `positive` is plus and the other one of pm and mp is minus."""
    if isinstance(node, Node):
        parts = tuple(with_sign(part, positive) for part in node.parts)
        if node.head in ("pm", "mp"):
            return parts[0] if node.head == positive else Node("negative", parts)
        return Node(node.head, parts)
    return tuple(with_sign(part, positive) for part in node) if isinstance(node, tuple) else node


def split_pair(item: Node) -> list[Node]:
    """(x, y) = (1, 2) as x = 1 and y = 2; anything else as it is."""
    if item.head == "relation" and item.parts[0] == ("=",):
        left, right = item.parts[1]
        if left.head == right.head == "bracket" and len(left.parts[2]) == len(right.parts[2]):
            pairs = list(zip(left.parts[2], right.parts[2], strict=True))
            if all(name.head == "name" for name, _ in pairs):
                return [Node("relation", (("=",), pair)) for pair in pairs]
    return [item]


def without_names(item: Node) -> Node:
    """(x, y) = (1, 2) as (1, 2), where the names are in alphabetical order; anything else as it is."""
    if item.head == "relation" and item.parts[0] == ("=",) and names_in_order(item.parts[1][0]):
        value = item.parts[1][1]
        if value.head == "bracket" and len(value.parts[2]) == len(item.parts[1][0].parts[2]):
            return value
    return item


def names_in_order(node: Node) -> bool:
    """Whether a node is a tuple of names in alphabetical order."""
    if node.head != "bracket" or any(part.head != "name" for part in node.parts[2]):
        return False
    names = [part.parts[0] for part in node.parts[2]]
    return len(names) > 1 and names == sorted(names)


def assignments(said: Answer) -> list[tuple[str, Node]] | None:
    """Each item as a lone name and its value, or None where one isn't."""
    found = [assignment(item) for item in said.items]
    return [pair for pair in found if pair is not None] if None not in found else None


def assignment(item: Node) -> tuple[str, Node] | None:
    """A lone name and what it equals (n = 6 * 7 = 42), or None."""
    if item.head != "relation" or set(item.parts[0]) != {"="}:
        return None
    sides = item.parts[1] if lone_name(item.parts[1][0]) is not None else item.parts[1][::-1]
    name = lone_name(sides[0])
    own = {f"{sides[0].parts[0]}()"} if sides[0].head == "call" else names_of(sides[0])
    if name is None or own & names_of(sides[1:]):
        return None
    if not all(equal_sides(sides[-1], side) for side in sides[1:-1]):
        return None
    return name, sides[-1]


def keys_of(pairs: list[tuple[str, Node]] | None) -> set[str]:
    """The unknowns that are given values; x_1 and x_2 are both x."""
    return {name.split("_")[0] if name.split("_")[-1].isdigit() else name for name, _ in pairs or []}


def equal_assignments(
    truth: Answer, answer: Answer, ours: list[tuple[str, Node]] | None, theirs: list[tuple[str, Node]] | None
) -> bool:
    """Whether several unknowns have the same values; a tuple has them in alphabetical order of the names."""
    if (ours is None and theirs is None) or "or" in (*truth.separators, *answer.separators):
        return False
    if ours is not None and theirs is not None:
        return [name for name, _ in sorted(ours, key=first)] == [
            name for name, _ in sorted(theirs, key=first)
        ] and (in_order(by_name(ours), by_name(theirs), equal_sides))
    if ours is None:
        return in_order(values_in_order(truth), by_name(theirs or []), equal_sides)
    return len(answer.items) == 1 and in_order(by_name(ours), values_in_order(answer), equal_sides)


def first(pair: tuple[str, Node]) -> str:
    """The name of an assignment."""
    return pair[0]


def by_name(pairs: list[tuple[str, Node]]) -> list[Node]:
    """The values in alphabetical order of their names."""
    return [value for _, value in sorted(pairs, key=first)]


def values_in_order(said: Answer) -> Sequence[Node]:
    """What a tuple or a list holds."""
    if len(said.items) == 1 and said.items[0].head == "bracket":
        return tuple(said.items[0].parts[2])
    return said.items


def unwrap_set(said: Answer) -> Answer:
    """The elements of a set that stands alone, or that an unknown lies in, as a list."""
    if len(said.items) != 1:
        return said
    item = said.items[0]
    if item.head == "relation" and item.parts[0] in (("in",), ("=",)):
        unknown, values = item.parts[1]
        item = values if lone_name(unknown) is not None or names_in_order(unknown) else item
    if item.head == "set" and item.parts and (len(item.parts) > 1 or item.parts[0].head != "set"):
        return spell_out(Answer(item.parts, (",",) * (len(item.parts) - 1)))
    return said


def in_order(ours: Sequence[Node], theirs: Sequence[Node], equal: Callable[[Node, Node], bool]) -> bool:
    """Whether two lists are equal item by item."""
    return len(ours) == len(theirs) and all(equal(t, a) for t, a in zip(ours, theirs, strict=True))


def in_any_order(ours: Sequence[Node], theirs: Sequence[Node], equal: Callable[[Node, Node], bool]) -> bool:
    """Whether two lists are equal in some order, each item as often."""
    if len(ours) != len(theirs) or len(ours) > MOST_ITEMS:
        return False
    left = list(theirs)
    for item in ours:
        place = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def equal_items(truth: Node, answer: Node) -> bool:
    """Whether two items are equal; an answer may name the unknown ("n = 42") that the ground truth doesn't."""
    ours, theirs = assignment(truth), assignment(answer)
    if truth.head != "relation":
        if theirs is not None:
            return theirs[0] not in names_of(truth) and equal_sides(truth, theirs[1])
        if answer.head == "relation":
            return set(answer.parts[0]) == {"="} and all(equal_sides(truth, side) for side in answer.parts[1])
        return equal_sides(truth, answer)
    if answer.head != "relation":
        return ours is not None and equal_sides(ours[1], answer)
    if ours is not None and theirs is not None and ours[0] == theirs[0]:
        return equal_sides(ours[1], theirs[1])
    if ours is not None and not names_of(ours[1]):
        return False
    return equal_relations(truth.parts, answer.parts)


def equal_relations(truth: tuple[Any, Any], answer: tuple[Any, Any]) -> bool:
    """Whether two relations say the same: side by side, or by a constant factor of what they set to zero."""
    (signs, sides), (their_signs, their_sides) = upwards(*truth), upwards(*answer)
    if signs != their_signs:
        return False
    if in_order(sides, their_sides, equal_sides):
        return True
    if signs == ("=",) and in_order(sides, their_sides[::-1], equal_sides):
        return True
    values = all(side.head in VALUES for side in (*sides, *their_sides))
    return signs in (("=",), ("<",), ("<=",)) and values and proportional(sides, their_sides, signs != ("=",))


def upwards(signs: tuple[str, ...], sides: tuple[Node, ...]) -> tuple[tuple[str, ...], tuple[Node, ...]]:
    """A relation with its smaller side first."""
    if set(signs) <= {">", ">="}:
        return tuple(FLIPPED[sign] for sign in reversed(signs)), sides[::-1]
    return signs, sides


def proportional(sides: tuple[Node, ...], their_sides: tuple[Node, ...], same_sign: bool) -> bool:
    """Whether left minus right is the same in both but for a constant (positive) factor."""
    truth, answer = (Node("sum", (s[0], Node("negative", (s[1],)))) for s in (sides, their_sides))
    if names_of(truth) != names_of(answer) or not names_of(truth):
        return False
    factors = []
    with mpmath.workdps(DIGITS + 20):
        for point in points_for(names_of(truth)):
            ours, theirs = value_at(truth, point), value_at(answer, point)
            if ours and theirs:
                factors.append(ours / theirs)
            elif ours != theirs:
                return False
        if len(factors) < LEAST_POINTS or (same_sign and mpmath.re(factors[0]) <= 0):
            return False
        bound = abs(factors[0]) * mpmath.mpf(10) ** -DIGITS
        return all(abs(factor - factors[0]) <= bound for factor in factors)


def equal_sides(truth: Node, answer: Node) -> bool:
    """Whether two things without relations are equal."""
    if "quantity" in (truth.head, answer.head):
        return equal_quantities(*split_unit(truth), *split_unit(answer))
    if truth.head in VALUES and answer.head in VALUES:
        return equal_values(truth, answer)
    if truth.head == "time":
        return equal_times(truth, answer)
    if {"ratio", "time"} & {truth.head, answer.head}:
        return equal_ratios(truth, answer)
    if truth.head != answer.head:
        return False
    if truth.head == "set":
        return in_any_order(truth.parts, answer.parts, equal_items)
    if truth.head == "bracket":
        same_kind = truth.parts[:2] == answer.parts[:2]
        return same_kind and in_order(truth.parts[2], answer.parts[2], equal_items)
    if truth.head == "union":
        return in_any_order(truth.parts, answer.parts, equal_sides)
    if truth.head == "matrix":
        rows = list(zip(truth.parts, answer.parts, strict=False))
        return len(truth.parts) == len(answer.parts) and all(in_order(t, a, equal_values) for t, a in rows)
    if truth.head in ("text", "based"):
        return [part.lower() for part in truth.parts] == [part.lower() for part in answer.parts]
    return truth == answer


def split_unit(side: Node) -> tuple[Node, Unit]:
    """A value and its unit, which may be none."""
    return side.parts if side.head == "quantity" else (side, ())


def equal_quantities(truth: Node, unit: Unit, answer: Node, their_unit: Unit) -> bool:
    """Whether two values with units are equal: one of them may lack its unit, but the units may not differ."""
    if truth.head not in VALUES or answer.head not in VALUES or (unit and their_unit and unit != their_unit):
        return False
    if equal_values(truth, answer):
        return True
    degree = (("degree", 1),)
    if {unit, their_unit} != {degree, ()}:
        return False
    radians = [Node("degree", (v,)) if u == degree else v for v, u in ((truth, unit), (answer, their_unit))]
    return equal_values(radians[0], radians[1])
