# ruff: noqa: RUF001 (signs that look alike are what is tested)
r"""No random text is paid unless it is equal to the ground truth by an evaluator that shares nothing with the judge.

The evaluator reads + - * / ^ ! %, \frac, \sqrt, \binom, numbers and brackets with Python's own parser, exactly. What
it can't read may only be paid where it is the ground truth's text.
"""

import ast
import math
import operator
import re
import time
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klear_lab.verify.math import CORRECT, judge_answer

TRUTHS = (
    *("42", "0", "-5", "7", r"\frac{1}{2}", r"\frac{-3}{4}", "0.25", "1000", r"\sqrt{2}", "2^{10}", "50\\%", "x"),
    *("2x+1", "(1,2)", r"\{1,2\}", "x>3", "A", r"\text{yes}", "3:4", r"42\text{ cm}"),
)
PIECES = (
    *(
        "42",
        "4",
        "2",
        "7",
        "1",
        "0",
        "5",
        "10",
        "0.5",
        "50",
        "x",
        "y",
        "A",
        "+",
        "-",
        "=",
        "<",
        ">",
        ",",
        ".",
        ":",
        "!",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        r"\{",
        r"\}",
        "|",
        "^",
        "_",
        "/",
        "*",
        " ",
        "%",
        r"\%",
        "$",
        "?",
        "'",
        "&",
        "~",
    ),
    *(r"\frac", r"\frac{1}{2}", r"\sqrt", r"\binom", r"\cdot", r"\times", r"\pm", r"\ne", r"\ge", r"\in", r"\cup"),
    *(
        r"\boxed{",
        r"\boxed{42}",
        r"\text{",
        r"\text{ or }",
        r"\text{ cm}",
        r"\text{yes}",
        r"\mathrm{i}",
        r"\lfloor",
    ),
    *(
        r"\rfloor",
        r"\infty",
        r"\pi",
        r"\left(",
        r"\right)",
        r"\ldots",
        r"\sum",
        r"\int",
        r"\begin{pmatrix}",
        r"\\",
    ),
)
WORDS = (
    *(
        "the",
        "answer",
        "is",
        "not",
        "or",
        "42",
        "7",
        "maybe",
        "less",
        "than",
        "at",
        "least",
        r"\boxed{42}",
        "so",
        ".",
    ),
    *(
        "no",
        "wrong",
        "either",
        "and",
        ",",
        ":",
        "$42$",
        r"$\boxed{7}$",
        "we",
        "get",
        "isn't",
        "cm",
        "thousand",
        "\n",
    ),
    *("answer:", "Answer is", "-", "x", "=", "therefore", "0", "1000", "%", "if", "?", "never", "about", "(1,2)"),
)
SIGNS = "½²³√×−–±≤≥∞π°％４２（）＋＝，。、42017+-=./^ \u200b\u0662\u0664"

latex = st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join)
boxed_latex = latex.map(lambda said: rf"\boxed{{{said}}}")
prose = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
unicode = st.text(st.sampled_from(SIGNS), min_size=1, max_size=9).map(lambda said: rf"\boxed{{{said}}}")
any_text = st.text(max_size=20).map(lambda said: rf"\boxed{{{said}}}")
answers = st.one_of(latex, boxed_latex, prose, unicode, any_text)

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def simple_text(said):
    """A text without what can't change its meaning."""
    said = "".join(str(unicodedata.decimal(c, c)) for c in said)
    said = unicodedata.normalize("NFKC", said).replace("\u2212", "-").replace("\u2013", "-").replace("\u200b", "")
    said = re.sub(r"\\(?:left|right|displaystyle|,|;|!|:)(?![A-Za-z])", "", said)
    return re.sub(r"[\s$~]", "", said).rstrip(".")


