"""Packs which prompts each drawn run solves: those of benchmarks as counts, sampled ones with their responses.

A run solves a prompt if more than half of its responses are right. Of benchmarks only verdicts are kept
(evaluations.parquet), so their prompts are counted; sampled prompts of training have their text (samples.jsonl),
so the page sets both arms' responses side by side. What doesn't fit the byte budget is left out, earlier steps
first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.report.explorer import embedded
from analysis.report.samples import read_samples, shortened
from analysis.runs.damage import DamagedRunsError
from analysis.runs.files import RunFolderError
from analysis.runs.frames import right_at_last

BUDGET = 300_000  # bytes of JSON


def solved_data(runs: pd.DataFrame, samples: Mapping[str, int], budget: int = BUDGET) -> dict[str, Any]:
    """Returns `runs`, a mapping for each, and `left_out`, how many steps' samples don't fit.

    A run has arm, seed, samples (n of avg@n), right (by benchmark: right samples of each prompt at the last
    evaluated step) and answers (by step and prompt: a pair of right and text for each response). runs: run_id,
    arm, seed, folder. samples: n by run_id. Raises DamagedRunsError for files that can't be read.
    """
    packed, damaged = [], {}
    for run in runs.sort_values(["seed", "arm"]).to_dict("records"):
        folder = Path(run["folder"])
        try:
            right = right_at_last(folder)
            answers = answers_by_step(read_samples(folder / "samples.jsonl"))
        except RunFolderError as error:
            damaged[run["run_id"]] = str(error)
            continue
        own = {"arm": run["arm"], "seed": int(run["seed"]), "samples": samples.get(run["run_id"], 0)}
        packed.append({**own, "right": right, "answers": answers})
    if damaged:
        raise DamagedRunsError(damaged)
    return {"runs": packed, "left_out": keep_latest(packed, budget)}


def answers_by_step(lines: list[dict[str, Any]]) -> dict[int, dict[str, list[list[Any]]]]:
    """Returns right and text of each response, by step and prompt."""
    found: dict[int, dict[str, list[list[Any]]]] = {}
    for line in lines:
        own = found.setdefault(line["step"], {}).setdefault(shortened(line["prompt"]), [])
        own.append([int(line["correct"]), shortened(line["response"])])
    return found


def keep_latest(packed: list[dict[str, Any]], budget: int) -> int:
    """Takes away the answers of steps that don't fit, earlier steps first; returns how many steps that were."""
    steps = sorted({step for run in packed for step in run["answers"]}, reverse=True)
    used, kept = 0, 0
    for step in steps:
        used += sum(len(embedded(run["answers"].get(step, {}))) for run in packed)
        if used > budget:
            break
        kept += 1
    for step in steps[kept:]:
        for run in packed:
            run["answers"].pop(step, None)
    return len(steps) - kept


def has_pairs(data: Mapping[str, Any]) -> bool:
    """Tells whether two arms of one seed can be set side by side."""
    seeds = [run["seed"] for run in data["runs"] if run["right"] or run["answers"]]
    return len(seeds) > len(set(seeds))
