"""Real math problems: is a final answer the right one, as a careful reader would say?

math-verify decides whether two expressions are equal. Around it stands what RL would otherwise exploit: which
part of the text is the answer, hedging ("42 or 43"), several answers, and having the verifier do the sum. It is
called in processes with a hard time limit (verifier_processes.py): its own limits use signals, and off the main
thread it answers "wrong" instead.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from klear_lab.rows import Row
from klear_lab.verify.processes import Judge, VerifierProcesses
from klear_lab.verify.registry import Verdict, Verifier, VerifierSettings, verifier

CORRECT, WRONG, UNPARSABLE = "correct", "wrong", "unparsable"
LONGEST_ANSWER = 500  # characters of one expression
MOST_ANSWERS = 16  # different boxes, all of which must be right

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|not|possibly|approximately|about)\b|\?", re.IGNORECASE)
LEAD_IN = re.compile(r"^.*\b(?:answer|result|value)\b(?:\s+is\b|\s*[:=])\s*:?\s*", re.IGNORECASE)
MATH_SEGMENT = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
UNDONE_SUM = re.compile(r"\\(?:i+nt|oint|sum|prod|lim|min|max|gcd|lcm|bmod|pmod|mod|operatorname)(?![A-Za-z])")
EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
WIDE_GAP = re.compile(r"\d\s+\d")


def judge_answer(answer: str, ground_truth: str) -> str:
    """`correct`, `wrong` or `unparsable`: `answer` is the text after the thought.

    The answer is what is boxed, and where several things are, all of them must be right. Without a box it is the
    last line, if that holds one expression. May take forever: see verifier_processes.py.
    """
    candidates = find_answers(ascii_digits(answer))
    if not candidates:
        return UNPARSABLE
    if len(candidates) > MOST_ANSWERS:
        return WRONG
    verdicts = {judge_expression(candidate, ascii_digits(ground_truth).strip()) for candidate in candidates}
    return verdicts.pop() if len(verdicts) == 1 else WRONG


def find_answers(text: str) -> list[str]:
    """The different expressions that the text gives as its answer."""
    boxed = [box for box in boxes(text) if box]
    if boxed or BOX.search(text):
        return list(dict.fromkeys(boxed))
    last = unboxed_answer(text)
    return [last] if last else []


def boxes(text: str) -> list[str]:
    """What stands in \\boxed{...}; of nested ones the innermost."""
    found, position = [], 0
    while match := BOX.search(text, position):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            end += 1
        if depth:
            break
        inner = text[match.end() : end - 1].strip()
        found += boxes(inner) if BOX.search(inner) else [inner]
        position = end
    return found


def unboxed_answer(text: str) -> str | None:
    """The one expression of the last line, or None where there is none, or more than one, or a hedge."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t*_#`$.")]
    if not lines:
        return None
    line = LEAD_IN.sub("", re.sub(r"\*\*|__|`", "", lines[-1])).strip(" *_#.:")
    segments = [next(filter(None, match)) for match in MATH_SEGMENT.findall(line)]
    words = MATH_SEGMENT.sub(" ", line)
    if HEDGE.search(words):
        return None
    if segments:
        return segments[0].strip() if len(segments) == 1 and not NUMBER.search(words) else None
    if not WORD.search(line):
        return line
    numbers = NUMBER.findall(line)
    return str(numbers[0]).strip(",") if len(numbers) == 1 else None


def judge_expression(candidate: str, ground_truth: str) -> str:
    """The verdict on one expression."""
    candidate = candidate.strip().strip("$").strip()
    if candidate == ground_truth:
        return CORRECT
    if not candidate or len(candidate) > LONGEST_ANSWER:
        return UNPARSABLE
    for sign in (HEDGE, UNDONE_SUM):
        if sign.search(candidate) and not sign.search(ground_truth):
            return WRONG
    candidate = re.sub(r"(?<=\d) (?=\d{3}\b)", "", candidate)
    if WIDE_GAP.search(candidate) and not WIDE_GAP.search(ground_truth):
        return WRONG
    sides = EQUALS.split(candidate)
    if len(sides) > 1 and not EQUALS.search(ground_truth):
        if re.search(r"[A-Za-z]", sides[0]) or not sides[0].strip():  # "n = 42" names the unknown
            sides = sides[1:]
        verdicts = {judge_expression(side, ground_truth) for side in sides}
        return verdicts.pop() if len(verdicts) == 1 else WRONG
    return equal_expressions(candidate, ground_truth)


def equal_expressions(candidate: str, ground_truth: str) -> str:
    """math-verify's own verdict, but that nothing infinite equals what is finite.

    sympy tries its rules in random order, and in some of these orders an infinite product that isn't multiplied
    out ("1e\\infty") is zero, and so is its difference to anything. Seeding fixes the order.
    """
    import sympy  # takes a second, as math_verify does, and only the workers need them
    from math_verify import parse, verify

    sympy.core.random.seed(0)
    theirs = parse(f"\\boxed{{{ground_truth}}}", parsing_timeout=None)
    ours = parse(f"\\boxed{{{candidate}}}", parsing_timeout=None)
    if is_infinite(ours) and not is_infinite(theirs):
        return WRONG
    if verify(theirs, ours, timeout_seconds=None):
        return CORRECT
    # The last thing that `parse` returns is the text itself: alone, it was no expression.
    is_text = not any(not isinstance(part, str) for part in ours)
    return UNPARSABLE if is_text and any(not isinstance(part, str) for part in theirs) else WRONG


def is_infinite(parsed: list[Any]) -> bool:
    """Whether an infinity stands anywhere in what math-verify's `parse` made of a text."""
    from sympy import nan, oo, zoo

    return any(part.has(oo, -oo, zoo, nan) for part in parsed if not isinstance(part, str))


def ascii_digits(text: str) -> str:
    """Digits of other scripts as 0 to 9; superscripts and the like aren't digits, 4² isn't 42."""
    return "".join(str(unicodedata.decimal(c)) if not c.isascii() and c.isdecimal() else c for c in text)


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
