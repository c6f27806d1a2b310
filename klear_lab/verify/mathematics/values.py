"""Values: whether two expression trees are the same number or function.

Rational numbers are compared exactly, without sympy. Others must first agree at fixed points, to 60 digits
relative to their size, wherever the ground truth is a real number; then math-verify (sympy's simplify) is asked
whether their difference is zero. A ground truth that is real at too few of these points is tried farther out and
at whole numbers, and as a complex function where that doesn't help. An answer may have no variable that the ground
truth lacks: x - x + 42 isn't worked out.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import mpmath

from klear_lab.verify.mathematics.nodes import FUNCTIONS, Node, Unreadable
from klear_lab.verify.mathematics.rationals import MOST_BITS, fold

MOST_BITS_OF_EXPONENT = 1000
DIGITS, MORE_DIGITS = 60, 1000
LEAST_POINTS = 3  # at which two functions must be seen to agree
# Where variables are tried: within and beyond 1, and below 0, so that |x| isn't x. No sums of them are special.
COORDINATES = (0.8371, 2.6173, -1.3719, 0.3137, 3.7331, -0.5717, 1.9173, -2.2371, 0.1913, 5.1377, -3.1973)
# Where a ground truth is tried that is hardly ever real there: (-1)^n at whole numbers, \ln(x - 6) beyond 6.
# Odd where the index is a square modulo 11: any two shifts have all parities, so that (-1)^m isn't (-1)^n.
WHOLE = (8, 13, 18, 15, 7, 21, 24, 32, 26, 11, 10)
FAR = (12.3719, 25.9137, 103.7193, 1234.5171, 7.6137, 57.1373, 40.9171, 15.2391, 311.9137, 2041.3719, 19.7731)
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


CONSTANTS = {"pi": lambda: +mpmath.mp.pi, "e": lambda: +mpmath.mp.e, "i": lambda: mpmath.mpc(0, 1)}
NUMERIC = {
    name: getattr(mpmath, {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(name, name))
    for name in FUNCTIONS - {"log", "lg"}
} | {"abs": abs}
KNOWN_CALLS = frozenset((*NUMERIC, "log", "floor", "ceiling"))
UNKNOWN_BASE = 7.3519  # of a log without one: log 8 is 3 log 2 whatever it is, and no ln


def evaluate(node: Node, point: Mapping[str, Any]) -> Any:
    """The value of a tree as an mpmath number. Raises ArithmeticError or ValueError where it has none.

    Raises `Unreadable` for one too large: e^{e^{e^{e^{e}}}} would take minutes.
    """
    value = evaluate_whole(node, point)
    if mpmath.isfinite(value) and mpmath.mag(value) > MOST_BITS:
        raise Unreadable("a value of too many digits")
    return value


def evaluate_whole(node: Node, point: Mapping[str, Any]) -> Any:
    """The value of a tree, of any size."""
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
    return any_power(base, mpmath.mpf(exponent.numerator) / n)


def any_power(base: Any, exponent: Any) -> Any:
    """A power of any two numbers. Raises `Unreadable` where mpmath would multiply for minutes."""
    if mpmath.isfinite(exponent) and mpmath.mag(exponent) > MOST_BITS_OF_EXPONENT:
        raise Unreadable("an exponent of too many digits")
    return mpmath.power(base, exponent)


def evaluate_call(node: Node, point: Mapping[str, Any]) -> Any:
    """A function's value. One that nobody knows, and the work left in ⌊x⌋, is some function of no other value."""
    name, *arguments = node.parts
    values = [evaluate(argument, point) for argument in arguments]
    if name == "log":
        base = values[1] if len(values) > 1 else mpmath.mpf(UNKNOWN_BASE)
        return mpmath.log(values[0]) / mpmath.log(base)
    if name in NUMERIC:
        return NUMERIC[name](*values)
    return stand_in(name, values)


def stand_in(name: str, values: Sequence[Any]) -> Any:
    """Some function that nobody knows: neither even nor odd, periodic, linear, nor symmetric in its arguments."""
    seed = (sum(ord(character) * 31**i for i, character in enumerate(name)) + 1009 * len(values)) % 10007
    frequency = mpmath.sqrt(seed + mpmath.mpf("1.37"))
    mixed = mpmath.fsum(value * mpmath.exp(mpmath.mpf(i + 1) / 7) for i, value in enumerate(values))
    return mpmath.sin(mixed * frequency + 1) + mixed / frequency + seed


NUMERIC_HEADS: dict[str, Any] = {
    "negative": lambda a: -a,
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / b,
    "power": any_power,
    "factorial": mpmath.factorial,
    "binomial": mpmath.binomial,
    "degree": lambda a: a * mpmath.mp.pi / 180,
}


def points_for(
    names: frozenset[str], coordinates: Sequence[float] = COORDINATES, count: int = POINTS
) -> list[dict[str, Any]]:
    """Where two functions of these variables are compared."""
    moved = 0 if coordinates == WHOLE else mpmath.mpf(1) / 1009
    return [
        {
            name: mpmath.mpf(coordinates[(i + 4 * j) % len(coordinates)]) + (i + j) * moved
            for j, name in enumerate(sorted(names))
        }
        for i in range(count if names else 1)
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
    with mpmath.workdps(digits + 20):
        near = points_for(names)
        if not names:
            return agreeing(truth, answer, near, digits, False) == 1
        far = points_for(names, WHOLE, len(WHOLE)) + points_for(names, FAR)
        seen = 0
        for points, only_real in ((near, not has_i(truth)), (far, True), (near, False)):
            found = agreeing(truth, answer, points, digits, only_real)
            if found is None:
                return False
            seen += found
            if seen >= LEAST_POINTS:
                return True
    return False


def agreeing(
    truth: Node, answer: Node, points: Sequence[Mapping[str, Any]], digits: int, only_real: bool
) -> int | None:
    """At how many points two trees have the same value; None where they differ at one."""
    seen = 0
    for point in points:
        true_value = value_at(truth, point)
        if true_value is None or (only_real and not is_real(true_value)):
            continue
        value = value_at(answer, point)
        if value is None:
            return None
        if point and value != true_value and max(abs(value), abs(true_value)) < mpmath.mpf(10) ** -(digits + 5):
            continue  # 1 + cos(pi n) is 0 but for rounding
        if abs(value - true_value) > max(abs(value), abs(true_value)) * mpmath.mpf(10) ** -digits:
            return 1 if zero_but_for_rounding(truth, answer, value, true_value, digits) else None
        seen += 1
    return seen


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
