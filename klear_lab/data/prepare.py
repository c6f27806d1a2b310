"""Data preparation: source, then filters, each counted; what comes out trains, what was dropped is said.

A prepared set is a folder of JSON lines (`sft.jsonl`, `rl.jsonl`, `benchmarks/<name>.jsonl`, `steps.json`),
byte-identical for the same config.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klear_lab.config import ConfigError, DataConfig, DifficultyFilterConfig
from klear_lab.data.chain_source import Row, load_chain
from klear_lab.data.difficulty import filter_by_difficulty


@dataclass(frozen=True)
class PreparedData:
    """Training and benchmark rows, and what each preparation step took and kept."""

    sft_rows: list[Row]
    rl_rows: list[Row]
    benchmarks: dict[str, list[Row]]
    steps: list[dict[str, Any]]


def prepare_data(source: Any, data: DataConfig, difficulty: DifficultyFilterConfig) -> PreparedData:
    """Raises `ConfigError` where a step leaves no rows, naming it."""
    sft_rows, rl_rows, benchmarks = load_chain(source, data)
    kept = filter_by_difficulty(sft_rows, difficulty)
    steps = [
        {"step": f"data_source={source.name}", "set": "sft", "taken": len(sft_rows), "kept": len(sft_rows)},
        {"step": f"data_source={source.name}", "set": "rl", "taken": len(rl_rows), "kept": len(rl_rows)},
        {
            "step": f"difficulty_filter={difficulty.name}",
            "set": "sft",
            "taken": len(sft_rows),
            "kept": len(kept),
        },
    ]
    for step in steps:
        if not step["kept"]:
            raise ConfigError(f"{step['step']}: left none of {step['taken']} {step['set']} rows; widen its range")
    return PreparedData(kept, rl_rows, benchmarks, steps)


def save_prepared(data: PreparedData, folder: Path) -> None:
    """Writes the set into a folder."""
    (folder / "benchmarks").mkdir(exist_ok=True)
    write_json_lines(data.sft_rows, folder / "sft.jsonl")
    write_json_lines(data.rl_rows, folder / "rl.jsonl")
    for name, rows in data.benchmarks.items():
        write_json_lines(rows, folder / "benchmarks" / f"{name}.jsonl")
    # In the order of the config, which a directory listing would lose.
    (folder / "steps.json").write_text(json.dumps({"steps": data.steps, "benchmarks": [*data.benchmarks]}))


def load_prepared(folder: Path) -> PreparedData:
    """Reads what `save_prepared` wrote."""
    about = json.loads((folder / "steps.json").read_text())
    return PreparedData(
        read_json_lines(folder / "sft.jsonl"),
        read_json_lines(folder / "rl.jsonl"),
        {name: read_json_lines(folder / "benchmarks" / f"{name}.jsonl") for name in about["benchmarks"]},
        about["steps"],
    )


def write_json_lines(rows: Iterable[Row], path: Path) -> None:
    """One object a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json_lines(path: Path) -> list[Row]:
    """All rows of a file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
