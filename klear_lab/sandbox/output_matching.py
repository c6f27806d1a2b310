"""Whether what a program wrote, or its call returned, is what a test expects.

As LiveCodeBench, APPS and TACO compare, with one deviation each:
1. Text, line by line and token by token: the amount of white space and empty lines don't count. LiveCodeBench
   counts empty lines inside the text.
2. Numbers by value (`1.0` is `1`), but only where both are written as a print of a number writes them: `0011`,
   `+5`, `1.10` or `.5` are text, which `11`, `5`, `1.1` and `0.5` don't match. Two fractions with the same count
   of decimals are numbers too (`0.50` and `0.51`): one format made both. A test with a `tolerance` above 0 of its
   own says that it is about numbers: there every decimal number without leading zeros is one, as everywhere in
   LiveCodeBench.
3. Where the expected number is written as a fraction (`0.5`), a relative tolerance holds, 1e-5 by default as APPS
   and TACO (numpy's `allclose`); LiveCodeBench's is 0. Whole numbers are exact, which they aren't in APPS.
4. Values of calls as JSON: a tuple is a list. APPS and TACO also take the only element of an expected list
   (`wrapped`).
5. Not taken over: APPS and TACO also compare lines as sets, in any order, which a shuffled answer would pass.

An `exact` test compares characters and types: only white space at the end of lines, and empty lines at the end of
the text, don't count, and 1 is neither 1.0 nor true.
"""

import json
import math
import re
from decimal import Decimal
from itertools import zip_longest
from typing import Any

TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-8  # beside a tolerance above 0
LONGEST_NUMBER = 400  # characters; a longer token is compared as text
# Python reads more digits than these into an int only on request, in a time that grows with their square.
LONGEST_INT = 4000
BLOCK = 1 << 16  # characters that are compared at once
# What `print` makes of an int, a float or a Decimal: no zero that it would leave out, no sign but a minus.
PRINTED = re.compile(
    r"-?(?:(?:0|[1-9][0-9]*)(?:\.(?:0|[0-9]*[1-9]))?"
    r"|[1-9](?:\.[0-9]*[1-9])?e[+-](?:0[0-9]|[1-9][0-9]{1,2}))"
)
FIXED = re.compile(r"-?(?:0|[1-9][0-9]*)\.([0-9]+)")  # what a format makes: as many decimals as it says
DECIMAL = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
LARGEST_EXPONENT = 9999


def texts_match(output: str, expected: str, tolerance: float | None = None, exact: bool = False) -> bool:
    """Whether two texts say the same. `tolerance`: the test's own, None where it has none."""
    if output == expected:
        return True
    same_until = same_lines(output, expected)
    ours, theirs = output[same_until:].split("\n"), expected[same_until:].split("\n")
    if exact:
        pairs = zip_longest(ours, theirs, fillvalue="")
        return all(a == b or a.rstrip() == b.rstrip() for a, b in pairs)
    ours, theirs = [a for a in ours if not a.isspace() and a], [b for b in theirs if not b.isspace() and b]
    return len(ours) == len(theirs) and all(
        a == b or (words := a.split()) == (wanted := b.split()) or lines_match(words, wanted, tolerance)
        for a, b in zip(ours, theirs, strict=True)
    )


def same_lines(output: str, expected: str) -> int:
    """Where the first line begins that differs, or may: what both begin with needn't be split into words."""
    at = 0
    while at < len(output) and output[at : at + BLOCK] == expected[at : at + BLOCK]:
        at += BLOCK
    return output.rfind("\n", 0, min(at, len(output), len(expected))) + 1


def lines_match(ours: list[str], theirs: list[str], tolerance: float | None) -> bool:
    """Whether the words of two lines match."""
    return len(ours) == len(theirs) and all(
        a == b or tokens_match(a, b, tolerance) for a, b in zip(ours, theirs, strict=True)
    )


def tokens_match(ours: str, theirs: str, tolerance: float | None) -> bool:
    """Whether two words are the same, or numbers near enough."""
    if ours == theirs:
        return True
    if max(len(ours), len(theirs)) > LONGEST_NUMBER or not written_as_numbers(ours, theirs, tolerance):
        return False
    a, b = number(ours), number(theirs)
    if a is None or b is None:
        return False
    written_as_fraction = any(mark in theirs for mark in ".eE")
    return a == b or (written_as_fraction and near(a, b, TOLERANCE if tolerance is None else tolerance))


def written_as_numbers(ours: str, theirs: str, tolerance: float | None) -> bool:
    """Whether two words are numbers that a print could have made, or one format both of them."""
    if tolerance:
        return bool(DECIMAL.fullmatch(ours) and DECIMAL.fullmatch(theirs))
    if PRINTED.fullmatch(ours) and PRINTED.fullmatch(theirs):
        return True
    a, b = FIXED.fullmatch(ours), FIXED.fullmatch(theirs)
    return a is not None and b is not None and len(a[1]) == len(b[1])


def number(token: str) -> Decimal | None:
    """The value of a decimal number, None where its exponent is out of all reason."""
    exponent = token.lower().partition("e")[2]
    return None if exponent and abs(int(exponent)) > LARGEST_EXPONENT else Decimal(token)


def near(ours: Decimal, theirs: Decimal, tolerance: float) -> bool:
    """Within the relative tolerance, and a tiny absolute one beside it."""
    if tolerance == 0 or max(abs(ours.adjusted()), abs(theirs.adjusted())) > LONGEST_NUMBER:
        return False
    return abs(ours - theirs) <= Decimal(ABSOLUTE_TOLERANCE) + Decimal(tolerance) * abs(theirs)


def values_match(
    returned: str, expected: Any, wrapped: bool = False, tolerance: float | None = None, exact: bool = False
) -> bool:
    """Whether a call's value, as JSON text, is the expected one. What isn't JSON is no match."""
    try:
        value = json.loads(returned, parse_int=whole_number)
    except (ValueError, RecursionError):
        return False
    unwrapped = wrapped and isinstance(expected, list) and len(expected) == 1
    allowed = TOLERANCE if tolerance is None else tolerance
    try:
        return same(value, expected, allowed, exact) or (unwrapped and same(value, expected[0], allowed, exact))
    except RecursionError:
        return False


def whole_number(digits: str) -> int | Decimal:
    """A whole number of any length, in a time that grows with its length."""
    return int(digits) if len(digits) <= LONGEST_INT else Decimal(digits)


def same(value: Any, expected: Any, tolerance: float, exact: bool = False) -> bool:
    """Equal JSON values, as Python has it (`true` is 1); floats within the tolerance, NaN equal to nothing."""
    if isinstance(expected, list):
        return (
            isinstance(value, list)
            and len(value) == len(expected)
            and all(same(a, b, tolerance, exact) for a, b in zip(value, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(same(value[key], expected[key], tolerance, exact) for key in expected)
        )
    if exact:
        kind = int if isinstance(value, Decimal) else type(value)
        return kind is type(expected) and bool(value == expected)
    is_number = isinstance(value, float | int | Decimal) and not isinstance(value, bool)
    if isinstance(expected, float) and is_number:
        finite = math.isfinite(expected) and not (isinstance(value, float) and not math.isfinite(value))
        return value == expected or (finite and near(Decimal(value), Decimal(expected), tolerance))
    return bool(value == expected)
