"""Code rows: the program of a response, test cases from every format, which of them are run, what they say."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.sandbox.pool import CaseResult
from klear_lab.verify.code import choose_cases, find_program, read_tests, share_passed


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("Here:\n```python\nprint(1)\n```\nBetter:\n```python\nprint(2)\n```\nDone.", "print(2)\n"),
        ("```Python3\nprint(1)\n```", "print(1)\n"),
        ("```py \nprint(1)\n```", "print(1)\n"),
        ("1. Like this:\n   ```python\n   print(1)\n   ```", "   print(1)\n"),
        ("```python\nprint('''```''')\n```", "print('''```''')\n"),
        ("```python\n```", ""),
        ("```python\nprint(1)", None),
        ("```python\nprint(1)\n```\n```python\nprint(2)", "print(1)\n"),
        ("```\nprint(1)\n```", None),
        ("```json\n{}\n```", None),
        ("print(1)", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_closed_python_block(answer, program):
    assert find_program(answer) == program


def cases_of(**content):
    return list(read_tests(json.dumps(content)).cases)


def test_standard_input_and_output():
    assert cases_of(inputs=["1\n", ["2", "3"]], outputs=["1\n", "5"]) == [
        {"stdin": "1\n", "expected_stdout": "1\n"},
        {"stdin": "2\n3", "expected_stdout": "5"},
    ]


def test_calls_in_the_format_of_livecodebench():
    (case,) = cases_of(inputs=["[1, 2]\n3"], outputs=["[4]"], fn_name="f")
    assert case == {"call": "f", "args": [[1, 2], 3], "expected": [4], "wrapped": False}


def test_calls_in_the_format_of_apps():
    (case,) = cases_of(inputs=[[[1, 2], 3]], outputs=[[4]], fn_name="f")
    assert case == {"call": "f", "args": [[1, 2], 3], "expected": [4], "wrapped": True}


@pytest.mark.parametrize(
    ("assertion", "call", "args", "kwargs", "expected"),
    [
        ("assert f(1, [2]) == 3", "f", [1, [2]], {}, 3),
        ("assert 3 == f(1)", "f", [1], {}, 3),
        ("assert f(1, k='a') == (1, 2)", "f", [1], {"k": "a"}, [1, 2]),
        ("assert f(-1)", "f", [-1], {}, True),
        ("assert not f()", "f", [], {}, False),
        ("assert f(1) is None", "f", [1], {}, None),
        ("assert Solution().two_sum([3, 3], 6) == [0, 1]", "Solution().two_sum", [[3, 3], 6], {}, [0, 1]),
        (
            "def check(candidate):\n    '''doc'''\n    assert candidate(nums=[3]) == 1\n\ncheck(Solution().g)",
            *("Solution().g", [], {"nums": [3]}, 1),
        ),
    ],
)
def test_assertions_become_calls(assertion, call, args, kwargs, expected):
    for functional in (assertion, [assertion]):
        (case,) = cases_of(functional=functional)
        assert case == {"call": call, "args": args, "kwargs": kwargs, "expected": expected}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "ground_truth is not JSON"),
        ("[]", "ground_truth is a list: must be a JSON object"),
        (json.dumps({"pytest": "def test(): ..."}), "has the keys pytest: must have inputs and outputs"),
        (json.dumps({"inputs": [], "outputs": []}), "no test cases"),
        (json.dumps({"inputs": ["1"], "outputs": []}), "1 inputs and 0 outputs"),
        (json.dumps({"functional": "assert f(1) > 2"}), "only a comparison of one call on plain values"),
        (json.dumps({"functional": "assert abs(f(1) - 2) < 1"}), "only a comparison of one call"),
        (json.dumps({"functional": "assert f((1, 2)) == 3"}), "JSON can't hold"),
        (json.dumps({"functional": "assert same(f([1]), node([1]))"}), "only a comparison of one call"),
        (json.dumps({"functional": "x = 1\nassert f(x) == 1"}), "line 1 of the assertions isn't one: x = 1"),
        (json.dumps({"functional": "import os"}), "no test cases"),
    ],
)
def test_tests_that_cannot_be_judged_say_why(content, words):
    with pytest.raises(ValueError, match=words):
        read_tests(content)


def test_a_row_has_limits_and_a_tolerance_of_its_own():
    tests = read_tests(
        json.dumps({"inputs": [""], "outputs": ["1"], "timeout": 3, "max_test_cases": 2, "tolerance": 0})
    )
    assert (tests.seconds, tests.max_cases, tests.cases[0]["tolerance"]) == (3, 2, 0)


@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 40)), st.text())
def test_cases_are_drawn_by_the_seed_in_their_order(count, most, draw):
    cases = [{"stdin": str(i), "expected_stdout": ""} for i in range(count)]
    chosen = choose_cases(cases, most, draw)
    assert len(chosen) == min(count, most or count)
    numbers = [int(case["stdin"]) for case in chosen]
    assert numbers == sorted(set(numbers))
    assert chosen == choose_cases(cases, most, draw)


def test_another_seed_draws_other_cases():
    cases = [{"stdin": str(i), "expected_stdout": ""} for i in range(100)]
    assert choose_cases(cases, 16, "0") != choose_cases(cases, 16, "1")


@given(st.lists(st.sampled_from(["passed", "failed", "error", "timeout", "memory"]), min_size=1))
def test_the_soft_score_is_the_share_of_tests_passed(statuses):
    share = share_passed([CaseResult(s) for s in statuses])
    assert share == pytest.approx(statuses.count("passed") / len(statuses))
    random.Random(0).shuffle(statuses)
    assert share == share_passed([CaseResult(s) for s in statuses])
