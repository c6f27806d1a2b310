"""Says how much of what a claim is about happens in its runs, for claims about RL that aren't about clipping.

A setting in which nothing is truncated can't tell what masking truncated responses does. So each such claim names
the share that must be there for its two sides to differ, and the runs in which to look: those of the reference
arms, mean over steps, then over runs. Like the rule for clipping (regime.py) it looks at logged probes alone. At
less than LIVE of it the claim's setting says mostly that nothing happened. Not here: C13 and C14, as no probe
counts programs that pass some of their tests; C21 and D6, whose sides differ in all of RL.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.claims.claim import Claim
from analysis.sweeps.effects import Arms, Measure, Run, mean_of, whole
from analysis.sweeps.kept import KeptSweep

TRUNCATED, NO_ADVANTAGE = whole("rollout/truncated_fraction"), whole("rollout/zero_advantage_fraction")


@dataclass(frozen=True)
class Mechanism:
    """Holds what must happen for a claim's sides to differ.

    share: how much of it there is in a run. arms: those of the runs to look at; all by default.
    """

    words: str
    share: Measure
    arms: Arms = field(default_factory=dict)


def unequal_lengths(run: Run) -> float | None:
    """Returns how much longer or shorter wrong responses are than correct ones, as a share of the mean length."""
    wrong, correct, mean = (whole(f"rollout/length_{name}")(run) for name in ("wrong", "correct", "mean"))
    return None if wrong is None or correct is None or not mean else abs(wrong - correct) / mean


def filtered_out(run: Run) -> float | None:
    """Returns the share of RL prompts that the difficulty filter dropped; None of a run without it."""
    steps = [
        one for one in run.get("data") or [] if one["set"] == "rl" and one["step"].startswith("data.filter_rl")
    ]
    return 1 - steps[-1]["kept"] / steps[-1]["taken"] if steps else None


WITHOUT_ADVANTAGE = "groups without advantage"
MECHANISMS: Mapping[str, Mechanism] = {
    **dict.fromkeys(
        ("C11", "C12"), Mechanism("correct responses, which the SFT term is on", whole("reward/accuracy"))
    ),
    "C15": Mechanism("prompts filtered out", filtered_out),
    **dict.fromkeys(
        ("C16", "C17"), Mechanism(WITHOUT_ADVANTAGE, NO_ADVANTAGE, {"rl.drop_zero_advantage": ["false"]})
    ),
    "C22": Mechanism("truncated responses", TRUNCATED, {"rl.max_response_tokens": ["44"]}),
    "D1": Mechanism("truncated responses", TRUNCATED, {"ladder": ["dapo_0_grpo"]}),
    "D3": Mechanism("truncated responses", TRUNCATED, {"ladder": ["dapo_2_clip_higher"]}),
    **dict.fromkeys(
        ("D4", "D8"), Mechanism("difference in length of wrong and correct responses", unequal_lengths)
    ),
    "D5": Mechanism(WITHOUT_ADVANTAGE, NO_ADVANTAGE, {"ladder": ["dapo_4_token_level_loss"]}),
}


def mechanism_in(claim: Claim, kept: KeptSweep) -> dict[str, Any] | None:
    """Returns a claim's mechanism in words with its share in a sweep's runs, None if unknown; None without one."""
    mechanism = MECHANISMS.get(claim.id)
    if mechanism is None:
        return None
    return {"words": mechanism.words, "share": mean_of(kept.runs, mechanism.share, mechanism.arms)}
