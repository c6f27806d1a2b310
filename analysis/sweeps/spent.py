"""Works out what RL had spent by each step, so that the page can draw curves along tokens or seconds too.

An arm's numbers are means over its runs at the same step: each list holds one number a step, from 0 at step 0 to
the last step that all its runs reached. Seconds are those of rollouts, rewards and updates, without evaluations.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.sweeps.kept import KeptSweep

PARTS = ("time/rollout_s", "time/reward_s", "time/train_s")
SPEED, LENGTH = "perf/tokens_per_s", "rollout/length_mean"
Spent = dict[str, dict[str, list[float]]]  # arm -> tokens and seconds -> a number for each step
Steps = npt.NDArray[np.float64]  # a number for each step, from step 1


def spent_of_kept(kept: KeptSweep, arms: Sequence[str]) -> Spent:
    """Returns what the arms of a kept sweep had spent; `arms`: each run's, as figures call it.

    A run's tokens are spread over its steps by their mean response length, because only their sum is kept; where
    steps sample unequal numbers of responses, that is not exact.
    """
    found: dict[str, list[tuple[Steps, Steps] | None]] = {}
    for run, arm in zip(kept.runs, arms, strict=True):
        found.setdefault(arm, []).append(kept_steps(run))
    return by_arm(found)


def kept_steps(run: Mapping[str, Any]) -> tuple[Steps, Steps] | None:
    """Returns the tokens and seconds of each step of a kept run; None where they are not known of every step."""
    curves = run["curves"]
    if not run.get("tokens") or any(name not in curves for name in (*PARTS, LENGTH)):
        return None
    seconds_T = sum(np.array(curves[part], dtype=float) for part in PARTS)
    length_T = np.array(curves[LENGTH], dtype=float)
    return known(run["tokens"] * length_T / length_T.sum(), np.asarray(seconds_T))


def spent_of_runs(metrics: pd.DataFrame, runs: pd.DataFrame) -> Spent:
    """Returns what the arms of the runs at hand had spent.

    metrics: those of RunFrames. runs: run_id and arm of each run.
    """
    rl = metrics[(metrics["stage"] == "rl") & (metrics["step"] > 0)]
    if not {*PARTS, SPEED} <= {*metrics.columns}:
        return {}
    own = {run_id: lines.sort_values("step") for run_id, lines in rl.groupby("run_id")}
    found: dict[str, list[tuple[Steps, Steps] | None]] = {}
    for run in runs.to_dict("records"):
        lines = own.get(run["run_id"])
        spent = None
        if lines is not None and [*lines["step"]] == [*range(1, len(lines) + 1)]:
            seconds_T = lines[[*PARTS]].sum(axis=1, skipna=False).to_numpy(dtype=float)
            spent = known(lines[SPEED].to_numpy(dtype=float) * seconds_T, seconds_T)
        found.setdefault(run["arm"], []).append(spent)
    return by_arm(found)


def known(tokens_T: Steps, seconds_T: Steps) -> tuple[Steps, Steps] | None:
    """Returns both, or None where a step has no finite number."""
    return (tokens_T, seconds_T) if np.isfinite([*tokens_T, *seconds_T]).all() else None


def by_arm(found: Mapping[str, Sequence[tuple[Steps, Steps] | None]]) -> Spent:
    """Returns the sums up to each step, mean over an arm's runs; none of an arm where a run has none."""
    spent = {}
    for arm, runs in found.items():
        whole = [run for run in runs if run is not None]
        if not whole or len(whole) < len(runs):
            continue
        last = min(len(tokens_T) for tokens_T, _ in whole)
        tokens_RT, seconds_RT = ([run[n][:last] for run in whole] for n in (0, 1))
        spent[arm] = {
            "tokens": [0.0, *np.mean(tokens_RT, axis=0).cumsum().round().tolist()],
            "seconds": [0.0, *np.mean(seconds_RT, axis=0).cumsum().round(1).tolist()],
        }
    return spent
