"""verl's metrics and validations by klear_lab's names.

verl writes a line of JSON a step, in a file for each attempt. What klear_lab has and verl doesn't is missing in
metrics.jsonl.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from klear_lab.evaluate import COLUMNS
from klear_lab.metrics import metric_of
from klear_lab.storage.files import replace_file
from klear_lab.storage.run_folder import whole_lines

# Name of verl's -> name of ours. worker.py's have ours already, behind "actor/".
NAMES = {
    "actor/grad_norm": "optim/grad_norm",
    "actor/entropy": "policy/entropy",
    "actor/perf/max_memory_allocated_gb": "perf/device_memory_gib",
    "critic/score/mean": "reward/mean",
    "response_length/mean": "rollout/length_mean",
    "response_length/clip_ratio": "rollout/truncated_fraction",
    "rollout_corr/k3_kl": "policy/sampler_kl",
    "rollout_corr/rollout_is_ratio_fraction_low": "clip/mismatch_low_fraction",
    "rollout_corr/rollout_is_ratio_fraction_high": "clip/mismatch_high_fraction",
    "timing_s/gen": "time/rollout_s",
    "timing_s/testing": "time/eval_s",
    "perf/mfu/actor": "perf/mfu",
}
TRAINING = ("timing_s/old_log_prob", "timing_s/update_actor")  # their sum is ours


def our_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of one of verl's steps by our names."""
    found = {ours: line[name] for name, ours in NAMES.items() if name in line}
    for name, value in line.items():
        ours = name.removeprefix("actor/")
        if name.startswith("actor/") and metric_of(ours) is not None:
            found[ours] = value
        elif score := re.fullmatch(r"val-core/(.+)/acc/mean@(\d+)", name):
            found[f"eval/{score[1]}/avg@{score[2]}"] = value
    if any(name in line for name in TRAINING):
        found["time/train_s"] = sum(line.get(name, 0.0) for name in TRAINING)
    return {name: float(value) for name, value in found.items()}


def read_steps(folder: Path) -> dict[int, dict[str, float]]:
    """Returns our metrics of all steps that are in the folder's files, in ascending order; a later file counts."""
    steps: dict[int, dict[str, float]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in map(json.loads, whole_lines(file)):
            steps[line["step"]] = our_metrics(line["data"])
    return dict(sorted(steps.items()))


def forget_steps(folder: Path, last: int) -> None:
    """Removes what came after verl's last checkpoint, since an attempt that goes on from it writes it again."""
    for file in folder.glob("*.jsonl"):
        kept = [line for line in whole_lines(file) if json.loads(line)["step"] <= last]
        replace_file(file, "".join(kept))


def read_validation(file: Path) -> pd.DataFrame:
    """Reads all answers of one evaluation as rows of evaluations.parquet."""
    lines = [json.loads(text) for text in whole_lines(file)]
    rows = [
        {
            **{name: line[name] for name in ("benchmark", "step", "prompt_id", "reason", "length", "truncated")},
            "correct": bool(line["acc"]),
            "score": line["raw"],
            "reward": line["score"],
        }
        for line in lines
    ]
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "sample"])
    frame["sample"] = frame.groupby(["benchmark", "prompt_id"]).cumcount()
    return frame[[*COLUMNS]]


def read_answers(file: Path, count: int) -> list[dict[str, Any]]:
    """Reads the first `count` answers to each prompt of one evaluation as lines of answers.jsonl."""
    lines = [json.loads(text) for text in whole_lines(file)]
    taken: Counter[tuple[str, str]] = Counter()
    found = []
    for line in lines:
        prompt = (line["benchmark"], line["prompt_id"])
        taken[prompt] += 1
        if taken[prompt] <= count:
            known = {name: line[name] for name in ("step", "benchmark", "prompt_id")}
            answer = {"prompt": line["input"], "response": line["output"], "correct": bool(line["acc"])}
            found.append({**known, **answer})
    return found
