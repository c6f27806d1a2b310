"""Says what is settled: a claim of a paper, or any two arms, with the commands that run their arms' next seeds."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from analysis.arms import as_words
from analysis.claims.claim import Claim
from analysis.claims.claims import CLAIMS
from analysis.errors import RunFolderError
from analysis.paper.effects import none_published
from analysis.runs.choose import nearest
from analysis.runs.frames import RunFrames, sweeps_of
from analysis.sweeps.effects import final_score
from analysis.sweeps.from_runs import keep_runs, setting
from analysis.sweeps.kept import KeptSweep, as_number, value_order

RUN = (sys.executable, "-m", "klear_lab.run")


@dataclass(frozen=True)
class Target:
    """Holds a claim with what makes its runs.

    overrides: of one command for each list, without the seeds. arms: how many runs a seed takes. extra: those of
    the overrides that were asked for. live: the claim is judged where clipping acts. two_arms: as they were named,
    where they are no paper's claim.
    """

    claim: Claim
    overrides: tuple[tuple[str, ...], ...]
    arms: int
    two_arms: tuple[str, ...] = ()
    selected: Mapping[str, Sequence[str]] = field(default_factory=dict)
    extra: Sequence[str] = ()
    live: bool = False

    def commands(self, seeds: Sequence[int], runs: str, jobs: int) -> list[list[str]]:
        """Returns the commands that make the runs of some seeds, and skip those that are finished."""
        return [[*RUN, *overrides, "-m"] for overrides in self.overrides_of(seeds, runs, jobs)]

    def overrides_of(self, seeds: Sequence[int], runs: str, jobs: int) -> list[list[str]]:
        """Returns what each of the commands sets."""
        common = [
            *(f"seed={','.join(map(str, seeds))}", f"runs_dir={runs}"),
            *("launcher=joblib", f"hydra.launcher.n_jobs={jobs}"),
        ]
        return [[*own, *common] for own in self.overrides]


def targets_of(names: Sequence[str], every: bool, extra: Sequence[str] = ()) -> list[Target]:
    """Returns the claims that the names mean: ids, sweeps, or two arms. Raises RunFolderError for others."""
    if every:
        if names:
            raise RunFolderError(f"--all: goes without {' '.join(names)}")
        return [target_of(claim, extra) for claim in CLAIMS]
    if any("=" in name for name in names):
        return [two_arms(names, extra)]
    found: dict[str, Target] = {}
    for name in names:
        meant = [claim for claim in CLAIMS if name in (claim.id, claim.sweep)]
        if not meant:
            known = [*(claim.id for claim in CLAIMS), *dict.fromkeys(claim.sweep for claim in CLAIMS)]
            raise RunFolderError(
                f"{name}: neither a claim that needs runs nor a sweep of one{nearest(name, known)}"
            )
        found |= {claim.id: target_of(claim, extra) for claim in meant}
    if not found:
        raise RunFolderError("name a claim, a sweep, two arms as in clip_method=gppo clip_method=cispo, or --all")
    return [*found.values()]


def target_of(claim: Claim, extra: Sequence[str] = ()) -> Target:
    """Returns a claim with the runs that it needs: only those of its sweep's arms that it compares."""
    sides = [dict(getattr(claim.effect, "keywords", {}).get(side) or {}) for side in ("plus", "minus")]
    order = value_order(claim.sweep)
    compared = {
        key: [value for value in order[key] if any(value in side.get(key, ()) for side in sides)]
        for key in dict.fromkeys(key for side in sides for key in side)
    }
    arms = 1
    for key, values in order.items():
        arms *= 1 if key == "seed" else len(compared.get(key, values))
    chosen = tuple(f"{key}={','.join(values)}" for key, values in compared.items())
    return Target(claim, ((f"sweep={claim.sweep}", *chosen, *extra),), arms, selected=compared, extra=extra)


def two_arms(names: Sequence[str], extra: Sequence[str]) -> Target:
    """Returns the claim that the first of two arms ends above the second. Raises RunFolderError."""
    if len(names) != 2:
        raise RunFolderError(f"{' '.join(names)}: two arms are needed, the one that should end higher first")
    arms = [dict(word.partition("=")[::2] for word in words_of(name)) for name in names]
    if arms[0] == arms[1] or arms[0].keys() != arms[1].keys():
        raise RunFolderError(f"{' and '.join(names)}: two arms must set the same keys, to different values")
    name = " against ".join(names)
    claim = Claim(
        "arms",
        f"{names[0]} ends above {names[1]}",
        f"settle {' '.join([name, *extra])}",
        f"final avg@n, {names[0]} less {names[1]}",
        partial(gap_of_arms, arms=arms),
        none_published,
    )
    named = f"sweep_name='{claim.sweep}'"
    # a choice of one, so that runs record what was chosen: no config has the option of a group such as ladder
    overrides = tuple((*(f"{key}=choice({value})" for key, value in arm.items()), *extra, named) for arm in arms)
    return Target(claim, overrides, 2, tuple(names), dict.fromkeys(arms[0], ()), extra)


def words_of(name: str) -> list[str]:
    """Returns the overrides that name an arm. Raises RunFolderError for a quote that isn't closed."""
    try:
        return shlex.split(name)
    except ValueError as error:
        raise RunFolderError(f"{name}: can't be read ({error}); close the quote, or leave it out") from error


def gap_of_arms(kept: KeptSweep, arms: Sequence[Mapping[str, str]]) -> pd.Series:
    """Returns the final score of the first arm less that of the second, one value a seed that has both."""
    sides = []
    for arm in arms:
        own = {key: as_number(value) for key, value in arm.items()}
        chosen = [r for r in kept.runs if {key: as_number(r["arm"][key]) for key in own} == own]
        sides.append(pd.Series({run["seed"]: final_score(run) for run in chosen}, dtype=float))
    return (sides[0] - sides[1]).dropna().sort_index()


def runs_of_two_arms(frames: RunFrames, target: Target) -> KeptSweep | None:
    """Returns the finished runs that earlier batches of two arms made; None before the first."""
    sweep, keys = target.claim.sweep, [*target.selected]
    arms = {
        run_id: recorded_arm(sweeps_of(record)[sweep], frames.configs[run_id], keys)
        for run_id, record in frames.records.items()
        if record["status"] == "finished" and sweep in sweeps_of(record)
    }
    return KeptSweep({"sweep": sweep}, keep_runs(frames, arms)) if arms else None


def recorded_arm(recorded: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    """Returns a run's values of keys, as typed: what it recorded, else its config's."""
    return {key: as_words(recorded[key] if key in recorded else setting(config, key)) for key in keys}
