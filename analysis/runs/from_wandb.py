"""Loads runs from wandb: a project through the public API, or offline files.

    python -m analysis --wandb my-team/klear_lab        # needs a login: wandb login
    python -m analysis --wandb path/to/copied/files     # .wandb files, or folders that hold some

wandb has each run's config, metrics and scores, but not its single responses, so what needs those is left out
(the token explorer, numbers of prompts). A run that joined a second sweep after it had ended is known there by its
first.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import RunFolderError
from analysis.runs.files import SCORE, OneRun, config_trouble, metric_lines, record_trouble, seeds_trouble
from analysis.runs.frames import SCORE_COLUMNS, RunFrames, as_frames

RECORD = "klear_lab"  # the key of a wandb config under which a run keeps what its run.json says of it
STATES = {"finished": "finished", "running": "running", "pending": "running"}  # others mean failed


def load_wandb(source: str) -> RunFrames:
    """Loads all runs of an `entity/project`, or of the `.wandb` files below a path.

    Raises RunFolderError where there is nothing to read, or something that isn't wandb's. Names runs that
    another program logged on stderr, and leaves them out.
    """
    runs, found, damaged = [], [], {}
    for where, run_id, config, rows, status, started in from_files(source) or from_api(source):
        if RECORD not in config:
            print(f"passed by: {where}, which klear_lab didn't log", file=sys.stderr)
            continue
        kept = config.pop(RECORD)
        record = {"run_id": run_id, "status": status, "started": started, "finished": None}
        record |= kept if isinstance(kept, dict) else {}
        if trouble := record_trouble(record) or config_trouble(config) or seeds_trouble(record, config):
            damaged[run_id] = f"{where}: {trouble}"
            continue
        lines = by_step(rows)
        record["stages"] = {"all": {"seconds": timed_seconds(lines.values())}}
        runs.append(OneRun(where, record, config, metric_lines(lines)))
        found.append(scores_in(where, lines))
    return as_frames(runs, found, damaged, source)


def from_files(source: str) -> list[tuple[Any, ...]]:
    """Returns where, id, config, history, status and start of each offline file; [] without such a path."""
    path = Path(source)
    if not path.exists():
        return []
    files = [path] if path.is_file() else sorted(path.rglob("*.wandb"))
    if not files:
        raise RunFolderError(f"--wandb {source}: holds no .wandb file")
    from analysis.runs.wandb_file import (
        read_file,  # not above: wandb takes a second, and most reports are of folders
    )

    read = []
    for file in files:
        try:
            one = read_file(file)
        except ValueError as error:
            raise RunFolderError(f"{file}: {error}") from error
        status = "running" if one.exit_code is None else "failed" if one.exit_code else "finished"
        started = datetime.fromtimestamp(one.started, UTC).isoformat()
        read.append((str(file), one.run_id, one.config, one.history, status, started))
    return read


def from_api(source: str) -> Iterable[tuple[Any, ...]]:
    """Yields the same of a project's runs. Raises RunFolderError where wandb says no."""
    import wandb  # not above, as in from_files

    try:
        for run in wandb.Api().runs(source):
            status = STATES.get(run.state, "failed")
            where = f"{source}/{run.id}"
            yield where, run.id, dict(run.config), run.scan_history(), status, str(run.created_at)
    except (wandb.errors.Error, ValueError) as error:
        raise RunFolderError(
            f"--wandb {source}: neither a path nor a project (entity/project) that can be read: {error}"
        ) from error


def by_step(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], dict[str, float]]:
    """Turns history rows into lines of metrics.jsonl, numbers alone, by stage and step; merges a step's rows."""
    lines: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        stage = next((stage for stage in ("sft", "rl") if row.get(f"{stage}/step") is not None), None)
        if stage is None:
            continue
        numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float) and is_metric(k)}
        lines.setdefault((stage, int(row[f"{stage}/step"])), {}).update(numbers)
    return lines


def is_metric(key: str) -> bool:
    """Tells a metric from wandb's own columns and from parts of tables and histograms."""
    return (
        not key.startswith(("_", "clip/tokens", "samples"))
        and not key.endswith("/step")
        and "_histogram" not in key
    )


def timed_seconds(lines: Iterable[Mapping[str, float]]) -> float:
    """Returns the seconds of all timed parts of all lines."""
    values = (value for line in lines for name, value in line.items() if name.startswith("time/"))
    return sum(value for value in values if math.isfinite(value))


def scores_in(where: str, lines: Mapping[tuple[str, int], Mapping[str, float]]) -> pd.DataFrame:
    """Returns a run's avg@n in the form of `statistics.scores`; the number of prompts isn't known."""
    rows = [
        (where, name["benchmark"], step, value, np.nan, int(name["samples"]))
        for (stage, step), line in lines.items()
        for metric, value in line.items()
        if stage == "rl" and (name := SCORE.fullmatch(metric))
    ]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)
