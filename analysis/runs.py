"""Reading: run folders in, tidy frames out. The only module that opens files below `runs/`.

Every folder with a `run.json` is a run and is kept, whatever its status; other folders (caches, sweeps) are
passed by. What an unfinished run may lack is tolerated here and nowhere else: its last metrics line may be
cut in half, and files it had not yet written may be missing. Anything else that is broken is an error that
names the file and what to do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from analysis.arms import arm_labels, method_label

RUN_COLUMNS = [
    *("run_id", "status", "method", "arm", "seed"),
    *("seconds", "sft_from_cache", "error", "started", "finished", "folder"),
]
METRIC_COLUMNS = ["run_id", "stage", "step", "metric", "value"]
EVALUATION_KEYS = ["benchmark", "step", "prompt_id", "sample"]
EVALUATION_COLUMNS = [*EVALUATION_KEYS, "correct", "score", "length", "truncated"]
STATUSES = ("running", "finished", "failed")
REPAIR = "Delete the run folder and run the same command again: finished runs are skipped, this one is made anew."


class RunFolderError(ValueError):
    """A run folder that cannot be trusted; the message names the file and what to do."""


@dataclass(frozen=True)
class RunFrames:
    """All runs of one folder.

    runs: one row a run: run_id, status, method, arm, seed, seconds (sum over stages), sft_from_cache (None where
        the stage never came), error (last line of the traceback or None), started, finished, folder.
    metrics: one row a run, stage, step and metric: run_id, stage, step, metric, value (null -> NaN).
    evaluations: one row a sampled response: run_id and the columns of evaluations.parquet.
    records, configs: run.json and config.yaml as they stand, by run_id; {} where no config was written.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    evaluations: pd.DataFrame
    records: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]


def load_runs(folder: Path) -> RunFrames:
    """Read every run below `folder`; a folder that does not exist holds no runs.

    Raises RunFolderError for a broken or contradictory run folder (see the module's first lines).
    """
    records: dict[str, dict[str, Any]] = {}
    configs: dict[str, dict[str, Any]] = {}
    folders: dict[str, Path] = {}
    metrics, evaluations = [], []
    for path in sorted(folder.glob("*/run.json")):
        record = read_record(path)
        run_id, finished = record["run_id"], record["status"] == "finished"
        if run_id in folders:
            raise RunFolderError(f"{path.parent} and {folders[run_id]} are both run {run_id}. Remove the copy.")
        records[run_id], folders[run_id] = record, path.parent
        configs[run_id] = read_config(path.parent / "config.yaml", finished)
        metrics.append(read_metrics(path.parent / "metrics.jsonl", finished).assign(run_id=run_id))
        evaluations.append(read_evaluations(path.parent / "evaluations.parquet", finished).assign(run_id=run_id))
    return RunFrames(
        runs=_runs_frame(records, configs, folders),
        metrics=_stack(metrics, METRIC_COLUMNS),
        evaluations=_stack(evaluations, ["run_id", *EVALUATION_COLUMNS]),
        records=records,
        configs=configs,
    )


