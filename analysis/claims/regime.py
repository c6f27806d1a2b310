"""Finds, for claims about clip methods, a setting in which clipping acts, and judges them there a second time.

Clip methods differ in what they do with clipped tokens only. At the default setting fewer than two tokens in a
thousand are clipped, and a claim judged there says mostly that nothing happened. The rule for a second setting
looks at logged probes alone, never at scores:

- A setting is live where the claim's reference arms clip at least LIVE of their tokens, low and high side
  together, mean over steps, then over runs. One token in a hundred is one in every two or three responses of these
  worlds. The reference arms are those that the claim says are worse; where it compares none, all arms that it is
  measured on.
- Of the live settings that were run, in the sweeps named in CANDIDATES that are about the world of the claim's own
  runs, the one with the lowest learning rate
  counts, because it is the nearest to the default; then the one with the most seeds, then the least clipped.

The verdicts there are corrected for each other, apart from the first ones, which they don't change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.arms import as_words
from analysis.claims.claim import Claim
from analysis.claims.claims import CLAIMS
from analysis.claims.multiple_testing import ClaimVerdict, SeedEffects, judge_effects
from analysis.sweeps.effects import Run, mean_of, whole
from analysis.sweeps.kept import (
    SWEEPS,
    KeptSweep,
    as_number,
    command_of,
    config_file,
    scale_of,
    value_order,
    world_of,
)

LIVE = 0.01  # share of tokens clipped
SCALES = Path(__file__).parents[2] / "conf" / "scale"
SETTING = ("rl.learning_rate", "rl.mini_batch_prompts")  # what settings are named by
# Sweeps whose arms can judge a claim; the last one was made to be live, and its command is named where none is.
METHODS = ("figure2", "stability", "collapse", "clip_methods", "clip_live")
LADDER = ("dapo", "dapo_live")
BETAS = ("ce_gppo", "ce_gppo_live")
CE_GPPO = ("ce_gppo_methods", "clip_methods", "clip_live")
CANDIDATES: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("C7", "C8", "C9", "C10", "C18", "C24"), METHODS),
    **dict.fromkeys(("C19", "C23", "G4"), BETAS),
    **dict.fromkeys(("G1", "G2", "G3"), CE_GPPO),
    **dict.fromkeys(("D2", "D7"), LADDER),
}
AtHand = Mapping[str, tuple[KeptSweep, str]]


@dataclass(frozen=True)
class Setting:
    """Holds the runs of one setting of a sweep that can judge a claim.

    values: of the keys in SETTING, as numbers. clipped: share of the reference arms' tokens. seeds: how many have
    all arms of the claim.
    """

    kept: KeptSweep
    values: Mapping[str, float]
    clipped: float
    seeds: int

    @property
    def sweep(self) -> str:
        """Returns the sweep's name."""
        return str(self.kept.about["sweep"])

    @property
    def words(self) -> str:
        """Names the setting: "learning_rate=0.0004, mini_batch_prompts=2"."""
        return ", ".join(f"{key.rpartition('.')[2]}={value:g}" for key, value in self.values.items())


@dataclass(frozen=True)
class SecondJudgement:
    """Holds what clipping does in a claim's runs, and the verdict where it acts.

    default: share of tokens clipped in the claim's own sweep; None where it wasn't run. setting: the live one;
    None where no setting that was run is live. verdict: on the claim there. command: makes a live setting, "" with
    one.
    """

    default: float | None
    setting: Setting | None
    verdict: ClaimVerdict | None
    command: str


def judge_where_live(sweeps: AtHand) -> dict[str, SecondJudgement]:
    """Returns the second judgement of each claim about clip methods, by its id."""
    found = live_settings(sweeps)
    effects = effects_where_live(found)
    by_id = dict(zip(effects, judge_effects([*effects.values()]), strict=True))
    return {
        claim.id: SecondJudgement(
            clipped_share(claim, own.runs) if (own := sweeps.get(claim.sweep, (None,))[0]) else None,
            found[claim.id],
            by_id.get(claim.id),
            "" if claim.id in by_id else command_of(CANDIDATES[claim.id][-1]),
        )
        for claim in CLAIMS
        if claim.id in CANDIDATES
    }


