"""Sweeps as a whole: arms that share data and SFT, two at a time, beside the same arms one after the other.

The arms beside start from nothing, each with a folder and a cache of its own, on one core. The demo's two are
among figure2's, since 0 is the default seed.
"""

import shutil
import time
from itertools import chain, product
from pathlib import Path

from bench_parts.figures import OURS, Figure
from bench_parts.work import Work

TITLE = "Sweeps"
ONE_BY_ONE = "arms one by one"
THREADS = (1,)
REPEATS = 1  # ten minutes each
GOAL = 0.4
SWEEPS = {
    "the demo: 2 arms": {"clip_method": ("gppo", "cispo"), "seed": ("0",)},
    "figure2 with 3 arms x 3 seeds": {"clip_method": ("clip_higher", "cispo", "gppo"), "seed": ("0", "1", "2")},
}


def sweeps(work: Work) -> dict[str, dict[str, tuple[str, ...]]]:
    """Returns the keys and values of each sweep, in small at most two values of a key."""
    most = 2 if work.small else None
    return {name: {key: values[:most] for key, values in axes.items()} for name, axes in SWEEPS.items()}


def measure_ours(work: Work) -> dict[str, float]:
    """Returns the seconds of each sweep."""
    found = {}
    for name, axes in sweeps(work).items():
        words = [f"{key}={','.join(values)}" for key, values in axes.items()]
        found[name] = timed(work, [*words, "launcher=joblib", "-m"])
    return found


def measure_one_by_one(work: Work) -> dict[str, float]:
    """Returns the seconds of the same arms, each from nothing; an arm of both sweeps is measured once."""
    arms = {
        name: [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]
        for name, axes in sweeps(work).items()
    }
    seconds = {arm: timed(work, [f"{k}={v}" for k, v in arm]) for arm in dict.fromkeys(chain(*arms.values()))}
    return {name: sum(seconds[arm] for arm in of_sweep) for name, of_sweep in arms.items()}


SIDES = {OURS: measure_ours, ONE_BY_ONE: measure_one_by_one}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns a figure for each sweep."""
    (sides,) = found.values()
    return [
        Figure(name, "s", {side: [one[name] for one in ones] for side, ones in sides.items()}, ONE_BY_ONE, GOAL)
        for name in SWEEPS
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Says what the demo can reach, and why nothing is repeated."""
    return [
        "The demo's two arms take as long as one of them at least, so on two cores about 0.5 of both one by one "
        "is the floor: they share data and SFT, and their RL runs at the same time. More arms share more.",
        "Measured once, since it takes ten minutes, in which what slows the machine for a moment counts little.",
    ]


def timed(work: Work, words: list[str]) -> float:
    """Returns the seconds of a command in an empty folder."""
    folder: Path = work.folder / "empty"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    work.command(*work.settings(*words, runs=folder))
    return time.perf_counter() - started
