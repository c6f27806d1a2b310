"""Which part of a text is its answer: what is boxed, or a line that holds nothing else.

A box counts with the formula and the sentence that it stands in. To its left there may be a derivation that ends
in "=" (n = 6 * 7 =), and to its right what belongs to the answer (a unit, a condition): that is judged with it.
Anything else that touches it (a sign, a relation, another value, a denial) makes the answer wrong.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from klear_lab.verify.mathematics.compounds import is_piece
from klear_lab.verify.mathematics.latex import closing_brace
from klear_lab.verify.mathematics.prose import BOXED, MATH, RELATION, is_claimed
from klear_lab.verify.mathematics.units import read_unit

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
OWN_MARKS = re.compile("[\ue000-\uf8ff]")  # characters of no meaning, of which this and prose.py have marks
PLACE = re.compile(r"\ue010(\d+)\ue011")  # where a box has been cut out
STYLED_BOX = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|textbf|text|mathrm|underline|displaystyle)\s*\{\s*(\ue010\d+\ue011)\s*\}"
    r"|\\(?:large|Large|LARGE|huge|Huge|displaystyle|quad|qquad)\s*(\ue010\d+\ue011)"
)
ALIGNED = r"(?:align|equation|gather|multline|eqnarray)\*?"
SEGMENT = re.compile(
    r"(?<!\\)\$\$(?P<a>.+?)(?<!\\)\$\$|(?<!\\)\$(?P<b>[^$]+?)(?<!\\)\$|\\\[(?P<c>.+?)\\\]|\\\((?P<d>.+?)\\\)"
    rf"|\\begin\{{(?P<env>{ALIGNED})\}}(?P<e>.+?)\\end\{{(?P=env)\}}",
    re.DOTALL,
)
OPENING = re.compile(rf"(?<!\\)\$|\\\[|\\\(|\\begin\{{{ALIGNED}\}}")
CLOSING = str.maketrans("[(", "])")
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{(?:aligned|split|gathered|array|cases)\}(?:\{[lcr]*\})?")
STEP = re.compile(
    r"\\(?:implies|Rightarrow|Longrightarrow|Leftrightarrow|iff|therefore|because|rightarrow|to|quad|qquad)(?![A-Za-z])"
    r"|;|=>|\\text\s*\{[^{}]*\}"
)
HARMLESS_END = re.compile(
    r"(?:[\s.,;:~$]|\\[,;:! ]|\\(?:quad|qquad|square|blacksquare|checkmark|qed|Box|hfill)(?![A-Za-z])"
    r"|\\(?:text|mbox)\s*\{[\s.,;:!]*(?:as (?:desired|required|claimed|wanted|needed)|QED)?[\s.,!]*\})*"
)
BELONGS_TO_BOX = re.compile(
    r"\s*(?:=|,|\\text|\\mathrm|\\mbox|\\%|%|\^\s*\{?\s*\\circ|\\circ|\\degree|\\,|\\;|\\ |~|\\quad|\\in\b)"
)
PROSE_WORD = re.compile(r"[*_(\"'#>]*(?:[A-Za-z]{2,}|[aAI])(?:['-][A-Za-z]+)*[*_)\"',.:;!?]*")

# What stands beside a box without saying anything: tags, code quotes, ticks.
ORNAMENT = re.compile(r"</?answer>|`+|[\u2022\u2705\u2713\u2714\U0001f300-\U0001faff]")
MOST_BOXES = 64  # a text with more repeats itself, and each is judged with all that stands behind it

BETWEEN_BOXES = re.compile(
    r"(\ue010\d+\ue011)\s*\\(?:text|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}(?=[^,;.]{0,20}\ue010)"
)

CONCLUSION = (
    r"(?:(?:so|thus|hence|therefore|then|finally|in conclusion|we (?:get|have|find|obtain|conclude)(?: that)?)\b"
    r"[\s,:]*)*"
)
LINE = re.compile(
    rf"{CONCLUSION}(?P<lead>(?:(?:the|our|my)\s+)?(?:(?:final|correct|required|desired)\s+)*"
    rf"(?:answer|result|value|solution)(?:\s+(?:is|equals)\b\s*[:=]?|\s*[:=])\s*)?(?P<said>.+)",
    re.IGNORECASE | re.DOTALL,
)
HEDGE = re.compile(
    r"\b(?:or|either|maybe|perhaps|not|possibly|approximately|about|never|cannot|wrong|incorrect)\b|n't\b|\?",
    re.IGNORECASE,
)


class Boxed(NamedTuple):
    """A box: its content, what belongs to it on the right, and the sides of equations that lead to it."""

    content: str
    behind: str
    derivation: tuple[str, ...]


def outer_boxes(text: str) -> list[tuple[int, int, str]] | None:
    """Where each box begins and ends, and its content; None where one never closes."""
    found, position = [], 0
    while match := BOX.search(text, position):
        end = closing_brace(text, match.end())
        if end < 0:
            return None
        found.append((match.start(), end + 1, text[match.end() : end].strip()))
        position = end + 1
    return found


def boxes(text: str) -> list[str]:
    """What stands in \\boxed{...}; a box that holds nothing but another one is that one."""
    return [unwrap(content) for _, _, content in outer_boxes(text) or []]


def unwrap(content: str) -> str:
    """The content of a box without boxes around all of it."""
    while inner := outer_boxes(content):
        if len(inner) > 1 or inner[0][:2] != (0, len(content)):
            break
        content = inner[0][2]
    return content


def find_boxes(text: str) -> list[Boxed] | None:
    """The boxes of a text with what belongs to each; None where the text around one makes it no answer."""
    text = OWN_MARKS.sub("\ufffd", ORNAMENT.sub(" ", text))
    spans = outer_boxes(text)
    if not spans or len(spans) > MOST_BOXES:
        return None
    contents = [unwrap(content) for _, _, content in spans]
    cut, at = "", 0
    for i, (start, end, _) in enumerate(spans):
        cut += text[at:start] + f"\ue010{i}\ue011"
        at = end
    cut = STYLED_BOX.sub(lambda match: match[1] or match[2], cut + text[at:])
    cut = BETWEEN_BOXES.sub(r"\1,", cut)
    found: list[Boxed | None] = []
    claims, at = "", 0
    for segment in segments(cut):
        formula = formula_in(segment)
        claims += bare_boxes(cut[at : segment.start()], contents, found)
        places = list(PLACE.finditer(formula))
        found += [box_in_formula(formula, place, contents) for place in places]
        repeated = formula.strip() in contents
        claims += f" {'it' if repeated else signs_for(formula, len(places))} "
        at = segment.end()
    claims += bare_boxes(cut[at:], contents, found)
    for number in filter(str.isdigit, contents):  # a number said once more is no other answer
        claims = re.sub(rf"(?<![\d.,]){number}(?![\d%]|[.,]\d)", "it", claims)
    if None in found or not is_claimed(claims) or is_piece(claims):
        return None
    return with_units([box for box in found if box is not None], claims)


def segments(text: str) -> Iterator[re.Match[str]]:
    """Yields what `SEGMENT.finditer` would, but looks for no end that doesn't come, so that time is linear."""
    last, at = cache(text.rfind), 0
    while opening := OPENING.search(text, at):
        at = opening.start() + 1
        end = opening[0].translate(CLOSING).replace("begin", "end")
        if last(end) >= opening.end() and (segment := SEGMENT.match(text, opening.start())):
            yield segment
            at = segment.end()


