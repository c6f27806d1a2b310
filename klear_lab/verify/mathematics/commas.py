"""Commas between digits: 1,000 is a thousand, and (1,100) a pair.

Between brackets a comma without a space parts two items. Outside of them it may also join groups of three digits,
so that 100,200 has two readings; between braces, as in \\frac{1,500}{3}, there can't be a list. No item of a list
begins with a zero: a comma before 000 or 045 always joins.
"""

import re

from klear_lab.verify.mathematics.latex import Token
from klear_lab.verify.mathematics.nodes import CLOSERS, OPENERS

THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
ITEM = re.compile(r"(?:[1-9]\d{0,2}(?:,0\d\d(?!\d))+|\d+)(?:\.\d+)?")


def readings(tokens: list[Token]) -> list[tuple[Token, ...]]:
    """The ways to read a text's commas: the one with the longest numbers, and the longest list if that differs."""
    joined, parted = resolve(tokens, outside=False), resolve(tokens, outside=True)
    return [joined] if joined == parted else [joined, parted]


def resolve(tokens: list[Token], outside: bool) -> tuple[Token, ...]:
    """Tokens without grouped ones. `outside` tells whether commas outside of all brackets part items."""
    found: list[Token] = []
    parts = [outside]  # for each bracket that is open, whether a comma in it parts items
    for token in tokens:
        bracket = token[:2]
        if token.kind == "grouped":
            joins = not parts[-1] and THOUSANDS.fullmatch(token.text)
            found += [number(token.text, token.spaced)] if joins else part(token)
            continue
        if bracket in OPENERS or bracket == ("mark", "{"):
            parts.append(bracket in OPENERS)
        elif (bracket in CLOSERS or bracket == ("mark", "}")) and len(parts) > 1:
            parts.pop()
        found.append(token)
    return tuple(found)


def part(token: Token) -> list[Token]:
    """The numbers of a list that was written without spaces, and the commas between them."""
    found: list[Token] = []
    for item in ITEM.findall(token.text):
        comma = [Token("mark", ",")] if found else []
        found += [*comma, number(item, token.spaced and not found)]
    return found


def number(text: str, spaced: bool) -> Token:
    """A number whose digits commas group."""
    return Token("number", text.replace(",", ""), spaced)
