"""Brackets: groups, tuples, intervals, sets, absolute values and matrices."""

from klear_lab.verify.mathematics.expressions import Reader
from klear_lab.verify.mathematics.latex import Token
from klear_lab.verify.mathematics.nodes import CLOSERS, MATRICES, OPENERS, VALUES, Node, Unreadable, in_radians


def read_bracket(reader: Reader) -> Node:
    """A group, a tuple or an interval, a set, or a set with a condition."""
    opener = OPENERS[reader.peek()]
    reader.at += 1
    end = reader.matching(OPENERS, CLOSERS)
    closer = CLOSERS[reader.tokens[end][:2]]
    inner = reader.slice_to(end)
    if opener == "{" or closer == "}":
        if (opener, closer) != ("{", "}"):
            raise Unreadable("brackets of two kinds")
        return read_set(inner)
    if (opener == "<") != (closer == ">"):
        raise Unreadable("brackets of two kinds")
    items, separators = inner.items()
    if set(separators) - {","}:
        raise Unreadable("a bracket with words")
    if len(items) == 1 and opener + closer in ("()", "[]"):
        alone = in_radians(items[0])
        if alone.head in VALUES or alone.head in ("matrix", "quantity"):
            return alone
    if opener + closer in ("(]", "[)") and len(items) != 2:
        raise Unreadable("an interval has two ends")
    opener, closer = ("(", ")") if opener == "<" else (opener, closer)
    return Node("bracket", (opener, closer, tuple(items)))


def read_set(inner: Reader) -> Node:
    """A set by its elements, or by a condition on them."""
    if not inner.tokens:
        return Node("set", ())
    bars = [i for i, token in enumerate(inner.tokens) if token[:2] in (("mark", ":"), ("mark", "|"))]
    if bars and ((bars[0] > 0 and inner.tokens[bars[0]].text == ":") or len(bars) == 1):
        element, condition = Reader(inner.tokens[: bars[0]]), Reader(inner.tokens[bars[0] + 1 :])
        elements, conditions = element.items(), condition.items()
        if len(elements[0]) != 1:
            raise Unreadable("a set of several things with a condition")
        return Node("builder", (elements[0][0], tuple(conditions[0]), tuple(conditions[1])))
    return Node("set", tuple(inner.items()[0]))


def read_absolute(reader: Reader) -> Node:
    """|x|, up to the next bar."""
    reader.at += 1
    bars = [i for i in range(reader.at, len(reader.tokens)) if reader.tokens[i][:2] == ("mark", "|")]
    if not bars:
        raise Unreadable("a bar that never closes")
    return Node("call", ("abs", reader.slice_to(bars[0]).whole_value()))


def read_matrix(reader: Reader) -> Node:
    """A matrix, row by row; a determinant is work left to the reader, and unreadable."""
    name = reader.peek()[1].split()[1]
    reader.at += 1
    end = next((i for i, t in enumerate(reader.tokens) if t[:2] == ("environment", f"end {name}")), -1)
    if name not in MATRICES or end < reader.at:
        raise Unreadable(f"the environment {name}")
    rows: list[list[list[Token]]] = [[[]]]
    for token in reader.slice_to(end).tokens:
        if token[:2] == ("command", "\\"):
            rows.append([[]])
        elif token[:2] == ("mark", "&"):
            rows[-1].append([])
        else:
            rows[-1][-1].append(token)
    if rows[-1] == [[]]:
        rows.pop()
    return Node("matrix", tuple(tuple(Reader(cell).whole_value() for cell in row) for row in rows))
