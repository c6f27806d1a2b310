"""Finds what runs put side by side differ in beside arm and seed, which alone may change a result.

A run that differs from most runs of its own arm is left out of the sweep's numbers and named, with the keys. Keys
in which whole arms differ, though the sweep doesn't vary them, can't be mended that way: they are named beside the
numbers.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.arms import as_words
from analysis.runs.comparable import SFT_SEED, compared_part, flattened

CONF = Path(__file__).parents[2] / "conf"
FOLLOWING_SEEDS = (SFT_SEED, "data.seed")  # seeds of stages, which may follow the run's own
OWN_SEED = "seed"  # stands for the value of one that does


@dataclass(frozen=True)
class Confounds:
    """Names unwanted differences between runs.

    runs: run_id -> key -> (its value there, its usual value). arms: key -> its values in the arms.
    """

    runs: dict[str, dict[str, tuple[str, str]]]
    arms: dict[str, list[str]]


def find_confounds(configs: Mapping[str, Mapping[str, Any]], arms: Mapping[str, Mapping[str, Any]]) -> Confounds:
    """Returns what runs differ in beside arm and seed; configs and arms (the swept keys' values) are by run_id."""
    flat = settings(configs)
    names = {run_id: str({key: as_words(value) for key, value in arms[run_id].items()}) for run_id in flat}
    keys = sorted({key for one in flat.values() for key in one})
    usual = {name: usual_settings(flat, names, name, keys) for name in dict.fromkeys(names.values())}
    strange = {
        run_id: {
            key: (one.get(key, "null"), usual[names[run_id]][key])
            for key in keys
            if one.get(key, "null") != usual[names[run_id]][key]
        }
        for run_id, one in flat.items()
    }
    swept = {key for arm in arms.values() for key in arm}
    explained = {key for name in swept for key in keys_of(name, keys)}
    between = {key: sorted({found[key] for found in usual.values()}) for key in keys if key not in explained}
    return Confounds(
        {run_id: found for run_id, found in strange.items() if found},
        {key: values for key, values in between.items() if len(values) > 1},
    )


def settings(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Returns what can change a result, by run and dotted key; a seed that follows the run's is OWN_SEED."""
    flat = {
        run_id: flattened({**compared_part(config), "clip_method": config.get("clip_method")})
        for run_id, config in configs.items()
    }
    seeds = {run_id: config.get("seed") for run_id, config in configs.items()}
    for key in FOLLOWING_SEEDS:
        for run_id in runs_that_follow({run_id: one.get(key) for run_id, one in flat.items()}, seeds):
            flat[run_id][key] = OWN_SEED
    return {run_id: {key: as_words(value) for key, value in one.items()} for run_id, one in flat.items()}


def runs_that_follow(values: Mapping[str, Any], seeds: Mapping[str, Any]) -> set[str]:
    """Returns the runs whose stage has the run's own seed, and not a fixed one that equals it by chance.

    values, seeds: the stage's seed and the run's own, by run. A value counts as fixed where runs of other seeds
    have it too, unless for most seeds some run follows: then those others are the exception.
    """
    same = {run_id for run_id, value in values.items() if value is not None and value == seeds[run_id]}
    if 2 * len({seeds[run_id] for run_id in same}) > len({*seeds.values()}):
        return same
    seeds_with: dict[Any, set[Any]] = {}
    for run_id, value in values.items():
        seeds_with.setdefault(value, set()).add(seeds[run_id])
    return {run_id for run_id in same if len(seeds_with[values[run_id]]) == 1}


def usual_settings(
    flat: Mapping[str, Mapping[str, str]], names: Mapping[str, str], name: str, keys: list[str]
) -> dict[str, str]:
    """Returns for each key the value that most runs of an arm have; of equally many, that which most runs have."""
    everywhere = {key: Counter(one.get(key, "null") for one in flat.values()) for key in keys}
    own = [one for run_id, one in flat.items() if names[run_id] == name]
    found = {}
    for key in keys:
        counts = Counter(one.get(key, "null") for one in own)
        found[key] = max(counts, key=lambda value: (counts[value], everywhere[key][value], value))
    return found


def keys_of(swept: str, keys: list[str]) -> set[str]:
    """Returns the keys that a swept key or group sets: its own, and what the group's files set elsewhere."""
    below = {key for key in keys if key == swept or key.startswith(f"{swept}.")}
    for path in (CONF / swept).glob("*.yaml") if "." not in swept else ():
        text = path.read_text(encoding="utf-8")
        if "@package _global_" in text:
            below |= set(flattened(yaml.safe_load(text) or {}))
    return below
