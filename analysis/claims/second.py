"""Prints the second judgements of claims: where clipping acts, and by the area under the curve.

They stand beside the verdicts at the default, in the same cell of the claims table and in a table of their own,
which says at which setting clipping acts, or which command makes such a setting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.claims.multiple_testing import ClaimVerdict
from analysis.claims.regime import LIVE, SecondJudgement
from analysis.draw.cells import number_cell
from analysis.draw.table import DASH, NO_BREAK, Table
from analysis.sweeps.kept import confounds_words, world_of

CAPTION = (
    "Where clipping acts: of claims about clip methods, the verdict at the lowest learning rate at which the arms "
    f"that the claim calls worse clip at least {LIVE:.0%} of their tokens, in the same world. Area: the verdict "
    "by avg@n averaged over training, which asks who is ahead on the way. Both are corrected for themselves and "
    "change no verdict at the default. What acts: of claims about RL, how much of what they are about happens at "
    f"the default; below {LIVE:.0%} their setting couldn't tell."
)


def verdict_numbers(found: ClaimVerdict) -> dict[str, Any]:
    """Returns a second verdict as claims.json holds it."""
    return {
        "verdict": found.verdict,
        "estimate": found.estimate,
        "interval": list(found.interval) if found.interval else None,
        "seeds": found.seeds,
        "p_value": found.p_value,
    }


def live_numbers(found: SecondJudgement) -> dict[str, Any]:
    """Returns a judgement where clipping acts as claims.json holds it; verdict None where no setting is live."""
    one = found.setting
    return {
        "clipped_at_default": found.default,
        "clipped": one.clipped if one else None,
        "sweep": one.sweep if one else None,
        "setting": one.words if one else None,
        "world": world_of(one.kept) if one else None,
        **(verdict_numbers(found.verdict) if found.verdict else {"verdict": None}),
        "caveats": confounds_words(one.kept) if one else [],
        "command": found.command,
    }


def estimate_cell(entry: Mapping[str, Any]) -> str:
    """Prints an effect with its interval: "+0.031 [0.010, 0.052]"."""
    if entry["estimate"] is None:
        return DASH
    ends = f" [{f',{NO_BREAK}'.join(map(number_cell, entry['interval']))}]" if entry["interval"] else ""
    return number_cell(entry["estimate"], signed=True) + ends


def effects_cell(entry: Mapping[str, Any]) -> str:
    """Prints a claim's effect at the default, and those of its second judgements with their verdicts."""
    parts = [estimate_cell(entry)]
    for key, name in (("live", "where clipping acts"), ("area", "area")):
        if (found := entry[key]) and found["verdict"]:
            parts.append(f"{name} {estimate_cell(found)}, {found['verdict']}")
    return "; ".join(parts)


def second_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Lists the claims that have a second judgement, with the verdict at the default first."""
    rows = [
        [
            entry["id"],
            second_cell(entry),
            acts_cell(entry),
            *live_cells(entry["live"]),
            second_cell(entry["area"]),
        ]
        for entry in entries
        if entry["live"] or entry["area"] or entry["mechanism"]
    ]
    names = (
        *("Claim", "At the default", "What acts there", "Where clipping acts", "Clipped there"),
        *("Setting, or what makes one", "Area"),
    )
    return Table("claims_second", CAPTION, [("", name) for name in names], rows)


def second_cell(found: Mapping[str, Any] | None) -> str:
    """Prints a verdict with its effect: "supported +0.031 [0.010, 0.052], 5 seeds"; a dash where there is none."""
    if not found or not found["verdict"]:
        return DASH
    if found["estimate"] is None:
        return str(found["verdict"])
    return f"{found['verdict']} {estimate_cell(found)}, {found['seeds']}{NO_BREAK}seeds"


def live_cells(found: Mapping[str, Any] | None) -> list[str]:
    """Prints the verdict where clipping acts, what is clipped there, and where; dashes for other claims."""
    if not found:
        return [DASH] * 3
    clipped = DASH if found["clipped"] is None else f"{found['clipped']:.2%}"
    where = f"{found['sweep']}: {found['setting']}" if found["setting"] else found["command"]
    return [second_cell(found), clipped, where]


def acts_cell(entry: Mapping[str, Any]) -> str:
    """Prints how much of what a claim is about happens at the default: "clipped tokens 0.17%"."""
    words, share = ("clipped tokens", entry["live"]["clipped_at_default"]) if entry["live"] else (None, None)
    if entry["mechanism"]:
        words, share = entry["mechanism"]["words"], entry["mechanism"]["share"]
    return DASH if share is None else f"{words} {share:.{2 if share < 0.1 else 0}%}"
