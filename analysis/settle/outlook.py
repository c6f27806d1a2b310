"""Works out where a claim stands between two batches: its interval, its boundary, and the seeds and time to go."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.arms import as_words
from analysis.claims import always_valid
from analysis.claims.judge import effects_of_all
from analysis.claims.multiple_testing import (
    INCONCLUSIVE,
    NOT_RUN,
    SUPPORTED,
    bar_of,
    single_test,
    single_tests,
)
from analysis.claims.regime import AtHand, effects_where_live, live_settings
from analysis.settle.targets import Target
from analysis.statistics import has_spread
from analysis.sweeps.kept import KeptSweep, as_number

NO_VALUES = pd.Series(dtype=float)
Tested = Mapping[str, tuple[str, float]]  # verdict and p-value by a claim's id


@dataclass(frozen=True)
class Outlook:
    """Holds where a claim stands.

    effects: one value a seed, by seed. level: the error that is left for it beside all claims tested. interval:
    the means that this level leaves over. boundary: how far from 0 their mean must be to settle it now. to_go:
    seeds until it is settled, if the effects stay as they look; None if over 1000 or unknown. minutes: of run time
    that a seed takes, all arms together; None if unknown.
    """

    target: Target
    verdict: str
    effects: pd.Series
    level: float
    interval: tuple[float, float]
    boundary: float
    to_go: int | None
    minutes: float | None

    @property
    def in_all(self) -> int | None:
        """Returns how many seeds settle the claim, with those that it has; None where that isn't known."""
        return None if self.to_go is None else len(self.effects) + self.to_go

    @property
    def minutes_to_go(self) -> float | None:
        """Returns the run time until the claim is settled, None where seeds or their time aren't known."""
        return None if self.to_go is None or self.minutes is None else self.to_go * self.minutes


def outlook(target: Target, tested: Tested, own: KeptSweep | None, margin: float | None) -> Outlook:
    """Returns where a claim stands beside all that are `tested`.

    own: its runs; None without any. margin: its own or the one asked for.
    """
    effects = NO_VALUES if own is None else target.claim.effect(own).sort_index()
    judged = replace(target.claim.seed_effects(own), margin=margin)
    if target.two_arms:
        judged = replace(judged, in_batches=True)
    x_S, level = judged.x_S, level_for(target, tested)
    verdict, interval, boundary, to_go = NOT_RUN if not x_S.size else INCONCLUSIVE, (-np.inf, np.inf), np.inf, None
    if judged.testable:
        said, p_value = single_test(judged)
        verdict = said if p_value <= level else INCONCLUSIVE
    if has_spread(x_S):
        interval = always_valid.interval(x_S, level)
        boundary = always_valid.needed_mean(x_S, level)
        in_all = always_valid.seeds_in_all(x_S, margin, level)
        to_go = None if in_all is None else in_all - x_S.size
    to_go = 0 if verdict not in (NOT_RUN, INCONCLUSIVE) else to_go
    return Outlook(target, verdict, effects, level, interval, boundary, to_go, minutes_a_seed(target, own))


def level_for(target: Target, tested: Tested) -> float:
    """Returns the p-value at which the report would give the claim a verdict, beside all claims that were tested.

    Two arms that no paper's claim compares are one claim alone.
    """
    if target.two_arms:
        return 0.05
    return bar_of(target.claim.id, {**tested, target.claim.id: (SUPPORTED, 1.0)})


def tests_of_all(sweeps: AtHand) -> Tested:
    """Returns what each paper's claim tests as by itself."""
    return single_tests(effects_of_all(sweeps))


def tests_where_live(sweeps: AtHand) -> Tested:
    """Returns the same of claims about clip methods where clipping acts."""
    return single_tests(effects_where_live(live_settings(sweeps)))


def minutes_a_seed(target: Target, own: KeptSweep | None) -> float | None:
    """Returns the run time of one seed of all arms that the claim compares, as earlier runs took it.

    An arm's is the median, since some run may have stood still with its machine.
    """
    if own is None:
        return None
    seconds: dict[str, list[float]] = {}
    selected = {key: [*map(as_number, values)] for key, values in target.selected.items() if values}
    for run in own.runs:
        arm = {key: as_number(as_words(value)) for key, value in run["arm"].items()}
        if all(arm.get(key, values[0]) in values for key, values in selected.items()):
            seconds.setdefault(str(arm), []).append(run.get("seconds") or 0)
    taken = [float(np.median(found)) for found in seconds.values()]
    return target.arms * float(np.mean(taken)) / 60 if taken and any(taken) else None
