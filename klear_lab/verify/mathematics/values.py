"""Values: whether two expression trees are the same number or function.

Rational numbers are compared exactly, without sympy. Others must first agree at fixed points, to 60 digits
relative to their size, wherever the ground truth is a real number; then math-verify (sympy's simplify) is asked
whether their difference is zero. An answer may have no variable that the ground truth lacks: x - x + 42 isn't
worked out.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from klear_lab.verify.mathematics.nodes import FUNCTIONS, Node, Unreadable

MOST_BITS = 50_000  # of an exact number
DIGITS, MORE_DIGITS = 60, 1000
LEAST_POINTS = 3  # at which two functions must be seen to agree
# Where variables are tried: within and beyond 1, and below 0, so that |x| isn't x. No sums of them are special.
COORDINATES = (0.8371, 2.6173, -1.3719, 0.3137, 3.7331, -0.5717, 1.9173, -2.2371, 0.1913, 5.1377, -3.1973)
POINTS = 9


def names_of(node: Any) -> frozenset[str]:
    """The variables in a tree, also those that would cancel out."""
    if not isinstance(node, tuple):
        return frozenset()
    if isinstance(node, Node):
        if node.head == "name":
            return frozenset(node.parts)
        if node.head == "call" and node.parts[0] not in KNOWN_CALLS:
            return frozenset((f"{node.parts[0]}()",)).union(*map(names_of, node.parts[1:]))
    return frozenset().union(*map(names_of, node))


@lru_cache(maxsize=4096)
def fold(node: Node) -> Fraction | None:
    """The value of a tree that is a rational number by arithmetic alone. Raises `Unreadable` beyond all bounds."""
    if node.head == "number":
        return Fraction(node.parts[0])
    if node.head not in ARITHMETIC:
        return None
    parts = [fold(part) for part in node.parts]
    values = [part for part in parts if part is not None]
    if len(values) < len(parts):
        return None
    return bounded(ARITHMETIC[node.head](*values))


def bounded(value: Fraction | None) -> Fraction | None:
    """The value itself. Raises `Unreadable` where it is too long to work with."""
    if value is not None and value.numerator.bit_length() + value.denominator.bit_length() > MOST_BITS:
        raise Unreadable("a number of too many digits")
    return value


def divide(a: Fraction, b: Fraction) -> Fraction:
    """Raises `Unreadable` for a division by zero."""
    if b == 0:
        raise Unreadable("a division by zero")
    return a / b


def power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """A power that is rational, or None. Raises `Unreadable` for one too long, and for 0 to no positive power."""
    if exponent.denominator != 1:
        root = exact_root(base, Fraction(exponent.denominator)) if exponent.denominator <= 100 else None
        return None if root is None else power(root, Fraction(exponent.numerator))
    if base == 0 and exponent <= 0:
        raise Unreadable("0 to no positive power")
    bits = base.numerator.bit_length() + base.denominator.bit_length()
    if abs(base) != 1 and abs(exponent) * bits > MOST_BITS:
        raise Unreadable("a power of too many digits")
    return base ** (int(exponent) % 2 if abs(base) == 1 else int(exponent))


def whole(value: Fraction, most: int) -> int:
    """A natural number. Raises `Unreadable` for any other, and for one that is too large."""
    if value.denominator != 1 or not 0 <= value <= most:
        raise Unreadable("no natural number, or too large a one")
    return int(value)


def exact_root(value: Fraction, degree: Fraction) -> Fraction | None:
    """A root that is rational, or None."""
    n = whole(degree, 1000)
    if n == 0 or (value < 0 and n % 2 == 0):
        return None
    parts = [integer_root(abs(part), n) for part in (value.numerator, value.denominator)]
    if parts[0] is None or parts[1] is None:
        return None
    return Fraction(parts[0] if value >= 0 else -parts[0], parts[1])


def integer_root(value: int, n: int) -> int | None:
    """The n-th root of a natural number where it is one itself."""
    low, high = 0, 1 << (value.bit_length() // n + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**n <= value else (low, middle - 1)
    return low if low**n == value else None


def factorial(value: Fraction) -> Fraction:
    """Raises `Unreadable` for anything but a natural number up to 2000."""
    return Fraction(int(mpmath.libmp.ifac(whole(value, 2000))))


def binomial(n: Fraction, k: Fraction) -> Fraction:
    """Raises `Unreadable` for anything but natural numbers up to 5000."""
    from math import comb

    return Fraction(comb(whole(n, 5000), whole(k, 5000)))


ARITHMETIC: dict[str, Any] = {
    "sum": lambda *terms: sum(terms, Fraction(0)),
    "negative": lambda a: -a,
    "product": lambda a, b: a * b,
    "quotient": divide,
    "power": power,
    "root": exact_root,
    "factorial": factorial,
    "binomial": binomial,
}
CONSTANTS = {"pi": lambda: +mpmath.mp.pi, "e": lambda: +mpmath.mp.e, "i": lambda: mpmath.mpc(0, 1)}
NUMERIC = {
    name: getattr(mpmath, {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(name, name))
    for name in FUNCTIONS - {"log", "lg"}
} | {"abs": abs}
KNOWN_CALLS = frozenset((*NUMERIC, "log", "floor", "ceiling"))
UNKNOWN_BASE = 7.3519  # of a log without one: log 8 is 3 log 2 whatever it is, and no ln


def evaluate(node: Node, point: Mapping[str, Any]) -> Any:
    """The value of a tree as an mpmath number. Raises ArithmeticError or ValueError where it has none."""
    exact = fold(node)
    if exact is not None:
        return mpmath.mpf(exact.numerator) / exact.denominator
    if node.head == "name":
        return point[node.parts[0]]
    if node.head == "constant":
        return CONSTANTS[node.parts[0]]()
    if node.head == "call":
        return evaluate_call(node, point)
    parts = [evaluate(part, point) for part in node.parts]
    if node.head == "sum":
        return mpmath.fsum(parts)
    if node.head == "power" and (exponent := fold(node.parts[1])) is not None and exponent.denominator % 2:
        return real_power(parts[0], exponent)
    if node.head == "root":
        degree = fold(node.parts[1])
        return real_power(parts[0], 1 / degree) if degree else parts[0] ** (1 / parts[1])
    return NUMERIC_HEADS[node.head](*parts)


def real_power(base: Any, exponent: Fraction) -> Any:
    """A power whose odd roots of negative numbers are negative, as at school."""
    n = exponent.denominator
    if n % 2 and n > 1 and mpmath.im(base) == 0 and mpmath.re(base) < 0:
        sign = -1 if exponent.numerator % 2 else 1
        return sign * mpmath.power(-mpmath.re(base), mpmath.mpf(exponent.numerator) / n)
    if n == 1 and abs(exponent) < 10**6:
        return base ** int(exponent)
    return mpmath.power(base, mpmath.mpf(exponent.numerator) / n)


def evaluate_call(node: Node, point: Mapping[str, Any]) -> Any:
    """A function's value. One that nobody knows, and the work left in ⌊x⌋, is some function of no other value."""
    name, *arguments = node.parts
    values = [evaluate(argument, point) for argument in arguments]
    if name == "log":
        base = values[1] if len(values) > 1 else mpmath.mpf(UNKNOWN_BASE)
        return mpmath.log(values[0]) / mpmath.log(base)
    if name in NUMERIC:
        return NUMERIC[name](*values)
    seed = sum(ord(character) * 31**i for i, character in enumerate(name)) % 10007
    return mpmath.fsum(mpmath.cos(value * (i + mpmath.mpf("1.37"))) for i, value in enumerate(values)) + seed


