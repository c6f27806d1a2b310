"""Reads run folders into tidy frames; analysis/runs/files.py reads the files.

Every folder with a `run.json` is a run and is kept, whatever its status. Other folders, such as caches
and sweeps, are ignored. A damaged run is left out and named, so that it doesn't stop the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute

from analysis.arms import arm_labels, method_label, method_name
from analysis.errors import NotComparableError, RunFolderError
from analysis.runs.files import REPAIR, MetricLines, OneRun, check_evaluated, read_evaluations, read_run
from analysis.statistics import scores

RUN_COLUMNS = [
    *("run_id", "status", "method", "arm", "seed"),
    *("seconds", "sft_from_cache", "error", "started", "finished", "folder"),
]
SCORE_COLUMNS = ["run_id", "benchmark", "step", "score", "prompts", "samples"]
SCORE_TYPES: dict[str, Any] = {"benchmark": "str", "step": int, "score": float, "prompts": float, "samples": int}
MANY = 400  # runs from which on reading them by several processes is worth their start
PART = 100  # runs read at once


@dataclass(frozen=True)
class RunFrames:
    """Holds all runs of one folder, or of one wandb project.

    runs: one row a run: run_id, status, method, arm, seed, seconds (sum over stages), sft_from_cache (None where
        the stage never came), error (last line of the traceback or None), started, finished, folder.
    metrics: one row a run, stage and step: run_id, stage, step, and a column for each metric (NaN for null and
        for not logged).
    scores: avg@n by run, benchmark and step, in the form of `statistics.scores`.
    records, configs: run.json and config.yaml as they stand, by run_id; {} where no config was written.
    damaged: of runs that are left out because they can't be read: the folder's name -> file and what is wrong.
    source: where the runs come from, in words.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    scores: pd.DataFrame
    records: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    damaged: dict[str, str] = field(default_factory=dict)
    source: str = ""


def load_runs(folder: Path) -> RunFrames:
    """Reads every run below `folder`, or the one run that `folder` is; a folder that doesn't exist holds no runs.

    A run folder that is broken, or has another's run_id, is left out and named in `damaged`.
    """
    found = [folder / "run.json"] if (folder / "run.json").exists() else sorted(folder.glob("*/run.json"))
    folders = each_once([path.parent for path in found])
    jobs = -1 if len(folders) >= MANY else 1
    parts = [folders[i : i + PART] for i in range(0, len(folders), PART)]
    read = joblib.Parallel(n_jobs=jobs)(joblib.delayed(read_runs)(part) for part in parts)
    damaged = {name: words for _, _, broken in read for name, words in broken.items()}
    runs = [run for own, _, _ in read for run in own]
    return as_frames(runs, [scored for _, scored, _ in read], damaged, str(folder))


def each_once(folders: Sequence[Path]) -> Sequence[Path]:
    """Returns folders without links to others of them, such as one called latest."""
    if not any(folder.is_symlink() for folder in folders):
        return folders
    places: dict[Path, Path] = {}
    for folder in sorted(folders, key=lambda one: (one.is_symlink(), one)):
        places.setdefault(folder.resolve(), folder)
    return sorted(places.values())


def read_runs(folders: Sequence[Path]) -> tuple[list[OneRun], pd.DataFrame, dict[str, str]]:
    """Reads some runs and computes their scores together, because run by run most time is pandas' own overhead.

    Returns the runs, their scores (`run_id` is the folder), and what is wrong with the damaged ones, by name.
    """
    runs, tables, damaged = [], {}, {}
    for folder in folders:
        try:
            run, table = read_run(folder), read_evaluations(folder / "evaluations.parquet")
        except RunFolderError as error:
            damaged[folder.resolve().name] = str(error)
            continue
        runs.append(run)
        if table is not None:
            tables[str(folder)] = table
    broken: dict[str, str] = {}
    try:
        scored = scores_of(tables)
    except RunFolderError:
        scored, broken = scores_one_by_one(tables)
    broken = lost_evaluations(runs, scored) | broken
    damaged |= {Path(where).resolve().name: words for where, words in broken.items()}
    return [run for run in runs if str(run.where) not in broken], scored, damaged


