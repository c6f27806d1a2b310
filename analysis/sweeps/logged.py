"""What kept results have of logged metrics and scores, of all runs at once: run by run is mostly pandas' overhead.

Shapes: L logged lines of all runs, T RL steps, M metrics. Every function returns its results by run_id; those of
one quantity leave out runs that have none.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from klear_lab.metrics import kept_names

PARTS = ["time/rollout_s", "time/reward_s", "time/train_s"]


def logged_by_run(
    metrics: pd.DataFrame, scores: pd.DataFrame, run_ids: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Returns tokens, samples, scores, curves and sft_loss of some runs, of frames that may have more.

    tokens: sampled in RL. samples: n of avg@n. The rest is described below, where it is made.
    """
    ids = [*run_ids]
    own = metrics[metrics["run_id"].isin(ids)]
    tokens, samples, final = tokens_by_run(own), samples_by_run(scores), scores_by_run(scores)
    curves, losses = curves_by_run(own), sft_losses_by_run(own)
    return {
        run_id: {
            "tokens": tokens.get(run_id, 0),
            "samples": samples.get(run_id, 0),
            "scores": final.get(run_id, {}),
            "curves": curves.get(run_id, {}),
            "sft_loss": losses.get(run_id, []),
        }
        for run_id in ids
    }


def curves_by_run(metrics: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """Returns each kept metric's values at RL steps 1, 2, ..., to four digits; None where it has none."""
    in_rl = metrics[metrics["stage"] == "rl"]
    names = [name for name in kept_names() if name in in_rl]
    step_L, values_LM = in_rl["step"].to_numpy(), in_rl[names].to_numpy(dtype=float)
    found = {}
    for run_id, lines in in_rl.groupby("run_id").indices.items():
        own_L, present_M = step_L[lines], ~np.isnan(values_LM[lines]).all(axis=0)
        values_TM = np.full((own_L.max() + 1, len(names)), np.nan)
        values_TM[own_L] = values_LM[lines]
        found[str(run_id)] = {
            names[m]: [None if math.isnan(value) else float(f"{value:.4g}") for value in values_TM[1:, m].tolist()]
            for m in np.flatnonzero(present_M)
        }
    return found


def tokens_by_run(metrics: pd.DataFrame) -> dict[str, int]:
    """Returns the response tokens of all rollouts; none where logs are of another kind.

    A step whose numbers are endless or missing counts as 0.
    """
    if not {*PARTS, "perf/tokens_per_s"} <= {*metrics.columns}:
        return {}
    in_rl = metrics[metrics["stage"] == "rl"]
    tokens_L = (in_rl["perf/tokens_per_s"] * in_rl[PARTS].sum(axis=1)).replace([np.inf, -np.inf], np.nan)
    return {str(run_id): round(total) for run_id, total in tokens_L.groupby(in_rl["run_id"]).sum().items()}


def sft_losses_by_run(metrics: pd.DataFrame) -> dict[str, list[float]]:
    """Returns the SFT loss at each logged step, to four digits, also where SFT came from the stage cache."""
    if "loss/sft" not in metrics:
        return {}
    logged = metrics[(metrics["stage"] == "sft") & metrics["loss/sft"].notna()].sort_values("step", kind="stable")
    return {
        str(run_id): [float(f"{loss:.4g}") for loss in losses]
        for run_id, losses in logged.groupby("run_id")["loss/sft"]
    }


def scores_by_run(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Returns avg@n by benchmark and step, to five digits; benchmarks in the order of their names."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    ordered = scores.sort_values(["benchmark", "step"], kind="stable")
    columns = (ordered[name].tolist() for name in ("run_id", "benchmark", "step", "score"))
    for run_id, benchmark, step, score in zip(*columns, strict=True):
        found.setdefault(run_id, {}).setdefault(str(benchmark), {})[str(step)] = round(score, 5)
    return found


def samples_by_run(scores: pd.DataFrame) -> dict[str, int]:
    """Returns n of avg@n of each run that was evaluated."""
    return {str(run_id): int(n) for run_id, n in scores.groupby("run_id")["samples"].max().items()}
