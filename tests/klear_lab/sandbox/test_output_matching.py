"""What counts as the same output, and what must not."""

import json
import time
from decimal import Decimal
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.sandbox import output_matching
from klear_lab.sandbox.output_matching import lines_match, texts_match, values_match

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


@given(NUMBERS)
def test_numbers_as_print_writes_them_are_compared_by_value(n):
    assert texts_match(f"{n}.0", str(n))
    assert texts_match(str(n), f"{n}.0")


@given(st.floats(-1e300, 1e300), st.integers(-(10**6), 10**6))
def test_what_print_makes_of_a_number_is_a_number(x, n):
    nearby = x * (1 + 1e-9)
    for a, b in ((x, nearby), (nearby, x), (float(n), n), (Decimal(n) / 8, n / 8)):
        assert texts_match(str(a), str(b))


@given(NUMBERS, st.integers(1, 5))
def test_digits_that_print_does_not_write_are_text(n, zeros):
    for other in ("0" * zeros + str(abs(n)), f"+{n}", f"{n}.", f"{n}.0" + "0" * zeros, f"{n}e0", f"{n}E0"):
        assert not texts_match(str(n), other)
        assert not texts_match(other, str(n))


@given(st.integers(-(10**9), 10**9), st.integers(1, 9), st.integers(1, 5))
def test_fractions_of_another_count_of_decimals_match_only_as_print_writes_them(n, tenths, zeros):
    written = f"{n}.{tenths}"
    assert not texts_match(written, written + "0" * zeros)
    assert not texts_match(written + "0" * zeros, written)
    assert not texts_match(written, written + "0" * zeros, tolerance=0)
    assert texts_match(written, written + "0" * zeros, tolerance=1e-9)
    assert texts_match(written, written + "0" * 10 + "1")


@given(st.floats(0.1, 1e9), st.integers(1, 12))
def test_one_format_s_fractions_are_numbers(x, decimals):
    assert texts_match(f"{x * (1 + 4e-6):.{decimals}f}", f"{x:.{decimals}f}") or decimals < 6
    assert not texts_match(f"{x * 1.1 + 0.2:.{decimals}f}", f"{x:.{decimals}f}")


@given(NUMBERS, st.integers(1, 10**6))
def test_whole_numbers_are_exact(n, more):
    assert not texts_match(str(n + more), str(n))
    assert not values_match(returned(n + more), n)


@given(st.floats(1e-3, 1e12), st.floats(-9e-6, 9e-6))
def test_a_fraction_matches_within_the_tolerance(expected, off):
    near = expected * (1 + off)
    assert texts_match(f"{near:.12f}", f"{expected:.12f}")
    assert texts_match(str(near), str(expected))
    assert values_match(returned(near), expected)


@given(st.floats(1e-2, 1e12), st.floats(2e-5, 1.0), st.sampled_from([-1, 1]))
def test_a_fraction_beyond_the_tolerance_fails(expected, off, sign):
    far = expected * (1 + sign * off)
    assert not texts_match(f"{far:.12f}", f"{expected:.12f}")
    assert not values_match(returned(far), expected)


@pytest.mark.parametrize(
    ("output", "expected", "matches"),
    [
        ("1000", "1e3", False),
        ("1e3", "1000", False),
        (".5", "0.5", False),
        ("0.5", "0.50", False),
        ("0.50", "0.5", False),
        ("11", "0011", False),
        ("0011", "11", False),
        ("007", "7", False),
        ("00", "0", False),
        ("1.1", "1.10", False),
        ("1.10", "1.1", False),
        ("2.0", "2.00", False),
        ("2", "2.00", False),
        ("3.", "3", False),
        ("3.", "3.0", False),
        ("+3", "3", False),
        ("--3", "3", False),
        ("00.5", "0.5", False),
        ("1e5", "100000", False),
        ("1E+16", "1e+16", False),
        ("1e+016", "1e+16", False),
        ("1.0e+16", "1e+16", False),
        ("12:05", "12:5", False),
        ("1,000", "1000", False),
        ("10000000000000000", "1e+16", True),
        ("1e-05", "0.00001", True),
        ("1.0", "1", True),
        ("-0.0", "0.0", True),
        ("-0.00", "0.00", True),
        ("0.333330", "0.333331", True),
        ("1.10", "1.11", False),
        ("3.141592653589793", "3.14159265358979323846", True),
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
        ("1.50", "1.5", 0, False),
        ("1.5", "1.5", 0, True),
        ("2", "2.0", 0, True),
        ("1.50", "1.5", 1e-6, True),
        ("011", "11", 0.1, False),
        ("01.5", "1.5", 0.1, False),
        ("11", "0011", 0, False),
        ("1e3", "1000.0", 0.1, True),
        (".5", "+0.500", 0.1, True),
        ("0x1", "1.0", 0.1, False),
        ("1e99999999", "1e5", 0.1, False),
        ("101", "100", 0.5, False),
        ("0.5", "-0.5", 0.1, False),
    ],
)
def test_the_tolerance_of_a_test(output, expected, tolerance, matches):
    assert texts_match(output, expected, tolerance) is matches


