"""Rows of reasoning-gym's tasks: problems made to order, each task with a verifier of its own.

A row's ground truth holds all that the verifier needs to know (the entry and the task's settings), so that another
process than the one that made the row can judge it, on another day too.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from klear_lab.config import ConfigError, DataConfig
from klear_lab.data_source_config import ReasoningGymConfig, TaskConfig
from klear_lab.rows import Row, Source, prompt_text
from klear_lab.verify.reasoning_gym import make_task, pack


def load_reasoning_gym(source: ReasoningGymConfig, data: DataConfig) -> Source:
    """Makes RL rows of the tasks in turn, and the benchmarks; leaves out RL problems that a benchmark has too."""
    assert data.rl_rows and data.benchmark_rows  # null means all rows, and these tasks have no end
    benchmarks = {
        name: with_ids(task_rows(f"benchmarks.{name}", task, data.benchmark_rows, source.benchmark_seed), name)
        for name, task in source.benchmarks.items()
    }
    each = -(-data.rl_rows // len(source.tasks))
    by_task = [task_rows(f"tasks.{i}", task, each, data.seed) for i, task in enumerate(source.tasks)]
    rows = [row for in_turn in zip(*by_task, strict=True) for row in in_turn][: data.rl_rows]
    known = {prompt_text(row) for of in benchmarks.values() for row in of}
    kept = [row for row in rows if prompt_text(row) not in known]
    left_out = {"problem of a benchmark": len(rows) - len(kept)} if len(kept) < len(rows) else {}
    return Source([], with_ids(kept, "rl"), benchmarks, [], {"rl": left_out})


def task_rows(key: str, task: TaskConfig, size: int, seed: int) -> list[Row]:
    """Makes problems of a task, drawn by `key`, its place in the config, and `seed`.

    Raises `ConfigError` that names the key.
    """
    # reasoning-gym draws problem i by seed + i, so that seeds 0 and 1 would share all problems but one.
    drawn = int.from_bytes(hashlib.blake2b(f"{seed}-{key}".encode(), digest_size=4).digest()) // 4
    try:
        return reasoning_gym_rows(task.task, size, drawn, task.config)
    except ConfigError as error:
        raise ConfigError(f"data_source.{key}.{error}") from error


def with_ids(rows: list[Row], name: str) -> list[Row]:
    """Returns the rows with the ids <name>-0, <name>-1, and so on."""
    return [{**row, "id": f"{name}-{i}"} for i, row in enumerate(rows)]


def reasoning_gym_rows(task: str, size: int, seed: int, config: Mapping[str, Any] | None = None) -> list[Row]:
    """Makes `size` problems of a task as RL rows; `config`: the task's own settings, e.g. {"max_terms": 4}.

    Raises `ConfigError` for a task or a setting that reasoning-gym doesn't know, and where it isn't installed.
    """
    settings = dict(config or {})
    return [
        {
            "id": f"{task}-{seed}-{i}",
            "data_source": f"reasoning_gym_{task}",
            "prompt": [{"role": "user", "content": entry["question"]}],
            "ability": "reasoning",
            "reward_model": {"ground_truth": ground_truth(task, settings, entry), "style": "rule"},
        }
        for i, entry in enumerate(make_task(task, {**settings, "size": size, "seed": seed}))
    ]


def ground_truth(task: str, settings: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Writes the entry's answer and metadata, the task and its settings as JSON."""
    kept = pack({"answer": entry["answer"], "metadata": entry["metadata"]})
    return json.dumps({"task": task, "config": dict(settings), "entry": kept}, ensure_ascii=False)
