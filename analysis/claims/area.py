"""Judges claims about final scores a second time, by the area under the curve of all evaluations.

The measure is declared here once for all claims, whatever it shows. A final score is one evaluation of a few
hundred responses; the area averages all of them, so it varies less from seed to seed. It is another quantity: it
asks which arm is ahead over the whole of training, and an arm that learns faster and ends lower can lead. So it
stands beside the verdict and never replaces it; docs/analysis.md has what it does to intervals. Verdicts by area
are corrected for each other, apart from the first ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from analysis.claims.claim import Claim
from analysis.claims.claims import CLAIMS
from analysis.claims.multiple_testing import ClaimVerdict, SeedEffects, judge_effects
from analysis.sweeps.effects import area_score, between, final_score
from analysis.sweeps.kept import KeptSweep


def area_claim(claim: Claim) -> Claim | None:
    """Returns a claim about final scores as one about the area under their curves; None for other claims."""
    keywords = getattr(claim.effect, "keywords", {})
    if keywords.get("measure") is not final_score:
        return None
    by_area = partial(between, measure=area_score, plus=keywords["plus"], minus=keywords["minus"])
    return replace(claim, effect=by_area)


def judge_areas(sweeps: Mapping[str, tuple[KeptSweep, str]]) -> dict[str, ClaimVerdict]:
    """Returns the verdict by area of each claim whose runs were evaluated in between, by its id."""
    effects: dict[str, SeedEffects] = {}
    for claim in CLAIMS:
        by_area = area_claim(claim)
        if by_area is None or claim.sweep not in sweeps:
            continue
        effect = by_area.seed_effects(sweeps[claim.sweep][0])
        if effect.x_S.size:
            effects[claim.id] = effect
    return dict(zip(effects, judge_effects([*effects.values()]), strict=True))
