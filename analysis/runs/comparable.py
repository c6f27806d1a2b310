"""Finds runs that may stand in one comparison: finished runs that differ in nothing but clip method and seed.

Where they are written, how they are logged and which sweep asked for them cannot change a result and is
ignored. Everything else can, so runs that differ in it are kept apart and the reader gets the differing keys.
Seeds repeat in one of two ways, which aren't mixed, since their intervals mean different things: all from one SFT
checkpoint (sft.seed fixed, the default), or each with an SFT of its own (sft.seed=${seed}).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.runs.frames import RunFrames
from klear_lab.config import Config
from klear_lab.identity import CHANGES_NO_RESULT, without_later_defaults

IGNORED_KEYS = ("seed", "clip_method", *CHANGES_NO_RESULT)
MOST_DRAWN_ARMS = 8
SFT_SEED = "sft.seed"


@dataclass(frozen=True)
class ComparableSet:
    """Holds the finished runs of one comparison.

    runs: the rows of RunFrames.runs in it, one for each arm and seed.
    repeats: run_ids of further runs of the same arm and seed. They are left out, because counting a seed twice
        would make the interval too narrow; the run that started last is the one kept.
    config: the config of one of its runs, without the ignored keys.
    own_sft: whether each seed has an SFT checkpoint of its own, which its arms share.
    """

    runs: pd.DataFrame
    repeats: tuple[str, ...]
    config: dict[str, Any]
    own_sft: bool


def comparable_sets(frames: RunFrames) -> list[ComparableSet]:
    """Returns comparable sets, first the one to draw: few enough arms, most methods, most runs, latest start."""
    groups: list[list[str]] = []
    for run_id in frames.runs.loc[frames.runs["status"] == "finished", "run_id"]:
        config = frames.configs[run_id]
        matching = (group for group in groups if not differing_keys(config, frames.configs[group[0]], (SFT_SEED,)))
        group = next(matching, None)
        if group is None:
            groups.append([run_id])
        else:
            group.append(run_id)
    sets = [_set(frames, run_ids) for group in groups for run_ids in _by_seeding(frames, group)]
    # two stable sorts: latest first, then by the two counts
    sets.sort(key=lambda one: max(_start_order(one.runs)), reverse=True)
    # several sweeps in one folder may add up to a set of more arms than a figure can show
    sets.sort(
        key=lambda one: (
            one.runs["arm"].nunique() > MOST_DRAWN_ARMS,
            -one.runs["method"].nunique(),
            -len(one.runs),
        )
    )
    return [one for i, one in enumerate(sets) if not any(_ids(one) <= _ids(earlier) for earlier in sets[:i])]


def _by_seeding(frames: RunFrames, run_ids: list[str]) -> list[list[str]]:
    """Returns the runs of each fixed sft.seed, and those whose sft.seed is their seed; a run can be of both."""
    seeds = {i: (frames.configs[i].get("seed"), _sft_seed(frames, i)) for i in run_ids}
    fixed = [[i for i in run_ids if seeds[i][1] == value] for value in dict.fromkeys(s for _, s in seeds.values())]
    tied = [i for i in run_ids if seeds[i][0] == seeds[i][1]]
    return [*fixed, tied] if tied else fixed


def _sft_seed(frames: RunFrames, run_id: str) -> Any:
    return (frames.configs[run_id].get("sft") or {}).get("seed")


def _ids(one: ComparableSet) -> set[str]:
    return {*one.runs["run_id"], *one.repeats}


def compared_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a config in which comparable runs agree; runs of older code lack the latest keys."""
    known = without_later_defaults(Config, config)
    return {key: value for key, value in known.items() if key not in IGNORED_KEYS}


def differing_keys(
    config: Mapping[str, Any], reference: Mapping[str, Any], ignored: tuple[str, ...] = ()
) -> dict[str, tuple[Any, Any]]:
    """Returns the dotted keys outside IGNORED_KEYS and `ignored` in which two configs differ, with both values.

    A key that one side lacks counts as null there.
    """
    own, other = flattened(compared_part(config)), flattened(compared_part(reference))
    keys = sorted((set(own) | set(other)) - set(ignored))
    return {key: (own.get(key), other.get(key)) for key in keys if own.get(key) != other.get(key)}


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping as one level of dotted keys; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _set(frames: RunFrames, run_ids: list[str]) -> ComparableSet:
    runs = frames.runs[frames.runs["run_id"].isin(run_ids)]
    runs = runs.assign(order=_start_order(runs)).sort_values("order", kind="stable")
    kept = runs.drop_duplicates(["arm", "seed"], keep="last")
    repeats = tuple(runs.loc[~runs["run_id"].isin(kept["run_id"]), "run_id"])
    own_sft = len({_sft_seed(frames, i) for i in run_ids}) > 1
    return ComparableSet(kept.drop(columns="order"), repeats, compared_part(frames.configs[run_ids[0]]), own_sft)


def _start_order(runs: pd.DataFrame) -> pd.Series:
    # ISO times sort as text; the run_id breaks ties, so that the choice never depends on the disk
    return runs["started"].map(lambda time: str(time or "")) + " " + runs["run_id"].astype(str)
