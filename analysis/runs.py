"""Reading: run folders in, tidy frames out. The only module that opens files below `runs/`.

Every folder with a `run.json` is a run and is kept, whatever its status; other folders (caches, sweeps) are
passed by. What an unfinished run may lack is tolerated here and nowhere else: its last metrics line may be
cut in half, and files it had not yet written may be missing. Anything else that is broken is an error that
names the file and what to do.

Axes: L lines of metrics.jsonl, M metrics.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import yaml

from analysis.arms import arm_labels, method_label
from analysis.statistics import NotComparableError, right_by_prompt, scores

RUN_COLUMNS = [
    *("run_id", "status", "method", "arm", "seed"),
    *("seconds", "sft_from_cache", "error", "started", "finished", "folder"),
]
METRIC_KEYS = ["run_id", "stage", "step"]
SCORE_COLUMNS = ["run_id", "benchmark", "step", "score", "prompts", "samples"]
EVALUATION_KEYS = ["benchmark", "step", "prompt_id", "sample"]
EVALUATION_COLUMNS = [*EVALUATION_KEYS, "correct", "score", "length", "truncated"]
STATUSES = ("running", "finished", "failed")
MANY = 400  # runs from which on reading them by several processes is worth their start
PART = 100  # runs read at once
REPAIR = "Delete the run folder and run the same command again: finished runs are skipped, this one is made anew."


class RunFolderError(ValueError):
    """A run folder that cannot be trusted; the message names the file and what to do."""


@dataclass(frozen=True)
class RunFrames:
    """All runs of one folder, or of one wandb project.

    runs: one row a run: run_id, status, method, arm, seed, seconds (sum over stages), sft_from_cache (None where
        the stage never came), error (last line of the traceback or None), started, finished, folder.
    metrics: one row a run, stage and step: run_id, stage, step, and a column for each metric (NaN for null and
        for not logged).
    scores: avg@n by run, benchmark and step, in the form of `statistics.scores`.
    records, configs: run.json and config.yaml as they stand, by run_id; {} where no config was written.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    scores: pd.DataFrame
    records: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class MetricLines:
    """The lines of one metrics.jsonl: stage and step of each, the metrics' names, and the values."""

    stages: list[str]
    steps: list[int]
    names: list[str]
    values_LM: npt.NDArray[np.float64]


@dataclass(frozen=True)
class OneRun:
    """What is read of one run, its scores aside; `where` is its folder, or its address in wandb."""

    where: Path | str
    record: dict[str, Any]
    config: dict[str, Any]
    metrics: MetricLines


def load_runs(folder: Path) -> RunFrames:
    """Read every run below `folder`; a folder that does not exist holds no runs.

    Raises RunFolderError for a broken or contradictory run folder (see the module's first lines).
    """
    folders = [path.parent for path in sorted(folder.glob("*/run.json"))]
    jobs = -1 if len(folders) >= MANY else 1
    parts = [folders[i : i + PART] for i in range(0, len(folders), PART)]
    read = joblib.Parallel(n_jobs=jobs)(joblib.delayed(read_runs)(part) for part in parts)
    return as_frames([run for runs, _ in read for run in runs], [found for _, found in read])


def read_runs(folders: Sequence[Path]) -> tuple[list[OneRun], pd.DataFrame]:
    """Some runs and their scores, which are computed together: run by run pandas' own overhead is most of it."""
    runs = [read_run(folder) for folder in folders]
    paths = {
        run.record["run_id"]: folder / "evaluations.parquet" for run, folder in zip(runs, folders, strict=True)
    }
    finished = {run.record["run_id"]: run.record["status"] == "finished" for run in runs}
    tables = {str(path): read_evaluations(path, finished[run_id]) for run_id, path in paths.items()}
    found = scores_of({path: table for path, table in tables.items() if table is not None})
    run_ids = {str(path): run_id for run_id, path in paths.items()}
    return runs, found.assign(run_id=found["run_id"].astype(object).map(run_ids))


def read_run(folder: Path) -> OneRun:
    """One run folder. Raises RunFolderError."""
    record = read_record(folder / "run.json")
    finished = record["status"] == "finished"
    return OneRun(
        folder,
        record,
        read_config(folder / "config.yaml", finished),
        read_metrics(folder / "metrics.jsonl", finished),
    )


def as_frames(runs: Sequence[OneRun], found: Sequence[pd.DataFrame]) -> RunFrames:
    """Frames of runs and their scores. Raises RunFolderError where two are the same run."""
    by_id: dict[str, OneRun] = {}
    for run in runs:
        run_id = run.record["run_id"]
        if run_id in by_id:
            raise RunFolderError(f"{run.where} and {by_id[run_id].where} are both run {run_id}. Remove the copy.")
        by_id[run_id] = run
    found = [one for one in found if len(one)]
    return RunFrames(
        runs=_runs_frame(by_id),
        metrics=_metrics_frame({run_id: run.metrics for run_id, run in by_id.items()}),
        scores=pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=SCORE_COLUMNS),
        records={run_id: run.record for run_id, run in by_id.items()},
        configs={run_id: run.config for run_id, run in by_id.items()},
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


