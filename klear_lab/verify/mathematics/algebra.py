"""Expression trees as sympy expressions, for what arithmetic and numbers alone can't decide."""

from typing import Any

import sympy

from klear_lab.verify.mathematics.nodes import Node
from klear_lab.verify.mathematics.rationals import fold
from klear_lab.verify.mathematics.values import NUMERIC

FUNCTIONS: dict[str, Any] = {
    name: getattr(
        sympy, {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "Abs"}.get(name, name)
    )
    for name in NUMERIC
}
CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
BASE = sympy.Symbol("base of log", positive=True)


def to_sympy(node: Node) -> Any:
    """A value as sympy writes it. Variables are positive: signs have been tried out by numbers before."""
    exact = fold(node)
    if exact is not None:
        return sympy.Rational(exact.numerator, exact.denominator)
    if node.head == "name":
        return sympy.Symbol(node.parts[0], positive=True)
    if node.head == "constant":
        return CONSTANTS[node.parts[0]]
    if node.head == "call":
        return call_to_sympy(node)
    parts = [to_sympy(part) for part in node.parts]
    if node.head == "sum":
        return sympy.Add(*parts)
    if node.head in ("power", "root"):
        exponent = fold(node.parts[1])
        if node.head == "root" and exponent is not None:
            exponent = 1 / exponent
        if exponent is not None and exponent.denominator % 2 and exponent.denominator > 1 and parts[0].is_negative:
            sign = -1 if exponent.numerator % 2 else 1
            return sign * (-parts[0]) ** sympy.Rational(exponent.numerator, exponent.denominator)
        return parts[0] ** (parts[1] if node.head == "power" else 1 / parts[1])
    return HEADS[node.head](*parts)


HEADS: dict[str, Any] = {
    "negative": lambda a: -a,
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / b,
    "factorial": sympy.factorial,
    "binomial": sympy.binomial,
    "degree": lambda a: a * sympy.pi / 180,
}


def call_to_sympy(node: Node) -> Any:
    """A function of its arguments; one that nobody knows stays itself."""
    name, *arguments = node.parts
    values = [to_sympy(argument) for argument in arguments]
    if name == "log":
        return sympy.log(values[0]) / sympy.log(values[1] if len(values) > 1 else BASE)
    if name in FUNCTIONS:
        return FUNCTIONS[name](*values)
    return sympy.Function(f"some {name}")(*values)