def scores_one_by_one(tables: Mapping[str, pa.Table]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns `scores_of` those tables that can be scored, and what is wrong with the others, by path."""
    found, broken = [], {}
    for where, table in tables.items():
        try:
            found.append(scores_of({where: table}))
        except RunFolderError as error:
            broken[where] = f"{Path(where) / 'evaluations.parquet'}: {error}"
    return joined(found), broken


def lost_evaluations(runs: Sequence[OneRun], scored: pd.DataFrame) -> dict[str, str]:
    """Says which evaluations finished runs lack that their metrics tell of, by the run's path."""
    by_run: dict[str, set[tuple[str, int]]] = {}
    columns = (scored[name].tolist() for name in ("run_id", "benchmark", "step"))
    for where, benchmark, step in zip(*columns, strict=True):
        by_run.setdefault(where, set()).add((benchmark, step))
    lost = {}
    for run in runs:
        where = str(run.where)
        try:
            if run.record["status"] == "finished":
                check_evaluated(Path(where) / "evaluations.parquet", run.metrics, by_run.get(where, ()))
        except RunFolderError as error:
            lost[where] = str(error)
    return lost


def as_frames(
    runs: Sequence[OneRun], found: Sequence[pd.DataFrame], damaged: Mapping[str, str], source: str
) -> RunFrames:
    """Makes frames of runs and their scores, whose `run_id` is where the run is.

    Of several runs with one run_id only the one in the folder of that name is kept, none where none has it.
    """
    copies = copied(runs)
    by_id = {run.record["run_id"]: run for run in runs if str(run.where) not in copies}
    run_ids = {str(run.where): run_id for run_id, run in by_id.items()}
    scored = joined(found)
    scored = scored.assign(run_id=scored["run_id"].astype(object).map(run_ids))
    return RunFrames(
        runs=_runs_frame(by_id),
        metrics=_metrics_frame({run_id: run.metrics for run_id, run in by_id.items()}),
        scores=scored[scored["run_id"].notna()].reset_index(drop=True),
        records={run_id: run.record for run_id, run in by_id.items()},
        configs={run_id: run.config for run_id, run in by_id.items()},
        damaged={**damaged, **{Path(where).resolve().name: words for where, words in copies.items()}},
        source=source,
    )


def copied(runs: Sequence[OneRun]) -> dict[str, str]:
    """Names the runs that have another's run_id, by where they are."""
    places: dict[str, list[str]] = {}
    for run in runs:
        places.setdefault(run.record["run_id"], []).append(str(run.where))
    found = {}
    for run_id, where in places.items():
        own = [place for place in where if Path(place).resolve().name == run_id]
        kept = own[0] if len(own) == 1 else None
        for place in where if len(where) > 1 else ():
            others = " and ".join(other for other in where if other != place)
            if place != kept:
                found[place] = f"{place}/run.json: {others} is run {run_id} too. Remove the copy."
    return found


def sweeps_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the sweeps that a run belongs to, with its arm in each."""
    return record.get("sweeps") or {}


def joined(found: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Puts frames of scores below each other; an empty one where there are none."""
    filled = [one for one in found if len(one)]
    # with the types of a filled one, which figures need
    return (
        pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=SCORE_COLUMNS).astype(SCORE_TYPES)
    )


def scores_of(tables: Mapping[str, pa.Table]) -> pd.DataFrame:
    """Returns `statistics.scores` of what `read_evaluations` returned, by path; `run_id` is the path.

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
    except (NotComparableError, ValueError) as error:
        raise RunFolderError(f"{error}. {REPAIR}") from error


def right_at_last(folder: Path) -> dict[str, dict[str, int]]:
    """Counts each prompt's right samples at the last evaluated step, by benchmark and prompt, in the order of ids.

    Raises RunFolderError as `read_evaluations`.
    """
    table = read_evaluations(folder / "evaluations.parquet")
    if table is None:
        return {}
    last = table.filter(compute.equal(table["step"], compute.max(table["step"])))
    counted = last.group_by(["benchmark", "prompt_id"], use_threads=False).aggregate([("correct", "sum")])
    found: dict[str, dict[str, int]] = {}
    for name, prompt, right in sorted(zip(*(column.to_pylist() for column in counted.columns), strict=True)):
        found.setdefault(str(name), {})[str(prompt)] = int(right)
    return found


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
    arm = record.get("arm") or {}
    method = method_name(config["clip_method"]) if config else str(arm.get("clip_method", "unknown"))
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


# the model that speaks nothing but the embedded world, whatever the scale
EMBEDDED_MODEL = "tiny"


def world_words(config: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a short name of the world of these runs, for a title, and a paragraph that says what it is."""
    data, model = (config.get("data_source") or {}).get("name"), config.get("model") or {}
    shown = model.get("path") or model.get("name")
    settings = f"data_source={data}, model={shown}, scale={config.get('scale')}"
    if model.get("name") == EMBEDDED_MODEL:
        return "embedded world, tiny model", (
            "Our numbers are about the embedded world: short generated problems, answered one character at "
            "a time by a tiny transformer that was trained from scratch for these runs. Every part is real "
            "(SFT, RL, verifier), but the size is not the paper's: nothing here is a measurement of "
            "Qwen3-8B, AIME or LiveCodeBench. Where the paper's curves stand beside ours, compare orders "
            f"and shapes, not values. Settings: {settings}."
        )
    return f"{data}, {shown}", (
        f"Our numbers are about {settings}. They are measurements of that setting only; where it isn't the "
        "paper's (Qwen3-8B, its data, 32K tokens), compare orders and shapes with the paper's curves, not "
        "values."
    )
