"""Code rows: test cases from every format, a row's own limits, which cases are run, what they say."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.sandbox.cases import CaseResult, Job, check_cases, judge_cases
from klear_lab.verify.code_tests import choose_cases, read_tests, share_passed


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
        ("assert f(1) == True, 'why'", "f", [1], {}, True),
        ("assert make(2)(1) == 3", "make(2)", [1], {}, 3),
        ("assert Solution().two_sum([3, 3], 6) == [0, 1]", "Solution().two_sum", [[3, 3], 6], {}, [0, 1]),
        (
            "def check(candidate):\n    '''doc'''\n    assert candidate(nums=[3]) == 1\n\ncheck(Solution().g)",
            *("Solution().g", [], {"nums": [3]}, 1),
        ),
        ("def check(candidate):\n    assert candidate(1)(2) == 3\ncheck(make)", "make(1)", [2], {}, 3),
        (
            "def check(f):\n    assert f('a').upper() == 'A'\ncheck(Solution().g)",
            "Solution().g('a').upper",
            [],
            {},
            "A",
        ),
        ("def check(x):\n    assert make(x(1)).go(2) == 3\ncheck(g)", "make(g(1)).go", [2], {}, 3),
    ],
)
def test_assertions_become_calls(assertion, call, args, kwargs, expected):
    for functional in (assertion, [assertion]):
        (case,) = cases_of(functional=functional)
        assert case == {"call": call, "args": args, "kwargs": kwargs, "expected": expected}


def test_each_function_that_is_checked_is_tested():
    cases = cases_of(
        functional="def check(c):\n    assert c(1) == 2\n    assert c(2)\ncheck(f)\ncheck(g)\ncheck(f)"
    )
    assert [(case["call"], case["args"]) for case in cases] == [
        *(("f", [1]), ("f", [2]), ("g", [1]), ("g", [2]), ("f", [1]), ("f", [2])),
    ]
    cases = cases_of(functional="def check(c):\n    assert c(1)(2) == 3\ncheck(f)\ncheck(g)")
    assert [(case["call"], case["args"]) for case in cases] == [("f(1)", [2]), ("g(1)", [2])]


@pytest.mark.parametrize(
    ("assertion", "expected"),
    [("assert f(-1)", True), ("assert not f(-1)", False), ("assert not not f(-1)", True)],
)
def test_an_assertion_of_a_call_alone_means_that_it_is_true(assertion, expected):
    (case,) = cases_of(functional=assertion)
    assert case == {"call": "f", "args": [-1], "kwargs": {}, "expected": expected, "truth": True}


@pytest.mark.parametrize(("name", "value"), [("None", None), ("True", True), ("False", False)])
def test_an_assertion_of_identity_is_exact(name, value):
    (case,) = cases_of(functional=f"assert f() is {name}")
    assert case == {"call": "f", "args": [], "kwargs": {}, "expected": value, "exact": True}


NINES = "9" * 5000


def test_numbers_of_more_than_4300_digits_are_read():
    value = 10**5000 - 1
    row = '{"inputs": [[%s, [%s]]], "outputs": [%s], "fn_name": "f"}'
    (case,) = read_tests(row % (NINES, NINES, NINES)).cases
    assert (case["args"], case["expected"]) == ([value, [value]], value)
    (case,) = cases_of(inputs=[NINES], outputs=[NINES], fn_name="f")
    assert (case["args"], case["expected"]) == ([value], value)
    (case,) = cases_of(functional=f"assert f({NINES}) == -{NINES}")
    assert (case["args"], case["expected"]) == ([value], -value)
    (case,) = read_tests(f'{{"inputs": [{NINES}], "outputs": [[{NINES}]]}}').cases
    assert (case["stdin"], case["expected_stdout"]) == (NINES, NINES)
    with pytest.raises(ValueError, match="4300"):
        int(NINES)  # the limit holds again


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "ground_truth is not JSON"),
        ("[]", "ground_truth is a list: must be a JSON object"),
        ('{"inputs": ["1"], "inputs": ["2"], "outputs": ["1"]}', "ground_truth has the key 'inputs' twice"),
        ('{"inputs": [[{"a": 1, "a": 2}]], "outputs": [1], "fn_name": "f"}', "ground_truth has the key 'a' twice"),
        ('{"inputs": [[%s]]}' % ("9" * 500_000), r"ground_truth is not JSON: .*400000 digits"),
        (json.dumps({"pytest": "def test(): ..."}), "has the keys pytest: must have inputs and outputs"),
        (json.dumps({"inputs": [], "outputs": []}), "no test cases"),
        (json.dumps({"inputs": ["1"], "outputs": []}), "1 inputs and 0 outputs"),
        (json.dumps({"inputs": ["1"], "outputs": None}), "has the keys inputs: must have"),
        (json.dumps({"functional": "assert f(1) > 2"}), "only a comparison of one call on plain values"),
        (json.dumps({"functional": "assert f(1) != 2"}), "neither == nor is"),
        (json.dumps({"functional": "assert f(1) is not None"}), "neither == nor is"),
        (json.dumps({"functional": "assert not f(1) == 2"}), "only a comparison of one call"),
        (json.dumps({"functional": "assert abs(f(1) - 2) < 1"}), "only a comparison of one call"),
        (json.dumps({"functional": "assert f((1, 2)) == 3"}), "JSON can't hold"),
        (json.dumps({"functional": "assert f(**{'a': 1}) == 3"}), r"arguments by \*\*"),
        (json.dumps({"functional": "assert f(*[1]) == 3"}), "only a comparison of one call"),
        (json.dumps({"functional": "assert same(f([1]), node([1]))"}), "only a comparison of one call"),
        (json.dumps({"functional": "assert 'a'.upper() == 'A'"}), "no name of the program"),
        (json.dumps({"functional": "def check(c):\n    assert c() == 'A'\ncheck('a'.upper)"}), "no name of the"),
        (json.dumps({"functional": "x = 1\nassert f(x) == 1"}), "line 1 of the assertions isn't one: x = 1"),
        (
            '{"inputs": [[1]], "outputs": [NaN], "fn_name": "f"}',
            "test 0 expects float nan: nothing that a program",
        ),
        ('{"inputs": [[1], [2]], "outputs": [1, [{"a": NaN}]], "fn_name": "f"}', "test 1 expects .*nan"),
        ('{"inputs": ["1"], "outputs": ["\\ud800"]}', "test 0 expects .*: nothing that a program hands in"),
        (json.dumps({"functional": "import os"}), "no test cases"),
        (json.dumps({"functional": []}), "no test cases"),
        (json.dumps({"functional": "assert f("}), "functional: .*never closed"),
        (json.dumps({"functional": "assert f(1)\0"}), "functional: .*null bytes"),
        (json.dumps({"functional": "assert f(" + "-" * 100_000 + "1)"}), "functional: "),
        (json.dumps({"functional": "assert f(" + "[" * 1000}), "functional: "),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else None,
)
def test_tests_that_cannot_be_judged_say_why(content, words):
    with pytest.raises(ValueError, match=words):
        read_tests(content)


GOOD = {"inputs": ["1"], "outputs": ["1"]}
CALLS = {"inputs": [[1]], "outputs": [1], "fn_name": "f"}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("timeout", ["5", 0, -1, 0.0, True, [3], {}, math.inf, math.nan, 1e30, 10**400]),
        ("max_test_cases", ["3", 0, -1, 2.5, True, [3], math.inf, math.nan]),
        ("tolerance", ["0.1", -1e-9, False, [0.1], math.inf, math.nan, 1, 2.0, 10**400]),
        ("exact", ["yes", 1, 0, []]),
        ("fn_name", ["", " ", 5, ["f"], "a b", "'a'.upper", "(f)", "lambda: 1", "f(", "1"]),
        ("inputs", ["1", 5, {"0": [1]}, True]),
        ("outputs", ["1", 5, {"0": 1}, True]),
        ("functional", [5, [5], {"assert": "f(1)"}, True]),
    ],
)
@pytest.mark.parametrize("row", [GOOD, CALLS], ids=["texts", "calls"])
def test_a_key_of_another_kind_is_refused_by_its_name(row, key, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{key}: is \w+ .*; must be "):
            read_tests(json.dumps({**row, key: value}))


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"inputs": ["1", None], "outputs": ["1", "2"]}, r"inputs\[1\]: is NoneType None; must be text"),
        ({"inputs": [{"a": 1}], "outputs": ["1"]}, r"inputs\[0\]: is dict"),
        ({"inputs": ["1"], "outputs": [[["1"]]]}, r"outputs\[0\]: is list"),
        ({"inputs": ["1"], "outputs": [True]}, r"outputs\[0\]: is bool"),
        ({"inputs": [[1], 7], "outputs": [1, 2], "fn_name": "f"}, r"inputs\[1\]: is int 7; must be a list of arg"),
        ({"inputs": [{"x": 1}], "outputs": [1], "fn_name": "f"}, r"inputs\[0\]: is dict"),
        ({"inputs": [None], "outputs": [1], "fn_name": "f"}, r"inputs\[0\]: is NoneType"),
        ({"inputs": ["x"], "outputs": ["1"], "fn_name": "f"}, r"inputs\[0\]: is not JSON"),
        ({"inputs": ["1"], "outputs": ["x"], "fn_name": "f"}, r"outputs\[0\]: is not JSON"),
        ({"inputs": ["1"], "outputs": [1], "fn_name": "f"}, r"outputs\[0\]: is int 1; must be JSON text"),
        (
            {"inputs": [[json.loads("[" * 150 + "]" * 150)]], "outputs": [1], "fn_name": "f"},
            r"inputs\[0\]: .*deep",
        ),
        ({**GOOD, "exact": True, "tolerance": 0.1}, "exact: is true beside a tolerance of 0.1"),
    ],
)
def test_a_test_of_another_shape_is_refused_by_its_place(row, place):
    with pytest.raises(ValueError, match=f"^{place}"):
        read_tests(json.dumps(row))


@pytest.mark.parametrize("row", [GOOD, CALLS], ids=["texts", "calls"])
def test_a_key_that_is_null_is_as_good_as_absent(row):
    nulls = dict.fromkeys(["timeout", "max_test_cases", "tolerance", "exact", "functional", "fn_name"])
    assert read_tests(json.dumps({**nulls, **row})) == read_tests(json.dumps(row))


def test_a_row_has_limits_and_a_tolerance_of_its_own():
    tests = read_tests(
        json.dumps({"inputs": [""], "outputs": ["1"], "timeout": 3, "max_test_cases": 2, "tolerance": 0})
    )
    assert (tests.seconds, tests.max_cases, tests.cases[0]["tolerance"]) == (3, 2, 0)


def test_a_row_may_ask_for_exact_outputs():
    for row in (GOOD, CALLS, {"functional": "assert f(1) == 1"}):
        assert [case["exact"] for case in cases_of(**row, exact=True)] == [True]
        assert "exact" not in cases_of(**row)[0]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "f", "1", "[1]"]),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
                max_leaves=6,
            )
            for key in ("inputs", "outputs", "fn_name", "functional", "timeout", "tolerance", "exact")
        },
    )
)
def test_any_row_is_refused_or_can_be_run(content):
    try:
        tests = read_tests(json.dumps(content))
    except ValueError:
        return
    check_cases(tests.cases)
    answers = [{"ended": "ended", "output": "1", "value": "1"}] * len(tests.cases)
    assert len(judge_cases(Job("", tests.cases, tests.seconds or 1.0), answers)) == len(tests.cases)


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
