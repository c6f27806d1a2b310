"""Judges claims about final scores a second time, by the area under the curve of all evaluations.

The measure is declared here once for all claims, whatever it shows. A final score is one evaluation of a few
hundred responses; the area averages all of them, so it varies less from seed to seed. It is another quantity: it
asks which arm is ahead over the whole of training, and an arm that learns faster and ends lower can lead. So it
stands beside the verdict and never replaces it; docs/analysis.md has what it does to intervals. Verdicts by area
are corrected for each other, apart from the first ones.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from analysis.claims.claim import Claim, Effect
from analysis.claims.claims import CLAIMS
from analysis.claims.multiple_testing import ClaimVerdict, judge_effects
from analysis.sweeps.effects import area_score, between, final_score
from analysis.sweeps.kept import KeptSweep


def area_effect(claim: Claim) -> Effect | None:
    """Returns the effect of a claim about final scores on the area under their curves; None for other claims."""
    keywords = getattr(claim.effect, "keywords", {})
    if keywords.get("measure") is not final_score:
        return None
    return partial(between, measure=area_score, plus=keywords["plus"], minus=keywords["minus"])


def judge_areas(sweeps: Mapping[str, tuple[KeptSweep, str]]) -> dict[str, ClaimVerdict]:
    """Returns the verdict by area of each claim whose runs were evaluated in between, by its id."""
    values: dict[str, npt.NDArray[np.float64]] = {}
    settled: set[int] = set()
    for claim in CLAIMS:
        effect = area_effect(claim)
        if effect is None or claim.sweep not in sweeps:
            continue
        kept = sweeps[claim.sweep][0]
        x_S = effect(kept).to_numpy(dtype=float)
        if x_S.size:
            settled |= {len(values)} if kept.settled else set()
            values[claim.id] = x_S
    margins = {claim.id: claim.margin for claim in CLAIMS}
    found = judge_effects([*values.values()], [margins[name] for name in values], settled)
    return dict(zip(values, found, strict=True))
