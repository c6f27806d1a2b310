"""How the math verifier reads what has two readings, where functions are compared, and that nothing makes it raise."""

import json
import random
import re
import time
from itertools import product
from pathlib import Path

import mpmath
import pytest

from klear_lab.verify.math import CORRECT, UNPARSABLE, WRONG, judge_answer
from klear_lab.verify.mathematics.commas import readings
from klear_lab.verify.mathematics.latex import plain_text, tokenise
from klear_lab.verify.mathematics.values import COORDINATES, FAR, WHOLE, points_for, stand_in

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "math_pairs.jsonl").read_text().splitlines()]
PIECE = re.compile(r"\\[A-Za-z]+|\\.|\d+|[A-Za-z]+|\s+|.", re.DOTALL)
MORE_PIECES = [
    "^",
    "_",
    "{",
    "}",
    "²",
    "₂",
    "½",
    "°",
    "\0",
    "\ud800",
    "\\",
    "|",
    "10:30",
    "1,000",
    "100,200",
    "^{2}",
    "1e400",
]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1,000", ["1000"]),
        ("12,345,678", ["12345678", "12 , 345 , 678"]),
        ("100,200", ["100200", "100 , 200"]),
        ("100, 200", ["100 , 200"]),
        ("1,2,100", ["1 , 2 , 100"]),
        ("1,045,200", ["1045200", "1045 , 200"]),
        ("(100,200)", ["( 100 , 200 )"]),
        (r"\{1,000,200\}", [r"\{ 1000 , 200 \}"]),
        ("(0,100,000)", ["( 0 , 100000 )"]),
        (r"(100,200), 300,400", ["( 100 , 200 ) , 300400", "( 100 , 200 ) , 300 , 400"]),
        (r"\frac{1,500}{7}", [r"\frac 1500 7"]),
        (r"(1{,}500, 2\,500)", ["( 1500 , 2500 )"]),
        (r"1,234.5", ["1234.5", "1 , 234.5"]),
    ],
)
def test_a_comma_parts_items_in_brackets_and_may_join_digits_outside_of_them(text, read):
    assert [plain_text(tokens) for tokens in readings(tokenise(text))] == read


def test_whole_numbers_where_functions_are_compared_have_all_parities_for_any_two_variables():
    names = [f"x{i:02}" for i in range(11)]
    points = points_for(frozenset(names), WHOLE, len(WHOLE))
    for one, other in product(names, names):
        parities = {(int(point[one]) % 2, int(point[other]) % 2) for point in points}
        assert len(parities) == (2 if one == other else 4)
    assert all(point[name] == int(point[name]) for point in points for name in names)


def test_no_two_points_are_the_same_and_far_ones_are_no_whole_numbers():
    for coordinates in (COORDINATES, WHOLE, FAR):
        points = [point["x"] for point in points_for(frozenset("x"), coordinates)]
        assert len(set(points)) == len(points)
    assert not any(mpmath.isint(point["x"]) for point in points_for(frozenset("x"), FAR))


def test_a_function_that_nobody_knows_has_no_symmetry():
    def f(*values):
        return stand_in("f", values)

    with mpmath.workdps(40):
        x, y = mpmath.mpf("0.7"), mpmath.mpf("2.3")
        tried = [
            f(x),
            f(-x),
            -f(-x),
            f(x + 1),
            f(x + 2 * mpmath.pi),
            f(x) + 1,
            f(y),
            2 * f(x / 2),
            stand_in("g", [x]),
        ]
        tried += [f(x, y), f(y, x), f(-x, -y), f(x, 0), f(0, x), f(x + y), f(x) + f(y)]
        apart = [abs(a - b) for i, a in enumerate(tried) for b in tried[:i]]
        assert min(apart) > 1e-3
        assert abs(f(x, y) + f(3, 4) - f(x, 4) - f(3, y)) > 1e-3


@pytest.mark.parametrize(
    "text",
    [
        r"e^{e^{e^{e^{e}}}}",
        r"\cos(e^{e^{e^{3}}})",
        r"\pi^{\pi^{\pi^{\pi^\pi}}}",
        r"((x!)!)!",
        r"\sin(10^{400})",
        "x^{21e4002}",
        r"x^{x^{x^{x^x}}}",
    ],
)
def test_no_tower_of_powers_takes_long(text):
    started = time.process_time()
    assert judge_answer(rf"\boxed{{{text}}}", "42") != CORRECT
    assert judge_answer(r"\boxed{42}", text) != CORRECT
    assert judge_answer(rf"\boxed{{x + {text}}}", "x+1") != CORRECT
    assert time.process_time() - started < 2


def mutated(generator):
    """A text and a ground truth of the pairs above, with pieces put in, left out, repeated and exchanged."""
    pair = generator.choice(PAIRS)
    pieces = PIECE.findall(pair["answer"])
    others = PIECE.findall(generator.choice(PAIRS)["answer"])
    for _ in range(generator.randrange(1, 5)):
        at, end = sorted(generator.randrange(len(pieces) + 1) for _ in range(2))
        put = generator.choice([[generator.choice(MORE_PIECES)], others[at:end], pieces[at:end] * 2, []])
        pieces[at:end] = put
    truth = generator.choice([pair["ground_truth"], generator.choice(PAIRS)["ground_truth"], "".join(pieces)])
    return "".join(pieces), truth


def judge_mutated(seed, count):
    generator = random.Random(seed)
    return {judge_answer(*mutated(generator)) for _ in range(count)}


def test_what_has_no_value_is_no_factor_in_the_argument_of_a_function():
    assert judge_answer(r"\boxed{\exp 15{matrix}}", "42") == UNPARSABLE
    assert judge_answer(r"\boxed{\sin 2{area}}", r"\text{area} = 42") == UNPARSABLE


def test_no_garbled_answer_or_ground_truth_makes_the_judge_raise():
    assert judge_mutated(0, 2000) <= {CORRECT, WRONG, UNPARSABLE}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_none_of_many_garbled_answers_or_ground_truths_makes_the_judge_raise(seed):
    assert judge_mutated(seed, 20_000) <= {CORRECT, WRONG, UNPARSABLE}
