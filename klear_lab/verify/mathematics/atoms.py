"""Atoms of expressions: numbers, names, and the commands whose meaning is known."""

import re
from collections.abc import Callable
from fractions import Fraction

from klear_lab.verify.mathematics.brackets import read_absolute, read_bracket, read_matrix
from klear_lab.verify.mathematics.expressions import Reader
from klear_lab.verify.mathematics.nodes import (
    ACCENTS,
    CEILINGS,
    CLOSERS,
    FIGURES,
    FUNCTIONS,
    INVERSES,
    LETTERS,
    OPAQUE,
    OPENERS,
    VALUES,
    Node,
    Unreadable,
    in_radians,
)


def read_atom(reader: Reader) -> Node:
    """Reads one atom. Raises `Unreadable` for a token without a known meaning."""
    kind, text = reader.peek()
    if kind == "number":
        return read_number(reader)
    if kind == "repeating":
        reader.at += 1
        return Node("number", (repeating_decimal(text),))
    if kind == "name":
        return read_name(reader)
    if kind == "word":
        reader.at += 1
        return Node("text", (text,))
    if kind == "environment" and text.startswith("begin"):
        return read_matrix(reader)
    if (kind, text) == ("mark", "{"):
        return reader.group()
    if (kind, text) == ("mark", "|"):
        return read_absolute(reader)
    if (kind, text) in OPENERS:
        return read_bracket(reader)
    if kind == "command":
        return read_command(reader, text)
    raise Unreadable(f"what is {text!r} here?")


def read_number(reader: Reader) -> Node:
    """A number, or one in another base (52_8)."""
    text = reader.peek()[1]
    reader.at += 1
    if reader.take(("mark", "_")):
        return Node("based", (text, reader.raw().strip("( )")))
    if len(text) > 400:
        raise Unreadable("a number of more than 400 digits")
    if (match := re.search(r"[eE]([+-]?\d+)$", text)) and abs(int(match[1])) > 5000:
        raise Unreadable("an exponent beyond 5000")
    return Node("number", (Fraction(text),))


def repeating_decimal(text: str) -> Fraction:
    """The value of 0.1\\overline{6}; also with \\bar, and with \\dot above the first and the last digit."""
    whole, rest = text.split(".", 1)
    start, _, repeated = rest.partition("\\")
    digits = re.sub(r"\D", "", repeated)
    if repeated.startswith("dot") and len(digits) > 1 and repeated.count("dot") < 2:
        raise Unreadable("one dot above several digits")
    start = start.strip()
    shift = 10 ** len(start)
    value = Fraction(int((whole or "0") + start), shift)
    return value + Fraction(int(digits), shift * (10 ** len(digits) - 1))


def read_name(reader: Reader) -> Node:
    """A variable with its index and primes, a constant, or a function of f's kind with its arguments."""
    text = reader.peek()[1]
    reader.at += 1
    return finish_name(reader, text)


def finish_name(reader: Reader, text: str) -> Node:
    """The rest of a name behind its letter."""
    plain = text
    if reader.take(("mark", "_")):
        text += "_" + reader.raw()
    primes = 0
    while reader.take(("mark", "'")):
        primes += 1
    while reader.peek() == ("mark", "^") and reader.peek(1) == ("mark", "'"):
        reader.at += 2
        primes += 1
    text += "'" * primes
    if text in ("i", "e"):
        return Node("constant", (text,))
    if (plain in OPAQUE or primes) and reader.peek() == ("mark", "("):
        reader.at += 1
        arguments = [in_radians(item) for item in reader.slice_to(reader.matching(OPENERS, CLOSERS)).items()[0]]
        if any(argument.head not in VALUES for argument in arguments):
            return Node("name", (f"{text} {arguments}",))
        return Node("call", (text, *arguments))
    return Node("name", (text,))


def read_command(reader: Reader, name: str) -> Node:
    """A command and its arguments."""
    reader.at += 1
    if name in FUNCTIONS:
        return read_function(reader, name)
    if name in LETTERS:
        return finish_name(reader, name)
    if name in ACCENTS:
        return read_accent(reader, name)
    if name in FIGURES:
        return finish_name(reader, f"{name} {reader.raw()}")
    if name in CEILINGS:
        closer, function = CEILINGS[name]
        end = reader.matching({("command", name): ""}, {("command", closer): ""})
        return Node("call", (function, reader.slice_to(end).whole_value()))
    if name in COMMANDS:
        return COMMANDS[name](reader)
    if name in ("R", "Z", "N", "Q"):
        return Node("numbers", (name,))
    raise Unreadable(f"the command {name}")


