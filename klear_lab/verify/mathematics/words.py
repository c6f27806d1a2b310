"""Tokens with their words sorted out: which letters are names, which words separate, and which are units."""

import re

from klear_lab.verify.mathematics.commas import readings
from klear_lab.verify.mathematics.latex import Token, tokenise
from klear_lab.verify.mathematics.signs import listed
from klear_lab.verify.mathematics.units import CASED, FACTORS, POWERS, read_unit, unit_name

FUNCTION_WORDS = {"sqrt": "surd", "pi": "pi", "infinity": "infty", "infty": "infty"} | {
    name: name for name in listed("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp")
}
SHORT_UNITS = frozenset(listed("cm km kg mm ft in mL hr lb"))  # two letters behind a number that aren't a product
SPACED_UNITS = frozenset(
    listed("yd mi oz mg ms ml nm dm yr ha kJ kW Hz Pa eV sq cu")
)  # nor are these behind a space
EXPONENTS = re.compile(r"(?:number|mark - number|mark \{ (?:mark - )?number mark \})(?: |$)")  # behind ^, by kinds
NAME_PIECES = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z][a-z]{2,}|[a-z]{4,}|[A-Za-z]")
SEPARATORS = ("or", "and")


def sort_words(tokens: list[Token]) -> list[Token]:
    """Tokens whose kinds are now also: name, word (prose), separator, factor (percent, million) and unit."""
    sorted_tokens: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.kind in ("text", "roman"):
            sorted_tokens += sort_text(token, bool(sorted_tokens) and ends_value(sorted_tokens[-1]))
        elif token.kind == "letters":
            used, found = sort_letters(tokens, at, bool(sorted_tokens) and ends_value(sorted_tokens[-1]))
            sorted_tokens += found
            at += used - 1
        elif (token.kind, token.text) in (("mark", "%"), ("command", "%")):
            sorted_tokens.append(Token("factor", "percent"))
        elif token.kind == "command" and token.text in ("lor", "land"):
            sorted_tokens.append(Token("separator", "or" if token.text == "lor" else "and"))
        else:
            sorted_tokens.append(token)
        at += 1
    return join_capitals(sorted_tokens)


def ends_value(token: Token) -> bool:
    """Whether a unit may stand behind this token."""
    if token.kind in ("number", "repeating", "name", "factor", "unit"):
        return True
    return (token.kind == "mark" and token.text in "})]|!/") or (
        token.kind == "command" and token.text in ("pi", "circ", "degree")
    )


SPACES = re.compile(r"~|\\[,;:! ]|\\q?quad(?![A-Za-z])")  # of LaTeX, as in \mathrm{~cm}


def sort_text(token: Token, behind_value: bool) -> list[Token]:
    """What \\text{...} or \\mathrm{...} says."""
    said = " ".join(SPACES.sub(" ", token.text).split())
    bare = said.strip(" ,.;:").lower()
    if not said:
        return []
    if bare in SEPARATORS:
        return [Token("separator", bare)]
    if token.kind == "roman" and said in FUNCTION_WORDS:
        return [Token("command", FUNCTION_WORDS[said])]
    if behind_value and (found := sort_units(said)) is not None:
        return found
    if not re.search(r"[A-Za-z]{2}", said):
        return sort_words(list(readings(tokenise(said))[0]))
    if token.kind == "roman" and said.isalpha():
        return [Token("name", said, token.spaced)]
    return [Token("word", said)]


def sort_units(said: str) -> list[Token] | None:
    """Factors and then a unit, either of which may be absent; None where it is neither."""
    words = said.strip(" .").split()
    factors = []
    while words and (word := words[0].lower().removesuffix("s")) in FACTORS:
        factors.append(Token("factor", word))
        words = words[1:]
    if not words:
        return factors or None
    return [*factors, Token("unit", " ".join(words))] if read_unit(" ".join(words)) is not None else None


def sort_letters(tokens: list[Token], at: int, behind_value: bool) -> tuple[int, list[Token]]:
    """How many tokens a run of letters takes, and what they are."""
    run = tokens[at].text
    if run in SEPARATORS and (tokens[at].spaced or at == 0):
        return 1, [Token("separator", run)]
    if run in FUNCTION_WORDS:
        return 1, [Token("command", FUNCTION_WORDS[run], tokens[at].spaced)]
    if behind_value and (len(run) > 2 or run in SHORT_UNITS or (run in SPACED_UNITS and tokens[at].spaced)):
        end = end_of_unit(tokens, at)
        found = sort_units(" ".join(token.text for token in tokens[at:end]))
        if found is not None:
            return end - at, found
    names = NAME_PIECES.findall(run)
    kinds = ["word" if re.search(r"[a-z]{3}", name) else "name" for name in names]
    spaced = [tokens[at].spaced] + [False] * len(names)
    return 1, [Token(*token) for token in zip(kinds, names, spaced, strict=False)]


def end_of_unit(tokens: list[Token], at: int) -> int:
    """Where bare tokens end that may be a unit like "km / h", "square feet" or "cm ^ { 2 }"."""
    end = at
    while end < len(tokens):
        if tokens[end][:2] == ("mark", "^"):
            ahead = tokens[end + 1 : end + 5]
            exponent = EXPONENTS.match(" ".join(f"mark {t.text}" if t.kind == "mark" else t.kind for t in ahead))
            if exponent is None:
                break
            end += 1 + len(re.findall("number|mark", exponent[0]))
        elif may_be_unit(tokens[end], tokens[end - 1]):
            end += 1
        else:
            break
    return end


def may_be_unit(token: Token, before: Token) -> bool:
    """Whether a bare token, which is no exponent, may go on with a unit."""
    if token.kind == "letters":
        known = unit_name(token.text) is not None or token.text.lower().removesuffix("s") in FACTORS
        single = token.text in CASED and len(token.text) == 1
        if single:
            return before.text == "/" or before.text.lower() in POWERS
        return known or token.text.lower() == "per" or token.text.lower() in POWERS
    return token.kind == "mark" and (
        (token.text == "/" and before.text != "/") or (token.text == "." and before.text.lower() in POWERS)
    )


def join_capitals(tokens: list[Token]) -> list[Token]:
    """Capitals side by side are one name in their order: ABC is a triangle or a word, and CAB another one."""
    joined: list[Token] = []
    for token in tokens:
        last = joined[-1] if joined else None
        if last and last.kind == token.kind == "name" and (last.text + token.text).isupper():
            joined[-1] = Token("name", last.text + token.text, last.spaced)
        else:
            joined.append(token)
    return joined