class ConfigLoader(yaml.CSafeLoader):
    """safe_load, ten times as fast: libyaml parses, and the configs of a sweep share nearly all of their words."""

    def resolve(self, kind: type, value: str, implicit: tuple[bool, bool]) -> str:
        """The tag of a word."""
        return resolved(kind, value, implicit)


@lru_cache(maxsize=10_000)
def resolved(kind: type, value: str, implicit: tuple[bool, bool]) -> str:
    """PyYAML's own resolution by regular expressions, once for each word."""
    return str(yaml.resolver.Resolver().resolve(kind, value, implicit))


def read_config(path: Path, finished: bool) -> dict[str, Any]:
    """`config.yaml` as a mapping; {} where an unfinished run has none. Raises RunFolderError where broken."""
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
    """`metrics.jsonl`.

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
    """Lines by stage and step, as an array; None is NaN. Raises ValueError or TypeError for what is no number."""
    names: dict[str, Any] = {}
    for row in rows.values():
        names |= row
    values = [[*map(row.get, names)] for row in rows.values()]
    values_LM = np.array(values, dtype=float).reshape(len(rows), len(names))
    return MetricLines([stage for stage, _ in rows], [step for _, step in rows], [*names], values_LM)


def read_evaluations(path: Path, finished: bool) -> pa.Table | None:
    """What scores are made of in `evaluations.parquet`: EVALUATION_KEYS and correct.

    None where an unfinished run has none. Raises RunFolderError where it is unreadable or lacks a column.
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


def scores_of(tables: Mapping[str, pa.Table]) -> pd.DataFrame:
    """`statistics.scores` of what `read_evaluations` returned, by path; `run_id` is the path.

    Raises RunFolderError where a response stands twice (it would count double), or prompts have unequal numbers of
    samples.
    """
    if not tables:
        return pd.DataFrame(columns=SCORE_COLUMNS)
    codes = np.repeat(np.arange(len(tables)), [*map(len, tables.values())])
    paths = pd.Categorical.from_codes(codes, pd.Index([*tables]))
    frame = pa.concat_tables(tables.values(), promote_options="permissive").to_pandas().assign(run_id=paths)
    try:
        return scores(frame).astype({"benchmark": "str"})
    except NotComparableError as error:
        raise RunFolderError(f"{error}. {REPAIR}") from error


def right_at_last(folder: Path) -> dict[str, list[int]]:
    """By benchmark: right samples of each prompt at the last evaluated step, prompts in the order of their ids.

    Raises RunFolderError as `read_evaluations`.
    """
    table = read_evaluations(folder / "evaluations.parquet", finished=True)
    frame = table.to_pandas().assign(run_id="")  # type: ignore[union-attr]
    found = right_by_prompt(frame[frame["step"] == frame["step"].max()])
    return {str(name): own["right"].astype(int).tolist() for name, own in found.groupby("benchmark")}


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


def _metrics_line(line: str) -> tuple[str, int, dict[str, float | None]]:
    try:
        row = orjson.loads(line)  # five times as fast as json
    except orjson.JSONDecodeError:
        row = json.loads(line)  # reads Infinity too, which an overflow may have left
    return str(row.pop("stage")), int(row.pop("step")), row


def _no_number(rows: Mapping[tuple[str, int], Mapping[str, Any]]) -> tuple[str, int, str]:
    """Stage, step and name of the first value that is neither a number nor null."""
    return next(
        (stage, step, name)
        for (stage, step), row in rows.items()
        for name, value in row.items()
        if not isinstance(value, int | float | None)
    )


def _metrics_frame(by_run: Mapping[str, MetricLines]) -> pd.DataFrame:
    names = dict.fromkeys(name for one in by_run.values() for name in one.names)
    places = {name: place for place, name in enumerate(names)}
    sizes = [len(one.steps) for one in by_run.values()]
    # by columns, which is how pandas keeps it: one copy of all values, not two
    values_LM = np.full((sum(sizes), len(names)), np.nan, order="F")
    start = 0
    for one, size in zip(by_run.values(), sizes, strict=True):
        values_LM[start : start + size, [places[name] for name in one.names]] = one.values_LM
        start += size
    keys = {
        "run_id": np.repeat(np.array([*by_run], dtype=object), sizes),
        "stage": [stage for one in by_run.values() for stage in one.stages],
        "step": np.array([step for one in by_run.values() for step in one.steps], dtype=int),
    }
    return pd.concat([pd.DataFrame(keys), pd.DataFrame(values_LM, columns=[*names], copy=False)], axis=1)


def _runs_frame(runs: Mapping[str, OneRun]) -> pd.DataFrame:
    with_config = [run_id for run_id, run in runs.items() if run.config]
    labels = dict(zip(with_config, arm_labels(runs[i].config["clip_method"] for i in with_config), strict=True))
    rows = [_runs_row(run.record, run.config, labels.get(run_id), run.where) for run_id, run in runs.items()]
    # object keeps None as None
    return pd.DataFrame(rows, columns=RUN_COLUMNS, dtype=object).astype({"seconds": float})


def _runs_row(
    record: Mapping[str, Any], config: Mapping[str, Any], label: str | None, folder: Path | str
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
