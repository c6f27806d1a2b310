"""Says what a claim is, and makes the effects that most claims are judged on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.multiple_testing import SeedEffects
from analysis.paper.effects import Published
from analysis.paper.papers import Paper, paper_of
from analysis.sweeps.effects import Arms, area_score, between, final_score, learning_score
from analysis.sweeps.kept import KeptSweep

Effect = Callable[[KeptSweep], pd.Series]

METHOD = "clip_method"
NO_DIFFERENCE = 0.03  # of avg@n, below which two arms count as equal
OF_SCORES = (final_score, learning_score, area_score)


@dataclass(frozen=True)
class Claim:
    """Says what a paper claims, and how we measure it.

    id: the paper's letter and a number. measured: the effect in words. published: gives the paper's own numbers,
    {} where it has words alone. of_equality: the claim is that there is no difference.
    """

    id: str
    statement: str
    sweep: str
    measured: str
    effect: Effect
    published: Callable[[], Published]
    of_equality: bool = False

    @property
    def margin(self) -> float | None:
        """Returns the difference below which arms count as equal; None of measures that have none declared."""
        measure = getattr(self.effect, "keywords", {}).get("measure")
        return NO_DIFFERENCE if measure in OF_SCORES else None

    def seed_effects(self, kept: KeptSweep | None) -> SeedEffects:
        """Returns the claim's effect on a sweep's runs; without values where there are none (None).

        Its seeds came in batches where it has more of them than the runs that were there before.
        """
        x_S = self.effect(kept).sort_index().to_numpy(dtype=float) if kept else np.array([])
        first = kept.first_look if kept else None
        grown = first is not None and x_S.size > (len(self.effect(first)) if first.runs else 0)
        return SeedEffects(x_S, self.margin, self.of_equality, grown)

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
