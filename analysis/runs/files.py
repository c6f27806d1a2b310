"""Reads and checks one run folder's files; token records are read in analysis/report/explorer.py.

What an unfinished run may lack is tolerated here and nowhere else: its last metrics line may be cut in half, and
files it had not yet written may be missing. Anything else that is broken is an error that names the file and what
to do.

Axes: L lines of metrics.jsonl, M metrics.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet
import yaml

EVALUATION_KEYS = ["benchmark", "step", "prompt_id", "sample"]
EVALUATION_COLUMNS = [*EVALUATION_KEYS, "correct", "score", "length", "truncated"]
STATUSES = ("running", "finished", "failed")
REPAIR = "Delete the run folder and run the same command again: finished runs are skipped, this one is made anew."


class RunFolderError(ValueError):
    """Means that a run folder cannot be trusted; the message names the file and what to do."""


@dataclass(frozen=True)
class MetricLines:
    """Holds the lines of one metrics.jsonl: stage and step of each, the metrics' names, and the values."""

    stages: list[str]
    steps: list[int]
    names: list[str]
    values_LM: npt.NDArray[np.float64]


@dataclass(frozen=True)
class OneRun:
    """Holds what one run wrote, its scores aside; `where` is its folder, or its address in wandb."""

    where: Path | str
    record: dict[str, Any]
    config: dict[str, Any]
    metrics: MetricLines


def read_run(folder: Path) -> OneRun:
    """Reads one run folder. Raises RunFolderError."""
    record = read_record(folder / "run.json")
    finished = record["status"] == "finished"
    return OneRun(
        folder,
        record,
        read_config(folder / "config.yaml", finished),
        read_metrics(folder / "metrics.jsonl", finished),
    )


def read_record(path: Path) -> dict[str, Any]:
    """Reads `run.json`. Raises RunFolderError without valid JSON, run_id, seed and a known status."""
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


class ConfigLoader(yaml.CSafeLoader):
    """Loads YAML safely, ten times as fast: libyaml parses, and a sweep's configs share nearly all their words."""

    def resolve(self, kind: type, value: str, implicit: tuple[bool, bool]) -> str:
        """Returns the tag of a word."""
        return resolved(kind, value, implicit)


@lru_cache(maxsize=10_000)
def resolved(kind: type, value: str, implicit: tuple[bool, bool]) -> str:
    """Resolves a word by PyYAML's own regular expressions, once for each word."""
    return str(yaml.resolver.Resolver().resolve(kind, value, implicit))


def read_config(path: Path, finished: bool) -> dict[str, Any]:
    """Reads `config.yaml`; {} where an unfinished run has none. Raises RunFolderError where it is broken."""
    if not path.exists() and not finished:
        return {}
    try:
        config = yaml.load(_read_text(path), Loader=ConfigLoader)
    except yaml.YAMLError as error:
        raise RunFolderError(f"{path}: not YAML ({' '.join(str(error).split())}). {REPAIR}") from error
    if not isinstance(config, dict) or "name" not in (config.get("clip_method") or {}):
        raise RunFolderError(f"{path}: no clip_method.name in it. {REPAIR}")
    return config


def read_metrics(path: Path, finished: bool) -> MetricLines:
    """Reads `metrics.jsonl`.

    A resumed run repeats the steps since its checkpoint; the later line is the one its weights came from, so
    it wins. Raises RunFolderError for a line that is not an object with stage and step, except the last line
    of an unfinished run.
    """
    if not path.exists() and not finished:
        return metric_lines({})
    lines = _read_text(path).splitlines()
    rows: dict[tuple[str, int], dict[str, float | None]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            stage, step, values = _metrics_line(line)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not finished:
                break
            raise RunFolderError(f"{path}, line {number}: not a metrics object ({error}). {REPAIR}") from error
        rows[stage, step] = values
    try:
        return metric_lines(rows)
    except (ValueError, TypeError) as error:
        stage, step, name = _no_number(rows)
        raise RunFolderError(f"{path}: {name} of {stage} step {step} is no number ({error}). {REPAIR}") from error


def metric_lines(rows: Mapping[tuple[str, int], Mapping[str, float | None]]) -> MetricLines:
    """Makes an array of lines by stage and step; None is NaN.

    Raises ValueError or TypeError for what is no number.
    """
    names: dict[str, Any] = {}
    for row in rows.values():
        names |= row
    values = [[*map(row.get, names)] for row in rows.values()]
    values_LM = np.array(values, dtype=float).reshape(len(rows), len(names))
    return MetricLines([stage for stage, _ in rows], [step for _, step in rows], [*names], values_LM)


def read_evaluations(path: Path, finished: bool) -> pa.Table | None:
    """Reads what scores are made of in `evaluations.parquet`: EVALUATION_KEYS and correct.

    Returns None where an unfinished run has none. Raises RunFolderError where it is unreadable or lacks a column.
    """
    if not path.exists() and not finished:
        return None
    try:
        with pyarrow.parquet.ParquetFile(path, read_dictionary=["benchmark", "prompt_id"]) as file:
            missing = [column for column in EVALUATION_COLUMNS if column not in file.schema_arrow.names]
            if missing:
                raise RunFolderError(f"{path}: lacks the columns {missing}. {REPAIR}")
            return file.read(columns=[*EVALUATION_KEYS, "correct"], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}). {REPAIR}") from error


def read_probes(folder: Path) -> list[dict[str, Any]]:
    """Reads a run's probes.jsonl (histograms, most clipped tokens of each RL step), [] where there is none.

    It skips a last line cut in half. Raises RunFolderError for any other line that isn't JSON.
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


def _metrics_line(line: str) -> tuple[str, int, dict[str, float | None]]:
    try:
        row = orjson.loads(line)  # five times as fast as json
    except orjson.JSONDecodeError:
        row = json.loads(line)  # reads Infinity too, which an overflow may have left
    return str(row.pop("stage")), int(row.pop("step")), row


def _no_number(rows: Mapping[tuple[str, int], Mapping[str, Any]]) -> tuple[str, int, str]:
    """Returns stage, step and name of the first value that is neither a number nor null."""
    return next(
        (stage, step, name)
        for (stage, step), row in rows.items()
        for name, value in row.items()
        if not isinstance(value, int | float | None)
    )
