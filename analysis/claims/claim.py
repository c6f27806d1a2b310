"""Says what a claim is, and makes the effects that most claims are judged on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from analysis.paper.effects import Published
from analysis.paper.papers import Paper, paper_of
from analysis.sweeps.effects import Arms, between, final_score
from analysis.sweeps.kept import KeptSweep

Effect = Callable[[KeptSweep], pd.Series]

METHOD = "clip_method"


@dataclass(frozen=True)
class Claim:
    """Says what a paper claims, and how we measure it.

    id: the paper's letter and a number. measured: the effect in words. published: gives the paper's own numbers,
    {} where it has words alone.
    """

    id: str
    statement: str
    sweep: str
    measured: str
    effect: Effect
    published: Callable[[], Published]
    margin: float | None = None

    @property
    def paper(self) -> Paper:
        """Returns the paper that the claim is from. Raises ValueError for an id of no paper."""
        return paper_of(self.id)


def score_gap(plus: Arms, minus: Arms) -> Effect:
    """Returns the effect: final avg@n of some arms less that of others."""
    return partial(between, measure=final_score, plus=plus, minus=minus)


def measure_gap(measure: Callable[[Any], float | None], plus: Arms, minus: Arms) -> Effect:
    """Returns the effect: a measure on some arms less the same on others."""
    return partial(between, measure=measure, plus=plus, minus=minus)


def method_gap(plus: str, minus: str) -> Effect:
    """Returns the effect: final avg@n of one clip method less another."""
    return score_gap({METHOD: [plus]}, {METHOD: [minus]})


def value_gap(key: str, plus: str = "true", minus: str = "false") -> Effect:
    """Returns the effect: final avg@n of one value of a key less another."""
    return score_gap({key: [plus]}, {key: [minus]})