def formula_in(segment: re.Match[str]) -> str:
    """What stands between the ends of a segment."""
    return next(part for name, part in segment.groupdict().items() if part and name in "abcde")


def signs_for(formula: str, count: int) -> str:
    """What stands for a formula with so many boxes in the sentence around it, with the point that ends both."""
    if count:
        return " ".join([BOXED] * count) + ". " * bool(re.search(r"\.[\s*_$]*$", formula))
    if HARMLESS_END.fullmatch(formula) or re.search(r"[^<>!\s]\s*=\s*$", formula):
        return ""
    return RELATION if re.search(r"[^<>=\s]\s*=", formula) else MATH


def bare_boxes(text: str, contents: Sequence[str], found: list[Boxed | None]) -> str:
    """Appends the boxes that stand in no formula to `found`, and returns the text with a sign for each."""
    claims, at = "", 0
    for place in PLACE.finditer(text):
        if place.start() < at:
            continue
        left = bare_formula(text[at : place.start()].rpartition("\n")[2].split(" ")[::-1], leftwards=True)
        right = bare_formula(text[place.end() :].partition("\n")[0].split(" "))
        left = " ".join(left.split(" ")[::-1])
        start, end = place.start() - len(left), place.end() + len(right)
        formula = text[start:end]
        aligned = "&" not in formula or r"\begin{" in text
        found += [box_in_formula(formula, p, contents) if aligned else None for p in PLACE.finditer(formula)]
        claims += text[at:start] + f" {signs_for(formula, len(PLACE.findall(formula)))} "
        at = end
    return claims + text[at:]


def bare_formula(chunks: Sequence[str], leftwards: bool = False) -> str:
    """The chunks up to the first word of prose; leftwards also up to the end of the sentence before."""
    taken = []
    for i, chunk in enumerate(chunks):
        if PROSE_WORD.fullmatch(chunk) or (leftwards and i and chunk[-1:] in (".", ":", ";", "?", "!")):
            break
        taken.append(chunk)
    return " ".join(taken)


