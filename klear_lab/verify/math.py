"""Real math problems: is a final answer the right one, as a careful reader would say?

An answer is paid only if all of it was read. In mathematics/, answers.py finds it, with the formula and the
sentence around a box; latex.py, commas.py, words.py and expressions.py read it, every character of it; equality.py
compares structure, units and names; values.py compares numbers and functions, and asks math-verify 0.9.0 whether a
difference is zero.

Deviations from math-verify 0.9.0, each because RL finds what its defaults let through:
1. Its `parse` isn't used. It searches a text for something that it can read, and drops units, text, alignment
   signs, letter case, primes and bases around it. What our reader doesn't know makes an answer unparsable, unless
   the ground truth has the same text.
2. `verify` is given a difference that must be zero, never two sides: its own comparison rounds to six decimals,
   and calls 2^{-60} and 2^{-61} equal. Ours are first compared to 60 digits, relative to their size. Decimals are
   exact: 0.333 isn't 1/3.
3. Equations are compared by a constant factor; math-verify solves them, and finds two without solutions equal.
4. Sets and roots are compared with repetitions, names in their order of letters, 1:2:3 term by term.
5. Sums, integrals, limits, extrema, determinants and the like aren't worked out for an answer; neither are
   floors. Powers, roots, logarithms, factorials and binomial coefficients are.
6. Variables of an answer must be the ground truth's. So must words beside "=" that don't just name a quantity.
7. (100,200) is a pair; outside of brackets 100,200 is a number or a list, as the other side needs it.
8. 10:30 may be a time of day, so that 1:3 isn't equal to it.

It is called in processes with a hard time limit (processes.py): math-verify's own limits use signals, and off the
main thread it answers "wrong" instead.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Self

from klear_lab.rows import Row
from klear_lab.verify.mathematics.answers import BOX, Boxed, boxes, find_boxes, unboxed_answers
from klear_lab.verify.mathematics.commas import readings
from klear_lab.verify.mathematics.equality import Answer, equal_answers, equal_sides
from klear_lab.verify.mathematics.expressions import Reader
from klear_lab.verify.mathematics.latex import (
    ROW_GAP,
    Token,
    ascii_digits,
    plain_text,
    rewrite_characters,
    tokenise,
)
from klear_lab.verify.mathematics.nodes import VALUES, Node, Unreadable
from klear_lab.verify.mathematics.rationals import fold
from klear_lab.verify.mathematics.signs import listed
from klear_lab.verify.mathematics.values import NUMERIC, names_of
from klear_lab.verify.mathematics.words import sort_words
from klear_lab.verify.processes import Judge, VerifierProcesses
from klear_lab.verify.registry import Verdict, Verifier, VerifierSettings, verifier

__all__ = ["CORRECT", "MATH", "UNPARSABLE", "WRONG", "ascii_digits", "boxes", "judge_answer"]

CORRECT, WRONG, UNPARSABLE = "correct", "wrong", "unparsable"
LONGEST_ANSWER = 500  # characters of one expression
MOST_ANSWERS = 16  # different boxes, all of which must be right

WORD = re.compile(r"[A-Za-z]{3,}")  # dog is no product of d, o and g, and no god
UNIT_FRACTION = re.compile(
    r"\\frac\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}"
)
FAILURES = (Unreadable, ArithmeticError, RecursionError, MemoryError)  # of what can't be read or worked out
Tokens = tuple[Token, ...]
PROSE = re.compile(r"[A-Za-z\s.,;:']+|[\d\s]+")  # words, or numbers side by side: no formula at all
UNDONE = frozenset(
    listed(
        "int iint iiint oint sum prod lim min max sup inf gcd lcm bmod pmod mod det operatorname lfloor "
        "lceil partial limsup liminf deg dim arg Re Im"
    )
)


def judge_answer(answer: str, ground_truth: str) -> str:
    """`correct`, `wrong` or `unparsable`: `answer` is the text after the thought.

    The answer is what is boxed, and where several things are, all of them must be right, or all of them together.
    Without a box it is a line that holds nothing else. May take forever: see processes.py.
    """
    text, truth = shorten_runs(rewrite_characters(answer)), rewrite_characters(ground_truth).strip()
    if BOX.search(text):
        return judge_boxes(text, truth)
    said = unboxed_answers(text)
    return all_of([judge_expression(part, truth) for part in dict.fromkeys(said)]) if said else UNPARSABLE


def shorten_runs(text: str) -> str:
    """A text without long runs of white space or of one mark: they say nothing, and searching them takes time."""
    text = re.sub(r"\s+", lambda run: "\n\n" if run[0].count("\n") > 1 else "\n" if "\n" in run[0] else " ", text)
    return re.sub(r"([^\w\s{}])\1{20,}", lambda run: run[1] * 20, text)


def judge_boxes(text: str, truth: str) -> str:
    """The verdict on a text with boxes."""
    contents = [content for content in boxes(text) if content]
    if not contents:
        return UNPARSABLE
    found = find_boxes(text)
    if found is None:
        return WRONG
    found = list(dict.fromkeys(found))
    if len(found) > MOST_ANSWERS:
        return WRONG
    verdicts = [judge_box(box, truth) for box in found]
    if len(found) > 1 and all_of(verdicts) != CORRECT:
        return CORRECT if judge_expression(", ".join(map(with_name, found)), truth) == CORRECT else WRONG
    return all_of(verdicts)


def all_of(verdicts: list[str]) -> str:
    """The verdict on several expressions: theirs where they agree, wrong otherwise."""
    return verdicts[0] if len(set(verdicts)) == 1 else WRONG


def with_name(box: Boxed) -> str:
    """A box of several as an item of a list, with the name that stands before it (x = ...)."""
    names = [side for side in box.derivation[:1] if re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?", side)]
    return " = ".join((*names, box.content)) + (f" {box.behind}" if box.behind else "")


def judge_box(box: Boxed, truth: str) -> str:
    """The verdict on a box, what belongs to it and what leads to it."""
    verdict = judge_expression(f"{box.content} {box.behind}" if box.behind else box.content, truth)
    if verdict == CORRECT and any(denies(side, truth) for side in box.derivation):
        return WRONG
    return WRONG if verdict == UNPARSABLE and PROSE.fullmatch(box.content) else verdict


def denies(side: str, truth: str) -> bool:
    """Whether a side of the equation before a box makes the box no answer: 43 = 42, 2x = 42, x^2 = 42."""
    items, ours = read_quietly(side), read_quietly(truth)
    if items is None or len(items.items) != 1 or items.items[0].head not in VALUES:
        return False
    value = items.items[0]
    names = names_of(value)
    if leaves_work(value):
        return False
    if names:
        return is_unsolved(value)
    if ours is None or len(ours.items) != 1 or ours.items[0].head not in VALUES or names_of(ours.items[0]):
        return False
    try:
        return not equal_sides(ours.items[0], value)
    except FAILURES:
        return False


def leaves_work(node: object) -> bool:
    """Whether a function stands in a tree whose values nobody works out, such as that of rounding."""
    if isinstance(node, Node) and node.head == "call" and node.parts[0] not in NUMERIC and node.parts[0] != "log":
        return True
    return isinstance(node, tuple) and any(map(leaves_work, node))


def is_unsolved(side: Node) -> bool:
    """Whether a side is a simple expression in one unknown: 2x, -x, x/3, x + 1, x^2."""
    if side.head == "negative" or side.head == "root":
        return side.parts[0].head in ("name", "product")
    if side.head == "power":
        return (
            side.parts[0].head == "name" and len(side.parts[0].parts[0]) == 1 and fold(side.parts[1]) is not None
        )
    if side.head in ("product", "quotient", "sum") and len(side.parts) == 2:
        constants = [part for part in side.parts if not names_of(part)]
        return len(constants) == 1 and any(
            part.head == "name" or (part.head == "negative" and part.parts[0].head == "name") or is_unsolved(part)
            for part in side.parts
        )
    return False


def judge_expression(candidate: str, truth: str) -> str:
    """The verdict on one expression."""
    candidate = candidate.strip()
    if candidate == truth:
        return CORRECT
    if not candidate or len(candidate) > LONGEST_ANSWER:
        return UNPARSABLE
    pairs = [(said, ours) for ours in readings(tokens_of(truth)) for said in readings(tokens_of(candidate))]
    verdicts = [judge_reading(*pair, unsure="?" in candidate and "?" not in truth) for pair in pairs]
    return CORRECT if CORRECT in verdicts else all_of(verdicts)


def judge_reading(tokens: Tokens, ours: Tokens, unsure: bool) -> str:
    """The verdict on one reading of an expression, by one reading of the ground truth."""
    said, true = plain_text(tokens), plain_text(ours)
    if said == true and true:
        return CORRECT
    if (WORD.fullmatch(true) and WORD.fullmatch(said)) or unsure or undone(tokens):
        return WRONG
    try:
        answer = read(tokens)
        return CORRECT if equal_answers(read(ours), answer) else WRONG
    except FAILURES:
        return UNPARSABLE


def undone(tokens: Tokens) -> bool:
    """Whether an expression leaves the work to its reader."""
    return any(token.kind == "command" and token.text in UNDONE - {"lfloor", "lceil"} for token in tokens)


def tokens_of(text: str) -> list[Token]:
    """The tokens of one expression, without the signs that open and close a formula."""
    text = text.strip()
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    text = re.sub(r"^\\[(\[](.*)\\[)\]]$", r"\1", text.strip(), flags=re.DOTALL)
    tokens = tokenise(ROW_GAP.sub(r"\1", UNIT_FRACTION.sub(r"\\text{\1/\2}", text)))
    return tokens[:-1] if len(tokens) > 1 and tokens[-1][:2] == ("mark", ".") else tokens


@lru_cache(maxsize=1024)
def read(tokens: Tokens) -> Answer:
    """An expression as its items. Raises `Unreadable`."""
    items, separators = Reader(sort_words(list(tokens))).items()
    return Answer(tuple(items), tuple(separators))


def read_quietly(text: str) -> Answer | None:
    """An expression as its items, or None where it can't be read."""
    try:
        return read(readings(tokens_of(text))[0])
    except FAILURES:
        return None


MATH = Judge(
    "math-verify",
    judge_answer,
    UNPARSABLE,
    {(r"\boxed{\frac{84}{2}}", "42"): CORRECT, (r"\boxed{43}", "42"): WRONG},
    ("klear_lab.verify.math", "math_verify"),
    "pip install 'math-verify[antlr4_9_3]'",
)


@verifier
class MathVerifier(Verifier):
    """Judges answers to real math problems, in processes."""

    part = "math"
    reasons = (CORRECT, WRONG, UNPARSABLE)

    def __init__(self, processes: VerifierProcesses[str]) -> None:
        """`processes` judge by `judge_answer`."""
        self.processes = processes

    @classmethod
    @contextmanager
    def open(cls, settings: VerifierSettings) -> Iterator[Self]:
        """Starts the processes. Raises `VerifierUnavailable`."""
        with VerifierProcesses(MATH, settings.workers, settings.reward.math_seconds) as processes:
            yield cls(processes)

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """1 for an answer that equals the ground truth, 0 for any other."""
        pairs = [(a, str(row["reward_model"]["ground_truth"])) for a, row in zip(answers, rows, strict=True)]
        return [Verdict(float(verdict == CORRECT), verdict) for verdict in self.processes.judge(pairs)]
