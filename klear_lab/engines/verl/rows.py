"""Rows as verl's data set class reads them, and in the order in which klear_lab's own loop takes them.

verl loads a prompt of plain text and a row without `data_source` without a word, and fails on them later, so they
are refused here. The file of training rows has those of all steps, one step after the other: each step of a
synchronous run trains on the same prompts as with engine=local.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from klear_lab.config import ConfigError
from klear_lab.data.row_formats import messages, must_be_text, without_answer
from klear_lab.data.write_parquet import RL_COLUMNS, TEXT, write_rows
from klear_lab.rl.phases import Phase
from klear_lab.rl.rollout import choose_prompts
from klear_lab.rows import BadRow, Row

# verl can't do without extra_info, and Parquet has no empty structs.
ABOUT = pa.struct([("index", pa.int64()), ("id", TEXT), ("data_source", TEXT), ("benchmark", TEXT)])
COLUMNS = {key: RL_COLUMNS[key] for key in ("data_source", "prompt", "ability", "reward_model")} | {
    "extra_info": ABOUT
}


def write_training_rows(phase: Phase, seed: int, rows: Sequence[Row], path: Path) -> int:
    """Writes the rows of all steps of a phase; returns their number.

    Raises `ConfigError` for a row that verl can't read.
    """
    steps, own = range(phase.start + 1, phase.start + phase.settings.steps + 1), phase.rows(rows)
    chosen = [row for step in steps for row in choose_prompts(phase, own, seed, step)]
    write_rows([verl_row(row, index) for index, row in enumerate(chosen)], COLUMNS, path)
    return len(chosen)


def write_benchmarks(benchmarks: Mapping[str, Sequence[Row]], path: Path) -> int:
    """Writes the rows of all benchmarks into one file; returns their number. verl reports by `data_source`.

    Raises `ConfigError` for a row that verl can't read.
    """
    found = [(row, name) for name, rows in benchmarks.items() for row in rows]
    write_rows([verl_row(row, index, name) for index, (row, name) in enumerate(found)], COLUMNS, path)
    return len(found)


def verl_row(row: Row, index: int, benchmark: str = "") -> dict[str, Any]:
    """Returns a row of ours as verl reads it; a benchmark's has the benchmark's name for its `data_source`.

    Raises `ConfigError` for one that verl would read without complaint and fail on later.
    """
    try:
        if isinstance(row.get("prompt"), str):
            raise BadRow("wrong type", "prompt: is plain text; must be a list of messages")
        prompt = without_answer(messages(row.get("prompt")))
        source = must_be_text(row.get("data_source"), "data_source")
        truth = must_be_text((row.get("reward_model") or {}).get("ground_truth"), "reward_model.ground_truth")
    except BadRow as problem:
        raise ConfigError(f"row {row.get('id')}: {problem}") from problem
    return {
        "data_source": benchmark or source,
        "prompt": prompt,
        "ability": row.get("ability") or "",
        "reward_model": {"ground_truth": truth, "style": row["reward_model"].get("style") or "rule"},
        "extra_info": {"index": index, "id": str(row.get("id")), "data_source": source, "benchmark": benchmark},
    }
