"""Cells: one seed, no seed, zero, negative zero, NaN and infinity are printed alike in every table."""

import math

import pytest

from analysis.draw.cells import difference_cell, interval_cell, number_cell
from analysis.draw.table import DASH, MINUS
from analysis.statistics import Interval, mean_interval

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.8124, "0.812", "+0.812"),
        (-0.25, f"{MINUS}0.250", f"{MINUS}0.250"),
        (0.0, "0.000", "0.000"),
        (-0.0, "0.000", "0.000"),
        (-0.0004, "0.000", "0.000"),
        (0.0004, "0.000", "0.000"),
        (-1e-5, "0.000", "0.000"),
        (12345.678, "12345.678", "+12345.678"),
        (None, DASH, DASH),
        (NAN, DASH, DASH),
        (INF, DASH, DASH),
        (-INF, DASH, DASH),
    ],
)
def test_a_number_has_a_typographic_minus_no_signed_zero_and_a_dash_for_no_value(value, plain, signed):
    assert number_cell(value) == plain
    assert number_cell(value, signed=True) == signed


def test_digits_are_those_asked_for():
    assert [number_cell(-1.25, digits) for digits in (0, 1, 2)] == [f"{MINUS}1", f"{MINUS}1.2", f"{MINUS}1.25"]
    assert number_cell(-0.4, 0) == "0"


@pytest.mark.parametrize(
    ("interval", "plain", "signed", "difference"),
    [
        (Interval(0.5, 0.125, 3), "0.500 ± 0.125", "+0.500 ± 0.125", "+0.500 ± 0.125 *"),
        (Interval(-0.5, 0.125, 3), *[f"{MINUS}0.500 ± 0.125"] * 2, f"{MINUS}0.500 ± 0.125 *"),
        (Interval(0.1, 0.2, 3), "0.100 ± 0.200", "+0.100 ± 0.200", "+0.100 ± 0.200"),
        (Interval(-0.0001, 0.1, 3), *["0.000 ± 0.100"] * 3),
        # equal values have an interval of no width, which excludes nothing
        (Interval(0.3, 0.0, 3), "0.300 ± 0.000", "+0.300 ± 0.000", "+0.300 ± 0.000"),
        (Interval(0.0, 0.0, 3), *["0.000 ± 0.000"] * 3),
        # one seed has no interval, none has no mean
        (Interval(0.5, NAN, 1), "0.500", "+0.500", "+0.500"),
        (Interval(NAN, NAN, 0), *[DASH] * 3),
        (Interval(0.5, INF, 2), "0.500", "+0.500", "+0.500"),
        (Interval(INF, NAN, 2), *[DASH] * 3),
    ],
)
def test_an_interval_is_printed_with_what_its_seeds_allow(interval, plain, signed, difference):
    assert interval_cell(interval) == plain
    assert interval_cell(interval, signed=True) == signed
    assert difference_cell(interval) == difference


@pytest.mark.parametrize(("values", "cell"), [([], DASH), ([0.25], "0.250"), ([0.25, 0.25], "0.250 ± 0.000")])
def test_values_over_seeds_become_a_cell(values, cell):
    assert interval_cell(mean_interval(values)) == cell
