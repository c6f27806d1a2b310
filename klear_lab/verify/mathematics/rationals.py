"""Exact arithmetic: the values of trees that are rational numbers, without sympy and without rounding."""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from klear_lab.verify.mathematics.nodes import Node, Unreadable

MOST_BITS = 50_000  # of a number that is worked with


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
