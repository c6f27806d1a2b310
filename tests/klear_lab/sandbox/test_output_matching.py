"""What counts as the same output, and what must not."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.sandbox.output_matching import texts_match, values_match

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Z", "C"]), min_size=1)
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=4), max_size=4)
SPACES = st.text(" \t\r", min_size=1, max_size=3)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.integers(-(10**18), 10**18)


def joined(lines):
    return "\n".join(" ".join(words) for words in lines)


def returned(value):
    return json.dumps(value)


@given(st.text())
def test_every_text_matches_itself(text):
    assert texts_match(text, text)
    assert texts_match(text, text, tolerance=0)


@given(LINES, st.data())
def test_the_amount_of_white_space_and_empty_lines_do_not_count(lines, data):
    output = ""
    for words in lines:
        output += "\n" * data.draw(st.integers(0, 2)) + data.draw(SPACES)
        output += data.draw(SPACES).join(words) + data.draw(SPACES) + "\n"
    assert texts_match(output, joined(lines))
    assert texts_match(joined(lines), output)


@given(LINES.filter(bool), WORDS, st.data())
def test_an_extra_word_or_line_fails(lines, word, data):
    index = data.draw(st.integers(0, len(lines) - 1))
    more = [*lines[:index], [*lines[index], word], *lines[index + 1 :]]
    for other in (more, [*lines, [word]], [[word], *lines], lines[:-1]):
        assert not texts_match(joined(other), joined(lines))
        assert not texts_match(joined(lines), joined(other))


@given(st.lists(NUMBERS, min_size=2, max_size=6, unique=True))
def test_the_order_of_lines_and_words_matters(numbers):
    lines = [str(n) for n in numbers]
    assert not texts_match("\n".join(reversed(lines)), "\n".join(lines))
    assert not texts_match(" ".join(reversed(lines)), " ".join(lines))
    assert not texts_match(" ".join(lines), "\n".join(lines))


@given(NUMBERS, st.integers(1, 5))
def test_numbers_are_compared_by_value(n, zeros):
    assert texts_match(f"{n}." + "0" * zeros, str(n))
    assert texts_match(str(n), f"{n}." + "0" * zeros)
    assert texts_match(f"{n}e0", str(n))
    assert texts_match(("-" if n < 0 else "+") + "0" * zeros + str(abs(n)), str(n))


@given(NUMBERS, st.integers(1, 10**6))
def test_whole_numbers_are_exact(n, more):
    assert not texts_match(str(n + more), str(n))
    assert not values_match(returned(n + more), n)


@given(st.floats(1e-3, 1e12), st.floats(-9e-6, 9e-6))
def test_a_fraction_matches_within_the_tolerance(expected, off):
    near = expected * (1 + off)
    text = f"{expected:.12f}"
    assert texts_match(f"{near:.12f}", text)
    assert values_match(returned(near), expected)


@given(st.floats(1e-2, 1e12), st.floats(2e-5, 1.0), st.sampled_from([-1, 1]))
def test_a_fraction_beyond_the_tolerance_fails(expected, off, sign):
    far = expected * (1 + sign * off)
    assert not texts_match(f"{far:.12f}", f"{expected:.12f}")
    assert not values_match(returned(far), expected)


@pytest.mark.parametrize(
    ("output", "expected", "matches"),
    [
        ("1000", "1e3", True),
        ("1e3", "1000", True),
        (".5", "0.5", True),
        ("0.50", "0.5", True),
        ("-0", "0", True),
        ("0.333333", "0.33333333", True),
        ("0.3333", "0.33333333", False),
        ("0.0000000001", "0.0", True),
        ("0.001", "0.0", False),
        ("99999.9", "100000", False),
        ("100000.1", "100000", False),
        ("100000.1", "100000.0", True),
        ("100000", "100000.1", True),
        ("yes", "YES", False),
        ("yes", "yes.", False),
        ("1,2", "1, 2", False),
        ("", "", True),
        ("", "0", False),
        ("0", "", False),
        (" \n\n", "", True),
        ("a b", "a\nb", False),
        ("a\r\nb\r\n", "a\nb", True),
        ("[1, 2]", "[1,  2]", True),
        ("0x10", "16", False),
        ("True", "1", False),
        ("1/2", "0.5", False),
        ("\u0663", "3", False),
        ("\uff11\uff12", "12", False),
        ("1_000", "1000", False),
        ("1_0", "10.0", False),
        ("nan", "NaN", False),
        ("NaN", "0.5", False),
        ("sNaN", "0.5", False),
        ("0.5", "NaN", False),
        ("inf", "Infinity", False),
        ("Infinity", "0.5", False),
        ("Infinity", "1e999", False),
        ("0.5", "inf", False),
        ("1e999999999999999999", "1e5", False),
        ("1e5", "1e999999999999999999", False),
        ("1e999999999", "1", False),
        ("1e99999999999999999999999", "1.5", False),
        ("1e-999999999999999999", "0.5", False),
        ("1" + "0" * 400, "1e400", False),
        ("0" * 500 + "1", "1", False),
        ("9" * 300, "9" * 299 + "8", False),
        ("9" * 300 + ".0", "9" * 300, True),
    ],
)
def test_texts(output, expected, matches):
    assert texts_match(output, expected) is matches


@pytest.mark.parametrize(
    ("output", "expected", "tolerance", "matches"),
    [
        ("1.001", "1.0", 0.01, True),
        ("1.02", "1.0", 0.01, False),
        ("1.0000001", "1.0", 0, False),
        ("0.00000000001", "0.0", 0, False),
        ("1.50", "1.5", 0, True),
        ("101", "100", 0.5, False),
        ("0.5", "-0.5", 0.1, False),
    ],
)
def test_the_tolerance_of_a_test(output, expected, tolerance, matches):
    assert texts_match(output, expected, tolerance) is matches


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(output, expected):
    assert texts_match(output, expected) in (True, False)


@given(
    st.from_regex(r"[+-]?[0-9._eE+-]{1,40}", fullmatch=True),
    st.from_regex(r"[+-]?[0-9.eE-]{1,20}", fullmatch=True),
)
def test_any_two_number_like_words_can_be_compared(output, expected):
    assert texts_match(output, expected) in (True, False)


def test_long_outputs_are_compared_in_time():
    started = time.monotonic()
    many = "\n".join(f"{i}.0" for i in range(100_000))
    assert texts_match(many, "\n".join(map(str, range(100_000))))
    assert not texts_match("9" * 5_000_000, "8" * 5_000_000)
    assert not texts_match("1e9999999 " * 1000, "1e999999 " * 1000)
    assert time.monotonic() - started < 20


@given(JSON_VALUES)
def test_every_value_matches_itself(value):
    assert values_match(returned(value), value)
    assert values_match(returned(value), value, tolerance=0)
    assert values_match(returned([value]), [value], wrapped=True)


@given(JSON_VALUES, JSON_VALUES, st.booleans())
def test_any_two_values_can_be_compared(value, expected, wrapped):
    assert values_match(returned(value), expected, wrapped) in (True, False)


@given(st.text(), JSON_VALUES)
def test_any_text_can_be_compared_as_a_value(text, expected):
    assert values_match(text, expected) in (True, False)


@pytest.mark.parametrize(
    ("value", "expected", "matches"),
    [
        ("[1, 2]", [1, 2], True),
        ("[1, 2]", [2, 1], False),
        ("[1, 2, 3]", [1, 2], False),
        ("[1]", [1, 2], False),
        ("[[1], [2]]", [[1], [2]], True),
        ("[1, [2, [3]]]", [1, [2, [3]]], True),
        ("1", [1], False),
        ("[1]", 1, False),
        ("1", 1.0, True),
        ("1.0", 1, True),
        ("0.33333333", 0.333333333, True),
        ("0.34", 0.333333333, False),
        ("3.0000001", 3, False),
        ("[0.1, 0.30000000000000004]", [0.1, 0.3], True),
        ('{"a": [1, 0.5]}', {"a": [1, 0.50000001]}, True),
        ('{"a": 1, "b": 2}', {"b": 2, "a": 1}, True),
        ('{"a": 1}', {"a": 1, "b": 2}, False),
        ('{"a": 1, "b": 2}', {"a": 1}, False),
        ('{"a": 1}', ["a"], False),
        ('["a"]', {"a": 1}, False),
        ("{}", [], False),
        ("[]", {}, False),
        ("null", None, True),
        ("null", 0, False),
        ("0", None, False),
        ("null", [], False),
        ("false", [], False),
        ('""', None, False),
        ('"1"', 1, False),
        ("1", "1", False),
        ('"a "', "a", False),
        ('"a"', "A", False),
        ('"0.50"', "0.5", False),
        ("true", True, True),
        ("true", False, False),
        ("true", "true", False),
        ("true", 1.00000001, False),
        ("2", True, False),
        ("NaN", 0.5, False),
        ("NaN", 1, False),
        ("[NaN]", [0.0], False),
        ("Infinity", 0.5, False),
        ("-Infinity", 1e308, False),
        ("1e999", 1.5, False),
        ("9" * 4000, 0.5, False),
        ("9" * 5000, 1, False),
        ("1", float("inf"), False),
        ("-Infinity", float("inf"), False),
        ("0.5", float("nan"), False),
        ("", "", False),
        ("", None, False),
        ("[1", [1], False),
        ("1 1", 1, False),
        ("passed", "passed", False),
    ],
)
def test_values(value, expected, matches):
    assert values_match(value, expected) is matches


def test_true_is_one_as_in_python_and_in_livecodebench():
    assert values_match("true", 1)
    assert values_match("1", True)
    assert values_match("[0, 1]", [False, True])


def test_a_tuple_is_a_list():
    assert values_match(returned((1, (2, 3))), [1, [2, 3]])


@pytest.mark.parametrize(
    ("value", "expected", "matches"),
    [
        (5, [5], True),
        ([5], [5], True),
        ([5], [[5]], True),
        (5, [[5]], False),
        ([[5]], [5], False),
        ([1, 2], [[1, 2]], True),
        (1, [1, 2], False),
        ("a", ["a"], True),
        (0.3333333, [0.33333333], True),
        (None, [], False),
        (5, 5, True),
        ([5], 5, False),
    ],
)
def test_wrapped_takes_the_only_element_of_a_list(value, expected, matches):
    assert values_match(returned(value), expected, wrapped=True) is matches


def test_without_wrapped_the_list_is_needed():
    assert not values_match("5", [5])


def test_the_tolerance_reaches_into_values():
    assert values_match("[[1.05]]", [[1.0]], tolerance=0.1)
    assert not values_match("[[1.0000001]]", [[1.0]], tolerance=0)


@pytest.mark.parametrize("depth", [500, 5_000, 1_000_000])
def test_a_deep_value_does_not_raise(depth):
    deep = "[" * depth + "]" * depth
    assert not values_match(deep, [1])
    assert not values_match(deep, [], wrapped=True)
    assert not values_match('{"a":' * depth + "1" + "}" * depth, {"a": 1})


@pytest.mark.parametrize("depth", [10, 200])
def test_a_deep_expected_value_matches_itself(depth):
    deep = json.loads("[" * depth + "]" * depth)
    assert values_match("[" * depth + "]" * depth, deep)


def test_a_very_deep_expected_value_does_not_raise():
    deep = json.loads("[" * 900 + "]" * 900)
    assert values_match("[" * 900 + "]" * 900, deep) in (True, False)
