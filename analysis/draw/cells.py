"""Prints numbers as table cells: one form of minus signs, digits, dashes and intervals for every table.

A number that rounds to zero has no sign. What has no value (none, NaN, infinite) is a dash. An interval without a
half-width, as that of one seed, is its mean alone, and `one_seed_note` tells the reader why.
"""

import math
from collections.abc import Iterable

from analysis.draw.table import DASH, MINUS
from analysis.statistics import Interval

ONE_SEED = "One seed has a mean alone: an interval needs two seeds."
DIGITS = 3  # of scores, which are shares between 0 and 1


def number_cell(value: float | None, digits: int = DIGITS, signed: bool = False) -> str:
    """Prints a number with a typographic minus, on wish with a plus: "0.812", "+0.031"; a dash for no value."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def interval_cell(interval: Interval, digits: int = DIGITS, signed: bool = False) -> str:
    """Prints "0.812 ± 0.031"; the mean alone where there is no half-width, a dash where there is no mean."""
    mean = number_cell(interval.mean, digits, signed)
    if mean == DASH or not math.isfinite(interval.half_width):
        return mean
    return f"{mean} ± {number_cell(interval.half_width, digits)}"


def range_cell(value: float | None, ends: tuple[float, float] | None, digits: int = DIGITS) -> str:
    """Prints "0.812 [0.781, 0.843]"; the value alone where there is no interval."""
    text = number_cell(value, digits)
    return text if ends is None else f"{text} [{', '.join(number_cell(end, digits) for end in ends)}]"


def one_seed_note(seeds: Iterable[int]) -> str:
    """Returns what a caption must add where any number comes from one seed; "" where none does."""
    return f" {ONE_SEED}" if 1 in set(seeds) else ""


def difference_cell(interval: Interval, digits: int = DIGITS) -> str:
    """Prints a difference with its sign, and a star where its interval excludes 0."""
    return interval_cell(interval, digits, signed=True) + (" *" if interval.excludes_zero else "")
