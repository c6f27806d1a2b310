"""Packs rollouts of the drawn runs, token by token, into compact JSON for the page's token explorer.

Token records (`rollouts/step_<step>.parquet`, klear_lab/rl/token_records.py) hold a few rollouts of a step's last
update. The page colours their tokens and sets two arms side by side on one prompt. What doesn't fit the byte
budget is left out, earlier steps first, and the page says how much.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis.errors import RunFolderError
from analysis.runs.damage import DamagedRunsError
from analysis.runs.files import REPAIR, one_line

BUDGET = 1_500_000  # bytes of JSON in a page of at most 5 MB
NUMBERS = ("log_prob", "old_log_prob", "ratio", "entropy", "weight")
STEP = re.compile(r"step_(\d+)")
REGIONS = ("none", "low", "high", "dual")


def explorer_data(runs: pd.DataFrame, budget: int = BUDGET) -> dict[str, Any]:
    """Returns `records`, a mapping for each run and step, latest steps first, and `left_out`, in words.

    A record has arm, seed, step and prompts.

    runs: run_id, arm, seed and folder of each run. Raises DamagedRunsError, which names every run with a record
    that can't be read.
    """
    files = [
        (int(found[1]), run, path)
        for run in runs.sort_values(["seed", "arm"]).to_dict("records")
        for path in sorted(Path(run["folder"]).glob("rollouts/step_*.parquet"))
        if (found := STEP.fullmatch(path.stem))
    ]
    records: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    used = 0
    for step, run, path in sorted(files, key=lambda file: -file[0]):
        try:
            record = {"arm": run["arm"], "seed": int(run["seed"]), "step": step, "prompts": read_prompts(path)}
        except RunFolderError as error:
            damaged.setdefault(run.get("run_id", Path(run["folder"]).name), str(error))
            continue
        used += len(embedded(record))
        if used > budget:
            break
        records.append(record)
    if damaged:
        raise DamagedRunsError(damaged)
    return {
        "records": records,
        "left_out": left_out_words(len(files) - len(records), len(files)),
        "files": len(files),
    }


def fitting(data: dict[str, Any], budget: int) -> dict[str, Any]:
    """Returns the latest records that fit a smaller budget, and what is left out."""
    records, used = [], 0
    for record in data["records"]:
        used += len(embedded(record))
        if used > budget:
            break
        records.append(record)
    files = data.get("files", 0)
    return {"records": records, "left_out": left_out_words(files - len(records), files)}


def left_out_words(missing: int, files: int) -> str:
    """Says how many token records the page lacks; "" for none."""
    return f"{missing} of {files} token records don't fit this page; the latest steps are here." if missing else ""


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Returns the prompts of one file, most clipped tokens first: id, text, and each response's tokens.

    Raises RunFolderError for a file that can't be read.
    """
    try:
        frame = pd.read_parquet(path)
        groups = [
            {
                "id": str(prompt_id),
                "text": str(rows["prompt"].iloc[0]),
                "responses": [as_response(own) for _, own in rows.groupby("response", sort=True)],
            }
            for prompt_id, rows in frame.groupby("prompt_id", sort=False)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise RunFolderError(f"{path}: not a token record ({one_line(error)}). {REPAIR}") from error

    def clipped(group: dict[str, Any]) -> int:
        return sum(region > 0 for response in group["responses"] for region in response["region"])

    return sorted(groups, key=clipped, reverse=True)


def as_response(rows: pd.DataFrame) -> dict[str, Any]:
    """Returns one response as columns; `region` is an index into REGIONS."""
    rows = rows.sort_values("position")
    columns: dict[str, Any] = {name: [short(x) for x in rows[name]] for name in NUMBERS}
    return {
        "advantage": short(rows["advantage"].iloc[0]),
        "token": rows["token"].tolist(),
        "region": [REGIONS.index(region) for region in rows["region"]],
        **columns,
    }


def short(value: float) -> float | None:
    """Returns a number with four digits; None for NaN and infinity, which JSON hasn't."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def embedded(data: dict[str, Any]) -> str:
    """Returns JSON that is safe inside of a script element: no token can end it."""
    return (
        json.dumps(data, separators=(",", ":"), allow_nan=False)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
    )
