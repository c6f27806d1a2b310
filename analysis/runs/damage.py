"""Leaves damaged runs out, so that one of them doesn't stop what is said of all the others.

A run is damaged where one of its files can't be read or contradicts another. What is read at once (run.json,
config.yaml, metrics.jsonl, evaluations.parquet) is found by `load_runs`; probes and token records are read later
and of some runs only, so damage to them turns up in between: `without_damaged` then starts again without the run.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self, TypeVar

import pandas as pd

from analysis.errors import RunFolderError
from analysis.runs.frames import RunFrames

T = TypeVar("T")


class DamagedRunsError(RunFolderError):
    """Means that some runs turned out damaged after they were loaded. found: run_id -> file and what is wrong."""

    def __init__(self, found: Mapping[str, str]) -> None:
        """Takes what was found; the message is all of it."""
        super().__init__("; ".join(found.values()))
        self.found = dict(found)

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, str]]]:
        """Keeps what was found when the error comes from another process."""
        return type(self), (self.found,)


def without_damaged(frames: RunFrames, compute: Callable[[RunFrames], T]) -> T:
    """Returns what is computed of the runs; a run that turns out damaged is named on stderr and left out."""
    while True:
        try:
            return compute(frames)
        except DamagedRunsError as error:
            name_damaged(error.found)
            frames = leave_out(frames, error.found)


def leave_out(frames: RunFrames, found: Mapping[str, str]) -> RunFrames:
    """Returns the frames without some runs, which join the damaged ones."""

    def kept(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[~frame["run_id"].isin(found)].reset_index(drop=True)

    return replace(
        frames,
        runs=kept(frames.runs),
        metrics=kept(frames.metrics),
        scores=kept(frames.scores),
        records={run_id: record for run_id, record in frames.records.items() if run_id not in found},
        configs={run_id: config for run_id, config in frames.configs.items() if run_id not in found},
        damaged=frames.damaged | dict(found),
    )


def name_damaged(found: Mapping[str, str]) -> None:
    """Names damaged runs on stderr, a line each."""
    for run, words in found.items():
        print(f"damaged and left out: run {run}: {words}", file=sys.stderr)