@pytest.mark.parametrize(
    ("output", "expected", "matches"),
    [
        ("0011", "0011", True),
        ("1.0", "1", False),
        ("a b", "a b", True),
        ("a b \r\n\n", "a b", True),
        ("a  b", "a b", False),
        (" a", "a", False),
        ("a\n\nb", "a\nb", False),
        ("a", "a\nb", False),
        ("", "\n", True),
    ],
)
def test_exact_texts_are_the_same_in_every_character_but_for_what_ends_lines(output, expected, matches):
    assert texts_match(output, expected, exact=True) is matches
    assert texts_match(expected, output, exact=True) is matches


@pytest.mark.parametrize("exact", [False, True])
def test_any_two_texts_can_be_compared(exact):
    @given(st.text(), st.text())
    def compared(output, expected):
        assert texts_match(output, expected, exact=exact) in (True, False)

    compared()


def slowly(output, expected):
    """As `texts_match`, without any short cut."""
    ours, theirs = ([line.split() for line in text.split("\n") if line.split()] for text in (output, expected))
    return len(ours) == len(theirs) and all(lines_match(a, b, None) for a, b in zip(ours, theirs, strict=True))


@given(
    st.lists(st.sampled_from(["", " ", "1", "1.0", "1 2", "a", "\r", "1  2 ", "\x0b"]), max_size=12),
    st.lists(st.sampled_from(["", " ", "1", "1.0", "1 2", "a", "\r", "1  2 ", "\x0b"]), max_size=12),
    st.lists(st.sampled_from(["same", "1.0", "", "x y"]), max_size=12),
    st.integers(1, 9),
)
def test_short_cuts_change_no_verdict(ours, theirs, first, block):
    output, expected = "\n".join([*first, *ours]), "\n".join([*first, *theirs])
    with mock.patch.object(output_matching, "BLOCK", block):
        assert texts_match(output, expected) == slowly(output, expected)


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


def seconds_for(output, expected, **more):
    started = time.perf_counter()
    texts_match(output, expected, **more)
    return time.perf_counter() - started


@pytest.mark.parametrize("exact", [False, True])
def test_a_million_lines_that_differ_at_the_end_are_compared_at_once(exact):
    lines = "\n".join(map(str, range(1_000_000)))
    assert not texts_match(f"{lines}\n1", f"{lines}\n2", exact=exact)
    assert seconds_for(f"{lines}\n1", f"{lines}\n2", exact=exact) < 0.2
    assert seconds_for(f"\n{lines}\n1", f"{lines}\n2", exact=exact) < 2
    assert seconds_for("x" * 16_000_000 + "a", "x" * 16_000_000 + "b", exact=exact) < 1


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
        ("9" * 5000, 0.5, False),
        ("9" * 5000, "9" * 5000, False),
        ("9" * 5000, None, False),
        ("9" * 5000, True, False),
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


@pytest.mark.parametrize(
    ("value", "expected", "matches"),
    [
        ("1", 1, True),
        ("1", True, False),
        ("true", 1, False),
        ("1.0", 1, False),
        ("1", 1.0, False),
        ("0.1", 0.1, True),
        ("0.10000001", 0.1, False),
        ("null", None, True),
        ("[true]", [1], False),
        ('{"a": 1}', {"a": True}, False),
    ],
)
def test_exact_values_are_of_the_same_type(value, expected, matches):
    assert values_match(value, expected, exact=True) is matches


def test_a_number_of_any_length_is_compared_in_time():
    started = time.monotonic()
    nines = 10**5000 - 1
    for exact in (False, True):
        assert values_match("9" * 5000, nines, exact=exact)
        assert values_match("-" + "9" * 5000, -nines, exact=exact)
        assert values_match("[1, [" + "9" * 5000 + "]]", [1, [nines]], exact=exact)
        assert not values_match("9" * 4999 + "8", nines, exact=exact)
    assert not values_match("9" * 10_000_000, 1)
    assert not values_match("9" * 10_000_000, 0.5)
    assert not values_match("9" * 10_000_000, 10**5000)
    assert time.monotonic() - started < 10


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