def box_in_formula(formula: str, place: re.Match[str], contents: Sequence[str]) -> Boxed | None:
    """A box with the rest of its formula, or None where that isn't harmless."""

    def filled(part: str) -> str:
        """The formula's part with all of its boxes in place."""
        return PLACE.sub(lambda match: "{" + contents[int(match[1])] + "}", part)

    left = re.split(r"\\\\(?![A-Za-z])", ENVIRONMENT.sub("", formula[: place.start()]))[-1].replace("&", " ")
    if formula[: place.start()].strip() == "&":
        return None
    right = ENVIRONMENT.sub("", formula[place.end() :])
    rows = [row.strip(" \n\t&") for row in re.split(r"\\\\(?:\[[^]]*\])?(?![A-Za-z])", right)]
    right = rows[0] + "".join(
        f" {row}"
        for row in rows[1:2]
        if re.match(r"[-+=<>*/^]|\\(?:ne|le|ge|pm|cdot)", row) or not re.search(r"[=<>\ue010]|^$", row)
    )
    for comma in re.finditer(r"[,;]", right):  # up to the next box, which is judged by itself
        if PLACE.search(right[comma.end() :]) and right[: comma.start()].count("{") == right[
            : comma.start()
        ].count("}"):
            right = right[: comma.start()]
            break
    derivation = read_left(left.strip(" \n\t*_"))
    derivation = None if derivation is None else tuple(map(filled, derivation))
    right = right.strip(" \n\t*_&")
    if derivation is None:
        return None
    if HARMLESS_END.fullmatch(right):
        right = ""
    elif not BELONGS_TO_BOX.match(right):
        return None
    return Boxed(contents[int(place[1])], filled(right).rstrip(" .,;"), derivation)


def read_left(left: str) -> tuple[str, ...] | None:
    """The sides of the equation that leads to a box; None where something else stands there."""
    if (
        left.count("{") != left.count("}")
        or left.count("(") > left.count(")")
        or left.count("[") > left.count("]")
    ):
        return None
    for words in re.findall(r"\\text\s*\{([^{}]*)\}", left):
        if HEDGE.search(words):
            return None
    *_, last = STEP.split(left)
    clauses = clauses_of(last)
    if any(clause.strip() and not re.search(r"[=<>\ue010]|\\(?:in|le|ge|ne)", clause) for clause in clauses[:-1]):
        return None
    last = re.sub(r"\\(?:[,;:! ]|displaystyle(?![A-Za-z])|left\.)", " ", clauses[-1]).strip(
        " \n\t*_$>-" if "=>" in left else " \n\t*_"
    )
    if not last or last == ":" or re.fullmatch(r"[#>]+", last):
        return ()
    if not re.search(r"(?<![<>!:])(?<!\\not)=$", last):
        return () if last.endswith(":") and PROSE_WORD.fullmatch(last) else None
    return tuple(side.strip() for side in re.split(r"(?<![<>!])=", last[:-1]) if side.strip())


def clauses_of(text: str) -> list[str]:
    """Splits at the commas that stand in no bracket: after which one doesn't close before another opens."""
    clauses, end, closes = [], len(text), False
    for found in reversed([*re.finditer(r"[,(){}\[\]]", text)]):
        if found[0] != ",":
            closes = found[0] in ")}]"
        elif not closes:
            clauses.append(text[found.end() : end])
            end = found.start()
    return [text[:end], *reversed(clauses)]


def with_units(found: list[Boxed], claims: str) -> list[Boxed]:
    """The boxes, each with the unit that the words behind it name."""
    behind = claims.split(BOXED)[1:]
    if len(behind) != len(found):
        return found
    return [
        box._replace(behind=rf"\text{{ {unit}}}") if not box.behind and (unit := leading_unit(words)) else box
        for box, words in zip(found, behind, strict=True)
    ]


def leading_unit(words: str) -> str:
    """The longest unit, of up to five words, that a text begins with."""
    first = re.split(r"[.,;:!?\n]", words.strip(" *_$"))[0].split()[:5]
    for count in range(len(first), 0, -1):
        phrase = " ".join(first[:count])
        if read_unit(phrase) is not None and first[0] not in ("in", "s", "a"):
            return phrase
    return ""


def unboxed_answers(text: str) -> list[str] | None:
    """What the last line, and each line that says that it has the answer, holds; None where that isn't clear."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t*_#`$.")]
    if not lines:
        return None
    matches = [LINE.fullmatch(re.sub(r"\*\*|__|`", "", line).strip(" *_#")) for line in lines]
    if len(lines) > 1 and (matches[-1] is None or not matches[-1]["lead"]):
        before = lines[-2]
        if not before.rstrip("*_ ").endswith((".", "!")) and HEDGE.search(before):
            return None
    found = []
    for i, match in enumerate(matches):
        if match is not None and ("answer" in (match["lead"] or "").lower() or i == len(lines) - 1):
            said = match["said"].strip().removesuffix(".")
            segment = SEGMENT.fullmatch(said)
            if segment is not None:
                said = formula_in(segment)
            if HEDGE.search(said):
                return None
            found.append(said)
    return found or None