def live_settings(sweeps: AtHand) -> dict[str, Setting | None]:
    """Returns the live setting of each claim about clip methods, by its id; None where none is live."""
    return {claim.id: that_counts(live_settings_of(claim, sweeps)) for claim in CLAIMS if claim.id in CANDIDATES}


def effects_where_live(settings: Mapping[str, Setting | None]) -> dict[str, SeedEffects]:
    """Returns the effects of claims at their live settings, by id; claims without one are left out."""
    of = {claim.id: claim for claim in CLAIMS}
    return {name: of[name].seed_effects(one.kept) for name, one in settings.items() if one is not None}


def that_counts(settings: Sequence[Setting]) -> Setting | None:
    """Returns the one of some live settings that counts, None where there is none."""
    return min(settings, key=lambda one: (one.values[SETTING[0]], -one.seeds, one.clipped), default=None)


def live_settings_of(claim: Claim, sweeps: AtHand) -> list[Setting]:
    """Returns the live settings that were run and can judge a claim: all of its arms are there."""
    found, varied = [], value_order(claim.sweep)
    for kept in candidates_of(claim, sweeps):
        groups: dict[tuple[float, ...], list[dict[str, Any]]] = {}
        for run in kept.runs:
            if same_arms(varied, run):
                groups.setdefault(values_in(kept, run), []).append(run)
        for values, runs in groups.items():
            own, share = KeptSweep(kept.about, runs), clipped_share(claim, runs)
            if share is not None and share >= LIVE and (seeds := len(claim.effect(own))):
                found.append(Setting(own, dict(zip(SETTING, values, strict=True)), share, seeds))
    return found


def candidates_of(claim: Claim, sweeps: AtHand) -> list[KeptSweep]:
    """Returns the sweeps at hand whose arms can judge a claim, in the world of its own runs where it has some."""
    found = [sweeps[sweep][0] for sweep in CANDIDATES[claim.id] if sweep in sweeps]
    if claim.sweep not in sweeps:
        return found
    return [kept for kept in found if world_of(kept) == world_of(sweeps[claim.sweep][0])]


def same_arms(varied: Mapping[str, Sequence[str]], run: Run) -> bool:
    """Tells whether a run has one of a sweep's clip methods, as they are; `varied` is the sweep's value order."""
    for key, value in run["arm"].items():
        if key.startswith("rl."):
            continue
        known = [as_number(word.strip()) for word in varied.get(key, ["null"])]
        if as_number(as_words(value)) not in known:
            return False
    return True


def values_in(kept: KeptSweep, run: Run) -> tuple[float, ...]:
    """Returns a run's values of the keys in SETTING."""
    return tuple(value_of(kept, run, key) for key in SETTING)


def value_of(kept: KeptSweep, run: Run, key: str) -> float:
    """Returns a run's value of a key of `rl`: its arm's, its sweep's file's, or that of its scale."""
    if key in run["arm"]:
        return float(run["arm"][key])
    name = key.rpartition(".")[2]
    for path in (SWEEPS / f"{kept.about['sweep']}.yaml", SCALES / f"{scale_of(kept)}.yaml"):
        if name in (rl := config_file(path).get("rl", {})):
            return float(rl[name])
    return float("nan")


def clipped_share(claim: Claim, runs: Sequence[Run]) -> float | None:
    """Returns the share of the reference arms' tokens that are clipped; None where it wasn't logged."""
    reference = getattr(claim.effect, "keywords", {}).get("minus") or {}
    return mean_of(runs, clipped_in, reference)


def clipped_in(run: Run) -> float | None:
    """Returns the share of a run's tokens that are clipped on either side, mean over steps."""
    low, high = whole("clip/low_fraction")(run), whole("clip/high_fraction")(run)
    return None if low is None or high is None else low + high
