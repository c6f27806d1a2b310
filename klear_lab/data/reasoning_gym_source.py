"""Rows of reasoning-gym's tasks: problems made to order, each task with a verifier of its own.

What the verifier needs to know (the entry and the task's settings) stands in the row's ground truth, so that a row
can be judged by another process, or on another day, than the one that made it.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from klear_lab.config import ConfigError, DataConfig
from klear_lab.data_source_config import ReasoningGymConfig, TaskConfig
from klear_lab.rows import Row, Source, prompt_text
from klear_lab.verify.processes import Judge


def load_reasoning_gym(source: ReasoningGymConfig, data: DataConfig) -> Source:
    """RL rows of the tasks in turn, and the benchmarks; an RL problem that a benchmark has too is left out."""
    assert data.rl_rows and data.benchmark_rows  # null is for sources that have an end
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
    """Problems of a task, drawn by the key in the config and a seed. Raises `ConfigError` that names the key."""
    # reasoning-gym draws problem i by seed + i, so that seeds 0 and 1 would share all problems but one.
    drawn = int.from_bytes(hashlib.blake2b(f"{seed}-{key}".encode(), digest_size=4).digest()) // 4
    try:
        return reasoning_gym_rows(task.task, size, drawn, task.config)
    except ConfigError as error:
        raise ConfigError(f"data_source.{key}.{error}") from error


def with_ids(rows: list[Row], name: str) -> list[Row]:
    """Rows numbered within their set."""
    return [{**row, "id": f"{name}-{i}"} for i, row in enumerate(rows)]


def reasoning_gym_rows(task: str, size: int, seed: int, config: Mapping[str, Any] | None = None) -> list[Row]:
    """`size` problems of a task as RL rows; `config`: the task's own settings, e.g. {"max_terms": 4}.

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


def verify(answer: str, ground_truth: str) -> float:
    """The task's own verdict on an answer, from 0 to 1; some tasks give part of it for a near miss.

    0 for an answer that the verifier can't digest. Some verifiers hand the answer to sympy's parser, which
    evaluates it: where a model wrote it, call this in a process that may fail, with a time limit.
    """
    truth = json.loads(ground_truth)
    scorer = make_scorer(truth["task"], json.dumps(truth["config"], sort_keys=True))
    try:
        score = float(scorer.score_answer(answer.strip(), unpack(truth["entry"])))
    except Exception:  # anything, from 106 verifiers written by many hands
        return 0.0
    return min(max(score, 0.0), 1.0)


SUM = json.dumps({"task": "chain_sum", "config": {}, "entry": {"answer": "42", "metadata": {}}})
REASONING_GYM: Judge[float | None] = Judge(
    "reasoning-gym",
    verify,
    None,
    {("42", SUM): 1.0, ("43", SUM): 0.0},
    ("klear_lab.data.reasoning_gym_source", "reasoning_gym"),
    "pip install reasoning-gym",
)


def ground_truth(task: str, settings: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The entry's answer and metadata, the task and its settings, as JSON."""
    kept = pack({"answer": entry["answer"], "metadata": entry["metadata"]})
    return json.dumps({"task": task, "config": dict(settings), "entry": kept}, ensure_ascii=False)


def make_task(task: str, settings: Mapping[str, Any]) -> Any:
    """A data set of reasoning-gym. Raises `ConfigError`."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(f"task={task}: needs reasoning-gym; pip install reasoning-gym") from error
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=3) or sorted(DATASETS)
        raise ConfigError(f"task={task}: reasoning-gym has no such task; nearest: {', '.join(close)}")
    try:
        return reasoning_gym.create_dataset(task, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"task={task} with {dict(settings)}: {error}") from error


@lru_cache(maxsize=128)
def make_scorer(task: str, settings: str) -> Any:
    """The task as its verifier; `settings` is JSON."""
    return make_task(task, {**json.loads(settings), "size": 1, "seed": 0})


def pack(value: Any) -> Any:
    """A value as JSON can hold it, with tuples and keys that aren't text marked: verifiers compare by them."""
    if isinstance(value, tuple):
        return {"__tuple__": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: pack(item) for key, item in value.items()}
        return {"__pairs__": [[pack(key), pack(item)] for key, item in value.items()]}
    return value


def unpack(value: Any) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"__tuple__"}:
        return tuple(unpack(item) for item in value["__tuple__"])
    if set(value) == {"__pairs__"}:
        return {unpack(key): unpack(item) for key, item in value["__pairs__"]}
    return {key: unpack(item) for key, item in value.items()}
