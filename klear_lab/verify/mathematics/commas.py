"""Commas between groups of three digits: 1,000 is a thousand, and (1,100) a pair.

Between brackets a comma without a space parts two items. Outside of them it may do either, so that such a text
has two readings; between braces, as in \\frac{1,000}{3}, there can't be a list. No item of a list begins with a
zero: a comma before 000 or 045 always joins.
"""

import re

from klear_lab.verify.mathematics.latex import Token
from klear_lab.verify.mathematics.nodes import CLOSERS, OPENERS


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
            found += part(token) if parts[-1] else [number(token.text, token.spaced)]
            continue
        if bracket in OPENERS or bracket == ("mark", "{"):
            parts.append(bracket in OPENERS)
        elif (bracket in CLOSERS or bracket == ("mark", "}")) and len(parts) > 1:
            parts.pop()
        found.append(token)
    return tuple(found)


def part(token: Token) -> list[Token]:
    """The numbers of a list that was written without spaces, and the commas between them."""
    first, *others = re.split(r",(?!0)", token.text)
    found = [number(first, token.spaced)]
    for other in others:
        found += [Token("mark", ","), number(other)]
    return found


def number(text: str, spaced: bool = False) -> Token:
    """A number whose digits commas group."""
    return Token("number", text.replace(",", ""), spaced)
