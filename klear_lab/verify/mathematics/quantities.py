"""Quantities: values with a unit or a currency, and times of day."""

import re
from fractions import Fraction
from typing import Any

from klear_lab.verify.mathematics.expressions import Reader
from klear_lab.verify.mathematics.nodes import DEGREES, VALUES, Node, Unreadable, in_degrees
from klear_lab.verify.mathematics.units import CURRENCIES, read_unit

TIME = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(am|pm)?")


def read_time(reader: Reader) -> Node | None:
    """A time of day as its numbers and then am or pm; None where none is next, or something goes on behind it."""
    if reader.peek()[0] != "number" or reader.peek(1) != ("mark", ":"):
        return None
    end = reader.at
    while end < len(reader.tokens) and not is_end(reader.tokens[end][:2]):
        end += 1
    said = "".join(token.text for token in reader.tokens[reader.at : end])
    time = TIME.fullmatch(re.sub(r"[\s.](?=[^\d]|$)", "", said).lower())
    if time is None:
        return None
    reader.at = end
    numbers = [Node("number", (Fraction(part),)) for part in time.groups()[:3] if part]
    return Node("time", (*numbers, time[0]))


def is_end(token: tuple[str, str]) -> bool:
    """Whether an item ends before a token."""
    return token[0] == "separator" or token in (("mark", ","), ("mark", ";"), ("mark", "="))


def read_quantity(reader: Reader) -> Node:
    """A value with its unit, or any other thing."""
    kind, text = reader.peek()
    if kind == "word":
        reader.at += 1
        words = [text]
        while reader.peek()[0] in ("word", "name"):
            words.append(reader.peek()[1])
            reader.at += 1
        return Node("text", (" ".join(words),))
    minus = reader.peek() == ("mark", "-") and currency(reader, 1) is not None
    reader.at += minus
    money = currency(reader, 0)
    reader.at += money is not None
    value = reader.sum()
    if money is not None:
        unit: Any = ((money, 1),)
    elif reader.peek()[0] == "unit":
        unit = read_units(reader)
    elif (degrees := in_degrees(value)) is not None:
        value, unit = degrees, DEGREES
    else:
        return value
    if value.head == "degree":
        value, unit = value.parts[0], tuple(sorted((*DEGREES, *unit)))
    if value.head not in VALUES:
        raise Unreadable("a unit behind what has none")
    return Node("quantity", (Node("negative", (value,)) if minus else value, unit))


def read_units(reader: Reader) -> Any:
    """A unit in several pieces: \\text{cm}^2, \\text{m}/\\text{s}."""
    exponents: dict[str, int] = {}
    sign = 1
    while reader.peek()[0] == "unit":
        phrase = reader.peek()[1]
        reader.at += 1
        if reader.take(("mark", "^")):
            phrase += "^" + reader.raw().replace(" ", "")
        for name, exponent in read_unit(phrase) or ():
            exponents[name] = exponents.get(name, 0) + sign * exponent
        if reader.peek() == ("mark", "/") and reader.peek(1)[0] == "unit":
            reader.at += 1
            sign = -1
    if not exponents or 0 in exponents.values():
        raise Unreadable("a unit to an unknown power")
    return tuple(sorted(exponents.items()))


def currency(reader: Reader, ahead: int) -> str | None:
    """The currency whose sign is there."""
    kind, text = reader.peek(ahead)
    return CURRENCIES.get("\\" + text if kind == "command" else text) if kind in ("command", "mark") else None
