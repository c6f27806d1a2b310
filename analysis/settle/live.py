"""Says what settles a claim about clip methods where clipping acts: seeds of the setting it is judged at there."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from analysis.claims.claim import Claim
from analysis.claims.judge import sweeps_at_hand
from analysis.claims.regime import CANDIDATES, Setting, live_settings, same_arms, values_in
from analysis.errors import RunFolderError
from analysis.runs.damage import without_damaged
from analysis.runs.frames import load_runs
from analysis.settle.targets import Target
from analysis.sweeps.kept import KeptSweep, command_of, value_order


def targets_where_live(targets: Sequence[Target], runs: Path, results: Path) -> list[Target]:
    """Returns the same claims at their live settings, as the runs at hand and kept results have them.

    Of several, those that aren't about clip methods are left out. Raises RunFolderError where none is left, or a
    claim has no live setting.
    """
    about = [target for target in targets if target.claim.id in CANDIDATES]
    if not about:
        names = ", ".join(target.claim.id for target in targets)
        raise RunFolderError(f"--live: {names}: not about clip methods; go without --live")
    sweeps = without_damaged(load_runs(runs), partial(sweeps_at_hand, kept=results))
    settings = live_settings(sweeps)
    return [at_live_setting(target, settings[target.claim.id]) for target in about]


def at_live_setting(target: Target, setting: Setting | None) -> Target:
    """Returns a claim at its live setting, with the runs that it needs there.

    The setting is the one that the report judges it at now, and stays so for the whole command.
    """
    claim = target.claim
    if setting is None:
        command = command_of(CANDIDATES[claim.id][-1])
        raise RunFolderError(
            f"--live: {claim.id}: no setting that was run clips enough; first make one: {command}"
        )
    own = value_order(claim.sweep)
    chosen = {}
    for key, words in value_order(setting.sweep).items():
        known = own.get(key, words) if any("(" in word for word in words) else words  # a glob names no values
        compared = target.selected.get(key, known)
        chosen[key] = [word for word in known if word in compared and fits(claim, setting, key, word)]
    del chosen["seed"]
    there = replace(
        claim,
        sweep=setting.sweep,
        statement=f"{claim.statement}, at {setting.words}",
        effect=partial(effect_at, claim=claim, values=tuple(setting.values.values())),
    )
    arms = math.prod(map(len, chosen.values()))
    asked = [f"{key}={','.join(values)}" for key, values in chosen.items()]
    overrides = ((f"sweep={setting.sweep}", *asked, *target.extra),)
    return Target(there, overrides, arms, selected=chosen, extra=target.extra, live=True)


def fits(claim: Claim, setting: Setting, key: str, word: str) -> bool:
    """Tells whether a value of a sweep's key is the setting's, or one that the claim's own sweep has."""
    if key in setting.values:
        return float(word) == setting.values[key]
    return key == "seed" or same_arms(value_order(claim.sweep), {"arm": {key: word}})


def effect_at(kept: KeptSweep, claim: Claim, values: tuple[float, ...]) -> pd.Series:
    """Returns a claim's effect on those of a sweep's runs that are at one setting and of its arms."""
    varied = value_order(claim.sweep)
    chosen = [run for run in kept.runs if same_arms(varied, run) and values_in(kept, run) == values]
    return claim.effect(KeptSweep(kept.about, chosen)) if chosen else pd.Series(dtype=float)