def read_fraction(reader: Reader) -> Node:
    """A fraction; its numerator may be written without braces."""
    return Node("quotient", (reader.argument(), reader.argument()))


def read_binomial(reader: Reader) -> Node:
    """A binomial coefficient."""
    return Node("binomial", (reader.argument(), reader.argument()))


def read_root(reader: Reader) -> Node:
    """A square root, or another one whose degree stands in square brackets."""
    degree = Node("number", (Fraction(2),))
    if reader.take(("mark", "[")):
        degree = reader.slice_to(reader.matching(OPENERS, CLOSERS)).whole_value()
    radicand = reader.argument()
    if reader.peek()[0] == "last digit":
        raise Unreadable("a root of several digits without braces")
    return Node("root", (radicand, degree))


def read_plain_root(reader: Reader) -> Node:
    """The root of the next atom, as in √12 and sqrt(12)."""
    radicand = reader.atom()
    if radicand.head not in VALUES:
        raise Unreadable(f"a root of {radicand.head}")
    return Node("root", (radicand, Node("number", (Fraction(2),))))


def read_accent(reader: Reader, name: str) -> Node:
    """A name with a mark above it, or a set of numbers (\\mathbb R)."""
    below = reader.raw()
    if name != "mathbb":
        return finish_name(reader, f"{name} {below}")
    scripts = ""
    while reader.peek() in (("mark", "^"), ("mark", "_")):
        scripts += reader.peek()[1]
        reader.at += 1
        scripts += reader.raw()
    return Node("numbers", (below + scripts,))


def read_function(reader: Reader, name: str) -> Node:
    """sin, log and their like, with base, exponent and argument."""
    base = None
    exponent = None
    while reader.peek() in (("mark", "_"), ("mark", "^")):
        if reader.take(("mark", "_")):
            if name != "log" or base is not None:
                raise Unreadable(f"an index of {name}")
            base = reader.argument()
        else:
            reader.at += 1
            exponent = reader.exponent()
    if exponent == Node("negative", (Node("number", (Fraction(1),)),)):
        if name not in INVERSES:
            raise Unreadable(f"{name} to the power -1")
        name, exponent = INVERSES[name], None
    argument = read_function_argument(reader)
    if name == "lg":
        name, base = "log", Node("number", (Fraction(10),))
    result = Node("call", (name, argument) if base is None else (name, argument, base))
    return result if exponent is None else Node("power", (result, exponent))


def read_function_argument(reader: Reader) -> Node:
    """The argument of a function: a bracket, or the factors up to the next sign or function."""
    if reader.peek() in (("mark", "("), ("mark", "{"), ("mark", "["), ("mark", "|")):
        argument = reader.atom()
        if reader.peek() == ("mark", "^") or argument.head not in VALUES:
            raise Unreadable("a power either of a function or of its argument")
        return argument
    argument = reader.factor()
    while reader.starts_factor() and reader.peek()[1] not in FUNCTIONS:
        if reader.peek() == ("mark", "("):
            raise Unreadable("a bracket either inside or outside of a function")
        factor = reader.factor()
        if not {argument.head, factor.head} <= VALUES:
            raise Unreadable(f"{argument.head} times {factor.head}")
        argument = Node("product", (argument, factor))
    if reader.peek() in (("mark", "/"), ("command", "div")) or argument.head not in VALUES:
        raise Unreadable("a quotient either inside or outside of a function")
    return argument


COMMANDS: dict[str, Callable[[Reader], Node]] = {
    "frac": read_fraction,
    "binom": read_binomial,
    "sqrt": read_root,
    "surd": read_plain_root,
    "pi": lambda _: Node("constant", ("pi",)),
    "i": lambda _: Node("constant", ("i",)),
    "infty": lambda _: Node("infinity", (1,)),
    "emptyset": lambda _: Node("set"),
    "ldots": lambda _: Node("dots"),
    "cdots": lambda _: Node("dots"),
}
