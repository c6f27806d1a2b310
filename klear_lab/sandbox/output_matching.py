"""Whether what a program wrote, or its call returned, is what a test expects.

As LiveCodeBench, APPS and TACO compare, with one deviation each:
1. Text, line by line and token by token: the amount of white space and empty lines don't count. LiveCodeBench
   counts empty lines inside the text.
2. Numbers by value (`1e3` is `1000`). Where the expected number is written as a fraction (`0.5`), by a relative
   tolerance, 1e-5 by default as APPS and TACO (numpy's `allclose`); LiveCodeBench's is 0. Whole numbers are exact,
   which they aren't in APPS.
3. Values of calls as JSON: a tuple is a list. APPS and TACO also take the only element of an expected list
   (`wrapped`).
4. Not taken over: APPS and TACO also compare lines as sets, in any order, which a shuffled answer would pass.
"""

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any

TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-8  # beside a tolerance above 0
LONGEST_NUMBER = 400  # characters; a longer token is compared as text


def texts_match(output: str, expected: str, tolerance: float = TOLERANCE) -> bool:
    """Whether two texts say the same."""
    if output == expected:
        return True
    ours, theirs = tokens(output), tokens(expected)
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(tokens_match(x, y, tolerance) for x, y in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


def tokens(text: str) -> list[list[str]]:
    """The words of each line that has any."""
    return [words for line in text.split("\n") if (words := line.split())]


def tokens_match(ours: str, theirs: str, tolerance: float) -> bool:
    """Whether two words are the same, or numbers near enough."""
    if ours == theirs:
        return True
    a, b = number(ours), number(theirs)
    if a is None or b is None:
        return False
    written_as_fraction = any(mark in theirs for mark in ".eE")
    return a == b or (written_as_fraction and near(a, b, tolerance))


def number(token: str) -> Decimal | None:
    """The finite value of an ASCII number, if it is one."""
    if len(token) > LONGEST_NUMBER or not token.isascii() or "_" in token:
        return None
    try:
        value = Decimal(token)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def near(ours: Decimal, theirs: Decimal, tolerance: float) -> bool:
    """Within the relative tolerance, and a tiny absolute one beside it."""
    if tolerance == 0 or max(abs(ours.adjusted()), abs(theirs.adjusted())) > LONGEST_NUMBER:
        return False
    return abs(ours - theirs) <= Decimal(ABSOLUTE_TOLERANCE) + Decimal(tolerance) * abs(theirs)


def values_match(returned: str, expected: Any, wrapped: bool = False, tolerance: float = TOLERANCE) -> bool:
    """Whether a call's value, as JSON text, is the expected one. What isn't JSON is no match."""
    try:
        value = json.loads(returned)
    except (ValueError, RecursionError):
        return False
    unwrapped = wrapped and isinstance(expected, list) and len(expected) == 1
    try:
        return same(value, expected, tolerance) or (unwrapped and same(value, expected[0], tolerance))
    except RecursionError:
        return False


def same(value: Any, expected: Any, tolerance: float) -> bool:
    """Equal JSON values, as Python has it (`true` is 1); floats within the tolerance, NaN equal to nothing."""
    if isinstance(expected, list):
        return (
            isinstance(value, list)
            and len(value) == len(expected)
            and all(same(a, b, tolerance) for a, b in zip(value, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(same(value[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, float) and isinstance(value, float | int) and not isinstance(value, bool):
        finite = math.isfinite(expected) and not (isinstance(value, float) and not math.isfinite(value))
        return value == expected or (finite and near(Decimal(value), Decimal(expected), tolerance))
    return bool(value == expected)