def exact_value(said):
    """The square of a number with its sign, so that roots are exact too; None for what isn't a plain number."""
    said = said.replace("\N{SUPERSCRIPT TWO}", "^2").replace("\N{SUPERSCRIPT THREE}", "^3").replace("√", r"\surd ")
    vulgar = {c: unicodedata.normalize("NFKC", c).split("\u2044") for c in said if c != "½"}
    said = "".join(
        rf"\frac{{{vulgar[c][0]}}}{{{vulgar[c][1]}}}" if len(vulgar.get(c, "")) == 2 else c for c in said
    )
    said = (
        said.replace("½", r"\frac{1}{2}").replace("°", "").replace(r"\text{ cm}", "").removesuffix(" cm").strip()
    )
    said = re.sub(r"\d{1,3}(?:[, ~]\d{3})+(?!\d)", lambda m: re.sub(r"\D", "", m[0]), said)
    said = re.sub(r"(\d)\s*\\frac\{1\}\{2\}", r"(\1+1/2)", simple_text(said).replace("\\%", "%").replace("$", ""))
    said = re.sub(r"\\frac\{?(\d+)\}?\{?(\d+)\}?", r"(\1/\2)", said)
    said = re.sub(r"\\(?:surd|sqrt)\{?(\([\d/]+\)|\d+)\}?", r"R(\1)", said)
    said = re.sub(r"\\(?:cdot|times)|×", "*", said)
    said = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", said).replace("\\{", "(").replace("\\}", ")")
    said = said.replace("^", "**").replace("{", "(").replace("}", ")").replace("[", "(").replace("]", ")")
    said = re.sub(r"\b0+(?=\d)", "", said).lstrip("=")
    said = re.sub(r"(?<=[\d)])(?=[(R])", "*", said)
    said = re.sub(r"(\d+)!(?!=)", lambda m: str(math.factorial(min(int(m[1]), 50))), said)
    said = re.sub(r"\|([^|]*)\|", r"abs(\1)", said)
    try:
        value = evaluate(ast.parse(said, mode="eval").body, said)
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError):
        return None
    return value


