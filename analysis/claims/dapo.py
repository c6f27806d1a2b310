"""Lists DAPO's claims, D1 to D8: each rung of its ladder (Table 1) above the one before, and two made in words."""

from functools import partial

from analysis.claims.claim import Claim, Effect, measure_gap, score_gap
from analysis.paper.effects import none_published, row_differences
from analysis.sweeps.effects import late
from analysis.sweeps.numbered_tables import DAPO_RUNGS

LADDER = "ladder"
GRPO, FILTERING, CLIP_HIGHER, PUNISHMENT, TOKEN_LEVEL, SAMPLING = DAPO_RUNGS


def higher_rung(claim_id: str, statement: str, plus: str, minus: str) -> Claim:
    """Returns the claim that one rung of the ladder ends above another."""
    return Claim(
        claim_id,
        statement,
        "dapo",
        f"final avg@n, {plus} less {minus}",
        score_gap({LADDER: [plus]}, {LADDER: [minus]}),
        partial(row_differences, "dapo", DAPO_RUNGS[plus], DAPO_RUNGS[minus]),
    )


def entropy_gap(plus: str, minus: str) -> Effect:
    """Returns the effect: entropy of the last quarter of the steps on one rung less that on another."""
    return measure_gap(late("policy/entropy"), {LADDER: [plus]}, {LADDER: [minus]})


DAPO = (
    higher_rung("D1", "overlong filtering beats naive GRPO", FILTERING, GRPO),
    higher_rung("D2", "Clip-Higher adds to overlong filtering", CLIP_HIGHER, FILTERING),
    higher_rung("D3", "the soft overlong punishment adds to Clip-Higher", PUNISHMENT, CLIP_HIGHER),
    higher_rung("D4", "the token-level loss adds to the soft overlong punishment", TOKEN_LEVEL, PUNISHMENT),
    higher_rung("D5", "dynamic sampling adds to the token-level loss", SAMPLING, TOKEN_LEVEL),
    higher_rung("D6", "all five techniques together beat naive GRPO", SAMPLING, GRPO),
    Claim(
        "D7",
        "Clip-Higher keeps entropy up",
        "dapo",
        f"entropy of the last quarter of the steps (nats), {CLIP_HIGHER} less {FILTERING}",
        entropy_gap(CLIP_HIGHER, FILTERING),
        none_published,
    ),
    Claim(
        "D8",
        "a loss by responses lets entropy grow beyond that of the token-level loss",
        "dapo",
        f"entropy of the last quarter of the steps (nats), {PUNISHMENT} less {TOKEN_LEVEL}",
        entropy_gap(PUNISHMENT, TOKEN_LEVEL),
        none_published,
    ),
)