def read_record(path: Path) -> dict[str, Any]:
    """`run.json` as a mapping. Raises RunFolderError without valid JSON, run_id, seed and a known status."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}, line {error.lineno}: not JSON ({error.msg}). {REPAIR}") from error
    missing = {"run_id", "status", "seed"} - set(record)
    if missing:
        raise RunFolderError(f"{path}: lacks {sorted(missing)}. {REPAIR}")
    if record["status"] not in STATUSES:
        raise RunFolderError(f"{path}: status {record['status']!r} is none of {STATUSES}. {REPAIR}")
    return record


def read_config(path: Path, finished: bool) -> dict[str, Any]:
    """`config.yaml` as a mapping; {} where an unfinished run has none. Raises RunFolderError where broken."""
    if not path.exists() and not finished:
        return {}
    try:
        config = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise RunFolderError(f"{path}: not YAML ({' '.join(str(error).split())}). {REPAIR}") from error
    if not isinstance(config, dict) or "name" not in (config.get("clip_method") or {}):
        raise RunFolderError(f"{path}: no clip_method.name in it. {REPAIR}")
    return config


def read_metrics(path: Path, finished: bool) -> pd.DataFrame:
    """`metrics.jsonl` in long form: stage, step, metric, value.

    A resumed run repeats the steps since its checkpoint; the later line is the one its weights came from, so
    it wins. Raises RunFolderError for a line that is not an object with stage and step, except the last line
    of an unfinished run.
    """
    if not path.exists() and not finished:
        return pd.DataFrame(columns=METRIC_COLUMNS[1:])
    lines = _read_text(path).splitlines()
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            stage, step, values = _metrics_line(line)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not finished:
                break
            raise RunFolderError(f"{path}, line {number}: not a metrics object ({error}). {REPAIR}") from error
        rows[stage, step] = values
    return pd.DataFrame(
        [(*key, metric, value) for key, values in rows.items() for metric, value in values.items()],
        columns=METRIC_COLUMNS[1:],
    )


def read_evaluations(path: Path, finished: bool) -> pd.DataFrame:
    """`evaluations.parquet`; empty where an unfinished run has none.

    Raises RunFolderError where it is unreadable, lacks a column, or holds a response twice (it would count
    double).
    """
    if not path.exists() and not finished:
        return pd.DataFrame(columns=EVALUATION_COLUMNS)
    try:
        frame = pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}). {REPAIR}") from error
    missing = [column for column in EVALUATION_COLUMNS if column not in frame]
    if missing:
        raise RunFolderError(f"{path}: lacks the columns {missing}. {REPAIR}")
    if frame.duplicated(EVALUATION_KEYS).any():
        raise RunFolderError(f"{path}: the same benchmark, step, prompt_id and sample stands twice. {REPAIR}")
    return frame[EVALUATION_COLUMNS]


def read_probes(folder: Path) -> list[dict[str, Any]]:
    """Lines of a run's probes.jsonl (histograms, most clipped tokens of each RL step), none where there are none.

    A last line cut in half is passed by. Raises RunFolderError for any other line that isn't JSON.
    """
    path = folder / "probes.jsonl"
    lines = _read_text(path).splitlines(keepends=True) if path.exists() else []
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}: not JSON lines ({error}). {REPAIR}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror}). {REPAIR}") from error


def _metrics_line(line: str) -> tuple[str, int, dict[str, float]]:
    row = json.loads(line)
    stage, step = str(row.pop("stage")), int(row.pop("step"))
    return stage, step, {key: np.nan if value is None else float(value) for key, value in row.items()}


def _stack(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True)[columns] if filled else pd.DataFrame(columns=columns)


def _runs_frame(
    records: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> pd.DataFrame:
    with_config = [run_id for run_id in records if configs[run_id]]
    labels = dict(zip(with_config, arm_labels(configs[i]["clip_method"] for i in with_config), strict=True))
    rows = [_runs_row(records[i], configs[i], labels.get(i), folders[i]) for i in records]
    # object keeps None as None
    return pd.DataFrame(rows, columns=RUN_COLUMNS, dtype=object).astype({"seconds": float})


def _runs_row(
    record: Mapping[str, Any], config: Mapping[str, Any], label: str | None, folder: Path
) -> dict[str, Any]:
    stages = record.get("stages") or {}
    method = str(
        config["clip_method"]["name"] if config else (record.get("arm") or {}).get("clip_method", "unknown")
    )
    error = record.get("error")
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "method": method,
        "arm": label or method_label(method),
        "seed": record["seed"],
        "seconds": sum(stage.get("seconds") or 0.0 for stage in stages.values()),
        "sft_from_cache": (stages.get("sft") or {}).get("from_cache"),
        "error": str(error).strip().splitlines()[-1] if error and str(error).strip() else None,
        "started": record.get("started"),
        "finished": record.get("finished"),
        "folder": folder,
    }