def evaluate(node, source):
    """Signed squares of exact numbers: a sum is only worked out of rational ones."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        number = Fraction(ast.get_source_segment(source, node))
        return number * abs(number)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = evaluate(node.operand, source)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Call) and node.func.id == "R":
        return abs(rational(evaluate(node.args[0], source)))
    if isinstance(node, ast.Call) and node.func.id == "abs":
        return abs(evaluate(node.args[0], source))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        return OPERATORS[type(node.op)](evaluate(node.left, source), evaluate(node.right, source))
    if isinstance(node, ast.BinOp):
        left, right = (rational(evaluate(side, source)) for side in (node.left, node.right))
        if isinstance(node.op, ast.Pow):
            if right.denominator != 1 or abs(right) > 100:
                raise ValueError("no whole power")
            number = left ** int(right)
        else:
            number = OPERATORS[type(node.op)](left, right)
        return number * abs(number)
    raise ValueError(f"unknown: {ast.dump(node)}")


def rational(square):
    """The number whose signed square this is."""
    parts = [math.isqrt(abs(square).numerator), math.isqrt(square.denominator)]
    if parts[0] ** 2 != abs(square).numerator or parts[1] ** 2 != square.denominator:
        raise ValueError("irrational")
    return Fraction(*parts) * (1 if square >= 0 else -1)


DENIALS = {
    *(
        "not",
        "or",
        "no",
        "wrong",
        "either",
        "isn't",
        "maybe",
        "less",
        "than",
        "never",
        "about",
        "thousand",
        "if",
        "?",
    ),
}

DIRECT = {"thousand", "about", "less", "than", "if"}  # which change only the word behind them


def boxes_alone(answer):
    """What is boxed, where the words around the boxes neither deny nor change it; None otherwise."""
    found = re.findall(r"\\boxed\{((?:[^{}]|\\[{}]|\{[^{}]*\})*)\}", answer)
    marked = re.sub(r"\\boxed\{(?:[^{}]|\\[{}]|\{[^{}]*\})*\}", "\ue000", answer).replace("$", " ")
    for said in filter(str.isdigit, found):  # saying the same number once more changes nothing
        marked = re.sub(rf"(?<![\d.]){said}(?![\d.])", "it", marked)
    for sentence in re.split(r"(?<=[.?])\s", marked):
        if "\ue000" in sentence:
            before, after = sentence.split("\ue000")[0], sentence.split("\ue000")[-1]
            if re.search(r"[-\d+*/^<>%&|!\\]\s*$", before) or re.match(r"\s*[-\d+*/^<>%&|!\\]", after):
                return None
            words_before, words_after = before.lower().split(), set(after.lower().split())
            if (DENIALS - DIRECT) & set(words_before[-2:]) or DENIALS & set(words_before[-1:]):
                return None
            if DENIALS & words_after - {"if", "about"}:
                return None
    return found


def inner(answer):
    """What an independent reader takes for the answer: boxes without any text around, or the whole text."""
    said = answer.strip().split("\n")[-1]
    said = re.sub(r"(?is)^.*\b(?:answer|so|therefore|get)\b(?:\s+is\b|:|\s)*", "", said)
    said = re.sub(r"(?is)^(?:we|get|so|is|:|,|\s|the)*", "", said).strip("*_# ")
    while match := re.fullmatch(r"\$?\s*\\boxed\{(.*)\}\s*\$?\s*\.?", said, re.DOTALL):
        said = match[1].strip("~ \n")
    return re.sub(r"(?:\\\\!?)*$", "", said).strip("$ ,").rstrip(".")


def may_be_paid(answer, truth):
    """Whether an independent reader finds an answer equal; a name on the left is no part of it."""
    boxed = boxes_alone(answer)
    if boxed and answer.strip() != f"\\boxed{{{boxed[0]}}}":
        return all(may_be_paid(rf"\boxed{{{said}}}", truth) for said in boxed)
    said = inner(answer).lstrip("=")
    if simple_text(said) == simple_text(truth) or (truth in FORMS_OF and simple_text(said) in FORMS_OF[truth]):
        return True
    if {simple_text(side) for side in said.split("=")} == {simple_text(truth)}:
        return True
    value = exact_value(truth)
    if value is None:
        return False
    sides = [side for side in said.split("=") if not re.fullmatch(r"\s*[A-Za-z]'*\s*", side)]
    return bool(sides) and all(exact_value(side) == value for side in sides)


FORMS_OF = {
    "0": {r"0\pi", r"0\mathrm{i}", r"0\boxed{42}"},
    "2x+1": {"+2x+1", "02x+1"},
    "3:4": {"+3:4"},
    r"\frac{-3}{4}": {r"\frac{-3}{4}\text{cm}", "-3:4"},
    "x": {"xcm", r"x\text{cm}", "(x)", "+x", "{x}", "1x", "x1", "x^1", "[x]", r"\{x\}"},
    "A": {r"A\text{cm}", "(A)", "+A", "{A}", "[A]", "1A", r"\{A\}"},
    "x>3": {"+x>3", "1x>3", r"x>3\text{cm}", r"3<x", "3\\text{cm}<x", "(3,\\infty)"},
    r"\text{yes}": {"yes", "Yes"},
    r"\{1,2\}": {r"\{2,1\}", "1,2", "2,1", r"1\text{or}2", r"2\text{or}1"},
    r"42\text{ cm}": {"42", "42cm", r"42\text{cm}"},
}


def check(answer):
    """Judges one answer against every ground truth."""
    for truth in TRUTHS:
        started = time.perf_counter()
        paid = judge_answer(answer, truth) == CORRECT
        assert time.perf_counter() - started < 10
        if paid:
            assert may_be_paid(answer, truth), (answer, truth)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(answers)
def test_no_random_text_is_paid_that_an_independent_reader_does_not_find_equal(answer):
    check(answer)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(answers)
def test_none_of_many_random_texts_is_paid_that_an_independent_reader_does_not_find_equal(answer):
    check(answer)


def test_the_independent_reader_can_tell_right_from_wrong():
    assert may_be_paid(r"\boxed{\frac{84}{2}}", "42")
    assert may_be_paid(r"\boxed{x=42}", "42")
    assert may_be_paid(r"\boxed{-\sqrt{4}-3}", "-5")
    assert not may_be_paid(r"\boxed{41}", "42")
    assert not may_be_paid(r"\boxed{42, 43}", "42")
    assert not may_be_paid("It is not 42", "42")
