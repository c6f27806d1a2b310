"""The reader: from tokens to an expression tree, or to `Unreadable`. It skips nothing that it doesn't know."""

from fractions import Fraction

from klear_lab.verify.mathematics.latex import Token, plain_text
from klear_lab.verify.mathematics.nodes import (
    ACCENTS,
    FIGURES,
    FUNCTIONS,
    LETTERS,
    RELATIONS,
    VALUES,
    Node,
    Unreadable,
    in_radians,
)
from klear_lab.verify.mathematics.units import FACTORS


class Reader:
    """Reads a list of tokens that are sorted by words.py; each method leaves `at` behind what it has read."""

    def __init__(self, tokens: list[Token]) -> None:
        """Starts at the first token."""
        self.tokens, self.at = tokens, 0

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        """Kind and text of the next token."""
        place = self.at + ahead
        return self.tokens[place][:2] if place < len(self.tokens) else ("end", "")

    def take(self, *expected: tuple[str, str]) -> bool:
        """Moves past the next token where it is one of these."""
        found = self.peek() in expected
        self.at += found
        return found

    def finish(self) -> None:
        """Raises `Unreadable` where anything is left."""
        if self.at < len(self.tokens):
            raise Unreadable(f"what is {self.tokens[self.at].text!r} here?")

    def items(self) -> tuple[list[Node], list[str]]:
        """Everything that is left: items, and the commas and words between them."""
        items, separators = [self.item()], []
        while self.at < len(self.tokens):
            comma = self.take(("mark", ","), ("mark", ";"))
            word = self.peek()[1] if self.peek()[0] == "separator" else ""
            self.at += bool(word)
            if not comma and not word:
                self.finish()
            separators.append(word or ",")
            items.append(self.item())
        return items, separators

    def item(self) -> Node:
        """One side, or several with relations between them."""
        self.take(("mark", "="))
        sides, signs = [self.side()], []
        while (sign := RELATIONS.get(self.peek())) is not None:
            self.at += 1
            signs.append(sign)
            sides.append(self.side())
        return Node("relation", (tuple(signs), tuple(sides))) if signs else sides[0]

    def side(self) -> Node:
        """A time of day, a union, a ratio, or one of their parts."""
        if (time := self.time_of_day()) is not None:
            return time
        parts = [self.quantity()]
        if self.peek() == ("command", "cup"):
            while self.take(("command", "cup")):
                parts.append(self.quantity())
            return Node("union", tuple(parts))
        if self.take(("command", "setminus")):
            return Node("without", (parts[0], self.quantity()))
        while self.take(("mark", ":")):
            parts.append(self.quantity())
        return Node("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    def time_of_day(self) -> Node | None:
        """A time such as 10:30, which may also be a ratio; None where none is next."""
        from klear_lab.verify.mathematics.quantities import read_time

        return read_time(self)

    def quantity(self) -> Node:
        """A value with its unit, or any other thing."""
        from klear_lab.verify.mathematics.quantities import read_quantity

        return read_quantity(self)

    def sum(self) -> Node:
        """Terms with signs between them, or something that isn't a value and stands alone."""
        signs = {("mark", "+"): "+", ("mark", "-"): "-", ("command", "pm"): "pm", ("command", "mp"): "mp"}
        terms: list[Node] = []
        while True:
            sign = signs.get(self.peek())
            if terms and sign is None:
                break
            self.at += sign is not None
            term = self.term()
            if term.head == "infinity" and not terms and sign not in ("pm", "mp"):
                return Node("infinity", (-1 if sign == "-" else 1,))
            if term.head not in VALUES:
                if terms or sign is not None:
                    raise Unreadable(f"arithmetic with {term.head}")
                return term
            head = {"-": "negative", "pm": "pm", "mp": "mp"}.get(sign or "+")
            terms.append(Node(head, (term,)) if head else term)
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def term(self) -> Node:
        """Factors, written out or side by side."""
        starts_with_number = self.peek()[0] == "number"
        result = self.factor()
        if starts_with_number and self.is_mixed(result):
            result = self.mixed_number(result)
        divided = False
        while True:
            if self.take(("command", "cdot"), ("command", "times"), ("mark", "*")):
                operator = "*"
            elif self.take(("mark", "/"), ("command", "div")):
                operator = "/"
            elif self.starts_factor() or (self.peek()[0] == "number" and self.may_precede_digits(result)):
                operator = ""
            else:
                return result
            if operator == "" and divided:
                raise Unreadable("1/2x may be either of two things")
            negative = bool(operator) and self.take(("mark", "-"))
            braced = operator == "" and self.peek() == ("mark", "{")
            factor = self.factor()
            if braced and factor.head == "number":
                raise Unreadable("digits in braces, which print as more digits of what they follow")
            factor = Node("negative", (factor,)) if negative else factor
            if not {result.head, factor.head} <= VALUES:
                raise Unreadable(f"{result.head} times {factor.head}")
            result = Node("quotient" if operator == "/" else "product", (result, factor))
            divided = operator == "/"

    def mixed_number(self, whole: Node) -> Node:
        """A whole number and its fraction, with the per cents or degrees that are of both."""
        number = Node("sum", (whole, self.atom()))
        if self.take(("mark", "^")):
            if not self.take_degree():
                raise Unreadable("a power of a mixed number")
            number = Node("degree", (number,))
        number = self.with_suffixes(number)
        if self.starts_factor() or number.head == "factorial":
            raise Unreadable("a mixed number times something, or a factorial of one")
        return number

    def is_mixed(self, whole: Node) -> bool:
        """Whether a whole number stands before a proper fraction, as in 3\\frac{1}{2}."""
        if whole.head != "number" or whole.parts[0].denominator != 1 or self.peek() != ("command", "frac"):
            return False
        ahead = Reader(list(self.tokens))
        ahead.at = self.at
        fraction = ahead.atom()
        if fraction.head != "quotient" or any(p.head not in ("number", "negative") for p in fraction.parts):
            return False
        if (
            "negative" in (fraction.parts[0].head, fraction.parts[1].head)
            or fraction.parts[0].parts[0] >= fraction.parts[1].parts[0]
        ):
            raise Unreadable("neither a mixed number nor clearly a product")
        return True

    def starts_factor(self) -> bool:
        """Whether what comes next may be a factor that is written side by side with the last one."""
        kind, text = self.peek()
        if kind == "name" or (kind, text) in (("mark", "("), ("mark", "{"), ("mark", "[")):
            return True
        return kind == "command" and (
            text in FUNCTIONS
            or text in LETTERS | ACCENTS | FIGURES
            or text in ("frac", "binom", "sqrt", "surd", "pi", "infty", "i", "lfloor", "lceil")
        )

    def may_precede_digits(self, factor: Node) -> bool:
        """Whether a number may follow a factor: a factorial, or a power of a number or with a name in it."""
        last = factor.parts[-1] if factor.head == "product" else factor
        if last.head != "power":
            return last.head == "factorial"
        ended = self.tokens[self.at].spaced or self.tokens[self.at - 1][:2] == ("mark", "}")
        names = last.parts[1].head in ("name", "sum", "product")  # (-1)^n2^n
        return names or (ended and last.parts[0].head == "number")

    def factor(self) -> Node:
        """An atom with its powers, factorials, per cents and degrees."""
        return self.with_suffixes(self.atom())

    def with_suffixes(self, result: Node) -> Node:
        """A value with the powers, factorials, per cents and degrees that come next."""
        powered = False
        while True:
            kind, text = self.peek()
            if (kind, text) == ("mark", "!"):
                self.at += 1
                if self.peek() == ("mark", "!"):
                    raise Unreadable("a double factorial")
                result = Node("factorial", (result,))
            elif (kind, text) == ("mark", "^"):
                self.at += 1
                degree = self.take_degree()
                if (powered and not degree) or result.head not in VALUES:
                    raise Unreadable("a power of what has none")
                result = Node("degree", (result,)) if degree else Node("power", (result, self.exponent()))
                powered = True
            elif kind == "factor":
                self.at += 1
                result = Node("product", (result, Node("number", (FACTORS[text],))))
            elif (kind, text) == ("command", "degree"):
                self.at += 1
                result = Node("degree", (result,))
            else:
                return result
            if result.parts[0].head not in VALUES:
                raise Unreadable(f"{result.head} of {result.parts[0].head}")

    def take_degree(self) -> bool:
        """Whether a power is the sign of degrees."""
        if self.take(("command", "circ")):
            return True
        if [self.peek(i) for i in range(3)] == [("mark", "{"), ("command", "circ"), ("mark", "}")]:
            self.at += 3
            return True
        return False

    def exponent(self) -> Node:
        """What stands behind ^: a group, or one atom with its sign."""
        negative = self.take(("mark", "-"))
        result = self.group() if self.peek() == ("mark", "{") else self.atom()
        if result.head not in VALUES:
            raise Unreadable(f"to the {result.head}")
        return Node("negative", (result,)) if negative else result

    def slice_to(self, end: int) -> "Reader":
        """A reader of the tokens up to `end`; this one goes on behind it."""
        inner = Reader(self.tokens[self.at : end])
        self.at = end + 1
        return inner

    def matching(self, opens: dict[tuple[str, str], str], closes: dict[tuple[str, str], str]) -> int:
        """The place of the closer that belongs to the opener before `at`."""
        depth = 1
        for place in range(self.at, len(self.tokens)):
            token = self.tokens[place][:2]
            depth += (token in opens) - (token in closes)
            if depth == 0:
                return place
        raise Unreadable("a bracket that never closes")

    def group(self) -> Node:
        """What stands in braces."""
        self.at += 1
        inner = self.slice_to(self.matching({("mark", "{"): "{"}, {("mark", "}"): "}"}))
        for name, head in (("choose", "binomial"), ("over", "quotient")):
            place = next((i for i, t in enumerate(inner.tokens) if t[:2] == ("command", name)), None)
            if place is not None:
                parts = [Reader(inner.tokens[:place]), Reader(inner.tokens[place + 1 :])]
                return Node(head, tuple(part.whole_value() for part in parts))
        result = inner.item()
        inner.finish()
        return in_radians(result)

    def whole_value(self) -> Node:
        """A value that takes all tokens."""
        result = self.sum()
        self.finish()
        if result.head not in VALUES:
            raise Unreadable(f"{result.head} for a value")
        return result

    def argument(self) -> Node:
        """The argument of a macro: a group, one digit, or one atom, as TeX reads it."""
        kind, text = self.peek()
        if (kind, text) == ("mark", "{"):
            result = self.group()
        elif kind == "number" and len(text) > 1:
            if not text.isdigit() or len(text) > 2:
                raise Unreadable("several digits without braces")
            self.tokens[self.at] = Token("last digit", text[1:])
            return Node("number", (Fraction(text[0]),))
        elif kind == "last digit":
            self.at += 1
            return Node("number", (Fraction(text),))
        else:
            result = self.atom()
        if result.head not in VALUES:
            raise Unreadable(f"{result.head} for a value")
        return result

    def atom(self) -> Node:
        """The smallest thing with a meaning of its own."""
        from klear_lab.verify.mathematics.atoms import read_atom

        return read_atom(self)

    def raw(self) -> str:
        """The text of one group or token, for indices and the like."""
        if self.peek() == ("mark", "{"):
            self.at += 1
            return plain_text(self.slice_to(self.matching({("mark", "{"): "{"}, {("mark", "}"): "}"})).tokens)
        if self.peek()[0] == "end":
            raise Unreadable("an index that isn't there")
        self.at += 1
        return plain_text([self.tokens[self.at - 1]])
