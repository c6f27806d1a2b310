"""Writes prepared data as Parquet, for pandas and for data sources of files.

RL rows are in the released Klear format, SFT rows in ours (docs/data.md). The files are <out>/sft.parquet,
rl.parquet, benchmarks/<name>.parquet, and steps.json. The same rows give the same bytes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from klear_lab.config import ConfigError
from klear_lab.data.prepare import PreparedData
from klear_lab.rows import Row

# Test cases of real code rows add up to more than the 2 GB that a column of plain strings holds.
TEXT = pa.large_string()
PROMPT = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))
# Given and not inferred, so that a column that is null in every row keeps its type.
SFT_COLUMNS = {
    "prompt": PROMPT,
    "response": TEXT,
    "source": TEXT,
    "teacher": TEXT,
    "difficulty": pa.float64(),
    "correct": pa.bool_(),
}
RL_COLUMNS = {
    "id": TEXT,
    "data_source": TEXT,
    "prompt": PROMPT,
    "ability": TEXT,
    "reward_model": pa.struct([("ground_truth", TEXT), ("style", TEXT)]),
}
ROWS_A_GROUP = 1000


def write_parquet(data: PreparedData, out: Path) -> list[Path]:
    """Writes all sets into a folder and returns the files. Removes benchmarks that an earlier call wrote there.

    Raises `ConfigError` for a folder that can't be written to, or that holds something else's steps.json.
    """
    try:
        return write_all(data, out)
    except OSError as error:
        raise ConfigError(f"{error.filename or out}: {error.strerror}; choose another folder") from error


def write_all(data: PreparedData, out: Path) -> list[Path]:
    """Does the work of `write_parquet`, and raises the system's own errors."""
    folder, steps = out / "benchmarks", out / "steps.json"
    for name in benchmarks_of(steps) - set(data.benchmarks):
        (folder / f"{name}.parquet").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    # In the order of the config, which a directory listing would lose.
    about = {"steps": data.steps, "benchmarks": [*data.benchmarks]}
    steps.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sets = [(out / "sft.parquet", data.sft_rows, SFT_COLUMNS), (out / "rl.parquet", data.rl_rows, RL_COLUMNS)]
    sets += [(folder / f"{name}.parquet", rows, RL_COLUMNS) for name, rows in data.benchmarks.items()]
    for path, rows, columns in sets:
        write_rows(rows, columns, path)
    return [path for path, _, _ in sets]


def benchmarks_of(steps: Path) -> set[str]:
    """Reads which benchmarks an earlier call wrote. Raises `ConfigError` for a file that no such call wrote."""
    try:
        return set(json.loads(steps.read_text(encoding="utf-8"))["benchmarks"]) if steps.exists() else set()
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{steps}: isn't the steps of prepared data; choose another folder") from error


def write_rows(rows: Sequence[Row], columns: dict[str, Any], path: Path) -> None:
    """Writes rows in place of any old file; keys beside `columns` become columns of their values' type."""
    further = dict.fromkeys(key for row in rows for key in row if key not in columns)
    schema = pa.schema({**columns, **{key: type_of(row.get(key) for row in rows) for key in further}})
    partial = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(0, len(rows), ROWS_A_GROUP):
            writer.write_table(pa.Table.from_pylist(rows[start : start + ROWS_A_GROUP], schema))
    partial.replace(path)


def type_of(values: Iterable[Any]) -> Any:
    """Returns the Arrow type that holds all of the values."""
    return pa.array(list(values)).type