NUMERIC_HEADS: dict[str, Any] = {
    "negative": lambda a: -a,
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / b,
    "power": lambda a, b: mpmath.power(a, b),
    "factorial": mpmath.factorial,
    "binomial": mpmath.binomial,
    "degree": lambda a: a * mpmath.mp.pi / 180,
}


def points_for(names: frozenset[str]) -> list[dict[str, Any]]:
    """Where two functions of these variables are compared."""
    count = POINTS if names else 1
    return [
        {
            name: mpmath.mpf(COORDINATES[(i + 4 * j) % len(COORDINATES)]) + mpmath.mpf(i + j) / 1009
            for j, name in enumerate(sorted(names))
        }
        for i in range(count)
    ]


def is_real(value: Any) -> bool:
    """Whether a value is a finite real number, but for rounding."""
    return bool(mpmath.isfinite(value)) and abs(mpmath.im(value)) <= abs(value) * mpmath.mpf(10) ** (-DIGITS // 2)


def value_at(node: Node, point: Mapping[str, Any]) -> Any:
    """The value at a point, or None where there is none."""
    try:
        value = evaluate(node, point)
    except (ArithmeticError, ValueError, TypeError, KeyError):
        return None
    return value if mpmath.isfinite(value) else None


def agree(truth: Node, answer: Node, digits: int) -> bool:
    """Whether two trees have equal values, relative to their size, wherever the first one is real."""
    names = names_of(truth)
    seen = 0
    with mpmath.workdps(digits + 20):
        for point in points_for(names):
            true_value = value_at(truth, point)
            if true_value is None or (names and not has_i(truth) and not is_real(true_value)):
                continue
            value = value_at(answer, point)
            if value is None:
                return False
            if abs(value - true_value) > max(abs(value), abs(true_value)) * mpmath.mpf(10) ** -digits:
                return zero_but_for_rounding(truth, answer, value, true_value, digits)
            seen += 1
    return seen >= (LEAST_POINTS if names else 1)


def zero_but_for_rounding(truth: Node, answer: Node, value: Any, true_value: Any, digits: int) -> bool:
    """Whether a ground truth of zero is met by an answer whose terms cancel (sin pi), constants both."""
    if names_of(truth) or fold(truth) != 0:
        return False
    return bool(abs(value - true_value) < mpmath.mpf(10) ** -(digits + 5))


def has_i(node: Any) -> bool:
    """Whether the imaginary unit stands anywhere in a tree."""
    return node == ("constant", ("i",)) or (isinstance(node, tuple) and any(map(has_i, node)))


def equal_values(truth: Node, answer: Node) -> bool:
    """Whether two values are the same. Raises `Unreadable` where that can't be worked out."""
    if truth == answer:
        return True
    exact = fold(truth), fold(answer)
    if None not in exact:
        return exact[0] == exact[1]
    if not names_of(answer) <= names_of(truth):
        return False
    if not agree(truth, answer, DIGITS):
        return False
    return same_by_algebra(truth, answer)


def same_by_algebra(truth: Node, answer: Node) -> bool:
    """What math-verify says of the difference of two values that agree to 60 digits.

    Where sympy can't simplify a difference to zero and can't show that it isn't zero, 1000 digits decide.
    sympy tries its rules in random order; seeding fixes the order.
    """
    import sympy  # takes a second, as math_verify does, and only the workers need them
    from math_verify import verify

    from klear_lab.verify.mathematics.algebra import to_sympy

    sympy.core.random.seed(0)
    difference = to_sympy(truth) - to_sympy(answer)
    if difference.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan):
        return False
    if difference == 0 or sympy.expand(difference) == 0:
        return True
    if difference.is_number and difference.is_zero is False:
        return False
    if verify(sympy.Integer(0), difference, timeout_seconds=None):
        return True
    return agree(truth, answer, MORE_DIGITS)
