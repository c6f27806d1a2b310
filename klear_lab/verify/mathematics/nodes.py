"""Expression trees, and the commands that may stand in them.

A `Node` has a head and parts. Heads of values: number, name, constant, sum, negative, pm, mp, product, quotient,
power, root, call, factorial, binomial, degree, quantity (a value and its unit). Heads of other things: infinity,
bracket, set, builder, union, without, numbers, ratio, time (10:30), matrix, based (52_8), dots, text, relation.
"""

from typing import Any, NamedTuple

from klear_lab.verify.mathematics.signs import listed


class Unreadable(ValueError):
    """Raised for an expression, any part of which has no known meaning."""


class Node(NamedTuple):
    """One node of an expression tree."""

    head: str
    parts: tuple[Any, ...] = ()


DEGREES = (("degree", 1),)  # as the unit of a quantity
FUNCTIONS = frozenset(listed("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp"))
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
OPAQUE = frozenset(("f", "g", "h", "F", "G", "P", "phi", "varphi", "psi"))  # before "(" a function, not a factor
LETTERS = frozenset(
    listed(
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
        "varrho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon "
        "Phi Psi Omega ell hbar"
    )
)
ACCENTS = frozenset(listed("overline vec hat tilde widehat dot overrightarrow mathbb overleftrightarrow"))
FIGURES = frozenset(("angle", "triangle", "odot", "measuredangle"))
RELATIONS = {("mark", "="): "=", ("mark", "<"): "<", ("mark", ">"): ">"} | {
    ("command", name): sign
    for name, sign in {"le": "<=", "ge": ">=", "ne": "!=", "in": "in", "notin": "notin", "approx": "~"}.items()
}
OPENERS = {("mark", "("): "(", ("mark", "["): "[", ("command", "{"): "{", ("command", "langle"): "<"}
CLOSERS = {("mark", ")"): ")", ("mark", "]"): "]", ("command", "}"): "}", ("command", "rangle"): ">"}
CEILINGS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceiling")}
MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"))
VALUES = frozenset(
    listed("number name constant sum negative pm mp product quotient power root call factorial binomial degree")
)


def in_radians(node: Node) -> Node:
    """An angle in degrees as a number that one can calculate with; anything else as it is."""
    return Node("degree", node.parts[:1]) if node.head == "quantity" and node.parts[1] == DEGREES else node


def in_degrees(node: Node) -> Node | None:
    """How many degrees an angle has that is written with signs of degrees (360°/7, 90° + x°); None for others."""
    if node.head == "degree":
        return node.parts[0]
    if node.head not in ("negative", "sum", "product", "quotient"):
        return None
    parts = [in_degrees(part) for part in node.parts]
    if node.head in ("negative", "sum"):
        return None if None in parts else Node(node.head, tuple(parts))
    angles = [part for part in parts if part is not None]
    if len(angles) != 1 or (node.head == "quotient" and parts[0] is None):
        return None
    return Node(
        node.head, tuple(part if angle is None else angle for part, angle in zip(node.parts, parts, strict=True))
    )
